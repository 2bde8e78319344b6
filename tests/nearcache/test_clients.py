"""Both clients against a real Valkey: the same answers as redis-py, from memory where they may be, and never out of date."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from predis import nearcache
from predis.errors import InvalidInput
from predis.nearcache.commands import READS as READS_KEPT
from tests.nearcache.stories import CALM, PATIENCE_S, Blocking, Direct, until

Make = Callable[..., Any]


@pytest.fixture(params=[Direct, Blocking], ids=["sync", "async"])
def make(request: pytest.FixtureRequest, url: str) -> Iterator[Make]:
    made = []

    def make(**options: Any) -> Any:
        client = request.param(url, **{**CALM, **options})
        made.append(client)
        assert client.near.wait(PATIENCE_S)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def near(make: Make) -> Any:
    return make()


def hits(client: Any) -> int:
    return client.near.stats.hits


READS = [
    ("GET", "text"), ("GET", b"text"), ("GET", "none"), ("GET", 5), ("GETRANGE", "text", 0, 1), ("STRLEN", "text"), ("GETBIT", "text", 3),
    ("BITCOUNT", "text"), ("EXISTS", "text"), ("EXISTS", "none"), ("TYPE", "hash"), ("TYPE", "none"),
    ("MGET", "text", "none", "text", "number"),
    ("HGET", "hash", "a"), ("HGET", "hash", "none"), ("HGET", "none", "a"), ("HMGET", "hash", "a", "none"), ("HGETALL", "hash"),
    ("HGETALL", "none"), ("HKEYS", "hash"), ("HVALS", "hash"), ("HLEN", "hash"), ("HEXISTS", "hash", "a"), ("HEXISTS", "hash", "z"),
    ("HSTRLEN", "hash", "a"), ("LRANGE", "list", 0, -1), ("LINDEX", "list", 1), ("LLEN", "list"),
    ("SMEMBERS", "set"), ("SMEMBERS", "none"), ("SISMEMBER", "set", "a"), ("SISMEMBER", "set", "z"), ("SMISMEMBER", "set", "a", "z"),
    ("SCARD", "set"), ("ZSCORE", "zset", "a"), ("ZSCORE", "zset", "z"), ("ZMSCORE", "zset", ["a", "z"]), ("ZCARD", "zset"),
    ("ZCOUNT", "zset", 1, 2),
]  # fmt: skip


def fill(client: redis.Redis) -> None:
    client.mset({"text": "grüße", "number": 1, "5": "five"})
    client.hset("hash", mapping={"a": "1", "b": "ü"})
    client.rpush("list", "a", "b", "c")
    client.sadd("set", "a", "b")
    client.zadd("zset", {"a": 1.5, "b": 2e30})


def asked(client: Any, command: tuple) -> Any:
    name, *arguments = command
    return getattr(client, name.lower())(*arguments)


@pytest.mark.parametrize(
    "options", [{"protocol": p, "decode_responses": d} for p in (2, 3) for d in (False, True)], ids=str
)
def test_every_read_is_answered_as_redis_py_answers_it(
    make: Make, url: str, other: redis.Redis, options: dict
) -> None:
    fill(other)
    near = make(**options)
    with redis.Redis.from_url(url, **options) as plain:
        for command in READS:
            wanted = asked(plain, command)
            near.near.clear()
            for _ in range(2):
                answer = asked(near, command)
                assert (answer, type(answer)) == (wanted, type(wanted)), command
                if isinstance(answer, list | set | dict):
                    answer.clear()  # the caller's own
            assert asked(near, command) == wanted
            assert hits(near) > 0, command
    names = {command[0] for command in READS}
    assert names == READS_KEPT, "a read that is kept and not shown here"


def test_every_read_is_kept(near: Any, other: redis.Redis) -> None:
    fill(other)
    for command in READS:
        near.near.clear()
        asked(near, command)
        misses = near.near.stats.misses
        asked(near, command)
        assert near.near.stats.misses == misses, command


def test_errors_are_those_of_redis_py(near: Any, other: redis.Redis) -> None:
    other.hset("hash", "a", 1)
    for _ in range(2):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            near.get("hash")
        with pytest.raises(redis.DataError):
            near.get(None)
        with pytest.raises(redis.ResponseError, match="wrong number"):
            near.execute_command("HGET", "hash")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            near.lrange("hash", 0, 1)
    assert near.mget("hash", "none") == [None, None]
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        near.get("hash")


def test_text_that_is_none(make: Make, other: redis.Redis) -> None:
    near = make(decode_responses=True)
    other.set("bytes", b"\xff")
    for _ in range(2):
        with pytest.raises(UnicodeDecodeError):
            near.get("bytes")
    other.set("bytes", "x")
    assert near.near.barrier()
    assert near.get("bytes") == "x"


CHANGES: list[tuple[str, ...]] = [
    ("SET", "k", "2"), ("DEL", "k"), ("UNLINK", "k"), ("APPEND", "k", "2"), ("EXPIRE", "k", "100"), ("RENAME", "k", "l"),
    ("COPY", "n", "k", "REPLACE"), ("EVAL", "redis.call('set', 'k', '2')", "0"), ("FLUSHALL",), ("FLUSHDB",), ("FLUSHALL", "ASYNC"),
    ("MSET", "m", "1", "k", "2"), ("GETDEL", "k"), ("PEXPIRE", "k", "-1"),
]  # fmt: skip


@pytest.mark.parametrize("broadcast", [False, True], ids=["table", "broadcast"])
def test_whatever_others_do_to_a_key_is_seen_after_a_barrier(
    make: Make, other: redis.Redis, broadcast: bool
) -> None:
    near = make(broadcast=broadcast, prefixes=["k", "m"])
    for change in CHANGES:
        other.flushall()
        other.mset({"k": "1", "n": "3"})
        assert near.near.barrier()
        assert near.get("k") == near.get("k") == b"1"
        before = near.near.stats.invalidations
        other.execute_command(*change)
        assert near.near.barrier()
        assert near.get("k") == other.get("k"), change
        assert near.near.stats.invalidations > before, change


@pytest.mark.parametrize("change", [*CHANGES, ("SWAPDB", "0", "1")], ids=" ".join)
def test_own_writes_are_seen_at_once(near: Any, change: tuple) -> None:
    for _ in range(30):
        near.mset({"k": "1", "n": "3"})
        near.get("k")
        near.execute_command(*change)
        if change[0] == "EVAL":
            near.near.barrier()  # it names no key
        assert near.get("k") == near.transact(("GET", "k"))[0]


def test_own_writes_in_pipelines_are_seen_at_once(near: Any) -> None:
    near.set("k", 1)
    for number in range(100):
        near.get("k")
        assert near.transact(("SET", "k", number), ("GET", "k"))[1] == b"%d" % number
        assert near.get("k") == b"%d" % number
        assert near.watched("k", ("SET", "k", -number), ("GET", "k"))[1] == b"%d" % -number
        assert near.get("k") == b"%d" % -number


def test_limits_of_time_are_the_servers(near: Any, other: redis.Redis) -> None:
    other.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")  # the server itself will say nothing
    try:
        other.set("k", "1", px=300)
        began = time.monotonic()
        assert near.get("k") == b"1"
        until(lambda: near.get("k") is None)
        assert time.monotonic() - began >= 0.25
        assert other.get("k") is None
    finally:
        other.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def test_a_limit_that_is_taken_away(near: Any, other: redis.Redis) -> None:
    other.set("k", "1", px=100)
    near.get("k")
    other.persist("k")
    near.near.barrier()
    until(lambda: near.near.stats.entries == 0 or near.get("k") == b"1")
    assert near.get("k") == b"1"


def test_keys_that_the_server_evicts(near: Any, other: redis.Redis) -> None:
    other.set("k", "1")
    near.get("k")
    before = other.config_get("maxmemory*")
    other.config_set("maxmemory-policy", "allkeys-random")
    other.config_set("maxmemory", 1)
    try:
        until(lambda: other.dbsize() == 0 or other.ping() is False)
    finally:
        other.config_set("maxmemory", before["maxmemory"])
        other.config_set("maxmemory-policy", before["maxmemory-policy"])
    near.near.barrier()
    assert near.get("k") is None


def test_a_server_that_forgets_what_was_read(near: Any, other: redis.Redis) -> None:
    other.config_set("tracking-table-max-keys", 10)
    for number in range(200):
        near.get(f"k{number}")
    until(lambda: near.near.stats.entries <= 20)
    assert near.near.stats.invalidations >= 150
    for number in range(200):
        other.set(f"k{number}", number)
    near.near.barrier()
    assert [near.get(f"k{number}") for number in range(200)] == [b"%d" % number for number in range(200)]


def test_only_keys_with_the_prefixes_are_kept(make: Make) -> None:
    near = make(prefixes=["a:", b"b:"])
    for key in ("a:1", "b:1", "c:1", "a"):
        near.get(key)
        near.get(key)
    near.mget("a:1", "c:1")
    assert (hits(near), near.near.stats.entries) == (2, 2)


def test_values_over_the_limit_are_not_kept(make: Make) -> None:
    near = make(max_value_bytes=1_000)
    near.mset({"small": bytes(500), "large": bytes(5_000)})
    for _ in range(3):
        assert near.get("large") == bytes(5_000)
        near.get("small")
    assert hits(near) == 2


def test_mget_reads_only_what_is_missing(near: Any, other: redis.Redis) -> None:
    other.mset({"a": 1, "b": 2, "c": 3})
    near.get("a")
    assert near.mget("a", "b") == [b"1", b"2"]
    assert (hits(near), near.near.stats.misses) == (1, 2)
    calls = other.info("commandstats")["cmdstat_get"]["calls"]
    assert [near.get("b"), near.get("a")] == [b"2", b"1"]
    assert other.info("commandstats")["cmdstat_get"]["calls"] == calls
    assert near.mget([]) == []


@pytest.mark.parametrize("make", [Direct], indirect=True)
def test_a_callback_of_the_callers_own(near: Any) -> None:
    near.set("k", "1")
    near.get("k")
    near.set_response_callback("GET", lambda reply, **_: int(reply))
    assert near.get("k") == near.get("k") == 1


def test_a_client_of_one_connection_is_let_alone(near: Any) -> None:
    near.set("k", "1")
    assert near.get("k") == b"1"
    near.alone(("SET", "k", "2"))
    assert near.get("k") == b"2"  # what it changes is noticed
    before = hits(near)
    assert near.alone(("GET", "k")) == [b"2"]
    assert hits(near) == before


class TestTrouble:
    def test_the_tracked_connection_is_killed(self, near: Any, other: redis.Redis) -> None:
        for number in range(10):
            other.set("k", number)
            near.near.wait(PATIENCE_S)
            near.get("k")
            killed = [c["id"] for c in other.client_list() if "t" in c["flags"]]
            assert len(killed) == 1
            other.client_kill_filter(_id=killed[0])
            other.set("k", number + 1)
            until(lambda number=number: near.near.stats.losses > number)
            assert near.get("k") == b"%d" % (number + 1)
        assert near.near.wait(PATIENCE_S)
        near.get("k")
        before = hits(near)
        near.get("k")
        assert hits(near) == before + 1

    def test_a_server_that_hangs_ends_service_within_the_lease(self, make: Make, other: redis.Redis) -> None:
        near = make(max_stale_s=0.3, patience_s=0.05)
        other.set("k", "1")
        until(lambda: near.get("k") == b"1" and near.near.stats.entries == 1)
        other.client_pause(2_000)
        until(lambda: not near.near.stats.coherent)
        before = hits(near)
        assert near.get("k") == b"1", "asked of the server, once it goes on"
        assert hits(near) == before
        assert near.near.wait(PATIENCE_S)

    def test_no_tracking_is_no_harm(
        self, url: str, other: redis.Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        other.execute_command("ACL", "SETUSER", "plain", "on", ">secret", "~*", "+@all", "-client|tracking")
        near = nearcache.connect(url.replace("//", "//plain:secret@"))
        try:
            assert not near.near.wait(0.3)
            near.set("k", "1")
            assert near.get("k") == near.get("k") == b"1"
            assert near.near.stats.entries == 0
            assert caplog.text.count("CLIENT TRACKING") == 1
        finally:
            near.close()

    def test_after_closing_nothing_is_served(self, url: str) -> None:
        near = nearcache.connect(url, **CALM)
        near.near.wait(PATIENCE_S)
        near.get("k")
        near.close()
        near.get("k")
        assert hits(near) == 0
        assert not [t for t in threading.enumerate() if t.name == "predis-near-cache"]

    def test_a_forgotten_client_ends_its_thread(self, url: str) -> None:
        near = nearcache.connect(url, **CALM)
        near.near.wait(PATIENCE_S)
        with near._line._sending:  # garbage is collected amid anything
            del near
        until(lambda: not [t for t in threading.enumerate() if t.name == "predis-near-cache"])

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_begins_anew(self, url: str, other: redis.Redis) -> None:
        near = nearcache.connect(url, **CALM)
        other.set("k", "1")
        near.near.wait(PATIENCE_S)
        near.get("k")
        child = os.fork()
        if child == 0:
            try:
                empty = near.near.stats.entries == 0
                other.set("k", "2")
                served = near.near.wait(PATIENCE_S) and near.get("k") == near.get("k") == b"2"
                os._exit(0 if empty and served and near.near.stats.hits == 1 else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        near.near.barrier()
        assert near.get("k") == near.get("k") == b"2"
        assert near.near.stats.losses == 0, "the child closed the parent's connection"
        near.close()


def test_one_client_for_many_threads(url: str) -> None:
    near = nearcache.connect(url, **CALM)
    near.near.wait(PATIENCE_S)
    near.mset({f"k{number}": number for number in range(50)})
    wrong = []

    def read() -> None:
        for turn in range(1_000):
            number = turn * 7 % 50
            if near.get(f"k{number}") != b"%d" % number:
                wrong.append(number)
            if turn % 100 == 0:
                near.near.clear()

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    near.close()
    assert not wrong


@pytest.mark.parametrize(
    "options", [{"encoding": "latin-1"}, {"single_connection_client": True}, {"max_bytes": 0}]
)
def test_options_that_do_not_go_together(url: str, options: dict) -> None:
    for connect in (nearcache.connect, nearcache.connect_async):
        with pytest.raises(InvalidInput):
            connect(url, **options)
