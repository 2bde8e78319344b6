"""The ensemble: judges the windows of a whole table, all features at once, and alarms once per change.

A feature counts as moved in a window if three things hold at once:

effect        at least two of its distances (PSI, Jensen-Shannon, Kolmogorov-Smirnov, Wasserstein) exceed their floors
significance  X2 exceeds what the reference's own windows show (`null`), at a false discovery rate of alpha over all features
persistence   so in two of the last three windows, the newest among them; a gross change, in which more than half of the
              rows left their place, needs no second window

And it must have moved from everything it is known to have been: from the reference as a whole; where its windows differ by
themselves (seasons, weekdays) also from each single window of the reference and of the recent past; and from each level
that was alarmed before. So a season that comes step by step and a return to an earlier level are no alarms, a jump is one, and it
is one once: afterwards the new level is known, and the feature is `AWAY` from its reference, which is information. What else moves
within five windows of an alarm belongs to the same change and raises no second one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Bools, Floats, Ints, at_least_zero, fraction
from predis.stats.bins import Bins
from predis.stats.drift import distances
from predis.stats.drift.cells import Cells, continuous
from predis.stats.drift.discovery import adjust
from predis.stats.drift.null import LEAST_SEASON, Null, learn, nearest

_FLOORS = {"psi": 0.02, "jensen_shannon": 0.05, "kolmogorov_smirnov": 0.05, "wasserstein": 0.025}
_VOTES = 2
_GROSS = 0.5  # share of rows that left their place
_OUTSIDE = (
    0.95  # share of rows outside of the reference's range, all at once: what another unit does, and no season
)
_GROSS_ALPHA = 1e-4
_REMEMBERED = 50  # recent windows
_LEVELS_KEPT = 8
_LEVEL_WINDOWS = 20  # after which the counts of a level grow no more
_SAME_CHANGE = 5  # windows
_LEAST_TO_MARCH = 8  # blocks
_OTHER_SIZE = 1.5  # windows so many times larger or smaller than the last need a null of their own


class Level(IntEnum):
    """What a window says of a feature."""

    STABLE = 0
    AWAY = 1  # it is away from its reference, and that is known
    DRIFTED = 2  # it has just moved


@dataclass(frozen=True)
class FeatureVerdict:
    """One feature in one window.

    psi, jensen_shannon, kolmogorov_smirnov, wasserstein: distances from the reference; the last two mean nothing for categories
    and are 0 there. threshold: the PSI above which a window would be significant, and at least the floor. p_value:
    adjusted for the number of features. seasonal: the reference's own windows differ. moved: effect and
    significance in this window. level: with persistence.
    """

    name: str
    psi: float
    jensen_shannon: float
    kolmogorov_smirnov: float
    wasserstein: float
    threshold: float
    p_value: float
    beyond: float
    seasonal: bool
    moved: bool
    level: Level


@dataclass(frozen=True)
class EnsembleVerdict:
    """One window.

    enough: it had the least rows. raised: a feature has just moved, and none had in the five windows before. reference_windows: how many
    windows of its size the reference holds; fewer than `LEAST_WINDOWS` are little to learn from.
    """

    rows: int
    enough: bool
    raised: bool
    reference_windows: float
    features: tuple[FeatureVerdict, ...]

    @property
    def level(self) -> Level:
        """The highest of the features'."""
        return max((feature.level for feature in self.features), default=Level.STABLE)

    def at(self, level: Level) -> tuple[FeatureVerdict, ...]:
        """The features at a level, largest PSI first."""
        return tuple(sorted((f for f in self.features if f.level == level), key=lambda f: -f.psi))


@dataclass(frozen=True)
class _Measured:
    """A window's counts in cells and what was measured of them, each per feature."""

    counts: Floats
    distances: dict[str, Floats]
    away: Floats  # p-value against the reference
    novel: Floats  # the largest p-value against everything known
    effect: Bools
    gross: Bools
    beyond: Floats


