"""When a value is loaded anew: the formula of the paper, and how likely another read is."""

from __future__ import annotations

import math
import random

import pytest

from predis.cache.sources.refreshing import Rates, chance, is_due


def share(left_s: float, *, load_s: float = 1.0, beta: float = 1.0, again: float = 1.0) -> float:
    draws = random.Random(7)
    return sum(
        is_due(left_s, beta=beta, load_s=load_s, again=again, draw=draws.random) for _ in range(20_000)
    ) / 20_000  # fmt: skip


@pytest.mark.parametrize("left_s", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("load_s", [0.5, 2.0])
def test_it_is_the_distribution_of_the_paper(left_s: float, load_s: float) -> None:
    """P(-delta beta ln u >= left) = exp(-left / (delta beta))."""
    assert share(left_s, load_s=load_s) == pytest.approx(math.exp(-left_s / load_s), abs=0.01)
    assert share(left_s, load_s=load_s, beta=2.0) == pytest.approx(math.exp(-left_s / load_s / 2), abs=0.01)


def test_what_nobody_reads_again_is_not_loaded() -> None:
    assert share(1.0, again=0.0) == 0.0
    assert share(1.0, again=0.5) < share(1.0, again=1.0)
    assert share(1.0, beta=0.0) == 0.0
    assert share(0.0, beta=0.0) == 1.0  # it is stale


def test_the_gap_between_reads() -> None:
    rates = Rates()
    assert rates.read(b"a", 10.0) == math.inf
    assert rates.read(b"a", 12.0) == 2.0
    assert rates.read(b"a", 13.0) == pytest.approx(0.7 * 2 + 0.3 * 1)
    assert rates.read(b"b", 13.0) == math.inf


def test_what_is_remembered_is_bounded_and_the_oldest_goes() -> None:
    rates = Rates(remembered=3)
    for at, key in enumerate([b"a", b"b", b"c", b"a", b"d"]):
        rates.read(key, at)
    assert rates.read(b"a", 9.0) < math.inf
    assert rates.read(b"b", 9.0) == math.inf


def test_the_chance_of_another_read() -> None:
    assert chance(10.0, math.inf) == 0.0
    assert chance(10.0, 0.0) == 1.0
    assert chance(10.0, 10.0) == pytest.approx(1 - 1 / math.e)
