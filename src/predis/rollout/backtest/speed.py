"""How fast two models predict, measured in turns on the same rows, so that a busy machine is busy for both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from predis.rollout.backtest.scorer import Scorer

SIZES = (1, 64, 256)
_ROUNDS = 5
_SECONDS = 0.3  # of one side in one round
_MOST_BLOCKS = 64


def measure(candidate: Scorer, baseline: Scorer | None, *, table: pa.Table) -> list[dict[str, Any]]:
    """For each number of rows at once: quantiles of both sides in milliseconds, and candidate / baseline of the medians.

    Only predicting is measured, within the models' processes: no network, no routing. Sizes that the table does not fill are left out.
    """
    sides = {"candidate": candidate} | ({"baseline": baseline} if baseline else {})
    found = []
    for rows in (size for size in SIZES if size <= table.num_rows):
        taken: dict[str, list[float]] = {name: [] for name in sides}
        block = table.slice(0, rows)
        slowest = max(max(side.timings(block, rows=rows)) for side in sides.values())  # warms both up
        again = max(max(side.timings(block, rows=rows)) for side in sides.values())
        blocks = int(min(max(_SECONDS / max(min(slowest, again), 1e-6), 1), _MOST_BLOCKS))
        mine = _repeated(table, blocks * rows)
        for turn in range(_ROUNDS):
            for name in sorted(sides, reverse=bool(turn % 2)):
                taken[name] += sides[name].timings(mine, rows=rows)
        shown = {name: _quantiles(values, rows) for name, values in taken.items()}
        usual = shown["baseline"]["p50_ms"] if baseline else 0.0
        ratio = shown["candidate"]["p50_ms"] / usual if usual else None
        found.append({"rows": rows, **shown, "ratio": ratio})
    return found


def _repeated(table: pa.Table, rows: int) -> pa.Table:
    return table.take(pa.array(np.arange(rows) % table.num_rows))


def _quantiles(seconds: list[float], rows: int) -> dict[str, float]:
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1e3
    return {"p50_ms": float(p50), "p99_ms": float(p99), "row_us": float(p50) * 1e3 / rows}
