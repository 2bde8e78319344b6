"""Reads and writes of keys that somebody cares for: a source that loads what Valkey lacks, an observer of what is read.

Reads
-----
GET and MGET of keys with a source are looked at when their reply comes: where it has a null for such a key, the reply waits in a ``Gap``
until the value is loaded, and the answer is made of what was loaded. Of any other read a null may mean much (HGET of a field that is
not there), so Valkey is first asked how long the keys live, on the same connection and in the same write; where one does not, it is
loaded, the read is sent again, and what comes then is the answer. Commands about a key rather than its value (TTL, EXISTS, ...) tell what
is in Valkey and load nothing. Nor do reads inside MULTI, in another database than 0, or on a connection that subscribes.

A read that may have to be sent again must see what it would have seen: until it is ``settled``, the client's next command that is no
read waits (``Session.unsettled``).

Writes
------
Ahead of a write goes what ends negative markers and leases of loads (``Reader.ahead_of_write``), in the same write to the socket, so that
no load that began before overwrites it. Of a transaction it follows EXEC in the same way. Where a source is written through or behind,
that is done first, while the client's next commands wait; in MULTI it cannot be, and the transaction is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from predis.access import DEFAULT_TENANT
from predis.cache.answers import Gap, Turn
from predis.cache.commands import Described
from predis.cache.reading import Loaded, Reader, Source, SourceFailed
from predis.cache.resp import EMPTY, NULLS, Command, array, bulk, command, error, items
from predis.cache.roles import GUEST
from predis.cache.unkept import answer as unkept_answer
from predis.cache.verbs import CONTROL, Verb, end_of_multi

if TYPE_CHECKING:
    from predis.cache.session import Session

# Of a key, not of its value: they tell what Valkey has.
ABOUT_KEYS = frozenset(
    (
        b"TTL",
        b"PTTL",
        b"EXPIRETIME",
        b"PEXPIRETIME",
        b"EXISTS",
        b"TYPE",
        b"DUMP",
        b"OBJECT",
        b"TOUCH",
        b"MEMORY",
        b"DEBUG",
    )
)
_GUEST = error("NOPERM what is written through to a source needs an API key of Predis")
_GET, _MGET = b"GET", b"MGET"


def watching(commands: Mapping[bytes, Described], reader: Reader) -> dict[bytes, Verb]:
    """The verbs of a session whose reads and writes are looked at."""
    verbs: dict[bytes, Verb] = {}
    for name, one in commands.items():
        if name in CONTROL or name in ABOUT_KEYS:
            continue
        verbs[name] = Reads(one, reader) if one.reads else Writes(one, reader)
    return {**verbs, **CONTROL, b"EXEC": Exec(reader)}


class Looks(ABC):
    """The verb of a command whose keys somebody may care for."""

    def __init__(self, described: Described, reader: Reader) -> None:
        self._command = described
        self._reader = reader

    @abstractmethod
    def __call__(self, session: Session, sent: Command) -> None:
        """See to all that the command needs."""

    @abstractmethod
    def knows(self, session: Session, head: list[bytes]) -> bool:
        """Whether the first arguments of a command that is long in coming are enough: the rest may go up as it comes."""


class Reads(Looks):
    """The verb of a command that reads."""

    def __init__(self, described: Described, reader: Reader) -> None:
        super().__init__(described, reader)
        self._looks_at_reply = described.name in (_GET, _MGET)

    def knows(self, session: Session, head: list[bytes]) -> bool:
        if session.in_multi or session.odd or session.database or not self._reader.active:
            return True
        return self._command.known(head) and not self._watched(self._command.keys(head))

    def __call__(self, session: Session, sent: Command) -> None:
        args, raw = sent
        if session.odd or session.in_multi or session.database or self._command.blocks:
            session.forward(raw)
            return
        keys = self._command.keys(args)
        watched = self._watched(keys) if self._reader.active else {}
        if watched:
            read = Read(session, self._command.name, keys=keys, watched=watched)
            self._watch(read, sent)
        elif session.observe is not None and keys:
            session.forward_for(raw, Observed(session, keys))
        else:
            session.forward(raw)

    def _watched(self, keys: Sequence[bytes]) -> dict[bytes, Source]:
        match = self._reader.match
        found = {key: source for key in keys if (source := match(key)) is not None}
        if self._looks_at_reply and found:
            return {key: source for key, source in found.items() if source.stores == "string"}
        return found

    def _watch(self, read: Read, sent: Command) -> None:
        session, raw = read.session, sent[1]
        if self._looks_at_reply:
            session.forward_for(raw, Got(read, self._reader))
            for key, source in read.watched.items():
                if self._reader.wants_ttl(source):
                    session.forward_for(command(b"PTTL", key), Ttl(read, self._reader, key=key))
            return
        session.unsettled += 1
        again = ReadAgain(read, self._reader, sent=sent)
        for key in read.watched:
            session.forward_for(command(b"PTTL", key), Lives(again, key))
        session.forward_for(raw, again)


class Writes(Looks):
    """The verb of a command that writes, or may."""

    def knows(self, session: Session, head: list[bytes]) -> bool:
        if session.database or not self._reader.active:
            return True
        if not self._command.known(head):
            return False
        sources = list(filter(None, map(self._reader.match, self._command.keys(head))))
        # A source that is written through takes the whole command; for a subscriber, marks are ended on another connection first.
        return not sources or not (session.piped or any(source.writes != "none" for source in sources))

    def __call__(self, session: Session, sent: Command) -> None:
        args, raw = sent
        keys = self._command.keys(args)
        match = self._reader.match
        if session.database or not self._reader.active:
            session.forward(raw)
            return
        sources = {source for key in keys if (source := match(key)) is not None}
        if not sources:
            session.forward(raw)
            return
        written = [source for source in sources if source.writes != "none"]
        if not all(_may_write(session, source) for source in written):
            session.forward(raw) if session.caller is not GUEST else session.reply(_GUEST)
            return
        if session.in_multi:
            self._in_multi(session, sent, keys=keys, written=written)
        elif written or session.piped:
            session.wait()
            session.gateway.spawn(self._bring(session, sent, keys=keys, written=written))
        else:
            session.forward_ahead(self._reader.ahead_of_write(keys))
            session.forward(raw)

    def _in_multi(
        self, session: Session, sent: Command, *, keys: Sequence[bytes], written: Sequence[Source]
    ) -> None:
        if written:
            # Valkey does not know PREDIS, and so marks the transaction as one that cannot be executed.
            text = (
                f"ERR source {written[0].name}: what is written through to it cannot be part of a transaction"
            )
            session.forward_for(command(b"PREDIS", b"REFUSE"), Instead(error(text)))
            return
        if session.multi_keys is None:
            session.multi_keys = []
        session.multi_keys += keys
        session.forward(sent[1])

    async def _bring(
        self, session: Session, sent: Command, *, keys: Sequence[bytes], written: Sequence[Source]
    ) -> None:
        """Write to the sources, then to Valkey."""
        writer = session.gateway.writer
        try:
            for source in written:
                if writer is None:
                    raise SourceFailed(f"ERR source {source.name}: this gateway writes to no source")
                await writer.write(source, sent[0])
            if writer is not None and written and session.transport.is_closing():
                # The write will not reach Valkey: what that has is old now.
                await writer.drop([key for key in keys if self._reader.match(key) in written])
                return
            ahead = self._reader.ahead_of_write(keys)
            if session.piped and ahead:
                await session.gateway.ask_aside(ahead)
            elif ahead:
                session.forward_ahead(ahead)
            session.forward(sent[1])
        except SourceFailed as failed:
            session.reply(error(failed.text))
        except Exception:
            session.reply(error("ERR Predis could not write to the source"))
            raise
        finally:
            session.flush()
            session.proceed()


def _may_write(session: Session, source: Source) -> bool:
    """Whether Valkey will let the client write the source's keys: sources are written to before Valkey is asked."""
    caller = session.caller
    if caller is None:
        return True
    return (
        caller is not GUEST and caller.role != "viewer" and caller.tenant in (DEFAULT_TENANT, source.tenant)
    )


