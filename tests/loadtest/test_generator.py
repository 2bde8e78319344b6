"""Both loops against a server in the same event loop: what is counted, from when, and what becomes of failures."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque

import pytest

from predis.loadtest import Load, Target, arrivals
from predis.loadtest.connection import Connection
from predis.loadtest.generator import ClosedLoop, Generator, OpenLoop, reason_of
from predis.loadtest.recorder import Recorder, Slice
from tests.loadtest.server import REQUEST, Answer, Link, always, response, serving, target

STALL_S = 0.4


async def measured(loop: Generator, *, rate: float = 0.0, duration_s: float = 0.3) -> Slice:
    """Run a loop for a while, and tell what was seen."""
    await loop.connect()
    begin = time.perf_counter()
    loop._recorder.window(begin, begin + duration_s)
    if isinstance(loop, OpenLoop):
        loop.schedule(begin + moment for moment in arrivals.constant(rate))
    await loop.run()
    return loop._recorder.cut(1)


def run(
    kind: type[Generator], load: Load, answer: Answer, *, rate: float = 0.0, duration_s: float = 0.3
) -> Slice:
    async def go() -> Slice:
        async with serving(answer) as its:
            return await measured(kind(its, load, recorder=Recorder()), rate=rate, duration_s=duration_s)

    return asyncio.run(go())


class Stalling:
    """Answers at once, but holds the first answer and all after it for a while."""

    def __init__(self) -> None:
        self._held: deque[Link] = deque()
        self._stalled = False

    def __call__(self, link: Link, _request: bytes) -> None:
        if not self._stalled:
            self._stalled = True
            asyncio.get_running_loop().call_later(STALL_S, self._release)
            self._held.append(link)
        elif self._held:
            self._held.append(link)
        else:
            link.write(response())

    def _release(self) -> None:
        while self._held:
            self._held.popleft().write(response())


def test_an_open_loop_has_a_stall_in_every_request_that_was_due_meanwhile() -> None:
    seen = run(OpenLoop, Load(connections=4, duration_s=1), Stalling(), rate=200, duration_s=1.0)
    # 200 were due; the 40 due in the stall's first half have waited for more than its second half.
    assert seen.latency.total == 200
    assert seen.latency.between(STALL_S / 2, math.inf) >= 40 - 1
    assert seen.latency.quantile(0.99) >= STALL_S * 0.95
    assert seen.latency.quantile(0.81) >= STALL_S / 2
    assert seen.waited >= 40 - 4


def test_a_closed_loop_asks_nothing_while_the_server_stalls() -> None:
    seen = run(ClosedLoop, Load(connections=1, duration_s=1), Stalling(), duration_s=1.0)
    assert seen.latency.most >= STALL_S
    assert seen.latency.between(STALL_S * 0.95, math.inf) < 40  # one, and what a busy machine adds


def test_a_closed_loop_keeps_every_connection_busy() -> None:
    most = now = 0

    def answer(link: Link, _request: bytes) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)

        def later() -> None:
            nonlocal now
            now -= 1
            link.write(response())

        asyncio.get_running_loop().call_later(0.005, later)

    seen = run(ClosedLoop, Load(connections=3, duration_s=1), answer)
    assert most == 3
    assert seen.answered == pytest.approx(seen.latency.total, abs=3)
    assert not seen.errors


def test_errors_are_counted_by_kind_and_not_as_latencies() -> None:
    answers = itertools.cycle([response(b'{"error":"too much"}', 503), response()])
    seen = run(ClosedLoop, Load(connections=1, duration_s=1), lambda link, _: link.write(next(answers)))
    assert set(seen.errors) == {"HTTP 503"}
    assert seen.errors["HTTP 503"] == pytest.approx(seen.latency.total, abs=1)
    assert seen.samples == {"HTTP 503": '{"error":"too much"}'}


def test_a_connection_that_is_hung_up_is_an_error_and_opened_again() -> None:
    requests = 0

    def answer(link: Link, _request: bytes) -> None:
        nonlocal requests
        requests += 1
        if requests % 2:
            link.write(response())
        else:
            link.hang_up()

    seen = run(ClosedLoop, Load(connections=1, duration_s=1), answer)
    assert set(seen.errors) == {"connection closed"}
    assert requests > 2


def test_a_server_that_closes_after_each_answer_is_no_error() -> None:
    seen = run(ClosedLoop, Load(connections=2, duration_s=1), always(response(head="connection: close\r\n")))
    assert not seen.errors
    assert seen.latency.total > 2


def test_no_answer_in_time_is_an_error() -> None:
    load = Load(connections=2, duration_s=1, timeout_s=0.05)
    seen = run(ClosedLoop, load, lambda link, _: None)
    assert set(seen.errors) == {"timeout"}
    assert seen.errors["timeout"] >= 2
    assert seen.latency.total == 0


def test_an_open_loop_gives_up_on_what_could_not_be_sent_in_time() -> None:
    load = Load(connections=1, duration_s=1, timeout_s=0.05)
    seen = run(OpenLoop, load, lambda link, _: None, rate=100)
    assert sum(seen.errors.values()) == 30
    assert seen.errors["timeout, waiting for a free connection"] > 0


def test_requests_go_round_all_connections() -> None:
    asked: list[Link] = []

    def answer(link: Link, _request: bytes) -> None:
        asked.append(link)
        link.write(response())

    run(OpenLoop, Load(connections=3, duration_s=1), answer, rate=100)
    assert len(set(asked)) == 3
    assert all(asked.count(link) == pytest.approx(10, abs=3) for link in set(asked))


def test_different_requests_take_turns_from_the_first_given() -> None:
    asked: list[bytes] = []

    def answer(link: Link, request: bytes) -> None:
        asked.append(request)
        link.write(response())

    async def go() -> None:
        async with serving(answer) as its:
            requests = tuple(REQUEST.replace(b"toy", b"%d" % number) for number in range(3))
            loop = ClosedLoop(
                target(its.port, *requests), Load(connections=1, duration_s=1), recorder=Recorder(), first=2
            )
            await measured(loop, duration_s=0.1)
            expected = itertools.cycle((requests[2], requests[0], requests[1]))
            assert asked == [next(expected) for _ in asked]

    asyncio.run(go())


def test_nobody_there_is_told_at_once() -> None:
    async def go() -> None:
        async with serving(always(response())) as its:
            pass
        await ClosedLoop(its, Load(connections=1, duration_s=1), recorder=Recorder()).connect()

    with pytest.raises(ConnectionRefusedError):
        asyncio.run(go())


def test_a_server_that_goes_away_refuses_what_is_due() -> None:
    async def go() -> Slice:
        async with serving(always(response())) as its:
            loop = OpenLoop(its, Load(connections=1, duration_s=1, timeout_s=0.3), recorder=Recorder())
            await loop.connect()
        return await measured_after(loop)

    async def measured_after(loop: OpenLoop) -> Slice:
        begin = time.perf_counter()
        loop._recorder.window(begin, begin + 0.3)
        loop.schedule(begin + moment for moment in arrivals.constant(100))
        await loop.run()
        return loop._recorder.cut(1)

    seen = asyncio.run(go())
    assert sum(seen.errors.values()) == 30
    assert set(seen.errors) <= {
        "connection refused",
        "connection closed",
        "connection reset",
        "timeout, waiting for a free connection",
    }
    assert seen.errors["connection refused"] > 0


class Place:
    """A connection that only takes down what it is given."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        self.busy = self.closing = False
        self.started = 0.0

    def send(self, request: bytes, started: float) -> None:
        self.sent.append(started)
        self.busy, self.started = True, started

    def abort(self) -> None:
        self.closing = True


def test_latency_counts_from_when_a_request_was_due_not_from_when_it_was_sent() -> None:
    recorder = Recorder()
    recorder.window(0.0, 10.0)
    loop = OpenLoop(
        Target(host="", port=1, requests=(b"",)), Load(connections=1, duration_s=10), recorder=recorder
    )
    loop.schedule(iter([1.0, 2.0, 3.0, 20.0]))
    place: Connection = Place()
    loop.opened(place)
    loop.tick(2.5)  # late for the first two, of which one can be sent
    assert isinstance(place, Place)
    assert place.sent == [1.0]
    assert loop.in_flight() == 2
    found = recorder.cut(1)
    assert (found.lateness.total, found.lateness.most, found.waited) == (2, 1.5, 1)


def test_reasons_do_not_name_addresses() -> None:
    assert (
        reason_of(ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 80)"))
        == "connection refused"
    )
    assert reason_of(TimeoutError()) == "no connection in time"
    assert reason_of(OSError(24, "Too many open files")) == "Too many open files"
    assert reason_of(OSError()) == "OSError"
