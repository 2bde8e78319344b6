"""The connection to Valkey: what the URL says is said first; clients and bytes that are too many are no burden."""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from predis.cache import session
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


def test_a_wrong_password_of_the_url_is_told(port: int) -> None:
    with gateway(Single(Address.of(f"redis://gate:wrong@127.0.0.1:{port}"))) as made:
        client = Raw(made.port)
        client.send(command(b"PING"))
        assert b"it refuses the gateway (WRONGPASS" in client.rest()
        client.close()


def test_one_client_too_many_is_told_as_valkey_tells_it(served: Served) -> None:
    clients = [Raw(served.port) for _ in range(50)]
    for client in clients:
        client.ask(command(b"PING"))
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
        client.close()


def test_a_promise_of_512_mb_costs_nothing(served: Served) -> None:
    client = Raw(served.port)
    client.ask(command(b"PING"))
    before = resident()
    others = [Raw(served.port) for _ in range(20)]
    for other in others:
        other.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\n" + b"x" * 1_000)
    assert client.ask(command(b"ECHO", b"untouched")) == bulk(b"untouched")
    assert resident() - before < 16 * MB
    for other in [*others, client]:
        other.close()


def test_a_value_of_256_mb_passes_through_little_memory(served: Served, port: int) -> None:
    size, piece = 256 * MB, bytes(MB)
    client = Raw(served.port, timeout_s=60)
    client.ask(command(b"PING"))
    gc.collect()
    before = most = resident()
    client.send(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n" % size)
    for _ in range(size // MB):
        client.send(piece)
        most = max(most, resident())
    client.send(b"\r\n")
    assert client.replies(1) == b"+OK\r\n"
    client.send(command(b"GET", b"big"))
    left = size + len(b"$%d\r\n\r\n" % size)
    while left:
        left -= len(client.socket.recv(MB))
        most = max(most, resident())
    assert most - before < 48 * MB
    assert client.ask(command(b"DEL", b"big")) == b":1\r\n"
    client.close()


def test_a_subscriber_that_never_reads_is_cut(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Valkey at its client-output-buffer-limit, which counts what the gateway does not take because the client does not."""
    monkeypatch.setattr(session, "STALLED_S", 0.3)
    never = socket.create_connection(("127.0.0.1", served.port))
    never.sendall(command(b"SUBSCRIBE", b"news"))
    never.recv(100)
    publisher, other = Raw(served.port), Raw(served.port)
    before, message = resident(), command(b"PUBLISH", b"news", bytes(MB))
    sessions = _sessions(served)
    for _ in range(64):
        publisher.ask(message)
    assert publisher.ask(message) == b":0\r\n"  # nobody is subscribed any more
    assert resident() - before < 32 * MB
    assert other.ask(command(b"PING")) == b"+PONG\r\n"
    wait_until(lambda: _sessions(served) == sessions - 1)
    for one in (publisher, other):
        one.close()
    never.close()


def _sessions(served: Served) -> int:
    return int(served.call(lambda: served.gateway.stats()["connections"]))


def test_who_never_reads_holds_up_nobody(served: Served) -> None:
    never, other = Raw(served.port), Raw(served.port)
    other.ask(command(b"SET", b"mb", bytes(MB)))
    before = resident()
    never.socket.setblocking(False)
    never.send(command(b"GET", b"mb") * 200)
    for _ in range(100):
        assert other.ask(command(b"ECHO", b"x")) == bulk(b"x")
    assert resident() - before < 16 * MB
    never.close()
    other.close()


def test_who_never_reads_is_not_kept_when_valkey_has_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LINGER_S", 0.1)
    never, other = Raw(served.port), Raw(served.port)
    number = never.ask(command(b"CLIENT", b"ID"))[1:-2]
    other.ask(command(b"SET", b"mb", bytes(MB)))
    sessions = _sessions(served)
    never.send(command(b"GET", b"mb") * 50)
    wait_until(lambda: b" oll=0 " not in other.ask(command(b"CLIENT", b"LIST", b"ID", number)))
    assert other.ask(command(b"CLIENT", b"KILL", b"ID", number)) == b":1\r\n"

    def gone() -> bool:
        with contextlib.suppress(ConnectionError):
            never.send(command(b"PING"))
        return _sessions(served) == sessions - 1

    wait_until(gone)
    never.close()
    other.close()
