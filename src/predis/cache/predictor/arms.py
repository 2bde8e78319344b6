"""What a worker foretells by: the champion's tables, and for a share of the keys a candidate's.

While a new version is tried, keys are shared out by a hash, the same in every worker: those of the candidate's share are foretold by the
candidate's tables alone, all others by the champion's alone. So each key has one fate, and what is measured of the two (the hold-back is
within each) is of the same hours and the same clients. Which share a key is in differs from candidate to candidate.

Both have the learner's newest tables added (``online``): what was learnt since the last training serves whichever version is in use, and
cannot tell the two apart. Version 0 is the online tables alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from predis.cache.predictor.gain import HoldBack
from predis.cache.predictor.tables import Matched, Tables


class Named(NamedTuple):
    """A rule of a version."""

    version: int
    rule: str


class Arm(NamedTuple):
    """A version and its tables, with those of the learner."""

    version: int
    tables: Tables


class Arms:
    """The foresight of one worker.

    Args:
        candidate: who answers for ``share`` of the keys.
    """

    def __init__(self, champion: Arm, candidate: Arm | None = None, *, share: float = 0.0) -> None:
        self.champion = champion
        self.candidate = candidate
        self._lot = HoldBack(share, salt=f"candidate {candidate.version}" if candidate else "")

    @property
    def names(self) -> frozenset[Named]:
        """The rules that both speak for."""
        arms = [self.champion] if self.candidate is None else [self.champion, self.candidate]
        return frozenset(Named(arm.version, rule) for arm in arms for rule in arm.tables.names)

    def after(self, key: bytes, source: Matched, *, value: bytes | None) -> Sequence[tuple[Named, bytes]]:
        """Keys expected soon after this one was read, each with the rule that says so, the surest first."""
        version, tables = self.champion
        found = tables.after(key, source, value=value)
        if self.candidate is not None:
            return self._shared_out(found, self.candidate.tables.after(key, source, value=value))
        return [(Named(version, rule), then) for rule, then in found] if found else ()

    def _shared_out(
        self, found: Sequence[tuple[str, bytes]], other: Sequence[tuple[str, bytes]]
    ) -> Sequence[tuple[Named, bytes]]:
        """What the champion says of its keys, and the candidate of its own."""
        assert self.candidate is not None
        if not found and not other:
            return ()
        mine, champion, candidate = self._lot.holds, self.champion.version, self.candidate.version
        return [
            *((Named(champion, rule), then) for rule, then in found if not mine(then)),
            *((Named(candidate, rule), then) for rule, then in other if mine(then)),
        ]


def joined(trained: Tables, online: Tables) -> Tables:
    """A version's tables with what the learner has found since; of what both say, the learner's."""
    rules = {one.rule: one for one in (*trained.rules, *online.rules)}
    surest = sorted(rules.values(), key=lambda one: (-one.on_time, str(one.rule)))
    return replace(online, rules=tuple(surest), followers={**trained.followers, **online.followers})
