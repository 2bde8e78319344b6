"""What is told of requests besides their answers: their place in a trace, and lines of the access log."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from predis.clock import ManualClock
from predis.serving.observing import Observing
from predis.serving.rest import RestApp
from predis.telemetry import AccessLog
from predis.tracing import Context, Tracer
from tests.serving import helpers
from tests.serving.helpers import LIMITS, applied, body, known_keys, ready_plane, tensor

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Spans:
    """A tracer that keeps what it is given."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.closed = False

    def begin(self, traceparent: str = "", tracestate: str = "") -> Context:
        _version, trace, span, _flags = (traceparent or PARENT).split("-")
        return Context(int(trace, 16), 7, int(span, 16), 1, tracestate)

    def request(
        self, context: Context, name: str, *, between: tuple[float, float], attributes: Mapping[str, Any],
        stages: Sequence[Any] = (), error: str = "",
    ) -> None:  # fmt: skip
        self.requests.append(
            {"context": context, "name": name, "attributes": attributes, "stages": stages, "error": error}
        )

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def spans() -> Spans:
    return Spans()


def app_of(observing: Observing, clock: ManualClock) -> RestApp:
    plane = ready_plane(clock, applied({1: 1.0}))
    return RestApp(plane, known_keys(clock), limits=LIMITS, repository=cast(Any, None), observing=observing)


def observing(spans: Spans | None = None, access_log: AccessLog | None = None) -> Observing:
    return Observing(lambda _tenant: b"", dict, cast(Tracer | None, spans), access_log)


def test_a_request_has_its_place_in_the_callers_trace(clock: ManualClock, spans: Spans) -> None:
    app = app_of(observing(spans), clock)
    reply = helpers.ask(
        app, "/v2/models/e/infer", body(tensor("x", "FP64", [1.0]), id="a-1"), headers={"traceparent": PARENT}
    )
    assert reply.status == 200
    assert reply.headers["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01"
    (told,) = spans.requests
    assert f"{told['context'].parent_id:016x}" == "b7ad6b7169203331"
    assert [stage[0] for stage in told["stages"]] == ["queue", "predict", "answer"]
    moments = [moment for stage in told["stages"] for moment in stage[1:3]]
    assert moments == sorted(moments)
    assert told["attributes"]["predis.request_id"] == "a-1"
    assert told["error"] == ""


def test_a_refused_request_is_a_span_with_its_error(clock: ManualClock, spans: Spans) -> None:
    app = app_of(observing(spans), clock)
    assert helpers.ask(app, "/v2/models/e/infer", body(tensor("y", "FP64", [1.0]))).status == 400
    (told,) = spans.requests
    assert (told["error"], list(told["stages"])) == ("invalid_request", [])


def test_every_answer_is_a_line_of_the_access_log(clock: ManualClock) -> None:
    lines = io.BytesIO()
    log = AccessLog("serving-0", style="json", stream=lines)
    app = app_of(observing(access_log=log), clock)
    helpers.ask(app, "/v2/models/e/infer", body(tensor("x", "FP64", [1.0]), id="a-1"))
    helpers.ask(app, "/v2/models/nobody/infer", body(tensor("x", "FP64", [1.0])))
    helpers.ask(app, "/v2/health/live")
    log.close()
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line["status"] for line in told] == [200, 404, 200]
    assert told[0]["request_id"] == "a-1"


def test_closing_closes_the_tracer(spans: Spans) -> None:
    observing(spans).close()
    assert spans.closed
