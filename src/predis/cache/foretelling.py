"""One worker's prefetching at work: it takes on the tables that are published, and tells what they are worth.

Each worker writes a ``status`` file with its tallies by rule, once a second; ``merged`` adds those of all workers up. That is what
``predis cache predictor show`` and the console read, and what says whether a predictor earns its keep.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from predis.cache.link import Link
from predis.cache.predictor import published
from predis.cache.predictor.gain import HoldBack, Tally
from predis.cache.predictor.tables import NOTHING
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
        self._follower = published.Follower(self._folder)
        self.prefetcher = Prefetcher(
            NOTHING, shelves, clock=clock, caution=Caution(HoldBack(hold_back)), metrics=metrics
        )

    async def run(self) -> None:
        """Follow and tell, until cancelled."""
        told = -math.inf
        while True:
            self.look()
            self.prefetcher.sweep()
            if self._clock.monotonic_s() - told >= _TELL_S:
                told = self._clock.monotonic_s()
                with contextlib.suppress(OSError):  # a full disk: told again in a second
                    self.tell()
            await asyncio.sleep(_LOOK_S)

    def look(self) -> bool:
        """Take on tables that were published since; whether there were any."""
        tables = self._follower.look()
        if tables is None:
            return False
        self.prefetcher.foresight = tables
        self.prefetcher.judge.forget(tables.names)
        return True

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
            "hold_back": self.prefetcher.hold_back.share,
            "dropped": dict(self.prefetcher.dropped),
            "rules": {
                str(rule): {"tally": tally.to_dict(), "on": judge.is_on(rule, now)}
                for rule, tally in rules.items()
            },
        }


class SupplyShelves:
    """A worker's sources and its Valkey, as prefetching needs them.

    Args:
        link: to Valkey; only asked whether keys are there.
    """

    def __init__(self, supply: Supply, link: Link) -> None:
        self._supply = supply
        self._link = link

    def match(self, key: bytes) -> Source | None:
        return self._supply.reader.match(key)

    def has_room(self, source: Source) -> bool:
        return self._supply.has_room(source)

    async def load(self, keys: Sequence[bytes]) -> Sequence[bytes | SourceFailed | None]:
        return await self._supply.reader.load(keys)

    async def present(self, keys: Sequence[bytes]) -> Sequence[bool]:
        return [bool(found) for found in await self._link.ask([(b"EXISTS", key) for key in keys])]


class RuleGain(NamedTuple):
    """What one rule is worth, over all workers; ``low`` and ``high`` contain its gain with 95 %, however often one looks."""

    rule: str
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
            "total": _figures(self.total),
            "rules": [{"rule": one.rule, "on": one.on, **_figures(one.tally)} for one in self.rules],
        }


def merged(folder: Path, *, now: float | None = None) -> Worth:
    """What all workers of an installation tell. Workers that have not told for a while are left out.

    Args:
        folder: the cache's folder in the home.
    """
    now = time.time() if now is None else now
    tallies: dict[str, Tally] = {}
    on: dict[str, bool] = {}
    dropped: Counter[str] = Counter()
    share, workers = 0.0, 0
    for path in sorted((folder / FOLDER).glob("status-*.json")):
        told = _told(path)
        if told is None or now - told["at"] > _GONE_S:
            continue
        workers += 1
        share = told["hold_back"]
        dropped.update(told["dropped"])
        for rule, entry in told["rules"].items():
            tallies.setdefault(rule, Tally()).add(Tally(**entry["tally"]))
            on[rule] = on.get(rule, False) or entry["on"]
    rules = [RuleGain(rule, on[rule], tally, *tally.gain_interval(_ALPHA)) for rule, tally in tallies.items()]
    rules.sort(key=lambda one: (-one.tally.used, one.rule))
    return Worth(published.current(folder / FOLDER), share, tuple(rules), dropped, workers)


def learned(folder: Path) -> list[dict[str, Any]]:
    """The rules of the tables in use, surest first: what they say, how often they were right, how early.

    Raises:
        IntegrityFailure: the tables are not what they should be.
    """
    entry = published.current(folder / FOLDER)
    if entry is None:
        return []
    tables = published.read(folder / FOLDER, entry["digest"])
    return [
        {
            "rule": str(one.rule),
            "confidence": round(one.confidence, 4),
            "on_time": round(one.on_time, 4),
            "support": round(one.support),
            "lead_s": round(one.lead / 1e6, 4),
        }
        for one in tables.rules
    ]


def _figures(tally: Tally) -> dict[str, Any]:
    low, high = tally.gain_interval(_ALPHA)
    figures = {"gain": tally.gain, "precision": tally.precision, "on_time": tally.on_time}
    return {
        **tally.to_dict(),
        **{name: None if math.isnan(value) else round(value, 4) for name, value in figures.items()},
        "gain_low": round(low, 4),
        "gain_high": round(high, 4),
    }


def _told(path: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None
