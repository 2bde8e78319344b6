"""The command line against a control role in this process: what a command says, and with which status it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from predis import Client
from predis.app.control import control_app
from predis.cli import main
from predis.errors import PredisError, all_errors
from tests.toys import Installation

Run = Callable[..., str]


def commands(installation: Installation, monkeypatch: pytest.MonkeyPatch, *before: str) -> Run:
    """Runs ``predis BEFORE ...``; what it says. ``code``: the status it must end with; ``fails``: the code of its error."""
    app = control_app(installation.platform, run_loops=False)

    def once(
        _client: Client, _server: Any, method: str, *, path: str, body: Any = None, size: int = 0
    ) -> Any:
        answer = asyncio.run(_send(app, method, path=path, body=body))
        document = answer.json() if answer.content else {}
        if not answer.is_success:
            raise all_errors().get(document["code"], PredisError)(document["error"])
        return document

    monkeypatch.setattr(Client, "_once", once)

    def call(*words: str, code: int = 0, fails: str = "") -> str:
        shown = CliRunner().invoke(main, [*before, *words], env={"COLUMNS": "240"})
        assert shown.exit_code == (code or int(bool(fails))), shown.output
        assert not fails or f"[{fails}]" in shown.output
        return shown.output

    return call


async def _send(app: Any, method: str, *, path: str, body: Any) -> httpx.Response:
    content = body if body is None or isinstance(body, bytes) else body.read()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        return await http.request(method, path, content=content)
