"""The URLs of a Valkey."""

from __future__ import annotations

import pytest

from predis.errors import InvalidSetting
from predis.valkeys import Address, Clustered, Watched


def test_one_server() -> None:
    one = Address.of("rediss://me:p%40ss@cache.example:7000/3")
    assert (one.host, one.port, one.tls, one.database) == ("cache.example", 7000, True, 3)
    assert one.greeting == [(b"AUTH", b"me", b"p@ss"), (b"SELECT", b"3")]
    assert str(Address.of("unix:///run/valkey.sock?db=2")) == "/run/valkey.sock"
    assert Address.of("valkey://:secret@h").greeting == [(b"AUTH", b"secret")]
    assert Address.of("redis://h").greeting == []


def test_sentinels() -> None:
    watched = Watched.of("redis+sentinel://me:pw@one:1,two,[::1]:3/main?db=4&sentinel_password=hush")
    assert watched.name == "main"
    assert watched.places == [("one", 1), ("two", 26379), ("::1", 3)]
    assert watched.sentinels[0].greeting == [(b"AUTH", b"hush")]
    assert watched.master.greeting == [(b"AUTH", b"me", b"pw"), (b"SELECT", b"4")]
    assert watched.master_login == {"username": "me", "password": "pw", "db": 4}


@pytest.mark.parametrize(
    "url", ["http://h", "unix://", "redis://h:x", "redis://h/a", "redis+cluster://h:1,i:2", ""]
)
def test_no_server(url: str) -> None:
    with pytest.raises(InvalidSetting, match="valkey_url"):
        Address.of(url)


@pytest.mark.parametrize(
    "url", ["redis+sentinel://h", "redis+sentinel:///main", "redis+sentinel://h:x/main", "redis+sentinel://h,,i/main", "redis://h/main"]
)  # fmt: skip
def test_no_sentinels(url: str) -> None:
    with pytest.raises(InvalidSetting, match="valkey_url"):
        Watched.of(url)


def test_a_password_is_not_told() -> None:
    with pytest.raises(InvalidSetting) as raised:
        Address.of("http://me:hunter2@h")
    assert "hunter2" not in str(raised.value)


def test_a_cluster() -> None:
    clustered = Clustered.of("rediss+cluster://me:p%40ss@one:7000,two,[::1]:7002")
    assert [(seed.host, seed.port) for seed in clustered.seeds] == [
        ("one", 7000),
        ("two", 6379),
        ("::1", 7002),
    ]
    assert all(seed.tls for seed in clustered.seeds)
    assert clustered.seeds[0].greeting == [(b"AUTH", b"me", b"p@ss")]
    assert not Clustered.of("redis+cluster://h/0").seeds[0].tls
    assert Clustered.is_url("valkey+cluster://h")
    assert not Clustered.is_url("redis://h")


@pytest.mark.parametrize(
    "url",
    ["redis+cluster://", "redis+cluster://h:x", "redis+cluster://h,,i", "redis+cluster://h/a", "redis://h"],
)
def test_no_cluster(url: str) -> None:
    with pytest.raises(InvalidSetting, match="valkey_url"):
        Clustered.of(url)
