from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from predis.access import Audit
from predis.clock import NANOSECONDS, SystemClock
from predis.errors import Conflict, NotFound, VersionNotFound
from predis.registry import Registration, Registry, Version
from predis.registry.garbage import DAY_S
from predis.serving.route import Split
from predis.serving.store import Endpoint, ServingStore
from predis.state import ArtifactStore, Database
from tests.registries import open_registry
from tests.toys import LABEL, booster, parquet, table

TENANT, MODEL = "default", "churn"
OLD_S = 10 * DAY_S
REFERENCE = parquet(table(50, seed=1))


@pytest.fixture
def clock() -> Any:
    """The file system's time is not ours to set."""
    return SystemClock()


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


@pytest.fixture
def registry(database: Database, artifacts: ArtifactStore, clock: SystemClock) -> Registry:
    return open_registry(database, artifacts, clock=clock)


def register(registry: Registry, artifacts: ArtifactStore, note: str = "", **changes: Any) -> Version:
    content = booster() + f"# {note}".encode()
    wanted = Registration(
        model=MODEL, format="lightgbm", files={"model.txt": artifacts.put(content).digest}, **changes
    )
    return registry.register(changes.pop("tenant", TENANT), wanted, actor="alice")


def age(artifacts: ArtifactStore, digest: str, seconds: float = OLD_S) -> None:
    path = artifacts.local_path(digest)
    assert path is not None
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


def collect(registry: Registry, *, older_than_s: float = DAY_S, **more: Any) -> dict[str, Any]:
    given = {"keep_last": None, "dry_run": False, **more}
    return registry.garbage.collect(TENANT, older_than_s=older_than_s, actor="root", **given)


class TestDelete:
    def test_what_nothing_needs(
        self, registry: Registry, artifacts: ArtifactStore, database: Database, clock: SystemClock
    ) -> None:
        register(registry, artifacts)
        last = register(registry, artifacts, "2")
        registry.garbage.delete(TENANT, MODEL, number=2, actor="root")
        with pytest.raises(VersionNotFound):
            registry.version(TENANT, MODEL, reference=2)
        assert registry.resolve(TENANT, MODEL, reference="latest") == 1
        assert artifacts.exists(last.files[0].digest)  # until the next collection
        assert register(registry, artifacts, "3").number == 3
        told = [e for e in Audit(database, clock).entries(TENANT) if e["action"] == "model.delete"]
        assert [(e["actor"], e["target"]) for e in told] == [("root", "churn@2")]

    def test_the_last_one_takes_the_model_along(self, registry: Registry, artifacts: ArtifactStore) -> None:
        register(registry, artifacts)
        registry.garbage.delete(TENANT, MODEL, number=1, actor="root")
        assert registry.models(TENANT) == []
        for reference in ("latest", 1):
            with pytest.raises(NotFound):
                registry.version(TENANT, MODEL, reference=reference)
        assert register(registry, artifacts).number == 2

    def test_what_can_still_be_needed(self, registry: Registry, artifacts: ArtifactStore) -> None:
        register(registry, artifacts)
        register(registry, artifacts, parent=1)
        register(registry, artifacts)
        registry.alias(TENANT, MODEL, alias="champion", to=2, actor="bob")
        registry.garbage.in_use = {"the Route of an endpoint": lambda _connection: {(TENANT, MODEL, 3)}}
        for number, why in (
            (1, "version 2 goes back to it"),
            (2, "the alias 'champion' points at it"),
            (3, "the Route of an endpoint names it"),
        ):
            with pytest.raises(Conflict, match=why):
                registry.garbage.delete(TENANT, MODEL, number=number, actor="root")
        registry.garbage.in_use = {}
        registry.delete_alias(TENANT, MODEL, alias="champion", actor="bob")
        for number in (3, 2, 1):
            registry.garbage.delete(TENANT, MODEL, number=number, actor="root")

    @pytest.mark.parametrize(
        ("tenant", "model", "number"), [(TENANT, MODEL, 2), ("acme", MODEL, 1), (TENANT, "x", 1)]
    )
    def test_what_is_not_there(
        self, registry: Registry, artifacts: ArtifactStore, tenant: str, model: str, number: int
    ) -> None:
        register(registry, artifacts)
        with pytest.raises(VersionNotFound):
            registry.garbage.delete(tenant, model, number=number, actor="root")


