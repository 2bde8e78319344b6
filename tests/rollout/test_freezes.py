"""Freeze windows: open when they say, in the time zone they say, for whom they say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.clock import NANOSECONDS, ManualClock
from predis.errors import InvalidInput, NotFound
from predis.rollout.freezes import Freeze, Freezes, Window, parse_weekly, why_frozen
from predis.state import Database
from tests.toys import ENDPOINT, SECOND, TENANT


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NANOSECONDS


def freeze(**other: object) -> Freeze:
    given = {
        "id": 1, "tenant": TENANT, "endpoint": "", "starts_at": None, "ends_at": None, "weekly": "", "zone": "UTC", "reason": "",
        "created_at": 0, "created_by": "ada",
    }  # fmt: skip
    return Freeze(**{**given, **other})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weekly", "now", "until"),
    [
        ("fri 16:00-mon 06:00", "2023-11-18T12:00", "2023-11-20T06:00"),
        ("fri 16:00-mon 06:00", "2023-11-17T15:59", None),
        ("fri 16:00-mon 06:00", "2023-11-17T16:00", "2023-11-20T06:00"),
        ("fri 16:00-mon 06:00", "2023-11-20T05:59", "2023-11-20T06:00"),
        ("fri 16:00-mon 06:00", "2023-11-20T06:00", None),
        ("mon 22:00 - tue 02:00", "2023-11-21T01:00", "2023-11-21T02:00"),
        ("wed 00:00-wed 12:00", "2023-11-22T11:00", "2023-11-22T12:00"),
        ("wed 12:00-wed 00:00", "2023-11-22T11:00", None),  # all week but Wednesday morning
    ],
)
def test_weekly(weekly: str, now: str, until: str | None) -> None:
    found = freeze(weekly=weekly).until(moment(now))
    assert found == (None if until is None else moment(until))


def test_in_its_own_time_zone() -> None:
    zurich = freeze(weekly="sat 00:00-mon 00:00", zone="Europe/Zurich")
    assert zurich.until(moment("2023-11-17T23:30")) is not None  # half past midnight there
    assert zurich.until(moment("2023-11-19T23:30")) is None


def test_between_moments() -> None:
    window = freeze(starts_at=100, ends_at=200)
    assert [window.until(now) for now in (99, 100, 199, 200)] == [None, 200, 200, None]
    assert freeze(starts_at=100).until(10**18) == 2**63 - 1
    assert freeze(ends_at=200).until(0) == 200


@given(
    st.integers(0, 10 * 365 * 86_400),
    st.sampled_from(["fri 16:00-mon 06:00", "mon 00:00-tue 00:00", "sun 23:59-sun 23:58"]),
)
def test_what_is_open_closes_when_it_says(second: int, weekly: str) -> None:
    window, now = freeze(weekly=weekly), second * SECOND
    until = window.until(now)
    if until is not None:
        assert until > now
        assert window.until(until - SECOND) == until
        assert window.until(until) is None


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (Window(), "either moments"),
        (Window(weekly="fri 16:00-mon 06:00", ends_at=10**18), "either moments"),
        (Window(weekly="friday"), "is written as"),
        (Window(weekly="fri 25:00-mon 06:00"), "no time of a week"),
        (Window(weekly="fxi 15:00-mon 06:00"), "no time of a week"),
        (Window(weekly="fri 06:00-fri 06:00"), "all week or never"),
        (Window(ends_at=5), "not in the past"),
        (Window(starts_at=200, ends_at=200), "ends after it starts"),
        (Window(weekly="fri 16:00-mon 06:00", zone="Mars/Olympus"), "no time zone"),
    ],
)
def test_refused(window: Window, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        window.check(100)


def test_weekly_is_read_in_minutes_of_the_week() -> None:
    assert parse_weekly("Mon 00:01-Sun 23:59") == (1, 7 * 24 * 60 - 1)


def test_for_one_endpoint_or_all() -> None:
    weekend, own = (
        freeze(id=1, weekly="sat 00:00-mon 00:00", reason="weekend"),
        freeze(id=2, endpoint=ENDPOINT, starts_at=0),
    )
    saturday, tuesday = moment("2023-11-18T12:00"), moment("2023-11-21T12:00")
    assert "weekend (freeze 1)" in why_frozen([weekend], "other", now=saturday)
    assert not why_frozen([weekend, own], "other", now=tuesday)
    assert "until the freeze is removed" in why_frozen(
        [weekend, own], ENDPOINT, now=saturday
    )  # the one that closes last


def test_kept_and_removed(database: Database, clock: ManualClock) -> None:
    freezes = Freezes(database, clock)
    made = freezes.add(TENANT, Window(starts_at=0, reason="audit"), actor="ada")
    assert (made["open"], made["until"], made["created_by"]) == (True, None, "ada")
    assert freezes.listed(TENANT) == [made]
    assert "audit" in freezes.reason(TENANT, ENDPOINT, now=clock.time_ns())
    assert not freezes.reason("elsewhere", ENDPOINT, now=clock.time_ns())
    with pytest.raises(NotFound):
        freezes.remove("elsewhere", made["id"], actor="eve")
    freezes.remove(TENANT, made["id"], actor="ada")
    assert freezes.listed(TENANT) == []
