"""The commands that a gateway must know of, whatever its sources: those that change what replies answer, and its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from predis.cache.answers import Turn
from predis.cache.resp import NULLS, OK, Command, Requests, bulk, command, error

if TYPE_CHECKING:
    from predis.cache.session import Session

# Takes the session and what it sent, and sees to all that the command needs.
Verb = Callable[["Session", Command], None]

_SPELLINGS = 4_096  # remembered; there is no end to those a client may make up


class Verbs(dict[bytes, Verb | None]):
    """Verbs by the name a client wrote, in capitals or not; None for a command that is simply passed on."""

    def __init__(self, verbs: Mapping[bytes, Verb]) -> None:
        super().__init__(verbs)
        self._verbs = dict(verbs)

    def __missing__(self, name: bytes) -> Verb | None:
        verb = self._verbs.get(name.upper())
        if len(self) < _SPELLINGS and len(name) < 64:
            self[name] = verb
        return verb


def multi(session: Session, sent: Command) -> None:
    session.forward(sent[1])
    session.in_multi = True


def end_of_multi(session: Session, sent: Command) -> None:
    args, raw = sent
    selected = session.multi_database if args[0].upper() == b"EXEC" else None
    session.in_multi, session.multi_keys, session.multi_database = False, None, None
    if selected is None:
        session.forward(raw)
    else:
        _select(session, raw, database=selected)


def reset(session: Session, sent: Command) -> None:
    session.mute(False)
    end_of_multi(session, sent)
    for words in () if session.piped else session.gateway.greeting:
        session.forward_ahead(command(*words))
    session.protocol = 2
    session.database = session.gateway.database
    session.near = False
    session.admitted(None)


def streaming(session: Session, sent: Command) -> None:
    """SUBSCRIBE, MONITOR, SYNC: what comes down from here on is no reply to anything."""
    if session.in_multi or session.piped:
        session.forward(sent[1])
    else:
        session.pipe(sent[1])


def client(session: Session, sent: Command) -> None:
    """CLIENT REPLY decides whether there are replies; all else of CLIENT is Valkey's."""
    args, raw = sent
    what = args[2].upper() if len(args) == 3 and args[1].upper() == b"REPLY" and not session.in_multi else b""
    if what == b"ON":
        session.mute(False)
        session.forward(raw)
    elif what == b"OFF":
        session.mute(True)
        session.forward(raw)
    elif what == b"SKIP":
        was_muted = session.muted
        session.mute(True)
        session.forward(raw)
        session.mute(was_muted)
        if not was_muted:
            session.skip_next()
    else:
        session.forward(raw)


def select(session: Session, sent: Command) -> None:
    """Sources are of database 0: which one the connection is in must be known. Taken as granted until the reply says otherwise."""
    args, raw = sent
    if len(args) != 2 or not args[1].isdigit():
        session.forward(raw)
    elif session.in_multi:
        session.forward(raw)
        session.multi_database = int(args[1])
    else:
        _select(session, raw, database=int(args[1]))


def _select(session: Session, raw: bytes, *, database: int) -> None:
    session.forward_for(raw, _Selected(session, session.database))
    session.database = database


def hello(session: Session, sent: Command) -> None:
    session.forward_for(sent[1], _Greeted(session))


def predis(session: Session, sent: Command) -> None:
    """PREDIS ...: asked of the gateway itself."""
    args = sent[0]
    what = args[1].upper() if len(args) > 1 else b""
    if what == b"PING":
        session.reply(b"+PONG\r\n")
    elif what == b"NEAR" and len(args) == 3 and args[2].upper() in (b"ON", b"OFF"):
        session.near = args[2].upper() == b"ON"
        session.reply(OK)
    elif what == b"STATS":
        session.reply(bulk(session.gateway.stats_text()))
    else:
        session.reply(error("ERR PREDIS knows PING, STATS and NEAR ON|OFF"))


class _Selected(Turn):
    """The reply to SELECT, or to the EXEC that does it."""

    __slots__ = ("_before", "_session")

    def __init__(self, session: Session, before: int) -> None:
        super().__init__()
        self._session = session
        self._before = before

    def answer(self, reply: bytes) -> bytes:
        if reply.startswith(b"-") or reply in NULLS:  # a key was written that EXEC's client watched
            self._session.database = self._before
        return reply


class _Greeted(Turn):
    """The reply to HELLO: a map where RESP3 was granted, an array where RESP2 was."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def answer(self, reply: bytes) -> bytes:
        self._session.protocol = {b"%": 3, b"*": 2}.get(reply[:1], self._session.protocol)
        return reply


def blocks(raw: bytes) -> bool:
    """Whether a command may wait for something to happen, so that its time tells nothing of Valkey's."""
    return any(args[0].upper() in _BLOCKING for args, _ in Requests().feed(raw))


_BLOCKING = frozenset(
    b"BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP XREAD XREADGROUP WAIT WAITAOF".split()
)

CONTROL: dict[bytes, Verb] = {
    b"MULTI": multi,
    b"EXEC": end_of_multi,
    b"DISCARD": end_of_multi,
    b"RESET": reset,
    **dict.fromkeys(
        (
            b"SUBSCRIBE",
            b"PSUBSCRIBE",
            b"SSUBSCRIBE",
            b"UNSUBSCRIBE",
            b"PUNSUBSCRIBE",
            b"SUNSUBSCRIBE",
            b"MONITOR",
            b"SYNC",
            b"PSYNC",
        ),
        streaming,
    ),
    b"CLIENT": client,
    b"SELECT": select,
    b"HELLO": hello,
    b"PREDIS": predis,
}
