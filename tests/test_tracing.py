from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from predis import tracing
from predis.errors import MissingExtra
from predis.metrics import Metrics
from predis.settings import load
from predis.tracing import Tracer
from tests.installation import free_ports

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = CALLER[:-1] + "0"
ATTRIBUTES = {"predis.endpoint": "churn", "predis.version": 3, "predis.cached": False, "predis.seconds": 0.5}
PATIENCE_S = 30


class Collector:
    """A real OTLP/HTTP receiver."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: queue.Queue[tuple[str, ExportTraceServiceRequest]] = queue.Queue()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                collector.requests.put((self.path, ExportTraceServiceRequest.FromString(body)))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def received(self) -> tuple[dict[str, str], list[Span]]:
        """The resource's attributes and the spans of the next request."""
        path, request = self.requests.get(timeout=PATIENCE_S)
        assert path == "/v1/traces"
        (resource,) = request.resource_spans
        attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        return attributes, [span for scope in resource.scope_spans for span in scope.spans]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(None, "serving-0")


@pytest.fixture
def tracer(collector: Collector, metrics: Metrics) -> Iterator[Tracer]:
    made = Tracer(collector.url, "serving-0", metrics=metrics, period_s=0.01)
    yield made
    made.close(timeout_s=PATIENCE_S)


@pytest.fixture(scope="module")
def idle() -> Iterator[Tracer]:
    """One that is never given a request."""
    made = Tracer("http://127.0.0.1:1", "serving-0")
    yield made
    made.close(timeout_s=PATIENCE_S)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


def counted(metrics: Metrics) -> tuple[float, float]:
    """Spans exported and dropped."""
    exported, dropped = (metrics.counter(f"predis_spans_{name}_total") for name in ("exported", "dropped"))
    return exported.value, dropped.value


def test_a_call_of_another_is_a_trace_of_its_own(collector: Collector, tracer: Tracer) -> None:
    tracer.call("load users", between=(1.0, 2.0), attributes={"predis.keys": 3}, error="ConnectionError")
    _, (span,) = collector.received()
    assert (span.name, span.kind, span.parent_span_id) == ("load users", Span.SPAN_KIND_CLIENT, b"")
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "ConnectionError")
    assert span.end_time_unix_nano - span.start_time_unix_nano == 10**9


def test_a_request_is_below_its_caller_and_its_stages_below_it(collector: Collector, tracer: Tracer) -> None:
    context = tracer.begin(CALLER, "vendor=x")
    stages = (("queue", 1.0, 1.25), ("predict", 1.25, 1.75), ("encode", 1.75, 2.0))
    tracer.request(context, "infer churn", between=(1.0, 2.0), attributes=ATTRIBUTES, stages=stages)
    resource, (request, *below) = collector.received()
    assert resource["service.name"] == "predis"
    assert resource["service.instance.id"] == "serving-0"
    assert request.trace_id.hex() == CALLER.split("-")[1]
    assert request.parent_span_id.hex() == CALLER.split("-")[2]
    assert f"00-{request.trace_id.hex()}-{request.span_id.hex()}-01" == context.traceparent
    assert (request.name, request.kind, request.trace_state) == (
        "infer churn",
        Span.SPAN_KIND_SERVER,
        "vendor=x",
    )
    assert request.status.code == Status.STATUS_CODE_UNSET
    values = {pair.key: pair.value for pair in request.attributes}
    assert values["predis.endpoint"].string_value == "churn"
    assert values["predis.version"].int_value == 3
    assert values["predis.cached"].bool_value is False
    assert values["predis.seconds"].double_value == 0.5
    assert [span.name for span in below] == ["queue", "predict", "encode"]
    for span in below:
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, request.span_id)
        assert span.kind == Span.SPAN_KIND_INTERNAL
    assert len({span.span_id for span in (request, *below)}) == 4
    begun = request.start_time_unix_nano
    spans = [(s.start_time_unix_nano - begun, s.end_time_unix_nano - begun) for s in (request, *below)]
    assert spans == [(0, 10**9), (0, 25 * 10**7), (25 * 10**7, 75 * 10**7), (75 * 10**7, 10**9)]


def test_moments_are_those_of_the_wall_clock(collector: Collector, tracer: Tracer) -> None:
    before = tracing.time.time_ns()
    now = tracing.time.perf_counter()
    tracer.request(tracer.begin(), "infer", between=(now, now), attributes={})
    after = tracing.time.time_ns()
    _, (span,) = collector.received()
    # The two clocks are read one after the other, and one of them may be moved a little meanwhile.
    assert before - 10**8 <= span.start_time_unix_nano <= after + 10**8


def test_a_failure_is_marked(collector: Collector, tracer: Tracer) -> None:
    tracer.request(tracer.begin(), "infer", between=(0.0, 1.0), attributes={}, error="model_failure")
    _, (span,) = collector.received()
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "model_failure")
    assert span.parent_span_id == b""


def test_what_the_caller_does_not_sample_is_not_sent(collector: Collector, metrics: Metrics) -> None:
    made = Tracer(collector.url, "serving-0", metrics=metrics)
    context = made.begin(UNSAMPLED)
    assert not context.sampled
    assert re.fullmatch(
        "00-4bf92f3577b34da6a3ce929d0e0e4736-(?!00f067aa0ba902b7)[0-9a-f]{16}-00", context.traceparent
    )
    made.request(context, "infer", between=(0.0, 1.0), attributes={})
    made.close(timeout_s=PATIENCE_S)
    assert collector.requests.empty()
    assert counted(metrics) == (0, 0)


