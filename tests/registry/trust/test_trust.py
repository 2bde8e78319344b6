from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from predis.access import Audit
from predis.clock import ManualClock
from predis.errors import AlreadyExists, IntegrityFailure, InvalidInput, NotFound, Untrusted, VersionNotFound
from predis.registry import Registration, Registry, Version
from predis.registry.endorsing import Subject, endorse, make_key
from predis.registry.model import File, digest_of
from predis.serving.route import Route
from predis.serving.snapshot import Remembered, Snapshot
from predis.serving.store import Endpoint
from predis.state import ArtifactStore, Database
from predis.state.schema import endorsements, policies, versions
from tests.registries import open_registry
from tests.toys import booster

TENANT, MODEL = "default", "churn"


class Key(NamedTuple):
    """A user's key, as it lies in their files."""

    private: bytes
    public: str
    id: str

    def sign(self, content: bytes, *, model: str = MODEL) -> dict[str, str]:
        """What ``register --sign`` sends for a model of this one file."""
        file = File("model.txt", hashlib.sha256(content).hexdigest(), len(content))
        return dict([endorse(self.private, Subject(model, "lightgbm", digest_of((file,))))])


def new_key(registry: Registry, name: str = "Ann", *, tenant: str = TENANT) -> Key:
    private, public = make_key()
    return Key(
        private, public.decode(), registry.trust.trust(tenant, name, public_key=public.decode(), actor="root")
    )


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


@pytest.fixture
def registry(database: Database, artifacts: ArtifactStore, clock: ManualClock) -> Registry:
    return open_registry(database, artifacts, clock=clock)


@pytest.fixture
def ann(registry: Registry) -> Key:
    return new_key(registry)


class Registers:
    def __init__(self, registry: Registry, artifacts: ArtifactStore) -> None:
        self._registry, self._artifacts = registry, artifacts

    def __call__(
        self, content: bytes | None = None, *, given: dict[str, str] | None = None, tenant: str = TENANT
    ) -> Version:
        files = {"model.txt": self._artifacts.put(content or booster()).digest}
        wanted = Registration(model=MODEL, format="lightgbm", files=files, endorsements=given or {})
        return self._registry.register(tenant, wanted, actor="alice")


@pytest.fixture
def register(registry: Registry, artifacts: ArtifactStore) -> Registers:
    return Registers(registry, artifacts)


class TestKeys:
    def test_are_trusted_and_revoked_by_name(
        self, registry: Registry, ann: Key, database: Database, clock: ManualClock
    ) -> None:
        (shown,) = registry.trust.keys(TENANT)
        assert (shown["id"], shown["name"], shown["public_key"]) == (ann.id, "Ann", ann.public)
        assert (shown["added_by"], shown["revoked_at"]) == ("root", None)
        registry.trust.revoke(TENANT, ann.id, actor="bob")
        (shown,) = registry.trust.keys(TENANT)
        assert shown["revoked_by"] == "bob"
        assert shown["revoked_at"] is not None
        written = [(e["actor"], e["action"], e["target"]) for e in Audit(database, clock).entries(TENANT)]
        assert written == [("bob", "trust.key.revoke", ann.id), ("root", "trust.key.add", ann.id)]

    def test_a_revoked_key_does_not_come_back(self, registry: Registry, ann: Key) -> None:
        for _ in range(2):
            with pytest.raises(AlreadyExists, match="make a new one"):
                registry.trust.trust(TENANT, "Ann again", public_key=ann.public, actor="root")
            if not registry.trust.keys(TENANT)[0]["revoked_at"]:
                registry.trust.revoke(TENANT, ann.id, actor="root")

    def test_what_cannot_be_revoked(self, registry: Registry, ann: Key) -> None:
        registry.trust.revoke(TENANT, ann.id, actor="root")
        for tenant, key in ((TENANT, ann.id), (TENANT, "0" * 16), ("acme", ann.id)):
            with pytest.raises(NotFound):
                registry.trust.revoke(tenant, key, actor="root")

    @pytest.mark.parametrize(
        ("name", "public_key", "message"),
        [("", None, "key's name"), ("a\0", None, "key's name"), ("x" * 129, None, "key's name"), ("Ann", "no", "public"),
         ("Ann", "A" * 2_000, "at most 1000")],
    )  # fmt: skip
    def test_what_cannot_be_trusted(
        self, registry: Registry, name: str, public_key: str | None, message: str
    ) -> None:
        given = make_key()[1].decode() if public_key is None else public_key
        with pytest.raises(InvalidInput, match=message):
            registry.trust.trust(TENANT, name, public_key=given, actor="root")
        assert registry.trust.keys(TENANT) == []


