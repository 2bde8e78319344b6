"""API keys: who is asking, for which tenant, and what they may do.

A key is ``pk_`` and 43 random characters, shown once; the database keeps its SHA-256 (the key has 256 random bits, so a slow
password hash would add nothing). While no key exists, a caller on loopback is the administrator of the tenant ``default``:
that is the local installation. From the first key on, everybody needs one, even once it is revoked: an installation that listens
beyond loopback because it had a key must not fall open with its last one.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from dataclasses import dataclass
from typing import Any

from predis.access.store import AccessStore
from predis.clock import Clock, iso
from predis.errors import AccessDenied, InvalidInput, NotFound, Unauthenticated, Unavailable
from predis.state.engine import Database

DEFAULT_TENANT = "default"
# Names of this machine for itself; without keys only these may be asked for.
LOOPBACK = frozenset(("127.0.0.1", "localhost", "[::1]", "::1"))
# What each role may do; a role may do all that stands at or left of it.
RIGHTS = ("predict", "read", "operate", "admin")
ROLES = {"client": "predict", "viewer": "read", "operator": "operate", "admin": "admin"}


@dataclass(frozen=True)
class Caller:
    """Who asks: the tenant they belong to, their name in the audit log, and their role."""

    tenant: str
    name: str
    role: str

    def require(self, right: str) -> None:
        """Let the caller pass if their role includes the right.

        Raises:
            AccessDenied: it does not.
        """
        if RIGHTS.index(ROLES[self.role]) < RIGHTS.index(right):
            raise AccessDenied(
                f"{self.name} has the role {self.role!r}, which may not {right}; ask an administrator for a key that may"
            )


LOCAL = Caller(DEFAULT_TENANT, "local", "admin")


class Keys:
    """Issue, revoke and recognise API keys. Recognising costs a dictionary look-up.

    Args:
        refresh_s: how old the known keys may grow before they are read again, by whoever asks then. ``math.inf`` for a data
            plane that must never wait for the database: something else calls ``refresh`` there.
    """

    def __init__(self, database: Database, clock: Clock, *, refresh_s: float = 2.0) -> None:
        self._store = AccessStore(database)
        self._clock = clock
        self._refresh_s = refresh_s
        self._lock = threading.Lock()
        self._known: dict[str, Caller | None] | None = None  # by digest; None for a revoked key
        self._read_at = float("-inf")

    def create(self, name: str, *, role: str, tenant: str = DEFAULT_TENANT) -> str:
        """A new key. It is returned here and never shown again.

        Raises:
            InvalidInput: no such role, or a name that cannot stand in the audit log.
        """
        if role not in ROLES:
            raise InvalidInput(f"role {role!r} is none of {', '.join(ROLES)}")
        if not name.isprintable() or not 0 < len(name.strip()) <= len(name) <= 128:
            raise InvalidInput(f"a key's name is 1 to 128 printable characters, got {name[:80]!r}")
        key = "pk_" + secrets.token_urlsafe(32)
        row = {
            "id": secrets.token_hex(6), "tenant": tenant, "name": name, "role": role, "digest": _digest(key),
            "created_at": self._clock.time_ns(), "revoked_at": None,
        }  # fmt: skip
        self._store.add_key(row, entry=self._entry(tenant, "key.create", target=f"{name} ({role})"))
        self.refresh()
        return key

    def revoke(self, key_id: str, *, tenant: str = DEFAULT_TENANT) -> None:
        """End a key.

        Raises:
            NotFound: there is no such live key.
        """
        entry = self._entry(tenant, "key.revoke", target=key_id)
        if not self._store.revoke_key(key_id, tenant=tenant, at=self._clock.time_ns(), entry=entry):
            raise NotFound(f"there is no live key with the id {key_id!r}; `predis key list` shows them")
        self.refresh()

    def _entry(self, tenant: str, action: str, *, target: str) -> dict[str, Any]:
        """The audit log's entry of a change; whoever may change keys is the administrator."""
        return {
            "tenant": tenant, "at": self._clock.time_ns(), "actor": "administrator", "action": action, "target": target, "detail": {},
        }  # fmt: skip

    def listed(self, tenant: str = DEFAULT_TENANT) -> list[dict[str, Any]]:
        """The tenant's keys, oldest first, without the keys themselves."""
        return [
            {**row, "created_at": iso(row["created_at"]), "revoked_at": iso(row["revoked_at"])}
            for row in self._store.keys(tenant)
        ]

    def exist(self) -> bool:
        """Whether a key was ever made, so that callers must show one."""
        return bool(self._current())

    def recognise(self, authorization: str | None) -> Caller:
        """The caller behind an ``Authorization`` header.

        Raises:
            Unauthenticated: keys exist and the header holds none of them.
        """
        known = self._current()
        if not known:
            return LOCAL
        scheme, _, key = (authorization or "").partition(" ")
        caller = known.get(_digest(key.strip())) if scheme.lower() == "bearer" else None
        if caller is None:
            raise Unauthenticated(
                "this installation needs an API key: send the header 'Authorization: Bearer pk_...'"
            )
        return caller

    def refresh(self) -> None:
        """Read the keys now.

        Raises:
            Unavailable: the database does not answer; the keys known before stay.
        """
        self._known = {
            row.digest: None if row.revoked_at is not None else Caller(row.tenant, row.name, row.role)
            for row in self._store.all_keys()
        }
        self._read_at = self._clock.monotonic_s()

    def snapshot(self) -> dict[str, list[str]] | None:
        """What is known, for a worker that restarts while the database is away. Digests only, no keys."""
        if self._known is None:
            return None
        return {
            digest: [] if caller is None else [caller.tenant, caller.name, caller.role]
            for digest, caller in self._known.items()
        }

    def restore(self, snapshot: dict[str, list[str]]) -> None:
        self._known = {digest: Caller(*fields) if fields else None for digest, fields in snapshot.items()}

    def _current(self) -> dict[str, Caller | None]:
        if self._known is None or self._clock.monotonic_s() - self._read_at > self._refresh_s:
            with self._lock:
                if self._known is None or self._clock.monotonic_s() - self._read_at > self._refresh_s:
                    self._refresh_or_keep()
        assert self._known is not None
        return self._known

    def _refresh_or_keep(self) -> None:
        try:
            self.refresh()
        except Unavailable:
            if self._known is None:
                raise
            self._read_at = self._clock.monotonic_s()


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
