from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from predis.access import Caller, Keys
from predis.access.keys import LOCAL
from predis.app.worker import ServingWorker
from predis.clock import ManualClock
from predis.errors import (
    EndpointNotFound,
    IntegrityFailure,
    ModelFailure,
    NotReady,
    Unauthenticated,
    Unavailable,
    VersionNotFound,
)
from predis.metrics import Metrics
from predis.registry.model import Registration, Version
from predis.serving import follower as follower_module
from predis.serving import runtimes
from predis.serving.capture import Capture
from predis.serving.endpoints import Endpoints
from predis.serving.follower import ALIVE_S, HEARTBEAT_S, RETRY_S, Follower, Sources, alive
from predis.serving.inputs import Inputs
from predis.serving.plane import AppliedRoute, Plane
from predis.serving.protocol import decode_request
from predis.serving.route import Segment, Split
from predis.serving.served import ServedVersion
from predis.serving.snapshot import Snapshot
from predis.serving.store import Endpoint, ServingStore, Worker
from predis.settings import Settings
from predis.state import ArtifactStore, Database
from predis.state.journal import JournalReader, Position
from predis.state.records import decode
from predis.state.schema import endpoints as endpoint_rows
from tests.registries import open_registry
from tests.serving.helpers import (
    COLUMNS,
    LIMITS,
    ONE,
    FakeRuntime,
    ListSink,
    ask,
    body,
    booster_text,
    call,
    in_loop,
    rounds,
    served,
    table,
    tensor,
    version,
)

only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class MoodyDatabase(Database):
    """Refuses to be read or written when told, as one does whose server is away."""

    reads = writes = True

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        if not self.reads:
            raise Unavailable("the state database does not answer: away")
        with super().read() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        if not self.writes:
            raise Unavailable("the state database does not answer: read-only")
        with super().write() as connection:
            yield connection

    def away(self, away: bool = True) -> None:
        self.reads = self.writes = not away


class FakeLibrary:
    """Opens versions that answer their own numbers, unless something is the matter with one."""

    def __init__(self) -> None:
        self.metrics = Metrics(None, "test")
        self.lost: dict[int, Exception] = {}
        self.broken: dict[int, Exception] = {}
        self.slow: dict[int, threading.Event] = {}
        self.opened: list[tuple[str, int]] = []
        self.runtimes: dict[int, FakeRuntime] = {}
        self.alive: dict[int, weakref.ref[Any]] = {}

    def version(self, endpoint: Endpoint, number: int) -> Version:
        if number in self.lost:
            raise self.lost[number]
        return version(number, model=endpoint.model, tenant=endpoint.tenant)

    def open(self, version: Version, endpoint: str) -> ServedVersion:
        self.opened.append((endpoint, version.number))
        if version.number in self.slow:
            assert self.slow[version.number].wait(30)
        if version.number in self.broken:
            raise self.broken[version.number]
        runtime = self.runtimes.get(version.number)
        found = served(
            version.number, runtime, endpoint=endpoint, tenant=version.tenant, metrics=self.metrics
        )
        self.alive[version.number] = weakref.ref(found)
        return found


class World:
    """A state database, and workers that follow it. ``start`` is a new process: it remembers what is on disk, no more."""

    def __init__(self, url: str, folder: Path, *, clock: ManualClock) -> None:
        self.clock = clock
        self.folder = folder
        self.database = MoodyDatabase(url)
        self.store = ServingStore(self.database)
        self.issuer = Keys(self.database, clock)
        self.start()

    def start(self) -> None:
        self.plane = Plane(Capture(ListSink(), self.clock))
        self.keys = Keys(self.database, self.clock, refresh_s=float("inf"))
        self.library = FakeLibrary()
        snapshot = Snapshot(self.folder / "routes.json")
        sources = Sources(self.store, self.keys, self.library, snapshot, self.library.metrics)
        self.follower = Follower(self.plane, sources, worker="serving-0", clock=self.clock)

    def look(self) -> bool:
        return self.follower.look()

    def put(
        self, weights: dict[int, float], endpoint: str = "e", *, tenant: str = "default", **split: Any
    ) -> None:
        """A new Route, and the endpoint if it is not there yet."""
        found = Endpoint(tenant, endpoint, "m", 0, {}, 0)
        with self.database.write() as connection:
            self.store.add_endpoint(connection, found)
            route = Split(weights, **split)
            self.store.put_route(connection, found, route=route, reason="", at=0, actor="test")

    def configure(self, endpoint: str = "e", **config: Any) -> None:
        with self.database.write() as connection:
            self.store.set_config(connection, Endpoint("default", endpoint, "m", 0, {}, 0), config=config)

    def remove(self, endpoint: str = "e") -> None:
        with self.database.write() as connection:
            connection.execute(endpoint_rows.delete().filter_by(name=endpoint))

    def answer(self, endpoint: str = "e", *, caller: Caller = LOCAL, version: str | None = None) -> int:
        """The number of the version that answers."""
        request = decode_request(body(tensor("x", "FP64", [1])), LIMITS)
        asked = call(request, endpoint, caller=caller, version=version)
        return asyncio.run(self.plane.infer(asked)).served.number

    def loaded(self, number: int, endpoint: str = "e") -> float:
        """What the metrics say of a version."""
        labels = {"tenant": "default", "endpoint": endpoint, "version": str(number)}
        return self.library.metrics.gauge("predis_version_loaded", **labels).value

    @property
    def report(self) -> Worker:
        (worker,) = self.store.workers()
        return worker