class Ensemble:
    """Judges one window of counts after another.

    bins, counts: of the reference, one per feature. blocks: int64[K, total], concatenated counts of K contiguous parts of one
    size of the reference, in their order (`stats.Profile` has them); without any, rows are taken for independent. alpha: false discovery
    rate per window; lower is quieter. floor: PSI below which nothing is called drift. min_rows: a smaller window says
    nothing.

    Memory: some kilobytes per feature. An update of 30 features takes about a millisecond.

    >>> import numpy as np
    >>> from predis.stats import numeric_bins
    >>> rng = np.random.default_rng(1)
    >>> reference = rng.normal(size=8000)
    >>> bins = numeric_bins("age", reference)
    >>> blocks = [bins.count(part) for part in np.split(reference, 40)]
    >>> ensemble = Ensemble([bins], [bins.count(reference)], blocks=blocks)
    >>> levels = []
    >>> for window in range(6):
    ...     ensemble.update(bins.count(rng.normal(0.0 if window < 3 else 0.4, size=1000)))
    ...     levels.append(ensemble.verdict.level.name)
    >>> levels
    ['STABLE', 'STABLE', 'STABLE', 'STABLE', 'DRIFTED', 'AWAY']
    """

    def __init__(
        self,
        bins: Sequence[Bins],
        counts: Sequence[Ints],
        *,
        blocks: ArrayLike = (),
        alpha: float = 0.001,
        floor: float = 0.02,
        min_rows: int = 200,
    ) -> None:
        self.alpha = fraction(alpha, "alpha")
        self.floor = at_least_zero(floor, "floor")
        self.min_rows = min_rows
        self.names = tuple(each.name for each in bins)
        self._cells = Cells(bins, counts)
        self._ordinal = np.array([each.kind == "numeric" for each in bins], dtype=bool)
        self._owners, self._outside = _outside(bins)
        self._reference = self._cells(np.concatenate([np.empty(0), *counts]))
        given = np.asarray(blocks)
        if given.size and (given.ndim != 2 or given.shape[1] != self._cells.size):
            raise InvalidInput(f"blocks must have shape (K, {self._cells.size}), got {given.shape}")
        self._blocks = np.array([self._cells(block) for block in given]).reshape(
            len(given), *self._reference.shape
        )
        self._whole = (
            bool(given.size) and given.sum() > 0.9 * self._reference.sum()
        )  # but for a few last rows
        self._freedom = np.maximum((self._reference > 0).sum(axis=-1) - 1.0, 1.0)
        self._marches = _marching(bins, given) if given.size else np.zeros(len(bins), bool)
        self.reset()

    def reset(self) -> None:
        """Forget all windows; the reference stays."""
        self._null: Null | None = None
        self._rows = 0
        self._past: deque[Floats] = deque(maxlen=_REMEMBERED)
        self._waiting: Floats | None = None  # the newest window, which is not yet past
        self._moved: deque[Bools] = deque(maxlen=3)
        self._away: deque[Bools] = deque(maxlen=3)
        self._levels: deque[Floats] = deque(maxlen=_LEVELS_KEPT)
        self._beyond = np.zeros(len(self.names))  # the largest share outside of the reference's range so far
        self._quiet = _SAME_CHANGE  # windows since a feature moved
        self._verdict: EnsembleVerdict | None = None

    def update(self, counts: ArrayLike, *, season: ArrayLike = ()) -> None:
        """Add one window, concatenated counts int64[total]. Raises `InvalidInput` and changes nothing if bins do not fit.

        season: int64[K, total], windows of the same season before (a week or a year ago). Of `LEAST_SEASON` or more, a feature that is
        like one of them has not moved; fewer are not used.
        """
        flat = np.asarray(counts, dtype=np.int64)
        if flat.shape != (self._cells.size,):
            raise InvalidInput(
                f"a window needs {self._cells.size} counts, one per bin of each feature, got {flat.shape}"
            )
        cells = self._cells(flat)
        rows = int(cells[0].sum()) if self.names else 0
        if rows < self.min_rows:
            self._verdict = EnsembleVerdict(
                rows, enough=False, raised=False, reference_windows=0.0, features=()
            )
            return
        null = self._null_of(rows)
        beyond = np.bincount(self._owners, weights=flat * self._outside, minlength=len(self.names)) / rows
        known = np.array([self._cells(each) for each in np.asarray(season, dtype=np.int64)])
        found = self._measure(cells, null, beyond=beyond)
        if len(known) >= LEAST_SEASON:
            found = self._as_before(found, known, null=null)
        self._judge(found, null, rows=rows)

    @property
    def verdict(self) -> EnsembleVerdict | None:
        """What the last window said; None before the first."""
        return self._verdict

    @property
    def drift_detected(self) -> bool:
        """Whether the last window raised an alarm."""
        return self._verdict is not None and self._verdict.raised

    def _null_of(self, rows: int) -> Null:
        if self._null is None or not 1 / _OTHER_SIZE <= rows / self._rows <= _OTHER_SIZE:
            self._rows = rows
            self._null = learn(
                self._reference, self._blocks, rows=rows, freedom=self._freedom, whole=self._whole
            )
        return self._null

    def _measure(self, cells: Floats, null: Null, *, beyond: Floats) -> _Measured:
        away = self._tail(homogeneity_one_sided(self._reference, cells), null)
        novel = away.copy()
        if not null.even.all():
            known = np.concatenate([null.windows, *(each[None] for each in self._past)])
            near = null.near.tail(nearest(known, cells), self._freedom) if len(known) else np.ones(len(novel))
            novel = np.where(null.even, novel, np.maximum(novel, near))
        p, q = distances.shares(self._reference), distances.shares(cells)
        measured = self._distances(p, q)
        effect = sum((measured[name] > floor).astype(int) for name, floor in _FLOORS.items()) >= _VOTES
        effect &= measured["psi"] > self.floor
        gross = distances.total_variation(p, q) > _GROSS
        for level in self._levels:
            exists = level.sum(axis=-1) > 0
            same = self._tail(homogeneity_one_sided(level, cells), null)
            novel = np.where(exists, np.maximum(novel, same), novel)
            share = distances.shares(level)
            effect &= ~exists | (distances.population_stability(share, q) > self.floor)
            gross &= ~exists | (distances.total_variation(share, q) > _GROSS)
        return _Measured(cells, measured, away, novel, effect, gross, beyond)

    def _as_before(self, found: _Measured, season: Floats, *, null: Null) -> _Measured:
        """The same window, judged against its season as well: what was so a year ago is not new, however far it left its place."""
        alike = nearest(season, found.counts)
        same = np.where(null.even, self._tail(alike, null), null.near.tail(alike, self._freedom))
        known = same > self.alpha
        return replace(
            found,
            novel=np.maximum(found.novel, same),
            gross=found.gross & ~known,
            beyond=np.where(known, 0.0, found.beyond),
        )

    def _distances(self, p: Floats, q: Floats) -> dict[str, Floats]:
        return {
            "psi": distances.population_stability(p, q),
            "jensen_shannon": distances.jensen_shannon(p, q),
            "kolmogorov_smirnov": np.where(self._ordinal, distances.kolmogorov_smirnov(p, q), 0.0),
            "wasserstein": np.where(self._ordinal, distances.wasserstein(p, q), 0.0),
        }

    def _tail(self, x2: Floats, null: Null) -> Floats:
        from scipy.special import chdtrc

        by_chance = chdtrc(self._freedom, x2 / null.train.design_effect(self._freedom))
        return np.where(null.even, by_chance, null.train.tail(x2, self._freedom))

    def _judge(self, found: _Measured, null: Null, *, rows: int) -> None:
        adjusted = adjust(found.novel)
        left = (found.beyond > _OUTSIDE) & (self._beyond < 1.0 - _GROSS) & ~self._marches
        gross = (found.gross & (adjusted < _GROSS_ALPHA)) | left
        moved = (found.effect & (adjusted < self.alpha)) | gross
        away = (found.distances["psi"] > self.floor) & (adjust(found.away) < self.alpha)
        self._moved.append(moved)
        self._away.append(away)
        drifted = moved & (gross | (np.sum(self._moved, axis=0) >= 2))
        lasting = away & (np.sum(self._away, axis=0) >= 2)
        level = np.where(drifted, Level.DRIFTED, np.where(lasting, Level.AWAY, Level.STABLE))
        self._remember(found, drifted=drifted, away=away)
        raised = bool(drifted.any()) and self._quiet >= _SAME_CHANGE
        self._quiet = 0 if drifted.any() else self._quiet + 1
        self._verdict = EnsembleVerdict(
            rows=rows,
            enough=True,
            raised=raised,
            reference_windows=null.apart,
            features=self._verdicts(
                found, level, moved=moved, adjusted=adjusted, threshold=self._threshold(null, rows)
            ),
        )

    def _remember(self, found: _Measured, *, drifted: Bools, away: Bools) -> None:
        """The window becomes part of the past one window late: a change must stay visible for a second one."""
        newest = found.counts
        if self._waiting is not None:
            self._past.append(self._waiting)
        if self._levels:
            level = self._levels[-1]
            rows = newest.sum(axis=-1)
            grows = away & ~drifted & (level.sum(axis=-1) > 0) & (level.sum(axis=-1) < _LEVEL_WINDOWS * rows)
            level += np.where(grows[:, None], newest, 0.0)
        if drifted.any():
            before = self._waiting if len(self._moved) > 1 and self._waiting is not None else None
            joined = (
                newest
                if before is None
                else newest + np.where((self._moved[-2] & drifted)[:, None], before, 0.0)
            )
            self._levels.append(np.where(drifted[:, None], joined, 0.0))
            self._past.append(newest)
            for moved in self._moved:
                moved &= ~drifted
        self._waiting = newest
        self._beyond = np.maximum(self._beyond, found.beyond)

    def _threshold(self, null: Null, rows: int) -> Floats:
        """PSI float64[F] that is significant at alpha over all features: PSI is about X2 (1/N + 1/M)."""
        from scipy.special import chdtri

        alpha = self.alpha / max(len(self.names), 1)
        x2 = np.where(
            null.even,
            chdtri(self._freedom, alpha) * null.train.design_effect(self._freedom),
            null.train.quantile(alpha, self._freedom),
        )
        total = np.maximum(self._reference.sum(axis=-1), 1.0)
        return np.asarray(np.maximum(x2 * (1.0 / total + 1.0 / rows), self.floor))

    def _verdicts(
        self, found: _Measured, level: Ints, *, moved: Bools, adjusted: Floats, threshold: Floats
    ) -> tuple[FeatureVerdict, ...]:
        seasonal = np.zeros(len(self.names), bool) if self._null is None else ~self._null.even
        return tuple(
            FeatureVerdict(
                name=name,
                **{key: float(values[f]) for key, values in found.distances.items()},
                threshold=float(threshold[f]),
                p_value=float(adjusted[f]),
                beyond=float(found.beyond[f]),
                seasonal=bool(seasonal[f]),
                moved=bool(moved[f]),
                level=Level(int(level[f])),
            )
            for f, name in enumerate(self.names)
        )


