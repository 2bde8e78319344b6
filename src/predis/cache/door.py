"""Who may use the cache: API keys of Predis become users of Valkey.

From the first API key on a client has to show one, by AUTH or in HELLO, with any user name or none. The gateway then logs its connection
to Valkey in as a user that it made for the key's tenant and role, so that Valkey itself enforces what may be done and every command stays
as it is. A password that is no API key is Valkey's to judge: users made there (ACL SETUSER) may log in as ever. But not those whom Valkey
asks for none, as it does its user ``default`` until told otherwise: they show nothing by it.

What such a user may do: the tenant ``default`` all keys, any other those that begin with ``TENANT:``; a viewer reads, everybody else writes
too; nobody has commands that administer Valkey, and only ``default`` those that show or touch keys of all (KEYS, SCAN, FLUSHALL, INFO).

The user is made anew with each login. That costs a round trip, and is right after Valkey has lost its users in a restart. Its password
is made of a secret in the home folder, so that all workers of an installation know it.

Until the state database has said which keys there are, nobody comes in but users of Valkey itself.
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
from predis.errors import SetupError, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from predis.cache.session import Session

_PREFIX = b"pk_"
_SECRET_BYTES = 32
_NO_AUTH = error("NOAUTH Authentication required.")
_NO_AUTH_HELLO = error(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used "
    "to authenticate the client and select the RESP protocol version at the same time"
)
_NOT_KNOWN = error("LOADING Predis does not know yet who may come in: its state database does not answer")
# In place of a login that the gateway cannot follow: Valkey refuses it, whatever the state of the connection, and aborts a transaction.
_NO_LOGIN = command(b"AUTH")
_WRONG = error("WRONGPASS invalid username-password pair or user is disabled.")


class Door:
    """Lets clients in.

    Args:
        keys: refreshed here (``look``), never by a client that waits.
        link: to Valkey, as somebody who may make users there.
        patterns: key patterns that a tenant's users need beside their own.
        secret: file that holds the installation's secret; made if it is not there.

    Raises:
        SetupError: that file is damaged.
    """

    def __init__(
        self, keys: Keys, link: Link, *, patterns: Callable[[str], list[bytes]], secret: Path
    ) -> None:
        self._keys = keys
        self._link = link
        self._patterns = patterns
        self._secret = _secret(secret)
        self._seen: object = None
        self.closed = True
        """Whether a key is needed; also as long as that is not known."""
        self.outside = _Outside()

    @property
    def known(self) -> bool:
        """Whether it is known which keys there are."""
        return self._seen is not None

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
        caller = self.recognises(key) if self.known else None
        if caller is None:
            session.reply(_WRONG if self.known else _NOT_KNOWN)
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

    async def judge(self, session: Session, sent: Command, *, user: bytes) -> None:
        """Have Valkey judge what a client shows that is no API key; the session waits meanwhile."""
        try:
            (found,) = await self._link.ask([("ACL", "GETUSER", user)])
        except LinkDown as down:
            found = down
        if isinstance(found, Exception):
            session.reply(error(f"LOADING Predis could not ask its Valkey: {found}"))
            session.proceed()
            return
        if found is None or b"nopass" not in dict(zip(found[::2], found[1::2], strict=True))[b"flags"]:
            session.forward_for(sent[1], _Admitted(session, GUEST))
        elif self.closed:
            session.reply(_WRONG)
            session.proceed()
        else:
            hello(session, sent)
            session.proceed()
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
    if door is None or len(args) not in (2, 3):
        session.forward(raw)
    elif session.in_multi or session.odd:
        session.forward(_NO_LOGIN if door.closed else raw)
    else:
        session.wait()
        if args[-1].startswith(_PREFIX):
            session.gateway.spawn(door.admit(session, args[-1], hello=None))
        else:
            user = args[1] if len(args) == 3 else b"default"
            session.gateway.spawn(door.judge(session, sent, user=user))


def greet(session: Session, sent: Command) -> None:
    """HELLO [version [AUTH user password] [SETNAME name]]."""
    args = sent[0]
    door = session.gateway.door
    place = _place_of_login(args)
    if door is not None and door.closed and session.caller is None and not place:
        session.reply(_NO_AUTH_HELLO if door.known else _NOT_KNOWN)
    elif door is None or not place:
        hello(session, sent)
    elif session.in_multi or session.odd:
        session.forward(_NO_LOGIN) if door.closed else hello(session, sent)
    else:
        session.wait()
        key = args[place + 2]
        if key.startswith(_PREFIX):
            # What follows the password goes in front: the user and the password that take their place come last.
            begin = [*args[:place], *args[place + 3 :], b"AUTH"]
            session.gateway.spawn(door.admit(session, key, hello=begin))
        else:
            session.gateway.spawn(door.judge(session, sent, user=args[place + 1]))


def _place_of_login(args: list[bytes]) -> int:
    """Where the AUTH of a HELLO stands that Valkey goes by, which is the last; 0: there is none, or Valkey will not take the HELLO."""
    place, at = 0, 2
    while at < len(args):
        word, left = args[at].upper(), len(args) - 1 - at
        if word == b"AUTH" and left >= 2:
            place, at = at, at + 3
        elif word == b"SETNAME" and left:
            at += 2
        else:
            return 0
    return place


LOGINS: dict[bytes, Verb] = {b"AUTH": auth, b"HELLO": greet}


def _quit(session: Session, sent: Command) -> None:
    session.forward(sent[1])


def _refuse(session: Session, _sent: Command) -> None:
    door = session.gateway.door
    session.reply(_NO_AUTH if door is None or door.known else _NOT_KNOWN)


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
        file.write(secrets.token_hex(_SECRET_BYTES).encode())
    try:
        os.link(partial, path)  # whole, and only the first worker's
    except FileExistsError:
        pass
    finally:
        partial.unlink()
    found = path.read_bytes()
    if len(found) != _SECRET_BYTES * 2:
        raise SetupError(f"{path} is damaged: remove it, and it is made anew")
    return found
