"""Traces: what a sampled request spent its time on, sent to an OpenTelemetry collector over OTLP/HTTP.

A request's times are known when it has been answered. So nothing is started and ended on its way: ``begin`` reads the caller's
W3C trace context and makes ours, and after the answer ``request`` puts everything into a queue, in a few microseconds. A thread of
its own makes spans of it and sends them, at most so many a second, because making and sending costs about 0.2 ms a request. What
a process spends on tracing is bounded: a queue that is full, be it because more is traced than that or because the collector is
dead, drops, and what was dropped is counted.

Whether a request is traced is the caller's decision where there is one (the ``sampled`` flag), else that of ``otel_sample_ratio``.
Everything else is set by OpenTelemetry's own environment variables: headers, certificates, compression, resource attributes.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from random import getrandbits
from typing import TYPE_CHECKING, Any, NamedTuple

from predis.errors import MissingExtra
from predis.metrics import NOTHING, Metrics
from predis.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

QUEUE = 2_048  # requests that wait to be sent
BATCH = 256  # requests that are sent in one go, once a period: 5 % of a core
PERIOD_S = 1.0
_SAMPLED = 1
_LOW_64 = (1 << 64) - 1
_TRACES_PATH = "/v1/traces"
_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# https://www.w3.org/TR/trace-context/: lower case, and nothing may follow in version 00.
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z"
)

Stage = tuple[str, float, float]  # name, begin and end as perf_counter moments


class Context(NamedTuple):
    """A request's place in a trace: its own span, and the caller's above it (0: there is none)."""

    trace_id: int
    span_id: int
    parent_id: int
    flags: int
    tracestate: str

    @property
    def sampled(self) -> bool:
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header to answer with, and to send on: whoever gets it is below our span."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"


@dataclass(frozen=True, slots=True)
class _Finished:
    context: Context
    name: str
    between: tuple[float, float]
    attributes: Mapping[str, Any]
    stages: Sequence[Stage]
    error: str
    outgoing: bool = False


def tracer(settings: Settings, role: str, *, metrics: Metrics = NOTHING) -> Tracer | None:
    """What traces this process; ``None`` where no collector is named, neither by setting nor by OpenTelemetry's variables.

    Args:
        role: the process's name, such as ``serving-0``.

    Raises:
        MissingExtra: the setting names a collector and the packages are not installed.
    """
    named = any(os.environ.get(name) for name in _ENDPOINT_VARIABLES)
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or not (settings.otel_endpoint or named):
        return None
    if not _is_installed():
        if settings.otel_endpoint:
            raise MissingExtra.of("opentelemetry-exporter-otlp-proto-http", "otel")
        log.warning(
            "the environment names an OpenTelemetry collector; to send it traces: pip install 'predis[otel]'"
        )
        return None
    return Tracer(settings.otel_endpoint, role, ratio=settings.otel_sample_ratio, metrics=metrics)


class Tracer:
    """Traces the requests of one process.

    Args:
        endpoint: base URL of the collector; empty: what OpenTelemetry's variables say.
        role: the process's name, ``service.instance.id`` of its spans.
        ratio: share of requests that are traced where the caller has not decided.
        period_s: how often spans are sent.
    """

    def __init__(
        self,
        endpoint: str,
        role: str,
        *,
        ratio: float = 1.0,
        metrics: Metrics = NOTHING,
        period_s: float = PERIOD_S,
    ) -> None:
        self._endpoint = endpoint
        self._role = role
        self._bound = round(ratio * (1 << 64))
        self._period_s = period_s
        self._exported = metrics.counter("predis_spans_exported_total")
        self._dropped = metrics.counter("predis_spans_dropped_total")
        self._queue: deque[_Finished] = deque()
        self._ending = threading.Event()
        self._failing = False
        self._exporter: SpanExporter | None = None
        self._thread = threading.Thread(target=self._run, name="tracing", daemon=True)
        self._thread.start()

    def begin(self, traceparent: str = "", tracestate: str = "") -> Context:
        """The context of a request that has come, from the headers it came with. Headers that break the rules count for nothing."""
        found = _TRACEPARENT.match(traceparent) if traceparent else None
        if found is None or (found[1] == "00" and found[5]):
            trace_id = getrandbits(128) or 1
            flags = _SAMPLED if trace_id & _LOW_64 < self._bound else 0
            return Context(trace_id, getrandbits(64) or 1, 0, flags, "")
        state = tracestate if len(tracestate) <= 512 else ""
        return Context(
            int(found[2], 16), getrandbits(64) or 1, int(found[3], 16), int(found[4], 16) & 3, state
        )

    def request(
        self,
        context: Context,
        name: str,
        *,
        between: tuple[float, float],
        attributes: Mapping[str, Any],
        stages: Sequence[Stage] = (),
        error: str = "",
    ) -> None:
        """Take a request that has been answered. Never waits and never raises.

        Args:
            name: of the span, one of few: no ids in it.
            between: its begin and end as perf_counter moments.
            attributes: texts, numbers and booleans by OpenTelemetry's names. They are kept, not copied.
            stages: what it spent its time on; each becomes a span below it.
            error: why it failed; empty if it did not.
        """
        if not context.flags & _SAMPLED:
            return
        if len(self._queue) >= QUEUE:
            self._dropped.add(1 + len(stages))
            return
        self._queue.append(_Finished(context, name, between, attributes, stages, error))

    def call(
        self, name: str, *, between: tuple[float, float], attributes: Mapping[str, Any], error: str = ""
    ) -> None:
        """Take a call that this process made of another, and that is over; a trace of its own. Otherwise as ``request``."""
        context = self.begin()
        if not context.sampled:
            return
        if len(self._queue) >= QUEUE:
            self._dropped.add(1)
            return
        self._queue.append(_Finished(context, name, between, attributes, (), error, outgoing=True))

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, as far as the collector takes it in time."""
        self._ending.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive() and self._exporter is not None:
            self._exporter.shutdown()

    def _run(self) -> None:
        self._exporter, resource = _exporter(self._endpoint), _resource(self._role)
        ending = False
        while not ending:
            ending = self._ending.wait(self._period_s)
            waiting = len(self._queue)
            count = waiting if ending else min(waiting, BATCH)
            if count:
                self._send(self._exporter, [self._queue.popleft() for _ in range(count)], resource=resource)
        self._exporter.shutdown()

    def _send(self, exporter: SpanExporter, finished: Sequence[_Finished], *, resource: Resource) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        # Anew for each batch: the two clocks drift, and the wall clock may be set.
        epoch_ns = time.time_ns() - time.perf_counter_ns()
        spans = [span for one in finished for span in _spans(one, epoch_ns, resource=resource)]
        try:
            taken = exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception:
            log.exception("spans could not be sent")
            taken = False
        (self._exported if taken else self._dropped).add(len(spans))
        if taken == self._failing:
            self._failing = not taken
            if taken:
                log.info("the OpenTelemetry collector takes spans again")
            else:
                log.warning(
                    "the OpenTelemetry collector takes no spans; they are dropped and counted until it does"
                )


