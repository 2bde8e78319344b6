"""Which keys are found to be read at a steady period, and which are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from predis.cache.predictor.rhythms import READS, Rhythms, fit
from predis.cache.predictor.schedules import Schedule
from predis.cache.ring import Flag
from predis.cache.ring_reader import EVENT
from predis.cache.sources.pattern import Matcher
from predis.cache.sources.source import Source

REPORTS = Source.of("reports", {"pattern": "report:{name}", "kind": "python", "function": "a:b"})
MATCH = Matcher([(REPORTS.matched, REPORTS)]).match
START_S = 1_700_000_000.0


def sampled(reads: list[tuple[float, str]], *, flags: int = Flag.SPATIAL) -> NDArray[Any]:
    """Events of reads at so many seconds."""
    events = np.zeros(len(reads), EVENT)
    for event, (at_s, key) in zip(events, reads, strict=True):
        event["us"], event["key"], event["length"] = round((START_S + at_s) * 1e6), key.encode(), len(key)
    events["flags"] = flags
    return events


def found(rhythms: Rhythms, now_s: float) -> dict[str, Schedule]:
    return {one.key.decode(): one for one in rhythms.schedules(round((START_S + now_s) * 1e6))}


def heard(reads: list[tuple[float, str]], **given: Any) -> Rhythms:
    rhythms = Rhythms(MATCH, **given)
    rhythms.take("0", sampled(sorted(reads)))
    return rhythms


@pytest.mark.parametrize("period_s", [2.5, 60.0, 3_600.0, 86_400.0])
def test_a_steady_key_is_found_with_its_next_read(period_s: float) -> None:
    noise = np.random.default_rng(3).normal(0, 0.003 * min(period_s, 600.0), 9)
    rhythms = heard([(i * period_s + noise[i], "report:daily") for i in range(9)])
    (one,) = found(rhythms, 8 * period_s).values()
    assert one.key == b"report:daily"
    assert one.period_s == pytest.approx(period_s, rel=0.005)
    now = START_S + 8.5 * period_s
    assert one.due_s(now) == pytest.approx(START_S + 9 * period_s, abs=max(one.tolerance_s, 0.01 * period_s))
    assert one.tolerance_s <= 0.03 * period_s + 0.02
    assert one.last_s == pytest.approx(START_S + 8 * period_s + noise[8], abs=1e-3)


@pytest.mark.parametrize(
    ("period_s", "rule"),
    [
        (5.02, "report:{} every 5 s"),
        (60.2, "report:{} every 60 s"),
        (300, "report:{} every 5 min"),
        (7_200, "report:{} every 2 h"),
    ],
)
def test_the_rule_says_kind_and_period(period_s: float, rule: str) -> None:
    rhythms = heard([(i * period_s, "report:a") for i in range(9)])
    assert found(rhythms, 8 * period_s)["report:a"].rule == rule


def test_the_name_stays_while_it_is_about_true() -> None:
    rhythms = heard([(i * 59.4, "report:a") for i in range(9)])
    assert found(rhythms, 480)["report:a"].rule == "report:{} every 59 s"
    rhythms.take("0", sampled([(8 * 59.4 + (i + 1) * 60.0, "report:a") for i in range(12)]))
    assert found(rhythms, 1_200)["report:a"].rule == "report:{} every 59 s"


def test_fewer_repetitions_than_wanted_are_none() -> None:
    assert found(heard([(i * 60.0, "report:a") for i in range(8)]), 480) == {}


def test_a_stray_read_a_missed_read_and_double_reads_do_not_hide_it() -> None:
    steady = [(i * 60.0, "report:a") for i in range(9)]
    assert found(heard([*steady[:5], *steady[6:], (540.0, "report:a")]), 540), "one was not seen"
    assert found(heard([*steady, (275.0, "report:a")][1:]), 480), "somebody looked in between"
    doubled = heard([*steady, *((at + 0.2, key) for at, key in steady)])
    assert found(doubled, 480)["report:a"].period_s == pytest.approx(60.0)
    rested = heard([*steady[:8], (420 + 1_800.0, "report:a")])
    assert found(rested, 420 + 1_800)["report:a"].due_s(START_S + 2_230) == pytest.approx(
        START_S + 2_280, abs=1
    )


def test_a_schedule_that_is_given_up_ends() -> None:
    rhythms = heard([(i * 10.0, "report:a") for i in range(9)])
    assert found(rhythms, 80)
    rhythms.take("0", sampled([(80.0 + i, "report:b") for i in range(34)]))
    assert found(rhythms, 114)
    rhythms.take("0", sampled([(116.0, "report:b")]))
    assert "report:a" not in found(rhythms, 116)


def test_where_nobody_looks_it_goes_on_for_a_while() -> None:
    rhythms = heard([(i * 10.0, "report:a") for i in range(9)])
    assert found(rhythms, 80 + 1_800)
    assert not found(rhythms, 80 + 4_000)


def test_whether_the_last_read_was_a_hit() -> None:
    rhythms = heard([(i * 10.0, "report:a") for i in range(9)])
    assert not found(rhythms, 80)["report:a"].hit
    rhythms.take("1", sampled([(90.0, "report:a")], flags=Flag.SPATIAL | Flag.HIT))
    assert found(rhythms, 90)["report:a"].hit


def test_reads_of_several_workers_come_out_of_order() -> None:
    rhythms = Rhythms(MATCH)
    for i in range(0, 16, 2):
        rhythms.take("0", sampled([((i + 1) * 0.9 * 3, "report:a")]))
        rhythms.take("1", sampled([(i * 0.9 * 3, "report:a")]))
    assert found(rhythms, 43)["report:a"].period_s == pytest.approx(2.7)


def test_a_clock_set_back_makes_it_begin_anew() -> None:
    rhythms = heard([(i * 10.0, "report:a") for i in range(9)])
    assert found(rhythms, 80)
    rhythms.take("0", sampled([(-500.0, "report:a")]))
    assert found(rhythms, -500) == {}
    rhythms.take("0", sampled([(-500.0 + i * 10, "report:a") for i in range(1, 9)]))
    assert found(rhythms, -420)["report:a"].period_s == pytest.approx(10.0)


def test_a_clock_set_forward_is_a_missed_read() -> None:
    rhythms = heard([(i * 10.0 + (7_203.0 if i >= 9 else 0), "report:a") for i in range(10)])
    rhythms.take("0", sampled([(i * 10.0 + 7_203.0, "report:a") for i in range(10, 18)]))
    assert found(rhythms, 7_373)["report:a"].last_s == START_S + 7_373


def test_only_keys_of_sources_and_of_the_sample_by_key_are_learnt() -> None:
    rhythms = heard([(i * 10.0, "other:a") for i in range(9)])
    rhythms.take("0", sampled([(i * 10.0 + 100, "report:a") for i in range(9)], flags=Flag.WHOLE))
    assert len(rhythms) == 0


def test_memory_is_bounded_and_schedules_outlive_a_flood_of_keys() -> None:
    rhythms = heard([(i * 60.0, "report:a") for i in range(9)], most_keys=64)
    assert found(rhythms, 480)
    rhythms.take("0", sampled([(480 + i * 0.001, f"report:x{i}") for i in range(1_000)]))
    assert len(rhythms) == 64
    assert found(rhythms, 481)
    rhythms.take("0", sampled([(540.0, "report:a")]))
    assert found(rhythms, 540)["report:a"].last_s == START_S + 540


def _rate(gaps_s: NDArray[np.float64]) -> float:
    grid = fit(np.cumsum(gaps_s * 1e6, axis=1).astype(np.int64))
    return float(((grid.on >= 8) & (grid.ones >= 6)).mean())


def test_reads_by_chance_are_no_schedule() -> None:
    """Of windows of nine reads, at most two of a hundred thousand; of two million, 0 to 5 were."""
    random, shape = np.random.default_rng(11), (100_000, READS)
    bursts = np.where(
        random.random(shape) < 0.5, random.exponential(2, shape), random.exponential(300, shape)
    )
    for gaps in (
        random.exponential(30, shape),
        random.gamma(2, 30, shape),
        random.uniform(0, 60, shape),
        random.lognormal(3, 1.5, shape),
        bursts,
    ):
        assert _rate(gaps) <= 2e-5


def test_a_stream_of_reads_by_chance_has_hardly_a_schedule() -> None:
    """Six hours of 100 keys that are read at random once a minute each: looked at every ten minutes."""
    random = np.random.default_rng(5)
    rhythms = Rhythms(MATCH)
    schedules = 0
    for period in range(36):
        at = np.sort(random.uniform(period * 600, (period + 1) * 600, 1_000))
        rhythms.take("0", sampled([(float(s), f"report:{random.integers(100)}") for s in at]))
        schedules += len(found(rhythms, (period + 1) * 600))
    assert schedules <= 1


@pytest.mark.parametrize("kind", ["cron", "loop"])
def test_what_is_read_within_one_per_cent_of_its_period_is_found(kind: str) -> None:
    """A cron job wavers around its moments; a loop that sleeps wavers in its pauses, and drifts."""
    random = np.random.default_rng(2)
    noise = random.normal(0, 0.01, (10_000, READS + 1))
    gaps = 60 * (1 + (np.diff(noise, axis=1) if kind == "cron" else noise[:, 1:]))
    assert _rate(gaps) > 0.99
