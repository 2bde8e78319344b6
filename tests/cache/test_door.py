"""API keys at the cache port: no key no entry, and Valkey holds each tenant to its own keys."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from predis.access import Keys
from predis.cache.door import Door
from predis.cache.link import Link
from predis.cache.resp import bulk, command
from predis.clock import SystemClock
from predis.errors import SetupError, Unavailable
from predis.state import Database, migrations
from tests.cache.gateways import Raw, Served, gateway, valkey, wait_until


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    database = Database(f"sqlite:///{tmp_path / 'state.sqlite'}")
    migrations.upgrade(database)
    yield Keys(database, SystemClock(), refresh_s=math.inf)
    database.close()


@pytest.fixture
def served(keys: Keys, tmp_path: Path) -> Iterator[Served]:
    with valkey(tmp_path / "valkey") as port, gateway(port) as made:

        async def wire() -> tuple[Link, Door]:
            link = Link(f"redis://127.0.0.1:{port}")
            door = Door(
                keys,
                link,
                patterns=lambda tenant: [b"~predis:none:%b:*" % tenant.encode()],
                secret=tmp_path / "secret",
            )
            await door.look()
            made.gateway.guard(door)
            return link, door

        link, made.door = made.do(wire())  # type: ignore[attr-defined]
        yield made
        made.do(link.close())


def come(served: Served, key: str) -> Raw:
    client = Raw(served.port)
    assert client.ask(command(b"AUTH", key.encode())) == b"+OK\r\n"
    return client


def look(served: Served) -> None:
    served.do(served.door.look())  # type: ignore[attr-defined]


def test_without_keys_everybody_may(served: Served) -> None:
    client = Raw(served.port)
    assert client.ask(command(b"SET", b"a", b"1")) == b"+OK\r\n"
    client.close()


def test_as_long_as_nobody_knows_the_keys_nobody_may(
    keys: Keys, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that starts while the state database is away: there may be keys."""

    def away() -> None:
        raise Unavailable("it is away")

    monkeypatch.setattr(keys, "refresh", away)
    served = request.getfixturevalue("served")
    client = Raw(served.port)
    asked = [command(b"GET", b"a"), command(b"HELLO", b"3"), command(b"AUTH", b"pk_some")]
    for reply in client.each(b"".join(asked), 3):
        assert reply.startswith(b"-LOADING Predis does not know yet who may come in")
    monkeypatch.undo()
    wait_until(lambda: client.ask(command(b"SET", b"a", b"1")) == b"+OK\r\n")
    client.close()


def test_with_keys_nobody_may_without_one(served: Served, keys: Keys) -> None:
    keys.create("first", role="admin")
    look(served)
    client = Raw(served.port)
    no = b"-NOAUTH Authentication required.\r\n"
    assert client.ask(command(b"GET", b"a") + command(b"PREDIS", b"PING"), 2) == no * 2
    assert client.ask(command(b"HELLO", b"3")).startswith(b"-NOAUTH HELLO must be called")
    assert client.ask(command(b"AUTH", b"pk_wrong") + command(b"GET", b"a"), 2) == (
        b"-WRONGPASS invalid username-password pair or user is disabled.\r\n" + no
    )
    client.send(b"*2\r\n$3\r\nGET\r\n$99999\r\n")
    assert b"unauthenticated bulk length" in client.rest()
    client.close()


def test_a_key_opens_what_its_tenant_and_role_may(served: Served, keys: Keys) -> None:
    writer = come(served, keys.create("w", role="operator", tenant="acme"))
    assert writer.ask(command(b"SET", b"acme:a", b"1") + command(b"GET", b"acme:a"), 2) == b"+OK\r\n" + bulk(
        b"1"
    )
    for denied in (
        command(b"SET", b"other:a", b"1"), command(b"GET", b"default"), command(b"KEYS", b"*"), command(b"SCAN", b"0"),
        command(b"FLUSHALL"), command(b"CONFIG", b"GET", b"*"), command(b"ACL", b"LIST"), command(b"SHUTDOWN"),
        command(b"EVAL", b"return redis.call('GET', 'x')", b"1", b"x"), command(b"SUBSCRIBE", b"other"), command(b"CLIENT", b"LIST"),
    ):  # fmt: skip
        asked = come(served, keys.create("again", role="client", tenant="acme"))
        assert b"NOPERM" in asked.ask(denied), denied
        asked.close()
    viewer = come(served, keys.create("v", role="viewer", tenant="acme"))
    assert viewer.ask(command(b"GET", b"acme:a")) == bulk(b"1")
    assert b"NOPERM" in viewer.ask(command(b"SET", b"acme:a", b"2"))
    for client in (writer, viewer):
        client.close()


