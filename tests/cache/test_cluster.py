"""A gateway in front of a real cluster, for clients that know of none."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from predis.access import Keys
from predis.cache.cluster import transport
from predis.cache.cluster.slots import SLOTS, Redirect, slot_of
from predis.cache.cluster.upstream import Cluster
from predis.cache.door import Door
from predis.cache.link import Link
from predis.cache.resp import bulk, command, items
from predis.cache.sentinel import upstream_of
from predis.cache.sources.declarations import Declarations
from predis.cache.supply import Supply
from predis.clock import SystemClock
from predis.state import Database
from predis.valkeys import Clustered
from tests.cache.clusters import Nodes, cluster
from tests.cache.gateways import Raw, Served, gateway, valkey, wait_until
from tests.cache.sources import slow
from tests.cache.test_tls import Authority, tunnel
from tests.installation import free_ports

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@contextlib.contextmanager
def served_by(url: str, *, tls: ssl.SSLContext | None = None) -> Iterator[Served]:
    upstream = upstream_of(url) if tls is None else Cluster(Clustered.of(url), tls=tls)
    with gateway(upstream) as made:
        made.call(lambda: made.gateway.spawn(upstream.follow()))
        yield made


@pytest.fixture(scope="module")
def served(nodes: Nodes) -> Iterator[Served]:
    with served_by(nodes.url) as made:
        yield made


@pytest.fixture
def raw(served: Served) -> Iterator[Raw]:
    made = Raw(served.port)
    made.ask(command(b"FLUSHALL"))
    yield made
    made.close()


def spread(nodes: Nodes) -> list[bytes]:
    """A key at each master."""
    return [nodes.key_at(place) for place in range(3)]


# Which key is where


@given(st.binary(max_size=40))
def test_a_key_with_a_tag_is_where_its_tag_is(tag: bytes) -> None:
    assert 0 <= slot_of(tag) < SLOTS
    if tag and b"}" not in tag:
        assert slot_of(b"{" + tag + b"}x{y}") == slot_of(b"a{" + tag + b"}") == slot_of(b"{" + tag + b"}")
    assert slot_of(b"{}" + tag) == slot_of(b"{}" + tag)


def test_slots_are_valkeys_own(nodes: Nodes) -> None:
    keys = [
        b"123456789",
        b"foo{}{bar}",
        b"foo{{bar}}zap",
        b"foo{bar}{zap}",
        b"{a",
        b"a}",
        b"",
        b"\x00\xff{\r\n}",
        b"}{a}",
    ]
    with redis.Redis(port=nodes.masters[0]) as straight:
        assert [slot_of(key) for key in keys] == [
            straight.execute_command("CLUSTER", "KEYSLOT", key) for key in keys
        ]


def test_what_redirections_say() -> None:
    assert Redirect.of(b"-ASK 1 ::1:6379\r\n") == Redirect(True, 1, "::1", 6379)
    assert Redirect.of(b"-MOVED 1 :6379\r\n") == Redirect(False, 1, "", 6379)


# The same as one Valkey


TAGS = [b"{a}", b"{b}", b"{c}", b"{d}"]
VALUES = [b"", b"1", b"22", b"x" * 100, b"a\r\nb", b"\x00\xff", b"y" * 20_000]


def any_command(rng: random.Random, tag: bytes) -> bytes:
    key, other, value = (tag + b"%d" % rng.randrange(3) for _ in range(2)), b"", rng.choice(VALUES)
    key, other = key
    far = rng.choice(TAGS) + b"1"
    return command(
        *rng.choice(
            [
                (b"SET", key, value), (b"get", key), (b"GET", key), (b"INCR", key), (b"APPEND", key, value), (b"LPUSH", key, value, other),
                (b"LRANGE", key, b"0", b"-1"), (b"HSET", key, b"f", value), (b"HGETALL", key), (b"SADD", key, value), (b"EXPIRE", key, b"1000"),
                (b"TYPE", key), (b"COPY", key, other), (b"MSET", key, value, other, value), (b"ZADD", key, b"1.5", value), (b"GET",),
                (b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"), (b"BLPOP", key, b"0.01"), (b"LMPOP", b"1", key, b"LEFT"), (b"ECHO", value),
                (b"EVAL", b"return {KEYS[1], ARGV[1], redis.call('GET', KEYS[1])}", b"1", key, value), (b"NOSUCH", key), (b"PING",),
                (b"EVAL", b"return redis.error_reply('MY own')", b"0"), (b"OBJECT", b"ENCODING", key), (b"XADD", key, b"1-1", b"f", value),
                (b"MGET", key, far, other, b"none"), (b"DEL", key, far), (b"EXISTS", key, far, far), (b"UNLINK", key), (b"TOUCH", far, key),
                (b"DBSIZE",), (b"CLIENT", b"SETNAME", b"me"), (b"CLIENT", b"GETNAME"), (b"SCRIPT", b"LOAD", b"return 1"), (b"XINFO", b"STREAM", key),
                (b"FLUSHALL",), (b"SCRIPT", b"EXISTS", b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db"), (b"XGROUP", b"CREATE", key, b"g", b"$"),
            ]
        )
    )  # fmt: skip


INSIDE = [(b"SET", b"1"), (b"GET",), (b"INCR",), (b"LPUSH", b"x"), (b"NOSUCH",), (b"GET", b"too", b"many")]


def transaction(rng: random.Random) -> list[bytes]:
    tag = rng.choice(TAGS)
    body = [
        command(name, tag + b"%d" % rng.randrange(3), *rest)
        for name, *rest in rng.choices(INSIDE, k=rng.randrange(4))
    ]
    body += [command(b"PING")] * rng.randrange(2)
    rng.shuffle(body)
    watched = [command(b"WATCH", tag + b"1"), command(b"GET", rng.choice(TAGS) + b"1")] * rng.randrange(2)
    return [*watched, command(b"MULTI"), *body, command(rng.choice([b"EXEC", b"exec", b"DISCARD"]))]


@pytest.mark.parametrize("protocol", [2, 3])
def test_random_pipelines_get_the_same_bytes_as_from_one_valkey(
    served: Served, tmp_path: Path, protocol: int
) -> None:
    rng = random.Random(protocol)
    with valkey(tmp_path / "one") as port:
        clients = [Raw(port), Raw(served.port)]
        for client in clients:
            client.ask(
                command(b"FLUSHALL") + command(b"SCRIPT", b"FLUSH") + command(b"HELLO", b"%d" % protocol), 3
            )
        for _ in range(150):
            sent: list[bytes] = []
            while len(sent) < 15:
                sent += transaction(rng) if rng.random() < 0.2 else [any_command(rng, rng.choice(TAGS))]
            data = b"".join(sent)
            cut = rng.randrange(len(data))
            got = []
            for client in clients:
                client.send(data[:cut])
                client.send(data[cut:])
                got.append(client.replies(len(sent)))
            assert got[0] == got[1], sent
        for client in clients:
            client.close()


def test_a_pipeline_over_all_nodes_is_answered_in_order(raw: Raw) -> None:
    keys = [b"k%d" % number for number in range(2_000)]
    assert raw.ask(b"".join(command(b"SET", key, b"v" + key) for key in keys), len(keys)) == b"+OK\r\n" * len(
        keys
    )
    found = raw.ask(b"".join(command(b"GET", key) for key in keys), len(keys))
    assert found == b"".join(bulk(b"v" + key) for key in keys)


def test_big_values_pass_in_order(raw: Raw, nodes: Nodes) -> None:
    big, small, other = spread(nodes)
    value = random.Random(1).randbytes(6 << 20)
    sent = [command(b"SET", big, value), command(b"SET", small, b"1"), command(b"SET", other, value)]
    assert raw.ask(b"".join(sent), 3) == b"+OK\r\n" * 3
    got = raw.ask(b"".join(command(b"GET", key) for key in (big, small, other, small, big)), 5)
    assert got == bulk(value) + bulk(b"1") + bulk(value) + bulk(b"1") + bulk(value)


def test_who_does_not_read_holds_up_nobody(raw: Raw, served: Served, nodes: Nodes) -> None:
    keys = spread(nodes)
    raw.ask(b"".join(command(b"SET", key, bytes(1 << 20)) for key in keys), 3)
    never = Raw(served.port)
    never.send(b"".join(command(b"GET", key) for key in keys) * 50)
    assert raw.ask(command(b"ECHO", b"x") * 100, 100) == bulk(b"x") * 100
    assert len(never.replies(150)) == 150 * len(bulk(bytes(1 << 20)))
    never.close()


def test_a_command_that_has_no_end_is_not_kept(
    raw: Raw, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_MOST_COMMAND", 1 << 20)
    endless = Raw(served.port)
    with contextlib.suppress(ConnectionError):
        endless.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$%d\r\n" % (16 << 20) + bytes(8 << 20))
    assert endless.rest() == b""
    endless.close()
    assert raw.ask(command(b"PING")) == b"+PONG\r\n"


def test_whole_cluster_commands(served: Served, raw: Raw) -> None:
    with redis.Redis(port=served.port, decode_responses=True) as client:
        names = {f"key:{number}" for number in range(300)}
        for name in names:
            client.set(name, 1)
        assert client.dbsize() == 300
        assert set(client.keys("key:*")) == names
        assert sorted(client.scan_iter(count=20)) == sorted(names)
        sha = client.script_load("return redis.call('GET', KEYS[1])")
        assert {client.evalsha(sha, 1, name) for name in names} == {"1"}
        assert client.script_exists(sha, "0" * 40) == [True, False]
        assert client.unlink(*names, "none") == 300
        assert client.scan(0) == (0, []) or client.dbsize() == 0
        client.script_flush()
        assert client.script_exists(sha) == [False]
        with pytest.raises(redis.ResponseError, match="hash to the same slot"):
            client.mset({"key:1": 1, "key:2": 2})


def test_what_is_said_of_the_connection_is_said_to_all_nodes(served: Served, raw: Raw, nodes: Nodes) -> None:
    def named(*, key: bytes = b"") -> list[bytes]:
        """What each node, or that of the key, knows as the connection's name."""
        found = []
        for each in [key] if key else spread(nodes):
            sent = [
                command(b"MULTI"),
                command(b"GET", each),
                command(b"CLIENT", b"GETNAME"),
                command(b"EXEC"),
            ]
            found.append(items(raw.ask(b"".join(sent), 4).rpartition(b"+QUEUED\r\n")[2])[1])
        return found

    assert named(key=spread(nodes)[0]) == [b"$-1\r\n"]
    assert raw.ask(command(b"CLIENT", b"SETNAME", b"me")) == b"+OK\r\n"
    assert named() == [bulk(b"me")] * 3
    assert raw.ask(command(b"HELLO", b"3", b"SETNAME", b"you")).startswith(b"%")
    assert named() == [bulk(b"you")] * 3
    assert raw.ask(command(b"RESET")) == b"+RESET\r\n"
    assert named() == [b"$-1\r\n"] * 3
    assert raw.ask(command(b"SELECT", b"99")).startswith(b"-ERR")
    assert raw.ask(command(b"AUTH", b"nobody", b"x")).startswith(b"-WRONGPASS")
    assert named() == [b"$-1\r\n"] * 3


