"""What the steward knows of versions but for which are in use: evidence and decisions, in a file that may be lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from predis.cache.predictor import published
from predis.cache.predictor.gain import Tally
from predis.cache.predictor.ledger import Latest, Ledger

log = logging.getLogger(__name__)

FILE = "steward.json"
_DECISIONS = 100


@dataclass
class Trial:
    """A candidate's outcomes and the champion's, since it began.

    Attributes:
        run: the training run that ends with it; empty for none.
    """

    version: int
    run: str
    began_ns: int
    champion: Tally = field(default_factory=Tally)
    candidate: Tally = field(default_factory=Tally)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "champion": self.champion.to_dict(), "candidate": self.candidate.to_dict()}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Trial:
        tallies = {side: Tally(**document[side]) for side in ("champion", "candidate")}
        return cls(**{**document, **tallies})


@dataclass
class Records:
    """Evidence and decisions.

    Attributes:
        latest: the champion's outcomes of late.
        gain: the champion's when it was promoted, where that is known.
        history: the champions before this one, the first first; 0 among them for none.
        decisions: oldest first.
    """

    ledger: Ledger = field(default_factory=Ledger)
    trial: Trial | None = None
    latest: Latest = field(default_factory=Latest)
    gain: float | None = None
    history: list[int] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)

    def decided(self, decision: Mapping[str, Any]) -> None:
        self.decisions = [*self.decisions, dict(decision)][-_DECISIONS:]

    def write(self, folder: Path) -> None:
        """
        Raises:
            OSError
        """
        document = {
            "seen": self.ledger.seen,
            "trial": self.trial and self.trial.to_dict(),
            "latest": [self.latest.before.to_dict(), self.latest.filling.to_dict()],
            "gain": self.gain,
            "history": self.history,
            "decisions": self.decisions,
        }
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        published.write(folder / FILE, json.dumps(document).encode())

    @classmethod
    def read(cls, folder: Path) -> Records:
        """What an earlier process knew; nothing where that cannot be read."""
        try:
            document = json.loads((folder / FILE).read_bytes())
            before, filling = (Tally(**one) for one in document["latest"])
            return cls(
                Ledger(document["seen"]),
                document["trial"] and Trial.of(document["trial"]),
                Latest(before=before, filling=filling),
                document["gain"],
                list(document["history"]),
                list(document["decisions"]),
            )
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError) as error:
            log.warning("%s cannot be read (%s); evidence is gathered anew", FILE, error)
        return cls()
