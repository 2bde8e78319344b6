from __future__ import annotations

import sys

import numpy as np
import pytest

from predis.cache.predictor.boosting import Confidence, Isotonic, reliability, worth_it
from predis.cache.predictor.proposals import Proposer, outcomes
from predis.errors import InvalidInput, MissingExtra

COLUMNS = [f"feature {n}" for n in range(6)]


def candidates(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, what became of them, and the true chance of each."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 6)).astype(np.float32)
    chance = 1.0 / (1.0 + np.exp(-(1.5 * rows[:, 0] - rows[:, 1] * (rows[:, 2] > 0) - 1.0)))
    rows[rng.random(rows.shape) < 0.02] = np.nan
    return rows, rng.random(count) < chance, chance


@pytest.fixture(scope="module")
def fitted() -> Confidence:
    rows, worth, _ = candidates(8_000)
    return Confidence.fit(rows, worth, columns=COLUMNS)


def test_chances_are_true_ones_on_later_time(fitted: Confidence) -> None:
    rows, worth, chance = candidates(8_000, seed=2)
    said = fitted.chances(rows)
    bins, error = reliability(said, worth)
    assert error < 0.04
    assert sum(row["candidates"] for row in bins) == len(rows)
    assert np.corrcoef(said, chance)[0, 1] > 0.9
    assert ((said - worth) ** 2).mean() < ((worth.mean() - worth) ** 2).mean() * 0.85
    assert next(iter(fitted.importance())) == "feature 0"
    assert sum(fitted.importance().values()) == pytest.approx(1.0)
    assert fitted.chances(rows[:0]).shape == (0,)


def test_the_same_seed_gives_the_same_model(fitted: Confidence) -> None:
    rows, worth, _ = candidates(8_000)
    again = Confidence.fit(rows, worth, columns=COLUMNS)
    np.testing.assert_array_equal(again.chances(rows), fitted.chances(rows))


def test_too_little_is_not_learned_from() -> None:
    rows, worth, _ = candidates(800)
    with pytest.raises(InvalidInput, match="too few"):
        Confidence.fit(rows, worth, columns=COLUMNS)
    rows, worth, _ = candidates(5_000)
    with pytest.raises(InvalidInput, match="too few"):
        Confidence.fit(rows, np.zeros(5_000, bool), columns=COLUMNS)


def test_without_lightgbm_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    rows, worth, _ = candidates(8_000)
    with pytest.raises(MissingExtra, match=r"predis\[lightgbm\]"):
        Confidence.fit(rows, worth, columns=COLUMNS)


def test_calibration_never_falls_and_is_never_certain() -> None:
    rng = np.random.default_rng(7)
    scores = rng.normal(size=2_000)
    fitted = Isotonic.fit(scores, rng.random(2_000) < 1.0 / (1.0 + np.exp(-3 * scores)))
    said = fitted(np.linspace(-10, 10, 500))
    assert (np.diff(said) >= 0).all()
    assert 0.0 < said[0] < 0.1
    assert 0.9 < said[-1] < 1.0
    with pytest.raises(InvalidInput, match="no candidate"):
        Isotonic.fit(scores[:0], scores[:0] > 0)


def test_a_prefetch_pays_where_its_chance_is_worth_its_price() -> None:
    assert worth_it(np.array([0.1, 0.41, 0.42, 0.9]), price=0.7).tolist() == [False, False, True, True]


def test_outcomes_need_a_miss_in_time_and_soon_enough() -> None:
    reads = np.array([5, 9, 9, 9, 7, 7, 9, 5, 8, 7])
    missed = np.array([True, True, False, False, True, True, False, True, True, True])
    ready = np.arange(10) + 3
    keys, rows = np.array([7, 7, 5, 5, 8, 7, 42, 9]), np.array([0, 3, 0, 1, 0, 9, 0, 3])
    worth = outcomes(rows, keys, reads=reads, missed=missed, ready=ready, horizon=7)
    # read and missed 4 later; first read too soon; 7 later; 6 later; 8 later: too far; never; unknown; a hit
    assert worth.tolist() == [True, False, True, True, False, False, False, False]


def test_the_tables_propose_what_is_needed_late_enough() -> None:
    proposer = Proposer(4.0)
    found = []
    for i, key in enumerate([1, 2, 3, 4, 5, 6, 7, 8] * 5):
        found = proposer.read(key, float(i), client=0, needed=True)
    after_8 = [one.key for one in found if one.share > 0.5]
    assert after_8 == [4, 5, 6, 7], "1 to 3 would come too late"
    assert Proposer(4.0).read(1, 0.0, client=0, needed=True) == []


def test_clients_are_told_apart() -> None:
    proposer = Proposer(1.0)
    for i in range(40):
        found = [
            proposer.read(key, float(2 * i), client=key // 10, needed=True)
            for key in (10 + i % 2, 20 + i % 3)
        ]
    assert all(one.key >= 20 for one in found[1])
    assert all(one.key < 20 for one in found[0])