def test_replies_that_are_switched_off(raw: Raw, nodes: Nodes) -> None:
    keys = spread(nodes)
    sent = [
        command(b"SET", keys[0], b"1"), command(b"CLIENT", b"REPLY", b"SKIP"), command(b"GET", keys[1]), command(b"GET", keys[0]),
        command(b"CLIENT", b"REPLY", b"OFF"), command(b"GET", keys[1]), command(b"SET", keys[2], b"2"),
        command(b"CLIENT", b"REPLY", b"ON"), command(b"GET", keys[2]),
    ]  # fmt: skip
    assert raw.ask(b"".join(sent), 4) == b"+OK\r\n$1\r\n1\r\n+OK\r\n$1\r\n2\r\n"


def test_who_closes_after_sending_is_answered(served: Served, nodes: Nodes) -> None:
    client = Raw(served.port)
    client.send(
        b"".join(command(b"ECHO", key) + command(b"EXISTS", key) for key in spread(nodes)) + b"QUIT\r\n"
    )
    client.socket.shutdown(socket.SHUT_WR)
    assert client.rest().endswith(b"+OK\r\n")
    client.close()
    blocked = Raw(served.port)
    blocked.send(command(b"ECHO", b"x") + command(b"BLPOP", b"none", b"0"))
    blocked.socket.shutdown(socket.SHUT_WR)
    assert blocked.rest() == bulk(b"x")
    blocked.close()


