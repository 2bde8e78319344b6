"""Reads through, writes to and observed: what a session does with keys that somebody cares for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from predis.cache import answers, session
from predis.cache.link import Link
from predis.cache.reading import Loaded, SourceFailed
from predis.cache.resp import array, bulk, command
from tests.cache.gateways import Raw, Served, gateway, valkey, wait_until

MB = 1 << 20


@dataclass(frozen=True)
class Source:
    name: str
    tenant: str
    stores: str
    writes: str


USERS = Source(name="users", tenant="default", stores="string", writes="none")
CARTS = Source(name="carts", tenant="default", stores="hash", writes="none")
KEPT = Source(name="kept", tenant="default", stores="string", writes="through")


class Reader:
    """Knows ``user:``, ``cart:`` and ``kept:``; loads when it is let."""

    def __init__(self, link: Link) -> None:
        self.active = True
        self.link = link
        self.loads: list[bytes] = []
        self.seen_ttl: list[tuple[bytes, int | None]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def match(self, key: bytes) -> Any:
        return {b"user": USERS, b"cart": CARTS, b"kept": KEPT}.get(key.partition(b":")[0])

    async def load(self, keys: Sequence[bytes]) -> list[bytes | SourceFailed | None]:
        self.loads += keys
        await self.gate.wait()
        return [await self.one(key) for key in keys]

    async def bring(self, keys: Sequence[bytes]) -> list[Loaded]:
        return [Loaded(value, kept=True) for value in await self.load(keys)]

    async def one(self, key: bytes) -> bytes | SourceFailed | None:
        if key.endswith(b"none"):
            return None
        if key.endswith(b"bad"):
            return SourceFailed("ERR source users: it is away")
        if key.startswith(b"cart"):
            await self.link.ask([("HSET", key, "item", "pear")])
            return b""
        return b"of " + key

    def ahead_of_write(self, keys: Sequence[bytes]) -> bytes | None:
        marks = [b"mark:" + key for key in keys if self.match(key) is not None]
        return command(b"DEL", *marks) if marks else None

    def wants_ttl(self, source: Any) -> bool:
        return source is USERS

    def seen(self, key: bytes, source: Any, ttl_ms: int | None) -> None:
        self.seen_ttl.append((key, ttl_ms))


class Writer:
    """Writes when it is let."""

    def __init__(self, gate: asyncio.Event) -> None:
        self.gate = gate
        self.begun = 0
        self.written: list[list[bytes]] = []
        self.dropped: list[bytes] = []

    async def write(self, source: Any, args: Sequence[bytes]) -> None:
        self.begun += 1
        if args[-1] == b"refused":
            raise SourceFailed("ERR source kept: no")
        await asyncio.sleep(0)
        await self.gate.wait()
        self.written.append(list(args))

    async def drop(self, keys: Sequence[bytes]) -> None:
        self.dropped += keys


class Given:
    def __init__(self, served: Served, reader: Reader, writer: Writer, direct: int) -> None:
        self.served, self.reader, self.writer, self.direct = served, reader, writer, direct
        self.client = Raw(served.port)

    def gate(self, open_: bool) -> None:
        self.served.call(self.reader.gate.set if open_ else self.reader.gate.clear)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with valkey(tmp_path_factory.mktemp("valkey")) as port:
        yield port


@pytest.fixture
def given(server: int) -> Iterator[Given]:
    with gateway(server) as served:

        async def wire() -> tuple[Reader, Writer, Link]:
            link = Link(f"redis://127.0.0.1:{server}")
            await link.ask([("FLUSHALL",)])
            reader = Reader(link)
            writer = Writer(reader.gate)
            served.gateway.read_through(reader, writer, aside=link)  # type: ignore[arg-type]
            return reader, writer, link

        reader, writer, link = served.do(wire())
        wait_until(lambda: served.gateway.verbs[b"GET"] is not None)
        made = Given(served, reader, writer, server)
        yield made
        made.gate(True)
        made.client.close()
        served.do(link.close())


def test_a_miss_is_loaded_and_answers_stay_in_order(given: Given) -> None:
    sent = (
        command(b"SET", b"a", b"1")
        + command(b"GET", b"user:1")
        + command(b"GET", b"a")
        + command(b"GET", b"user:none")
    )
    assert given.client.ask(sent, 4) == b"+OK\r\n" + bulk(b"of user:1") + bulk(b"1") + b"$-1\r\n"
    assert given.reader.loads == [b"user:1", b"user:none"]


def test_a_slow_source_delays_nobody_else(given: Given) -> None:
    given.gate(False)
    given.client.send(command(b"GET", b"user:1") + command(b"PING"))
    other = Raw(given.served.port)
    assert other.ask(
        command(b"SET", b"user:2", b"there") + command(b"GET", b"user:2"), 2
    ) == b"+OK\r\n" + bulk(b"there")
    other.close()
    given.gate(True)
    assert given.client.replies(2) == bulk(b"of user:1") + b"+PONG\r\n"


def test_hits_are_told_with_what_time_is_left(given: Given) -> None:
    sent = command(b"SET", b"user:1", b"x", b"PX", b"100000") + command(b"GET", b"user:1")
    assert given.client.ask(sent, 2) == b"+OK\r\n" + bulk(b"x")
    given.client.ask(command(b"PING"))
    ((key, ttl),) = given.reader.seen_ttl
    assert key == b"user:1"
    assert ttl is not None
    assert 0 < ttl <= 100_000


def test_mget_has_what_valkey_lacks_loaded(given: Given) -> None:
    sent = command(b"SET", b"user:1", b"x") + command(b"MGET", b"user:1", b"user:2", b"no", b"user:none")
    wanted = b"*4\r\n" + bulk(b"x") + bulk(b"of user:2") + b"$-1\r\n$-1\r\n"
    assert given.client.ask(sent, 2) == b"+OK\r\n" + wanted
    assert given.client.ask(command(b"MGET", b"user:1", b"user:bad")) == b"-ERR source users: it is away\r\n"


def test_other_reads_are_sent_again_and_what_follows_waits(given: Given) -> None:
    given.gate(False)
    given.client.send(
        command(b"HGET", b"cart:1", b"item")
        + command(b"PING")
        + command(b"DEL", b"cart:1")
        + command(b"HGETALL", b"cart:none")
    )
    wait_until(lambda: given.reader.loads)
    given.gate(True)
    assert given.client.replies(4) == bulk(b"pear") + b"+PONG\r\n:1\r\n*0\r\n"
    assert (
        given.client.ask(command(b"HSET", b"cart:2", b"a", b"1") + command(b"HGET", b"cart:2", b"item"), 2)
        == b":1\r\n$-1\r\n"
    )
    assert b"cart:2" not in given.reader.loads


def test_nothing_is_loaded_in_a_transaction_or_another_database(given: Given) -> None:
    sent = [
        command(b"MULTI"),
        command(b"GET", b"user:1"),
        command(b"EXEC"),
        command(b"SELECT", b"1"),
        command(b"GET", b"user:1"),
    ]
    assert given.client.ask(b"".join(sent), 5) == b"+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n+OK\r\n$-1\r\n"
    assert given.client.ask(command(b"SELECT", b"99") + command(b"GET", b"user:1"), 2).endswith(b"$-1\r\n")
    assert given.reader.loads == []
    assert given.client.ask(command(b"SELECT", b"0") + command(b"GET", b"user:1"), 2).endswith(
        bulk(b"of user:1")
    )


def test_a_database_that_a_transaction_selects_is_so_once_it_is_executed(given: Given) -> None:
    client, select = given.client, command(b"MULTI") + command(b"SELECT", b"1")
    read = command(b"GET", b"user:1")
    assert client.ask(select + command(b"DISCARD") + read, 4).endswith(bulk(b"of user:1"))
    refused = command(b"NOSUCH") + command(b"EXEC")
    client.ask(select + refused, 4)
    assert client.ask(read) == bulk(b"of user:1")
    assert client.ask(select + command(b"EXEC") + read, 4).endswith(b"*1\r\n+OK\r\n$-1\r\n")


def test_a_write_ends_marks_first_and_a_transaction_after(given: Given) -> None:
    other = Raw(given.direct)
    other.ask(command(b"MSET", b"mark:user:1", b"m", b"mark:user:2", b"m", b"mark:user:3", b"m"))
    skipped = command(b"CLIENT", b"REPLY", b"SKIP") + command(b"SET", b"user:3", b"x")
    sent = [
        command(b"SET", b"user:1", b"x"),
        command(b"MULTI"),
        command(b"SET", b"user:2", b"x"),
        command(b"EXEC"),
        skipped,
        command(b"PING"),
    ]
    assert given.client.ask(b"".join(sent), 5) == b"+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n+PONG\r\n"
    assert other.ask(command(b"EXISTS", b"mark:user:1", b"mark:user:2", b"mark:user:3")) == b":0\r\n"
    other.close()


def test_writes_go_to_the_source_before_valkey(given: Given) -> None:
    sent = [
        command(b"SET", b"kept:1", b"x"),
        command(b"GET", b"kept:1"),
        command(b"SET", b"kept:1", b"refused"),
        command(b"GET", b"kept:1"),
    ]
    assert given.client.ask(b"".join(sent), 4) == b"+OK\r\n" + bulk(
        b"x"
    ) + b"-ERR source kept: no\r\n" + bulk(b"x")
    assert given.writer.written == [[b"SET", b"kept:1", b"x"]]
    refused = given.client.ask(command(b"MULTI") + command(b"SET", b"kept:1", b"y") + command(b"EXEC"), 3)
    assert b"-ERR source kept: what is written through" in refused
    assert b"-EXECABORT" in refused


def test_a_gateway_that_ends_answers_what_waits_for_a_source_first(given: Given) -> None:
    client = given.client
    client.ask(command(b"PING"))
    given.gate(False)
    client.send(command(b"SET", b"kept:1", b"x") + command(b"GET", b"kept:1"))
    wait_until(lambda: given.writer.begun)
    given.served.call(lambda: _of(given).end())
    given.gate(True)
    assert client.rest() == b"+OK\r\n" + bulk(b"x")


def test_what_is_written_for_a_client_that_is_gone_by_then_is_not_left_old_in_valkey(given: Given) -> None:
    given.gate(False)
    given.client.send(command(b"MSET", b"kept:1", b"x", b"other", b"y"))
    wait_until(lambda: given.writer.begun)
    given.served.call(lambda: _of(given).abort())
    given.gate(True)
    wait_until(lambda: given.writer.dropped)
    assert given.writer.dropped == [b"kept:1"]


def test_keys_of_a_transaction_that_is_discarded_are_forgotten(given: Given) -> None:
    client, marked = given.client, Raw(given.direct)
    marked.ask(command(b"SET", b"mark:user:1", b"m"))
    client.ask(command(b"MULTI") + command(b"SET", b"user:1", b"x") + command(b"DISCARD"), 3)
    client.ask(command(b"MULTI") + command(b"SET", b"user:2", b"x") + command(b"EXEC") + command(b"PING"), 4)
    assert marked.ask(command(b"EXISTS", b"mark:user:1")) == b":1\r\n"
    marked.close()


def test_a_near_cache_is_pushed_what_was_prefetched(given: Given) -> None:
    client = given.client
    client.ask(
        command(b"HELLO", b"3") + command(b"CLIENT", b"TRACKING", b"ON") + command(b"PREDIS", b"NEAR", b"ON"),
        3,
    )
    client.ask(command(b"SET", b"user:7", b"soon"))
    (session,) = given.served.gateway._sessions
    given.served.call(lambda: session.push(b"user:7"))
    got = client.socket.recv(4096)
    assert got == b">3\r\n" + bulk(b"predis-prefetch") + bulk(b"user:7") + bulk(b"soon")
    other = Raw(given.direct)
    other.ask(command(b"SET", b"user:7", b"changed"))
    assert b"invalidate" in client.socket.recv(4096)
    other.close()


def test_long_values_go_up_as_they_come(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a source has the key is known before the value is."""
    monkeypatch.setattr(session, "MOST_HELD", MB)
    client, other, big = given.client, Raw(given.direct), bytes(4 * MB)
    other.ask(command(b"MSET", b"mark:user:1", b"m", b"mark:user:2", b"m"))
    sent = [
        command(b"SET", b"mine", big),
        command(b"SET", b"user:1", big),
        command(b"MULTI"),
        command(b"SET", b"user:2", big),
        command(b"EXEC"),
        command(b"MGET", b"user:1", b"mine", b"user:2"),
    ]
    got = client.ask(b"".join(sent), 6)
    assert got == b"+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n" + array([bulk(big)] * 3)
    assert given.reader.loads == []
    assert other.ask(command(b"EXISTS", b"mark:user:1", b"mark:user:2")) == b":0\r\n"
    other.close()


