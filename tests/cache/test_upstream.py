"""The connection to Valkey: what the URL says is said first; clients and bytes that are too many are no burden."""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from predis.cache import session, upstream
from predis.cache.resp import bulk, command
from predis.cache.upstream import Address, Single
from tests.cache.gateways import Raw, Served, gateway, valkey, wait_until

MB = 1 << 20


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with valkey(tmp_path_factory.mktemp("valkey"), "--client-output-buffer-limit", "pubsub 4mb 0 0") as made:
        yield made


@pytest.fixture(scope="module")
def served(port: int) -> Iterator[Served]:
    with gateway(port, most=50) as made:
        yield made


@pytest.fixture
def connect(served: Served) -> Iterator[Callable[[], Raw]]:
    """Makes clients of the gateway; they are gone after the test, however it ends."""
    made: list[Raw] = []

    def connect() -> Raw:
        client = Raw(served.port, timeout_s=60)
        made.append(client)
        client.ask(command(b"PING"))
        return client

    yield connect
    for client in made:
        client.close()
    wait_until(lambda: served.call(lambda: served.gateway.stats()["connections"]) == 0)


def is_there(served: Served, client: Raw) -> bool:
    """Whether the gateway still has this client's connection."""
    port = client.socket.getsockname()[1]
    sessions = served.gateway._sessions
    return bool(
        served.call(lambda: any(one.transport.get_extra_info("peername")[1] == port for one in sessions))
    )


class Most:
    """The most memory that this process, and so the gateway in it, had beyond what it had at first."""

    def __init__(self) -> None:
        gc.collect()
        self._first = resident()
        self.grown = 0

    def look(self) -> int:
        self.grown = max(self.grown, resident() - self._first)
        return self.grown


def resident() -> int:
    """Bytes of memory that this process, and so the gateway in it, has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def test_user_password_and_database_of_the_url(port: int) -> None:
    with redis.Redis(port=port) as straight:
        straight.acl_setuser("gate", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
    address = Address.of(f"redis://gate:secret@127.0.0.1:{port}/3")
    with gateway(Single(address), database=address.database) as made:
        made.gateway.greeting = address.greeting
        client = Raw(made.port)
        sent = command(b"ACL", b"WHOAMI") + command(b"SET", b"in-three", b"1")
        assert client.ask(sent, 2) == bulk(b"gate") + b"+OK\r\n"
        assert client.ask(command(b"RESET") + sent, 3) == b"+RESET\r\n" + bulk(b"gate") + b"+OK\r\n"
        client.close()
    with redis.Redis(port=port, db=3) as third:
        assert third.get("in-three") == b"1"


def test_a_wrong_password_of_the_url_is_told(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "CONNECT_S", 0.1)
    with gateway(Single(Address.of(f"redis://gate:wrong@127.0.0.1:{port}"))) as made:
        client = Raw(made.port)
        client.send(command(b"PING"))
        assert b"it refuses the gateway (WRONGPASS" in client.rest()
        client.close()


def test_one_client_too_many_is_told_as_valkey_tells_it(served: Served, connect: Callable[[], Raw]) -> None:
    clients = [connect() for _ in range(50)]
    late = Raw(served.port)
    assert late.rest() == b"-ERR max number of clients reached\r\n"
    late.close()
    clients.pop().close()

    def let_in() -> bool:
        client = Raw(served.port)
        client.send(command(b"PING"))
        said = client.socket.recv(100)
        client.close()
        return said == b"+PONG\r\n"

    wait_until(let_in)
    for client in clients:
        assert client.ask(command(b"PING")) == b"+PONG\r\n"


def test_a_promise_of_512_mb_costs_nothing(connect: Callable[[], Raw]) -> None:
    client, others = connect(), [connect() for _ in range(20)]
    most = Most()
    for other in others:
        other.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\n" + b"x" * 1_000)
    assert client.ask(command(b"ECHO", b"untouched")) == bulk(b"untouched")
    assert most.look() < 16 * MB


def test_a_value_of_512_mb_passes_through_little_memory(served: Served, connect: Callable[[], Raw]) -> None:
    size, piece = 512 * MB, bytes(MB)
    client = connect()
    most = Most()
    client.send(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n" % size)
    for _ in range(size // MB):
        client.send(piece)
        most.look()
    client.send(b"\r\n")
    assert client.replies(1) == b"+OK\r\n"
    client.send(command(b"GET", b"big"))
    taken, left = bytearray(MB), size + len(b"$%d\r\n\r\n" % size)
    while left:
        left -= client.socket.recv_into(taken)
        most.look()
    assert most.grown < 48 * MB
    assert client.ask(command(b"DEL", b"big")) == b":1\r\n"


def test_a_name_that_never_ends_is_not_kept(connect: Callable[[], Raw]) -> None:
    client, other = connect(), connect()
    most = Most()
    client.send(b"*1\r\n$%d\r\n" % (64 * MB))
    for _ in range(64):
        client.send(bytes(MB))
        most.look()
    assert most.grown < 16 * MB
    assert other.ask(command(b"PING")) == b"+PONG\r\n"
    client.send(b"\r\n")
    assert client.replies(1).startswith(b"-ERR unknown command")


def test_one_byte_at_a_time_is_fast_enough_for_anybody(connect: Callable[[], Raw]) -> None:
    slow, other = connect(), connect()
    slow.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in command(b"SET", b"slow", b"a\r\nb"):
        slow.send(bytes((byte,)))
        assert other.ask(command(b"ECHO", b"x")) == bulk(b"x")
    assert slow.replies(1) == b"+OK\r\n"
    assert slow.ask(command(b"GET", b"slow")) == bulk(b"a\r\nb")


def test_a_subscriber_that_never_reads_is_cut(
    served: Served, connect: Callable[[], Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Valkey at its client-output-buffer-limit, which counts what the gateway does not take because the client does not."""
    monkeypatch.setattr(session, "STALLED_S", 0.3)
    never, publisher, other = connect(), connect(), connect()
    never.ask(command(b"SUBSCRIBE", b"news"))
    most, message = Most(), command(b"PUBLISH", b"news", bytes(MB))
    for _ in range(256):
        most.look()
        if publisher.ask(message) == b":0\r\n":  # nobody is subscribed any more
            break
    else:
        pytest.fail("256 MB were published to who never reads")
    assert most.grown < 32 * MB
    assert other.ask(command(b"PING")) == b"+PONG\r\n"
    wait_until(lambda: not is_there(served, never))


