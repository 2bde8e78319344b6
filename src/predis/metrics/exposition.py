"""What Prometheus reads: the numbers of all processes of an installation, added up, in its text format 0.0.4.

Any process can make it from the files. Counters and histograms of processes that are gone stay in: a sum must not fall because
a worker ended. Their gauges do not: they tell nothing any more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from predis.errors import IntegrityFailure
from predis.metrics import processes, series
from predis.metrics.file import SUFFIX, Reading
from predis.metrics.table import TABLE, Metric

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_EXACT = 2**53
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})
_LABEL_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

Labels = tuple[tuple[str, str], ...]
Numbers = dict[str, dict[Labels, list[float]]]  # by metric, then by labels


def exposition(folder: Path, *, tenant: str | None = None) -> bytes:
    """Text of all metrics of the processes that have their files in ``folder``.

    It reads files and takes milliseconds: call it in a thread where an event loop must not wait.

    Args:
        tenant: leave out the series of other tenants. Those that belong to no tenant are always in.
    """
    numbers = collected(folder)
    lines = [
        line
        for metric in TABLE.values()
        for line in _lines(metric, numbers.get(metric.name, {}), tenant=tenant)
    ]
    return "".join(lines).encode()


def collected(folder: Path) -> Numbers:
    """The numbers of all processes, added up as the table says. A histogram's are the counts of its buckets and the sum."""
    numbers: Numbers = {name: {} for name in TABLE}
    for path in sorted(folder.glob("*" + SUFFIX)):
        try:
            with Reading(path) as reading:
                _add_file(numbers, reading, process=path.stem)
        except (IntegrityFailure, OSError) as error:
            _tell(path, str(error))
    return numbers


def _add_file(numbers: Numbers, reading: Reading, *, process: str) -> None:
    for key, cells in reading.series():
        found = series.decode(key)
        if found is None or len(cells) != found.metric.cells:
            continue
        metric = found.metric
        if metric.kind == "gauge" and not reading.alive:
            continue
        labels = tuple(zip(metric.labels, found.values, strict=True))
        if metric.by:
            labels += ((metric.by, process),)
        _add(numbers[metric.name], labels, cells=cells)
    if reading.alive:
        for name, value in processes.usage(reading.process.pid, reading.process.start_ticks).items():
            _add(numbers[name], ((TABLE[name].by, process),), cells=[value])


def _add(sums: dict[Labels, list[float]], labels: Labels, *, cells: list[float]) -> None:
    before = sums.get(labels)
    sums[labels] = cells if before is None else [a + b for a, b in zip(before, cells, strict=True)]


def _lines(metric: Metric, numbers: dict[Labels, list[float]], *, tenant: str | None) -> Iterator[str]:
    shown = [
        labels for labels in sorted(numbers) if tenant is None or dict(labels).get("tenant", tenant) == tenant
    ]
    if not shown:
        return
    help_text = metric.help.translate(_HELP_ESCAPES)
    yield f"# HELP {metric.name} {help_text}\n# TYPE {metric.name} {metric.kind}\n"
    for labels in shown:
        values = _cumulative(numbers[labels]) if metric.kind == "histogram" else numbers[labels]
        for start, value in zip(_starts(metric, labels), values, strict=True):
            yield f"{start} {_number(value)}\n"


def _cumulative(cells: Sequence[float]) -> Iterable[float]:
    """Of a histogram: values up to each bound, up to infinity, their sum, their count. Count and last bucket always agree."""
    *counts, total = cells
    running = 0.0
    for count in counts:
        running += count
        yield running
    yield total
    yield running


@lru_cache(maxsize=1 << 15)
def _starts(metric: Metric, labels: Labels) -> tuple[str, ...]:
    """What stands before the numbers of a series."""
    pairs = [f'{label}="{value.translate(_LABEL_ESCAPES)}"' for label, value in labels]
    own = f"{{{','.join(pairs)}}}" if pairs else ""
    if metric.kind != "histogram":
        return (metric.name + own,)
    bounds = (*map(_number, metric.buckets), "+Inf")
    buckets = [f"{metric.name}_bucket{{{','.join([*pairs, _le(bound)])}}}" for bound in bounds]
    return (*buckets, f"{metric.name}_sum{own}", f"{metric.name}_count{own}")


def _le(bound: str) -> str:
    return f'le="{bound}"'


def _number(value: float) -> str:
    if math.isfinite(value):
        return str(int(value)) if value == int(value) and abs(value) < _EXACT else repr(value)
    return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"


@lru_cache(maxsize=256)
def _tell(path: Path, error: str) -> None:
    """Say once what is wrong with a file: exposition is asked for every few seconds."""
    log.warning("metrics of %s are left out: %s", path.name, error)
