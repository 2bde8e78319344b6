"""The gateway against a Valkey without one: the same commands, the same bytes."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator

import pytest

from predis.cache.resp import bulk, command
from tests.cache.gateways import Raw, Served, gateway, valkey, wait_until

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
        b"x" * 70_000, b"*" + b"1" * 70_000, b"*1\r\n$" + b"1" * 70_000, b"*2147483648\r\n", b"*1\r\n$536870913\r\n", b"*1\r\n$ 4\r\nPING\r\n",
        b"*1\r\n$04\r\nPING\r\n", b"*1\r\n$4\r\nPING\r\nxx'\r\n", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\nb\r\n", b"GET 'a''b\r\n",
        b"*1\r$4\r\nPING\r\n", b"*1\r\n$4\r\nPINGxx*1\r\n", b"*+1\r\n$4\r\nPING\r\n", b"\x16\x03\x01" * 23_000,
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


def test_a_reply_of_its_own_is_skipped_like_any(pair: tuple[int, Served]) -> None:
    client = Raw(pair[1].port)
    skip = command(b"CLIENT", b"REPLY", b"SKIP")
    sent = (
        skip
        + command(b"PREDIS", b"PING")
        + command(b"ECHO", b"one")
        + command(b"PREDIS", b"PING")
        + command(b"ECHO", b"two")
    )
    assert client.ask(sent, 3) == bulk(b"one") + b"+PONG\r\n" + bulk(b"two")
    client.close()


def test_monitor_is_passed_on(pair: tuple[int, Served]) -> None:
    client, other = Raw(pair[1].port), Raw(pair[1].port)
    assert client.ask(command(b"MONITOR")) == b"+OK\r\n"
    other.ask(command(b"ECHO", b"seen"))
    got = b""
    while b"seen" not in got:
        got += client.socket.recv(4096)
    client.close()
    other.close()


@pytest.mark.parametrize(
    "data",
    [
        b"PING\r\n", b"ping\nPING\n", b"\r\n\r\nPING\r\n", b"  ECHO  'a b'  \r\n", b'ECHO "\\x41\\n\\"b"\r\n', b"ECHO 'it\\'s'\r\n", b"ECHO ''\r\n",
        b"NOSUCH a\r\n", b"*0\r\n*-1\r\nPING\r\n", b"SET k 1\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nGET k\n", b"GET / HTTP\r\n",
        b"ECHO a'b'\"c\"\r\n", b"ECHO a\vb\r\n", b"$4\r\nPING\r\n", b"*-5\r\nPING\r\n", b"*1\r\n$0\r\n\r\n", b"PING\rPING\r\n",
    ],
)  # fmt: skip
def test_inline_and_odd_commands(pair: tuple[int, Served], data: bytes) -> None:
    last = command(b"ECHO", b"the end")
    found = []
    for port in (pair[0], pair[1].port):
        client, got = Raw(port), b""
        client.send(data + last)
        while not got.endswith(b"the end\r\n"):
            got += client.socket.recv(1 << 16)
        found.append(got)
        client.close()
    assert found[0] == found[1]


def test_who_speaks_http_is_cut_as_valkey_cuts(pair: tuple[int, Served]) -> None:
    for port in (pair[0], pair[1].port):
        client = Raw(port)
        client.send(b"POST / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert b"+PONG" not in client.rest()
        client.close()


# What two clients do in turn: who, and what they send. A reply is awaited for each command; pushes come where they come.
Story = list[tuple[int, bytes]]
_RESP3 = command(b"HELLO", b"3")
_SCRIPT = b"redis.call('SET', KEYS[1], ARGV[1]); return {KEYS[1], redis.call('GET', KEYS[1]), 3.7, false, {ok = 'fine'}}"
_SHA = b"5" * 40
_LIBRARY = (
    b"#!lua name=mine\nredis.register_function('twice', function(keys, args) return args[1] .. args[1] end)"
)
STORIES: dict[str, Story] = {
    "watched and untouched": [
        (0, command(b"SET", b"w", b"1")), (0, command(b"WATCH", b"w")), (1, command(b"GET", b"w")), (0, command(b"MULTI")),
        (0, command(b"INCR", b"w")), (0, command(b"INCR", b"w")), (1, command(b"GET", b"w")), (0, command(b"EXEC")), (1, command(b"GET", b"w")),
    ],
    "watched and touched": [
        (0, command(b"SET", b"w", b"1")), (0, command(b"WATCH", b"w")), (1, command(b"SET", b"w", b"2")), (0, command(b"MULTI")),
        (0, command(b"INCR", b"w")), (0, command(b"EXEC")), (0, command(b"GET", b"w")),
    ],
    "a transaction with an error": [
        (0, command(b"MULTI")), (0, command(b"NOSUCH")), (0, command(b"SET", b"w", b"9")), (0, command(b"EXEC")), (0, command(b"EXEC")),
        (0, command(b"MULTI")), (0, command(b"MULTI")), (0, command(b"WATCH", b"w")), (0, command(b"DISCARD")), (0, command(b"DISCARD")),
    ],
    "each has its database, name and transaction": [
        (0, command(b"SELECT", b"3")), (0, command(b"SET", b"mine", b"1")), (1, command(b"GET", b"mine")), (0, command(b"CLIENT", b"SETNAME", b"me")),
        (1, command(b"CLIENT", b"GETNAME")), (0, command(b"MULTI")), (0, command(b"SET", b"mine", b"2")), (1, command(b"SET", b"mine", b"3")),
        (0, command(b"EXEC")), (0, command(b"GET", b"mine")), (1, command(b"GET", b"mine")), (0, command(b"RESET")), (0, command(b"GET", b"mine")),
        (0, command(b"CLIENT", b"GETNAME")),
    ],
    "scripts": [
        (0, command(b"EVALSHA", _SHA, b"0")), (0, command(b"SCRIPT", b"LOAD", b"return 1")),
        (0, command(b"EVALSHA", b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db", b"0")), (1, command(b"SCRIPT", b"EXISTS", b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db", _SHA)),
        (0, command(b"EVAL", _SCRIPT, b"1", b"scripted", b"value")), (1, command(b"GET", b"scripted")), (1, _RESP3),
        (1, command(b"EVAL", _SCRIPT, b"1", b"scripted", b"x" * 100_000)), (1, command(b"EVAL_RO", b"return redis.call('GET', KEYS[1])", b"1", b"scripted")),
        (0, command(b"EVAL", b"return redis.call('NOSUCH')", b"0")), (0, command(b"EVAL", b"this is no Lua", b"0")),
        (0, command(b"FUNCTION", b"LOAD", b"REPLACE", _LIBRARY)), (1, command(b"FCALL", b"twice", b"0", b"ab")), (1, command(b"FCALL", b"no", b"0")),
    ],
    "tracking of what was read": [
        (0, _RESP3), (0, command(b"CLIENT", b"TRACKING", b"ON")), (0, command(b"MGET", b"t1", b"t2")), (1, command(b"SET", b"t1", b"1")),
        (1, command(b"SET", b"other", b"1")), (0, command(b"PING")), (1, command(b"FLUSHDB")), (0, command(b"PING")),
        (0, command(b"CLIENT", b"TRACKING", b"OFF")), (0, command(b"GET", b"t2")), (1, command(b"SET", b"t2", b"1")), (0, command(b"PING")),
    ],
    "tracking of prefixes": [
        (0, _RESP3), (0, command(b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", b"u:", b"PREFIX", b"v:")), (1, command(b"MSET", b"u:1", b"1", b"w:1", b"1")),
        (0, command(b"PING")), (1, command(b"MULTI")), (1, command(b"DEL", b"u:1")), (1, command(b"SET", b"v:1", b"")), (1, command(b"EXEC")),
        (0, command(b"PING")), (0, command(b"CLIENT", b"TRACKINGINFO")), (0, command(b"SET", b"u:2", b"1")), (0, command(b"PING")),
    ],
    "tracking of what is asked for": [
        (0, _RESP3), (0, command(b"CLIENT", b"TRACKING", b"ON", b"OPTIN", b"NOLOOP")), (0, command(b"GET", b"o1")), (0, command(b"CLIENT", b"CACHING", b"YES")),
        (0, command(b"GET", b"o2")), (1, command(b"MSET", b"o1", b"1", b"o2", b"1")), (0, command(b"PING")), (0, command(b"CLIENT", b"CACHING", b"NO")),
    ],
    "untouched, unevicted, reset": [
        (0, command(b"CLIENT", b"NO-TOUCH", b"ON")), (0, command(b"CLIENT", b"NO-EVICT", b"ON")), (0, command(b"GET", b"n")), (0, command(b"CLIENT", b"NO-TOUCH", b"x")),
        (0, _RESP3), (0, command(b"MULTI")), (0, command(b"RESET")), (0, command(b"EXEC")), (0, command(b"HGETALL", b"none")),
        (0, command(b"CLIENT", b"TRACKING", b"ON")), (0, command(b"RESET")), (0, command(b"HELLO", b"4")), (0, command(b"PING")),
    ],
    "streams and blocking that ends by itself": [
        (0, command(b"XADD", b"s", b"1-1", b"f", b"v")), (0, command(b"XREAD", b"BLOCK", b"1", b"STREAMS", b"s", b"0")),
        (0, command(b"XREAD", b"BLOCK", b"1", b"STREAMS", b"s", b"$")), (0, command(b"XGROUP", b"CREATE", b"s", b"g", b"0")),
        (0, command(b"XREADGROUP", b"GROUP", b"g", b"me", b"BLOCK", b"1", b"STREAMS", b"s", b">")), (0, command(b"BZPOPMIN", b"z", b"0.001")),
        (0, command(b"BLMOVE", b"l", b"m", b"LEFT", b"RIGHT", b"0.001")), (0, command(b"WAIT", b"0", b"1")), (0, command(b"BLPOP", b"l", b"x")),
    ],
    "subscribed in RESP3, and asking as ever": [
        (0, _RESP3), (0, command(b"SUBSCRIBE", b"c") + command(b"GET", b"none")), (1, command(b"PUBLISH", b"c", b"m" * 100_000)),
        (0, command(b"SET", b"p", b"1")), (0, command(b"GET", b"p")), (0, command(b"SSUBSCRIBE", b"sharded") + command(b"PING")),
        (1, command(b"SPUBLISH", b"sharded", b"m")), (0, command(b"UNSUBSCRIBE") + command(b"PING")), (1, command(b"PUBLISH", b"c", b"m")), (0, command(b"PING")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_two_clients_get_the_same(pair: tuple[int, Served], story: Story) -> None:
    found = []
    for port in (pair[0], pair[1].port):
        clients = [Raw(port), Raw(port)]
        clients[0].ask(command(b"FLUSHALL"))
        found.append([_without_number(clients[who].ask(sent)) for who, sent in story])
        for client in clients:
            client.close()
    assert found[0] == found[1]


def _without_number(reply: bytes) -> bytes:
    return re.sub(rb"\$2\r\nid\r\n:[0-9]+", b"", reply)


def test_invalidations_for_a_connection_that_subscribes(pair: tuple[int, Served]) -> None:
    """CLIENT TRACKING REDIRECT, the way of RESP2."""
    for port in (pair[0], pair[1].port):
        told, reads, writes = Raw(port), Raw(port), Raw(port)
        number = told.ask(command(b"CLIENT", b"ID"))[1:-2]
        told.ask(command(b"SUBSCRIBE", b"__redis__:invalidate"))
        assert reads.ask(command(b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", number)) == b"+OK\r\n"
        reads.ask(command(b"GET", b"redirected"))
        writes.ask(command(b"SET", b"redirected", b"1"))
        got = b""
        while not got.endswith(b"$10\r\nredirected\r\n"):
            got += told.socket.recv(4096)
        assert b"__redis__:invalidate" in got
        for client in (told, reads, writes):
            client.close()


@pytest.mark.parametrize(
    ("waits", "wakes", "got"),
    [
        (command(b"BLPOP", b"q", b"0"), command(b"RPUSH", b"q", b"x"), b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n"),
        (command(b"BLMOVE", b"q", b"r", b"LEFT", b"LEFT", b"0"), command(b"RPUSH", b"q", b"x"), b"$1\r\nx\r\n"),
        (command(b"BZPOPMAX", b"q", b"0"), command(b"ZADD", b"q", b"2", b"x"), b"*3\r\n$1\r\nq\r\n$1\r\nx\r\n$1\r\n2\r\n"),
        (
            command(b"XREAD", b"BLOCK", b"0", b"STREAMS", b"q", b"$"), command(b"XADD", b"q", b"1-1", b"f", b"v"),
            b"*1\r\n*2\r\n$1\r\nq\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
        ),
    ],
)  # fmt: skip
def test_who_waits_is_woken_by_another_and_holds_up_nobody(
    pair: tuple[int, Served], waits: bytes, wakes: bytes, got: bytes
) -> None:
    waiting, other = Raw(pair[1].port), Raw(pair[1].port)
    other.ask(command(b"FLUSHALL"))
    number = waiting.ask(command(b"CLIENT", b"ID"))[1:-2]
    waiting.send(waits + command(b"ECHO", b"after"))
    wait_until(lambda: b" flags=b " in other.ask(command(b"CLIENT", b"LIST", b"ID", number)))
    other.ask(wakes)
    assert waiting.replies(2) == got + b"$5\r\nafter\r\n"
    waiting.send(waits)
    wait_until(lambda: b" flags=b " in other.ask(command(b"CLIENT", b"LIST", b"ID", number)))
    assert other.ask(command(b"CLIENT", b"UNBLOCK", number, b"ERROR")) == b":1\r\n"
    assert waiting.replies(1).startswith(b"-UNBLOCKED")
    waiting.close()
    other.close()
