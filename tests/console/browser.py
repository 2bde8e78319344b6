"""Chromium on a control role that runs here, whose loops are the test's own calls."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from predis.app.control import control_app
from tests.toys import Installation

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

needs_chromium = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")


@contextlib.contextmanager
def served(installation: Installation) -> Iterator[str]:
    """The URL at which an installation's control role answers; without its loops."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        app = control_app(installation.platform, run_loops=False)
        # Without lifespan: it would close the platform, which is the caller's.
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        listening.listen()
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def opened(**options: Any) -> Iterator[tuple[Any, list[str]]]:
    """A page, and what went wrong in it: errors of scripts and what they wrote to the console as an error.

    That the server refused something is no fault of the page.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        try:
            page = browser.new_page(**options)
            problems: list[str] = []

            def heard(message: Any) -> None:
                if message.type == "error" and "status of 4" not in message.text:
                    problems.append(message.text)

            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", heard)
            yield page, problems
        finally:
            browser.close()
