"""The comparison: columns one by one into counts, all columns together through the ensemble, findings in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.drift.columns import Column, column_of, kind_of, type_break
from predis.drift.result import Comparison, FeatureDrift, Severity
from predis.drift.sources import Source, source_of
from predis.drift.words import how_large, how_moved, percent
from predis.errors import InvalidInput
from predis.stats import Bins, block_slices
from predis.stats.drift import LEAST_WINDOWS, Break, DomainClassifier, Ensemble, EnsembleVerdict, Level
from predis.stats.drift.distances import (
    jensen_shannon,
    kolmogorov_smirnov,
    population_stability,
    shares,
    wasserstein,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MOST_WINDOWS = 12
_WINDOW_ROWS = 1_000  # aimed at; fewer where there are few rows
_LEAST_WINDOW_ROWS = 200
_LEAST_ROWS = 20
_SAMPLE = 5_000
_CLASSIFIED = 100  # features that the domain classifier sees


@dataclass
class _Counted:
    """What is kept of a column: counts, and a sample for the domain classifier."""

    bins: Bins
    kind: str
    reference: Ints
    blocks: Ints
    windows: Ints
    samples: tuple[Floats, Floats]


@dataclass
class _Found:
    """The columns so far."""

    counted: list[_Counted] = field(default_factory=list)
    features: list[FeatureDrift] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(
    reference: Any,
    current: Any,
    *,
    target: str | None = None,
    by_time: str | None = None,
    alpha: float = 0.001,
    floor: float = 0.02,
) -> Comparison:
    """Compare two tables column by column.

    reference, current: pandas, Polars or Arrow tables, two-dimensional arrays, dictionaries of columns, or paths of CSV and Parquet
    files. by_time: column that puts the rows of both in order; without one they are taken to be in order. target: column that is
    not an input. alpha: rate of false discoveries; lower is quieter. floor: PSI below which nothing is called drift.

    The reference's contiguous blocks say how much each column varies by itself; the current rows are judged in up to 12
    windows, one after the other. A column drifted if it moved further than the reference's own windows ever do, in two of three windows
    running. Memory holds one column of each table at a time (of files and views; a CSV file is read at once).

    Raises `InvalidInput` for what is no table, and a `target` or `by_time` that is not there.

    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> before = {"age": rng.normal(40, 10, 5000), "zone": rng.choice(["a", "b"], 5000)}
    >>> today = {"age": rng.normal(45, 10, 5000), "zone": ["a"] * 5000}
    >>> compare(before, today).verdicts
    {'zone': 'break', 'age': 'drift'}
    """
    a, b = source_of(reference, by_time=by_time), source_of(current, by_time=by_time)
    if target is not None and target not in a.types:
        raise InvalidInput(f"the reference has no column {target!r} to be the target")
    windows = _cut(b.rows)
    found = _Found()
    for name in a.types:
        if name != by_time:
            _take(found, name, a=a, b=b, windows=windows)
    _note_columns(found, a, b=b)
    inputs = [each for each in found.counted if each.bins.name != target]
    targets = [each for each in found.counted if each.bins.name == target]
    for group in (inputs, targets):
        if group:
            found.features += _judged(group, found.notes, alpha=alpha, floor=floor)
    features = [_with_role(each, target) for each in found.features]
    return Comparison(
        reference_rows=a.rows,
        current_rows=b.rows,
        windows=len(windows),
        features=tuple(sorted(features, key=_importance)),
        notes=tuple(dict.fromkeys(found.notes)),
        domain_auc=_domain(inputs, alpha=alpha) if min(a.rows, b.rows) >= _LEAST_WINDOW_ROWS else None,
    )


def _take(found: _Found, name: str, *, a: Source, b: Source, windows: Sequence[slice]) -> None:
    """Count one column, or say what is wrong with it."""
    if name not in b.types:
        found.features.append(
            _broken(Break(name, "vanished", "the column is not there any more"), kind_of(a.types[name]))
        )
        return
    column: Column | Break | str | None = type_break(name, a.types[name], current=b.types[name])
    if column is None and kind_of(a.types[name]) == "time":
        column = "a time; to put rows in its order, name it with by_time"
    if column is None:
        column = column_of(name, a.column(name), current=b.column(name))
    if isinstance(column, Break):
        found.features.append(_broken(column, kind_of(a.types[name])))
    elif isinstance(column, str):
        found.features.append(
            FeatureDrift(
                name, "feature", kind_of(a.types[name]), Severity.OK, "skipped", f"not compared: {column}"
            )
        )
    else:
        found.counted.append(_count(column, windows))


def _count(column: Column, windows: Sequence[slice]) -> _Counted:
    bins = column.bins
    blocks = [bins.count(column.reference[part]) for part in block_slices(column.reference.size)]
    return _Counted(
        bins=bins,
        kind=column.kind,
        reference=bins.count(column.reference),
        blocks=np.array(blocks, dtype=np.int64).reshape(-1, bins.size),
        windows=np.array([bins.count(column.current[part]) for part in windows]),
        samples=(_spread(column.reference), _spread(column.current)),
    )


def _judged(group: list[_Counted], notes: list[str], *, alpha: float, floor: float) -> list[FeatureDrift]:
    """Run the windows through the ensemble, and put what it says in words."""
    rows = int(group[0].windows[0].sum())
    ensemble = Ensemble(
        [each.bins for each in group],
        [each.reference for each in group],
        blocks=np.concatenate([each.blocks for each in group], axis=1),
        alpha=alpha,
        floor=floor,
        min_rows=min(_LEAST_WINDOW_ROWS, max(rows, _LEAST_ROWS)),
    )
    verdicts = []
    for at in range(len(group[0].windows)):
        ensemble.update(np.concatenate([each.windows[at] for each in group]))
        if ensemble.verdict is not None and ensemble.verdict.enough:
            verdicts.append(ensemble.verdict)
    notes += _reading(verdicts, rows=rows)
    return [_feature(each, verdicts, at=at) for at, each in enumerate(group)]


def _reading(verdicts: Sequence[EnsembleVerdict], *, rows: int) -> list[str]:
    if not verdicts:
        return [f"{rows} rows are too few to judge: nothing but broken columns would show"]
    notes = []
    newest = verdicts[-1]
    if newest.reference_windows < LEAST_WINDOWS:
        notes.append(
            f"the reference holds {newest.reference_windows:.1f} windows of {newest.rows:,} rows, and {LEAST_WINDOWS} are the least "
            "to learn from how much columns vary by themselves: thresholds are wide, small drift of such columns does not show"
        )
    if len(verdicts) == 1:
        notes.append("there are rows for one window only: that a change lasts could not be judged")
    return notes


def _feature(counted: _Counted, verdicts: Sequence[EnsembleVerdict], *, at: int) -> FeatureDrift:
    bins, total = counted.bins, counted.windows.sum(axis=0)
    mine = [verdict.features[at] for verdict in verdicts]
    p, q = shares(counted.reference.astype(float)), shares(total.astype(float))
    psi = float(population_stability(p, q))
    single = len(mine) == 1 and mine[0].moved
    drifted = single or any(each.level == Level.DRIFTED for each in mine)
    away = sum(each.level == Level.AWAY for each in mine) * 2 >= len(mine) > 0
    moved = how_moved(bins, p.tolist(), current=q.tolist())
    if drifted:
        severity, finding = Severity.WARNING, "drift"
        message = f"{moved} (PSI {psi:.2f}, {how_large(psi)})"
        beyond = max(each.beyond for each in mine)
        if beyond > 0.5 and bins.kind == "numeric":
            message += (
                f"; up to {percent(beyond)} of a window lies outside of the reference's range: another unit?"
            )
    elif away:
        severity, finding = Severity.INFO, "away"
        message = f"{moved} (PSI {psi:.2f}), within what the reference's own windows differ"
    else:
        severity, finding, message = Severity.OK, "stable", "no drift"
    ordinal = bins.kind == "numeric"
    return FeatureDrift(
        bins.name, "feature", counted.kind, severity, finding, message,
        psi=psi,
        jensen_shannon=float(jensen_shannon(p, q)),
        kolmogorov_smirnov=float(kolmogorov_smirnov(p, q)) if ordinal else math.nan,
        wasserstein=float(wasserstein(p, q)) if ordinal else math.nan,
        threshold=mine[-1].threshold if mine else math.nan,
        p_value=min((each.p_value for each in mine), default=math.nan),
        seasonal=bool(mine and mine[-1].seasonal),
        history=tuple(each.psi for each in mine),
        labels=bins.labels, reference=tuple(p.tolist()), current=tuple(q.tolist()),
    )  # fmt: skip


def _note_columns(found: _Found, a: Source, *, b: Source) -> None:
    new = [name for name in b.types if name not in a.types]
    if new:
        found.notes.append(
            f"columns the reference does not have: {', '.join(new[:8])}{', ...' if len(new) > 8 else ''}"
        )


def _domain(inputs: list[_Counted], *, alpha: float) -> tuple[float, float, float] | None:
    """The domain classifier's AUC over the columns that moved most."""
    if not inputs:
        return None
    moved = [
        -float(population_stability(shares(each.reference.astype(float)), shares(each.windows.sum(axis=0).astype(float))))
        for each in inputs
    ]  # fmt: skip
    chosen = [inputs[at] for at in np.argsort(moved)[:_CLASSIFIED]]
    before, after = (np.stack([each.samples[side] for each in chosen], axis=1) for side in (0, 1))
    classifier = DomainClassifier([each.bins for each in chosen], before, alpha=alpha)
    classifier.update(after)
    verdict = classifier.verdict
    return None if verdict is None else (verdict.auc, verdict.low, verdict.high)


def _cut(rows: int) -> list[slice]:
    """Windows of one size. Three at least where there are rows for that: persistence needs more than one."""
    count = min(max(rows // _WINDOW_ROWS, 3), _MOST_WINDOWS, max(rows // _LEAST_WINDOW_ROWS, 1))
    edges = np.linspace(0, rows, count + 1).astype(int)
    return [slice(start, stop) for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]


def _spread(values: Floats) -> Floats:
    if values.size <= _SAMPLE:
        return values
    return values[np.linspace(0, values.size - 1, _SAMPLE).astype(np.int64)]


def _broken(found: Break, kind: str) -> FeatureDrift:
    return FeatureDrift(
        found.feature, "feature", kind, Severity.CRITICAL, "break", f"data break: {found.message}"
    )


def _with_role(feature: FeatureDrift, target: str | None) -> FeatureDrift:
    if feature.name != target:
        return feature
    return FeatureDrift(**{**vars(feature), "role": "target"})


def _importance(feature: FeatureDrift) -> tuple[int, float]:
    return -feature.severity, -feature.psi if not math.isnan(feature.psi) else 0.0
