from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from predis.access import Keys
from predis.clock import ManualClock
from predis.errors import AccessDenied, Unavailable
from predis.serving.guard import Guard
from predis.state.engine import Database
from tests.serving.helpers import known_keys, request

KEYS = {"0" * 64: ["default", "somebody", "admin"]}


def check(guard: Guard, **headers: Any) -> bool:
    """Whether such a request may pass; ``host=None`` leaves it out."""

    async def ask() -> bool:
        asked, _connection = request("/v2", headers={k: v for k, v in headers.items() if v is not None})
        if headers.get("host", "") is None:
            del asked.headers[b"host"]
        try:
            guard.check(asked)
        except AccessDenied as error:
            return len(str(error)) > 400  # a message is short, whatever was sent
        return True

    return asyncio.run(ask())


@pytest.fixture
def guard(clock: ManualClock) -> Guard:
    return Guard(known_keys(clock), insecure=False)


class TestHost:
    @pytest.mark.parametrize(
        "host",
        ["localhost", "localhost:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080", "LocalHost:1"],
    )
    def test_of_this_machine(self, guard: Guard, host: str) -> None:
        for _time in range(2):
            assert check(guard, host=host)

    @pytest.mark.parametrize(
        "host",
        [
            None,
            "",
            ":8080",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "evil.example:localhost",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "[::2]:8080",
            "192.168.1.5:8080",
            "localhost, evil.example",
            "x" * 9000,
            "é",
        ],
    )
    def test_another_one_is_a_rebound_name(self, guard: Guard, host: str | None) -> None:
        """A page whose name was pointed at 127.0.0.1 sends its own name."""
        for _time in range(2):
            assert not check(guard, host=host)

    def test_any_where_that_is_allowed(self, clock: ManualClock) -> None:
        for guard in (
            Guard(known_keys(clock), insecure=True),
            Guard(known_keys(clock, KEYS), insecure=False),
        ):
            assert check(guard, host="models.example:8080")

    def test_the_first_key_opens_it_at_once(self, clock: ManualClock) -> None:
        keys = known_keys(clock)
        guard = Guard(keys, insecure=False)
        assert not check(guard, host="models.example")
        keys.restore(KEYS)
        assert check(guard, host="models.example")

    def test_what_is_remembered_is_bounded(self, guard: Guard) -> None:
        for port in range(1000):
            assert check(guard, host=f"localhost:{port}")
        assert len(guard._good) <= 64


class TestOrigin:
    @pytest.mark.parametrize(
        "origin",
        ["http://evil.example", "https://localhost:9", "null", "", "localhost:8080", "file://", "x" * 9000],
    )
    def test_a_page_elsewhere_may_not_ask(self, guard: Guard, origin: str) -> None:
        assert check(guard, host="localhost:8080")
        assert not check(guard, host="localhost:8080", origin=origin)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_a_page_of_this_host_may(self, guard: Guard, scheme: str) -> None:
        assert check(guard, host="localhost:8080", origin=f"{scheme}://localhost:8080")

    def test_without_keys_a_page_may_not_even_where_any_host_is_allowed(self, clock: ManualClock) -> None:
        guard = Guard(known_keys(clock), insecure=True)
        assert not check(guard, host="models.example", origin="http://evil.example")

    def test_with_keys_it_needs_one_anyway(self, clock: ManualClock) -> None:
        guard = Guard(known_keys(clock, KEYS), insecure=False)
        assert check(guard, host="models.example", origin="http://dashboard.example")


def test_whether_there_are_keys_may_not_be_known(clock: ManualClock) -> None:
    class Away:
        def read(self) -> None:
            raise Unavailable("away")

    guard = Guard(Keys(cast(Database, Away()), clock, refresh_s=float("inf")), insecure=False)
    assert check(guard, host="localhost")
    with pytest.raises(Unavailable):
        check(guard, host="models.example")