def test_a_command_that_blocks_holds_up_only_what_follows(served: Served, raw: Raw, nodes: Nodes) -> None:
    key, *others = spread(nodes)
    waiting = Raw(served.port)
    waiting.send(command(b"SET", others[0], b"0") + command(b"BLPOP", key, b"0") + command(b"GET", others[1]))
    assert waiting.replies(1) == b"+OK\r\n"
    raw.ask(command(b"SET", others[1], b"before") + command(b"RPUSH", key, b"x"), 2)
    assert waiting.replies(2) == b"*2\r\n" + bulk(key) + bulk(b"x") + bulk(b"before")
    waiting.close()


# Transactions


def test_a_transaction_is_of_one_slot(raw: Raw, nodes: Nodes) -> None:
    one, two, _ = spread(nodes)
    asked = [
        raw.ask(each)
        for each in (command(b"MULTI"), command(b"PING"), command(b"SET", one, b"1"), command(b"EXEC"))
    ]
    assert asked == [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n", b"*2\r\n+PONG\r\n+OK\r\n"]
    asked = [
        raw.ask(each)
        for each in (
            command(b"MULTI"),
            command(b"SET", one, b"2"),
            command(b"SET", two, b"2"),
            command(b"EXEC"),
        )
    ]
    assert asked[2].startswith(b"-CROSSSLOT")
    assert asked[3].startswith(b"-EXECABORT")
    for forbidden in (
        command(b"FLUSHALL"),
        command(b"SELECT", b"0"),
        command(b"CLIENT", b"REPLY", b"OFF"),
        command(b"SCAN", b"0"),
    ):
        got = raw.ask(command(b"MULTI") + forbidden + command(b"EXEC"), 3)
        assert b"cannot be part of a transaction" in got
        assert b"-EXECABORT" in got
    assert raw.ask(command(b"GET", one) + command(b"EXEC"), 2) == bulk(b"1") + b"-ERR EXEC without MULTI\r\n"


def test_watch(raw: Raw, served: Served, nodes: Nodes) -> None:
    key, two, _ = spread(nodes)
    other = Raw(served.port)
    assert raw.ask(command(b"WATCH", key) + command(b"MULTI") + command(b"SET", key, b"mine"), 3).endswith(
        b"+QUEUED\r\n"
    )
    other.ask(command(b"SET", key, b"theirs"))
    assert raw.ask(command(b"EXEC") + command(b"GET", key), 2) == b"*-1\r\n" + bulk(b"theirs")
    assert raw.ask(command(b"WATCH", key) + command(b"WATCH", two), 2).startswith(b"+OK\r\n-CROSSSLOT")
    assert raw.ask(command(b"UNWATCH") + command(b"WATCH", two), 2) == b"+OK\r\n+OK\r\n"
    other.close()


# Slots that move


def test_nothing_is_lost_or_out_of_order_while_slots_move(served: Served, raw: Raw, nodes: Nodes) -> None:
    keys = spread(nodes)
    slot, home = slot_of(keys[0]), nodes.masters[0]
    tag = keys[0]
    counters = [b"{%b}%d" % (tag, number) for number in range(5)] + keys[1:]
    stop, failures, done = threading.Event(), [], [0, 0, 0]

    def work(number: int) -> None:
        client, rng, lists = (
            Raw(served.port),
            random.Random(number),
            [b"%b:of%d" % (key, number) for key in (b"{%b}" % tag, keys[1])],
        )
        client.ask(command(b"DEL", *lists))
        while not stop.is_set():
            sent = []
            for _ in range(20):
                sent.append(command(b"INCR", rng.choice(counters)))
                sent += [command(b"RPUSH", name, b"%d" % done[number]) for name in lists]
                sent += [
                    command(b"MULTI"),
                    command(b"INCR", counters[0]),
                    command(b"DECR", counters[0]),
                    command(b"EXEC"),
                ]
                done[number] += 1
            got = client.ask(b"".join(sent), len(sent))
            if b"-" in got or got.count(b"+QUEUED") != 40:
                failures.append(got)
        for name in lists:
            expected = b"".join(bulk(b"%d" % each) for each in range(done[number]))
            if not client.ask(command(b"LRANGE", name, b"0", b"-1")).endswith(b"\r\n" + expected):
                failures.append(name)
        client.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    with redis.Redis(port=served.port) as watcher:
        before = watcher.dbsize()
        for _ in range(4):
            for port, other in ((home, nodes.masters[1]), (nodes.masters[1], home)):
                count = sum(done)
                wait_until(lambda count=count: sum(done) > count + 50 or failures)  # type: ignore[misc]
                nodes.give(slot, port, other)
        assert before >= 0
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0][:500]
    total = sum(int(raw.ask(command(b"GET", name)).split(b"\r\n")[1]) for name in counters)
    assert total == sum(done)


