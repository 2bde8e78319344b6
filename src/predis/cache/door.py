"""Who may use the cache: API keys of Predis become users of Valkey.

From the first API key on a client has to show one, by AUTH or in HELLO, with any user name or none. The gateway then logs its connection
to Valkey in as a user that it made for the key's tenant and role, so that Valkey itself enforces what may be done and every command stays
as it is. A password that is no API key is Valkey's to judge: users made there (ACL SETUSER) may log in as ever.

What such a user may do: the tenant ``default`` all keys, any other those that begin with ``TENANT:``; a viewer reads, everybody else writes
too; nobody has commands that administer Valkey, and only ``default`` those that show or touch keys of all (KEYS, SCAN, FLUSHALL, INFO).

The user is made anew with each login. That costs a round trip, and is right after Valkey has lost its users in a restart. Its password
is made of a secret in the home folder, so that all workers of an installation know it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from predis.access import Caller, Keys
from predis.cache.answers import Turn
from predis.cache.link import Link, LinkDown
from predis.cache.resp import Command, command, error
from predis.cache.roles import GUEST, rules_of, user_of
from predis.cache.verbs import Verb, Verbs, hello, reset
from predis.errors import Unauthenticated, Unavailable

if TYPE_CHECKING:
    from predis.cache.session import Session

_PREFIX = b"pk_"
_NO_AUTH = error("NOAUTH Authentication required.")
_NO_AUTH_HELLO = error(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used "
    "to authenticate the client and select the RESP protocol version at the same time"
)
_WRONG = error("WRONGPASS invalid username-password pair or user is disabled.")


class Door:
    """Lets clients in.

    Args:
        keys: refreshed here (``look``), never by a client that waits.
        link: to Valkey, as somebody who may make users there.
        patterns: key patterns that a tenant's users need beside their own.
        secret: file that holds the installation's secret; made if it is not there.
    """

    def __init__(
        self, keys: Keys, link: Link, *, patterns: Callable[[str], list[bytes]], secret: Path
    ) -> None:
        self._keys = keys
        self._link = link
        self._patterns = patterns
        self._secret = _secret(secret)
        self._seen: object = None
        self.closed = False
        """Whether a key is needed."""
        self.outside = _Outside()

    async def look(self) -> bool:
        """Take on the keys there are now; whether they changed."""
        try:
            await asyncio.to_thread(self._keys.refresh)
        except Unavailable:
            return False  # those known before stay
        seen = self._keys.snapshot()
        changed, self._seen = seen != self._seen, seen
        self.closed = bool(seen)
        return changed

    def recognises(self, key: bytes) -> Caller | None:
        """Whose key it is."""
        try:
            return self._keys.recognise("Bearer " + key.decode("utf-8", "replace"))
        except Unauthenticated:
            return None

    async def admit(self, session: Session, key: bytes, *, hello: list[bytes] | None) -> None:
        """Log a client in that shows an API key; the session waits meanwhile.

        Args:
            hello: the arguments of its HELLO, up to the user's name; None: it sent AUTH.
        """
        caller = self.recognises(key)
        if caller is None:
            session.reply(_WRONG)
            session.proceed()
            return
        try:
            user, password = await self._made(caller)
        except LinkDown as down:
            session.reply(error(f"LOADING Predis could not ask its Valkey: {down}"))
            session.proceed()
            return
        login = command(*(hello or [b"AUTH"]), user, password)
        session.forward_for(login, _Admitted(session, caller, key=key))
        session.flush()

    async def _made(self, caller: Caller) -> tuple[bytes, bytes]:
        """The name and the password of the user in Valkey for a caller's tenant and role."""
        name = user_of(caller)
        password = hmac.new(self._secret, name, hashlib.sha256).hexdigest().encode()
        rules = rules_of(caller, patterns=self._patterns(caller.tenant))
        (reply,) = await self._link.ask([("ACL", "SETUSER", name, "reset", "on", b">" + password, *rules)])
        if isinstance(reply, Exception):
            raise LinkDown(str(reply))
        return name, password


class _Outside(Verbs):
    """The verbs of a client that has shown nothing: it may log in or leave."""

    def __init__(self) -> None:
        super().__init__({**LOGINS, b"QUIT": _quit, b"RESET": reset})

    def __missing__(self, name: bytes) -> Verb | None:
        return self._verbs.get(name.upper(), _refuse)


def auth(session: Session, sent: Command) -> None:
    """AUTH [user] password."""
    args, raw = sent
    door = session.gateway.door
    if door is None or len(args) not in (2, 3) or session.in_multi or session.odd:
        session.forward(raw)
        return
    session.wait()
    if args[-1].startswith(_PREFIX):
        session.gateway.spawn(door.admit(session, args[-1], hello=None))
    else:
        session.forward_for(raw, _Admitted(session, GUEST))


def greet(session: Session, sent: Command) -> None:
    """HELLO [version [AUTH user password] [SETNAME name]]."""
    args, raw = sent
    door = session.gateway.door
    place = next((at for at in range(2, len(args)) if args[at].upper() == b"AUTH"), 0)
    if door is not None and door.closed and session.caller is None and not place:
        session.reply(_NO_AUTH_HELLO)
    elif door is None or not place or place + 2 >= len(args) or session.in_multi or session.odd:
        hello(session, sent)
    else:
        session.wait()
        key = args[place + 2]
        if key.startswith(_PREFIX):
            # What follows the password goes in front: the user and the password that take their place come last.
            begin = [*args[:place], *args[place + 3 :], b"AUTH"]
            session.gateway.spawn(door.admit(session, key, hello=begin))
        else:
            session.forward_for(raw, _Admitted(session, GUEST))


LOGINS: dict[bytes, Verb] = {b"AUTH": auth, b"HELLO": greet}


def _quit(session: Session, sent: Command) -> None:
    session.forward(sent[1])


def _refuse(session: Session, _sent: Command) -> None:
    session.reply(_NO_AUTH)


class _Admitted(Turn):
    """The reply to a login."""

    __slots__ = ("_caller", "_key", "_session")

    def __init__(self, session: Session, caller: Caller, *, key: bytes = b"") -> None:
        super().__init__()
        self._session = session
        self._caller = caller
        self._key = key

    def answer(self, reply: bytes) -> bytes:
        session = self._session
        if not reply.startswith(b"-"):
            session.admitted(self._caller, self._key)
            session.protocol = {b"%": 3, b"*": 2}.get(reply[:1], session.protocol)
        session.proceed()
        return reply


def _secret(path: Path) -> bytes:
    """The installation's secret."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_hex(32).encode())
    try:
        os.link(partial, path)  # whole, and only the first worker's
    except FileExistsError:
        pass
    finally:
        partial.unlink()
    return path.read_bytes()
