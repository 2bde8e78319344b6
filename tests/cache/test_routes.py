"""Who may do what with sources over HTTP, and what is noted of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.testclient import TestClient

from predis.access import Audit, Keys
from predis.access.routes import Guard, refuse
from predis.cache.routes import router
from predis.cache.sources.declarations import Declarations
from predis.cache.sources.desk import SourceDesk
from predis.clock import ManualClock
from predis.errors import PredisError
from predis.serving.rest import status_of
from predis.state.engine import Database
from tests.cache.sources import slow

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
ROOT = "/cache/sources"


@pytest.fixture
def keys(database: Database, clock: ManualClock) -> Keys:
    return Keys(database, clock)


@pytest.fixture
def http(database: Database, clock: ManualClock, keys: Keys, tmp_path: Path) -> Iterator[TestClient]:
    config = tmp_path / "predis.toml"
    config.write_text(
        '[cache.sources.carts]\npattern = "cart:{id}"\nkind = "http"\nurl = "http://127.0.0.1:1/{id}"\n'
        'headers = { X-Key = "hunter2" }\n'
    )
    app = FastAPI(dependencies=[Depends(refuse)])
    app.state.keys = keys
    app.include_router(
        router(SourceDesk(database, Declarations(database, clock, config=config), clock=clock))
    )

    @app.exception_handler(PredisError)
    async def _answer(_request: Request, error: PredisError) -> Response:
        return JSONResponse({"code": error.code, "error": error.message}, status_of(error))

    guarded: Any = Guard(app, keys, insecure=False)
    with TestClient(guarded, base_url="http://127.0.0.1:8000") as found:
        yield found


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    url = f"sqlite:///{tmp_path}/users.sqlite"
    slow.table(url, 9).dispose()
    return {
        "pattern": "user:{id:int}", "kind": "sql", "url": url, "statement": "SELECT id, name FROM users WHERE id IN :id",
    }  # fmt: skip


def bearer(keys: Keys, role: str, tenant: str = "default") -> dict[str, str]:
    return {"authorization": f"Bearer {keys.create(f'{role}-of-{tenant}', role=role, tenant=tenant)}"}


def test_rights(http: TestClient, keys: Keys, document: dict[str, Any]) -> None:
    """Viewers see which sources there are, operators what is in them, and administrators alone declare where this server connects to."""
    asked = [
        ("GET", ROOT, None), ("GET", f"{ROOT}/carts", None), ("POST", f"{ROOT}/test", {"key": "cart:1"}),
        ("POST", f"{ROOT}/carts/retry", None), ("POST", ROOT, {"name": "users", "source": document}),
        ("DELETE", f"{ROOT}/users", None),
    ]  # fmt: skip
    allowed = {"client": 0, "viewer": 1, "operator": 4, "admin": 6}
    for role, count in allowed.items():
        headers = bearer(keys, role)
        answers = [http.request(method, path, json=body, headers=headers) for method, path, body in asked]
        assert [answer.status_code == 403 for answer in answers] == [False] * count + [True] * (6 - count)
        assert all(answer.is_success for answer in answers[:count])
    assert http.get(ROOT).status_code == 401


def test_what_is_noted(
    http: TestClient, keys: Keys, document: dict[str, Any], database: Database, clock: ManualClock
) -> None:
    headers = bearer(keys, "admin")
    http.post(ROOT, json={"name": "users", "source": document}, headers=headers)
    http.post(f"{ROOT}/users/retry", headers=headers)
    http.post(f"{ROOT}/test", json={"key": "user:1"}, headers=headers)
    http.delete(f"{ROOT}/users", headers=headers)
    entries = [one for one in Audit(database, clock).entries("default") if one["action"].startswith("source")]
    assert [(one["action"], one["actor"], one["target"]) for one in entries] == [
        ("source.remove", "admin-of-default", "users"),
        ("source.retry", "admin-of-default", "users"),
        ("source.add", "admin-of-default", "users"),
    ]
    assert entries[-1]["detail"] == {"pattern": "user:{id:int}", "kind": "sql", "writes": "none"}


def test_tenants_do_not_see_each_other(http: TestClient, keys: Keys, document: dict[str, Any]) -> None:
    theirs, ours = bearer(keys, "admin", "acme"), bearer(keys, "admin")
    assert http.post(ROOT, json={"name": "users", "source": document}, headers=theirs).status_code == 201
    assert [one["name"] for one in http.get(ROOT, headers=theirs).json()] == ["users"]
    assert [one["name"] for one in http.get(ROOT, headers=ours).json()] == ["carts"]
    assert http.get(f"{ROOT}/users", headers=ours).status_code == 404
    assert http.delete(f"{ROOT}/users", headers=ours).status_code == 404
    assert http.post(f"{ROOT}/test", json={"key": "acme:user:1"}, headers=ours).status_code == 400
    assert "user 1" in http.post(f"{ROOT}/test", json={"key": "acme:user:1"}, headers=theirs).json()["value"]


def test_secrets_are_not_shown(http: TestClient, keys: Keys, document: dict[str, Any]) -> None:
    headers = bearer(keys, "admin")
    assert "hunter2" not in http.get(f"{ROOT}/carts", headers=headers).text
    secret = {**document, "url": "postgresql://me:hunter2@127.0.0.1:1/shop"}
    added = http.post(ROOT, json={"name": "users", "source": secret}, headers=headers)
    shown = http.get(f"{ROOT}/users", headers=headers)
    tried = http.post(f"{ROOT}/test", json={"key": "user:1"}, headers=headers)
    assert tried.json()["error"]
    assert "hunter2" not in added.text + shown.text + tried.text


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"name": "x", "source": {}}, 400, "pattern"),
        ({"name": "X!", "source": {"pattern": "a:{b}"}}, 400, "a name is"),
        ({"name": "x", "source": {"colour": 1}}, 400, "there is no 'colour'"),
        ({"name": "x", "source": []}, 422, "dict"),
        ({"name": "x", "source": {}, "more": 1}, 422, "more"),
        ({"name": "x" * 65, "source": {}}, 422, "64"),
        ({"name": "carts", "source": {"pattern": "cart:{b}", "kind": "http", "url": "http://h/{b}"}}, 409, "predis.toml"),
        ({"name": "x", "source": {"pattern": "x:{b}", "kind": "python", "function": "os:listdir"}}, 403, "allow_code"),
        ({"name": "x", "source": {"pattern": "x:{b}", "kind": "http", "url_env": "HOME"}}, 400, "PREDIS_SOURCE_"),
    ],
)  # fmt: skip
def test_bad_input(http: TestClient, keys: Keys, body: Any, status: int, said: str) -> None:
    answer = http.post(ROOT, json=body, headers=bearer(keys, "admin"))
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
