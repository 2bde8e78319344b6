"""Confidence sequences: roots against the formula, and the error rate under a look after every batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import AucPairs, auc, proportion_interval, rate_difference_interval

RUNS, LOOKS = 400, 100


def log_martingale(p: float, successes: float, trials: float) -> float:
    failures = trials - successes
    mixture = (
        math.lgamma(successes + 0.5)
        + math.lgamma(failures + 0.5)
        - math.lgamma(trials + 1.0)
        - math.log(math.pi)
    )
    return mixture - successes * math.log(p) - failures * math.log1p(-p)


@given(st.integers(1, 10**9), st.floats(0, 1), st.sampled_from([0.5, 0.05, 0.01, 1e-6]))
def test_bounds_are_where_the_martingale_reaches_one_over_alpha(
    trials: int, rate: float, alpha: float
) -> None:
    successes = math.floor(trials * rate * 2) / 2
    low, high = proportion_interval(successes, trials, alpha=alpha)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    slack = 1e-9 * trials + 1e-6
    if 0 < low:
        assert log_martingale(low, successes, trials) == pytest.approx(-math.log(alpha), abs=slack)
    if high < 1:
        assert log_martingale(high, successes, trials) == pytest.approx(-math.log(alpha), rel=1e-3, abs=slack)
    mirrored = proportion_interval(trials - successes, trials, alpha=alpha)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_golden_intervals() -> None:
    assert proportion_interval(0, 0, alpha=0.05) == (0.0, 1.0)
    beta = math.gamma(100.5) / math.gamma(101) / math.sqrt(math.pi)  # B(1/2, 100 + 1/2) / B(1/2, 1/2)
    closed = 1 - (0.05 * beta) ** 0.01  # without a success the root has a closed form
    assert proportion_interval(0, 100, alpha=0.05) == (0.0, pytest.approx(closed))
    assert proportion_interval(100, 100, alpha=0.05) == (pytest.approx(1 - closed), 1.0)
    assert proportion_interval(10, 1000, alpha=0.05) == pytest.approx((0.00240647, 0.02616443), abs=1e-7)
    assert proportion_interval(0.5, 1, alpha=1e-9)[0] < 1e-9


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_intervals_shrink_with_alpha_and_with_data(trials: int, rate: float) -> None:
    successes = math.floor(trials * rate)
    low, high = proportion_interval(successes, trials, alpha=0.05)
    wider = proportion_interval(successes, trials, alpha=0.01)
    more = proportion_interval(successes * 10, trials * 10, alpha=0.05)
    assert wider[0] <= low
    assert high <= wider[1]
    assert more[1] - more[0] < high - low


def cumulated(rng: np.random.Generator, kind: str, rate: float, batch: int) -> np.ndarray:
    """Sums of values in [0, 1] with mean `rate`, after each look of each run: float64[RUNS, LOOKS]."""
    if kind == "coin":
        sums = rng.binomial(batch, rate, (RUNS, LOOKS)).astype(float)
    elif kind == "three values":
        halves = rng.multinomial(batch, [rate / 2, rate, 1 - 1.5 * rate], (RUNS, LOOKS))
        sums = halves[..., 0] + 0.5 * halves[..., 1]
    else:
        sums = rng.beta(rate * 3, (1 - rate) * 3, (RUNS, LOOKS, batch)).sum(axis=2)
    return np.cumsum(sums, axis=1)


@pytest.mark.parametrize(
    ("kind", "rate", "batch"),
    [("coin", 0.5, 1), ("coin", 0.02, 20), ("three values", 0.5, 5), ("any value", 0.3, 5)],
)
def test_the_truth_is_left_in_at_most_alpha_of_all_runs(kind: str, rate: float, batch: int) -> None:
    sums = cumulated(np.random.default_rng(31), kind, rate, batch)
    trials = batch * np.arange(1, LOOKS + 1)
    left = 0
    for run in sums:
        intervals = [
            proportion_interval(s, n, alpha=0.1) for s, n in zip(run.tolist(), trials.tolist(), strict=True)
        ]
        left += any(not low <= rate <= high for low, high in intervals)
    assert left / RUNS <= 0.1 + 2 * math.sqrt(0.1 * 0.9 / RUNS)


def verdict_of(baseline: tuple[float, float], candidate: tuple[float, float], *, margin: float) -> str:
    """Whether the candidate's rate is surely more than `margin` above the baseline's, surely not, or neither."""
    low, high = rate_difference_interval(baseline, candidate, alpha=0.05)
    return "worse" if low > margin else "not_worse" if high < margin else "undecided"


def rate_verdicts(seed: int, base: float, candidate: float, margin: float) -> list[str]:
    """The first decided verdict of each run, looked at after every batch of 100 against 50."""
    rng = np.random.default_rng(seed)
    old, new = cumulated(rng, "coin", base, 100), cumulated(rng, "coin", candidate, 50)
    found = []
    for run in range(RUNS):
        verdict = "undecided"
        for look in range(LOOKS):
            sides = (old[run, look], 100 * (look + 1)), (new[run, look], 50 * (look + 1))
            verdict = verdict_of(*sides, margin=margin)
            if verdict != "undecided":
                break
        found.append(verdict)
    return found


def test_peeking_does_not_abort_an_equal_candidate() -> None:
    verdicts = rate_verdicts(32, 0.05, 0.05, 0.0)
    assert verdicts.count("worse") / RUNS <= 0.05


def test_a_candidate_exactly_at_the_margin_is_rarely_called_either() -> None:
    verdicts = rate_verdicts(33, 0.05, 0.06, 0.01)
    assert (RUNS - verdicts.count("undecided")) / RUNS <= 0.05


def test_a_bad_candidate_is_caught_and_a_good_one_passed() -> None:
    assert rate_verdicts(34, 0.02, 0.15, 0.01).count("worse") == RUNS
    assert rate_verdicts(35, 0.02, 0.02, 0.05).count("not_worse") == RUNS


def test_exact_look_at_which_a_seeded_run_is_decided() -> None:
    rng = np.random.default_rng(36)
    base, candidate = np.cumsum(rng.random(5000) < 0.01), np.cumsum(rng.random(5000) < 0.06)
    looks = [
        n
        for n in range(1, 5001)
        if verdict_of((base[n - 1], n), (candidate[n - 1], n), margin=0.01) == "worse"
    ]
    assert looks[0] == 1295


def test_without_data_anything_is_possible() -> None:
    low, high = rate_difference_interval((0, 0), (3, 10), alpha=0.05)
    assert low < 0 < high < 1
    assert rate_difference_interval((0, 0), (0, 0), alpha=0.05) == (-1.0, 1.0)


def test_interval_of_few_bad_things_is_the_exact_one() -> None:
    interval = rate_difference_interval((10, 1000), (30, 500), alpha=0.1)
    base, candidate = proportion_interval(10, 1000, alpha=0.025), proportion_interval(30, 500, alpha=0.025)
    assert interval == (candidate[0] - base[1], candidate[1] - base[0])


def test_interval_of_many_is_narrower_than_the_exact_one() -> None:
    low, high = rate_difference_interval((700, 1000), (6300, 9000), alpha=0.05)
    base, candidate = (
        proportion_interval(700, 1000, alpha=0.025),
        proportion_interval(6300, 9000, alpha=0.025),
    )
    assert 0 < high == pytest.approx(-low)
    assert high < 0.75 * (candidate[1] - base[0])


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0.5, 0.05, 1e-6]),
)
def test_interval_of_the_difference_holds_the_estimate_and_mirrors(
    n: int, m: int, first: float, second: float, alpha: float
) -> None:
    base, candidate = (math.floor(n * first), n), (math.floor(m * second * 2) / 2, m)
    low, high = rate_difference_interval(base, candidate, alpha=alpha)
    assert -1 <= low <= high <= 1
    if n and m:
        assert low <= candidate[0] / m - base[0] / n <= high
    assert rate_difference_interval(candidate, base, alpha=alpha) == pytest.approx((-high, -low))


def paired(score: object, label: object) -> AucPairs:
    pairs = AucPairs()
    pairs.update(score, label)  # type: ignore[arg-type]
    return pairs


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=40), st.integers(0, 40))
def test_pairs_use_every_row_once_however_the_stream_is_cut(sample: list[tuple[int, int]], cut: int) -> None:
    whole = paired([float(s) for s, _ in sample], [y for _, y in sample])
    parts = AucPairs()
    for part in (sample[:cut], sample[cut:]):
        parts.update([float(s) for s, _ in part], [y for _, y in part])
    positives = sum(y for _, y in sample)
    assert (whole.wins, whole.pairs) == (parts.wins, parts.pairs)
    assert whole.pairs == min(positives, len(sample) - positives)  # no more than 40 rows: none leaves
    assert 0 <= whole.wins <= whole.pairs


def test_pairs_are_neighbours_in_time() -> None:
    """Scores and base rate both grow over the day; within an hour the score knows nothing, and that is what counts."""
    rng = np.random.default_rng(36)
    day = np.linspace(0, 1, 20_000)
    score, label = day + 0.01 * rng.normal(size=day.size), rng.random(day.size) < 0.2 + 0.6 * day
    pairs = paired(score, label)
    assert auc(score, label) > 0.65
    assert pairs.wins / pairs.pairs == pytest.approx(0.5, abs=0.03)


def test_waiting_rows_are_bounded() -> None:
    pairs = AucPairs(keep=3)
    pairs.update([0.1, 0.2, 0.3, 0.4, 0.5], [0, 0, 0, 0, 0])
    pairs.update([0.45] * 5, [1, 1, 1, 1, 1])
    assert (pairs.wins, pairs.pairs) == (2.0, 3)
    with pytest.raises(InvalidInput, match="keep"):
        AucPairs(keep=0)


def test_share_of_pairs_won_estimates_the_auc() -> None:
    rng = np.random.default_rng(37)
    label = rng.random(40_000) < 0.4
    score = rng.normal(size=40_000) + label
    pairs = paired(score, label)
    assert pairs.wins / pairs.pairs == pytest.approx(auc(score, label), abs=0.01)


@pytest.mark.parametrize(("shift", "margin", "allowed"), [(0.0, 0.0, {"undecided"}), (1.5, 0.02, {"worse"})])
def test_pairs_under_continuous_looking(shift: float, margin: float, allowed: set[str]) -> None:
    """Scores in tenths, so with many ties; the candidate loses `shift` of a separation of 1.5."""
    rng = np.random.default_rng(38)
    wrong = 0
    for _ in range(60):
        totals = np.zeros(4)
        verdict = "undecided"
        for _ in range(40):
            for side, separation in ((0, 1.5), (2, 1.5 - shift)):
                label = np.arange(100) % 4 == 0
                pairs = paired((rng.normal(size=100) + separation * label).round(1), label)
                totals[side : side + 2] += pairs.wins, pairs.pairs
            lost = totals[1::2] - totals[::2]
            verdict = verdict_of((lost[0], totals[1]), (lost[1], totals[3]), margin=margin)
            if verdict != "undecided":
                break
        wrong += verdict not in allowed
    assert wrong <= 60 * 0.05


def test_what_makes_no_sense_is_refused() -> None:
    for successes, trials in ((-1, 5), (6, 5), (math.nan, 5), (1, math.inf), (0, -1)):
        with pytest.raises(InvalidInput, match="successes"):
            proportion_interval(successes, trials, alpha=0.05)
    with pytest.raises(InvalidInput, match="alpha"):
        proportion_interval(1, 2, alpha=1.0)
    with pytest.raises(InvalidInput, match="successes"):
        rate_difference_interval((1, 2), (3, 2), alpha=0.05)
    with pytest.raises(InvalidInput, match="alpha"):
        rate_difference_interval((1, 2), (1, 2), alpha=0.0)
    with pytest.raises(InvalidInput, match="NaN"):
        paired([math.nan], [1])
