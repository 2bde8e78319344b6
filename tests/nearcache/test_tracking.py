"""The protocol of the tracked connection, byte by byte: every order in which replies, announcements and own writes can come."""

from __future__ import annotations

import itertools
import math
import socketserver
import threading
from collections.abc import Iterator

import hiredis
import pytest

from predis import nearcache
from predis.clock import ManualClock
from predis.errors import Unavailable
from predis.nearcache import Near
from predis.nearcache.kept import MISSING, Kept
from predis.nearcache.reads import Decoder, pack
from predis.nearcache.tracking import Flight, Tracking
from tests.nearcache.stories import CALM, PATIENCE_S, until

OK, NO_TTL, PONG = b"+OK\r\n", b":-1\r\n", b"+PONG\r\n"
UNKNOWN = b"-ERR unknown command 'PREDIS'\r\n"
INVALIDATED = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n"
FLUSHED = b">2\r\n$10\r\ninvalidate\r\n_\r\n"
PREFETCHED = b">3\r\n$15\r\npredis-prefetch\r\n$1\r\na\r\n$3\r\nold\r\n"


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


@pytest.fixture
def tracking(clock: ManualClock) -> Tracking:
    return greeted(clock)


def greeted(clock: ManualClock, **options) -> Tracking:
    tracking = Tracking(Kept(Near(**options), clock=clock.monotonic_s), Decoder(decode=False))
    tracking.greet()
    tracking.feed(OK + UNKNOWN + PONG)
    return tracking


def read(tracking: Tracking, *command: bytes | str) -> Flight:
    flight = Flight(command, [bytes(command[1])], done=lambda: None)
    assert tracking.send(flight)
    return flight