def test_a_slot_that_is_moving(served: Served, raw: Raw, nodes: Nodes) -> None:
    tag = spread(nodes)[0]
    here, gone = b"{%b}here" % tag, b"{%b}gone" % tag
    slot, before, after = slot_of(tag), nodes.masters[0], nodes.masters[2]
    raw.ask(command(b"SET", here, b"1"))
    nodes.begin_to_give(slot, before, after)
    try:
        sent = [
            command(b"GET", here),
            command(b"SET", gone, b"2"),
            command(b"GET", gone),
            command(b"INCR", gone),
            command(b"GET", here),
        ]
        assert raw.ask(b"".join(sent), 5) == bulk(b"1") + b"+OK\r\n" + bulk(b"2") + b":3\r\n" + bulk(b"1")
        pieces = [command(b"MULTI"), command(b"INCR", gone), command(b"GET", gone), command(b"EXEC")]
        assert [raw.ask(piece) for piece in pieces][-1] == b"*2\r\n:4\r\n" + bulk(b"4")
        assert raw.ask(b"".join(pieces), 4).endswith(b"*2\r\n:5\r\n" + bulk(b"5"))
        assert raw.ask(command(b"MGET", here, gone)).startswith(b"-TRYAGAIN")
        assert raw.ask(
            command(b"WATCH", gone) + command(b"MULTI") + command(b"INCR", gone) + command(b"EXEC"), 4
        ).endswith(b"*-1\r\n")
        with redis.Redis(port=after) as target, redis.Redis(port=before) as source:
            source.execute_command("MIGRATE", "127.0.0.1", after, here, 0, 5000)
            assert target.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == 2
        assert raw.ask(command(b"MGET", here, gone)) == b"*2\r\n" + bulk(b"1") + bulk(b"5")
    finally:
        nodes.end_giving(slot, after)
    assert raw.ask(command(b"MGET", here, gone)) == b"*2\r\n" + bulk(b"1") + bulk(b"5")
    watch, *rest = [command(b"WATCH", here), command(b"MULTI"), command(b"INCR", here), command(b"EXEC")]
    assert raw.ask(b"".join((watch, *rest)), 4).endswith(b"*1\r\n:2\r\n")
    assert raw.ask(watch) == b"+OK\r\n"
    nodes.give(slot, after, before)
    assert raw.ask(b"".join(rest), 3).endswith(b"*-1\r\n")  # as if somebody had written it
    assert raw.ask(b"".join((watch, *rest)), 4).endswith(b"*1\r\n:3\r\n")


