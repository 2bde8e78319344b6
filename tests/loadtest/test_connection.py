"""The HTTP connection: whole answers, split anywhere; errors with their words; ends."""

from __future__ import annotations

from typing import Any

import pytest

from predis.loadtest.connection import Connection, HttpConnection
from tests.loadtest.server import REQUEST, response


class Driver:
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def opened(self, connection: Connection) -> None:
        self.told.append(("opened",))

    def answered(self, connection: Connection, error: str, *, body: bytes) -> None:
        self.told.append(("answered", error, body, connection.closing))

    def broken(self, connection: Connection, reason: str) -> None:
        self.told.append(("broken", reason, connection.busy))


class Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.ended = ""

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.ended = "aborted"

    def close(self) -> None:
        self.ended = "closed"


@pytest.fixture
def made() -> tuple[HttpConnection, Driver, Transport]:
    driver, transport = Driver(), Transport()
    connection = HttpConnection(driver)
    connection.connection_made(transport)
    driver.told.clear()
    return connection, driver, transport


Made = tuple[HttpConnection, Driver, Transport]


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_answers_may_come_in_pieces(made: Made, size: int) -> None:
    connection, driver, transport = made
    for number in range(2):
        connection.send(REQUEST, float(number))
        assert connection.busy
        answer = response(b'{"outputs":[]}')
        for place in range(0, len(answer), size):
            connection.data_received(answer[place : place + size])
        assert not connection.busy
    assert driver.told == [("answered", "", b"", False)] * 2
    assert transport.written == [REQUEST] * 2


def test_an_error_comes_with_its_words(made: Made) -> None:
    connection, driver, _ = made
    connection.send(REQUEST, 0.0)
    connection.data_received(response(b'{"error":"no"}', 400))
    connection.send(REQUEST, 0.0)
    connection.data_received(response(b"", 204))
    assert driver.told == [("answered", "HTTP 400", b'{"error":"no"}', False), ("answered", "", b"", False)]


def test_an_interim_answer_is_none(made: Made) -> None:
    connection, driver, _ = made
    connection.send(REQUEST, 0.0)
    connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert driver.told == []
    connection.data_received(response())
    assert driver.told == [("answered", "", b"", False)]


def test_a_server_that_says_close_is_closed(made: Made) -> None:
    connection, driver, transport = made
    connection.send(REQUEST, 0.0)
    connection.data_received(response(head="connection: close\r\n"))
    assert driver.told == [("answered", "", b"", True)]
    assert transport.ended == "closed"


@pytest.mark.parametrize(
    ("problem", "reason"), [(None, "connection closed"), (ConnectionResetError(), "connection reset")]
)
def test_an_end_is_told_with_its_reason(made: Made, problem: Exception | None, reason: str) -> None:
    connection, driver, _ = made
    connection.send(REQUEST, 0.0)
    connection.connection_lost(problem)
    assert driver.told == [("broken", reason, True)]
    assert connection.closing


def test_what_is_not_http_ends_the_connection(made: Made) -> None:
    connection, driver, transport = made
    connection.send(REQUEST, 0.0)
    connection.data_received(b"SSH-2.0-OpenSSH\r\n")
    assert transport.ended == "aborted"
    connection.connection_lost(None)
    assert driver.told[0][1].startswith("not HTTP: ")
