"""What is told of requests besides their answers: metrics to whoever scrapes, spans to a collector, lines to the access log.

All of it comes after the answer, and nothing of it can fail or delay one. What is off costs a comparison with None.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from predis.metrics import Numbers
from predis.telemetry import AccessLog
from predis.tracing import Context, Tracer


@dataclass(frozen=True)
class Observing:
    """The observers of one worker.

    Args:
        exposition: the Prometheus text of the installation, as a tenant may see it.
        numbers: what the installation's processes have counted.
    """

    exposition: Callable[[str], bytes]
    numbers: Callable[[], Numbers]
    tracer: Tracer | None = None
    access_log: AccessLog | None = None

    def begin(self, traceparent: str, tracestate: str) -> Context | None:
        """The request's place in a trace; None where nothing is traced."""
        return None if self.tracer is None else self.tracer.begin(traceparent, tracestate)

    def traced(self, call: Any, context: Context | None) -> None:
        """Give the spans of a call that has been answered or refused."""
        if self.tracer is None or context is None or not context.sampled:
            return
        ended = time.perf_counter()
        stages = []
        if call.predicted is not None:
            started, done = call.predicted
            stages = [
                ("queue", call.started, started),
                ("predict", started, done),
                ("answer", done, ended),
            ]
        served = getattr(call, "served", None)
        self.tracer.request(
            context,
            "infer",
            between=(call.started, ended),
            attributes={
                "predis.tenant": call.caller.tenant,
                "predis.endpoint": call.endpoint,
                "predis.version": served.number if served is not None else 0,
                "predis.request_id": call.request.id,
                "predis.rows": call.inputs.rows if hasattr(call, "inputs") else 0,
            },
            stages=stages,
            error=call.error.code if call.error is not None else "",
        )

    def close(self) -> None:
        if self.tracer is not None:
            self.tracer.close()
        if self.access_log is not None:
            self.access_log.close()
