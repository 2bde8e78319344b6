"""Write-behind: a durable queue in the state database, from which writes go to their source in order.

A write is acknowledged when its row is committed. Rows that come while a commit is under way are the next one (group commit). Of each
source's queue one worker at a time is the drainer, by a claim that runs out when it is not heard of. It takes the oldest rows, folds
those of a key into one write, and brings them to the source in one transaction. A source that is away is tried again, ever less often,
and nothing overtakes; a write that the source refuses is tried ``_ATTEMPTS`` times and then set aside, for a person to look at.

A worker that dies between the source's commit and the deletion of the rows has them written again: upserts and deletions bear that.
One that ends lets go of a queue once what it has begun to write is written, so that nothing older comes after what the next one writes.
Until a row is gone, what it says is newer than the source; loads take it from here (``pending``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from predis.cache.sources.calling import Change, Refused
from predis.cache.sources.encoding import Payload, decoded
from predis.cache.sources.failure import SourceFailed
from predis.cache.sources.feed import Feed
from predis.cache.sources.source import Source
from predis.cache.store import Row, WriteStore
from predis.clock import NANOSECONDS, Clock
from predis.errors import PredisError
from predis.telemetry import redact

log = logging.getLogger(__name__)

_MOST_WAITING = 20_000
_PAGE_ROWS = 1_000
_ATTEMPTS = 5
_CLAIM_S = 10.0
_LONGEST_PAUSE_S = 5.0
_LAST_WRITE_S = 2.0
_ERROR_CHARACTERS = 500


class Write(NamedTuple):
    """What a command does to one key. ``kind``: set, fields (of a hash, as JSON) or delete."""

    key: bytes
    kind: str
    value: bytes = b""

    def change(self, source: Source) -> Change:
        """As the source is told of it.

        Raises:
            Refused: the key is none of the source's any more.
        """
        arguments = source.matched.arguments(self.key)
        if arguments is None:
            raise Refused(f"the key is not of its pattern {source.pattern}")
        if self.kind == "delete":
            return Change(arguments, deleted=True)
        if self.kind == "fields":
            return Change(arguments, deleted=False, fields=json.loads(self.value))
        try:
            value: str | bytes = self.value.decode()
        except UnicodeDecodeError:
            value = self.value
        return Change(arguments, deleted=False, value=value, fields=decoded(source, self.value))


class Pending(NamedTuple):
    """What waits to be written of a key: its value, or, not ``whole``, some fields of it."""

    whole: bool
    payload: Payload | None

    def over(self, found: Payload | None) -> Payload | None:
        """The value once it is written; ``found``: what the source has."""
        if self.whole or not isinstance(self.payload, dict):
            return self.payload
        return {**(found if isinstance(found, dict) else {}), **self.payload}


class Queue:
    """Takes writes in, tells what is pending, and works queues off; in one event loop.

    Args:
        feeds: the sources that there are now.
    """

    def __init__(self, store: WriteStore, *, clock: Clock, feeds: Callable[[], Sequence[Feed]]) -> None:
        self._store = store
        self._clock = clock
        self._feeds = feeds
        self._holder = secrets.token_hex(16)
        self._rows: list[Row] = []
        self._told: list[asyncio.Future[None]] = []
        self._committing: asyncio.Task[None] | None = None
        self._draining: dict[tuple[str, str], tuple[Feed, asyncio.Task[None]]] = {}
        self._woken = asyncio.Event()
        self._ending = asyncio.Event()

    async def put(self, source: Source, writes: Sequence[Write]) -> None:
        """Durable on return.

        Raises:
            SourceFailed: the state database does not take them, or too many wait for it.
        """
        if len(self._rows) + len(writes) > _MOST_WAITING:
            raise SourceFailed(
                f"ERR source {source.name}: too many writes wait for the queue; try again later"
            )
        now = self._clock.time_ns()
        self._rows += [
            {
                "tenant": source.tenant, "source": source.name, "key": write.key, "kind": write.kind, "value": write.value,
                "created_at": now, "due_at": 0, "attempts": 0, "error": "", "set_aside": False,
            }
            for write in writes
        ]  # fmt: skip
        told = asyncio.get_running_loop().create_future()
        self._told.append(told)
        if self._committing is None or self._committing.done():
            self._committing = asyncio.get_running_loop().create_task(self._commit())
        try:
            await told
        except PredisError as error:
            raise SourceFailed(f"ERR source {source.name}: the write could not be queued: {error}") from error

    async def pending(self, key: bytes) -> Pending | None:
        """What waits to be written of a key; None: nothing.

        Raises:
            SourceFailed: the state database does not answer.
        """
        try:
            rows = await asyncio.to_thread(self._store.of_key, key)
        except PredisError as error:
            raise SourceFailed(f"ERR the queue of writes does not answer: {error}") from error
        return _folded_for_reading(rows) if rows else None

    async def run(self) -> None:
        """Work queues off until cancelled: each when it was written to, and now and then."""
        while True:
            self._woken.clear()
            for feed in self._feeds():
                name = (feed.source.tenant, feed.source.name)
                before = self._draining.get(name)
                if feed.source.writes == "behind" and (before is None or before[1].done()):
                    self._draining[name] = feed, asyncio.get_running_loop().create_task(self._drain(feed))
            try:
                async with asyncio.timeout(1.0):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def close(self) -> None:
        """What was taken in is durable; queues are left to others, but for one whose source hangs in a write: its claim runs out."""
        self._ending.set()
        tasks = [task for _, task in self._draining.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WRITE_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._committing is not None:
            await self._committing
        if any(feed.is_writing for feed, _ in self._draining.values()):
            return
        try:
            await asyncio.to_thread(self._store.leave, self._holder)
        except PredisError:
            log.info("could not let go of the queues; their claims run out")

    async def _commit(self) -> None:
        while self._rows:
            rows, self._rows = self._rows, []
            told, self._told = self._told, []
            error: Exception | None = None
            try:
                await asyncio.to_thread(self._store.add, rows)
            except Exception as raised:
                error = (
                    raised
                    if isinstance(raised, PredisError)
                    else PredisError(f"{type(raised).__name__}: {raised}")
                )
            for each in told:
                if not each.done():
                    each.set_exception(error) if error else each.set_result(None)
            self._woken.set()

    async def _drain(self, feed: Feed) -> None:
        """Work one queue off, if it is this worker's, until it is empty or the source is declared otherwise."""
        pause_s = 0.1
        try:
            while not self._ending.is_set() and feed in self._feeds():
                done = await self._round(feed)
                if done is None:
                    return
                pause_s = 0.1 if done else min(pause_s * 2, _LONGEST_PAUSE_S)
                if not done:
                    await self._pause(pause_s)
        except PredisError as error:
            log.warning("the queue of source %s waits: %s", feed.source.name, error)
            await self._pause(1.0)
        except Exception:
            log.exception("working off the queue of source %s failed", feed.source.name)
            await self._pause(1.0)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)

    async def _round(self, feed: Feed) -> bool | None:
        """One page: True, some of it was written; False, nothing was, for now; None, there is nothing to do, or another does it."""
        tenant, name = feed.source.tenant, feed.source.name
        if await asyncio.to_thread(self._store.is_empty, tenant, name):
            return None
        now = self._clock.time_ns()
        until = now + round((_CLAIM_S + feed.source.timeout_s) * NANOSECONDS)
        if not await asyncio.to_thread(
            self._store.claim, tenant, name, holder=self._holder, now=now, until=until
        ):
            return None
        # Read under the claim: another worker may have written some of them before it let go.
        rows = await asyncio.to_thread(self._store.next, tenant, name, limit=_PAGE_ROWS)
        due = [fold for fold in _folded(rows) if fold.due_at <= now]
        written = False
        for start in range(0, len(due), feed.source.batch):
            if not await self._write(feed, due[start : start + feed.source.batch]):
                return written
            written = True
            if self._ending.is_set():
                return written
            until = self._clock.time_ns() + round((_CLAIM_S + feed.source.timeout_s) * NANOSECONDS)
            now = self._clock.time_ns()
            if not await asyncio.to_thread(
                self._store.claim, tenant, name, holder=self._holder, now=now, until=until
            ):
                return None
        return written or (None if not rows else False)

    async def _write(self, feed: Feed, folds: list[Fold]) -> bool:
        """Whether the source answered. What it refused is noted."""
        try:
            await feed.apply([fold.write.change(feed.source) for fold in folds])
        except Refused as refused:
            if len(folds) == 1:
                feed.counts.writes["refused"].add()
                await self._refuse(folds[0], str(refused))
                return True
            for fold in folds:  # one of them is the reason: each by itself
                if not await self._write(feed, [fold]):
                    return False
            return True
        except Exception as error:
            reason = redact(str(error).partition("\n")[0])[:_ERROR_CHARACTERS]
            log.warning("source %s does not take writes: %s", feed.source.name, reason)
            feed.counts.writes["failed"].add()
            await asyncio.to_thread(self._store.failed, [folds[0].ids[0]], {"error": reason})
            return False
        feed.counts.writes["written"].add(len(folds))
        await asyncio.to_thread(self._store.done, [number for fold in folds for number in fold.ids])
        return True

    async def _refuse(self, fold: Fold, reason: str) -> None:
        attempts = fold.attempts + 1
        values = {
            "error": redact(reason)[:_ERROR_CHARACTERS],
            "attempts": attempts,
            "due_at": self._clock.time_ns() + round(0.25 * 2**attempts * NANOSECONDS),
            "set_aside": attempts >= _ATTEMPTS,
        }
        await asyncio.to_thread(self._store.failed, fold.ids, values)


