"""Writes that go to sources too: what the gateway calls before it forwards one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence

from predis.cache.link import Link, LinkDown
from predis.cache.sources.calling import Change, Refused
from predis.cache.sources.failure import SourceFailed, in_words
from predis.cache.sources.feed import Feed
from predis.cache.sources.flights import FLIGHT, NONE
from predis.cache.sources.loading import Loader
from predis.cache.sources.pattern import beside
from predis.cache.sources.queue import Queue, Write
from predis.cache.sources.shelf import Shelf
from predis.cache.sources.source import Source
from predis.cache.sources.sql import bound

__all__ = ["SourceFailed", "Writer"]

_GRACE_MS = 5_000
HARMLESS = frozenset((b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT", b"PERSIST", b"TOUCH"))
"""Commands that write a key's lifetime and not its value: they concern no source."""


class Writer:
    """Understands write commands and brings them to sources."""

    def __init__(self, shelf: Shelf, queue: Queue, *, loader: Loader, link: Link) -> None:
        self._shelf = shelf
        self._queue = queue
        self._loader = loader
        self._link = link

    async def write(self, source: Source, command: Sequence[bytes]) -> None:
        """Bring a write to the source of its key or keys, before it is forwarded to Valkey.

        Call it once for each source, of those with ``source.writes != "none"``, that any key of the command has. ``through``: the source
        has it on return. ``behind``: it is durable in the queue on return. Several keys are written all or none.

        Raises:
            SourceFailed: the source refused it, or the command is one whose outcome only Valkey knows (INCR, SET NX, EVAL, ...).
                The command must not be forwarded; the client gets ``text``.
        """
        feed = self._shelf.feed(source)
        if feed is None or command[0].upper() in HARMLESS:
            return
        writes = [write for write in writes_of(command, source) if self._shelf.match(write.key) is source]
        changes = [_checked(write, source) for write in writes]
        for write in writes:
            if write.kind == "fields":
                await self._keep_whole(feed, write.key)
        if source.writes == "behind":
            await self._queue.put(source, writes)
            feed.counts.writes["queued"].add(len(writes))
        elif writes:
            await self._through(feed, changes, keys=[write.key for write in writes])

    async def drop(self, keys: Sequence[bytes]) -> None:
        """Have Valkey forget keys that their source may have otherwise, so that the next read asks it."""
        with contextlib.suppress(LinkDown):
            await self._link.ask([("DEL", key, beside(FLIGHT, key), beside(NONE, key)) for key in keys])

    async def _through(self, feed: Feed, changes: Sequence[Change], *, keys: Sequence[bytes]) -> None:
        try:
            await feed.apply(changes)
        except Refused as refused:
            feed.counts.writes["refused"].add(len(changes))
            raise feed.failure(f"it does not take this write: {refused}") from refused
        except Exception as error:
            # Whether the source has it is not known. What Valkey has may be old: the next read asks the source.
            feed.counts.writes["failed"].add(len(changes))
            await self.drop(keys)
            if isinstance(error, SourceFailed):
                raise
            raise feed.failure(in_words(error)) from error
        feed.counts.writes["written"].add(len(changes))

    async def _keep_whole(self, feed: Feed, key: bytes) -> None:
        """Load a hash whose fields are to be set, if Valkey lacks it: alone they would pass for all of it. It will not expire meanwhile.

        Raises:
            SourceFailed: it cannot be loaded.
        """
        with contextlib.suppress(LinkDown):  # Valkey will take no fields either
            (lives_ms,) = await self._link.ask([("PTTL", key)])
            if lives_ms == -2:
                found = (await self._loader.load(feed, key)).value
                if isinstance(found, SourceFailed):
                    raise found
            elif isinstance(lives_ms, int) and 0 <= lives_ms < _GRACE_MS:
                await self._link.ask([("PEXPIRE", key, _GRACE_MS)])


