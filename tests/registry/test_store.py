from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from predis.registry.model import File, Version, digest_of
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.registry.store import RegistryStore
from predis.state.engine import Database

FILES = (File("model.txt", "ab" * 32, 3),)
DRAFT = Version(
    tenant="default",
    model="churn",
    number=0,
    format="lightgbm",
    digest=digest_of(FILES),
    files=FILES,
    signature=Signature(
        (Field("kind", "BYTES", nullable=True, levels=("a", "é")),), (PROBABILITY,), "probability"
    ),
    metrics={"auc": 0.1 + 0.2},
    lineage={"commit": "abc", "nested": {"list": [1, None, "x"]}},
    created_at=2**60 + 1,
    created_by="alice",
    profile={"bins": []},
    seal="5e" * 64,
)


@pytest.fixture
def store(database: Database) -> RegistryStore:
    return RegistryStore(database)


def add(database: Database, version: Version = DRAFT) -> int:
    with database.write() as connection:
        return RegistryStore(database).add_version(connection, version)


def point(database: Database, alias: str, version: int | None, *, tenant: str = "default") -> int | None:
    row = {
        "tenant": tenant,
        "model": "churn",
        "alias": alias,
        "version": version,
        "moved_at": 1,
        "moved_by": "a",
    }
    with database.write() as connection:
        return RegistryStore(database).move_alias(connection, row)


class TestVersions:
    def test_one_comes_back_whole(self, database: Database, store: RegistryStore) -> None:
        assert add(database) == 1
        assert store.version("default", "churn", number=1) == replace(DRAFT, number=1)

    def test_no_profile_is_none(self, database: Database, store: RegistryStore) -> None:
        add(database, replace(DRAFT, profile=None))
        found = store.version("default", "churn", number=1)
        assert found is not None
        assert found.profile is None

    def test_numbers_count_up_per_model_and_tenant(self, database: Database, store: RegistryStore) -> None:
        assert [add(database) for _ in range(3)] == [1, 2, 3]
        assert add(database, replace(DRAFT, model="other")) == 1
        assert add(database, replace(DRAFT, tenant="acme")) == 1
        assert [v.number for v in store.versions("default", "churn")] == [3, 2, 1]

    def test_lists_leave_out_the_profiles(self, database: Database, store: RegistryStore) -> None:
        add(database)
        assert store.versions("default", "churn") == [replace(DRAFT, number=1, profile=None)]

    def test_a_number_is_given_once(self, database: Database) -> None:
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda _: add(database), range(30)))
        assert sorted(found) == list(range(1, 31))

    def test_a_transaction_that_fails_leaves_nothing(self, database: Database, store: RegistryStore) -> None:
        with pytest.raises(RuntimeError), database.write() as connection:
            store.add_version(connection, DRAFT)
            raise RuntimeError
        assert store.newest("default", "churn") is None
        assert store.versions("default", "churn") == []
        assert add(database) == 1

    def test_what_is_not_there(self, store: RegistryStore) -> None:
        assert store.version("default", "churn", number=1) is None
        assert store.versions("default", "churn") == []
        assert store.models("default") == []
        assert store.aliases("default", "churn") == {}


class TestModels:
    def test_newest_and_count(self, database: Database, store: RegistryStore) -> None:
        for _ in range(2):
            add(database)
        add(database, replace(DRAFT, model="a-first"))
        add(database, replace(DRAFT, tenant="acme", model="theirs"))
        rows = [
            (row["name"], row["newest"], row["count"], row["created_at"]) for row in store.models("default")
        ]
        assert rows == [("a-first", 1, 1, DRAFT.created_at), ("churn", 2, 2, DRAFT.created_at)]

    def test_of_another_tenant(self, database: Database, store: RegistryStore) -> None:
        add(database)
        assert store.newest("default", "churn") == 1
        assert store.newest("acme", "churn") is None
        assert store.version("acme", "churn", number=1) is None
        assert store.versions("acme", "churn") == []


class TestAliases:
    def test_move(self, database: Database, store: RegistryStore) -> None:
        assert point(database, "champion", 1) is None
        assert point(database, "champion", 2) == 1
        point(database, "challenger", 3)
        assert store.aliases("default", "churn") == {"champion": 2, "challenger": 3}

    def test_are_the_tenant_s(self, database: Database, store: RegistryStore) -> None:
        point(database, "champion", 1)
        assert point(database, "champion", 5, tenant="acme") is None
        assert store.aliases("default", "churn") == {"champion": 1}
        assert store.aliases("acme", "churn") == {"champion": 5}

    def test_every_move_is_noted(self, database: Database, store: RegistryStore) -> None:
        for version in (1, 2, None, 3):
            point(database, "champion", version)
        point(database, "champion", 7, tenant="acme")
        moves = [(m["before"], m["after"]) for m in store.alias_moves("default", "churn", limit=10)]
        assert moves == [(None, 3), (2, None), (1, 2), (None, 1)]
        assert len(store.alias_moves("default", "churn", limit=2)) == 2
        assert store.aliases("default", "churn") == {"champion": 3}


class TestDeleting:
    def test_numbers_do_not_come_back(self, database: Database, store: RegistryStore) -> None:
        for _ in range(2):
            add(database)
        with database.write() as connection:
            assert store.hold(connection, "default", model="churn", number=2)
            store.delete_version(connection, "default", model="churn", number=2)
            assert not store.hold(connection, "default", model="churn", number=2)
        assert store.newest("default", "churn") == 1
        assert add(database) == 3
