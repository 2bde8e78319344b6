"""What became of foretold keys, by version, added up over workers that come and go.

A worker tells what it has counted since it began, so from one look to the next its figures only grow; one that began anew starts at
nothing. The ledger keeps what it saw of each worker and gives out what is new since. What a worker counted in its last second before it
ended is lost, which is a sample like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from predis.cache.predictor.gain import Tally


class Ledger:
    """Adds up.

    Args:
        seen: what an earlier ledger kept (``seen``).

    >>> ledger = Ledger()
    >>> told = {"began": 1.0, "versions": {"3": {"given": 10, "used": 9, "late": 0, "held": 2, "missed": 2}}}
    >>> ledger.take({"0": told})[3].given, ledger.take({"0": told})
    (10, {})
    """

    def __init__(self, seen: Mapping[str, Any] | None = None) -> None:
        self.seen: dict[str, Any] = dict(seen or {})

    def take(self, statuses: Mapping[str, Mapping[str, Any]]) -> dict[int, Tally]:
        """What is new of each version since the last look.

        Args:
            statuses: what each worker tells, by its name.
        """
        new: dict[int, Tally] = {}
        for worker, status in statuses.items():
            before = self.seen.get(worker, {})
            known = before.get("versions", {}) if before.get("began") == status["began"] else {}
            for version, figures in status["versions"].items():
                since = {name: count - known.get(version, {}).get(name, 0) for name, count in figures.items()}
                if any(since.values()):
                    new.setdefault(int(version), Tally()).add(Tally(**since))
            self.seen[worker] = {"began": status["began"], "versions": status["versions"]}
        for gone in set(self.seen) - set(statuses):
            del self.seen[gone]
        return new


class Latest:
    """Outcomes of late: those of the window that is being filled and of the one before.

    Args:
        window: outcomes of a window.
    """

    def __init__(
        self, window: int = 4_000, *, before: Tally | None = None, filling: Tally | None = None
    ) -> None:
        self.window = window
        self.before = before or Tally()
        self.filling = filling or Tally()

    def add(self, tally: Tally) -> None:
        if self.filling.given + self.filling.held >= self.window:
            self.before, self.filling = self.filling, Tally()
        self.filling.add(tally)

    @property
    def tally(self) -> Tally:
        both = Tally()
        both.add(self.before)
        both.add(self.filling)
        return both