class TestSigning:
    def test_at_registration(self, register: Registers, registry: Registry, ann: Key) -> None:
        version = register(given=ann.sign(booster()))
        assert [one.name for one in version.endorsements] == ["Ann"]
        assert registry.version(TENANT, MODEL) == version == registry.versions(TENANT, MODEL)[0]
        assert version.to_dict()["signed_by"] == [{"key": ann.id, "name": "Ann"}]

    def test_later_and_by_several(
        self, register: Registers, registry: Registry, ann: Key, database: Database, clock: ManualClock
    ) -> None:
        register()
        bob = new_key(registry, "Bob")
        for key in (ann, bob, ann):
            registry.sign(TENANT, MODEL, reference=1, signatures=key.sign(booster()), actor="alice")
        signed = registry.version(TENANT, MODEL)
        assert {one.name for one in signed.endorsements} == {"Ann", "Bob"}
        told = [e for e in Audit(database, clock).entries(TENANT) if e["action"] == "model.sign"]
        assert [(e["target"], e["detail"]["name"]) for e in told] == [
            ("churn@1", "Ann"), ("churn@1", "Bob"), ("churn@1", "Ann"),
        ]  # fmt: skip

    def test_signatures_that_do_not_fit(self, register: Registers, registry: Registry, ann: Key) -> None:
        register()
        stranger = Key(*make_key(), id="")  # type: ignore[arg-type]
        for given, message in (
            (ann.sign(booster("z")), "other files"),
            (ann.sign(booster(), model="other"), "another name"),
            ({ann.id: "00" * 64}, "does not fit"),
            (stranger.sign(booster()), "not trusted here"),
        ):
            with pytest.raises(Untrusted, match=message):
                registry.sign(TENANT, MODEL, reference=1, signatures=given, actor="alice")
            with pytest.raises(Untrusted, match=message):
                register(given=given)
        for many in ({}, {f"{n}": "" for n in range(17)}):
            with pytest.raises(InvalidInput):
                registry.sign(TENANT, MODEL, reference=1, signatures=many, actor="alice")
        assert registry.version(TENANT, MODEL).endorsements == ()
        assert len(registry.versions(TENANT, MODEL)) == 1

    def test_a_version_that_is_not_there(self, register: Registers, registry: Registry, ann: Key) -> None:
        register()
        with pytest.raises(VersionNotFound):
            registry.sign(TENANT, MODEL, reference=2, signatures=ann.sign(booster()), actor="alice")

    def test_a_revoked_key_signs_nothing_and_signed_nothing(
        self, register: Registers, registry: Registry, ann: Key
    ) -> None:
        register(given=ann.sign(booster()))
        registry.trust.revoke(TENANT, ann.id, actor="root")
        assert registry.version(TENANT, MODEL).endorsements == ()
        with pytest.raises(Untrusted):
            register(given=ann.sign(booster()))

    def test_keys_are_the_tenant_s(self, register: Registers, registry: Registry, ann: Key) -> None:
        with pytest.raises(Untrusted):
            register(given=ann.sign(booster()), tenant="acme")
        assert registry.trust.keys("acme") == []


