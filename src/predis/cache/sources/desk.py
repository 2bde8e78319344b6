"""Sources as people see them: declared, queued, tried."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from predis.access import Audit
from predis.cache.sources.counting import QueueGauges
from predis.cache.sources.declarations import Declarations, Declared
from predis.cache.sources.encoding import encode
from predis.cache.sources.failure import in_words
from predis.cache.sources.opening import caller_of
from predis.cache.sources.pattern import Arguments, Matcher
from predis.cache.sources.source import Source
from predis.cache.store import Row, WriteStore
from predis.clock import NANOSECONDS, Clock, iso
from predis.errors import InvalidInput
from predis.metrics import NOTHING, Metrics
from predis.state.engine import Database
from predis.telemetry import redact

T = TypeVar("T")
_CONNECTING_S = 5.0
_TROUBLED = 50
_SHOWN_BYTES = 4_096
_SHOWN_ERROR = 500


class SourceDesk:
    """What the control API does with sources. Every method is for one tenant."""

    def __init__(
        self, database: Database, declarations: Declarations, *, clock: Clock, metrics: Metrics = NOTHING
    ) -> None:
        self._gauges = QueueGauges(metrics)
        self._database = database
        self._declarations = declarations
        self._writes = WriteStore(database)
        self._audit = Audit(database, clock)
        self._clock = clock

    def listed(self, tenant: str) -> list[dict[str, Any]]:
        """By name, with what waits to be written to each."""
        queues = self._queues(tenant)
        return [self._told(one, queues) for one in self._declarations.all(tenant)]

    def shown(self, tenant: str, name: str) -> dict[str, Any]:
        """One, with every field, and the writes that it has not taken.

        Raises:
            SourceNotFound
        """
        one = self._declarations.get(tenant, name)
        troubled = [_troubled(row) for row in self._writes.troubled(tenant, name, limit=_TROUBLED)]
        return {**self._told(one, self._queues(tenant)), **one.source.shown(), "troubled": troubled}

    def add(
        self, tenant: str, name: str, *, document: Mapping[str, Any], actor: str, replace: bool
    ) -> dict[str, Any]:
        """Declare a source; gateways follow within a second.

        Raises:
            InvalidInput, AlreadyExists, Conflict, AccessDenied: see ``Declarations.add``.
        """
        one = self._declarations.add(Source.of(name, document, tenant=tenant), actor=actor, replace=replace)
        return self._told(one, self._queues(tenant))

    def remove(self, tenant: str, name: str, *, actor: str, discard: bool = False) -> None:
        """
        Raises:
            SourceNotFound
            Conflict: the file declares it; or writes wait for it, and are not to be discarded.
        """
        self._declarations.remove(tenant, name, actor=actor, discard=discard)

    def retry(self, tenant: str, name: str, *, actor: str) -> int:
        """Try once more what the source refused for good; how many writes that are.

        Raises:
            SourceNotFound
        """
        self._declarations.get(tenant, name)
        again = self._writes.again(tenant, name)
        with self._database.write() as connection:
            self._audit.add(
                connection, tenant, actor=actor, action="source.retry", target=name, detail={"writes": again}
            )
        return again

    def measure(self) -> None:
        """Tell the metrics what waits in queues, of every tenant."""
        self._gauges.set(self._writes.depths(), now=self._clock.time_ns())

    def test(self, tenant: str, key: str) -> dict[str, Any]:
        """Ask a key's source for it, past Valkey: what matched, what was asked, how long it took, the value or the error.

        Raises:
            InvalidInput: the key is of no source.
        """
        raw = key.encode()
        found = Matcher([(one.source.matched, one) for one in self._declarations.all(tenant)]).match(raw)
        arguments = found.source.matched.arguments(raw) if found is not None else None
        if found is None or arguments is None:
            raise InvalidInput(
                f"no source has keys like {key!r}; `predis cache source list` shows their patterns"
            )
        trial = {
            "key": key,
            "source": found.source.name,
            "pattern": found.source.pattern,
            "arguments": dict(arguments),
        }
        return {**trial, **self._tried(found, arguments)}

    def _tried(self, one: Declared, arguments: Arguments) -> dict[str, Any]:
        started = time.perf_counter()
        found: dict[str, Any] = {"asked": "", "value": None, "bytes": 0, "error": ""}
        try:
            caller = caller_of(one.source, allow_code=self._declarations.allow_code, by_file=one.by_file)
            try:
                found["asked"] = redact(caller.explain(arguments))
                started = time.perf_counter()
                (value,) = _within(one.source.timeout_s + _CONNECTING_S, lambda: caller.fetch([arguments]))
                if isinstance(value, Exception):
                    raise value
                payload = encode(one.source, value)
            finally:
                caller.close()
        except Exception as error:  # whatever a source raises is what is to be shown
            found["error"] = redact(in_words(error))[:_SHOWN_ERROR]
        else:
            found["value"] = _readable(payload)
            found["bytes"] = (
                len(payload) if isinstance(payload, bytes) else sum(map(len, (payload or {}).values()))
            )
        return {**found, "ms": round((time.perf_counter() - started) * 1_000, 3)}

    def _queues(self, tenant: str) -> dict[str, Row]:
        return {row["source"]: row for row in self._writes.depths() if row["tenant"] == tenant}

    def _told(self, one: Declared, queues: Mapping[str, Row]) -> dict[str, Any]:
        source = one.source
        queue = queues.get(source.name)
        oldest = queue["oldest"] if queue else None
        return {
            "name": source.name,
            "pattern": source.pattern,
            "kind": source.kind,
            "encoding": source.encoding,
            "ttl_s": source.ttl_s,
            "writes": source.writes,
            "declared_in": "predis.toml" if one.by_file else "API",
            "queued": int(queue["waiting"]) if queue else 0,
            "queued_for_s": round((self._clock.time_ns() - oldest) / NANOSECONDS, 3) if oldest else 0.0,
            "set_aside": int(queue["set_aside"]) if queue else 0,
        }


def _within(seconds: float, work: Callable[[], T]) -> T:
    """What it gives, done in a thread of its own: a source's code may hang, or end the thread that it runs in.

    Raises:
        TimeoutError: it has given nothing so far.
    """
    done: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:  # SystemExit too
            done.put((None, error))

    threading.Thread(target=run, name="source-tried", daemon=True).start()
    try:
        found, error = done.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error if isinstance(error, Exception) else RuntimeError(repr(error))
    return found  # type: ignore[return-value]


def _readable(payload: bytes | dict[bytes, bytes] | None) -> str | dict[str, str] | None:
    if isinstance(payload, dict):
        return {_text(name): _text(value) for name, value in payload.items()}
    return None if payload is None else _text(payload)


def _text(raw: bytes) -> str:
    return raw[:_SHOWN_BYTES].decode("utf-8", "replace")


def _troubled(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "key": _text(bytes(row["key"])),
        "kind": row["kind"],
        "value": _text(bytes(row["value"])),
        "attempts": row["attempts"],
        "set_aside": row["set_aside"],
        "error": row["error"],
        "written_at": iso(row["created_at"]),
    }