class Fold(NamedTuple):
    """Rows of one key as one write."""

    ids: list[int]
    write: Write
    attempts: int
    due_at: int


def _folded(rows: Sequence[Row]) -> list[Fold]:
    """One write for each key, in the order of their last rows. A later value replaces an earlier one; fields are joined."""
    by_key: dict[bytes, list[Row]] = {}
    for row in rows:
        by_key.setdefault(bytes(row["key"]), []).append(row)
    folds: list[Fold] = []
    for of_key in by_key.values():
        start = 0
        for i, row in enumerate(of_key):
            if row["kind"] != "fields":
                start = i
        if of_key[start]["kind"] != "fields":
            # What came before is void. Fields set after it are a write of their own: a statement for them may not know of the rest.
            folds.append(_fold(of_key[: start + 1], _write(of_key[start])))
            of_key = of_key[start + 1 :]
        if of_key:
            folds.append(_fold(of_key, Write(bytes(of_key[0]["key"]), "fields", _joined(of_key))))
    return sorted(folds, key=lambda fold: fold.ids[-1])


def _fold(rows: list[Row], write: Write) -> Fold:
    return Fold(
        [row["id"] for row in rows],
        write,
        max(row["attempts"] for row in rows),
        max(row["due_at"] for row in rows),
    )


def _write(row: Row) -> Write:
    return Write(bytes(row["key"]), row["kind"], bytes(row["value"]))


def _joined(rows: Sequence[Row]) -> bytes:
    fields: dict[str, Any] = {}
    for row in rows:
        fields |= json.loads(bytes(row["value"]))
    return json.dumps(fields).encode()


def _folded_for_reading(rows: Sequence[Row]) -> Pending:
    found = Pending(False, {})
    for row in rows:
        if row["kind"] == "delete":
            found = Pending(True, None)
        elif row["kind"] == "set":
            found = Pending(True, bytes(row["value"]))
        else:
            fields = {name.encode(): text.encode() for name, text in json.loads(bytes(row["value"])).items()}
            found = Pending(
                found.whole, {**(found.payload if isinstance(found.payload, dict) else {}), **fields}
            )
    return found
