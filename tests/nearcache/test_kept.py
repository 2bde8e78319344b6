"""What may be served, and when: the lease, reservations, drops and limits, without any server."""

from __future__ import annotations

import math
import sys
import threading
import tracemalloc

import pytest

from predis.clock import ManualClock
from predis.errors import InvalidInput
from predis.nearcache import Near
from predis.nearcache.kept import MISSING, Kept
from predis.nearcache.near import MAX_KEY_BYTES, split


@pytest.fixture
def kept(clock: ManualClock) -> Kept:
    return serving(clock)


def serving(clock: ManualClock, **options) -> Kept:
    kept = Kept(Near(**{"max_stale_s": 10.0, **options}), clock=clock.monotonic_s)
    kept.open()
    kept.renew(clock.monotonic_s())
    return kept


def put(kept: Kept, key: bytes, answer, *, shape="GET", expires_at: float = math.inf) -> bool:
    (reservation,) = kept.reserve([key])
    return kept.keep(key, reservation, shape=shape, answer=answer, expires_at=expires_at)


class TestLease:
    def test_nothing_is_served_before_the_first_answer_or_after_the_lease(self, clock: ManualClock) -> None:
        kept = Kept(Near(max_stale_s=1.0), clock=clock.monotonic_s)
        assert not put(kept, b"a", b"early")
        kept.renew(clock.monotonic_s())
        assert not kept.coherent
        kept.open()
        kept.renew(clock.monotonic_s())
        assert put(kept, b"a", b"1")
        clock.advance(0.999)
        assert kept.find(b"a", "GET") == b"1"
        clock.advance(0.001)
        assert kept.find(b"a", "GET") is MISSING
        assert not kept.coherent

    def test_counts_from_the_sending_and_never_goes_back(self, clock: ManualClock) -> None:
        kept = serving(clock, max_stale_s=1.0)
        put(kept, b"a", b"1")
        sent = clock.monotonic_s()
        clock.advance(0.9)
        kept.renew(sent)
        clock.advance(0.2)
        assert kept.find(b"a", "GET") is MISSING
        kept.renew(clock.monotonic_s())
        assert kept.find(b"a", "GET") == b"1", (
            "what was kept is right again once everything of meanwhile has come"
        )

    def test_a_lost_connection_takes_everything(self, kept: Kept, clock: ManualClock) -> None:
        put(kept, b"a", b"1")
        (flying,) = kept.reserve([b"b"])
        kept.close()
        kept.open()
        kept.renew(clock.monotonic_s())
        assert kept.find(b"a", "GET") is MISSING
        assert not kept.keep(b"b", flying, shape="GET", answer=b"old", expires_at=math.inf)
        assert kept.stats(gateway=False).losses == 1


class TestReservations:
    def test_a_drop_while_a_read_is_in_flight(self, kept: Kept) -> None:
        (before,) = kept.reserve([b"a"])
        kept.drop([b"a"])
        (after,) = kept.reserve([b"a"])
        assert not kept.keep(b"a", before, shape="GET", answer=b"old", expires_at=math.inf)
        assert kept.find(b"a", "GET") is MISSING
        assert kept.keep(b"a", after, shape="GET", answer=b"new", expires_at=math.inf)
        assert kept.find(b"a", "GET") == b"new"

    def test_two_reads_of_one_key_share_one(self, kept: Kept) -> None:
        (one,), (two,) = kept.reserve([b"a"]), kept.reserve([b"a"])
        assert one is two
        assert kept.keep(b"a", one, shape="GET", answer=b"1", expires_at=math.inf)
        kept.drop([b"a"])
        assert not kept.keep(b"a", two, shape="GET", answer=b"1", expires_at=math.inf)

    def test_none_is_left_behind(self, kept: Kept) -> None:
        for number in range(100):
            key = b"%d" % number
            (reservation,) = kept.reserve([key])
            if number % 3 == 0:
                kept.release(key, reservation)
            elif number % 3 == 1:
                kept.drop([key])
                kept.release(key, reservation)
            else:
                kept.keep(key, reservation, shape="GET", answer=b"", expires_at=math.inf)
        assert not kept._reserved

    def test_clear_is_a_drop_of_all(self, kept: Kept) -> None:
        (flying,) = kept.reserve([b"a"])
        kept.clear()
        assert not kept.keep(b"a", flying, shape="GET", answer=b"old", expires_at=math.inf)


