"""The one request before the test."""

from __future__ import annotations

import pytest

from predis.errors import InvalidRequest, Unreachable
from predis.loadtest import probe
from tests.loadtest.server import Answer, Link, always, in_thread, response


def test_a_good_answer_is_enough() -> None:
    with in_thread(always(response())) as target:
        probe.check(target)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (always(response(b'{"error":"missing input: age"}', 400)), "HTTP 400: missing input: age"),
        (always(response(b"<html>no", 502)), "HTTP 502: <html>no"),
        (always(response(b"", 500)), "HTTP 500$"),
        (lambda link, _: link.hang_up(), "connection closed"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(answer: Answer, message: str) -> None:
    with in_thread(answer) as target, pytest.raises(InvalidRequest, match=message):
        probe.check(target)


def test_silence_is_told() -> None:
    def silence(_link: Link, _request: bytes) -> None: ...

    with (
        in_thread(silence) as target,
        pytest.raises(Unreachable, match=r"no answer from 127\.0\.0\.1:\d+ within 0\.05 s"),
    ):
        probe.check(target, timeout_s=0.05)


def test_nobody_there_is_told() -> None:
    with in_thread(always(response())) as target:
        pass
    with pytest.raises(Unreachable, match="connection refused"):
        probe.check(target)
