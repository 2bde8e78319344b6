from __future__ import annotations

import contextlib
import math
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.clock import NANOSECONDS, ManualClock, SystemClock, iso, parse_moment, parse_since
from predis.errors import InvalidInput

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2262, 4, 11, 23, 47, 16, tzinfo=UTC)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def nanoseconds(moment: datetime) -> int:
    """The same in integers, without a float in between."""
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


@given(st.datetimes(EPOCH.replace(tzinfo=None), LATEST.replace(tzinfo=None)), OFFSETS)
def test_a_text_is_exact_to_the_microsecond(naive: datetime, offset: timezone) -> None:
    moment = naive.replace(tzinfo=UTC).astimezone(offset)
    assert parse_moment(moment.isoformat(), where="at") == nanoseconds(moment)


@given(st.datetimes(EPOCH.replace(tzinfo=None), LATEST.replace(tzinfo=None)))
def test_a_text_without_offset_is_utc(naive: datetime) -> None:
    assert parse_moment(naive.isoformat(), where="at") == nanoseconds(naive.replace(tzinfo=UTC))


@given(st.integers(0, (2**63 - 1) // NANOSECONDS))
def test_whole_seconds_are_exact(seconds: int) -> None:
    moment_ns = parse_moment(seconds, where="at")
    assert moment_ns == seconds * NANOSECONDS
    assert parse_moment(str(iso(moment_ns)), where="at") == moment_ns


@given(st.floats(0, 2**32))
def test_seconds_may_have_a_fraction(seconds: float) -> None:
    assert math.isclose(parse_moment(seconds, where="at"), seconds * NANOSECONDS, rel_tol=1e-15, abs_tol=0.5)


@given(st.text() | st.floats() | st.integers())
def test_any_other_value_is_refused_with_our_error(value: Any) -> None:
    with contextlib.suppress(InvalidInput):
        assert 0 <= parse_moment(value, where="at") < 2**63


@pytest.mark.parametrize(
    "value",
    [
        "", "yesterday", "2013-02-30", "2016-12-31T23:59:60Z", "1969-12-31T23:59:59Z", "2262-04-12T00:00:00Z",
        "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", -1, -1e-9, 1e300, math.nan, math.inf, True, False,
        None, [], [1], {"at": 1}, b"2013-04-01",
    ],
)  # fmt: skip
def test_no_moment(value: Any) -> None:
    with pytest.raises(InvalidInput, match="event_time must be RFC 3339 text or seconds since 1970, got"):
        parse_moment(value, where="event_time")


@pytest.mark.parametrize(
    "text", ["2013-04-01T05:00:00Z", "2013-04-01T07:00:00+02:00", "2013-04-01 05:00", "20130401T05"]
)
def test_the_forms_of_a_text(text: str) -> None:
    assert parse_moment(text, where="at") == 1_364_792_400 * NANOSECONDS


def test_since_is_a_span_ago_or_a_moment() -> None:
    now = 1_700_000_000 * NANOSECONDS
    assert parse_since("7d", now=now) == now - 7 * 86_400 * NANOSECONDS
    assert parse_since(" 30m ", now=now) == now - 1_800 * NANOSECONDS
    assert parse_since("1970-01-01T00:01:00Z", now=now) == 60 * NANOSECONDS
    assert parse_since("999999w", now=now) == 0


def test_iso_never_names_a_second_that_has_not_come() -> None:
    assert iso(1_700_000_000 * NANOSECONDS + NANOSECONDS - 1) == "2023-11-14T22:13:20Z"
    assert iso(0) == "1970-01-01T00:00:00Z"
    assert iso(None) is None


def test_the_manual_clock_moves_when_told() -> None:
    clock = ManualClock(start_ns=5)
    before = clock.time_ns()
    assert clock.time_ns() == before == 5
    clock.advance(0.25)
    assert clock.time_ns() == 5 + NANOSECONDS // 4
    assert clock.monotonic_s() == 0.25


def test_the_system_clock_is_the_machine_s() -> None:
    clock = SystemClock()
    before, started_s = time.time_ns(), clock.monotonic_s()
    assert before <= clock.time_ns() <= time.time_ns()
    assert started_s <= clock.monotonic_s()
