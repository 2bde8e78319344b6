"""PSI: by hand, its rate of false alarms by simulation, and the exact window of alarms on seeded streams."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import PsiDetector, adjust, categorical_bins, numeric_bins, psi, psi_test

COUNTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=15)


def test_psi_by_hand() -> None:
    expected = 0.1 * math.log(0.5 / 0.4) + 0.1 * math.log(0.3 / 0.2)
    assert psi([5, 3, 2], [40, 30, 30]) == pytest.approx(expected)
    assert psi([5, 3, 2], [500, 300, 200]) == pytest.approx(0.0)
    assert psi([1, 0], [1, 1]) == pytest.approx(0.5 * math.log(2) + (0.5 - 1e-4) * math.log(0.5 / 1e-4))
    assert math.isnan(psi([0, 0], [1, 1]))
    assert math.isnan(psi([1, 1], [0, 0]))


@given(COUNTS)
def test_psi_is_a_symmetric_distance(counts: list[tuple[int, int]]) -> None:
    reference, current = [a for a, _ in counts], [b for _, b in counts]
    if not any(reference) or not any(current):
        return
    assert psi(reference, current) >= 0.0
    assert psi(reference, current) == pytest.approx(psi(current, reference))
    assert psi(reference, reference) == 0.0


@given(COUNTS)
def test_a_verdict_is_consistent(counts: list[tuple[int, int]]) -> None:
    reference, current = [a for a, _ in counts], [b for _, b in counts]
    verdict = psi_test(reference, current, alpha=0.05, floor=0.01, min_rows=100)
    assert verdict.rows == sum(current)
    assert verdict.enough == (min(sum(reference), sum(current)) >= 100)
    assert verdict.drifted == (
        verdict.enough and verdict.effect > verdict.threshold and verdict.effect > 0.01
    )
    if verdict.drifted:
        assert verdict.p_value < 0.05


def test_threshold_is_the_quantile_of_chi_square() -> None:
    verdict = psi_test([2500] * 4, [250, 250, 250, 250])
    assert verdict.threshold == pytest.approx((1 / 10_000 + 1 / 1000) * 11.344867)
    assert (verdict.effect, verdict.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("kind", ["normal", "counts", "spike", "rare missing"])
@pytest.mark.parametrize(
    ("reference_rows", "rows"), [(10_000, 1000), (1000, 1000), (2000, 20_000), (20_000, 300)]
)
def test_false_alarms_come_at_the_nominal_rate(kind: str, reference_rows: int, rows: int) -> None:
    rng = np.random.default_rng(11)

    def draw(n: int) -> np.ndarray:
        if kind == "counts":
            return rng.poisson(3, n).astype(float)
        values = rng.normal(size=n)
        if kind == "spike":
            values[rng.random(n) < 0.6] = 0.0
        if kind == "rare missing":
            values[rng.random(n) < 0.002] = math.nan
        return values

    p_values = []
    for _ in range(400):  # a reference each: tests that share one are not independent
        reference = draw(reference_rows)
        bins = numeric_bins("x", reference)
        p_values.append(psi_test(bins.count(reference), bins.count(draw(rows)), floor=0.0).p_value)
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.08  # a standard error of 0.011
    assert np.mean(np.array(p_values) < 0.01) <= 0.025  # a standard error of 0.005


def test_a_real_change_is_found_where_fixed_thresholds_sleep() -> None:
    rng = np.random.default_rng(12)
    reference = rng.normal(size=50_000)
    bins = numeric_bins("x", reference)
    verdict = psi_test(bins.count(reference), bins.count(rng.normal(size=2000) + 0.25))
    assert verdict.drifted
    assert verdict.effect < 0.1


def test_a_change_too_small_to_matter_is_no_drift() -> None:
    verdict = psi_test([500_000, 500_000], [505_000, 495_000])
    assert verdict.p_value < 1e-9
    assert not verdict.drifted
    assert psi_test([500_000, 500_000], [505_000, 495_000], floor=0.0).drifted


@pytest.mark.parametrize("place", ["missing", "above"])
def test_values_the_reference_never_had(place: str) -> None:
    reference = np.random.default_rng(13).normal(size=10_000)
    bins = numeric_bins("x", reference)
    current = np.random.default_rng(14).normal(size=1000)
    current[:30] = math.nan if place == "missing" else 99.0
    assert psi_test(bins.count(reference), bins.count(current)).drifted
    constant = numeric_bins("x", np.ones(1000))
    assert not psi_test(constant.count(np.ones(1000)), constant.count(np.ones(500))).drifted
    broken = np.append(np.ones(450), np.full(50, math.nan if place == "missing" else 99.0))
    assert psi_test(constant.count(np.ones(1000)), constant.count(broken)).drifted


def test_an_empty_rare_bin_proves_nothing() -> None:
    bins = categorical_bins("c", [str(level) for level in range(6)])
    reference = bins.count(np.repeat(np.arange(6.0), [4000, 3000, 2990, 4, 3, 3]))
    current = bins.count(np.repeat(np.arange(3.0), [400, 300, 300]))
    assert psi_test(reference, current, floor=0.0).p_value > 0.9


def test_too_few_rows_say_nothing() -> None:
    verdict = psi_test([2500] * 4, [150, 10, 10, 10])
    assert (verdict.enough, verdict.drifted) == (False, False)
    assert psi_test([2500] * 4, [150, 10, 10, 10], min_rows=100).drifted
    empty = psi_test([2500] * 4, [0] * 4)
    assert (empty.rows, empty.enough, empty.drifted) == (0, False, False)
    assert math.isnan(empty.effect)
    single = psi_test([1000], [500])
    assert (single.effect, single.p_value, single.drifted) == (0.0, 1.0, False)


def stream(seed: int, shares: list[list[float]], rows: int = 1000) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.multinomial(rows, share) for share in shares]


STILL, MOVED = [0.1] * 10, [0.06, 0.07, 0.09, 0.1, 0.1, 0.1, 0.1, 0.11, 0.13, 0.14]


@pytest.mark.parametrize(
    ("needed", "of", "alarms"),
    [
        (1, 1, [*range(30, 40)]),
        (2, 3, [*range(31, 41)]),
        (3, 3, [*range(32, 40)]),
    ],
)
def test_exact_windows_of_alarm(needed: int, of: int, alarms: list[int]) -> None:
    detector = PsiDetector([1000] * 10, needed=needed, of=of)
    found = []
    for window, counts in enumerate(stream(21, [STILL] * 30 + [MOVED] * 10 + [STILL] * 10)):
        detector.update(counts)
        if detector.drift_detected:
            found.append(window)
    assert found == alarms


def test_persistence_silences_single_false_alarms() -> None:
    detector = PsiDetector([100_000] * 10, alpha=0.05, floor=0.0)
    single = persistent = 0
    for counts in stream(22, [STILL] * 2000):
        detector.update(counts)
        assert detector.verdict is not None
        single += detector.verdict.drifted
        persistent += detector.drift_detected
    assert 0.03 <= single / 2000 <= 0.07
    assert persistent / 2000 <= 0.02


def test_a_small_window_is_not_remembered() -> None:
    detector = PsiDetector([2500] * 4, needed=2, of=2)
    moved, small = [400, 300, 200, 100], [1, 0, 0, 0]
    for counts in (moved, small, moved):
        detector.update(counts)
    assert detector.drift_detected
    detector.update(small)
    assert detector.drift_detected
    assert detector.verdict is not None
    assert not detector.verdict.enough


def test_detector_before_any_window_after_reset_and_pickled() -> None:
    detector = PsiDetector([2500] * 4, needed=1, of=1)
    assert detector.verdict is None
    assert not detector.drift_detected
    assert detector.update([400, 300, 200, 100]) is None  # type: ignore[func-returns-value]
    copy = pickle.loads(pickle.dumps(detector))
    assert copy.drift_detected
    assert copy.verdict == detector.verdict
    detector.reset()
    assert detector.verdict is None
    assert not detector.drift_detected


def test_detector_refuses_other_bins_and_keeps_its_state() -> None:
    detector = PsiDetector([2500] * 4, needed=1, of=1)
    detector.update([400, 300, 200, 100])
    before = detector.verdict
    with pytest.raises(InvalidInput, match="same bins"):
        detector.update([1, 2, 3])
    assert detector.verdict is before
    assert detector.drift_detected


def test_adjusted_p_values_equal_the_definition() -> None:
    rng = np.random.default_rng(23)
    values = rng.random(50) ** 3
    ascending = np.sort(values)
    expected = [
        min(1.0, *(ascending[k] * 50 / (k + 1) for k in range(50) if ascending[k] >= p)) for p in values
    ]
    np.testing.assert_allclose(adjust(values), expected)
    assert adjust([]).tolist() == []
    np.testing.assert_allclose(adjust([0.01, math.nan, 0.5]), [0.02, math.nan, 0.5])


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0.001, 0.5))
def test_adjusting_rejects_what_the_step_up_rule_rejects(values: list[float], alpha: float) -> None:
    ascending = sorted(values)
    passing = [p for k, p in enumerate(ascending) if p * len(values) / (k + 1) <= alpha]
    cut = max(passing, default=-1.0)
    assert (adjust(values) <= alpha).tolist() == [p <= cut for p in values]


def test_inputs_are_not_changed() -> None:
    reference, current, p_values = np.array([500, 300, 2]), np.array([100, 300, 9]), np.array([0.5, 0.1])
    for array in (reference, current, p_values):
        array.setflags(write=False)
    psi_test(reference, current)
    PsiDetector(reference).update(current)
    adjust(p_values)


def test_what_makes_no_sense_is_refused() -> None:
    for reference, current in (
        ([1, 2], [1]),
        ([1, -1], [1, 1]),
        ([1, math.nan], [1, 1]),
        ([], []),
        ([[1]], [[1]]),
    ):
        with pytest.raises(InvalidInput):
            psi_test(reference, current)
    with pytest.raises(InvalidInput, match="alpha"):
        psi_test([1], [1], alpha=0.0)
    with pytest.raises(InvalidInput, match="floor"):
        psi_test([1], [1], floor=-1.0)
    with pytest.raises(InvalidInput, match="needed"):
        PsiDetector([1, 1], needed=4, of=3)
    with pytest.raises(InvalidInput, match="alpha"):
        PsiDetector([1, 1], alpha=2.0)
    with pytest.raises(InvalidInput, match="p_values"):
        adjust([1.5])
