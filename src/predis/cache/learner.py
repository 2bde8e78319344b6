"""The learner's work: read the rings of all gateway workers, learn, and write what is known where control finds it.

It may be slow, be killed, or not run at all: gateway workers never wait for it. It looks five times a second; each second it writes
``insight.json``, which people are shown; every ten seconds ``learner.json``, from which the next learner goes on. Both are replaced
whole. A kill costs the events of the last ten seconds at most.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from predis.cache.accesses import ALL
from predis.cache.collector import Collector
from predis.cache.ring import SUFFIX, Looking
from predis.cache.ring_reader import EVENT, Consumer
from predis.cache.what_if import Present
from predis.errors import IntegrityFailure
from predis.metrics import NOTHING, Metrics

log = logging.getLogger(__name__)

INSIGHT, STATE = "insight.json", "learner.json"
RINGS = "rings"
_LOOK_S = 0.2
_SHOW_S, _SAVE_S, _DECAY_S = 1.0, 10.0, 10.0
_ALIVE_US = 5_000_000
_SERIES_S, _SERIES = 10.0, 360  # an hour of hits and misses
_OVERHEAD_BYTES = 64  # of a key, at least

Statistics = dict[str, Any]
Listener = Callable[[str, "np.ndarray[Any, Any]"], None]


class Learner:
    """Reads, learns, writes.

    Args:
        folder: the cache's folder in the home; rings are in ``rings``.
        statistics: what Valkey says of itself (``INFO``), or None; it may be slow, and is asked once a second.
        listeners: called with a worker's name and each batch of its events, after the learner.
    """

    def __init__(
        self,
        folder: Path,
        *,
        statistics: Callable[[], Statistics | None] = lambda: None,
        metrics: Metrics = NOTHING,
        listeners: tuple[Listener, ...] = (),
    ) -> None:
        self._folder = folder
        self._statistics = statistics
        self._metrics = metrics
        self._listeners = listeners
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.collector = _resumed(folder / STATE)
        self._rings: dict[str, _Ring] = {}
        self._past: deque[tuple[float, int, int]] = deque(maxlen=_SERIES)  # when, hits, misses as counters
        now = time.monotonic()
        self._shown_at = self._saved_at = self._decayed_at = now
        self._valkey: Statistics | None = None
        self._read = metrics.counter("predis_learner_reads_total")
        self._waiting = metrics.gauge("predis_learner_waiting")

    def run(self, stop: threading.Event) -> None:
        """Learn until told to stop."""
        while not stop.wait(_LOOK_S):
            self.look()
        self.close()

    def look(self) -> None:
        """Take what has come, and write what is due."""
        self._find_rings()
        workers = [ring for ring in self._rings.values() if ring.alive]
        at_it = bool(workers) and all(ring.consumer.looking is Looking.AT_IT for ring in workers)
        threshold = min((ring.consumer.threshold for ring in workers), default=ALL)
        self.collector.watch(looking=at_it, threshold=threshold)
        for ring in self._rings.values():
            self._drain(ring)
        ready = all(ring.consumer.looking is not Looking.RESTING for ring in workers)
        wanted = self.collector.curves.shards.wanted() if ready else 0
        for ring in workers:
            ring.consumer.want(wanted)
        self._waiting.set(sum(ring.consumer.lag for ring in self._rings.values()))
        self._duties(workers, at_it=at_it)

    def close(self) -> None:
        """Write everything and let go of the rings."""
        self._save()
        for ring in self._rings.values():
            ring.consumer.close()
        self._rings.clear()

    def _duties(self, workers: list[_Ring], *, at_it: bool) -> None:
        now = time.monotonic()
        if now - self._decayed_at >= _DECAY_S:
            self.collector.decay(now - self._decayed_at)
            self._decayed_at = now
        if now - self._shown_at >= _SHOW_S:
            self._shown_at = now
            self._ask_valkey()
            write(self._folder / INSIGHT, self._insight(workers, at_it=at_it))
        if now - self._saved_at >= _SAVE_S:
            self._saved_at = now
            self._save()

    def _find_rings(self) -> None:
        for name in [name for name, ring in self._rings.items() if ring.consumer.replaced]:
            ring = self._rings.pop(name)
            self._drain(ring)  # what was written before it was replaced
            ring.consumer.close()
        for path in (self._folder / RINGS).glob("*" + SUFFIX):
            if path.stem not in self._rings:
                with contextlib.suppress(
                    IntegrityFailure, OSError
                ):  # half made: there again at the next look
                    self._rings[path.stem] = _Ring(Consumer(path))

    def _drain(self, ring: _Ring) -> None:
        consumer = ring.consumer
        looked, ring.looked = consumer.looked - ring.looked, consumer.looked
        dropped, ring.dropped = consumer.dropped - ring.dropped, consumer.dropped
        if dropped > 0:
            self._metrics.counter("predis_learner_dropped_total", worker=consumer.path.stem).add(dropped)
        while True:
            events = consumer.read()
            self.collector.take(events, looked=max(0, looked))
            looked = 0
            if not len(events):
                return
            self._read.add(len(events))
            for listener in self._listeners:
                listener(consumer.path.stem, events)

    def _ask_valkey(self) -> None:
        self._valkey = found = self._statistics()
        if found is None:
            return
        self.collector.curves.tell(present_of(found))
        now = time.time()
        if not self._past or now - self._past[-1][0] >= _SERIES_S:
            self._past.append((now, found["keyspace_hits"], found["keyspace_misses"]))

    def _insight(self, workers: list[_Ring], *, at_it: bool) -> dict[str, Any]:
        now = time.time()
        return {
            "at": now,
            "workers": len(workers),
            "looking": at_it,
            "waiting": sum(ring.consumer.lag for ring in self._rings.values()),
            "dropped": sum(ring.consumer.dropped for ring in self._rings.values()),
            "valkey": self._valkey,
            "series": _series(list(self._past)),
            **self.collector.shown(int(now * 1e6)),
        }

    def _save(self) -> None:
        write(self._folder / STATE, {"event_bytes": EVENT.itemsize, **self.collector.to_dict()})


class _Ring:
    """A worker's ring, and what it had counted when it was last read."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.looked = consumer.looked
        self.dropped = consumer.dropped

    @property
    def alive(self) -> bool:
        return time.time_ns() // 1000 - self.consumer.beat_us < _ALIVE_US


