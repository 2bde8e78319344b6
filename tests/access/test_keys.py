from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
import sqlalchemy as sa

from predis.access.audit import Audit
from predis.access.keys import LOCAL, RIGHTS, ROLES, Caller, Keys
from predis.clock import ManualClock
from predis.errors import AccessDenied, InvalidInput, NotFound, Unauthenticated, Unavailable
from predis.state.engine import Database
from predis.state.schema import api_keys

only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def keys(database: Database, clock: ManualClock) -> Keys:
    return Keys(database, clock)


def bearer(key: str) -> str:
    return f"Bearer {key}"


def id_of(keys: Keys, name: str, tenant: str = "default") -> str:
    return next(str(row["id"]) for row in keys.listed(tenant) if row["name"] == name)


def take_away(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database goes silent for these keys."""

    def silent() -> list[Any]:
        raise Unavailable("the state database does not answer: gone")

    monkeypatch.setattr(keys._store, "all_keys", silent)


class TestRoles:
    @pytest.mark.parametrize(
        ("role", "rights"), [("client", 1), ("viewer", 2), ("operator", 3), ("admin", 4)]
    )
    def test_a_role_may_what_stands_left_of_it(self, role: str, rights: int) -> None:
        caller = Caller("default", "alice", role)
        for right in RIGHTS[:rights]:
            caller.require(right)
        for right in RIGHTS[rights:]:
            with pytest.raises(AccessDenied, match=f"alice has the role '{role}', which may not {right}"):
                caller.require(right)

    def test_each_has_a_right(self) -> None:
        assert set(ROLES.values()) == set(RIGHTS)


class TestRecognise:
    def test_without_keys_everybody_is_the_local_administrator(self, keys: Keys) -> None:
        assert not keys.exist()
        for header in (None, "", "Bearer pk_nonsense", "Basic abc"):
            assert keys.recognise(header) == LOCAL

    def test_a_key_says_tenant_name_and_role(self, keys: Keys) -> None:
        mine = keys.create("alice", role="operator")
        theirs = keys.create("bob", role="client", tenant="acme")
        assert keys.recognise(bearer(mine)) == Caller("default", "alice", "operator")
        assert keys.recognise(bearer(theirs)) == Caller("acme", "bob", "client")

    def test_from_the_first_key_on_everybody_needs_one(self, keys: Keys) -> None:
        keys.create("bob", role="client", tenant="acme")
        assert keys.exist()
        with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
            keys.recognise(None)

    @only_sqlite
    @pytest.mark.parametrize("scheme", ["Bearer {}", "bearer {}", "BEARER  {}", "Bearer {} "])
    def test_forms_of_the_header(self, keys: Keys, scheme: str) -> None:
        key = keys.create("alice", role="viewer")
        assert keys.recognise(scheme.format(key)).name == "alice"

    @only_sqlite
    @pytest.mark.parametrize(
        "header",
        ["", "{}", "Basic {}", "Bearer", "Bearer ", "Bearer {}x", "Bearer x{}", "Bearer {} {}", "Bearer é"],
    )
    def test_what_is_no_key(self, keys: Keys, header: str) -> None:
        key = keys.create("alice", role="viewer")
        with pytest.raises(Unauthenticated):
            keys.recognise(header.format(key, key))

    def test_neither_the_digest_nor_the_id_is_the_key(self, keys: Keys) -> None:
        key = keys.create("alice", role="viewer")
        for other in (hashlib.sha256(key.encode()).hexdigest(), id_of(keys, "alice")):
            with pytest.raises(Unauthenticated):
                keys.recognise(bearer(other))


class TestCreate:
    def test_the_key_itself_is_stored_nowhere(self, keys: Keys, database: Database) -> None:
        key = keys.create("alice", role="admin")
        assert key.startswith("pk_")
        assert len(key) == 46
        with database.read() as connection:
            row = connection.execute(sa.select(api_keys)).one()
        assert key[3:] not in str(row)
        assert row.digest == hashlib.sha256(key.encode()).hexdigest()
        assert set(keys.listed()[0]) == {"id", "tenant", "name", "role", "created_at", "revoked_at"}

    def test_no_two_are_the_same(self, keys: Keys) -> None:
        assert len({keys.create("alice", role="client") for _ in range(5)}) == 5

    def test_a_role_there_is_not(self, keys: Keys) -> None:
        with pytest.raises(InvalidInput, match="'root' is none of client, viewer, operator, admin"):
            keys.create("alice", role="root")
        assert not keys.exist()

    @only_sqlite
    @pytest.mark.parametrize("name", ["", " ", "x" * 129, "a\0b", "a\nb", "\ud800"])
    def test_a_name_that_cannot_stand_in_the_audit_log(self, keys: Keys, name: str) -> None:
        with pytest.raises(InvalidInput, match="1 to 128 printable"):
            keys.create(name, role="admin")
        assert not keys.exist()

    def test_the_longest_name(self, keys: Keys) -> None:
        assert keys.recognise(bearer(keys.create("ä" * 128, role="admin"))).name == "ä" * 128

    def test_listed_per_tenant_oldest_first(self, keys: Keys, clock: ManualClock) -> None:
        for name, tenant in (("first", "default"), ("theirs", "acme"), ("second", "default")):
            keys.create(name, role="viewer", tenant=tenant)
            clock.advance(60)
        assert [(row["name"], row["created_at"]) for row in keys.listed()] == [
            ("first", "2023-11-14T22:13:20Z"),
            ("second", "2023-11-14T22:15:20Z"),
        ]
        assert [row["name"] for row in keys.listed("acme")] == ["theirs"]


class TestRevoke:
    def test_is_seen_at_once_here(self, keys: Keys, clock: ManualClock) -> None:
        key, other = keys.create("alice", role="admin"), keys.create("bob", role="admin")
        clock.advance(1)
        keys.revoke(id_of(keys, "alice"))
        with pytest.raises(Unauthenticated):
            keys.recognise(bearer(key))
        assert keys.recognise(bearer(other)).name == "bob"
        revoked = {row["name"]: row["revoked_at"] for row in keys.listed()}
        assert revoked == {"alice": "2023-11-14T22:13:21Z", "bob": None}

    def test_is_seen_elsewhere_after_a_while(
        self, keys: Keys, database: Database, clock: ManualClock
    ) -> None:
        key = keys.create("alice", role="admin")
        keys.create("bob", role="admin")
        elsewhere = Keys(database, clock, refresh_s=2.0)
        assert elsewhere.recognise(bearer(key)).name == "alice"
        keys.revoke(id_of(keys, "alice"))
        clock.advance(1.9)
        assert elsewhere.recognise(bearer(key)).name == "alice"
        clock.advance(0.2)
        with pytest.raises(Unauthenticated):
            elsewhere.recognise(bearer(key))

    def test_a_new_key_is_seen_elsewhere_too(
        self, keys: Keys, database: Database, clock: ManualClock
    ) -> None:
        elsewhere = Keys(database, clock)
        assert elsewhere.recognise(None) == LOCAL
        key = keys.create("alice", role="viewer")
        clock.advance(2.1)
        assert elsewhere.recognise(bearer(key)).name == "alice"
        with pytest.raises(Unauthenticated):
            elsewhere.recognise(None)

    def test_the_last_one_opens_nothing(self, keys: Keys, database: Database, clock: ManualClock) -> None:
        """What listens beyond loopback does so because it had a key: it must not let everybody in without one."""
        key = keys.create("alice", role="admin")
        keys.revoke(id_of(keys, "alice"))
        for found in (keys, Keys(database, clock)):
            assert found.exist()
            for header in (None, bearer(key)):
                with pytest.raises(Unauthenticated):
                    found.recognise(header)
        again = keys.create("alice", role="admin")
        assert keys.recognise(bearer(again)).role == "admin"

    def test_is_in_the_audit_log_as_is_creating_one(
        self, keys: Keys, database: Database, clock: ManualClock
    ) -> None:
        key = keys.create("alice", role="admin", tenant="acme")
        keys.revoke(id_of(keys, "alice", "acme"), tenant="acme")
        entries = Audit(database, clock).entries("acme")
        assert [entry["action"] for entry in entries] == ["key.revoke", "key.create"]
        assert "alice" in entries[1]["target"]
        assert key[3:] not in str(entries)

    def test_what_is_not_there(self, keys: Keys) -> None:
        keys.create("theirs", role="admin", tenant="acme")
        theirs = id_of(keys, "theirs", "acme")
        for key_id in ("", "nonsense", "' OR 1=1 --", theirs):
            with pytest.raises(NotFound, match="no live key"):
                keys.revoke(key_id)
        keys.revoke(theirs, tenant="acme")
        with pytest.raises(NotFound):
            keys.revoke(theirs, tenant="acme")


@only_sqlite
class TestDatabaseAway:
    def test_the_known_keys_stay(
        self, keys: Keys, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = keys.create("alice", role="viewer")
        take_away(keys, monkeypatch)
        for _ in range(3):
            clock.advance(100)
            assert keys.recognise(bearer(key)).name == "alice"
            with pytest.raises(Unauthenticated):
                keys.recognise(None)
        with pytest.raises(Unavailable):
            keys.refresh()
        assert keys.recognise(bearer(key)).name == "alice"

    def test_it_is_not_asked_by_every_request(
        self, keys: Keys, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = keys.create("alice", role="viewer")
        asked = 0

        def silent() -> list[Any]:
            nonlocal asked
            asked += 1
            raise Unavailable("gone")

        monkeypatch.setattr(keys._store, "all_keys", silent)
        clock.advance(100)
        for _ in range(10):
            keys.recognise(bearer(key))
        assert asked == 1

    def test_what_was_never_known_lets_nobody_in(self, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
        take_away(keys, monkeypatch)
        for header in (None, "Bearer pk_x"):
            with pytest.raises(Unavailable):
                keys.recognise(header)
        assert keys.snapshot() is None

    def test_a_data_plane_never_asks_by_itself(
        self, keys: Keys, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plane = Keys(database, clock, refresh_s=math.inf)
        plane.refresh()
        key = keys.create("alice", role="viewer")
        clock.advance(10**6)
        assert plane.recognise(bearer(key)) == LOCAL
        plane.refresh()
        take_away(plane, monkeypatch)
        clock.advance(10**6)
        assert plane.recognise(bearer(key)).name == "alice"


@only_sqlite
class TestSnapshot:
    def test_restores_what_was_known(
        self, keys: Keys, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key, revoked = keys.create("alice", role="client", tenant="acme"), keys.create("bob", role="admin")
        keys.revoke(id_of(keys, "bob"))
        snapshot = keys.snapshot()
        assert snapshot is not None
        assert key not in str(snapshot)
        again = Keys(database, clock, refresh_s=math.inf)
        take_away(again, monkeypatch)
        again.restore(snapshot)
        assert again.recognise(bearer(key)) == Caller("acme", "alice", "client")
        for header in (None, bearer(revoked)):
            with pytest.raises(Unauthenticated):
                again.recognise(header)
        assert again.snapshot() == snapshot

    def test_of_no_keys(self, keys: Keys, database: Database, clock: ManualClock) -> None:
        keys.refresh()
        snapshot = keys.snapshot()
        assert snapshot == {}
        again = Keys(database, clock, refresh_s=math.inf)
        again.restore(snapshot)
        assert again._known == {}

    def test_of_revoked_keys_only_lets_nobody_in(
        self, keys: Keys, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys.create("alice", role="admin")
        keys.revoke(id_of(keys, "alice"))
        again = Keys(database, clock, refresh_s=math.inf)
        take_away(again, monkeypatch)
        again.restore(keys.snapshot() or {})
        with pytest.raises(Unauthenticated):
            again.recognise(None)
