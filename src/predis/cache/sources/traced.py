"""A source whose calls are traced: each becomes a span, from when it is made to when the source has answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from predis.cache.sources.calling import Caller, Change
from predis.cache.sources.pattern import Arguments
from predis.cache.sources.source import Source
from predis.telemetry import redact
from predis.tracing import Tracer

T = TypeVar("T")
_LONGEST = 300  # of what a source says as it fails


class Traced:
    """Passes calls on. What keys they are for is not in the span: there may be a person's number in them."""

    def __init__(self, caller: Caller, source: Source, *, tracer: Tracer) -> None:
        self._caller = caller
        self._source = source
        self._tracer = tracer

    def fetch(self, batch: Sequence[Arguments]) -> list[Any]:
        return self._called("load", len(batch), call=lambda: self._caller.fetch(batch))

    def write(self, changes: Sequence[Change]) -> None:
        self._called("write", len(changes), call=lambda: self._caller.write(changes))

    def explain(self, arguments: Arguments) -> str:
        return self._caller.explain(arguments)

    def close(self) -> None:
        self._caller.close()

    def _called(self, what: str, keys: int, *, call: Callable[[], T]) -> T:
        source, begun, failure = self._source, time.perf_counter(), ""
        try:
            return call()
        except Exception as error:
            failure = redact(f"{type(error).__name__}: {error}")[:_LONGEST]
            raise
        finally:
            attributes = {
                "predis.source": source.name, "predis.tenant": source.tenant, "predis.kind": source.kind, "predis.keys": keys,
            }  # fmt: skip
            self._tracer.call(
                f"{what} {source.name}",
                between=(begun, time.perf_counter()),
                attributes=attributes,
                error=failure,
            )