def test_hello_logs_in_too_and_reset_logs_out_at_once(served: Served, keys: Keys) -> None:
    key = keys.create("k", role="admin").encode()
    look(served)
    client = Raw(served.port)
    sent = (
        command(b"HELLO", b"3", b"AUTH", b"anyone", key, b"SETNAME", b"me")
        + command(b"SET", b"a", b"1")
        + command(b"CLIENT", b"GETNAME")
    )
    got = client.ask(sent, 3)
    assert got.startswith(b"%")
    assert got.endswith(b"+OK\r\n" + bulk(b"me"))
    assert (
        client.ask(command(b"RESET") + command(b"GET", b"a"), 2)
        == b"+RESET\r\n-NOAUTH Authentication required.\r\n"
    )
    client.close()


def test_a_revoked_key_ends_its_connections(served: Served, keys: Keys) -> None:
    client = come(served, keys.create("gone", role="admin"))
    (row,) = keys.listed()
    keys.revoke(row["id"])
    assert client.rest() == b""
    client.close()


def test_who_needs_no_password_shows_nothing(served: Served, keys: Keys) -> None:
    """Valkey takes any password for such a user, and its ``default`` is one until told otherwise."""
    admin = Raw(served.port)
    admin.ask(command(b"ACL", b"SETUSER", b"AUTH", b"on", b">secret", b"~*", b"+@all"))
    assert admin.ask(command(b"AUTH", b"default", b"any")) == b"+OK\r\n"
    viewer = keys.create("v", role="viewer").encode()
    look(served)
    stranger = Raw(served.port)
    wrong, no = b"-WRONGPASS", b"-NOAUTH"
    for login in (
        command(b"AUTH", b"any"),
        command(b"AUTH", b"default", b"any"),
        command(b"HELLO", b"3", b"AUTH", b"default", b"any"),
        command(b"HELLO", b"3", b"AUTH", b"AUTH", b"secret", b"AUTH", b"default", b"any"),
        command(b"HELLO", b"3", b"AUTH", b"u", viewer, b"AUTH", b"default", b"any"),
        command(b"HELLO", b"3", b"SETNAME", b"AUTH", b"AUTH", b"default", b"any"),
    ):
        refused, still_outside = stranger.each(login + command(b"GET", b"a"), 2)
        assert refused.startswith(wrong), login
        assert still_outside.startswith(no), login
    keys.create("w", role="viewer")  # what it showed before there were keys is nothing either
    wait_until(lambda: admin.ask(command(b"GET", b"a")).startswith(no))
    for one in (admin, stranger):
        one.close()


@pytest.mark.parametrize(
    "login", [(b"AUTH", b"default", b"any"), (b"HELLO", b"3", b"AUTH", b"default", b"any")]
)
def test_nobody_becomes_somebody_else_in_a_transaction(
    served: Served, keys: Keys, login: tuple[bytes, ...]
) -> None:
    key = keys.create("v", role="viewer")
    look(served)
    client = come(served, key)
    replies = client.each(
        command(b"MULTI") + command(*login) + command(b"EXEC") + command(b"SET", b"a", b"1"), 4
    )
    assert replies[1].startswith(b"-ERR wrong number of arguments")
    assert replies[2].startswith(b"-EXECABORT")
    assert replies[3].startswith(b"-NOPERM")
    client.close()


def test_users_of_valkey_itself_may_log_in(served: Served, keys: Keys) -> None:
    admin = Raw(served.port)
    admin.ask(command(b"ACL", b"SETUSER", b"bob", b"on", b">secret", b"~*", b"+@all"))
    keys.create("first", role="admin")
    look(served)
    client = Raw(served.port)
    assert client.ask(command(b"AUTH", b"bob", b"wrong")).startswith(b"-WRONGPASS")
    assert client.ask(
        command(b"AUTH", b"bob", b"secret") + command(b"ACL", b"WHOAMI"), 2
    ) == b"+OK\r\n" + bulk(b"bob")
    for one in (admin, client):
        one.close()


def test_a_damaged_secret_is_not_used(keys: Keys, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"")
    with pytest.raises(SetupError, match="remove it"):
        Door(keys, Link("redis://127.0.0.1:1"), patterns=lambda _tenant: [], secret=secret)