@pytest.mark.parametrize(("ratio", "low", "high"), [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1_000, 1_000)])
def test_the_ratio_decides_where_the_caller_has_not(ratio: float, low: int, high: int) -> None:
    made = Tracer("http://127.0.0.1:1", "serving-0", ratio=ratio)
    assert low <= sum(made.begin().sampled for _ in range(1_000)) <= high
    assert made.begin(CALLER).sampled
    assert not made.begin(UNSAMPLED).sampled
    made.close(timeout_s=PATIENCE_S)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        CALLER.upper(),
        CALLER + "-more",
        CALLER + "0",
        CALLER[:-1],
        "ff" + CALLER[2:],
        "00-" + "0" * 32 + CALLER[35:],
        CALLER[:36] + "0" * 16 + "-01",
        " " + CALLER,
        CALLER.replace("-", "_"),
        CALLER + "\n",
    ],
)
def test_a_header_that_breaks_the_rules_counts_for_nothing(idle: Tracer, header: str) -> None:
    context = idle.begin(header, "vendor=x")
    assert (context.parent_id, context.tracestate) == (0, "")
    assert f"{context.trace_id:032x}" != CALLER.split("-")[1]


@pytest.mark.parametrize(
    "header", [CALLER, "01" + CALLER[2:], "01" + CALLER[2:] + "-later", CALLER[:-2] + "03"]
)
def test_a_header_of_this_or_a_later_version_counts(idle: Tracer, header: str) -> None:
    context = idle.begin(header)
    assert f"{context.trace_id:032x}-{context.parent_id:016x}" == CALLER[3:52]
    assert context.sampled


@given(traceparent=st.text(), tracestate=st.text())
def test_any_header_gives_a_legal_context(idle: Tracer, traceparent: str, tracestate: str) -> None:
    made = idle.begin(traceparent, tracestate).traceparent
    assert re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]", made)


def test_a_dead_collector_costs_only_the_spans(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    made = Tracer(f"http://127.0.0.1:{port}", "serving-0", metrics=metrics)
    for _ in range(3 * tracing.QUEUE):
        made.request(
            made.begin(), "infer", between=(0.0, 1.0), attributes={}, stages=(("predict", 0.0, 1.0),)
        )
    exported, dropped = counted(metrics)
    assert exported == 0
    assert dropped >= 2 * (2 * tracing.QUEUE - tracing.BATCH)
    made.close(timeout_s=0.5)
    made._thread.join(PATIENCE_S)  # it ends soon after its exporter is shut down
    assert not made._thread.is_alive()
    assert counted(metrics) == (0, 2 * 3 * tracing.QUEUE)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in told] == ["predis.tracing"]


def test_a_collector_that_comes_back_is_used_again(
    collector: Collector, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "predis.tracing")
    made = Tracer(collector.url, "serving-0", metrics=metrics, period_s=0.01)
    collector.status = 400
    made.request(made.begin(), "lost", between=(0.0, 1.0), attributes={})
    assert collector.received()[1][0].name == "lost"
    collector.status = 200
    made.request(made.begin(), "kept", between=(0.0, 1.0), attributes={})
    assert collector.received()[1][0].name == "kept"
    made.close(timeout_s=PATIENCE_S)
    assert counted(metrics) == (1, 1)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_closing_sends_what_waits(collector: Collector, metrics: Metrics) -> None:
    made = Tracer(collector.url, "serving-0", metrics=metrics, period_s=1_000)
    for _ in range(tracing.BATCH + 10):
        made.request(made.begin(), "infer", between=(0.0, 1.0), attributes={})
    made.close(timeout_s=PATIENCE_S)
    assert len(collector.received()[1]) == tracing.BATCH + 10
    assert counted(metrics) == (tracing.BATCH + 10, 0)


def test_one_sending_takes_at_most_a_batch(collector: Collector, metrics: Metrics) -> None:
    made = Tracer(collector.url, "serving-0", metrics=metrics, period_s=0.5)
    for _ in range(tracing.BATCH + 10):
        made.request(made.begin(), "infer", between=(0.0, 1.0), attributes={})
    assert len(collector.received()[1]) == tracing.BATCH
    assert len(collector.received()[1]) == 10
    made.close(timeout_s=PATIENCE_S)


class TestSettings:
    def test_without_a_collector_there_is_no_tracer(self) -> None:
        assert tracing.tracer(load({}, environ={}), "serving-0") is None

    def test_a_setting_names_the_collector(self, collector: Collector) -> None:
        given = {"otel_endpoint": collector.url + "/", "otel_sample_ratio": 0.0}
        made = tracing.tracer(load(given, environ={}), "serving-0")
        assert made is not None
        assert not made.begin().sampled
        made.request(made.begin(CALLER), "infer", between=(0.0, 1.0), attributes={})
        made.close(timeout_s=PATIENCE_S)
        assert collector.received()[1][0].name == "infer"

    def test_opentelemetry_names_the_collector_and_the_service(
        self, collector: Collector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "scoring")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        made = tracing.tracer(load({}, environ={}), "serving-0")
        assert made is not None
        made.request(made.begin(), "infer", between=(0.0, 1.0), attributes={})
        made.close(timeout_s=PATIENCE_S)
        resource, _ = collector.received()
        assert (resource["service.name"], resource["deployment.environment"]) == ("scoring", "test")

    def test_opentelemetry_may_switch_it_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        assert tracing.tracer(load({"otel_endpoint": "http://127.0.0.1:1"}, environ={}), "serving-0") is None

    def test_without_the_packages(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def nothing(_name: str) -> None:
            raise ModuleNotFoundError

        monkeypatch.setattr(tracing, "find_spec", nothing)
        with pytest.raises(MissingExtra, match=r"predis\[otel\]"):
            tracing.tracer(load({"otel_endpoint": "http://127.0.0.1:1"}, environ={}), "serving-0")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        assert tracing.tracer(load({}, environ={}), "serving-0") is None
        assert "predis[otel]" in caplog.text