def writes_of(command: Sequence[bytes], source: Source) -> list[Write]:
    """What a command does to keys, in its order.

    Raises:
        SourceFailed: that depends on what Valkey holds, or cannot be told.
    """
    name = command[0].upper()
    parse = _PARSERS.get(name)
    if parse is None:
        known = ", ".join(sorted(name.decode() for name in _PARSERS))
        shown = name[:32].decode("ascii", "replace")
        raise SourceFailed(
            f"ERR source {source.name}: {shown} cannot be written to its source; keys of {source.pattern} take {known}"
        )
    try:
        return parse(command)
    except (IndexError, ValueError):
        raise SourceFailed(f"ERR wrong number of arguments for '{name.decode().lower()}' command") from None
    except _Conditional as found:
        raise SourceFailed(
            f"ERR source {source.name}: whether SET {found} writes is known to Valkey alone; keys of {source.pattern} are set without it"
        ) from None


class _Conditional(Exception):
    """A SET that may do nothing."""


def _set(command: Sequence[bytes]) -> list[Write]:
    for option in command[3:]:
        if option.upper() in (b"NX", b"XX", b"IFEQ"):
            raise _Conditional(option.upper().decode())
    return [Write(command[1], "set", command[2])]


def _set_later(command: Sequence[bytes]) -> list[Write]:
    _, key, _, value = command
    return [Write(key, "set", value)]


def _set_old(command: Sequence[bytes]) -> list[Write]:
    _, key, value = command
    return [Write(key, "set", value)]


def _set_many(command: Sequence[bytes]) -> list[Write]:
    return [Write(key, "set", value) for key, value in zip(command[1::2], command[2::2], strict=True)]


def _delete(command: Sequence[bytes]) -> list[Write]:
    return [Write(key, "delete") for key in command[1:]]


def _delete_one(command: Sequence[bytes]) -> list[Write]:
    return [Write(command[1], "delete")]


def _set_fields(command: Sequence[bytes]) -> list[Write]:
    pairs = zip(command[2::2], command[3::2], strict=True)
    fields = {name.decode(): value.decode() for name, value in pairs}
    if not fields:
        raise ValueError(command[0])
    return [Write(command[1], "fields", json.dumps(fields).encode())]


_PARSERS: dict[bytes, Callable[[Sequence[bytes]], list[Write]]] = {
    b"SET": _set,
    b"SETEX": _set_later,
    b"PSETEX": _set_later,
    b"GETSET": _set_old,
    b"MSET": _set_many,
    b"DEL": _delete,
    b"UNLINK": _delete,
    b"GETDEL": _delete_one,
    b"HSET": _set_fields,
    b"HMSET": _set_fields,
}


def _checked(write: Write, source: Source) -> Change:
    """What the source is to be told. What it can never take is found here, before a queue acknowledges it.

    Raises:
        SourceFailed: the source has no statement for it, keeps values of another type, or its statement binds what is not there.
    """
    if write.kind != "delete":
        _check_value(write, source)
    elif not source.delete:
        raise SourceFailed(f"ERR source {source.name}: it has no statement for deletions")
    try:
        change = write.change(source)
        if source.kind == "sql":
            bound(source.delete if change.deleted else source.upsert, change)
    except Refused as refused:
        raise SourceFailed(f"ERR source {source.name}: it does not take this write: {refused}") from None
    return change


def _check_value(write: Write, source: Source) -> None:
    """
    Raises:
        SourceFailed: see ``_checked``.
    """
    if not source.upsert:
        raise SourceFailed(f"ERR source {source.name}: it has no statement for values")
    if (write.kind == "fields") is not (source.stores == "hash"):
        raise SourceFailed("WRONGTYPE Operation against a key holding the wrong kind of value")
    if len(write.value) > source.max_value_bytes:
        raise SourceFailed(
            f"ERR source {source.name}: the value has more than max_value_bytes, {source.max_value_bytes}"
        )
