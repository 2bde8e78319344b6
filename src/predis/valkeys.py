"""Where a Valkey is: the URLs that the setting ``valkey_url`` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from predis.errors import InvalidSetting
from predis.telemetry import redact

_ONE = ("redis", "rediss", "valkey", "valkeys", "unix")
_SENTINEL = ("redis+sentinel", "valkey+sentinel")
_CLUSTER = ("redis+cluster", "rediss+cluster", "valkey+cluster", "valkeys+cluster")
_KNOWN = "redis://, rediss://, unix:///, redis+sentinel:// or redis+cluster://"
_SENTINEL_PORT = 26379


@dataclass(frozen=True, kw_only=True)
class Address:
    """One server, and who to say one is."""

    host: str = ""
    port: int = 0
    path: str = ""  # of a unix socket
    tls: bool = False
    username: str = ""
    password: str = ""
    database: int = 0

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    @property
    def login(self) -> dict[str, str | None]:
        """How redis-py logs in."""
        return {"username": self.username or None, "password": self.password or None}

    @property
    def greeting(self) -> list[tuple[bytes, ...]]:
        """The commands to begin a connection with; each has one reply, +OK where it is granted."""
        said: list[tuple[bytes, ...]] = []
        if self.password:
            user = (self.username.encode(),) if self.username else ()
            said.append((b"AUTH", *user, self.password.encode()))
        if self.database:
            said.append((b"SELECT", b"%d" % self.database))
        return said

    @classmethod
    def of(cls, url: str) -> Address:
        """The server of a URL: redis://, rediss://, valkey://, valkeys:// or unix://, with user, password and database.

        Raises:
            InvalidSetting: it is no such URL.
        """
        try:
            return cls._of(urlsplit(url))
        except ValueError as error:
            raise _unusable(url, error) from None

    @classmethod
    def _of(cls, parts: SplitResult) -> Address:
        if parts.scheme not in _ONE:
            raise ValueError(f"it must begin with {_KNOWN}")
        said = _said(parts)
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
        if parts.scheme == "unix":
            if not parts.path:
                raise ValueError("it has no path")
            return cls(
                path=unquote(parts.path),
                database=int(said.get("db", "0")),
                username=username,
                password=password,
            )
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 6379,
            tls=parts.scheme in ("rediss", "valkeys"),
            database=int(parts.path.strip("/") or said.get("db", "0")),
            username=username,
            password=password,
        )


def check(url: str) -> None:
    """
    Raises:
        InvalidSetting: it is no URL of a Valkey, of Sentinels or of a cluster.
    """
    for kind in (Watched, Clustered):
        if kind.is_url(url):
            kind.of(url)
            return
    Address.of(url)


def as_redis(url: str) -> str:
    """The URL of one server as redis-py reads it, which does not know Valkey's names of schemes.

    >>> as_redis("valkeys://cache:6379/2")
    'rediss://cache:6379/2'

    Raises:
        InvalidSetting: it is no such URL.
    """
    Address.of(url)
    return f"redis{url.removeprefix('valkey')}" if url.startswith("valkey") else url


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A master by the name that Sentinels know it by, whichever server that is now.

    ``master``: how to log in to it; it has no host. User and password of a URL are the master's, ``sentinel_password`` is the Sentinels'.
    """

    name: str
    sentinels: tuple[Address, ...]
    master: Address

    @property
    def places(self) -> list[tuple[str, int]]:
        """The Sentinels, as redis-py takes them."""
        return [(sentinel.host, sentinel.port) for sentinel in self.sentinels]

    @property
    def login(self) -> dict[str, Any]:
        """How redis-py logs in to them."""
        return {"password": self.sentinels[0].password or None}

    @property
    def master_login(self) -> dict[str, Any]:
        """How redis-py logs in to the master."""
        return {**self.master.login, "db": self.master.database}

    @staticmethod
    def is_url(url: str) -> bool:
        return url.partition("://")[0] in _SENTINEL

    @classmethod
    def of(cls, url: str) -> Watched:
        """What a URL says: redis+sentinel://user:password@host:26379,host2:26379/mymaster?db=0&sentinel_password=secret

        Raises:
            InvalidSetting: it is no such URL.
        """
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        said = _said(parts)
        try:
            name = unquote(parts.path.strip("/"))
            if parts.scheme not in _SENTINEL or not hosts or not name or "/" in name:
                raise ValueError("it must be like redis+sentinel://host:26379,host2:26379/mymaster?db=0")
            sentinels = tuple(_sentinel(host, said.get("sentinel_password", "")) for host in hosts.split(","))
            master = Address(
                username=unquote(username), password=unquote(password), database=int(said.get("db", "0"))
            )
        except ValueError as error:
            raise _unusable(url, error) from None
        return cls(name=name, sentinels=sentinels, master=master)


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """A cluster, by some of its nodes: the others are known to them. All have the same user and password."""

    seeds: tuple[Address, ...]

    @staticmethod
    def is_url(url: str) -> bool:
        return url.partition("://")[0] in _CLUSTER

    @classmethod
    def of(cls, url: str) -> Clustered:
        """What a URL says: redis+cluster://user:password@host:6379,host2:6379, rediss+cluster:// where they speak TLS.

        Raises:
            InvalidSetting: it is no such URL.
        """
        try:
            return cls(seeds=tuple(cls._seeds(urlsplit(url))))
        except ValueError as error:
            raise _unusable(url, error) from None

    @staticmethod
    def _seeds(parts: SplitResult) -> list[Address]:
        login, _, hosts = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        if parts.scheme not in _CLUSTER or not hosts:
            raise ValueError("it must be like redis+cluster://host:6379,host2:6379")
        tls = parts.scheme in ("rediss+cluster", "valkeys+cluster")
        database = int(parts.path.strip("/") or _said(parts).get("db", "0"))
        return [
            Address(
                host=host,
                port=port,
                tls=tls,
                username=unquote(username),
                password=unquote(password),
                database=database,
            )
            for host, port in (_place(place, 6379) for place in hosts.split(","))
        ]


def _sentinel(place: str, password: str) -> Address:
    host, port = _place(place, _SENTINEL_PORT)
    return Address(host=host, port=port, password=password)


def _place(place: str, port: int) -> tuple[str, int]:
    """Host and port of ``host``, ``host:port`` or ``[host]:port``."""
    parts = urlsplit(f"//{place}")
    if not parts.hostname:
        raise ValueError(f"{place!r} is no host")
    return parts.hostname, parts.port or port


def _said(parts: SplitResult) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(parts.query).items()}


def _unusable(url: str, error: ValueError) -> InvalidSetting:
    return InvalidSetting(f"valkey_url {redact(url)!r} cannot be used: {error}")
