"""A real Prometheus and a real Alertmanager, and what they watch."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from predis.metrics import exposition
from predis.metrics.exposition import CONTENT_TYPE
from tests.installation import free_ports


@contextmanager
def exposing(folder: Path) -> Iterator[str]:
    """Host and port of a server of the metrics in ``folder``, as control has one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exposition(folder)
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def alertmanager(program: str, folder: Path, *, webhook: str) -> Iterator[str]:
    """Host and port of one that tells ``webhook`` of every alert at once."""
    config = folder / "alertmanager.yml"
    receiver = {"name": "test", "webhook_configs": [{"url": webhook, "send_resolved": True}]}
    route = {"receiver": "test", "group_wait": "0s", "group_interval": "1s", "group_by": ["alertname"]}
    config.write_text(json.dumps({"route": route, "receivers": [receiver]}))
    (port,) = free_ports(1)
    command = [
        program,
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with running(command, folder / "alertmanager.log"):
        yield f"127.0.0.1:{port}"


class Prometheus:
    """One that scrapes and evaluates five times a second."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer; ``None`` where there is none yet."""
        try:
            with urllib.request.urlopen(
                f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=10
            ) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def value(self, query: str) -> float | None:
        found = self.get("/api/v1/query", query=query)
        return float(found["result"][0]["value"][1]) if found and found["result"] else None

    def alerts(self) -> dict[str, str]:
        """State of each alert by name."""
        found = self.get("/api/v1/alerts") or {"alerts": []}
        return {alert["labels"]["alertname"]: alert["state"] for alert in found["alerts"]}


@contextmanager
def prometheus(program: str, folder: Path, *, target: str, rules: Path, tells: str) -> Iterator[Prometheus]:
    """One that scrapes ``target`` and sends alerts to the Alertmanager ``tells``."""
    config = folder / "prometheus.yml"
    config.write_text(
        json.dumps(
            {
                "global": {
                    "scrape_interval": "200ms",
                    "scrape_timeout": "200ms",
                    "evaluation_interval": "200ms",
                },
                "rule_files": [str(rules)],
                "scrape_configs": [{"job_name": "predis", "static_configs": [{"targets": [target]}]}],
                "alerting": {"alertmanagers": [{"static_configs": [{"targets": [tells]}]}]},
            }
        )
    )
    (port,) = free_ports(1)
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, folder / "prometheus.log"):
        yield Prometheus(f"http://127.0.0.1:{port}")