class TestCollect:
    def test_takes_what_is_unnamed_and_old(
        self, registry: Registry, artifacts: ArtifactStore, database: Database, clock: SystemClock
    ) -> None:
        named = register(
            registry, artifacts, label=LABEL, reference=artifacts.put(REFERENCE).digest, holdout=artifacts.put(REFERENCE).digest,
            training=artifacts.put(b"not looked at").digest,
        )  # fmt: skip
        old, young = artifacts.put(b"old").digest, artifacts.put(b"young").digest
        for digest in artifacts.held().keys() - {young}:
            age(artifacts, digest)
        told = collect(registry, dry_run=True)
        assert artifacts.exists(old)
        found = collect(registry)
        assert {**told, "dry_run": False} == found
        assert (found["artifacts"], found["bytes"], found["versions"]) == (1, 3, [])
        assert not artifacts.exists(old)
        assert artifacts.held().keys() == {
            young, named.files[0].digest, named.lineage["reference"], named.lineage["training"],
        }  # fmt: skip
        (entry,) = [e for e in Audit(database, clock).entries(TENANT) if e["action"] == "model.gc"]
        assert entry["detail"]["artifacts"] == 1

    def test_of_nothing(self, registry: Registry) -> None:
        assert collect(registry)["artifacts"] == 0

    def test_what_is_stored_again_is_new(self, registry: Registry, artifacts: ArtifactStore) -> None:
        digests = [artifacts.put(b"one").digest, artifacts.put(b"two").digest]
        for digest in digests:
            age(artifacts, digest)
        artifacts.put(b"one")
        collect(registry)
        assert [artifacts.exists(digest) for digest in digests] == [True, False]

    def test_spares_what_work_under_way_has_stored(
        self, registry: Registry, artifacts: ArtifactStore
    ) -> None:
        digest = artifacts.put(b"a training set").digest
        age(artifacts, digest)
        began = SystemClock().time_ns() - int(2 * OLD_S * NANOSECONDS)
        registry.garbage.since = (lambda _connection: None, lambda _connection: began)
        assert collect(registry)["artifacts"] == 0
        registry.garbage.since = (lambda _connection: None,)
        assert collect(registry)["artifacts"] == 1

    def test_takes_what_writes_have_left(
        self, registry: Registry, artifacts: ArtifactStore, tmp_path: Path
    ) -> None:
        folder = tmp_path / "artifacts" / "incoming"
        folder.mkdir(parents=True)
        for name in ("half", "under-way"):
            (folder / name).write_bytes(b"1")
        os.utime(folder / "half", (1, 1))
        assert collect(registry, dry_run=True)["strays"] == 1
        assert collect(registry)["strays"] == 1
        assert [path.name for path in folder.iterdir()] == ["under-way"]

    def test_old_versions_where_asked_for(self, registry: Registry, artifacts: ArtifactStore) -> None:
        for number in range(1, 7):
            register(registry, artifacts, f"{number}", parent=1 if number == 2 else 0)
        registry.alias(TENANT, MODEL, alias="stable", to=3, actor="bob")
        assert collect(registry, keep_last=1)["versions"] == []  # none is a day old
        told = collect(registry, older_than_s=0.0, keep_last=2, dry_run=True)
        # The parent is needed until its child is gone, which a dry run does not see.
        assert told["versions"] == ["churn@4", "churn@2"]
        found = collect(registry, older_than_s=0.0, keep_last=2)
        assert found["versions"] == ["churn@4", "churn@2", "churn@1"]
        assert [v.number for v in registry.versions(TENANT, MODEL)] == [6, 5, 3]
        assert len(artifacts.held()) == 3


