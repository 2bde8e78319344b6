from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from predis.access import Caller, Keys
from predis.access.audit import Audit
from predis.access.keys import LOCAL
from predis.clock import ManualClock, SystemClock
from predis.errors import AccessDenied, EndpointNotFound, ModelFailure, NotReady, Unavailable
from predis.registry.model import Version
from predis.serving import describe, follower, repository
from predis.serving.capture import Capture
from predis.serving.follower import ALIVE_S, Follower, Sources
from predis.serving.plane import Plane
from predis.serving.repository import Repository
from predis.serving.route import Split
from predis.serving.served import ServedVersion
from predis.serving.snapshot import Snapshot
from predis.serving.store import Endpoint, ServingStore, Worker
from predis.state.engine import Database
from tests.serving.helpers import in_loop, rounds, served, version

only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
OPERATOR = Caller("default", "otto", "operator")
FOLLOW_S = 0.1


class Library:
    """Opens versions, unless one is broken."""

    def __init__(self) -> None:
        self.broken: set[int] = set()
        self.opened = 0

    def version(self, endpoint: Endpoint, number: int) -> Version:
        return version(number, model=endpoint.model, tenant=endpoint.tenant)

    def open(self, version: Version, endpoint: str) -> ServedVersion:
        if version.number in self.broken:
            raise ModelFailure("bad")
        self.opened += 1
        return served(version.number, endpoint=endpoint, tenant=version.tenant)


class World:
    """A database, one worker that follows it, and the repository of that worker."""

    def __init__(self, database: Database, folder: Path, clock: Any) -> None:
        self.database, self.clock = database, clock
        self.store = ServingStore(database)
        self.library = Library()
        self.plane = Plane(Capture(None, clock))
        sources = Sources(self.store, Keys(database, clock), self.library, Snapshot(folder / "routes.json"))
        self.follower = Follower(self.plane, sources, worker="serving-0", clock=clock)
        self.repository = Repository(database, self.plane, clock=clock, follow_s=FOLLOW_S)

    def put(self, weights: dict[int, float] | None, endpoint: str = "e", *, tenant: str = "default") -> None:
        """An endpoint, and a Route of it if weights are given."""
        found = Endpoint(tenant, endpoint, "m", 0, {"capture": False}, 0)
        with self.database.write() as connection:
            self.store.add_endpoint(connection, found)
            if weights is not None:
                self.store.put_route(connection, found, route=Split(weights), reason="", at=0, actor="test")

    def config(self, endpoint: str = "e", tenant: str = "default") -> dict[str, Any]:
        found = self.store.endpoint(tenant, endpoint)
        assert found is not None
        return found.config

    async def look(self) -> None:
        await asyncio.to_thread(self.follower.look)

    def is_loaded(self, endpoint: str = "e") -> bool:
        return describe.model_ready(self.plane, LOCAL, endpoint=endpoint, version=None)

    def beat(self, worker: str, seen_at: int) -> None:
        """What another worker says of itself."""
        self.store.beat(Worker(worker, 1, 0, seen_at, {}, {}))


@pytest.fixture
def world(database: Database, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(follower, "_MOMENT_S", 30.0)
    monkeypatch.setattr(repository, "_LOOK_S", 0.001)
    found = World(database, tmp_path, clock)
    found.put({1: 1.0})
    found.follower.look()
    return found


async def waits(task: asyncio.Task[None]) -> bool:
    """Whether it still has to wait for something, after it has had time to see what there is."""
    for _look in range(20):
        await rounds()
        await asyncio.sleep(0.002)
    return not task.done()


class Following:
    """A worker's own thread, for a while."""

    def __init__(self, world: World) -> None:
        self._thread = threading.Thread(target=world.follower.run, args=(0.002,))
        self._world = world

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_exc: object) -> None:
        self._world.follower.stop()
        self._thread.join()


