"""What names one series: a metric and its label values, as the bytes that stand in the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from predis.errors import InvalidInput
from predis.metrics.table import TABLE, Kind, Metric

OTHER = "other"
_LONGEST_VALUE = 256


@dataclass(frozen=True)
class Series:
    """One line of numbers: a row of the table and a value for each of its labels, in the table's order."""

    metric: Metric
    values: tuple[str, ...]


def metric_of(name: str, kind: Kind, *, labels: Mapping[str, str]) -> Metric:
    """The row of the table that somebody wants to write.

    Raises:
        InvalidInput: no such metric, another kind, or other labels than the table says.
    """
    metric = TABLE.get(name)
    if metric is None or metric.kind != kind:
        raise InvalidInput(f"the table of metrics has no {kind} {name!r}")
    if labels.keys() != set(metric.labels):
        wanted = ", ".join(metric.labels) or "none"
        raise InvalidInput(f"the labels of {name} are: {wanted}; got: {', '.join(labels) or 'none'}")
    return metric


def encode(metric: Metric, labels: Mapping[str, str]) -> bytes:
    """The series' name in the file. It says the buckets, so that numbers counted in others are never added to these."""
    values = [str(labels[label])[:_LONGEST_VALUE] for label in metric.labels]
    parts = [metric.name, dict(zip(metric.labels, values, strict=True)), *metric.buckets]
    return json.dumps(parts, separators=(",", ":")).encode()


def others(metric: Metric) -> bytes:
    """The series that takes the numbers of those that found no place."""
    return encode(metric, dict.fromkeys(metric.labels, OTHER))


def has(key: bytes, labels: Mapping[str, str]) -> bool:
    """Whether a series has all these labels with these values."""
    found = decode(key)
    if found is None:
        return False
    own = dict(zip(found.metric.labels, found.values, strict=True))
    return labels.items() <= own.items()


@lru_cache(maxsize=1 << 15)
def decode(key: bytes) -> Series | None:
    """The series of a key; ``None`` where the table does not hold it as it stands there (another release wrote it)."""
    try:
        name, labels, *buckets = json.loads(key)
        metric = TABLE[name]
        values = tuple(labels[label] for label in metric.labels)
    except (ValueError, LookupError, TypeError):
        return None
    known = all(isinstance(value, str) for value in values) and len(labels) == len(values)
    return Series(metric, values) if known and tuple(buckets) == metric.buckets else None