class TestEntries:
    def test_the_reads_of_a_key_go_together(self, kept: Kept) -> None:
        put(kept, b"h", {b"a": b"1"}, shape="HGETALL")
        put(kept, b"h", b"1", shape=("HGET", b"a"))
        assert kept.find(b"h", ("HGET", b"a")) == b"1"
        assert kept.find(b"h", ("HGET", b"b")) is MISSING
        assert kept.stats(gateway=False).entries == 1
        kept.drop([b"h"])
        assert kept.find(b"h", "HGETALL") is MISSING

    def test_none_is_an_answer(self, kept: Kept) -> None:
        put(kept, b"a", None)
        assert kept.find(b"a", "GET") is None

    def test_limits_of_time(self, clock: ManualClock) -> None:
        kept = serving(clock, local_ttl_s=3.0, max_stale_s=1e9)
        now = clock.monotonic_s()
        put(kept, b"server", b"1", expires_at=now + 2)
        put(kept, b"local", b"1", expires_at=now + 9)
        clock.advance(1.0)
        put(kept, b"local", 1, shape="STRLEN")
        clock.advance(1.0)
        assert kept.find(b"server", "GET") is MISSING
        assert kept.find(b"local", "GET") == b"1"
        clock.advance(1.0)
        assert kept.find(b"local", "GET") is MISSING, "another read of the key does not lengthen it"
        assert not put(kept, b"past", b"1", expires_at=now)

    def test_limits_of_size(self, clock: ManualClock) -> None:
        kept = serving(clock, max_value_bytes=2_000)
        assert put(kept, b"a", bytes(1_000))
        assert not put(kept, b"b", bytes(3_000))
        assert not put(kept, b"a", [bytes(100)] * 100, shape="LRANGE")
        assert kept.find(b"a", "GET") is MISSING
        assert kept.stats(gateway=False).bytes == 0

    def test_many_fields_of_a_hash_count_together(self, clock: ManualClock) -> None:
        kept = serving(clock, max_value_bytes=100_000)
        held = [put(kept, b"h", bytes(100), shape=("HGET", b"%d" % field)) for field in range(1_000)]
        assert not all(held)
        assert kept.stats(gateway=False).bytes < 110_000

    def test_memory_stays_within_its_bound(self, clock: ManualClock) -> None:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        kept = serving(clock, max_bytes=1 << 20)
        for number in range(5_000):
            put(kept, b"key-%09d" % number, bytes(200 + number % 7))
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert kept.stats(gateway=False).evictions > 1_000
        assert used <= 1 << 20

    def test_commands_whose_answers_are_someone_elses(self, kept: Kept) -> None:
        put(kept, b"a", b"1")
        kept.ignore("get")
        assert kept.find(b"a", "GET") is MISSING
        assert not put(kept, b"a", b"1")
        assert put(kept, b"a", 1, shape="STRLEN")


class TestOwnWrites:
    @pytest.mark.parametrize(
        "command",
        [("SET", "a", 1), ("SET", b"a", 1), ("EVAL", "...", 1, "a"), ("RENAME", "b", memoryview(b"a"))],
    )
    def test_whatever_names_a_key(self, kept: Kept, command: tuple) -> None:
        put(kept, b"a", b"1")
        (flying,) = kept.reserve([b"a"])
        kept.wrote([command])
        assert kept.find(b"a", "GET") is MISSING
        assert not kept.keep(b"a", flying, shape="GET", answer=b"old", expires_at=math.inf)

    def test_numbers_are_keys_too(self, kept: Kept) -> None:
        put(kept, b"5", b"1")
        put(kept, b"1.5", b"1")
        kept.wrote([("SET", 5, "x"), ("SET", 1.5, "x")])
        assert kept.stats(gateway=False).entries == 0

    def test_other_keys_and_harmless_commands_leave_it(self, kept: Kept) -> None:
        put(kept, b"a", b"1")
        kept.wrote(
            [
                ("SET", "b", 1),
                ("TTL", "a"),
                ("SET", "c", b"x" * 10_000),
                ("SET", "c", "ü" * MAX_KEY_BYTES),
                ("GET", None),
            ]
        )
        assert kept.find(b"a", "GET") == b"1"

    @pytest.mark.parametrize("command", ["FLUSHALL", "flushdb", "SWAPDB"])
    def test_those_that_change_everything(self, kept: Kept, command: str) -> None:
        put(kept, b"a", b"1")
        kept.wrote([(command,)])
        assert kept.find(b"a", "GET") is MISSING


def test_hits_beside_a_thread_that_changes_everything(clock: ManualClock) -> None:
    kept = serving(clock, max_bytes=50_000)
    wrong: list = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            for number in range(100):
                answer = kept.find(b"%d" % number, "GET")
                if answer is not MISSING and not answer.startswith(b"%d:" % number):
                    wrong.append(answer)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for round_ in range(100):
        for number in range(100):
            put(kept, b"%d" % number, b"%d:%d" % (number, round_))
            if number % 7 == round_ % 7:
                kept.drop([b"%d" % number])
    stop.set()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    assert not wrong


@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": 0},
        {"max_value_bytes": 0},
        {"max_stale_s": 0},
        {"local_ttl_s": math.nan},
        {"patience_s": -1},
        {"prefixes": "user:"},
    ],
)
def test_senseless_options_are_refused(options: dict) -> None:
    with pytest.raises(InvalidInput):
        Near(**options)


def test_options_are_told_from_those_of_redis_py() -> None:
    near, rest = split({"prefixes": ["a:", b"b:"], "max_bytes": 5, "decode_responses": True})
    assert (near.max_bytes, rest) == (5, {"decode_responses": True})
    assert near.keeps(b"b:1")
    assert not near.keeps(b"c:1")
    assert not near.keeps(b"a:" + bytes(MAX_KEY_BYTES))
