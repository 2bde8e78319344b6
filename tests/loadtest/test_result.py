"""What a result says of a test, and of itself."""

from __future__ import annotations

from collections import Counter

import pytest

from predis.loadtest import Histogram, Load, Result, knee
from predis.loadtest.recorder import Slice
from predis.loadtest.result import Usage

CLOSED = Load(connections=8, duration_s=2)
OPEN = Load(connections=8, duration_s=2, rate=1_000, poisson=False)


def result(load: Load = CLOSED, *, answered: int = 2_000, failed: int = 0, **parts: object) -> Result:
    found = Result(load, answered=answered, latency=Histogram([0.01] * answered), **parts)  # type: ignore[arg-type]
    found.errors.update({"HTTP 503": failed} if failed else {})
    return found


def part(second: int, *latencies: float, failed: int = 0) -> Slice:
    errors = Counter({"timeout": failed} if failed else {})
    return Slice(
        second,
        len(latencies),
        Histogram(latencies),
        Histogram([0.0001]),
        errors,
        {"timeout": "x"} if failed else {},
        1,
    )


def test_seconds_of_all_processes_add_up() -> None:
    found = Result(CLOSED)
    first = found.add([part(0, 0.01, 0.02), part(0, 0.03, failed=2)])
    found.add([part(1, 0.01), part(1, 0.01)])
    found.add([part(2, 0.5)])  # an answer after the end: counted, but no second of the test
    assert (first.answered, first.failed) == (3, 2)
    assert (first.p50, first.p99) == (pytest.approx(0.02, rel=0.001), 0.03)
    assert [point.second for point in found.points] == [0, 1]
    assert (found.answered, found.measured, found.errors.total(), found.waited) == (6, 8, 2, 5)
    assert found.samples == {"timeout": "x"}


def test_figures() -> None:
    found = result(failed=500)
    assert found.throughput == 1_000
    assert found.error_rate == 0.2
    assert Result(CLOSED).error_rate == 0.0


@pytest.mark.parametrize(
    ("answered", "failed", "kept"),
    [(2_000, 0, True), (1_970, 0, True), (1_900, 0, False), (2_000, 100, False)],
)
def test_an_open_loop_is_kept_up_with_or_not(answered: int, failed: int, kept: bool) -> None:
    assert result(OPEN, answered=answered, failed=failed).keeps_up is kept


def test_poisson_arrivals_may_be_fewer_by_chance() -> None:
    load = Load(connections=8, duration_s=2, rate=1_000)
    assert result(load, answered=1_870).keeps_up
    assert not result(load, answered=1_700).keeps_up


def test_a_closed_loop_is_kept_up_with_unless_it_fails() -> None:
    assert result().keeps_up
    assert not result(failed=100).keeps_up
    assert not result(answered=0).keeps_up


def test_the_knee_is_the_most_that_was_kept_up_with() -> None:
    steps = [
        result(Load(connections=8, duration_s=1, rate=rate, poisson=False), answered=answered)
        for rate, answered in ((500, 500), (1_000, 1_000), (2_000, 1_100))
    ]
    assert knee(steps) is steps[1]
    assert knee([result(answered=0)]) is None


def test_a_generator_that_was_late_says_so() -> None:
    late = result(OPEN, lateness=Histogram([0.0001] * 90 + [0.02] * 10))
    assert [text.split(":")[0] for text in late.doubts()] == ["The generator itself was late"]
    assert "20.0 ms" in late.doubts()[0]
    assert result(OPEN, lateness=Histogram([0.0001] * 100)).doubts() == []


def test_a_generator_that_was_busy_all_the_time_says_so() -> None:
    told = result(usage=(Usage(0.2, 0.0), Usage(0.55, 0.42))).doubts()
    assert ["ran 55% of the time, and waited 42% for a core" in text for text in told] == [True]
    told = result(usage=(Usage(0.4, 0.3),)).doubts()
    assert ["waited for a core 30% of the time" in text for text in told] == [True]
    assert result(usage=(Usage(0.5, 0.1),)).doubts() == []


def test_requests_that_had_to_wait_for_a_connection_are_told() -> None:
    assert "7 requests were due while all connections were busy" in result(OPEN, waited=7).doubts()[0]


def test_as_json_nothing_measured_is_none() -> None:
    found = Result(CLOSED).to_dict()
    assert found["latency_ms"] == dict.fromkeys(("min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"))
    assert found["keeps_up"] is False
    full = result(failed=1).to_dict()
    assert full["latency_ms"]["p99"] == pytest.approx(10, rel=0.001)
    assert full["errors"] == {"HTTP 503": 1}
