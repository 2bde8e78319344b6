from __future__ import annotations

import sys

import numpy as np
import pytest

from predis.cache.predictor import lstm, next_keys
from predis.cache.predictor.next_keys import TOP, WINDOW, NextKeys, needed_next, windows
from predis.errors import InvalidInput, MissingExtra

DELAY = 3


def stream(count: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    """Two clients that go round, each in its own circle of keys, interleaved at random."""
    rng = np.random.default_rng(4)
    clients = rng.integers(0, 2, count)
    keys = np.zeros(count, np.int64)
    for client in (0, 1):
        of = np.flatnonzero(clients == client)
        keys[of] = np.arange(len(of)) % (20 + client) + 1_000 * client
    return keys, clients


@pytest.fixture(scope="module")
def trained() -> NextKeys:
    keys, clients = stream()
    needed = np.ones(len(keys), bool)
    targets = needed_next(keys, clients, needed=needed, ready=np.arange(len(keys)) + DELAY + 1, horizon=64)
    return lstm.fit(windows(keys, clients), targets, epochs=10)


def test_windows_are_of_one_client_and_of_the_past() -> None:
    keys, clients = np.array([7, 8, 7, 9, 8]), np.array([0, 1, 0, 0, 1])
    found = windows(keys, clients)
    assert found.shape == (5, WINDOW)
    assert (found[0, :-1] == 0).all()
    assert found[3, -3] == found[3, -2] == found[0, -1] == found[2, -1]
    assert found[4, -2] == found[4, -1] == found[1, -1]
    changed = windows(np.array([7, 8, 7, 1, 2]), clients)
    np.testing.assert_array_equal(found[:3], changed[:3])
    assert found[found > 0].max() < next_keys.BUCKETS


def test_targets_are_needed_late_enough_and_by_the_same_client() -> None:
    keys, clients = np.arange(100, 112), np.array([0, 1] * 6)
    needed = np.ones(12, bool)
    needed[6] = False
    found = needed_next(keys, clients, needed=needed, ready=np.arange(12) + 4, horizon=8)
    assert found[0].tolist() == [104, 108, -1, -1]
    assert found[1].tolist() == [105, 107, 109, -1]
    assert found[11].tolist() == [-1] * TOP
    assert (needed_next(keys, clients, needed=~needed, ready=np.arange(12) + 12, horizon=8) == -1).all()
    nothing = needed_next(keys, clients, needed=np.zeros(12, bool), ready=np.arange(12), horizon=8)
    assert (nothing == -1).all()


def test_it_learns_what_comes_late_enough(trained: NextKeys) -> None:
    keys, clients = stream()
    found, chances = trained.ask(windows(keys, clients)[1_000:1_300])
    targets = needed_next(
        keys, clients, needed=np.ones(len(keys), bool), ready=np.arange(len(keys)) + DELAY + 1, horizon=64
    )[1_000:1_300]
    right = (found[:, :1] == targets).any(1).mean()
    assert right > 0.9
    assert (np.diff(chances, axis=1) <= 0).all()
    assert (chances.sum(1) <= 1.0001).all()
    assert trained.ask(windows(keys, clients)[:0])[0].shape == (0, TOP)


def test_the_same_seed_gives_the_same_network() -> None:
    keys, clients = stream(1_500)
    ready = np.arange(len(keys)) + DELAY + 1
    targets = needed_next(keys, clients, needed=np.ones(len(keys), bool), ready=ready, horizon=64)
    inputs = windows(keys, clients)
    one, other = (lstm.fit(inputs, targets, epochs=1).ask(inputs[:50]) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


def test_too_little_is_not_learned_from() -> None:
    with pytest.raises(InvalidInput, match="too few"):
        lstm.fit(np.zeros((10, WINDOW), np.int64), np.full((10, TOP), -1))


@pytest.mark.parametrize(("package", "extra"), [("torch", "torch"), ("onnxruntime", "onnx")])
def test_it_is_said_what_to_install(package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"predis\[{extra}\]"):
        lstm.fit(np.ones((600, WINDOW), np.int64), np.ones((600, TOP), np.int64))
