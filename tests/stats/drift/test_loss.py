"""The detector of losses: golden positions, errors that cluster, values of any size."""

from __future__ import annotations

import numpy as np
import pytest

from predis.errors import InvalidInput
from predis.stats.drift import LossDetector


def alarms(values: np.ndarray, detector: LossDetector | None = None) -> list[int]:
    detector = detector or LossDetector()
    found = []
    for at, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            found.append(at)
    return found


def errors(seed: int, *rates: tuple[int, float]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random(rows) < rate for rows, rate in rates]).astype(float)


def clustered(seed: int, rows: int) -> np.ndarray:
    """Errors whose rate wanders between .05 and .5 with a memory of a few hundred rows."""
    rng = np.random.default_rng(seed)
    wandering = np.convolve(rng.normal(size=rows + 300), np.full(300, 1 / np.sqrt(300)), mode="valid")[:rows]
    return (rng.random(rows) < np.clip(0.25 + 0.1 * wandering, 0.05, 0.5)).astype(float)


def test_golden_positions() -> None:
    stream = errors(1, (10_000, 0.1), (5_000, 0.9), (5_000, 0.1), (5_000, 0.9))
    assert alarms(stream) == [10_047, 20_063]


def test_a_fall_is_no_alarm() -> None:
    assert alarms(errors(2, (5_000, 0.9), (20_000, 0.1))) == []


def test_small_rises_take_longer() -> None:
    delays = [alarms(errors(3, (60_000, 0.1), (5_000, rate)))[0] - 60_000 for rate in (0.14, 0.2, 0.5)]
    assert delays == [1_055, 255, 63]


def test_a_rise_below_the_effect_is_none() -> None:
    assert alarms(errors(3, (60_000, 0.4), (5_000, 0.47))) == []
    assert alarms(errors(3, (60_000, 0.4), (5_000, 0.47)), LossDetector(effect=0.0)) != []


def test_calm_streams_are_calm() -> None:
    assert sum(len(alarms(errors(seed, (40_000, 0.1)))) for seed in range(5)) == 0


def test_errors_that_cluster_are_calm_too() -> None:
    assert sum(len(alarms(clustered(seed, 20_000))) for seed in range(5)) == 0


def test_values_of_any_size() -> None:
    rng = np.random.default_rng(4)
    loss = rng.gamma(2.0, 1e6, 8_000)
    loss[5_000:] *= 1.5
    (found,) = alarms(loss)
    assert 5_000 < found < 5_600
    assert alarms(np.zeros(5_000)) == []


def test_a_verdict_tells_both_means() -> None:
    detector = LossDetector()
    alarms(errors(5, (2_000, 0.1)), detector)
    verdict = detector.verdict
    assert verdict is not None
    assert 0.05 < verdict.before < 0.15
    assert verdict.values_recent in (64, 256, 1_024, 4_096)


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"effect": -1.0}, {"block": 0}])
def test_parameters_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        LossDetector(**wrong)