class TestDemand:
    """Where signatures are demanded, three doors are shut to what is not signed."""

    @pytest.fixture(autouse=True)
    def demand(self, registry: Registry) -> None:
        registry.trust.require(TENANT, True, actor="root")

    def test_is_the_tenant_s_and_in_the_audit_log(
        self, registry: Registry, register: Registers, database: Database, clock: ManualClock
    ) -> None:
        assert registry.trust.required(TENANT)
        assert not registry.trust.required("acme")
        register(tenant="acme")
        registry.trust.require(TENANT, False, actor="bob")
        register()
        told = [e for e in Audit(database, clock).entries(TENANT) if e["action"] == "trust.policy"]
        assert [(e["actor"], e["detail"]) for e in told] == [
            ("bob", {"from": True, "to": False}),
            ("root", {"from": False, "to": True}),
        ]

    def test_registering(
        self, database: Database, artifacts: ArtifactStore, clock: ManualClock, registry: Registry
    ) -> None:
        """Refused before the file is so much as opened."""
        opened: list[str] = []
        cautious = open_registry(
            database, artifacts, clock=clock, inspect=lambda kind, *_a, **_k: opened.append(kind)
        )
        with pytest.raises(Untrusted, match="demands signatures"):
            Registers(cautious, artifacts)()
        assert opened == []
        ann = new_key(registry)
        assert Registers(registry, artifacts)(given=ann.sign(booster())).number == 1

    def test_deploying_and_loading(self, registry: Registry, register: Registers, ann: Key) -> None:
        registry.trust.require(TENANT, False, actor="root")
        register()
        registry.deployable(TENANT, MODEL, number=1)
        registry.trust.require(TENANT, True, actor="root")
        for refused in (
            lambda: registry.deployable(TENANT, MODEL, number=1),
            lambda: registry.read_files(registry.version(TENANT, MODEL)),
            lambda: registry.open(registry.version(TENANT, MODEL)),
        ):
            with pytest.raises(Untrusted, match="no key it trusts has signed churn@1"):
                refused()
        report = registry.verify(TENANT, MODEL, reference=1)
        assert not report["ok"]
        assert "demands signatures" in report["files"][0]["problem"]
        registry.sign(TENANT, MODEL, reference=1, signatures=ann.sign(booster()), actor="alice")
        assert registry.deployable(TENANT, MODEL, number=1).number == 1
        assert registry.read_files(registry.version(TENANT, MODEL)) == {"model.txt": booster()}
        registry.trust.revoke(TENANT, ann.id, actor="root")
        with pytest.raises(Untrusted):
            registry.deployable(TENANT, MODEL, number=1)

    def test_deploying_what_is_not_there(self, registry: Registry, register: Registers, ann: Key) -> None:
        register(given=ann.sign(booster()))
        with pytest.raises(VersionNotFound):
            registry.deployable(TENANT, MODEL, number=2)

    @pytest.mark.parametrize("database", ["sqlite"], indirect=True)
    def test_loading_without_the_database(
        self, registry: Registry, register: Registers, ann: Key, tmp_path: Path, database: Database
    ) -> None:
        """What a worker kept is enough to tell; and what somebody changed in it does not pass."""
        version = register(given=ann.sign(booster()))
        endpoint = Endpoint(TENANT, "e", MODEL, 1, {}, 1)
        kept = Snapshot(tmp_path / "routes.json")
        kept.save([Remembered(endpoint, Route("e", 1, {1: 1.0}), (version,))], None)
        (remembered,), _keys = kept.load()
        (found,) = remembered.versions
        database.close()
        assert found.must_be_signed
        assert registry.read_files(found) == {"model.txt": booster()}
        (one,) = found.endorsements
        stranger = make_key()[1].decode()
        for changed in (
            (),
            (replace(one, signature="00" * 64),),
            (replace(one, public_key=stranger),),
            (replace(one, public_key="nonsense"),),
        ):
            with pytest.raises(Untrusted):
                registry.read_files(replace(found, endorsements=changed))

    def test_a_row_that_was_tampered_with(
        self, registry: Registry, register: Registers, ann: Key, database: Database
    ) -> None:
        """Another version's signature, or files, do not make this one signed."""
        registry.trust.require(TENANT, False, actor="root")
        register()
        other = register(booster("z"), given=ann.sign(booster("z")))
        registry.trust.require(TENANT, True, actor="root")
        with database.write() as connection:
            connection.execute(endorsements.update().values(version=1))
        with pytest.raises(Untrusted):
            registry.read_files(registry.version(TENANT, MODEL, reference=1))
        with database.write() as connection:
            connection.execute(versions.update().where(versions.c.number == 1).values(digest=other.digest))
        with pytest.raises(IntegrityFailure):
            registry.read_files(registry.version(TENANT, MODEL, reference=1))

    def test_who_writes_to_the_database_can_drop_the_demand(
        self, registry: Registry, register: Registers, database: Database
    ) -> None:
        """Not what is hoped for, but what is: docs/how-to/trust-models.md says so."""
        with database.write() as connection:
            connection.execute(policies.delete())
        assert register().number == 1
