"""Which versions of the predictor are in use: from control, which decides, to the gateway's workers, which follow.

Control writes the tables of each version under their digest and then replaces ``standing.json``, which names them; both whole, or not at
all. The learner's newest tables come beside it (``published``). A worker looks at both files' times. A version whose tables are not what
their digest says is left out, with a line in the log: the worker goes on by the learner's alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from predis.cache.predictor.arms import Arm, Arms, joined
from predis.cache.predictor.published import Follower, write
from predis.cache.predictor.tables import NOTHING, Tables
from predis.errors import IntegrityFailure

log = logging.getLogger(__name__)

STANDING = "standing.json"


@dataclass(frozen=True)
class Standing:
    """Champion and candidate, by number and digest; number 0: none, the learner's tables serve alone.

    Attributes:
        share: of the keys, that the candidate answers for.
        reference: how many reads of each kind of key the champion was trained on, which the learner compares today's with.
    """

    champion: int = 0
    champion_digest: str = ""
    candidate: int = 0
    candidate_digest: str = ""
    share: float = 0.0
    reference: Mapping[str, int] = field(default_factory=dict)


def read(folder: Path) -> Standing:
    """What is in use; nothing where control has not said."""
    try:
        document = json.loads((folder / STANDING).read_bytes())
        return Standing(**document)
    except FileNotFoundError:
        return Standing()
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s cannot be read (%s): only what the learner finds is foretold", STANDING, error)
        return Standing()


def establish(folder: Path, standing: Standing, *, artifacts: Mapping[str, bytes]) -> None:
    """Make this what is in use.

    Args:
        artifacts: the tables of the versions named, by digest.

    Raises:
        OSError: the disk does not take it; what is in use stays.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    named = {digest for digest in (standing.champion_digest, standing.candidate_digest) if digest}
    for digest in named:
        write(folder / _name(digest), artifacts[digest])  # anew, should the file have been damaged
    write(folder / STANDING, json.dumps(asdict(standing)).encode())
    for path in set(folder.glob("version-*")) - {folder / _name(digest) for digest in named}:
        path.unlink(missing_ok=True)


def damaged(folder: Path, standing: Standing) -> bool:
    """Whether a file of the versions in use is gone, or is not what its digest says."""
    for digest in (standing.champion_digest, standing.candidate_digest):
        try:
            if digest and hashlib.sha256((folder / _name(digest)).read_bytes()).hexdigest() != digest:
                return True
        except OSError:
            return True
    return False


class Watcher:
    """A worker's eye on what is in use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._follower = Follower(folder)
        self._online = NOTHING
        self._stamp: Any = None
        self._standing = Standing()
        self._trained: dict[str, Tables] = {}

    def look(self) -> Arms | None:
        """What to foretell by, where that has changed since the last look."""
        online, changed = self._follower.look(), self._look_at_standing()
        if online is None and not changed:
            return None
        self._online = self._online if online is None else online
        standing = self._standing
        champion = self._arm(standing.champion, standing.champion_digest)
        if not standing.candidate:
            return Arms(champion)
        candidate = self._arm(standing.candidate, standing.candidate_digest)
        return Arms(champion, candidate, share=standing.share)

    def _look_at_standing(self) -> bool:
        try:
            found = (self._folder / STANDING).stat()
        except OSError:
            return False
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._standing = standing = read(self._folder)
        named = [digest for digest in (standing.champion_digest, standing.candidate_digest) if digest]
        self._trained = {digest: self._tables(digest) for digest in named}
        return True

    def _tables(self, digest: str) -> Tables:
        known = self._trained.get(digest)
        if known is not None and known is not NOTHING:
            return known
        try:
            contents = (self._folder / _name(digest)).read_bytes()
            return Tables.load(contents, digest=digest)
        except (OSError, IntegrityFailure) as error:
            log.warning("a version of the predictor is left out: %s", error)
            return NOTHING

    def _arm(self, version: int, digest: str) -> Arm:
        return Arm(version, joined(self._trained.get(digest, NOTHING), self._online))


def _name(digest: str) -> str:
    return f"version-{digest[:16]}.json.zst"