class Exec:
    """EXEC: behind it goes what ends the leases of the keys that the transaction writes."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __call__(self, session: Session, sent: Command) -> None:
        keys = session.multi_keys
        end_of_multi(session, sent)
        if keys:
            session.forward_ahead(self._reader.ahead_of_write(keys))


class Read:
    """A read of keys of which some have a source."""

    __slots__ = ("found", "keys", "name", "session", "watched")

    def __init__(
        self, session: Session, name: bytes, *, keys: Sequence[bytes], watched: Mapping[bytes, Source]
    ) -> None:
        self.session = session
        self.name = name
        self.keys = keys
        self.watched = watched
        self.found: list[bytes] = []  # the keys that a GET or MGET found in Valkey

    def told(self, key: bytes, *, hit: bool, value: bytes | None, size: int | None = None) -> None:
        """Tell who observes and who prefetches what became of a key. ``size``: of the value, where it is not at hand."""
        session = self.session
        if session.observe is not None:
            session.observe(key, hit=hit, size=len(value or b"") if size is None else size)
        prefetcher = session.gateway.prefetcher
        if prefetcher is not None and (source := self.watched.get(key)) is not None:
            prefetcher.read(key, source, hit=hit, value=value, pushed=session.push if session.near else None)


class Got(Turn):
    """The reply of a GET or MGET: what it lacks is loaded."""

    __slots__ = ("_read", "_reader")

    def __init__(self, read: Read, reader: Reader) -> None:
        super().__init__()
        self._read = read
        self._reader = reader

    def answer(self, reply: bytes) -> bytes | Gap:
        if reply.startswith(b"-"):
            return reply
        read = self._read
        several = read.name == _MGET
        parts = items(reply) if several else [reply]
        lacking = [
            place for place, key in enumerate(read.keys) if parts[place] in NULLS and key in read.watched
        ]
        for place, key in enumerate(read.keys):
            if parts[place] not in NULLS:
                self._found(key, payload(parts[place]))
        if not lacking:
            return reply
        gap = Gap()
        read.session.gateway.spawn(self._load(gap, parts, lacking=lacking))
        return gap

    def passes(self, beginning: bytes) -> bool:
        size = bulk_size(beginning)
        if size is None:  # an array: what it lacks may come last
            return False
        self._found(self._read.keys[0], None, size=size)
        return True

    def _found(self, key: bytes, value: bytes | None, *, size: int | None = None) -> None:
        read, reader = self._read, self._reader
        read.found.append(key)
        read.told(key, hit=True, value=value, size=size)
        source = read.watched.get(key)
        # Of one that wants to know it, PTTL's reply comes next and tells.
        if source is not None and not reader.wants_ttl(source):
            reader.seen(key, source, ttl_ms=None)

    async def _load(self, gap: Gap, parts: list[bytes], *, lacking: Sequence[int]) -> None:
        read = self._read
        keys = [read.keys[place] for place in lacking]
        answer, failed = error("ERR Predis could not load the key"), b""
        try:
            values = await self._reader.load(keys)
            for place, key, value in zip(lacking, keys, values, strict=True):
                if isinstance(value, SourceFailed):
                    failed = failed or error(value.text)
                elif value is not None:
                    parts[place] = bulk(value)
                read.told(key, hit=False, value=value if isinstance(value, bytes) else None)
            answer = failed or (array(parts) if read.name == _MGET else parts[0])
        finally:
            read.session.fill(gap, answer)


class Ttl(Turn):
    """The reply to the PTTL that the gateway sent behind a GET or MGET."""

    __slots__ = ("_key", "_read", "_reader")

    def __init__(self, read: Read, reader: Reader, *, key: bytes) -> None:
        super().__init__()
        self._read = read
        self._reader = reader
        self._key = key

    def answer(self, reply: bytes) -> bytes:
        if self._key in self._read.found and reply.startswith(b":"):
            self._reader.seen(self._key, self._read.watched[self._key], ttl_ms=int(reply[1:-2]))
        return b""


class Lives(Turn):
    """The reply to the PTTL that the gateway sent ahead of a read: -2 says that there is no such key."""

    __slots__ = ("_again", "_key")

    def __init__(self, again: ReadAgain, key: bytes) -> None:
        super().__init__()
        self._again = again
        self._key = key

    def answer(self, reply: bytes) -> bytes:
        if reply == b":-2\r\n":
            self._again.lacking.append(self._key)
        elif reply.startswith(b":"):
            self._again.lives[self._key] = int(reply[1:-2])
        return b""


class ReadAgain(Turn):
    """The reply of a read other than GET: if a key was not there, it is loaded, and the command sent once more."""

    __slots__ = ("_read", "_reader", "_sent", "lacking", "lives")

    def __init__(self, read: Read, reader: Reader, *, sent: Command) -> None:
        super().__init__()
        self._read = read
        self._reader = reader
        self._sent = sent
        self.lacking: list[bytes] = []
        self.lives: dict[bytes, int] = {}

    def answer(self, reply: bytes) -> bytes | Gap:
        self._tell_found()
        if not self.lacking or reply.startswith(b"-"):
            self._read.session.settled()
            return reply
        gap = Gap()
        self._read.session.gateway.spawn(self._load(gap, reply))
        return gap

    def passes(self, beginning: bytes) -> bool:
        if self.lacking:
            return False
        self._tell_found()
        self._read.session.settled()
        return True

    def _tell_found(self) -> None:
        read = self._read
        for key in read.keys:
            if key not in self.lacking:
                read.told(key, hit=True, value=None)
                if source := read.watched.get(key):
                    wants = self._reader.wants_ttl(source)
                    self._reader.seen(key, source, ttl_ms=self.lives.get(key) if wants else None)

    async def _load(self, gap: Gap, reply: bytes) -> None:
        read = self._read
        answer: bytes | None = error("ERR Predis could not load the key")
        try:
            loaded = await self._reader.bring(self.lacking)
            for key in self.lacking:
                read.told(key, hit=False, value=None)
            answer = self._given(reply, loaded)
        finally:
            if answer is None:
                read.session.send_again(self._sent[1], Again(gap, read.session))
            else:
                read.session.fill(gap, answer)
                read.session.settled()

    def _given(self, reply: bytes, loaded: Sequence[Loaded]) -> bytes | None:
        """The answer; None where the command is to be sent again, now that Valkey has what it lacked."""
        found = {key: one for key, one in zip(self.lacking, loaded, strict=True) if one.value is not None}
        for one in found.values():
            if isinstance(one.value, SourceFailed):
                return error(one.value.text)
        for key, one in found.items():
            if not one.kept and one.value is not None and not isinstance(one.value, SourceFailed):
                source, protocol = self._read.watched[key].name, self._read.session.protocol
                return unkept_answer(self._sent[0], one.value, source=source, protocol=protocol)
        return None if found else reply


class Again(Turn):
    """The reply to a read that was sent once more; it belongs where the first reply was."""

    __slots__ = ("_gap", "_session")
    fills = True

    def __init__(self, gap: Gap, session: Session) -> None:
        super().__init__()
        self._gap = gap
        self._session = session

    def answer(self, reply: bytes) -> bytes:
        self._session.fill(self._gap, reply)
        self._session.settled()
        return b""


class Instead(Turn):
    """A reply that the client gets another one for."""

    __slots__ = ("_reply",)

    def __init__(self, reply: bytes) -> None:
        super().__init__()
        self._reply = reply

    def answer(self, reply: bytes) -> bytes:
        return self._reply


class Observed(Turn):
    """The reply to a read of keys without a source, which an observer wants to know of."""

    __slots__ = ("_keys", "_session")

    def __init__(self, session: Session, keys: Sequence[bytes]) -> None:
        super().__init__()
        self._session = session
        self._keys = keys

    def passes(self, beginning: bytes) -> bool:
        """Long replies are not worth their memory: of several keys nothing is told, of one that it was there."""
        observe = self._session.observe
        if observe is not None and len(self._keys) == 1:
            observe(self._keys[0], hit=True, size=bulk_size(beginning) or len(beginning))
        return True

    def answer(self, reply: bytes) -> bytes:
        observe = self._session.observe
        if observe is None or reply.startswith(b"-"):
            return reply
        keys = self._keys
        parts = items(reply) if len(keys) > 1 and reply.startswith(b"*") else [reply]
        if len(parts) != len(keys):
            parts = [reply] * len(keys)
        for key, part in zip(keys, parts, strict=True):
            hit = part not in EMPTY
            observe(key, hit=hit, size=len(payload(part)) if hit else 0)
        return reply


class Prefetched(Turn):
    """The reply to a GET that the gateway sent for a near cache: it becomes a push. Valkey tracks the key for this very client."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self._key = key

    def answer(self, reply: bytes) -> bytes:
        if reply in NULLS or not reply.startswith(b"$"):
            return b""
        return array([bulk(b"predis-prefetch"), bulk(self._key), reply], kind=b">")


def payload(reply: bytes) -> bytes:
    """The bytes of a bulk; of anything else, what it is sent as."""
    return reply[reply.find(b"\n") + 1 : -2] if reply.startswith(b"$") else reply


def bulk_size(beginning: bytes) -> int | None:
    """How many bytes a bulk has, by its header; None: it is none."""
    line = beginning.find(b"\r\n", 0, 24)
    return int(beginning[1:line]) if beginning.startswith(b"$") and line > 0 else None