def test_what_is_sent_elsewhere_does_not_wait_for_what_blocks(served: Served, raw: Raw, nodes: Nodes) -> None:
    key, other, _ = spread(nodes)
    raw.ask(command(b"SET", key, b"1"))
    client = Raw(served.port)
    client.ask(command(b"EXISTS", key, other))
    nodes.give(slot_of(key), nodes.masters[0], nodes.masters[2])
    client.send(command(b"GET", key) + command(b"BLPOP", other, b"0") + command(b"GET", key))
    assert client.replies(1) == bulk(b"1")
    raw.ask(command(b"RPUSH", other, b"x"))
    assert client.replies(2) == b"*2\r\n" + bulk(other) + bulk(b"x") + bulk(b"1")
    nodes.give(slot_of(key), nodes.masters[2], nodes.masters[0])
    client.close()


# Publish and subscribe, tracking


def test_subscribers_in_resp2_and_afterwards(served: Served, raw: Raw, nodes: Nodes) -> None:
    key, other, _ = spread(nodes)
    client = Raw(served.port)
    assert (
        client.ask(command(b"SUBSCRIBE", b"a", b"b") + command(b"PSUBSCRIBE", b"p*"), 3).count(b"subscribe")
        == 3
    )
    nodes.give(slot_of(key), nodes.masters[0], nodes.masters[1])
    assert client.ask(command(b"SSUBSCRIBE", key)).startswith(b"*3\r\n$10\r\nssubscribe")
    nodes.give(slot_of(key), nodes.masters[1], nodes.masters[0])
    assert b"sunsubscribe" in client.replies(1)
    assert client.ask(command(b"SSUBSCRIBE", key)).startswith(b"*3\r\n$10\r\nssubscribe")
    raw.send(
        command(b"PUBLISH", b"a", b"one")
        + command(b"PUBLISH", b"px", b"two")
        + command(b"SPUBLISH", key, b"three")
    )
    got = client.replies(3)
    assert all(word in got for word in (b"one", b"two", b"three"))
    assert client.ask(command(b"GET", key)).startswith(b"-ERR Can't execute 'get'")
    assert client.ask(command(b"PING")).startswith(b"*2\r\n$4\r\npong")
    leave = [command(b"UNSUBSCRIBE"), command(b"SUNSUBSCRIBE", key), command(b"PUNSUBSCRIBE")]
    reads = [
        command(b"SET", key, b"1"),
        command(b"SET", other, b"2"),
        command(b"GET", key),
        command(b"GET", other),
    ]
    got = client.ask(b"".join(leave + reads), 8)
    assert got.count(b"unsubscribe") == 4
    assert got.endswith(b"+OK\r\n+OK\r\n" + bulk(b"1") + bulk(b"2"))
    assert client.ask(command(b"SUBSCRIBE", b"a")).startswith(b"*3")
    assert client.ask(command(b"RESET")) == b"+RESET\r\n"
    assert client.ask(command(b"GET", other) + command(b"GET", key), 2) == bulk(b"2") + bulk(b"1")
    client.close()