def homogeneity_one_sided(reference: Floats, cells: Floats) -> Floats:
    """X2 float64[F], in which rare cells count only where they hold more than expected: nothing follows from an empty one."""
    expected = reference[..., -1:] / np.maximum(reference.sum(axis=-1, keepdims=True), 1.0)
    rows = cells.sum(axis=-1, keepdims=True)
    silent = (expected * rows < 5.0) & (cells[..., -1:] <= expected * rows)
    kept = np.where(silent & (np.arange(cells.shape[-1]) == cells.shape[-1] - 1), 0.0, cells)
    held = np.where(silent & (np.arange(cells.shape[-1]) == cells.shape[-1] - 1), 0.0, reference)
    return np.asarray(distances.homogeneity(held, kept))


def _outside(bins: Sequence[Bins]) -> tuple[Ints, Bools]:
    """For each of the concatenated counts: its feature, and whether it lies outside of all that the reference held."""
    outside = [np.zeros(each.size, dtype=bool) for each in bins]
    for each, own in zip(bins, outside, strict=True):
        own[-2] = each.kind == "categorical" or bool(each.edges)
        own[0] |= each.kind == "numeric" and bool(each.edges)
    features = np.repeat(np.arange(len(bins)), [each.size for each in bins])
    return features, np.concatenate([np.empty(0, dtype=bool), *outside])


def _marching(bins: Sequence[Bins], blocks: Ints) -> Bools:
    """bool[F]: features that keep leaving the range they had, as clocks and row numbers do; nothing follows from their doing so."""
    found = np.zeros(len(bins), dtype=bool)
    first = len(blocks) // 4
    ends = np.cumsum([each.size for each in bins])
    for feature, each in enumerate(bins):
        if len(blocks) < _LEAST_TO_MARCH or not continuous(each):
            continue
        inner = blocks[:, ends[feature] - each.size + 1 : ends[feature] - 2]
        held = np.cumsum(inner, axis=0)[first - 1 : -1] > 0
        within = (
            np.logical_or.accumulate(held, axis=1) & np.logical_or.accumulate(held[:, ::-1], axis=1)[:, ::-1]
        )
        later = inner[first:]
        outside = np.where(within, 0, later).sum(axis=1) / np.maximum(later.sum(axis=1), 1)
        found[feature] = outside.max() > _GROSS
    return found
