"""One worker's prefetching at work: it takes on the tables that are in use, and tells what they are worth.

Each worker writes a ``status`` file, once a second: its tallies by rule, which it forgets with the rules, and by version, which only grow
until it ends. ``merged`` adds those of all workers up. That is what ``predis cache predictor show`` and the console read, and from what
control judges versions (``steward``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from predis.cache.link import Link
from predis.cache.predictor import published, standing
from predis.cache.predictor.arms import Arm, Arms, Named
from predis.cache.predictor.gain import HoldBack, Outcome, Tally, Watched
from predis.cache.predictor.tables import NOTHING, Tables
from predis.cache.prefetching import Caution, Prefetcher
from predis.cache.reading import SourceFailed
from predis.cache.sources.source import Source
from predis.cache.supply import Supply
from predis.clock import Clock
from predis.metrics import NOTHING as UNCOUNTED
from predis.metrics import Metrics

log = logging.getLogger(__name__)

FOLDER = "predictor"
_LOOK_S, _TELL_S, _GONE_S = 0.5, 1.0, 15.0
_ALPHA = 0.05


class Foretelling:
    """Prefetching of one gateway worker. ``run`` while it serves, ``close`` at the end.

    Args:
        folder: the cache's folder in the home.
        worker: its name among the workers.
        hold_back: share of the foretold keys that are not loaded, to measure the gain.
    """

    def __init__(
        self,
        folder: Path,
        worker: str,
        *,
        shelves: SupplyShelves,
        clock: Clock,
        hold_back: float,
        metrics: Metrics = UNCOUNTED,
    ) -> None:
        self._folder = folder / FOLDER
        self._worker = worker
        self._clock = clock
        self._began = time.time()
        self._watcher = standing.Watcher(self._folder)
        self._versions: dict[int, Tally] = {}
        self.prefetcher = Prefetcher(
            Arms(Arm(0, NOTHING)), shelves, clock=clock, caution=Caution(HoldBack(hold_back)), metrics=metrics
        )
        self.prefetcher.counted = self._count

    async def run(self) -> None:
        """Follow and tell, until cancelled."""
        told = -math.inf
        while True:
            try:
                arms = await asyncio.to_thread(
                    self._watcher.look
                )  # large tables take some tenths of a second
                self._take_on(arms)
                self.prefetcher.sweep()
            except Exception:  # an extra: what goes wrong in it reaches no client
                log.exception("looking for what was learnt failed; trying again")
            if self._clock.monotonic_s() - told >= _TELL_S:
                told = self._clock.monotonic_s()
                with contextlib.suppress(OSError):  # a full disk: told again in a second
                    self.tell()
            await asyncio.sleep(_LOOK_S)

    def look(self) -> bool:
        """Take on tables that came into use since; whether there were any."""
        return self._take_on(self._watcher.look())

    def _take_on(self, arms: Arms | None) -> bool:
        if arms is None:
            return False
        self.prefetcher.foresight = arms
        judge = self.prefetcher.judge
        others = {rule for rule in (*judge.tallies, *judge.condemned) if not isinstance(rule, Named)}
        judge.forget(arms.names | others)
        return True

    def _count(self, watched: Watched, outcome: Outcome) -> None:
        if isinstance(watched.rule, Named):
            self._versions.setdefault(watched.rule.version, Tally()).count(watched.group, outcome)

    def tell(self) -> None:
        """Write this worker's status.

        Raises:
            OSError
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"status-{self._worker}.json"
        half = path.with_suffix(f".{os.getpid()}")
        half.write_text(json.dumps(self._status()), "utf-8")
        half.replace(path)

    async def close(self) -> None:
        await self.prefetcher.close()

    def _status(self) -> dict[str, Any]:
        now = self._clock.monotonic_s()
        judge = self.prefetcher.judge
        rules = {
            **judge.condemned,
            **{rule: tally for rule, tally in judge.tallies.items() if tally.given + tally.held},
        }
        return {
            "at": time.time(),
            "began": self._began,
            "hold_back": self.prefetcher.hold_back.share,
            "dropped": dict(self.prefetcher.dropped),
            "versions": {str(version): tally.to_dict() for version, tally in sorted(self._versions.items())},
            "rules": [
                {**_named(rule)._asdict(), "tally": tally.to_dict(), "on": judge.is_on(rule, now)}
                for rule, tally in rules.items()
            ],
        }


