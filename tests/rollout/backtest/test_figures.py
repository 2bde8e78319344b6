"""What a backtest computes, on numbers of which the answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from predis.registry import Field
from predis.rollout.backtest import estimates, shift
from predis.rollout.backtest.quality import quality
from predis.rollout.backtest.replay import spread
from predis.rollout.backtest.segments import Segments, exact_interval
from predis.rollout.plan import Plan
from predis.stats import latency, score_buckets

RNG = np.random.default_rng(11)
NONE = np.empty(0, np.int64)


def test_scores_that_all_moved_up() -> None:
    old = RNG.uniform(0.1, 0.8, 5_000)
    found = shift.score_shift(old, old + 0.1)
    assert found["difference"]["mean"] == pytest.approx(0.1)
    assert found["share_far"] == 1.0
    assert found["ks"] == pytest.approx(0.1 / 0.7, abs=0.02)
    assert found["psi"] > 0.1
    assert found["correlation"] == pytest.approx(1.0)
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert sum(found["scores"]["shares"][0]) == pytest.approx(1.0)


def test_a_monotone_change_keeps_the_ranks() -> None:
    old = RNG.uniform(size=1_000)
    found = shift.score_shift(old, old**4)
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert found["correlation"] < 0.95


def test_constant_scores_have_no_correlation() -> None:
    found = shift.score_shift(np.full(10, 0.5), np.full(10, 0.5))
    assert (found["correlation"], found["ks"], found["share_far"]) == (None, 0.0, 0.0)


def test_flips_count_both_ways() -> None:
    old, new = np.array([0.1, 0.6, 0.5, 0.9]), np.array([0.5, 0.4, 0.6, 0.9])
    found = shift.flips(old, new, threshold=0.5)
    assert (found["up"], found["down"], found["rate"]) == (1, 1, 0.5)


def test_means_over_time_leave_out_where_nothing_was() -> None:
    at = np.array([0, 1, 1_000], np.int64)
    scores = np.array([0.0, 1.0, 0.5])
    found = shift.over_time(at, scores, candidate=1 - scores, threshold=0.6)
    assert [(each["rows"], each["baseline"], each["flip_rate"]) for each in found] == [
        (2, 0.5, 1.0),
        (1, 0.5, 0.0),
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_an_order_spread_over_the_window_has_every_place_once(count: int) -> None:
    assert sorted(spread(count)) == list(range(count))


def test_the_interval_of_a_share_is_that_of_the_books() -> None:
    assert exact_interval(0, 10, alpha=0.05) == (0.0, pytest.approx(0.3085, abs=1e-4))
    assert exact_interval(10, 10, alpha=0.05) == (pytest.approx(0.6915, abs=1e-4), 1.0)


def rows(n: int, *, noise: int = 0) -> pa.Table:
    columns = {"x": RNG.normal(size=n), "kind": RNG.choice(["a", "b", "c"], size=n)}
    return pa.table({**columns, **{f"n{at}": RNG.normal(size=n) for at in range(noise)}})


INPUTS = (Field("x", "FP64"), Field("kind", "BYTES", levels=("a", "b")))


def test_segments_are_levels_and_quarters_counted_batch_by_batch() -> None:
    segments = Segments(INPUTS)
    flips = total = 0
    for _ in range(20):
        table = rows(500)
        flipped = (np.asarray(table.column("x")) > 1.0) & (RNG.uniform(size=500) < 0.8)
        flipped |= RNG.uniform(size=500) < 0.01
        segments.add(table, flipped)
        flips, total = flips + int(flipped.sum()), total + 500
    found = segments.report(rows=total, flips=flips)
    names = {(each["input"], each["segment"]) for each in found["rows"]}
    assert {("kind", "= a"), ("kind", "= b"), ("kind", "= (another)")} < names
    assert found["looked_at"] == 7
    assert sum(each["rows"] for each in found["rows"] if each["input"] == "x") == total
    worst = found["rows"][0]
    assert worst["input"] == "x"
    assert worst["segment"].startswith(">= ")
    assert worst["low"] < worst["rate"] < worst["high"]
    assert [each["stands_out"] for each in found["rows"]] == [True] + [False] * 6


def test_chance_alone_makes_no_segment_stand_out() -> None:
    """A hundred backtests of sixty segments each: by the correction at most one in twenty has one that stands out."""
    fields = tuple(Field(f"n{at}", "FP64") for at in range(15))
    alarms = 0
    for _ in range(100):
        segments = Segments(fields)
        flipped = RNG.uniform(size=1_000) < 0.1
        segments.add(rows(1_000, noise=15), flipped)
        found = segments.report(rows=1_000, flips=int(flipped.sum()))
        assert found["looked_at"] == 60
        alarms += any(each["stands_out"] for each in found["rows"])
    assert alarms <= 11  # 5 are expected at the most; more than 11 of 100 have a chance below 1 %


def test_what_is_missing_or_free_text_or_wide() -> None:
    fields = (Field("x", "FP64"), Field("name", "BYTES"), Field("image", "FP64", (-1, 4)))
    segments = Segments(fields)
    x = pa.array([None] * 40 + [1.0] * 60)
    segments.add(pa.table({"x": x, "name": pa.array(["n"] * 100)}), np.arange(100) < 40)
    found = segments.report(rows=100, flips=40)
    assert [(each["segment"], each["rate"]) for each in found["rows"]] == [
        ("is missing", 1.0),
        ("is known", 0.0),
    ]


def test_quality_compares_on_the_labelled_rows() -> None:
    labels = np.where(RNG.uniform(size=2_000) < 0.5, 1.0, 0.0)
    good = 1 / (1 + np.exp(-(labels * 2 - 1 + RNG.normal(size=2_000))))
    labels[1_000:] = np.nan
    found = quality(good, 1 - good, labels=labels, ages_s=np.full(2_000, 60.0))
    assert (found["rows"], found["labels"], found["coverage"]) == (2_000, 1_000, 0.5)
    assert found["age_s"] == {"median": 60.0, "p90": 60.0}
    assert found["baseline"]["auc"] == pytest.approx(1 - found["candidate"]["auc"])
    assert found["difference"]["low"] < found["difference"]["auc"] < found["difference"]["high"] < 0
    assert quality(good * 5, good, labels=labels, ages_s=labels)["baseline"]["brier"] is None


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_quality_of_numbers_and_of_more_classes(task: Any) -> None:
    labels = RNG.integers(0, 4, 1_000).astype(float)
    right = labels + (RNG.normal(size=1_000) * 0.1 if task == "regression" else 0.9)
    wrong = np.where(RNG.uniform(size=1_000) < 0.5, right, right + 1.0)
    found = quality(wrong, right, labels=labels, ages_s=np.full(1_000, 60.0), task=task)
    measure = {"regression": "mae", "multiclass": "accuracy"}[task]
    apart = found["difference"]
    assert apart["measure"] == measure
    assert apart["low"] < apart[measure] < apart["high"]
    assert (apart["high"] < 0) == (task == "regression")  # a smaller error, or a larger accuracy
    assert apart[measure] == pytest.approx(found["candidate"][measure] - found["baseline"][measure])


def expected(**other: object) -> estimates.Expected:
    fast = latency.count(RNG.uniform(0.001, 0.003, 10_000))
    scores = score_buckets.count(RNG.uniform(size=10_000))
    given = {
        "failed": (0.001, 0.001), "latency": fast, "added_s": 0.0, "scores": (scores, scores), "labels": 0.5, "positives": 0.4,
        "aucs": (0.8, 0.8), **other,
    }  # fmt: skip
    return estimates.Expected(**given)  # type: ignore[arg-type]


def verdicts(plan: Plan, given: estimates.Expected, *, paired: tuple[float, float] | None) -> dict[str, str]:
    return {each["gate"]: each["verdict"] for each in estimates.estimate(plan, given, paired=paired)}


def test_gates_are_estimated_each_by_its_own_evidence() -> None:
    plan = Plan(slow_s=0.005)
    calm = (-0.001, 0.001)
    every = {"errors": "pass", "latency": "pass", "scores": "pass", "auc": "pass"}
    assert verdicts(plan, expected(), paired=calm) == every
    assert verdicts(plan, expected(failed=(0.001, 0.05)), paired=calm) == {**every, "errors": "fail"}
    assert verdicts(plan, expected(added_s=0.01), paired=calm) == {**every, "latency": "fail"}
    moved = (score_buckets.count(RNG.uniform(size=10_000)), score_buckets.count(RNG.uniform(0.9, 1, 10_000)))
    assert verdicts(plan, expected(scores=moved), paired=calm) == {**every, "scores": "fail"}
    assert verdicts(plan, expected(aucs=(0.8, 0.7)), paired=(-0.12, -0.08)) == {**every, "auc": "fail"}
    assert verdicts(plan, expected(), paired=(-0.2, 0.2)) == {**every, "auc": "hold"}
    assert verdicts(plan, expected(aucs=None, labels=0.0), paired=None) == {**every, "auc": "hold"}
    assert verdicts(plan, expected(latency=None), paired=calm) == {**every, "latency": "hold"}


def test_a_larger_difference_is_decided_sooner() -> None:
    plan = Plan(slow_s=0.005)
    after = []
    for lost in (0.05, 0.1, 0.2):
        gates = estimates.estimate(
            plan, expected(aucs=(0.8, 0.8 - lost)), paired=(-lost - 0.01, -lost + 0.01)
        )
        after.append(next(gate["requests"] for gate in gates if gate["gate"] == "auc"))
    assert after == sorted(after, reverse=True)
    assert len(set(after)) == 3


def test_counts_scale_to_whole_numbers_that_add_up() -> None:
    counts = np.array([9_990, 7, 3])
    for total in (0, 1, 50, 999, 1_000_000):
        scaled = estimates.scaled(counts, total)
        assert scaled.sum() == total
        assert (scaled >= 0).all()
    assert estimates.scaled(np.zeros(3, np.int64), 10).tolist() == [0, 0, 0]


def test_slower_moves_the_whole_histogram() -> None:
    counts = latency.count([0.001] * 99 + [0.1])
    slower = estimates.slowed(counts, 0.01)
    assert slower.sum() == 100
    assert latency.quantile(slower, 0.5) == pytest.approx(0.011, rel=0.06)
    assert latency.quantile(estimates.slowed(counts, -1.0), 1.0) == pytest.approx(1e-5)


def gate(name: str, verdict: str) -> dict[str, str]:
    return {"gate": name, "verdict": verdict, "message": f"{name} says so"}


def test_the_conclusion_is_one_line() -> None:
    def said(*gates: dict[str, str]) -> tuple[str, str]:
        found = estimates.conclude(list(gates), labels_problem="12 labels")
        return found["outcome"], found["text"]

    assert said(gate("errors", "pass"), gate("auc", "pass")) == ("pass", "would likely pass every gate")
    assert said(gate("auc", "fail"), gate("errors", "hold")) == (
        "fail",
        "would likely fail on AUC: auc says so",
    )
    assert said(gate("auc", "hold")) == (
        "unknown",
        "not enough labels to tell (12 labels); every other gate would likely pass",
    )
    assert said(gate("auc", "pass"), gate("latency", "hold"))[1].startswith("latency cannot be told")