def _spans(finished: _Finished, epoch_ns: int, *, resource: Resource) -> list[ReadableSpan]:
    """The request's span and those of its stages."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

    context = finished.context
    flags = TraceFlags(context.flags)
    state = TraceState.from_header([context.tracestate]) if context.tracestate else TraceState()

    def place(span_id: int, *, remote: bool = False) -> SpanContext:
        return SpanContext(context.trace_id, span_id, is_remote=remote, trace_flags=flags, trace_state=state)

    def moment(at: float) -> int:
        return epoch_ns + int(at * 1e9)

    own = place(context.span_id)
    began, ended = finished.between
    spans = [
        ReadableSpan(
            finished.name,
            own,
            place(context.parent_id, remote=True) if context.parent_id else None,
            resource,
            attributes=finished.attributes,
            kind=SpanKind.CLIENT if finished.outgoing else SpanKind.SERVER,
            status=Status(StatusCode.ERROR, finished.error) if finished.error else Status(),
            start_time=moment(began),
            end_time=moment(ended),
        )
    ]
    for name, began, ended in finished.stages:
        below = place(getrandbits(64) or 1)
        spans.append(
            ReadableSpan(name, below, own, resource, start_time=moment(began), end_time=moment(ended))
        )
    return spans


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def _exporter(endpoint: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    # They tell of every attempt; we tell when the collector goes and when it is back.
    for noisy in ("opentelemetry.exporter", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    if not endpoint:
        return OTLPSpanExporter()
    base = endpoint.rstrip("/")
    return OTLPSpanExporter(base if base.endswith(_TRACES_PATH) else base + _TRACES_PATH)


def _resource(role: str) -> Resource:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    from predis import __version__

    own = {"service.name": "predis", "service.version": __version__, "service.instance.id": role}
    return Resource.create(own).merge(OTELResourceDetector().detect())
