from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from predis.access.store import AccessStore
from predis.errors import InvalidInput
from predis.state.engine import Database


@pytest.fixture
def store(database: Database) -> AccessStore:
    return AccessStore(database)


def key(key_id: str, *, tenant: str = "default", at: int = 1, **other: Any) -> dict[str, Any]:
    row = {"id": key_id, "tenant": tenant, "name": "alice", "role": "viewer", "digest": key_id * 4}
    return {**row, "created_at": at, "revoked_at": None, **other}


def entry(action: str, *, tenant: str = "default", at: int = 1) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "at": at,
        "actor": "alice",
        "action": action,
        "target": "t",
        "detail": {"é": [1, None]},
    }


class TestKeys:
    def test_listed_without_their_digests(self, store: AccessStore) -> None:
        for row in (key("bb", at=2), key("aa", at=3), key("cc", at=1), key("dd", tenant="acme")):
            store.add_key(row, entry=entry("key.create"))
        found = store.keys("default")
        assert [row["id"] for row in found] == ["cc", "bb", "aa"]
        assert all("digest" not in row for row in found)
        assert {row.id for row in store.all_keys()} == {"aa", "bb", "cc", "dd"}

    def test_a_digest_is_unique(self, store: AccessStore) -> None:
        store.add_key(key("aa"), entry=entry("key.create"))
        with pytest.raises(sa.exc.IntegrityError):
            store.add_key(key("bb", digest="aa" * 4), entry=entry("failed"))
        assert [row["action"] for row in store.entries("default", limit=9)] == ["key.create"]

    def test_revoked_once(self, store: AccessStore) -> None:
        store.add_key(key("aa"), entry=entry("key.create"))
        assert not store.revoke_key("aa", tenant="acme", at=4, entry=entry("theirs"))
        assert store.revoke_key("aa", tenant="default", at=5, entry=entry("key.revoke"))
        assert not store.revoke_key("aa", tenant="default", at=6, entry=entry("again"))
        assert [row.revoked_at for row in store.all_keys()] == [5]
        assert [row["action"] for row in store.entries("default", limit=9)] == ["key.revoke", "key.create"]

    @pytest.mark.parametrize("database", ["postgresql"], indirect=True)
    @pytest.mark.parametrize("change", [{"name": "x" * 129}, {"name": "a\0b"}, {"created_at": 2**70}])
    def test_what_does_not_fit_is_the_input_s_fault(self, store: AccessStore, change: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput, match="cannot hold a value"):
            store.add_key(key("aa", **change), entry=entry("failed"))
        assert store.all_keys() == []


class TestEntries:
    def test_newest_first_and_no_more_than_asked(self, store: AccessStore, database: Database) -> None:
        with database.write() as connection:
            for place in range(5):
                store.add_entry(connection, entry(f"a{place}", at=7))
            store.add_entry(connection, entry("theirs", tenant="acme"))
        assert [row["action"] for row in store.entries("default", limit=3)] == ["a4", "a3", "a2"]
        assert store.entries("default", limit=1)[0]["detail"] == {"é": [1, None]}
        assert [row["action"] for row in store.entries("acme", limit=9)] == ["theirs"]
