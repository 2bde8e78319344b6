"""The null: how much windows of the reference differ among themselves.

Rows of a table in time order are not independent: hours, weeks and seasons make each window unlike the whole. What a window
must exceed is therefore not what chance makes of independent rows, but what the reference's own windows show. Contiguous
blocks of the reference, joined to windows as large as the one that is judged, are compared twice:

    train   a window with the rest of the reference
    near    a window with the one most like it among those that ended at least a window earlier

Each comparison is Pearson's chi-square X2 of two samples. For independent rows X2 is chi2(df). For rows in clusters it is
about a multiple of a chi-square with fewer degrees of freedom (Rao and Scott 1981, 1984; Satterthwaite 1946): its mean and variance
over the reference's windows give both, and since those come from few windows, the tail is that of Fisher's F. With five
windows only a far larger change is significant than with fifty: that is the price of a short reference.

A feature whose windows differ no more than chance explains (X2 / df about 1) needs none of that: it is judged against the
whole reference alone, by chi-square with the design effect (Kish 1965).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predis.stats._arrays import Bools, Floats
from predis.stats.drift.distances import homogeneity

LEAST_WINDOWS = 6  # of the reference; below, its own variation is hardly known (NannyML warns there too)
LEAST_SEASON = 3  # windows of the same season before; below, one of them may be the odd one
_LEAST_BLOCKS = 3
_SIGMAS = 4.0  # by which the mean of X2 must exceed chance before a feature is held to vary by itself


@dataclass(frozen=True)
class Scatter:
    """Mean and variance float64[F] of X2 over the reference's windows, and how many of them are apart from each other."""

    mean: Floats
    variance: Floats
    windows: float

    def tail(self, x2: Floats, freedom: Floats) -> Floats:
        """P(X2 >= x2) float64[F]."""
        from scipy.special import fdtrc

        own, other = self._freedoms(freedom)
        return np.asarray(fdtrc(own, other, x2 / self._scale(freedom)))

    def quantile(self, alpha: float, freedom: Floats) -> Floats:
        """The X2 float64[F] that has tail probability alpha."""
        from scipy.special import fdtri

        own, other = self._freedoms(freedom)
        return np.asarray(fdtri(own, other, 1.0 - alpha) * self._scale(freedom))

    def grown(self, factor: float, freedom: Floats) -> Scatter:
        """What exceeds chance, so many times."""
        mean = freedom + np.maximum(self.mean - freedom, 0.0) * factor
        return Scatter(mean, self.variance * (mean / np.maximum(self.mean, freedom)) ** 2, self.windows)

    def design_effect(self, freedom: Floats) -> Floats:
        """By how much windows scatter more than independent rows would, at least 1 (Kish 1965)."""
        return self._scale(freedom) / freedom

    def _scale(self, freedom: Floats) -> Floats:
        return np.maximum(self.mean, freedom)

    def _freedoms(self, freedom: Floats) -> tuple[Floats, Floats]:
        effective = 2.0 * self._scale(freedom) ** 2 / np.maximum(self.variance, 1e-9)
        own = np.clip(effective, 1.0, freedom)
        return own, np.maximum(own * (self.windows - 1.0), 1.0)


@dataclass(frozen=True)
class Null:
    """What the reference says of windows of a certain size.

    windows: float64[W, F, C], counts of the reference's own windows. even: bool[F], features whose windows differ by chance
    only. apart: windows of this size that the reference holds side by side.
    """

    windows: Floats
    even: Bools
    train: Scatter
    near: Scatter
    apart: float

    @property
    def short(self) -> bool:
        """Whether the reference holds fewer than `LEAST_WINDOWS` windows."""
        return self.apart < LEAST_WINDOWS


def learn(reference: Floats, blocks: Floats, *, rows: int, freedom: Floats, whole: bool) -> Null:
    """The null of windows of `rows` rows.

    reference: float64[F, C], its counts. blocks: float64[K, F, C], counts of contiguous parts of one size, in
    order. freedom: float64[F]. whole: the blocks stand side by side and are the whole reference, so that they may be joined.
    """
    if len(blocks) < _LEAST_BLOCKS:
        nothing = Scatter(np.zeros_like(freedom), np.zeros_like(freedom), 1.0)
        return Null(np.empty((0, *reference.shape)), np.ones(len(freedom), bool), nothing, nothing, 0.0)
    size = float(blocks[0, 0].sum())
    wanted = max(1, round(rows / size)) if whole else 1
    joined = min(wanted, len(blocks) // _LEAST_BLOCKS)
    windows = _joined(blocks, joined)
    apart = len(blocks) / joined
    rest = np.maximum(reference - windows, 0.0) if whole else reference
    train = homogeneity(rest, windows)
    near = _nearest_before(windows, gap=2 * joined)
    tolerance = 1.0 + _SIGMAS * np.sqrt(2.0 / (freedom * apart))
    total, held = float(reference[0].sum()), size * joined
    # Blocks that do not touch cannot be joined: what lasts longer than one of them shows more in a larger window.
    growth = 1.0 if whole else max(1.0, _harmonic(total, rows) / _harmonic(total, held))
    return Null(
        windows=windows,
        even=train.mean(axis=0) <= freedom * tolerance,
        train=_scatter(train, apart).grown(growth, freedom),
        near=_scatter(near, max(apart - 2.0, 2.0)).grown(min(growth, 2.0), freedom),
        apart=apart if wanted == joined else apart * joined / wanted,
    )


def nearest(candidates: Floats, window: Floats) -> Floats:
    """X2 float64[F] of a window with the candidate float64[N, F, C] most like it, per feature."""
    return np.asarray(homogeneity(candidates, window[None]).min(axis=0))


def _joined(blocks: Floats, count: int) -> Floats:
    """Windows of `count` neighbouring blocks, one beginning at each block."""
    sums = np.cumsum(np.concatenate([np.zeros_like(blocks[:1]), blocks]), axis=0)
    return np.asarray(sums[count:] - sums[:-count])


def _nearest_before(windows: Floats, *, gap: int) -> Floats:
    """X2 float64[., F] of each window with the most alike of those that begin `gap` or more before it."""
    gap = min(gap, len(windows) - 2)
    return np.array([nearest(windows[: at - gap + 1], windows[at]) for at in range(gap, len(windows))])


def _harmonic(n: float, m: float) -> float:
    return n * m / (n + m)


def _scatter(x2: Floats, windows: float) -> Scatter:
    return Scatter(x2.mean(axis=0), x2.var(axis=0, ddof=1), windows)