def test_who_never_reads_holds_up_nobody(connect: Callable[[], Raw]) -> None:
    never, other = connect(), connect()
    other.ask(command(b"SET", b"mb", bytes(MB)))
    most = Most()
    never.send(command(b"GET", b"mb") * 200)
    for _ in range(100):
        assert other.ask(command(b"ECHO", b"x")) == bulk(b"x")
        most.look()
    assert most.grown < 16 * MB


def test_who_sends_for_ever_and_never_reads_costs_the_gateway_little(connect: Callable[[], Raw]) -> None:
    never, other = connect(), connect()
    other.ask(command(b"SET", b"kb", bytes(1_000)))
    most, asked = Most(), command(b"GET", b"kb") * 1_000
    for _ in range(100):
        never.send(asked)
        most.look()
    assert other.ask(command(b"PING")) == b"+PONG\r\n"
    assert most.grown < 16 * MB


def test_who_never_reads_is_not_kept_when_valkey_has_closed(
    served: Served, connect: Callable[[], Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LINGER_S", 0.1)
    never, other = connect(), connect()
    number = never.ask(command(b"CLIENT", b"ID"))[1:-2]
    other.ask(command(b"SET", b"mb", bytes(MB)))
    never.send(command(b"GET", b"mb") * 50)
    # So much that it is not in the buffers of kernels alone.
    wait_until(lambda: b" omem=0 " not in other.ask(command(b"CLIENT", b"LIST", b"ID", number)))
    assert other.ask(command(b"CLIENT", b"KILL", b"ID", number)) == b":1\r\n"

    def gone() -> bool:
        with contextlib.suppress(ConnectionError):
            never.send(command(b"PING"))
        return not is_there(served, never)

    wait_until(gone)


def test_who_is_killed_is_disconnected_and_nobody_else(connect: Callable[[], Raw]) -> None:
    killed, other = connect(), connect()
    number = killed.ask(command(b"CLIENT", b"ID"))[1:-2]
    assert other.ask(command(b"CLIENT", b"KILL", b"ID", number)) == b":1\r\n"
    assert killed.rest() == b""
    assert other.ask(command(b"PING")) == b"+PONG\r\n"


def test_who_goes_while_it_waits_takes_nothing(connect: Callable[[], Raw]) -> None:
    waits, other = connect(), connect()
    number = waits.ask(command(b"CLIENT", b"ID"))[1:-2]
    waits.send(command(b"BLPOP", b"list", b"0"))
    seen = command(b"CLIENT", b"LIST", b"ID", number)
    wait_until(lambda: b" cmd=blpop" in other.ask(seen))
    waits.close()
    wait_until(lambda: other.ask(seen) == bulk(b""))
    assert other.ask(command(b"RPUSH", b"list", b"x") + command(b"LPOP", b"list"), 2) == b":1\r\n" + bulk(
        b"x"
    )


def test_who_vanishes_is_noticed_by_the_kernel(served: Served, connect: Callable[[], Raw]) -> None:
    connect()

    def asks_after_silence() -> bool:
        (one,) = served.gateway._sessions
        return bool(one.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    assert served.call(asks_after_silence)


def test_what_was_sent_before_the_end_is_done(served: Served, connect: Callable[[], Raw]) -> None:
    """Also where the client does not wait for the reply."""
    hasty, other = Raw(served.port), connect()
    hasty.send(command(b"SET", b"hasty", bytes(8 * MB)))
    hasty.close()
    wait_until(lambda: other.ask(command(b"STRLEN", b"hasty")) == b":%d\r\n" % (8 * MB))
