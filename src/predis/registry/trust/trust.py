"""Keys whose signatures a tenant trusts, and the demand that versions are signed.

Where a tenant demands signatures, a version without one by a trusted key is refused at three doors: registering, deploying, and every
load. What the last door needs (the endorsements, the keys they fit, the demand) travels with the ``Version``, so that it is
shut as well in a worker that cannot reach the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from predis.access.audit import Audit
from predis.clock import Clock, iso
from predis.errors import AlreadyExists, InvalidInput, NotFound, Untrusted
from predis.registry.endorsing import Subject, fits, key_id
from predis.registry.model import Endorsement, Version
from predis.registry.trust.store import REQUIRE_SIGNATURES, TrustStore
from predis.state import Database

if TYPE_CHECKING:
    from sqlalchemy import Connection

_MOST_ENDORSEMENTS = 16  # given with one registration
_LONGEST_KEY = 1_000
_LONGEST_NAME = 128


class Trust:
    """Trusts and revokes keys, sets the demand, and checks versions against both."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._store = TrustStore(database)
        self._audit = Audit(database, clock)
        self._clock = clock

    def keys(self, tenant: str) -> list[dict[str, Any]]:
        """Every key the tenant has ever trusted, oldest first."""
        with self._database.read() as connection:
            found = self._store.keys(connection, tenant)
        return [
            {
                **{name: value for name, value in row.items() if name != "tenant"},
                "added_at": iso(row["added_at"]),
                "revoked_at": iso(row["revoked_at"]),
            }
            for row in found
        ]

    def trust(self, tenant: str, name: str, *, public_key: str, actor: str) -> str:
        """Trust a key from now on; its id.

        Raises:
            InvalidInput: it is not a public Ed25519 key in PEM, or has no name.
            AlreadyExists: it is trusted already, or was revoked: a revoked key does not come back.
        """
        if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
            raise InvalidInput(
                f"a key's name is 1 to {_LONGEST_NAME} printable characters, got {name[:80]!r}"
            )
        if len(public_key) > _LONGEST_KEY:
            raise InvalidInput(
                f"a public key in PEM has at most {_LONGEST_KEY} characters, got {len(public_key)}"
            )
        key = key_id(public_key)
        row = {
            "tenant": tenant, "id": key, "name": name, "public_key": public_key, "added_at": self._clock.time_ns(),
            "added_by": actor, "revoked_at": None, "revoked_by": None,
        }  # fmt: skip
        with self._database.write() as connection:
            if not self._store.add_key(connection, row):
                raise AlreadyExists(
                    f"key {key} is known already; a key that was revoked is not trusted again: make a new one"
                )
            self._note(
                connection, tenant, actor=actor, action="trust.key.add", target=key, detail={"name": name}
            )
        return key

    def revoke(self, tenant: str, key: str, *, actor: str) -> None:
        """Trust a key no more. Versions that only it signed count as unsigned; what workers have loaded stays loaded.

        Raises:
            NotFound: there is no such key, or it is revoked already.
        """
        with self._database.write() as connection:
            if not self._store.revoke(connection, tenant, key=key, at=self._clock.time_ns(), actor=actor):
                raise NotFound(f"no key {key!r} is trusted; `predis model key list` shows them")
            self._note(connection, tenant, actor=actor, action="trust.key.revoke", target=key, detail={})

    def required(self, tenant: str) -> bool:
        """Whether the tenant demands signatures."""
        with self._database.read() as connection:
            return self._store.required(connection, tenant)

    def require(self, tenant: str, demand: bool, *, actor: str) -> None:
        """Demand signatures from now on, or no more."""
        row = {
            "tenant": tenant, "name": REQUIRE_SIGNATURES, "value": demand, "changed_at": self._clock.time_ns(),
            "changed_by": actor,
        }  # fmt: skip
        with self._database.write() as connection:
            before = self._store.required(connection, tenant)
            self._store.set_policy(connection, row)
            detail = {"from": before, "to": demand}
            self._note(
                connection,
                tenant,
                actor=actor,
                action="trust.policy",
                target=REQUIRE_SIGNATURES,
                detail=detail,
            )

    def admitted(
        self, connection: Connection, tenant: str, *, subject: Subject, given: Mapping[str, str]
    ) -> tuple[tuple[Endorsement, ...], bool]:
        """The endorsements ``given`` (signatures by key id), checked, with the keys they fit; and whether the tenant demands one.

        Raises:
            InvalidInput: too many are given.
            Untrusted: one does not fit a trusted key, or none is given and the tenant demands one.
        """
        if len(given) > _MOST_ENDORSEMENTS:
            raise InvalidInput(f"at most {_MOST_ENDORSEMENTS} signatures at once, got {len(given)}")
        endorsements = tuple(
            self._fitting(connection, tenant, subject=subject, key=key, signature=signature)
            for key, signature in sorted(given.items())
        )
        demand = self._store.required(connection, tenant)
        if demand and not endorsements:
            raise Untrusted(
                f"tenant {tenant!r} demands signatures: register {subject.model} with --sign FILE, a key that "
                "`predis model key list` shows as trusted"
            )
        return endorsements, demand

    def keep(self, connection: Connection, version: Version, *, actor: str) -> None:
        """Store the endorsements of a version, in the caller's transaction."""
        for one in version.endorsements:
            row = {
                "tenant": version.tenant, "model": version.model, "version": version.number, "key": one.key,
                "signature": one.signature, "signed_at": self._clock.time_ns(), "signed_by": actor,
            }  # fmt: skip
            self._store.endorse(connection, row)
            target = f"{version.model}@{version.number}"
            detail = {"key": one.key, "name": one.name, "digest": version.digest}
            self._note(
                connection, version.tenant, actor=actor, action="model.sign", target=target, detail=detail
            )

    def _fitting(
        self, connection: Connection, tenant: str, *, subject: Subject, key: str, signature: str
    ) -> Endorsement:
        row = self._store.key(connection, tenant, key=key)
        if row is None or row["revoked_at"] is not None:
            raise Untrusted(
                f"key {key[:40]!r} is not trusted here; an administrator adds it: predis model key trust NAME FILE.pub"
            )
        if not fits(row["public_key"], signature, subject=subject):
            raise Untrusted(
                f"the signature by {row['name']} ({key}) does not fit {subject.model}: it was made over other files, another "
                "name or another format"
            )
        return Endorsement(key, row["name"], row["public_key"], signature)

    def _note(
        self,
        connection: Connection,
        tenant: str,
        *,
        actor: str,
        action: str,
        target: str,
        detail: dict[str, Any],
    ) -> None:
        self._audit.add(connection, tenant, actor=actor, action=action, target=target, detail=detail)


def check_signed(version: Version) -> None:
    """Whether a version may be deployed and loaded, as far as its tenant's demand goes. Needs nothing but the version.

    Raises:
        Untrusted: signatures are demanded, and none by a trusted key fits.
    """
    if version.must_be_signed and not any(_holds(one, version) for one in version.endorsements):
        raise Untrusted(
            f"tenant {version.tenant!r} demands signatures, and no key it trusts has signed {version.model}@{version.number}; "
            f"sign it: predis model sign {version.model}@{version.number} --with FILE"
        )


def _holds(one: Endorsement, version: Version) -> bool:
    subject = Subject(version.model, version.format, version.digest)
    return fits(one.public_key, one.signature, subject=subject)
