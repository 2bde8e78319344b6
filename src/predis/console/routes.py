"""The console's pages and the overview they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from predis.access.routes import Reader
from predis.console.overview import Overview
from predis.errors import NotFound
from predis.rollout.gates import GATES
from predis.rollout.plan import APPROVALS, STRATEGIES, Plan
from predis.rollout.states import STATES, WISHES

STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def api(overview: Overview) -> APIRouter:
    """What the console shows under ``/api/v1``, beside what the other parts have there."""
    routes = APIRouter(tags=["console"])

    @routes.get("/overview")
    def show_overview(caller: Reader, endpoint: str | None = None) -> dict[str, Any]:
        """Everything the console shows, in one answer."""
        return overview.of(caller.tenant, endpoint=endpoint)

    @routes.get("/plan")
    def show_plan(caller: Reader) -> dict[str, Any]:
        """What a rollout's plan can say, with each value's default; its gates and states, and what people may ask for in which."""
        return {
            "strategies": dict(STRATEGIES),
            "defaults": Plan().to_dict(),
            "approvals": list(APPROVALS),
            "gates": dict(GATES),
            "states": {str(state): said for state, said in STATES.items()},
            "wishes": {wish: sorted(states) for wish, states in WISHES.items()},
        }

    @routes.get("/rollouts/{rollout}/shadow")
    def show_shadow(rollout: int, caller: Reader) -> dict[str, Any] | None:
        """How far the scores of a rollout's shadow are from the answers so far; null of one that has ended, or copies nothing."""
        return overview.shadow(caller.tenant, rollout)

    return routes


def pages() -> APIRouter:
    """The pages themselves; they hold no data, so they need no key."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    def index() -> Response:
        return _file("index.html")

    @routes.get("/console/{name}")
    def asset(name: str) -> Response:
        return _file(name)

    return routes


def _file(name: str) -> Response:
    path = STATIC / name
    if path.parent != STATIC or path.suffix not in _TYPES or not path.is_file():
        raise NotFound(f"the console has no page {name!r}")
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=_HEADERS)