def test_subscribers_in_resp3_go_on_as_before(served: Served, raw: Raw, nodes: Nodes) -> None:
    key, other, _ = spread(nodes)
    client = Raw(served.port)
    raw.ask(command(b"SET", key, b"1") + command(b"SET", other, b"2"), 2)
    sent = [
        command(b"HELLO", b"3"),
        command(b"GET", other),
        command(b"SUBSCRIBE", b"a", b"b"),
        command(b"SUBSCRIBE"),
        command(b"GET", key),
    ]
    got = client.ask(b"".join(sent), 4)
    assert got.count(b">3\r\n$9\r\nsubscribe") == 2
    assert got.endswith(bulk(b"1"))
    assert b"-ERR wrong number of arguments for 'subscribe'" in got
    raw.ask(command(b"PUBLISH", b"a", b"news"))
    while b"news" not in got:
        got += client.socket.recv(4096)
    assert client.ask(command(b"UNSUBSCRIBE") + command(b"GET", other), 1).endswith(bulk(b"2"))
    client.close()


def test_invalidations_come_from_all_nodes_behind_what_they_invalidate(
    served: Served, raw: Raw, nodes: Nodes
) -> None:
    keys = spread(nodes)
    client = Raw(served.port)
    client.ask(command(b"HELLO", b"3") + command(b"GET", keys[0]) + command(b"CLIENT", b"TRACKING", b"ON"), 3)
    client.ask(b"".join(command(b"GET", key) for key in keys), 3)
    raw.ask(b"".join(command(b"SET", key, b"1") for key in keys), 3)
    got = b""
    while got.count(b"invalidate") < 3:
        got += client.socket.recv(4096)
    assert all(bulk(key) in got for key in keys)
    # Its own write at one node, behind a reply that is long in coming from another.
    sent = [
        command(b"CLIENT", b"TRACKING", b"OFF"),
        command(b"CLIENT", b"TRACKING", b"ON", b"OPTIN"),
        command(b"CLIENT", b"CACHING", b"YES"),
    ]
    sent += [command(b"GET", keys[1]), command(b"GET", keys[2])]
    assert client.ask(b"".join(sent), 5) == b"+OK\r\n" * 3 + bulk(b"1") * 2
    raw.ask(command(b"SET", keys[2], b"2") + command(b"SET", keys[1], b"2"), 2)
    got = client.ask(command(b"PING"))
    assert got.count(b"invalidate") == 1
    assert bulk(keys[1]) in got
    assert b"REDIRECT" in client.ask(command(b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", b"1"))
    client.close()


# The gateway's own connections


def test_the_gateways_own_commands(nodes: Nodes) -> None:
    async def story() -> None:
        upstream = Cluster(Clustered.of(nodes.url))
        following = asyncio.create_task(upstream.follow())
        link = Link(upstream, connections=1)
        keys = [b"own:%d" % number for number in range(200)]
        assert await link.ask([("SET", key, key) for key in keys]) == [b"OK"] * 200
        assert await link.ask([("GET", key) for key in keys]) == keys
        (commands,) = await link.ask([("COMMAND",)])
        assert len(commands) > 200
        await link.close()
        following.cancel()

    slow.run(story())


def test_a_source_is_loaded_once_by_two_gateways(
    nodes: Nodes, state: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases and markers are in the slot of their key, whichever node that is at."""
    found = slow.Function(lambda batch: [{"id": each["id"]} if each["id"] < 100 else None for each in batch])
    monkeypatch.setattr(slow, "USERS", found)
    slow.declare(
        state,
        "users",
        pattern="user:{id:int}",
        kind="python",
        function="tests.cache.sources.slow:users",
        negative_ttl_s=60,
    )
    names = [f"user:{number}" for number in range(30)]

    async def reads(made: Served) -> tuple[Supply, Link]:
        upstream = made.gateway.upstream
        supply = Supply(
            state,
            Declarations(state, SystemClock(), allow_code=True),
            link=Link(upstream),
            clock=SystemClock(),
        )  # type: ignore[arg-type]
        await supply.start()
        aside = Link(upstream)  # type: ignore[arg-type]
        made.gateway.read_through(supply.reader, supply.writer, aside=aside)
        return supply, aside

    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(served_by(nodes.url)) for _ in range(2)]
        clients = [redis.Redis(port=made.port) for made in both]
        for client in clients:
            client.flushall()
        supplies = [made.do(reads(made)) for made in both]
        wait_until(lambda: all(made.call(made.gateway.stats)["sources"] for made in both))
        wait_until(lambda: clients[0].get("user:99") and clients[1].get("user:98"))  # its commands are known
        found.calls.clear()
        found.hold()
        answers: list[list[bytes]] = []
        asking = [threading.Thread(target=lambda one=one: answers.append(one.mget(names))) for one in clients]
        for thread in asking:
            thread.start()
        found.entered.wait(slow.PATIENCE_S)
        found.open.set()
        for thread in asking:
            thread.join()
        assert answers == [[b'{"id":%d}' % number for number in range(30)]] * 2
        assert sorted(each["id"] for batch in found.calls for each in batch) == [*range(30)]
        assert clients[0].get("user:500") is None
        assert clients[1].get("user:500") is None
        assert sum(each["id"] == 500 for batch in found.calls for each in batch) == 1
        clients[0].delete("user:500", *names)  # of many slots: so are the markers that go with it
        assert clients[1].get("user:500") is None
        assert sum(each["id"] == 500 for batch in found.calls for each in batch) == 2
        for client in clients:
            client.close()
        for made, (supply, aside) in zip(both, supplies, strict=True):
            made.do(supply.close())
            made.do(aside.close())


def test_api_keys_are_users_of_every_node(
    served: Served, nodes: Nodes, state: Database, tmp_path: Path
) -> None:
    keys = Keys(state, SystemClock(), refresh_s=math.inf)

    with served_by(nodes.url) as made:

        async def wire() -> Link:
            link = Link(made.gateway.upstream)  # type: ignore[arg-type]
            door = Door(keys, link, patterns=lambda _tenant: [], secret=tmp_path / "secret")
            shown.append(keys.create("w", role="client", tenant="acme"))
            await door.look()
            made.gateway.guard(door)
            return link

        shown: list[str] = []
        link = made.do(wire())
        client = Raw(made.port)
        assert client.ask(command(b"SET", b"acme:1", b"1")).startswith(b"-NOAUTH")
        assert client.ask(command(b"AUTH", shown[0].encode())) == b"+OK\r\n"
        mine = [b"acme:%d" % number for number in range(50)]
        assert client.ask(b"".join(command(b"SET", key, b"1") for key in mine), 50) == b"+OK\r\n" * 50
        others = b"".join(command(b"GET", b"other:%d" % number) for number in range(50))
        assert client.ask(others, 50).count(b"-NOPERM") == 50
        client.close()
        made.do(link.close())


# Loss


def test_a_node_that_dies_takes_its_clients_with_it_and_its_slots(tmp_path: Path) -> None:
    with cluster(tmp_path, "--cluster-require-full-coverage", "no") as nodes, served_by(nodes.url) as made:
        keys = spread(nodes)
        sets = b"".join(command(b"SET", key, b"1") for key in keys)
        client = Raw(made.port)
        assert client.ask(sets, 3) == b"+OK\r\n" * 3
        nodes.kill(nodes.masters[2])
        assert client.rest() == b""
        client.close()
        again = Raw(made.port)
        assert again.ask(command(b"GET", keys[0]) + command(b"GET", keys[1]), 2) == bulk(b"1") * 2
        assert again.ask(command(b"GET", keys[2]) + command(b"GET", keys[0]), 2).startswith(
            (b"-LOADING Valkey at", b"-CLUSTERDOWN")
        )
        assert again.ask(command(b"GET", keys[0])) == bulk(b"1")
        again.close()


def test_a_replica_takes_over(tmp_path: Path) -> None:
    with (
        cluster(tmp_path, "--cluster-node-timeout", "1000", replicas=1) as nodes,
        served_by(nodes.url) as made,
    ):
        key = nodes.key_at(0)
        client = Raw(made.port)
        assert client.ask(command(b"SET", key, b"1")) == b"+OK\r\n"
        with redis.Redis(port=nodes.replicas[0]) as replica:
            wait_until(replica.dbsize)
        nodes.kill(nodes.masters[0])
        client.rest()
        client.close()

        def is_back() -> bool:
            with contextlib.suppress(OSError, AssertionError):
                late = Raw(made.port)
                try:
                    return late.ask(command(b"GET", key)) == bulk(b"1")
                finally:
                    late.close()
            return False

        wait_until(is_back)


def test_nobody_there_and_a_wrong_password(nodes: Nodes) -> None:
    for url, said in (
        ("redis+cluster://127.0.0.1:1", b"-LOADING Valkey"),
        (nodes.url.replace("//", "//nobody:wrong@"), b"-LOADING Valkey"),
    ):
        with served_by(url) as made:
            client = Raw(made.port)
            client.send(command(b"PING"))
            assert client.rest().startswith(said)
            client.close()


def test_nodes_behind_tls(served: Served, tmp_path: Path) -> None:
    ours = Authority.make(tmp_path / "ours")
    (bus,) = free_ports(1)
    cluster_of_one = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
    with valkey(tmp_path / "one", *cluster_of_one) as port, tunnel(served, port, ours) as secured:
        with redis.Redis(port=port) as straight:
            straight.config_set("cluster-announce-port", secured)
            straight.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
            wait_until(lambda: b"cluster_state:ok" in straight.execute_command("CLUSTER", "INFO"))
        trusting = ssl.create_default_context(cafile=str(ours.file))
        with served_by(f"rediss+cluster://127.0.0.1:{secured}", tls=trusting) as made:
            client, big = Raw(made.port), b"x" * 500_000
            got = client.ask(command(b"SET", b"tls", big) + command(b"GET", b"tls"), 2)
            assert got == b"+OK\r\n" + bulk(big)
            client.close()


@pytest.fixture
def state(database_url: object) -> Iterator[Database]:
    found = Database(database_url("sqlite", True))  # type: ignore[operator]
    yield found
    found.close()