@in_loop
async def test_out_of_memory_and_back(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker runs: on both databases, with real clocks and a thread of its own."""
    monkeypatch.setattr(follower, "HEARTBEAT_S", 0.01)
    world = World(database, tmp_path, SystemClock())
    world.put({1: 1.0})
    world.put({1: 1.0}, "f")
    world.follower.catch_up()
    with Following(world):
        for _time in range(2):
            await world.repository.unload(OPERATOR, "e")
            assert (world.is_loaded(), world.is_loaded("f")) == (False, True)
            await world.repository.load(OPERATOR, "e")
            assert world.is_loaded()
    assert world.config() == {"capture": False, "loaded": True}
    assert world.library.opened >= 2
    deeds = [(d["actor"], d["action"], d["target"]) for d in Audit(database, world.clock).entries("default")]
    assert deeds == [("otto", "endpoint.load", "e"), ("otto", "endpoint.unload", "e")] * 2


@only_sqlite
class TestWaiting:
    @in_loop
    async def test_until_this_worker_has_followed(self, world: World) -> None:
        task = asyncio.ensure_future(world.repository.unload(OPERATOR, "e"))
        assert await waits(task)
        assert world.config()["loaded"] is False
        assert world.is_loaded()
        await world.look()
        assert not world.is_loaded()
        assert await waits(task)  # another might have looked just before the change
        world.clock.advance(3 * FOLLOW_S + 1)
        await world.look()
        await task

    @in_loop
    async def test_until_every_other_has_had_time_to(self, world: World) -> None:
        changed_at = world.clock.time_ns()
        world.beat("serving-1", changed_at)
        task = asyncio.ensure_future(world.repository.unload(OPERATOR, "e"))
        assert await waits(task)
        await world.look()
        world.clock.advance(3 * FOLLOW_S + 1)
        await world.look()
        assert await waits(task)
        world.beat("serving-1", changed_at + int(FOLLOW_S * 1e9))
        assert await waits(task)
        world.beat("serving-1", world.clock.time_ns())
        await task

    @in_loop
    async def test_but_not_for_one_that_is_dead(self, world: World) -> None:
        world.beat("serving-1", world.clock.time_ns() - int(ALIVE_S * 1e9))
        world.beat("serving-2", world.clock.time_ns())
        task = asyncio.ensure_future(world.repository.unload(OPERATOR, "e"))
        assert await waits(task)
        world.clock.advance(ALIVE_S + 0.1)  # serving-2 has died meanwhile
        await world.look()
        await task

    @in_loop
    async def test_nor_for_ever_for_one_that_hangs(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(repository, "_PATIENCE_S", 0.2)
        world.beat("serving-1", world.clock.time_ns())
        task = asyncio.ensure_future(world.repository.unload(OPERATOR, "e"))
        await rounds()
        await asyncio.to_thread(self.look_until, world, False)
        await task

    def look_until(self, world: World, loaded: bool) -> None:
        while world.is_loaded() is not loaded:
            world.follower.look()

    @in_loop
    async def test_what_is_so_already(self, world: World) -> None:
        task = asyncio.ensure_future(world.repository.load(OPERATOR, "e"))
        assert await waits(task)
        world.clock.advance(3 * FOLLOW_S + 1)
        await world.look()
        await task
        assert world.library.opened == 1


@only_sqlite
class TestRefused:
    @in_loop
    async def test_who_may_not(self, world: World) -> None:
        for role in ("client", "viewer"):
            for move in (world.repository.load, world.repository.unload):
                with pytest.raises(AccessDenied):
                    await move(Caller("default", "ada", role), "e")
        assert world.config() == {"capture": False}
        assert Audit(world.database, world.clock).entries("default") == []

    @in_loop
    async def test_what_is_not_there(self, world: World) -> None:
        for caller, name in ((OPERATOR, "nobody"), (Caller("other", "o", "admin"), "e")):
            for move in (world.repository.load, world.repository.unload):
                with pytest.raises(EndpointNotFound, match=f"no endpoint '{name}'"):
                    await move(caller, name)
        assert world.config() == {"capture": False}

    @in_loop
    async def test_an_endpoint_without_a_version(self, world: World) -> None:
        world.put(None, "empty")
        await world.look()
        with pytest.raises(NotReady, match="no version yet; deploy one with: predis deploy empty VERSION"):
            await world.repository.load(OPERATOR, "empty")

    @in_loop
    async def test_a_version_that_cannot_be_loaded(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(repository, "_PATIENCE_S", 0.2)
        world.put({2: 1.0}, "broken")
        world.library.broken.add(2)
        await world.look()
        with pytest.raises(NotReady, match="'broken' could not be loaded; the worker's log says why"):
            await world.repository.load(OPERATOR, "broken")


@only_sqlite
class TestDatabaseAway:
    class Moody(Database):
        away = False

        @contextmanager
        def read(self) -> Iterator[sa.Connection]:
            if self.away:
                raise Unavailable("away")
            with super().read() as connection:
                yield connection

    @pytest.fixture
    def world(
        self, database: Database, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> Any:
        monkeypatch.setattr(repository, "_LOOK_S", 0.001)
        monkeypatch.setattr(follower, "_MOMENT_S", 30.0)
        moody = self.Moody(database.url)
        found = World(moody, tmp_path, clock)
        found.put({1: 1.0})
        found.follower.look()
        yield found
        moody.close()

    @in_loop
    async def test_from_the_start(self, world: Any) -> None:
        world.database.away = True
        with pytest.raises(Unavailable):
            await world.repository.unload(OPERATOR, "e")

    @in_loop
    async def test_before_the_others_have_signed_in(self, world: Any) -> None:
        """They cannot follow either, and will when it is back."""
        task = asyncio.ensure_future(world.repository.unload(OPERATOR, "e"))
        assert await waits(task)
        await world.look()
        assert await waits(task)
        world.database.away = True
        await task
