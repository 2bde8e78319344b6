"""Measures what observing costs: counting, exposition, tracing, the access log. See README.md beside this file."""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

from predis import telemetry, tracing
from predis.metrics import Metrics, exposition
from predis.telemetry import Access, AccessLog
from predis.tracing import Tracer

LABELS = {"tenant": "default", "endpoint": "churn", "version": "3"}
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HISTOGRAMS = (
    "predis_request_seconds",
    "predis_queue_seconds",
    "predis_predict_seconds",
    "predis_batch_rows",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "command": " ".join(["bench/observing.py", *sys.argv[1:]]),
            "counting_us": counting(Path(folder)),
            "exposition_ms": showing(Path(folder) / "many"),
            "tracing_us": spans(),
            "access_log_us": lines(),
        }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def cost_us(work: Callable[[], object], *, times: int = 10_000, rounds: int = 9) -> float:
    """The quickest of some rounds, which others on the machine disturbed least."""
    return round(min(timeit.repeat(work, number=times, repeat=rounds)) / times * 1e6, 3)


def counting(folder: Path) -> dict[str, float]:
    metrics = Metrics(folder, "serving-0")
    rows = metrics.counter("predis_rows_total", **LABELS)
    seconds = metrics.histogram("predis_request_seconds", **LABELS)
    batches = {n: [random.lognormvariate(-6, 0.7) for _ in range(n)] for n in (1, 8, 64, 256)}
    found = {"counter.add": cost_us(rows.add), "counter.add(64)": cost_us(lambda: rows.add(64))}
    for count, batch in batches.items():
        found[f"histogram.observe of {count}"] = cost_us(lambda batch=batch: seconds.observe(batch))
    metrics.close()
    return found


def showing(folder: Path) -> dict[str, float]:
    """Four workers with 25 versions each: 400 histograms, 125 counters."""
    workers = [Metrics(folder, f"serving-{number}") for number in range(4)]
    for metrics in workers:
        for version in map(str, range(25)):
            labels = {**LABELS, "version": version}
            for name in HISTOGRAMS:
                metrics.histogram(name, **labels).observe([0.001, 0.01, 0.1])
            metrics.counter("predis_rows_total", **labels).add()
    started = time.perf_counter()
    text = exposition(folder)
    first_ms = (time.perf_counter() - started) * 1e3
    later_ms = cost_us(lambda: exposition(folder), times=1) / 1e3
    for metrics in workers:
        metrics.close()
    return {"first": round(first_ms, 1), "later": round(later_ms, 1), "text_bytes": len(text)}


def spans() -> dict[str, float]:
    tracer = Tracer("http://127.0.0.1:9", "serving-0", period_s=1e6)
    attributes: dict[str, Any] = {"predis.endpoint": "churn", "predis.version": 3, "predis.tenant": "default"}

    def traced(header: str) -> str:
        context = tracer.begin(header)
        at = time.perf_counter()
        stages = (("queue", at, at), ("predict", at, at), ("encode", at, at))
        tracer.request(context, "infer", between=(at, at), attributes=attributes, stages=stages)
        if len(tracer._queue) == tracing.QUEUE:
            tracer._queue.clear()
        return context.traceparent

    found = {
        "a sampled request": cost_us(lambda: traced(CALLER)),
        "an unsampled request": cost_us(lambda: traced(CALLER[:-1] + "0")),
    }
    resource = tracing._resource("serving-0")
    traced(CALLER)
    one = tracer._queue.pop()
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    def sent() -> bytes:
        return bytes(encode_spans(tracing._spans(one, 0, resource=resource)).SerializeToString())

    found["a sampled request, in the background"] = cost_us(sent, times=1_000)
    tracer._queue.clear()
    tracer.close()
    return found


def lines() -> dict[str, float]:
    log = AccessLog("serving-0", stream=io.BytesIO())
    access = Access("POST", "/v2/models/churn/infer", 200, 0.0012, 345, "abc-1", "default", "127.0.0.1")
    found = {
        "add": cost_us(lambda: log.add(Access(*access)), times=500),
        "a line of text, in the background": cost_us(lambda: telemetry._text_line("x", access, at=0.0)),
        "a line of JSON, in the background": cost_us(lambda: telemetry._json_line("x", access, at=0.0)),
    }
    log.close()
    return found


if __name__ == "__main__":
    main()