@pytest.fixture
def world(
    database: Database, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    # A look waits for what it has begun to load; here until it is there, however busy the machine is.
    monkeypatch.setattr(follower_module, "_MOMENT_S", 30.0)
    found = World(database.url, tmp_path / "home", clock=clock)
    yield found
    found.database.close()


class TestApplying:
    def test_new_routes(self, world: World) -> None:
        """On both databases; the rest of this file is about the follower and needs one."""
        assert not world.plane.ready()
        assert not world.look()
        assert world.plane.ready()
        world.put({1: 1.0})
        assert world.look()
        assert not world.look()
        assert world.answer() == 1
        world.put({1: 0.0, 2: 1.0})
        world.put({3: 1.0}, "f", tenant="other")
        assert world.look()
        assert (world.answer(), world.answer(version="1")) == (2, 1)
        assert world.answer("f", caller=Caller("other", "o", "client")) == 3
        assert world.report.applied == {"default/e": 2, "other/f": 1}
        assert world.report.problems == {}

    @only_sqlite
    def test_versions_are_opened_once_in_the_routes_order(self, world: World) -> None:
        world.put({5: 0.5, 3: 0.5})
        world.look()
        world.put({3: 0.5, 5: 0.4, 4: 0.1})
        world.look()
        assert world.library.opened == [("e", 5), ("e", 3), ("e", 4)]
        applied = world.plane.applied("default", "e")
        assert applied is not None
        assert list(applied.route.weights) == [3, 5, 4]

    @only_sqlite
    def test_versions_of_segments_and_shadows_are_opened_too_and_let_go(self, world: World) -> None:
        segments = (Segment("tenant == 'nobody'", {2: 1.0}),)
        world.put({1: 1.0}, segments=segments, shadows={3: 0.5}, salt="s")
        world.look()
        assert {number for _, number in world.library.opened} == {1, 2, 3}
        assert [world.answer(version=str(number)) for number in (1, 2, 3)] == [1, 2, 3]
        applied = world.plane.applied("default", "e")
        assert applied is not None
        assert applied.route.split == Split({1: 1.0}, segments, {3: 0.5}, "s")
        del applied  # it holds on to its versions
        world.put({1: 1.0})
        world.look()
        world.look()
        gc.collect()
        assert {number for number, kept in world.library.alive.items() if kept()} == {1}

    @only_sqlite
    def test_versions_no_route_names_are_let_go(self, world: World) -> None:
        world.put({1: 0.5, 2: 0.5})
        world.look()
        world.put({2: 0.5, 3: 0.5})
        world.look()
        world.look()
        gc.collect()
        assert {number for number, kept in world.library.alive.items() if kept()} == {2, 3}
        world.put({1: 1.0})
        world.look()
        assert world.library.opened[-1] == ("e", 1)

    @only_sqlite
    def test_a_removed_endpoint(self, world: World) -> None:
        world.put({1: 1.0})
        world.put({2: 1.0}, "f")
        world.look()
        world.library.broken[3] = ModelFailure("bad")
        world.put({3: 1.0})
        world.look()
        world.remove("e")
        assert world.look()
        with pytest.raises(EndpointNotFound):
            world.answer()
        assert world.answer("f") == 2
        assert (world.report.applied, world.report.problems) == ({"default/f": 1}, {})
        world.look()
        gc.collect()
        assert {number for number, kept in world.library.alive.items() if kept()} == {2}
        world.start()
        world.database.away()
        world.look()
        with pytest.raises(EndpointNotFound):
            world.answer()


@only_sqlite
class TestLoading:
    """Versions are loaded beside the following of Routes."""

    @pytest.fixture
    def slow(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
        """Version 2 takes until it is set."""
        monkeypatch.setattr(follower_module, "_MOMENT_S", 0.0)
        world.put({1: 1.0})
        world.follower.catch_up()
        event = world.library.slow[2] = threading.Event()
        yield event
        event.set()

    def test_a_version_is_in_memory_before_its_route_is_applied(
        self, world: World, slow: threading.Event
    ) -> None:
        world.put({2: 1.0})
        for _look in range(3):
            assert not world.look()
            assert world.answer() == 1
        assert world.report.applied == {"default/e": 1}
        slow.set()
        world.follower.catch_up()
        assert world.answer() == 2
        assert world.report.applied == {"default/e": 2}
        assert world.library.opened == [("e", 1), ("e", 2)]

    def test_one_that_takes_long_holds_up_no_other_and_no_heartbeat(
        self, world: World, slow: threading.Event
    ) -> None:
        world.put({2: 1.0})
        world.put({3: 1.0}, "f")
        while not world.look():
            assert world.answer() == 1
        assert world.answer("f") == 3
        seen_at = world.report.seen_at
        world.clock.advance(HEARTBEAT_S)
        world.look()
        assert world.report.seen_at > seen_at

    def test_a_route_of_several_waits_for_the_last(self, world: World, slow: threading.Event) -> None:
        world.put({3: 0.5, 2: 0.5})
        for _look in range(5):
            world.look()
        assert world.answer() == 1
        slow.set()
        world.follower.catch_up()
        assert {world.answer(version=version) for version in ("2", "3")} == {2, 3}

    def test_what_was_loaded_in_vain_is_let_go(self, world: World, slow: threading.Event) -> None:
        """A newer Route came while it was being loaded."""
        world.put({2: 1.0})
        world.look()
        world.put({3: 1.0})
        world.follower.catch_up()
        assert world.answer() == 3
        slow.set()
        while world.loaded(2) or not world.library.alive.get(2):
            world.look()
        gc.collect()
        assert world.library.alive[2]() is None
        assert world.answer() == 3


@only_sqlite
class TestConfiguration:
    """An endpoint's configuration is followed like its Route."""

    def applied(self, world: World) -> AppliedRoute:
        found = world.plane.applied("default", "e")
        assert found is not None
        return found

    def test_a_change(self, world: World) -> None:
        world.put({1: 1.0})
        world.look()
        version = self.applied(world).versions[1]
        assert (self.applied(world).config.capture, version.batcher.policy.rows) == (True, 256)
        world.configure(capture=False, batching={"rows": 7}, cache={"ttl_s": 5})
        assert world.look()
        assert not world.look()
        applied = self.applied(world)
        assert applied.versions == {1: version}
        assert (applied.config.capture, version.batcher.policy.rows) == (False, 7)
        assert applied.cache is not None
        world.configure()
        world.look()
        assert self.applied(world).cache is None
        assert world.library.opened == [("e", 1)]

    @pytest.mark.parametrize("fresh", [False, True])
    def test_one_that_cannot_be_used_concerns_its_endpoint_alone(self, world: World, fresh: bool) -> None:
        """It cannot be set through Predis, but the database is a file."""
        world.put({1: 1.0})
        world.put({2: 1.0}, "f")
        if not fresh:
            world.look()
        world.configure(batching={"rows": "many"})
        world.look()
        assert world.report.problems["default/e"]["code"] == "invalid_input"
        assert world.answer("f") == 2
        if fresh:
            with pytest.raises(NotReady):
                world.answer()
        else:
            assert world.answer() == 1
        world.configure(batching={"rows": 5})
        world.look()
        assert (world.answer(), world.report.problems) == (1, {})

    def test_unloading_and_loading(self, world: World) -> None:
        runtime = world.library.runtimes[1] = FakeRuntime(ONE)
        world.put({1: 1.0})
        world.look()
        assert world.loaded(1) == 1
        world.configure(loaded=False)
        assert world.look()
        with pytest.raises(NotReady, match="is unloaded"):
            world.answer()
        assert world.report.applied == {"default/e": 1}  # it follows; there is nothing to hold up a rollout
        world.look()
        assert (runtime.closed, world.loaded(1)) == (1, 0)
        world.put({2: 1.0})
        world.look()
        assert world.report.applied == {"default/e": 2}
        assert world.library.opened == [("e", 1)]
        world.configure(loaded=True)
        world.look()
        assert (world.answer(), world.loaded(2)) == (2, 1)

    def test_an_unloaded_endpoint_stays_so_over_a_restart(self, world: World) -> None:
        world.put({1: 1.0})
        world.configure(loaded=False)
        world.look()
        world.start()
        world.database.away()
        world.look()
        with pytest.raises(NotReady, match="is unloaded"):
            world.answer()
        assert world.library.opened == []


@only_sqlite
class TestClosing:
    """A version's memory is given back once no request can come to it and its last one is answered: never under one."""

    @in_loop
    async def test_waits_for_the_last_request(self, world: World) -> None:
        gate = threading.Event()
        gate.set()

        def wait(features: Any) -> Any:
            assert gate.wait(30)
            return [features[:, 0]]

        runtime = world.library.runtimes[1] = FakeRuntime(ONE, wait)
        world.put({1: 1.0})
        await asyncio.to_thread(world.look)
        applied = world.plane.applied("default", "e")
        assert applied is not None
        applied.versions[1].cost.fixed_s = 0.1  # so that it runs in a thread
        gate.clear()
        request = decode_request(body(tensor("x", "FP64", [1])), LIMITS)
        task = asyncio.ensure_future(world.plane.infer(call(request)))
        await rounds()
        world.put({2: 1.0})
        for _look in range(3):
            await asyncio.to_thread(world.look)
            await rounds()
        assert (runtime.closed, world.loaded(1), task.done()) == (0, 1, False)
        gate.set()
        assert (await task).served.number == 1
        await asyncio.to_thread(world.look)
        assert (runtime.closed, world.loaded(1)) == (1, 0)

    @in_loop
    async def test_does_not_happen_while_the_event_loop_predicts(self, world: World) -> None:
        """A cheap prediction runs there; its library lets other threads run meanwhile."""
        closed = []

        def look_around(features: Any) -> Any:
            if started:
                world.put({2: 1.0})
                for _look in range(3):
                    looking = threading.Thread(target=world.look)
                    looking.start()
                    looking.join()
                closed.append(runtime.closed)
            return [features[:, 0]]

        started: list[bool] = []
        runtime = world.library.runtimes[1] = FakeRuntime(ONE, look_around)
        world.put({1: 1.0})
        world.look()
        started.append(True)
        request = decode_request(body(tensor("x", "FP64", [1])), LIMITS)
        assert (await world.plane.infer(call(request))).served.number == 1
        assert closed == [0]
        await rounds()
        world.look()
        assert runtime.closed == 1
        assert (await world.plane.infer(call(request))).served.number == 2

    @in_loop
    async def test_waits_until_the_loop_has_gone_round(self, world: World) -> None:
        """A request may have found the Route, and not have been counted yet."""
        runtime = world.library.runtimes[1] = FakeRuntime(ONE)
        world.put({1: 1.0})
        world.look()
        world.put({2: 1.0})
        world.look()
        world.look()
        assert runtime.closed == 0  # the loop has not run since
        await rounds()
        world.look()
        assert runtime.closed == 1

    def test_a_version_that_is_wanted_again_is_taken_back(self, world: World) -> None:
        runtime = world.library.runtimes[1] = FakeRuntime(ONE)
        world.put({1: 1.0})
        world.look()
        world.put({2: 1.0})
        world.look()
        world.put({1: 1.0})
        world.look()
        for _look in range(3):
            world.look()
        assert world.library.opened == [("e", 1), ("e", 2)]
        assert (runtime.closed, world.loaded(1), world.loaded(2)) == (0, 1, 0)
        assert world.plane.applied("default", "e").versions[1].runtime is runtime  # type: ignore[union-attr]


@only_sqlite
def test_the_metrics_name_the_route(world: World) -> None:
    gauge = world.library.metrics.gauge("predis_route", tenant="default", endpoint="e")
    world.put({1: 1.0})
    world.look()
    assert gauge.value == 1
    world.library.broken[2] = ModelFailure("bad")
    world.put({2: 1.0})
    world.look()
    assert gauge.value == 1
    world.put({1: 1.0})
    world.look()
    assert gauge.value == 3


@only_sqlite
class TestTrouble:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (IntegrityFailure("changed"), "integrity_failure"),
            (ModelFailure("no model"), "model_failure"),
            (OSError("bucket away"), "internal"),
            (MemoryError(), "internal"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
    )
    def test_with_a_version_keeps_the_old_route_and_is_reported(
        self, world: World, error: Exception, code: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever is raised: it concerns one endpoint, and never the others."""
        for name in ("a", "e", "z"):
            world.put({1: 1.0}, name)
        world.look()
        world.library.broken[2] = error
        for name in ("a", "e", "z"):
            world.put({2: 1.0} if name == "e" else {3: 1.0}, name)
        with caplog.at_level(logging.ERROR):
            assert world.look()
        assert [world.answer(name) for name in ("a", "e", "z")] == [3, 1, 3]
        assert world.report.applied == {"default/a": 2, "default/e": 1, "default/z": 2}
        (problem,) = world.report.problems.items()
        assert problem[0] == "default/e"
        assert (problem[1]["route"], problem[1]["code"]) == (2, code)
        assert str(error) in problem[1]["message"]
        assert "route 2 of default/e cannot be applied" in caplog.text

    def test_with_a_versions_row(self, world: World) -> None:
        world.put({1: 1.0})
        world.look()
        world.library.lost[2] = VersionNotFound("no version 2")
        world.put({2: 1.0})
        world.look()
        assert world.answer() == 1
        assert world.report.problems["default/e"]["code"] == "version_not_found"

    def test_with_one_of_several_keeps_none_of_them(self, world: World) -> None:
        world.put({1: 1.0})
        world.look()
        world.library.broken[3] = ModelFailure("bad")
        world.put({1: 0.5, 2: 0.25, 3: 0.25})
        world.look()
        world.look()
        gc.collect()
        assert {number for number, kept in world.library.alive.items() if kept()} == {1}

    def test_from_the_start_is_not_ready_instead_of_not_there(self, world: World) -> None:
        world.library.broken[1] = ModelFailure("bad")
        world.put({1: 1.0})
        world.look()
        with pytest.raises(NotReady):
            world.answer()
        assert world.report.applied == {"default/e": 0}

    def test_is_over_with_the_next_route(self, world: World) -> None:
        world.library.broken[1] = ModelFailure("bad")
        world.put({1: 1.0})
        world.look()
        world.put({2: 1.0})
        world.look()
        assert (world.answer(), world.report.problems) == (2, {})

    def test_is_looked_into_again_now_and_then(self, world: World) -> None:
        """The artifact store was away for a moment, or the file has been restored: no new Route comes for that."""
        world.put({1: 1.0})
        world.look()
        world.library.broken[2] = OSError("away")
        world.put({2: 1.0})
        world.look()
        for _look in range(3):
            world.clock.advance((RETRY_S - 0.1) / 3)
            world.look()
        assert world.library.opened.count(("e", 2)) == 1
        world.clock.advance(0.2)
        world.look()
        assert world.library.opened.count(("e", 2)) == 2
        assert world.answer() == 1
        world.library.broken.clear()
        world.clock.advance(RETRY_S + 0.1)
        assert world.look()
        assert (world.answer(), world.report.problems, world.report.applied) == (2, {}, {"default/e": 2})
        world.clock.advance(RETRY_S + 0.1)
        assert not world.look()

    def test_that_nobody_foresaw_does_not_end_the_following(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        looks: list[int] = []

        def look() -> bool:
            looks.append(1)
            if len(looks) == 3:
                world.follower._stop.set()
            raise RuntimeError("surprise")

        monkeypatch.setattr(world.follower, "look", look)
        world.follower.run(0)
        assert len(looks) == 3
        assert caplog.text.count("following Routes failed") == 3


@only_sqlite
class TestDatabaseAway:
    def test_serving_goes_on_and_following_resumes(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.put({1: 1.0})
        world.look()
        world.database.away()
        with caplog.at_level(logging.WARNING):
            for _look in range(5):
                assert not world.look()
                assert world.answer() == 1
        assert caplog.text.count("serving goes on with the last Routes") == 1
        world.database.away(False)
        world.put({2: 1.0})
        assert world.look()
        assert world.answer() == 2
        world.database.away()
        with caplog.at_level(logging.WARNING):
            world.look()
        assert caplog.text.count("serving goes on with the last Routes") == 2

    def test_a_restart_serves_from_the_snapshot_keys_included(self, world: World) -> None:
        key = world.issuer.create("ada", role="client", tenant="default")
        world.put({1: 1.0, 2: 0.0})
        world.put({}, "empty")
        world.look()
        world.start()
        world.database.away()
        assert not world.look()
        assert world.plane.ready()
        caller = world.keys.recognise(f"Bearer {key}")
        assert (caller.tenant, caller.role) == ("default", "client")
        with pytest.raises(Unauthenticated):
            world.keys.recognise("Bearer pk_other")
        assert (world.answer(caller=caller), world.answer(version="2")) == (1, 2)
        with pytest.raises(NotReady):
            world.answer("empty")
        with pytest.raises(EndpointNotFound):
            world.answer("nothing")
        world.database.away(False)
        world.put({3: 1.0})
        assert world.look()
        assert world.answer() == 3
        assert world.library.opened == [("e", 1), ("e", 2), ("e", 3)]

    def test_a_first_start_without_it_waits(self, world: World) -> None:
        world.database.away()
        assert not world.look()
        assert not world.plane.ready()
        with pytest.raises(NotReady):
            world.answer()
        world.database.away(False)
        world.look()
        assert world.plane.ready()

    def test_a_restart_with_no_endpoint_yet_knows_that_there_is_none(self, world: World) -> None:
        world.look()
        world.start()
        world.database.away()
        world.look()
        assert world.plane.ready()

    def test_an_endpoint_removed_meanwhile(self, world: World) -> None:
        world.put({1: 1.0})
        world.look()
        world.start()
        world.database.away()
        world.look()
        assert world.answer() == 1
        world.database.away(False)
        world.remove()
        world.look()
        with pytest.raises(EndpointNotFound):
            world.answer()

    def test_the_snapshot_is_of_what_was_applied_not_of_what_failed(self, world: World) -> None:
        world.put({1: 1.0})
        world.look()
        world.library.broken[2] = IntegrityFailure("changed")
        world.put({2: 1.0})
        world.look()
        world.start()
        world.library.broken[2] = IntegrityFailure("changed")
        world.database.away()
        world.look()
        assert world.answer() == 1

    def test_a_snapshot_one_version_of_which_is_gone_serves_the_rest(self, world: World) -> None:
        world.put({1: 1.0}, "e")
        world.put({2: 1.0}, "f")
        world.look()
        world.start()
        world.library.broken[1] = IntegrityFailure("changed")
        world.database.away()
        world.look()
        assert world.answer("f") == 2
        with pytest.raises(NotReady):
            world.answer("e")

    def test_the_snapshot_follows_the_keys_too(self, world: World) -> None:
        """The first key closes an installation, a revoked one no longer opens it; no Route need have changed since."""
        world.put({1: 1.0})
        world.look()
        first, second = (world.issuer.create(name, role="client") for name in ("ada", "eve"))
        world.look()
        world.issuer.revoke(world.issuer.listed()[1]["id"])
        world.look()
        world.start()
        world.database.away()
        world.look()
        assert world.keys.recognise(f"Bearer {first}").name == "ada"
        for header in ("", f"Bearer {second}"):
            with pytest.raises(Unauthenticated):
                world.keys.recognise(header)

    @pytest.mark.parametrize("fresh", [False, True])
    def test_halfway_through_a_look(self, world: World, fresh: bool) -> None:
        """Unavailable says nothing of a version: no problem is reported, no half state kept, and the next look goes on."""
        for name in ("a", "e"):
            world.put({1: 1.0}, name)
        world.look()
        if fresh:
            world.start()
        for name in ("a", "e"):
            world.put({2: 1.0} if name == "a" else {3: 1.0}, name)
        world.library.lost[3] = Unavailable("the state database does not answer: gone in between")
        assert not world.look()
        assert [world.answer(name) for name in ("a", "e")] == [1, 1]
        world.library.lost.clear()
        assert world.look()
        assert [world.answer(name) for name in ("a", "e")] == [2, 3]
        assert (world.report.applied, world.report.problems) == ({"default/a": 2, "default/e": 2}, {})
        world.start()
        world.database.away()
        world.look()
        assert [world.answer(name) for name in ("a", "e")] == [2, 3]

    def test_one_that_can_only_be_read(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """The heartbeat cannot be written, which is no reason not to follow."""
        world.put({1: 1.0})
        world.database.writes = False
        with caplog.at_level(logging.WARNING):
            for _look in range(3):
                world.look()
                world.clock.advance(HEARTBEAT_S)
        assert world.answer() == 1
        assert caplog.text.count("serving goes on") == 1
        assert world.store.workers() == []
        world.database.away(False)
        world.look()
        assert world.report.applied == {"default/e": 1}

    def test_stopping_without_it(self, world: World) -> None:
        world.look()
        world.database.away()
        world.follower.stop()


@only_sqlite
class TestHeartbeat:
    def test_once_in_a_while_and_at_every_change(self, world: World, clock: ManualClock) -> None:
        started = clock.time_ns()
        world.look()
        assert (world.report.started_at, world.report.seen_at) == (started, started)
        clock.advance(HEARTBEAT_S / 2)
        world.look()
        assert world.report.seen_at == started
        world.put({1: 1.0})
        world.look()
        assert world.report.seen_at == clock.time_ns() > started
        clock.advance(HEARTBEAT_S)
        world.look()
        assert (world.report.started_at, world.report.seen_at) == (started, clock.time_ns())

    def test_alive(self, world: World, clock: ManualClock) -> None:
        world.look()
        assert alive(world.report, clock.time_ns())
        clock.advance(ALIVE_S - 0.001)
        assert alive(world.report, clock.time_ns())
        clock.advance(0.001)
        assert not alive(world.report, clock.time_ns())

    def test_signs_off(self, world: World) -> None:
        world.look()
        world.follower.stop()
        assert world.store.workers() == []


# --- with a registry and real files -----------------------------------------------------------------------------------------


class Installation:
    """A home with the model ``m`` in two versions and the endpoint ``e``, and serving workers of it."""

    def __init__(self, settings: Settings, clock: ManualClock) -> None:
        self.settings, self.clock = settings, clock
        self.database = Database(settings.database_url)
        self.artifacts = ArtifactStore(settings.store_url)
        registry = open_registry(self.database, self.artifacts, clock=clock)
        self.versions = [
            registry.register(
                "default",
                Registration(model="m", format="lightgbm", files={"m.txt": self.artifacts.put(text).digest}),
                actor="ada",
            )
            for text in (booster_text(), booster_text(rounds=5))
        ]
        endpoints = Endpoints(self.database, registry, clock=clock)
        self.endpoint = endpoints.create("default", "e", model="m", config={}, actor="ada")
        self.store = endpoints.store

    def put(self, weights: dict[int, float]) -> None:
        with self.database.write() as connection:
            self.store.put_route(
                connection, self.endpoint, route=Split(weights), reason="", at=0, actor="test"
            )

    def path(self, number: int) -> Path:
        path = self.artifacts.local_path(self.versions[number - 1].files[0].digest)
        assert path is not None
        return path


@pytest.fixture
def installation(settings: Settings, clock: ManualClock, migrated_sqlite: Path) -> Iterator[Installation]:
    shutil.copyfile(migrated_sqlite, settings.home / "state.sqlite")
    # The tests look themselves; a worker's own thread would only come between.
    found = Installation(replace(settings, route_poll_ms=3_600_000), clock)
    yield found
    found.database.close()


@pytest.fixture
def start(installation: Installation) -> Iterator[Callable[[], ServingWorker]]:
    """Starts workers, one after the other: each stops the one before, as a process that is replaced."""
    running: list[ServingWorker] = []

    def stop() -> None:
        while running:
            running.pop().stop()

    def begin() -> ServingWorker:
        stop()
        running.append(ServingWorker(installation.settings, 0, clock=installation.clock))
        running[0].start()
        return running[0]

    yield begin
    stop()


ROWS = np.nan_to_num(table(5))
CONTENT = body(*(tensor(name, "FP64", ROWS[:, at].tolist()) for at, name in enumerate(COLUMNS)), id="r")
INFER = "/v2/models/e/infer"


def expected(rounds: int = 12) -> list[float]:
    runtime = runtimes.load("lightgbm", {"m": booster_text(rounds=rounds)})
    return [float(v) for v in runtime.predict(Inputs(len(ROWS), ROWS, {}))[0]]


def test_a_worker_answers_what_the_model_answers_and_keeps_the_record(
    installation: Installation, start: Callable[[], ServingWorker]
) -> None:
    installation.put({1: 1.0})
    reply = ask(start().rest, INFER, CONTENT)
    assert reply.status == 200
    assert reply.json["outputs"][0]["data"] == expected()
    batch = JournalReader(installation.settings.journal_folder / "serving-0").read(Position())
    (block,) = [decode(payload) for payload in batch.payloads]
    assert (block.endpoint, block.version, block.ids, block.rows.tolist()) == ("e", 1, ["r"], [len(ROWS)])
    assert block.scores.tolist() == expected()
    np.testing.assert_array_equal(block.features, ROWS)


def test_bytes_changed_on_disk_are_not_served(
    installation: Installation, start: Callable[[], ServingWorker]
) -> None:
    installation.put({1: 1.0})
    worker = start()
    installation.path(2).write_bytes(
        installation.path(2).read_bytes().replace(b"leaf_value=", b"leaf_value=9", 1)
    )
    installation.put({2: 1.0})
    worker.follower.look()
    (report,) = installation.store.workers()
    assert report.applied == {"default/e": 1}
    problem = report.problems["default/e"]
    assert (problem["route"], problem["code"]) == (2, "integrity_failure")
    reply = ask(worker.rest, INFER, CONTENT)
    assert (reply.json["model_version"], reply.json["outputs"][0]["data"]) == ("1", expected())


def test_an_endpoint_whose_only_version_is_damaged_says_so(
    installation: Installation, start: Callable[[], ServingWorker]
) -> None:
    whole = installation.path(1).read_bytes()
    installation.path(1).write_bytes(whole.replace(b"leaf_value=", b"leaf_value=9", 1))
    installation.put({1: 1.0})
    worker = start()
    (report,) = installation.store.workers()
    assert report.problems["default/e"]["code"] == "integrity_failure"
    reply = ask(worker.rest, INFER, CONTENT)
    assert (reply.status, reply.json["code"]) == (503, "not_ready")
    assert "could not be loaded" in reply.json["error"]
    installation.path(1).write_bytes(whole)  # restored from a backup
    installation.clock.advance(RETRY_S + 0.1)
    worker.follower.look()
    assert ask(worker.rest, INFER, CONTENT).json["outputs"][0]["data"] == expected()


def test_a_file_gone_from_disk(installation: Installation, start: Callable[[], ServingWorker]) -> None:
    installation.put({1: 1.0})
    worker = start()
    installation.path(2).unlink()
    installation.put({2: 1.0})
    worker.follower.look()
    (report,) = installation.store.workers()
    assert report.problems["default/e"]["code"] == "not_found"
    assert ask(worker.rest, INFER, CONTENT).json["model_version"] == "1"
    installation.artifacts.put(booster_text(rounds=5))  # restored from a backup
    installation.clock.advance(RETRY_S + 0.1)
    worker.follower.look()
    assert ask(worker.rest, INFER, CONTENT).json["outputs"][0]["data"] == expected(rounds=5)


def test_a_worker_restarted_while_the_database_is_away(
    installation: Installation, start: Callable[[], ServingWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Keys(installation.database, installation.clock).create("ada", role="client")
    headers = {"Authorization": f"Bearer {key}"}
    installation.put({2: 1.0})
    start()

    def refuse(_self: Database) -> Any:
        raise Unavailable("the state database does not answer: away")

    monkeypatch.setattr(Database, "read", refuse)
    monkeypatch.setattr(Database, "write", refuse)
    app = start().rest
    assert ask(app, "/v2/health/ready").status == 200
    reply = ask(app, INFER, CONTENT, headers=headers)
    assert (reply.status, reply.json["model_version"]) == (200, "2")
    assert reply.json["outputs"][0]["data"] == expected(rounds=5)
    assert ask(app, INFER, CONTENT).status == 401
    assert ask(app, INFER, CONTENT, headers={"Authorization": "Bearer pk_other"}).status == 401


def test_a_snapshot_whose_files_have_changed_is_not_served(
    installation: Installation, start: Callable[[], ServingWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.put({1: 1.0})
    start()
    installation.path(1).write_bytes(b"tree\n")

    def refuse(_self: Database) -> Any:
        raise Unavailable("the state database does not answer: away")

    monkeypatch.setattr(Database, "read", refuse)
    monkeypatch.setattr(Database, "write", refuse)
    reply = ask(start().rest, INFER, CONTENT)
    assert (reply.status, reply.json["code"]) == (503, "not_ready")
