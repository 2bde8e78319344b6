"""A web server of the tests' own, which answers as a test says and counts what reaches it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Site:
    """``answer`` is called with the request, and sends what it likes."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.ending = threading.Event()
        """Set when the site is taken down: who hangs looks at it."""
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                site.connections += 1

            def do_GET(self) -> None:
                site.asked.append(self.path)
                site.headers.append(dict(self.headers))
                with contextlib.suppress(ConnectionError):
                    site.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextlib.contextmanager
def site(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Site]:
    made = Site(answer)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.ending.set()
        made.server.shutdown()
        thread.join()
        made.server.server_close()


def says(request: BaseHTTPRequestHandler, document: Any, *, status: int = 200, **headers: str) -> None:
    """Answer with a document as JSON, or with bytes as they are."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    request.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)