def present_of(statistics: Statistics) -> Present:
    """The cache as Valkey describes it."""
    keys, limit = statistics["keys"], statistics["maxmemory"]
    used, data = statistics["used_memory"], statistics["used_memory_dataset"]
    if not limit:
        return Present(memory_bytes=used, keys=keys, limited=False, full=False)
    each = max(data / keys, _OVERHEAD_BYTES) if keys else _OVERHEAD_BYTES
    full = used >= 0.95 * limit
    room = keys if full else max(keys, (limit - (used - data)) / each)
    return Present(memory_bytes=limit, keys=room, full=full)


def write(path: Path, document: dict[str, Any]) -> None:
    """Replace a file by another, durably: readers see the one or the other, after a crash too."""
    partial = path.with_suffix(".new")
    try:
        with partial.open("w") as file:
            json.dump(document, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        log.warning("%s could not be written: %s", path, error)


def _resumed(path: Path) -> Collector:
    """What the last learner knew; from nothing where that cannot be read."""
    try:
        return Collector.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return Collector()
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.warning("%s cannot be gone on from (%s); learning begins anew", path, error)
        return Collector()


def _series(past: list[tuple[float, int, int]]) -> list[dict[str, float]]:
    """Hits and misses between two looks. Counters that fell are of a Valkey that was started anew."""
    pairs = itertools.pairwise(past)
    return [
        {"at": at, "hits": max(0, hits - before), "misses": max(0, misses - missed)}
        for (_, before, missed), (at, hits, misses) in pairs
        if hits >= before and misses >= missed
    ]
