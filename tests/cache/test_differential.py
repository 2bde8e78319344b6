"""The gateway against a Valkey without one: the same commands, the same bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from predis.cache.resp import command
from tests.cache.gateways import Raw, Served, gateway, valkey

KEYS = [b"k%d" % number for number in range(8)]
VALUES = [b"", b"1", b"22", b"x" * 100, b"a\r\nb", b"\x00\xff", b"y" * 20_000]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Served]]:
    """A Valkey, and a gateway in front of another that is just like it."""
    with (
        valkey(tmp_path_factory.mktemp("a")) as straight,
        valkey(tmp_path_factory.mktemp("b")) as behind,
        gateway(behind) as served,
    ):
        yield straight, served


def any_command(rng: random.Random) -> bytes:
    key, other, value = rng.choice(KEYS), rng.choice(KEYS), rng.choice(VALUES)
    number = b"%d" % rng.randrange(-3, 5)
    made = rng.choice(
        [
            (b"SET", key, value), (b"get", key), (b"GET", key), (b"MGET", key, other, b"none"), (b"MSET", key, value, other, value),
            (b"DEL", key), (b"INCR", key), (b"APPEND", key, value), (b"STRLEN", key), (b"GETRANGE", key, number, b"-1"),
            (b"LPUSH", key, value, other), (b"LRANGE", key, b"0", b"-1"), (b"HSET", key, b"f", value), (b"HGETALL", key),
            (b"SADD", key, value), (b"SCARD", key), (b"ZADD", key, b"1.5", value), (b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"),
            (b"EXPIRE", key, b"1000"), (b"TYPE", key), (b"EXISTS", key, other), (b"SETRANGE", key, number, value),
            (b"EVAL", b"return {KEYS[1], ARGV[1], redis.call('GET', KEYS[1])}", b"1", key, value),
            (b"EVAL", b"return redis.error_reply('MY own')", b"0"), (b"NOSUCH", key), (b"GET",), (b"SELECT", b"99"), (b"PING",), (b"ECHO", value),
            (b"BLPOP", key, b"0.01"), (b"CLIENT", b"GETNAME"), (b"DEBUG", b"NOPE"), (b"OBJECT", b"ENCODING", key), (b"COPY", key, other),
            (b"CLIENT", b"REPLY", b"ON"), (b"LMPOP", b"1", key, b"LEFT"), (b"SORT", key, b"ALPHA"), (b"XADD", key, b"1-1", b"f", value),
        ]
    )  # fmt: skip
    return command(*made)


def transaction(rng: random.Random) -> list[bytes]:
    body = [any_command(rng) for _ in range(rng.randrange(4))]
    return [command(b"MULTI"), *body, command(rng.choice([b"EXEC", b"exec", b"DISCARD"]))]


def batch(rng: random.Random) -> list[bytes]:
    sent: list[bytes] = []
    while len(sent) < 12:
        sent += transaction(rng) if rng.random() < 0.2 else [any_command(rng)]
    return sent


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_random_pipelines_get_the_same_bytes(pair: tuple[int, Served], protocol: int, seed: int) -> None:
    straight, served = pair
    rng = random.Random(seed)
    clients = [Raw(straight), Raw(served.port)]
    try:
        for client in clients:
            client.ask(command(b"FLUSHALL") + command(b"HELLO", b"%d" % protocol), 2)
        for _ in range(40):
            sent = batch(rng)
            data = b"".join(sent)
            cut = rng.randrange(len(data))
            got = []
            for client in clients:
                client.send(data[:cut])
                client.send(data[cut:])
                got.append(client.replies(len(sent)))
            assert got[0] == got[1], sent
    finally:
        for client in clients:
            client.close()


def both(pair: tuple[int, Served], data: bytes, count: int) -> list[bytes]:
    found = []
    for port in (pair[0], pair[1].port):
        client = Raw(port)
        found.append(client.ask(data, count))
        client.close()
    return found


def test_subscribers_get_the_same(pair: tuple[int, Served]) -> None:
    for hello in (b"", command(b"HELLO", b"3")):
        found = []
        for port in (pair[0], pair[1].port):
            client, other = Raw(port), Raw(port)
            if hello:
                client.ask(hello)
            client.send(command(b"SUBSCRIBE", b"a", b"b") + command(b"PSUBSCRIBE", b"p*"))
            got = b""
            while got.count(b"ubscribe") < 3 or b":3" not in got:
                got += client.socket.recv(4096)
            assert (
                other.ask(command(b"PUBLISH", b"a", b"one") + command(b"PUBLISH", b"px", b"two"), 2)
                == b":1\r\n:1\r\n"
            )
            while b"two" not in got:
                got += client.socket.recv(4096)
            client.send(command(b"UNSUBSCRIBE", b"a") + command(b"PING", b"last"))
            while b"last\r\n" not in got:
                got += client.socket.recv(4096)
            found.append(got)
            client.close()
            other.close()
        assert found[0] == found[1]


def test_replies_that_are_switched_off(pair: tuple[int, Served]) -> None:
    off = b"".join(
        [
            command(b"SET", b"a", b"1"),
            command(b"CLIENT", b"REPLY", b"SKIP"),
            command(b"GET", b"a"),
            command(b"GET", b"a"),
            command(b"CLIENT", b"REPLY", b"OFF"),
            command(b"GET", b"a"),
            command(b"SET", b"a", b"2"),
            command(b"CLIENT", b"REPLY", b"ON"),
            command(b"GET", b"a"),
        ]
    )
    straight, through = both(pair, off, 4)
    assert straight == through == b"+OK\r\n$1\r\n1\r\n+OK\r\n$1\r\n2\r\n"


def test_big_replies_and_big_commands(pair: tuple[int, Served]) -> None:
    big = random.Random(1).randbytes(5 << 20)
    straight, through = both(
        pair,
        command(b"SET", b"big", big) + command(b"GET", b"big") + command(b"MGET", b"big", b"big", b"no"),
        3,
    )
    assert straight == through
    assert len(through) > 15 << 20


@pytest.mark.parametrize(
    "data",
    [
        b"*1\r\n:3\r\n", b"PING\r\n*x\r\n", b"*1\r\n$999999999999\r\n", b"*2\r\n$3\r\nGET\r\n$-7\r\n", b'set "a\r\n',
        b"x" * 70_000, b"*" + b"1" * 70_000, b"*1\r\n$" + b"1" * 70_000,
    ],
)  # fmt: skip
def test_bad_input_gets_the_same_words_and_an_end(pair: tuple[int, Served], data: bytes) -> None:
    found = []
    for port in (pair[0], pair[1].port):
        client = Raw(port)
        client.send(data)
        found.append(client.rest())
        client.close()
    assert found[0] == found[1]
    assert b"-ERR Protocol error" in found[1]


def test_who_closes_after_sending_is_answered(pair: tuple[int, Served]) -> None:
    import socket

    client = Raw(pair[1].port)
    client.send(b"PING\r\nECHO hello\r\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.rest() == b"+PONG\r\n$5\r\nhello\r\n"
    client.close()


def test_the_gateway_answers_for_itself_in_order(pair: tuple[int, Served]) -> None:
    client = Raw(pair[1].port)
    sent = (
        command(b"SET", b"a", b"1")
        + command(b"PREDIS", b"PING")
        + command(b"GET", b"a")
        + command(b"predis", b"what")
    )
    assert client.ask(sent, 4).startswith(b"+OK\r\n+PONG\r\n$1\r\n1\r\n-ERR PREDIS knows")
    client.close()


def test_monitor_is_passed_on(pair: tuple[int, Served], tmp_path: Path) -> None:
    client, other = Raw(pair[1].port), Raw(pair[1].port)
    assert client.ask(command(b"MONITOR")) == b"+OK\r\n"
    other.ask(command(b"ECHO", b"seen"))
    got = b""
    while b"seen" not in got:
        got += client.socket.recv(4096)
    client.close()
    other.close()
