"""One process's writer of metrics: gives out handles and finds their numbers a place in the process's file.

Handles stay good whatever happens: where the disk gives no room, numbers are kept in memory only, and that is logged once.
Metrics never fail work.

The number of series of a process is bounded. When all places are taken, a series that nobody holds any more (of a version that
was unloaded, or of an earlier run of the process) makes room for a new one; when all are held, the numbers go to one series
per metric whose label values are ``other``, and how often that happened is counted.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from predis.errors import Conflict, IntegrityFailure
from predis.metrics import series
from predis.metrics.file import SUFFIX, Cells, Process, SeriesFile, Slot, slot_bytes
from predis.metrics.handles import Counter, Gauge, Handle, Histogram, memory
from predis.metrics.processes import start_ticks
from predis.metrics.table import Metric

log = logging.getLogger(__name__)

MAX_SERIES = 10_000
_OVERFLOW = "predis_series_overflow_total"
H = TypeVar("H", Counter, Gauge, Histogram)


class Metrics:
    """The numbers of one process. Counters and histograms go on where an earlier process of that name stopped; gauges begin at 0.

    Args:
        folder: where the processes of an installation have their files; ``None``: in memory only.
        process: the name of this one, such as ``serving-0``; the file's name and, for some metrics, a label.
        max_series: most series at once.
    """

    def __init__(self, folder: Path | None, process: str, *, max_series: int = MAX_SERIES) -> None:
        self.process = process
        self._max_series = max_series
        self._lock = threading.Lock()  # held while series come and go
        self._handles: dict[bytes, Handle] = {}  # of series that somebody asked for
        self._left: dict[bytes, Handle] = {}  # of series that were forgotten and still have their place
        self._slots: dict[bytes, Slot] = {}  # the place of each series in the file, oldest first
        self._free: list[Slot] = []
        self._file = _opened(folder, process) if folder else None
        self._told = False
        if self._file is not None:
            self._resume(self._file)
        self._overflow = self.counter(_OVERFLOW)

    def counter(self, name: str, **labels: str) -> Counter:
        """The handle of a counter; the same one for the same labels. ``gauge`` and ``histogram`` do likewise.

        Raises:
            InvalidInput: the table has no such counter, or it has other labels.
        """
        return self._handle(Counter, series.metric_of(name, "counter", labels=labels), labels=labels)

    def gauge(self, name: str, **labels: str) -> Gauge:
        return self._handle(Gauge, series.metric_of(name, "gauge", labels=labels), labels=labels)

    def histogram(self, name: str, **labels: str) -> Histogram:
        return self._handle(Histogram, series.metric_of(name, "histogram", labels=labels), labels=labels)

    def forget(self, **labels: str) -> None:
        """Let go of the series that have these labels, such as those of a version that was unloaded.

        Their gauges end at once. What was counted stays until its place is needed; who asks for it again goes on from there.
        """
        with self._lock:
            for key in [key for key in self._handles if series.has(key, labels)]:
                handle = self._handles.pop(key)
                if key in self._slots and not isinstance(handle, Gauge):
                    self._left[key] = handle
                else:
                    self._vacate(key, handle)

    def close(self) -> None:
        """Write no more. Handles go on in memory."""
        with self._lock:
            for handle in (*self._handles.values(), *self._left.values()):
                handle.leave()
            self._slots.clear()
            self._free.clear()
            if self._file is not None:
                self._file.close()
                self._file = None

    def _handle(self, cls: type[H], metric: Metric, *, labels: Mapping[str, str]) -> H:
        key = series.encode(metric, labels)
        with self._lock:
            found = self._handles.get(key) or self._left.pop(key, None)
            if found is None and self._has_room(metric):
                found = cls(metric, self._place(key, metric.cells))
            elif found is None:
                self._overflow.add()
                key = series.others(metric)
                found = self._handles.get(key) or cls(metric, self._place(key, metric.cells))
            self._handles[key] = found
        assert isinstance(found, cls)
        return found

    def _has_room(self, metric: Metric) -> bool:
        """Whether one more series may be made; a place is freed for it where need be."""
        if not metric.labels:
            return True
        if len(self._handles) >= self._max_series:
            return False
        if len(self._slots) >= self._max_series:
            oldest = next(key for key in self._slots if key not in self._handles)
            self._vacate(oldest, self._left.pop(oldest, None))
        return True

    def _place(self, key: bytes, cells: int) -> Cells:
        """Numbers for a series: where they stand in the file, or a new place, all zero."""
        if self._file is None:
            return memory(cells)
        slot = self._slots.get(key)
        if slot is None:
            try:
                slot = self._slots[key] = self._filled(self._file, key, cells=cells)
            except OSError as error:
                self._tell(error)
                return memory(cells)
        return slot.cells()

    def _filled(self, file: SeriesFile, key: bytes, *, cells: int) -> Slot:
        need = slot_bytes(key, cells)
        fitting = [slot for slot in self._free if slot.size >= need]
        if not fitting:
            return file.add(key, cells)
        slot = min(fitting, key=lambda slot: slot.size)
        self._free.remove(slot)
        slot.fill(key, cells)
        return slot

    def _vacate(self, key: bytes, handle: Handle | None) -> None:
        """Take a series out of the file. Who still has its handle counts in memory."""
        if handle is not None:
            handle.leave()
        slot = self._slots.pop(key, None)
        if slot is not None:
            slot.free()
            self._free.append(slot)

    def _resume(self, file: SeriesFile) -> None:
        for slot in file.slots:
            key = slot.key if slot.live else b""
            found = series.decode(key)
            if found is None or found.metric.kind == "gauge" or key in self._slots:
                slot.free()
                self._free.append(slot)
            else:
                self._slots[key] = slot

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "some metrics of %s are kept in memory only, where nobody sees them: %s", self.process, error
            )


class _Nothing(Metrics):
    """Takes everything and keeps nothing."""

    def _handle(self, cls: type[H], metric: Metric, *, labels: Mapping[str, str]) -> H:
        return cls(metric, memory(metric.cells))


def _opened(folder: Path, process: str) -> SeriesFile | None:
    """The process's file; one that cannot be gone on with is set aside. ``None`` where there can be none."""
    path = folder / (process + SUFFIX)
    writer = Process(os.getpid(), start_ticks(os.getpid()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return SeriesFile(path, writer)
        except IntegrityFailure as error:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            log.warning("%s; it is kept as %s and counting begins anew", error, aside.name)
            return SeriesFile(path, writer)
    except (OSError, Conflict) as error:
        log.warning("metrics of %s are kept in memory only, where nobody sees them: %s", process, error)
        return None


NOTHING: Metrics = _Nothing(None, "nothing")
