"""The features of the key itself: recency, frequency, gaps, periodicity, bursts, hits and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predis.cache.predictor.features.batch import Batch
from predis.cache.predictor.features.grouped import Floats, Grouped

_HALVES = np.array([16.0, 128.0, 1_024.0, 8_192.0, 65_536.0])  # requests
_HALVES_S = np.array([1.0, 10.0, 60.0, 600.0, 3_600.0])
_RECENT = 1.0 / 8.0
_ALIKE = 0.1  # of the longer of two gaps
_SHORT = 16.0  # requests
_MISSES = 1_024.0
_DAY_S = 86_400.0
_ROUNDING = 1e-9

# Columns of a key's row: what was last so, then the recurrences.
_LAST = (
    "count",
    "first",
    "first_s",
    "last",
    "last_s",
    "gap",
    "gap_s",
    "gap_before",
    "gap_before_s",
    "client",
    "size",
)
_AT = {name: at for at, name in enumerate(_LAST)}
_FADING = [f"reads_{half:.0f}" for half in _HALVES] + [f"reads_{half:.0f}s" for half in _HALVES_S]
_MEANS = (
    "gap_mean", "gap_2", "gap_3", "gap_log", "gap_log_2", "gap_product", "gap_mean_s", "gap_2_s", "burst", "hit_share", "other_reader",
    "regular", "regular_s", "sin", "cos",
)  # fmt: skip
_HELD = ("period", "period_s", "misses_1024")
_STEPS = {name: at for at, name in enumerate([*_FADING, *_MEANS, *_HELD])}
WIDTH = len(_LAST) + len(_STEPS)


@dataclass(frozen=True)
class Now:
    """What a batch's rows have in common.

    Attributes:
        request: number of the read, from 1; a question has that of the read before it.
    """

    batch: Batch
    request: Floats
    mean_size: Floats


def of_keys(grouped: Grouped, now: Now) -> tuple[dict[str, Floats], Floats]:
    """Features by name, and the logarithm of the gap that each row ends (NaN at a key's first read)."""
    past = _Past(grouped, now)
    found, after = grouped.scan(*past.steps(), column=len(_LAST))
    grouped.keep([*past.ended(), *after.T])
    columns = past.features(found)
    log_gap = np.where(past.known, np.log2(np.maximum(past.gap, 1.0)), np.nan)
    return {name: grouped.unsorted(column) for name, column in columns.items()}, grouped.unsorted(log_gap)


def day_angle(seconds: Floats) -> Floats:
    """The time of day (UTC) on a circle, in radians."""
    return seconds % _DAY_S * (2.0 * np.pi / _DAY_S)


class _Past:
    """What was last so at each row, in the order of ``grouped``."""

    def __init__(self, grouped: Grouped, now: Now) -> None:
        batch = now.batch
        self.grouped = grouped
        self.request, self.seconds = grouped.sorted(now.request), grouped.sorted(batch.seconds)
        self.client = grouped.sorted(batch.client).astype(np.float64)
        self.size, self.hit = grouped.sorted(batch.size), grouped.sorted(batch.hit)
        self.mean_size = grouped.sorted(now.mean_size)
        self.count = grouped.stored[grouped.group, 0] + grouped.earlier
        self.known = self.count > 0  # read before
        self.last, self.last_s = self._last("last", self.request), self._last("last_s", self.seconds)
        self.gap, self.gap_s = self.request - self.last, self.seconds - self.last_s  # that this row would end
        self.gap_1, self.gap_1_s = self._last("gap", self.gap), self._last("gap_s", self.gap_s)
        self.gap_2 = self._last("gap_before", self.gap_1)
        self.gap_2_s = self._last("gap_before_s", self.gap_1_s)
        self.client_1 = self._last("client", self.client)
        self.kept_size = self._sizes()
        first = self.count == 0
        self.first = self._carried("first", self.request, change=first)
        self.first_s = self._carried("first_s", self.seconds, change=first)

    def _last(self, name: str, values: Floats) -> Floats:
        return self.grouped.last(values, _AT[name])

    def _carried(self, name: str, values: Floats, *, change: NDArray[np.bool_]) -> Floats:
        """A value that is replaced only at some rows: what it is after each row."""
        grouped = self.grouped
        rows = np.arange(len(values))
        at = np.maximum.accumulate(np.where(change & grouped.learn, rows, -1))
        held = at >= rows - grouped.earlier_rows
        return np.where(held, values[at], grouped.stored[grouped.group, _AT[name]])

    def _sizes(self) -> Floats:
        return self._carried("size", self.size, change=self.size > 0)

    def ended(self) -> list[Floats]:
        """The first columns of each key's row after the batch."""
        ended = self.grouped.ended
        columns = {
            "count": self.count + 1.0, "first": self.first, "first_s": self.first_s, "last": self.request, "last_s": self.seconds,
            "gap": self.gap, "gap_s": self.gap_s, "gap_before": self.gap_1, "gap_before_s": self.gap_1_s, "client": self.client,
            "size": self.kept_size,
        }  # fmt: skip
        return [ended(columns[name], at) for name, at in _AT.items()]

    def steps(self) -> tuple[Floats, Floats]:
        """Factors and terms of every recurrence."""
        rows = len(self.request)
        factors, terms = np.ones((rows, len(_STEPS))), np.zeros((rows, len(_STEPS)))
        fading = len(_FADING)
        factors[:, :fading] = self.fades()
        terms[:, :fading] = 1.0
        weight, values = self._means()
        factors[:, fading : fading + len(_MEANS)] = 1.0 - weight
        terms[:, fading : fading + len(_MEANS)] = weight * values
        for name, alike, gap in (
            ("period", self._alike(self.gap, self.gap_1), self.gap),
            ("period_s", self._alike(self.gap_s, self.gap_1_s), self.gap_s),
        ):
            factors[:, _STEPS[name]] = ~alike
            terms[:, _STEPS[name]] = np.where(alike, gap, 0.0)
        factors[:, _STEPS["misses_1024"]] = np.exp2(-self.gap / _MISSES)
        terms[:, _STEPS["misses_1024"]] = 1.0 - self.hit
        return factors, terms

    def fades(self) -> Floats:
        """By how much each fading count has faded since the key's last read; 0 where it was never read."""
        since = np.where(self.known, self.gap, np.inf)
        since_s = np.where(self.known, np.nan_to_num(self.gap_s), np.inf)
        faded: Floats = np.exp2(-np.column_stack([since[:, None] / _HALVES, since_s[:, None] / _HALVES_S]))
        return faded

    def _means(self) -> tuple[Floats, Floats]:
        """Weight and value of what each moving mean is told. The first few reads weigh alike, so that a mean is one from the start."""
        gap, log = self.gap, np.log2(np.maximum(self.gap, 1.0))
        gap_s = np.nan_to_num(self.gap_s)
        angle = day_angle(np.nan_to_num(self.seconds))
        values = {
            "gap_mean": gap, "gap_2": gap**2, "gap_3": gap**3, "gap_log": log, "gap_log_2": log**2, "gap_product": gap * self.gap_1,
            "gap_mean_s": gap_s, "gap_2_s": gap_s**2, "burst": gap < _SHORT, "hit_share": self.hit,
            "other_reader": self.client != self.client_1, "regular": self._alike(gap, self.gap_1),
            "regular_s": self._alike(self.gap_s, self.gap_1_s), "sin": np.sin(angle), "cos": np.cos(angle),
        }  # fmt: skip
        needs = dict.fromkeys(_MEANS, 1)  # reads before, that there is anything to tell
        needs |= {"gap_product": 2, "regular": 2, "regular_s": 2, "hit_share": 0, "sin": 0, "cos": 0}
        told = self.count[:, None] - np.array([needs[name] for name in _MEANS])
        weight = np.where(told < 0, 0.0, np.maximum(_RECENT, 1.0 / np.maximum(told + 1.0, 1.0)))
        return weight, np.column_stack([values[name] for name in _MEANS])

    def _alike(self, gap: Floats, before: Floats) -> NDArray[np.bool_]:
        alike: NDArray[np.bool_] = np.abs(gap - before) <= _ALIKE * np.maximum(gap, before)
        return np.asarray(alike & (self.count >= 2) & (gap > 0))

    def features(self, found: Floats) -> dict[str, Floats]:
        """All of the key's features, from what the recurrences were before each row."""
        state = {name: np.where(self.known, found[:, at], np.nan) for name, at in _STEPS.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                **self._recency(),
                **self._frequency(found),
                **self._gaps(state),
                **self._schedule(state),
                **self._others(state),
            }

    def _recency(self) -> dict[str, Floats]:
        known, twice, thrice = self.known, self.count > 1, self.count > 2
        return {
            "since_last": np.where(known, self.gap, np.nan),
            "since_last_s": np.where(known, self.gap_s, np.nan),
            "since_second": np.where(twice, self.gap + self.gap_1, np.nan),
            "since_second_s": np.where(twice, self.gap_s + self.gap_1_s, np.nan),
            "since_third": np.where(thrice, self.gap + self.gap_1 + self.gap_2, np.nan),
            "age": np.where(known, self.request - self.first, np.nan),
            "age_s": np.where(known, self.seconds - self.first_s, np.nan),
            "reads": self.count,
        }

    def _frequency(self, found: Floats) -> dict[str, Floats]:
        faded = found[:, : len(_FADING)] * self.fades()
        clock = np.where(np.isnan(self.seconds), np.nan, 1.0)
        columns = {
            name: faded[:, at] * (clock if name.endswith("s") else 1.0)
            for name, at in _STEPS.items()
            if at < len(_FADING)
        }
        rates = columns["reads_1024"] / _HALVES[2], columns["reads_8192"] / _HALVES[3]
        columns["trend"] = np.where(self.known, rates[0] / rates[1], np.nan)
        return columns

    def _gaps(self, state: dict[str, Floats]) -> dict[str, Floats]:
        twice = np.where(self.count > 1, 1.0, np.nan)
        mean, second, third = (state[name] * twice for name in ("gap_mean", "gap_2", "gap_3"))
        variance = second - mean**2
        variance = np.where(variance > _ROUNDING * second, variance, 0.0)  # of none, rounding leaves some
        sd = np.sqrt(variance)
        log, mean_s = state["gap_log"] * twice, state["gap_mean_s"] * twice
        variance_log = state["gap_log_2"] - log**2
        variance_s = state["gap_2_s"] - mean_s**2
        sd_s = np.sqrt(np.where(variance_s > _ROUNDING * state["gap_2_s"], variance_s, 0.0))
        clock = np.where(np.isnan(self.seconds), np.nan, 1.0)
        covariance = state["gap_product"] - mean**2
        return {
            "gap": self.gap_1 * twice,
            "gap_before": np.where(self.count > 2, self.gap_2, np.nan),
            "gap_mean": mean,
            "gap_sd": sd,
            "gap_cv": sd / mean,
            "gap_skew": np.where(variance > 0, (third - 3.0 * mean * variance - mean**3) / (sd * variance), 0.0),
            "gap_log_mean": log,
            "gap_log_sd": np.sqrt(np.where(variance_log > _ROUNDING * state["gap_log_2"], variance_log, 0.0)),
            "gap_mean_s": mean_s * clock,
            "gap_cv_s": np.where(mean_s > 0, sd_s / mean_s, np.nan) * clock,
            "overdue": self.gap / mean,
            "burstiness": (sd - mean) / (sd + mean),
            "memory": np.where((self.count > 2) & (variance > 0), np.clip(covariance / variance, -1.0, 1.0), np.nan),
            "burst": state["burst"] * twice,
        }  # fmt: skip

    def _schedule(self, state: dict[str, Floats]) -> dict[str, Floats]:
        thrice = np.where(self.count > 2, 1.0, np.nan)
        period = np.where(state["period"] > 0, state["period"], np.nan)
        period_s = np.where(state["period_s"] > 0, state["period_s"], np.nan)
        clock = np.where(np.isnan(self.seconds), np.nan, 1.0)
        return {
            "regular": state["regular"] * thrice,
            "to_next": period - self.gap,
            "regular_s": state["regular_s"] * thrice * clock,
            "period_s": period_s,
            "to_next_s": period_s - self.gap_s,
            "phase_s": self.gap_s / period_s % 1.0,
        }

    def _others(self, state: dict[str, Floats]) -> dict[str, Floats]:
        sized = self._last("size", self.kept_size)
        size = np.where(self.known & (sized > 0), sized, np.nan)
        angle = day_angle(self.seconds)
        return {
            "hit_share": state["hit_share"],
            "misses_1024": np.where(self.known, state["misses_1024"], 0.0) * np.exp2(-np.where(self.known, self.gap, 0.0) / _MISSES),
            "size": size,
            "size_ratio": np.where(self.mean_size > 0, size / self.mean_size, np.nan),
            "same_reader": np.where(self.known, self.client == self.client_1, np.nan),
            "other_reader": np.where(self.count > 1, state["other_reader"], np.nan),
            "hour_usual": state["sin"] * np.sin(angle) + state["cos"] * np.cos(angle),
        }  # fmt: skip
