"""Error budgets against cases worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from predis.errors import InvalidInput
from predis.monitoring.alerting.burn import (
    DAY_S,
    HOUR_S,
    PAIRS,
    Objective,
    Tally,
    burning,
    objectives_of,
)
from predis.monitoring.alerting.severity import Severity

AVAILABILITY = Objective("availability", 0.999)


def over(**bad: int) -> Any:
    """10,000 requests in every window; ``bad`` by window: m5, m30, h1, h2, h6, d1, d3."""
    lengths = {
        "m5": 300,
        "m30": 1_800,
        "h1": HOUR_S,
        "h2": 2 * HOUR_S,
        "h6": 6 * HOUR_S,
        "d1": DAY_S,
        "d3": 3 * DAY_S,
    }
    found = {lengths[name]: Tally(10_000, count) for name, count in bad.items()}
    return lambda seconds: found.get(seconds, Tally(10_000, 0))


def test_the_workbooks_factors() -> None:
    assert [(p.long_s, p.short_s) for p in PAIRS] == [
        (3_600, 300), (21_600, 1_800), (86_400, 7_200), (259_200, 21_600),
    ]  # fmt: skip
    assert [round(p.factor(30 * DAY_S), 9) for p in PAIRS] == [14.4, 6.0, 3.0, 1.0]
    # Of a week 2 % are lost in an hour at 0.02 * 168 h / 1 h; 10 % in three days at less than 1, which is no loss.
    assert [round(p.factor(7 * DAY_S), 9) for p in PAIRS] == [3.36, 1.4, 1.0, 1.0]


def test_burn_rate_and_what_is_left() -> None:
    # 99.9 % of 10,000 requests leave 10 that may fail. 4 failed: 40 % of the budget is gone, 60 % is left.
    assert AVAILABILITY.burn(Tally(10_000, 4)) == pytest.approx(0.4)
    assert AVAILABILITY.left(Tally(10_000, 4)) == pytest.approx(0.6)
    assert AVAILABILITY.left(Tally(10_000, 25)) == pytest.approx(-1.5)
    assert (AVAILABILITY.burn(Tally()), AVAILABILITY.left(Tally())) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        ({"h1": 144, "m5": 144}, (HOUR_S, 14.4, Severity.CRITICAL)),
        ({"h1": 143, "m5": 300}, None),  # 14.3: the long window is below 14.4, though not by a tenth
        ({"h1": 300, "m5": 143}, None),  # it is nearly over: the short one is
        ({"h1": 300, "m5": 0}, None),
        ({"h6": 60, "m30": 60}, (6 * HOUR_S, 6.0, Severity.CRITICAL)),
        ({"d1": 30, "h2": 30}, (DAY_S, 3.0, Severity.WARNING)),
        ({"d3": 10, "h6": 10}, (3 * DAY_S, 1.0, Severity.WARNING)),
        ({"d3": 30, "h6": 30, "h1": 150, "m5": 150}, (HOUR_S, 14.4, Severity.CRITICAL)),  # severest first
    ],
)
def test_which_pair_burns(bad: dict[str, int], wanted: tuple[float, float, Severity] | None) -> None:
    found = burning(AVAILABILITY, over(**bad))
    opens = found if found is not None and not found.holds else None
    assert (opens and (opens.pair.long_s, round(opens.factor, 9), opens.pair.severity)) == wanted


def test_it_stays_open_down_to_nine_tenths_of_the_limit() -> None:
    found = burning(AVAILABILITY, over(h1=130, m5=130))  # 13 of 14.4
    assert found is not None
    assert (found.holds, found.pair.long_s, found.long) == (True, HOUR_S, pytest.approx(13))
    assert burning(AVAILABILITY, over(h1=129, m5=129)) is None


@pytest.mark.parametrize("tally", [Tally(49, 49), Tally(10_000, 4), Tally(50, 4)])
def test_few_requests_or_few_bad_ones_prove_nothing(tally: Tally) -> None:
    assert burning(Objective("availability", 0.99999), lambda _seconds: tally) is None


def test_objectives_of_a_configuration() -> None:
    config = {"objectives": {"window_days": 7, "availability": 0.999, "latency": {"ms": 100, "share": 0.99}}}
    assert objectives_of(config, "e") == (
        Objective("availability", 0.999, 7 * DAY_S), Objective("latency", 0.99, 7 * DAY_S, 100.0),
    )  # fmt: skip
    assert objectives_of({}, "e") == ()
    assert "within 100 ms over 7 days" in objectives_of(config, "e")[1].text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "have window_days"),
        ({"uptime": 1}, "have window_days"),
        ({"availability": 1.0}, "availability is a number from 0.5"),
        ({"availability": True}, "availability is a number"),
        ({"availability": float("nan")}, "availability is a number"),
        ({"availability": 0.99, "window_days": 0}, "window_days is a number from 1"),
        ({"latency": {"ms": 100}}, "latency is an object of ms and share"),
        ({"latency": {"ms": -1, "share": 0.9}}, "latency.ms is a number"),
    ],
)
def test_what_cannot_be_an_objective(given: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        objectives_of({"objectives": given}, "e")