class SupplyShelves:
    """A worker's sources and its Valkey, as prefetching needs them.

    Args:
        link: to Valkey; only asked how long keys live.

    Attributes:
        needed_s: for how long a key's value has to last, to be there when it will be read. One that does not is loaded anew.
    """

    def __init__(self, supply: Supply, link: Link) -> None:
        self._supply = supply
        self._link = link
        self._fading: set[bytes] = set()  # of those looked at last: that are there and do not last
        self.needed_s: Callable[[bytes], float] = _nothing

    def match(self, key: bytes) -> Source | None:
        return self._supply.reader.match(key)

    def has_room(self, source: Source) -> bool:
        return self._supply.has_room(source)

    async def load(self, keys: Sequence[bytes]) -> Sequence[bytes | SourceFailed | None]:
        for key in self._fading.intersection(keys):
            self._fading.discard(key)
            await self._supply.reader.renew(key)
        return await self._supply.reader.load(keys)

    async def present(self, keys: Sequence[bytes]) -> Sequence[bool]:
        lives = await self._link.ask([(b"PTTL", key) for key in keys])
        pairs = list(zip(keys, lives, strict=True))
        # Of those looked at before, whichever were to be loaded are being loaded by now.
        self._fading = {key for key, left_ms in pairs if self._fades(key, left_ms)}
        return [left_ms != -2 and key not in self._fading for key, left_ms in pairs]

    def _fades(self, key: bytes, left_ms: Any) -> bool:
        return isinstance(left_ms, int) and 0 <= left_ms < 1_000 * self.needed_s(key)


def _nothing(_key: bytes) -> float:
    return 0.0


class RuleGain(NamedTuple):
    """What one rule is worth, over all workers; ``low`` and ``high`` contain its gain with 95 %, however often one looks."""

    rule: str
    version: int
    on: bool
    tally: Tally
    low: float
    high: float


class Worth(NamedTuple):
    """What prefetching is worth now."""

    predictor: dict[str, Any] | None
    hold_back: float
    rules: tuple[RuleGain, ...]
    dropped: Counter[str]
    workers: int

    @property
    def total(self) -> Tally:
        whole = Tally()
        for one in self.rules:
            whole.add(one.tally)
        return whole

    def to_dict(self) -> dict[str, Any]:
        """For people and programs: numbers that are not known are null."""
        return {
            "predictor": self.predictor,
            "workers": self.workers,
            "hold_back": self.hold_back,
            "dropped": dict(self.dropped),
            "total": figures(self.total),
            "rules": [
                {"rule": one.rule, "version": one.version, "on": one.on, **figures(one.tally)}
                for one in self.rules
            ],
        }


def merged(folder: Path, *, now: float | None = None) -> Worth:
    """What all workers of an installation tell. Workers that have not told for a while are left out.

    Args:
        folder: the cache's folder in the home.
    """
    now = time.time() if now is None else now
    tallies: dict[Named, Tally] = {}
    on: dict[Named, bool] = {}
    dropped: Counter[str] = Counter()
    share, workers = 0.0, 0
    for told in statuses(folder, now=now).values():
        workers += 1
        share = told["hold_back"]
        dropped.update(told["dropped"])
        for entry in told["rules"]:
            rule = Named(entry["version"], entry["rule"])
            tallies.setdefault(rule, Tally()).add(Tally(**entry["tally"]))
            on[rule] = on.get(rule, False) or entry["on"]
    rules = [
        RuleGain(rule, version, on[Named(version, rule)], tally, *tally.gain_interval(_ALPHA))
        for (version, rule), tally in tallies.items()
    ]
    rules.sort(key=lambda one: (-one.tally.used, one.rule))
    return Worth(published.current(folder / FOLDER), share, tuple(rules), dropped, workers)


def statuses(folder: Path, *, now: float | None = None) -> dict[str, dict[str, Any]]:
    """What each worker tells, by its name. Those that have not told for a while are left out.

    Args:
        folder: the cache's folder in the home.
    """
    now = time.time() if now is None else now
    found = {
        path.stem.removeprefix("status-"): _told(path) for path in (folder / FOLDER).glob("status-*.json")
    }
    return {
        name: told for name, told in sorted(found.items()) if told is not None and now - told["at"] <= _GONE_S
    }


def in_use(folder: Path) -> Tables:
    """The champion's tables with those of the learner; what cannot be trusted is left out, as workers do."""
    arms = standing.Watcher(folder / FOLDER).look()
    return NOTHING if arms is None else arms.champion.tables


def learned(folder: Path) -> list[dict[str, Any]]:
    """The rules in use, surest first: what they say, how often they were right, how early.

    Args:
        folder: the cache's folder in the home.
    """
    return [
        {
            "rule": str(one.rule),
            "confidence": round(one.confidence, 4),
            "on_time": round(one.on_time, 4),
            "support": round(one.support),
            "lead_s": round(one.lead / 1e6, 4),
        }
        for one in in_use(folder).rules
    ]


def _named(rule: Hashable) -> Named:
    """What no version's tables say is said by version 0."""
    return rule if isinstance(rule, Named) else Named(0, str(rule))


def figures(tally: Tally) -> dict[str, Any]:
    low, high = tally.gain_interval(_ALPHA)
    known = {"gain": tally.gain, "precision": tally.precision, "on_time": tally.on_time}
    return {
        **tally.to_dict(),
        **{name: None if math.isnan(value) else round(value, 4) for name, value in known.items()},
        "gain_low": round(low, 4),
        "gain_high": round(high, 4),
    }


def _told(path: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None
