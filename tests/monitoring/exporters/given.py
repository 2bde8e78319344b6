"""What the tests of the exporters share: batches, and receivers that take what is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from predis.metrics import TABLE
from predis.monitoring.exporters import Batch, Health, Notice, Sample

AT_NS = 1_700_000_060_000_000_000
BEGAN_NS = AT_NS - 15_000_000_000
ORIGIN_NS = AT_NS - 60_000_000_000
VERSION = (("tenant", "default"), ("endpoint", "churn"), ("version", "3"))
OK = (*VERSION, ("outcome", "ok"))


def counter(delta: float, total: float) -> Sample:
    return Sample(TABLE["predis_requests_total"], OK, (delta,), (total,))


def gauge(value: float) -> Sample:
    return Sample(TABLE["predis_alerts_open"], (("severity", "critical"),), (value,), (value,))


def seconds() -> Sample:
    """A histogram of request times: 4 in the first bucket, 2 in that up to 10 ms."""
    metric = TABLE["predis_request_seconds"]
    cells = [0.0] * metric.cells
    cells[0], cells[metric.buckets.index(0.01)], cells[-1] = 4, 2, 0.0152
    delta = tuple(cells)
    return Sample(metric, VERSION, delta, tuple(2 * cell for cell in delta))


def notice(*, resolved: bool = False) -> Notice:
    return Notice(
        at_ns=AT_NS,
        incident="c0ffee",
        tenant="default",
        endpoint="churn",
        kind="performance",
        severity="critical",
        title=f"[{'RESOLVED' if resolved else 'CRITICAL'}] churn v3: performance",
        text="AUC fell to 0.61. Look with: predis monitor churn",
        resolved=resolved,
    )


def batch(*samples: Sample, notices: tuple[Notice, ...] = (), health: tuple[Health, ...] = ()) -> Batch:
    return Batch(
        origin_ns=ORIGIN_NS, began_ns=BEGAN_NS, at_ns=AT_NS, samples=samples, notices=notices, health=health
    )


class Receiver(ThreadingHTTPServer):
    """Takes every POST. ``replies``: status and body of the next answers; 202 after them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: list[tuple[int, bytes]] = []
        self.seen: list[
            tuple[str, dict[str, str], bytes]
        ] = []  # path, headers, body as it was before compression
        self.came = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def bodies(self, path: str) -> list[bytes]:
        return [body for seen, _, body in self.seen if seen == path]

    def wait_for(self, count: int, *, patience_s: float = 20.0) -> None:
        with self.came:
            assert self.came.wait_for(lambda: len(self.seen) >= count, patience_s)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        status, content = self.server.replies.pop(0) if self.server.replies else (202, b"")
        with self.server.came:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.server.seen.append((self.path, headers, body))
            self.server.came.notify_all()
        self.send_response(status)
        if status == 307:
            self.send_header("location", f"{self.server.url}/elsewhere")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield found
        finally:
            found.shutdown()
            thread.join()