class TestRaces:
    """Registrations, deployments, moves of aliases and collections at once: every version that exists is whole."""

    SECONDS_PATIENT = 60.0

    def run(self, *duties: Callable[[], object], rounds: int) -> list[BaseException]:
        """Each duty in a thread, so many times; those at the end of the list (collecting) until the first one is done."""
        done = threading.Event()
        failures: list[BaseException] = []

        def work(duty: Callable[[], object]) -> None:
            try:
                for _ in range(rounds):
                    duty()
            except BaseException as error:
                failures.append(error)
            finally:
                if duty is duties[0]:
                    done.set()

        def sweep(duty: Callable[[], object]) -> None:
            try:
                while not done.is_set():
                    duty()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(duty,)) for duty in duties[:-2]]
        threads += [threading.Thread(target=sweep, args=(duty,)) for duty in duties[-2:]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.SECONDS_PATIENT)
        assert not any(thread.is_alive() for thread in threads)
        return failures

    @pytest.fixture
    def other(self, database: Database, tmp_path: Path, clock: SystemClock) -> Any:
        """Another control process's registry."""
        second = Database(database.url)
        store = ServingStore(second)
        made = open_registry(second, ArtifactStore(str(tmp_path / "artifacts")), clock=clock)
        made.garbage.in_use = {"a Route": store.in_use}
        yield made
        second.close()

    @staticmethod
    def whole(registry: Registry) -> None:
        for version in registry.versions(TENANT, MODEL):
            report = registry.verify(TENANT, MODEL, reference=version.number)
            assert report["ok"], report

    def test_without_a_time_of_grace(
        self, registry: Registry, other: Registry, artifacts: ArtifactStore
    ) -> None:
        """Uploads may go before they are named; then the registration fails whole, and says so."""
        numbers = itertools.count()
        lost = []

        def add() -> None:
            try:
                register(registry, artifacts, f"{next(numbers) % 5}")
            except NotFound as error:
                lost.append(error)

        failures = self.run(
            add, add, lambda: collect(registry, older_than_s=-60.0), lambda: collect(other, older_than_s=-60.0, keep_last=3),
            rounds=25,
        )  # fmt: skip
        assert failures == []
        self.whole(registry)
        assert len(lost) < 50

    def test_with_one(
        self,
        registry: Registry,
        other: Registry,
        artifacts: ArtifactStore,
        database: Database,
        clock: SystemClock,
    ) -> None:
        """No registration, deployment or move fails but for a version that was deleted, and what is used stays."""
        store = ServingStore(database)
        endpoint = Endpoint(TENANT, "e", MODEL, 0, {}, 1)
        with database.write() as connection:
            store.add_endpoint(connection, endpoint)
        registry.garbage.in_use = {"a Route": store.in_use}
        register(registry, artifacts, "0")
        for digest in artifacts.held():
            age(artifacts, digest)
        numbers = itertools.count(1)

        def add() -> None:
            # What is registered again and again has grown old since: storing it makes it new.
            digest = artifacts.put(booster() + f"# {next(numbers) % 4}".encode()).digest
            wanted = Registration(model=MODEL, format="lightgbm", files={"model.txt": digest})
            made = registry.register(TENANT, wanted, actor="alice")
            age(artifacts, made.files[0].digest)

        def deploy() -> None:
            number = registry.resolve(TENANT, MODEL, reference="latest")
            try:
                with database.write() as connection:
                    registry.hold(connection, TENANT, model=MODEL, number=number)
                    store.put_route(
                        connection, endpoint, route=Split({number: 1.0}), reason="", at=1, actor="a"
                    )
            except VersionNotFound:
                return
            registry.read_files(registry.version(TENANT, MODEL, reference=number))

        def move() -> None:
            try:
                registry.alias(TENANT, MODEL, alias="champion", to="latest", actor="bob")
            except VersionNotFound:
                return
            registry.version(TENANT, MODEL, reference="champion")

        failures = self.run(
            add, deploy, move, lambda: collect(registry), lambda: self.sweep(other), rounds=25
        )
        assert failures == []
        self.whole(registry)
        champion = registry.version(TENANT, MODEL, reference="champion")
        with database.read() as connection:
            used = store.in_use(connection)
        assert len(used) == 1
        for number in (champion.number, *(number for _t, _m, number in used)):
            registry.read_files(registry.version(TENANT, MODEL, reference=number))

    @staticmethod
    def sweep(registry: Registry) -> None:
        """Delete whatever may be deleted, as an administrator without mercy would."""
        for version in registry.versions(TENANT, MODEL)[1:]:
            try:
                registry.garbage.delete(TENANT, MODEL, number=version.number, actor="root")
            except (Conflict, VersionNotFound):
                continue
