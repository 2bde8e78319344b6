"""The hold-back: who is held, what is counted, when a rule is switched off and tried again."""

from __future__ import annotations

import math
import random

import pytest

from predis.cache.predictor.budget import Budget
from predis.cache.predictor.gain import HoldBack, Judge, Tally, Watch, Watched


def _feed(judge: Judge, *, n: int, read: float, present: float = 0.0, seed: int = 0) -> int:
    """``n`` foretold keys read with probability ``read``; of the held back, ``present`` were there anyway. When it went off."""
    chance = random.Random(seed)
    for i in range(n):
        group = "held" if chance.random() < 0.1 else "given"
        is_read = chance.random() < read
        if not is_read:
            outcome = "unread"
        elif group == "given" or chance.random() < present:
            outcome = "hit"
        else:
            outcome = "miss"
        judge.settle(Watched("r", group, 0.0), outcome, now=float(i))
        if not judge.is_on("r", float(i)):
            return i
    return n


def test_the_held_back_are_the_same_everywhere_and_others_with_another_salt() -> None:
    keys = [b"user:%d" % i for i in range(20_000)]
    first = {key for key in keys if HoldBack(0.05, salt="a").holds(key)}
    again = {key for key in keys if HoldBack(0.05, salt="a").holds(key)}
    other = {key for key in keys if HoldBack(0.05, salt="b").holds(key)}
    assert first == again
    assert 0.04 < len(first) / len(keys) < 0.06
    assert len(first & other) / len(first) < 0.1, "two salts hold back independently"
    assert not any(HoldBack(0.0).holds(key) for key in keys)
    assert all(HoldBack(1.0).holds(key) for key in keys)


def test_a_rule_that_pays_stays_on() -> None:
    judge = Judge()
    assert _feed(judge, n=20_000, read=0.8) == 20_000
    tally = judge.tallies["r"]
    low, high = tally.gain_interval(0.05)
    assert low <= tally.gain <= high
    assert low > 0.6
    assert tally.precision == pytest.approx(0.8, abs=0.02)
    assert tally.on_time == 1.0


def test_keys_that_would_have_been_there_anyway_are_no_gain() -> None:
    judge = Judge()
    went_off = _feed(judge, n=20_000, read=0.9, present=1.0)
    assert went_off < 20_000, "every given key is used, and yet nothing is gained"


def test_predictions_that_are_all_wrong_end_after_a_handful() -> None:
    judge = Judge(least=50)
    assert _feed(judge, n=10_000, read=0.0) < 100


def test_rests_double_and_a_rule_is_tried_again() -> None:
    judge = Judge(least=20, rest_s=10.0, longest_rest_s=30.0)
    now, rests = 0.0, []
    for _ in range(4):
        while judge.is_on("r", now):
            judge.settle(Watched("r", "given", 0.0), "unread", now=now)
        until = judge.off_until("r")
        assert until is not None
        rests.append(until - now)
        now = until
        assert judge.is_on("r", now)
    assert rests == [10.0, 20.0, 30.0, 30.0]


def test_a_good_rule_is_hardly_ever_switched_off() -> None:
    off = sum(_feed(Judge(alpha=0.01), n=2_000, read=0.7, seed=seed) < 2_000 for seed in range(60))
    assert off <= 3


def test_a_watched_key_has_one_outcome() -> None:
    watch = Watch(horizon_s=10.0)
    watch.begin(b"a", "r", group="given", now=0.0)
    watch.begin(b"b", "r", group="held", now=1.0)
    assert b"a" in watch
    read = watch.read(b"a")
    assert read is not None
    assert read.group == "given"
    assert watch.read(b"a") is None
    assert watch.over(10.5) == []
    (late,) = watch.over(11.0)
    assert late.group == "held"
    assert len(watch) == 0


def test_the_watch_is_bounded() -> None:
    watch = Watch(limit=100)
    for i in range(1_000):
        watch.begin(b"%d" % i, "r", group="given", now=0.0)
    assert len(watch) == 100
    assert watch.dropped == 900


def test_an_empty_tally_says_that_it_knows_nothing() -> None:
    tally = Tally()
    assert all(math.isnan(value) for value in (tally.gain, tally.precision, tally.on_time))
    assert tally.gain_interval(0.05) == (-1.0, 1.0)
    tally.add(Tally(given=4, used=3, late=1, held=2, missed=1))
    assert tally == Tally(given=4, used=3, late=1, held=2, missed=1)


def test_forgotten_rules_leave_nothing() -> None:
    judge = Judge(least=1)
    judge.settle(Watched("gone", "given", 0.0), "unread", now=0.0)
    judge.settle(Watched("here", "given", 0.0), "hit", now=0.0)
    judge.forget({"here"})
    assert set(judge.tallies) == {"here"}
    assert judge.off_until("gone") is None


def test_wasted_prefetches_stay_within_the_share_of_demand() -> None:
    budget = Budget(share=0.1, most=5.0)
    prefetched = 0
    for _ in range(1_000):
        budget.demand()
        prefetched += budget.take()
    assert prefetched <= 0.1 * 1_000 + 5


def test_used_prefetches_cost_nothing() -> None:
    budget = Budget(share=0.0, most=1.0)
    for _ in range(100):
        assert budget.take()
        budget.give_back()