def test_greeting(clock: ManualClock) -> None:
    tracking = Tracking(
        Kept(Near(broadcast=True, prefixes=["a:", b"b:"]), clock=clock.monotonic_s), Decoder(decode=False)
    )
    sent = tracking.greet()
    assert sent.startswith(
        pack("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "a:", "PREFIX", "b:")
        + pack("PREDIS", "NEAR", "ON")
    )
    assert not tracking.kept.coherent
    tracking.feed(OK + OK + PONG)
    assert tracking.kept.coherent
    assert tracking.gateway


def test_a_server_that_does_not_track(clock: ManualClock) -> None:
    tracking = Tracking(Kept(Near(), clock=clock.monotonic_s), Decoder(decode=False))
    tracking.greet()
    with pytest.raises(Unavailable, match="CLIENT TRACKING: NOPERM"):
        tracking.feed(b"-NOPERM no\r\n")
    assert not tracking.kept.coherent


@pytest.mark.parametrize("announced", [INVALIDATED, FLUSHED])
def test_an_answer_of_before_a_write_is_not_there_after_its_announcement_in_any_order(
    clock: ManualClock, announced: bytes
) -> None:
    """Even where a gateway lets announcements pass replies that it holds back."""
    for where in range(3):
        tracking = greeted(clock)
        read(tracking, "GET", b"a")
        parts = [NO_TTL, bulk(b"old")]
        parts.insert(where, announced)
        tracking.feed(b"".join(parts))
        assert tracking.kept.find(b"a", "GET") is MISSING, where


def test_an_own_write_at_any_moment_of_a_read_or_prefetch(clock: ManualClock) -> None:
    for what, when in itertools.product(("read", "prefetch"), range(4)):
        tracking = greeted(clock)
        steps = (
            [lambda t: read(t, "GET", b"a"), lambda t: t.feed(NO_TTL), lambda t: t.feed(bulk(b"old"))]
            if what == "read"
            else [lambda t: t.feed(PREFETCHED), lambda t: t.follow_up(), lambda t: t.feed(NO_TTL)]
        )
        steps.insert(when, lambda t: t.kept.wrote([("SET", "a", "new")]))
        for step in steps:
            step(tracking)
        # Before a read is sent, the write is known to it. Before a prefetch is handled, the server has announced the write on T
        # ahead of the PTTL's reply: then there is something to drop it.
        if when > 0:
            assert tracking.kept.find(b"a", "GET") is MISSING, (what, when)


def test_chunks_of_any_length(clock: ManualClock) -> None:
    stream = NO_TTL + bulk(b"1") + INVALIDATED + NO_TTL + bulk(b"2")
    for length in range(1, len(stream)):
        tracking = greeted(clock)
        first, second = read(tracking, "GET", b"b"), read(tracking, "GET", b"c")
        for at in range(0, len(stream), length):
            tracking.feed(stream[at : at + length])
        assert (first.answers, second.answers) == ([b"1"], [b"2"])
        assert tracking.kept.find(b"b", "GET") == b"1"


class TestTimeToLive:
    def test_counts_from_the_sending(self, tracking: Tracking, clock: ManualClock) -> None:
        read(tracking, "GET", b"a")
        clock.advance(0.4)
        tracking.feed(b":500\r\n" + bulk(b"1"))
        assert tracking.kept.find(b"a", "GET") == b"1"
        clock.advance(0.1)
        assert tracking.kept.find(b"a", "GET") is MISSING

    @pytest.mark.parametrize(
        ("ttl", "reply", "kept"),
        [
            (b":-2\r\n", b"_\r\n", True),
            (b":-2\r\n", bulk(b"loaded meanwhile"), False),
            (b":0\r\n", bulk(b"1"), False),
            (b"-NOPERM no\r\n", bulk(b"1"), False),
            (b":-1\r\n", bulk(b""), True),
        ],
    )
    def test_what_cannot_be_told_is_not_kept(
        self, tracking: Tracking, ttl: bytes, reply: bytes, kept: bool
    ) -> None:
        flight = read(tracking, "GET", b"a")
        tracking.feed(ttl + reply)
        assert flight.answers is not None
        assert (tracking.kept.find(b"a", "GET") is not MISSING) is kept

    @pytest.mark.parametrize(("command", "reply"), [(("HGETALL", b"a"), b"%0\r\n"), (("HMGET", b"a", b"x"), b"*1\r\n_\r\n"), (("TYPE", b"a"), b"+none\r\n"), (("SMEMBERS", b"a"), b"~0\r\n"), (("EXISTS", b"a"), b":0\r\n"), (("SMISMEMBER", b"a", b"x"), b"*1\r\n:0\r\n")])  # fmt: skip
    def test_nothing_is_kept_of_keys_that_are_not_there_too(
        self, tracking: Tracking, command: tuple, reply: bytes
    ) -> None:
        read(tracking, *command)
        tracking.feed(b":-2\r\n" + reply)
        assert tracking.kept.stats(gateway=False).entries == 1


class TestPrefetched:
    def test_is_kept_once_its_limit_is_known(self, tracking: Tracking) -> None:
        tracking.feed(PREFETCHED)
        assert tracking.has_offers
        assert tracking.kept.find(b"a", "GET") is MISSING
        assert tracking.follow_up() == pack("PTTL", "a")
        tracking.feed(NO_TTL)
        assert tracking.kept.find(b"a", "GET") == b"old"
        assert tracking.kept.prefetched == 1

    @pytest.mark.parametrize("where", [0, 1])
    def test_an_announcement_after_it_takes_it(self, tracking: Tracking, where: int) -> None:
        tracking.feed(PREFETCHED + (INVALIDATED if where == 0 else b""))
        tracking.follow_up()
        tracking.feed((INVALIDATED if where == 1 else b"") + NO_TTL)
        assert tracking.kept.find(b"a", "GET") is MISSING

    def test_its_time_is_over(self, tracking: Tracking) -> None:
        tracking.feed(PREFETCHED)
        tracking.follow_up()
        tracking.feed(b":-2\r\n")
        assert tracking.kept.find(b"a", "GET") is MISSING
        assert not tracking.kept._reserved

    def test_keys_that_are_not_kept(self, clock: ManualClock) -> None:
        tracking = greeted(clock, prefixes=["b"])
        tracking.feed(PREFETCHED)
        assert not tracking.has_offers

    def test_other_pushes_are_let_pass(self, tracking: Tracking) -> None:
        tracking.feed(b">3\r\n+message\r\n+a\r\n+b\r\n" + b">2\r\n$15\r\npredis-prefetch\r\n$1\r\na\r\n")
        assert not tracking.has_offers


class TestSilence:
    def test_beats_keep_the_lease(self, clock: ManualClock) -> None:
        tracking = greeted(clock, max_stale_s=3.0)
        assert tracking.beat() == (b"", 1.0)
        for _ in range(10):
            clock.advance(1.0)
            assert tracking.beat() == (pack("PING"), 1.0)
            tracking.feed(PONG)
            assert tracking.kept.coherent

    def test_without_answers_the_lease_ends_and_then_the_connection(self, clock: ManualClock) -> None:
        tracking = greeted(clock, max_stale_s=1.0)
        clock.advance(0.5)
        assert tracking.beat()[0] == pack("PING")
        clock.advance(0.6)
        assert not tracking.kept.coherent
        clock.advance(4.5)
        with pytest.raises(Unavailable, match="has not answered"):
            tracking.beat()

    @pytest.mark.parametrize("reply", [b"-BUSY script\r\n", b"-LOADING\r\n", b"-NOPERM no\r\n"])
    def test_refusals_prove_nothing(self, clock: ManualClock, reply: bytes) -> None:
        tracking = greeted(clock, max_stale_s=1.0)
        clock.advance(0.9)
        tracking.beat()
        tracking.feed(reply)
        clock.advance(0.2)
        assert not tracking.kept.coherent

    def test_a_line_that_is_behind_takes_no_more(self, clock: ManualClock) -> None:
        tracking = greeted(clock, patience_s=0.1)
        read(tracking, "GET", b"a")
        clock.advance(0.2)
        assert tracking.send(Flight(("GET", b"b"), [b"b"], done=lambda: None)) is None
        tracking.feed(NO_TTL + bulk(b"1"))
        assert read(tracking, "GET", b"b")


def test_whoever_waits_is_told_when_the_connection_is_lost(tracking: Tracking) -> None:
    told = []
    flight = Flight(("MGET", b"a", b"b"), [b"a", b"b"], done=lambda: told.append("read"))
    tracking.send(flight)
    tracking.ping(lambda: told.append("ping"))
    tracking.lost()
    assert told == ["read", "ping"]
    assert flight.answers is None
    assert not tracking.kept._reserved
    assert tracking.kept.lease_until == -math.inf


def test_a_server_that_says_what_nobody_asked(tracking: Tracking) -> None:
    with pytest.raises(hiredis.ProtocolError, match="nothing that was asked"):
        tracking.feed(OK)


class Gateway(socketserver.ThreadingTCPServer):
    """A few lines that answer as the Predis gateway does: after a read of ``user:N``, ``user:N+1`` is pushed."""

    allow_reuse_address = daemon_threads = True

    class RequestHandlerClass(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            reader = hiredis.Reader()
            near = False
            while data := self.request.recv(65_536):
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    match command:
                        case [b"HELLO", *_]:
                            answer = b"%1\r\n$5\r\nproto\r\n:3\r\n"
                        case [b"PREDIS", b"NEAR", b"ON"]:
                            near, answer = True, OK
                        case [b"PTTL", _]:
                            answer = NO_TTL
                        case [b"PING"]:
                            answer = PONG
                        case [b"GET", key]:
                            answer = bulk(b"value of " + key)
                            if near:
                                following = b"user:%d" % (int(key[5:]) + 1)
                                answer += (
                                    b">3\r\n"
                                    + bulk(b"predis-prefetch")
                                    + bulk(following)
                                    + bulk(b"value of " + following)
                                )
                        case _:
                            answer = OK
                    self.request.sendall(answer)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.RequestHandlerClass)


@pytest.fixture
def gateway() -> Iterator[int]:
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_what_a_gateway_prefetches_is_there_before_it_is_asked_for(gateway: int) -> None:
    near = nearcache.connect(f"redis://127.0.0.1:{gateway}", **CALM)
    assert near.near.wait(PATIENCE_S)
    assert near.near.stats.gateway
    for number in range(50):
        assert near.get(f"user:{number}") == b"value of user:%d" % number
        if number % 2 == 0:
            until(lambda number=number: near.near.stats.prefetched == number // 2 + 1)
    stats = near.near.stats
    near.close()
    assert (stats.hits, stats.misses) == (25, 25)
