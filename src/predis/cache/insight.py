"""What control tells of the cache: the learner's latest figures, those of the sources from the metrics, and answers in words."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from predis.cache.learner import INSIGHT
from predis.cache.what_if.curves import SCALES, difference
from predis.cache.what_if.miniature import POLICIES
from predis.errors import InvalidInput, NotReady
from predis.metrics import TABLE, Numbers, collected

_STALE_S = 15.0
_LEAST_READS = 200  # of the sample, before it says anything
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
_NAMES = {"lru": "LRU", "s3-fifo": "S3-FIFO", "twoq": "2Q", "arc": "ARC"}
_TIMES = {0.25: "a quarter of", 0.5: "half", 2.0: "twice", 3.0: "three times", 4.0: "four times"}


class Insight:
    """Reads what the learner and the gateway's workers wrote. It asks nobody, so it is there while they are not.

    Args:
        folder: the cache's folder in the home.
        metrics: the folder of the processes' metrics.
    """

    def __init__(self, folder: Path, metrics: Path) -> None:
        self._path = folder / INSIGHT
        self._metrics = metrics

    def shown(self, tenant: str | None = None) -> dict[str, Any]:
        """Everything.

        Args:
            tenant: show no keys but this one's, which begin with its name and a colon; None: all.
        """
        document = self._read() or {"at": None, "workers": 0}
        numbers = collected(self._metrics)
        document["age_s"] = time.time() - document["at"] if document["at"] else None
        document["stale"] = document["age_s"] is None or document["age_s"] > _STALE_S
        document["sources"] = sources(numbers, tenant=tenant)
        document["gateway"] = {
            "upstream_ms": latency(numbers, "predis_gateway_upstream_seconds"),
            "added_ms": latency(numbers, "predis_gateway_added_seconds"),
        }
        if tenant is not None:
            for kind in ("hot_keys", "big_keys"):
                document[kind] = [
                    row for row in document.get(kind, []) if row["key"].startswith(f"{tenant}:")
                ]
            document["prefixes"] = [row for row in document.get("prefixes", []) if row["prefix"] == tenant]
        return document

    def what_if(self, memory: str = "1x", policy: str = "lru") -> dict[str, Any]:
        """What another memory size or policy would give.

        Args:
            memory: a multiple of the present such as "2x", or a size such as "512MB".
            policy: one of ``POLICIES``, as written there or without the hyphen.

        Raises:
            InvalidInput: no such memory or policy, or a size beyond what is simulated.
            NotReady: too little was read so far.
        """
        name = {known.replace("-", ""): known for known in POLICIES}.get(policy.lower().replace("-", ""))
        if name is None:
            raise InvalidInput(f"there is no curve of policy {policy!r}; there are {', '.join(POLICIES)}")
        document = self._read()
        curves = (document or {}).get("curves") or {}
        if (
            not curves.get("policies")
            or name not in curves["policies"]
            or curves["sampled_reads"] < _LEAST_READS
        ):
            raise NotReady(
                f"{round(curves.get('sampled_reads', 0))} reads were sampled so far; from {_LEAST_READS} on there is an answer, once "
                "clients read through the gateway for a while (predis cache stats says whether the learner hears them)"
            )
        scale = scale_of(memory, curves["present"]["memory_bytes"])
        return _answer(curves, scale, policy=name)

    def _read(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return found


def scale_of(memory: str, present_bytes: int) -> float:
    """A memory as a multiple of the present one.

    Raises:
        InvalidInput: it is neither a multiple nor a size, or none that is simulated.
    """
    found = re.fullmatch(r"\s*([\d.]+)\s*(x|[kmg]?i?b|)\s*", memory.lower())
    try:
        number = float(found[1]) if found else -1.0
    except ValueError:
        number = -1.0
    if found is None or number <= 0 or found[2] not in (*_UNITS, "x"):
        raise InvalidInput(f"memory is a multiple such as 2x or a size such as 512MB, not {memory!r}")
    scale = number if found[2] == "x" else number * _UNITS[found[2]] / max(present_bytes, 1)
    if not SCALES[0] <= scale <= SCALES[-1]:
        raise InvalidInput(
            f"{memory} is {scale:.3g} times the present memory; curves reach from {SCALES[0]:g}x to {SCALES[-1]:g}x"
        )
    return scale


def sources(numbers: Numbers, *, tenant: str | None) -> list[dict[str, Any]]:
    """Of every source: how often it was read, how many keys it gave, its hit rate, and how long its calls take."""
    reads: dict[tuple[str, str], dict[str, float]] = {}
    for labels, cells in numbers["predis_source_reads_total"].items():
        found = dict(labels)
        reads.setdefault((found["tenant"], found["source"]), {})[found["found"]] = cells[0]
    loads = {
        (found["tenant"], found["source"]): cells[0]
        for labels, cells in numbers["predis_source_loads_total"].items()
        if (found := dict(labels))["outcome"] == "loaded"
    }
    return [
        {
            "tenant": owner,
            "source": name,
            "reads": sum(by.values()),
            "loads": loads.get((owner, name), 0.0),
            "hit_rate": 1 - by.get("miss", 0.0) / max(sum(by.values()), 1.0),
            "latency_ms": latency(numbers, "predis_source_call_seconds", tenant=owner, source=name),
        }
        for (owner, name), by in sorted(reads.items())
        if tenant is None or owner == tenant
    ]


def load_s(metrics: Path) -> float | None:
    """How long most calls of sources take, as the gateway's workers measured it; None while nothing was counted.

    Args:
        metrics: the folder of the processes' metrics.
    """
    found = latency(collected(metrics), "predis_source_call_seconds")
    return None if found is None else found["p95"] / 1_000


def latency(numbers: Numbers, metric: str, **wanted: str) -> dict[str, float] | None:
    """Quantiles of a histogram in milliseconds, all processes together; None where nothing was counted."""
    cells = [
        cells
        for labels, cells in numbers[metric].items()
        if wanted.items() <= dict(labels).items()
    ]  # fmt: skip
    counts = [sum(column) for column in zip(*cells, strict=True)][:-1]
    total = sum(counts)
    if not total:
        return None
    return {
        name: 1e3 * _quantile(counts, share * total, bounds=TABLE[metric].buckets)
        for name, share in _QUANTILES.items()
    }


def _quantile(counts: list[float], rank: float, *, bounds: tuple[float, ...]) -> float:
    """The value at a rank, as if values lay evenly in each bucket; of the last bucket, its lower bound."""
    below, low = 0.0, 0.0
    for count, high in zip(counts, bounds, strict=False):
        if below + count >= rank and count:
            return low + (high - low) * (rank - below) / count
        below, low = below + count, high
    return low


def _answer(curves: Mapping[str, Any], scale: float, *, policy: str) -> dict[str, Any]:
    present, base = curves["present"], curves["policies"]["lru"]
    gain, half = difference(curves["policies"][policy], base, at=scale)
    now = base["hit_rate"][SCALES.index(1.0)]
    then = min(1.0, max(0.0, now + gain))
    return {
        "memory_bytes": round(scale * present["memory_bytes"]),
        "scale": scale,
        "policy": policy,
        "hit_rate_now": now,
        "hit_rate_then": then,
        "difference": gain,
        "half_width": half,
        "sampled_reads": curves["sampled_reads"],
        "words": _words(scale, policy, now=now, then=then, half=half),
        "notes": _notes(present, scale),
    }


def _words(scale: float, policy: str, *, now: float, then: float, half: float) -> str:
    memory = "the present memory" if scale == 1 else f"{_TIMES.get(scale, f'{scale:.3g} times')} the memory"
    with_policy = f" and {_NAMES[policy]}" if policy != "lru" else ""
    points, margin = 100 * abs(then - now), 100 * half
    if points <= margin:
        told = f"about as many reads would be hits as now ({now:.1%}): the difference is within ±{margin:.1f} points"
    else:
        misses = (now - then) / max(1 - now, 1e-9)
        fewer = f"{abs(misses):.0%} {'fewer' if misses < 0 else 'more'} misses"
        side = "more" if then > now else "less"
        told = f"{then:.1%} of the reads would be hits instead of {now:.1%}: {points:.1f} points {side} (±{margin:.1f}), {fewer}"
    return f"With {memory}{with_policy}, {told}."


def _notes(present: Mapping[str, Any], scale: float) -> list[str]:
    notes = []
    if not present["limited"]:
        notes.append(
            "Valkey has no maxmemory: the present memory is what it uses now, and nothing is evicted."
        )
    elif not present["full"] and scale > 1:
        notes.append("The cache is not full now: more memory begins to matter when it is.")
    return notes