@pytest.mark.parametrize(
    "long", [(b"SET", b"cart:1"), (b"SET", b"mine"), (b"GETRANGE", b"mine", b"0", b"1"), (b"ECHO",)]
)
def test_a_long_command_waits_for_a_read_that_is_sent_again(given: Given, long: Sequence[bytes]) -> None:
    """Which would otherwise be sent amid its bytes."""
    client, sent = given.client, command(*long, bytes(MB))
    given.gate(False)
    client.send(command(b"HGET", b"cart:1", b"item"))
    wait_until(lambda: given.reader.loads)
    client.send(sent[: MB // 2])
    given.gate(True)
    assert client.replies(1) == bulk(b"pear")
    client.send(sent[MB // 2 :] + command(b"ECHO", b"after"))
    assert client.replies(2).endswith(bulk(b"after"))


def test_nothing_is_pushed_amid_a_long_command(given: Given) -> None:
    client, sent = given.client, command(b"ECHO", bytes(MB))
    client.ask(
        command(b"HELLO", b"3") + command(b"PREDIS", b"NEAR", b"ON") + command(b"SET", b"user:7", b"soon"), 3
    )
    client.send(sent[: MB // 2])
    wait_until(lambda: given.served.call(lambda: _of(given)._requests.passing))
    given.served.call(lambda: _of(given).push(b"user:7"))
    client.send(sent[MB // 2 :])
    assert client.replies(1) == bulk(bytes(MB))


def test_what_must_be_seen_whole_and_is_too_long_is_refused(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MOST_HELD", MB)
    for sent in (
        command(b"SET", b"kept:1", bytes(2 * MB)),
        command(b"MSET", b"user:1", bytes(MB), b"user:2", bytes(MB)),
    ):
        client = Raw(given.served.port)
        client.send(sent[:-2])  # so that nothing is left unread where it is closed
        assert client.rest().startswith(b"-ERR Predis has to see this command whole")
        client.close()
    assert given.writer.written == []
    assert given.client.ask(command(b"PING")) == b"+PONG\r\n"


def test_long_replies_go_down_as_they_come(given: Given) -> None:
    client, other, big = given.client, Raw(given.direct), bytes(8 * MB)
    other.ask(command(b"SET", b"user:1", big))
    other.ask(command(b"HSET", b"cart:1", b"item", big))
    other.close()
    client.send(
        command(b"GET", b"user:1") + command(b"HGET", b"cart:1", b"item") + command(b"GET", b"user:2")
    )
    wait_until(lambda: given.served.call(_of(given).transport.get_write_buffer_size))
    assert given.served.call(lambda: sum(map(len, _of(given).answers._begun))) <= answers.LONG_REPLY
    assert client.replies(3) == bulk(big) * 2 + bulk(b"of user:2")
    client.ask(command(b"PING"))
    assert given.reader.seen_ttl == [(b"user:1", -1), (b"cart:1", None)]


@pytest.mark.parametrize("ahead", [b"", command(b"GET", b"user:2")])
def test_a_read_that_is_sent_again_is_answered_however_much_waits_behind_it(
    given: Given, ahead: bytes
) -> None:
    """Its reply comes on the connection that is left unread while too much waits."""
    client, big = given.client, bytes(MB // 4)
    client.ask(command(b"SET", b"big", big))
    given.gate(False)
    client.send(ahead + command(b"HGET", b"cart:1", b"item") + command(b"GET", b"big") * 40)
    wait_until(lambda: given.served.call(lambda: _of(given)._left and _of(given)._paused))
    assert given.served.call(lambda: _of(given).answers._waiting_bytes) < 2 * MB
    given.gate(True)
    first = bulk(b"of user:2") if ahead else b""
    assert client.replies(41 + bool(ahead)) == first + bulk(b"pear") + bulk(big) * 40
    wait_until(lambda: given.served.call(lambda: not (_of(given)._left or _of(given)._paused)))
    assert given.served.call(lambda: _of(given).answers._waiting_bytes) == 0


def test_who_asks_more_than_is_kept_in_mind_is_not_read(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST_TURNS", 1_000)
    client, value = given.client, bytes(1_000)
    client.ask(command(b"SET", b"user:1", value))
    ask = command(b"GET", b"user:1")
    sender = threading.Thread(target=lambda: client.send(ask * 20_000))
    sender.start()
    wait_until(lambda: given.served.call(lambda: _of(given)._paused))
    # Those of one read, each with its PTTL.
    assert given.served.call(lambda: len(_of(given).answers._turns)) < 1_000 + 2 * (1 << 18) // len(ask)
    assert client.replies(20_000) == bulk(value) * 20_000
    sender.join()


def test_who_asks_too_much_and_takes_nothing_is_cut(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_TURNS", 1_000)
    monkeypatch.setattr(session, "STALLED_S", 0.1)
    client = given.client
    client.ask(command(b"SET", b"user:1", bytes(1_000)))
    with pytest.raises(ConnectionError):
        client.send(command(b"GET", b"user:1") * 1_000_000)


def _of(given: Given) -> session.Session:
    (one,) = given.served.gateway._sessions
    return one
