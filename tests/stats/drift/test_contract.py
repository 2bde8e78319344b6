"""What every detector has to do, generated over all of them: calm data is calm, a large change is found, state can be copied and reset."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from predis.errors import InvalidInput
from predis.stats import drift as package
from predis.stats import numeric_bins
from predis.stats.drift import (
    AdwinDetector,
    BinDetector,
    ChiSquareDetector,
    DomainClassifier,
    Ensemble,
    JensenShannonDetector,
    KsDetector,
    LossDetector,
    PageHinkleyDetector,
    PsiDetector,
    WassersteinDetector,
)

REFERENCE = np.random.default_rng(1).normal(size=10_000)
BINS = numeric_bins("x", REFERENCE)
COUNTS = BINS.count(REFERENCE)
BLOCKS = [BINS.count(part) for part in np.split(REFERENCE, 40)]

BINNED: list[type[BinDetector]] = [
    PsiDetector, KsDetector, ChiSquareDetector, JensenShannonDetector, WassersteinDetector,
]  # fmt: skip
BATCH: dict[str, Callable[[], Any]] = {
    **{kind.__name__: lambda kind=kind: kind(COUNTS, alpha=0.001) for kind in BINNED},
    "Ensemble": lambda: Ensemble([BINS], [COUNTS], blocks=BLOCKS),
}
STREAM: dict[str, Callable[[], Any]] = {
    "LossDetector": LossDetector, "AdwinDetector": AdwinDetector, "PageHinkleyDetector": PageHinkleyDetector,
}  # fmt: skip
EVERY = [*BATCH, *STREAM]
TOLERATED = {"PageHinkleyDetector": 1}  # of 20,000 values: its threshold is no rate


def windows(seed: int, shift: float, count: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield BINS.count(rng.normal(shift, size=1_000))


def losses(seed: int, rate: float, count: int) -> list[float]:
    return (np.random.default_rng(seed).random(count) < rate).astype(float).tolist()


def made(name: str) -> Any:
    return {**BATCH, **STREAM}[name]()


def calm(name: str, seed: int = 2) -> list[Any]:
    return list(windows(seed, 0.0, 60)) if name in BATCH else losses(seed, 0.1, 20_000)


def changed(name: str, seed: int = 3) -> list[Any]:
    return list(windows(seed, 0.5, 4)) if name in BATCH else losses(seed, 0.6, 2_000)


def alarms(detector: Any, values: list[Any]) -> list[int]:
    found = []
    for at, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            found.append(at)
    return found


def test_every_detector_is_here() -> None:
    detectors = {name for name in package.__all__ if name.endswith("Detector") or name == "Ensemble"}
    assert detectors - {"BinDetector"} == {*EVERY}


@pytest.mark.parametrize("name", EVERY)
def test_calm_data_is_calm_and_a_change_is_found(name: str) -> None:
    detector = made(name)
    assert not detector.drift_detected
    assert len(alarms(detector, calm(name))) <= TOLERATED.get(name, 0)
    found = alarms(detector, changed(name))
    assert found
    assert found[0] == 1 if name in BATCH else found[0] < 200
    assert detector.verdict is not None


@pytest.mark.parametrize("name", EVERY)
def test_same_input_same_alarms(name: str) -> None:
    values = [*calm(name)[:3_000], *changed(name)]
    assert alarms(made(name), values) == alarms(made(name), values)


@pytest.mark.parametrize("name", EVERY)
def test_after_a_reset_it_is_new(name: str) -> None:
    detector = made(name)
    values = [*calm(name)[:3_000], *changed(name)]
    first = alarms(detector, values)
    detector.reset()
    assert not detector.drift_detected
    assert alarms(detector, values) == first


@pytest.mark.parametrize("name", EVERY)
def test_a_copy_goes_on_where_the_original_was(name: str) -> None:
    detector = made(name)
    values = [*calm(name)[:3_000], *changed(name)]
    half = len(values) // 2
    alarms(detector, values[:half])
    twins = [copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))]
    expected = alarms(detector, values[half:])
    assert [alarms(twin, values[half:]) for twin in twins] == [expected, expected]


@pytest.mark.parametrize("name", EVERY)
def test_what_makes_no_sense_is_refused_and_changes_nothing(name: str) -> None:
    detector = made(name)
    values = calm(name)[:200]
    alarms(detector, values)
    before = detector.verdict
    for wrong in [[1, 2, 3], np.ones((2, 2))] if name in BATCH else [float("nan"), float("inf")]:
        with pytest.raises(InvalidInput):
            detector.update(wrong)
    assert detector.verdict == before


@pytest.mark.parametrize("kind", BINNED)
def test_false_alarms_of_one_window_come_at_most_at_the_nominal_rate(kind: type[BinDetector]) -> None:
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(300):
        reference, window = rng.multinomial(8_000, [0.1] * 10), rng.multinomial(1_000, [0.1] * 10)
        detector = kind(reference, alpha=0.05, floor=0.0, needed=1, of=1)
        detector.update(window)
        found += detector.drift_detected
    assert found <= 27  # 15 expected at the most, four standard errors


@pytest.mark.parametrize("kind", BINNED)
def test_a_verdict_agrees_with_itself(kind: type[BinDetector]) -> None:
    for shift in (0.0, 0.05, 0.1, 0.2, 0.5):
        detector = kind(COUNTS, alpha=0.01)
        for window in windows(7, shift, 3):
            detector.update(window)
            verdict = detector.verdict
            assert verdict is not None
            assert verdict.rows == 1_000
            assert (verdict.p_value < 0.01) == (verdict.effect > verdict.threshold)
            assert verdict.drifted == (verdict.p_value < 0.01 and verdict.effect > verdict.floor)


@pytest.mark.parametrize("kind", BINNED)
def test_parameters_are_checked(kind: type[BinDetector]) -> None:
    for wrong in ({"alpha": 0.0}, {"floor": -1.0}, {"needed": 4}, {"needed": 0}):
        with pytest.raises(InvalidInput):
            kind(COUNTS, **wrong)


@pytest.mark.parametrize("kind", BINNED)
def test_few_rows_say_nothing(kind: type[BinDetector]) -> None:
    detector = kind(COUNTS, needed=1)
    detector.update(BINS.count(np.full(100, 9.0)))
    assert detector.verdict is not None
    assert not detector.verdict.enough
    assert not detector.drift_detected
    detector.update(np.zeros(BINS.size))
    assert not detector.drift_detected


def test_the_domain_classifier() -> None:
    rng = np.random.default_rng(6)
    reference = rng.normal(size=(3_000, 20))
    bins = [numeric_bins(f"f{at}", reference[:, at]) for at in range(20)]
    detector = DomainClassifier(bins, reference)
    assert detector.verdict is None
    for _ in range(5):
        detector.update(rng.normal(size=(1_000, 20)))
        assert not detector.drift_detected
    detector.update(rng.normal(0.15, size=(1_000, 20)))  # each column by too little to notice
    assert detector.drift_detected
    assert detector.verdict is not None
    assert 0.5 < detector.verdict.low < detector.verdict.auc < detector.verdict.high
    with pytest.raises(InvalidInput, match="shape"):
        detector.update(rng.normal(size=(10, 3)))
    detector.reset()
    assert not detector.drift_detected
