"""Access over HTTP: the dependency every control route takes, the guard in front of them, and the routes of keys and audit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from predis.access.audit import Audit
from predis.access.keys import LOOPBACK, Caller, Keys
from predis.errors import AccessDenied, PredisError, Unavailable

_JSON = (b"content-type", b"application/json")
_READING = frozenset(("GET", "HEAD", "OPTIONS"))


def _needs(right: str) -> Callable[[Request], Caller]:
    def caller(request: Request) -> Caller:
        keys: Keys = request.app.state.keys
        found = keys.recognise(request.headers.get("authorization"))
        found.require(right)
        return found

    return caller


Predictor = Annotated[Caller, Depends(_needs("predict"))]
Reader = Annotated[Caller, Depends(_needs("read"))]
Operator = Annotated[Caller, Depends(_needs("operate"))]
Administrator = Annotated[Caller, Depends(_needs("admin"))]


class NewKey(BaseModel):
    """Who the key is for and what it may do."""

    name: str
    role: str


def router(keys: Keys, audit: Audit) -> APIRouter:
    """Routes under ``/api/v1`` for keys and the audit log."""
    routes = APIRouter(tags=["access"])

    @routes.get("/keys")
    def list_keys(caller: Administrator) -> list[dict[str, Any]]:
        """API keys of the tenant; the keys themselves are never shown again."""
        return keys.listed(caller.tenant)

    @routes.post("/keys", status_code=201)
    def create_key(body: NewKey, caller: Administrator) -> dict[str, str]:
        """A new API key, shown this once."""
        return {"key": keys.create(body.name, role=body.role, tenant=caller.tenant)}

    @routes.delete("/keys/{key_id}", status_code=204)
    def revoke_key(key_id: str, caller: Administrator) -> None:
        """End a key."""
        keys.revoke(key_id, tenant=caller.tenant)

    @routes.get("/audit")
    def list_audit(caller: Reader, limit: int = 200) -> list[dict[str, Any]]:
        """Who did what, newest first."""
        return audit.entries(caller.tenant, limit=min(max(limit, 1), 1_000))

    return routes


class Guard:
    """Refuses what a web page elsewhere could make a browser send to an installation without keys.

    On loopback without keys everybody who reaches the port is the administrator. A browser reaches it too: so the Host must be a
    loopback name (against DNS rebinding), and a request that changes something must not come from another origin.

    Every body is taken as JSON, whatever its Content-Type says: clients send none, or (curl -d) a wrong one.
    """

    def __init__(self, app: Any, keys: Keys, *, insecure: bool) -> None:
        self._app = app
        self._keys = keys
        self._insecure = insecure

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] == "http":
            scope["predis.refusal"] = self._refusal(scope)
            scope["headers"] = [(k, v) for k, v in scope["headers"] if k != b"content-type"] + [_JSON]
        await self._app(scope, receive, send)

    def _refusal(self, scope: MutableMapping[str, Any]) -> PredisError | None:
        headers = {
            key: value.decode("latin-1") for key, value in scope["headers"] if key in (b"host", b"origin")
        }
        host, origin = headers.get(b"host", ""), headers.get(b"origin", "")
        if scope["method"] not in _READING and origin and origin.partition("://")[2] != host:
            return AccessDenied(f"a page of {origin} may not change anything here")
        name = host if host.startswith("[") and host.endswith("]") else host.rpartition(":")[0] or host
        try:
            if self._insecure or name in LOOPBACK or self._keys.exist():
                return None
        except Unavailable as error:
            return error
        return AccessDenied(f"host {host!r} is not a loopback name, and there are no API keys")


def refuse(request: Request) -> None:
    """Dependency of every control route: what the guard refused ends here, as a typed error.

    Raises:
        AccessDenied
        Unavailable: whether there are keys is not known yet, and the database does not answer.
    """
    refusal: PredisError | None = request.scope.get("predis.refusal")
    if refusal is not None:
        raise refusal
