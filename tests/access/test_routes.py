from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.testclient import TestClient

from predis.access import Audit, Caller, Keys
from predis.access.routes import Administrator, Guard, Operator, Predictor, Reader, refuse, router
from predis.clock import ManualClock
from predis.errors import PredisError, Unavailable
from predis.serving.rest import status_of
from predis.state.engine import Database

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

HERE = "http://127.0.0.1:8000"


@pytest.fixture
def keys(database: Database, clock: ManualClock) -> Keys:
    return Keys(database, clock)


def application(keys: Keys, audit: Audit, *, insecure: bool = False) -> Any:
    """The routes behind the guard, as the control role puts them together, and one route per right."""
    app = FastAPI(dependencies=[Depends(refuse)])
    app.state.keys = keys

    @app.exception_handler(PredisError)
    async def _answer(_request: Request, error: PredisError) -> Response:
        return JSONResponse({"code": error.code, "error": error.message}, status_of(error))

    for path, needed in (
        ("predict", Predictor),
        ("read", Reader),
        ("operate", Operator),
        ("admin", Administrator),
    ):

        def answer(caller: Caller) -> str:
            return f"{caller.tenant}/{caller.name}"

        answer.__annotations__["caller"] = needed
        app.add_api_route(f"/{path}", answer, methods=["GET", "POST"])

    @app.get("/open")
    def open_to_all() -> str:
        return "open"

    app.include_router(router(keys, audit), prefix="/api/v1")
    return Guard(app, keys, insecure=insecure)


@pytest.fixture
def audit(database: Database, clock: ManualClock) -> Audit:
    return Audit(database, clock)


@pytest.fixture
def client(keys: Keys, audit: Audit) -> Iterator[TestClient]:
    with TestClient(application(keys, audit), base_url=HERE) as found:
        yield found


@pytest.fixture
def insecure(keys: Keys, audit: Audit) -> Iterator[TestClient]:
    with TestClient(application(keys, audit, insecure=True), base_url=HERE) as found:
        yield found


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


class TestRights:
    def test_without_keys_everything_is_allowed(self, client: TestClient) -> None:
        for path in ("predict", "read", "operate", "admin"):
            assert client.get(f"/{path}").json() == "default/local"

    @pytest.mark.parametrize(
        ("role", "allowed"), [("client", 1), ("viewer", 2), ("operator", 3), ("admin", 4)]
    )
    def test_a_key_s_role_decides(self, client: TestClient, keys: Keys, role: str, allowed: int) -> None:
        headers = bearer(keys.create("alice", role=role, tenant="acme"))
        answers = [
            client.get(f"/{path}", headers=headers) for path in ("predict", "read", "operate", "admin")
        ]
        assert [answer.status_code for answer in answers] == [200] * allowed + [403] * (4 - allowed)
        assert answers[0].json() == "acme/alice"

    def test_without_one_of_the_keys(self, client: TestClient, keys: Keys) -> None:
        keys.create("alice", role="admin")
        for headers in ({}, bearer("pk_wrong"), {"authorization": "Basic YWxpY2U6"}):
            answer = client.get("/predict", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


class TestKeysOverHttp:
    def test_create_use_list_revoke(self, client: TestClient) -> None:
        made = client.post("/api/v1/keys", json={"name": "alice", "role": "admin"})
        assert made.status_code == 201
        headers = bearer(made.json()["key"])
        assert client.get("/api/v1/keys").status_code == 401
        (listed,) = client.get("/api/v1/keys", headers=headers).json()
        assert (listed["name"], listed["role"], listed["tenant"]) == ("alice", "admin", "default")
        assert made.json()["key"] not in str(listed)
        assert client.delete(f"/api/v1/keys/{listed['id']}", headers=headers).status_code == 204
        assert client.get("/api/v1/keys", headers=headers).status_code == 401

    def test_the_tenant_is_the_caller_s(self, client: TestClient, keys: Keys) -> None:
        theirs = bearer(keys.create("boss", role="admin", tenant="acme"))
        mine = bearer(keys.create("alice", role="admin"))
        body = {"name": "bob", "role": "viewer", "tenant": "default"}
        made = bearer(client.post("/api/v1/keys", json=body, headers=theirs).json()["key"])
        assert client.get("/read", headers=made).json() == "acme/bob"
        (own,) = client.get("/api/v1/keys", headers=mine).json()
        assert client.delete(f"/api/v1/keys/{own['id']}", headers=theirs).status_code == 404
        assert client.get("/read", headers=mine).status_code == 200

    @pytest.mark.parametrize("role", ["client", "viewer", "operator"])
    def test_only_administrators(self, client: TestClient, keys: Keys, role: str) -> None:
        headers = bearer(keys.create("alice", role=role))
        body = {"name": "mine", "role": "admin"}
        assert client.post("/api/v1/keys", json=body, headers=headers).status_code == 403
        assert client.get("/api/v1/keys", headers=headers).status_code == 403
        assert client.delete("/api/v1/keys/x", headers=headers).status_code == 403

    @pytest.mark.parametrize("body", [{"name": "a", "role": "root"}, {"name": "", "role": "admin"}])
    def test_bad_input(self, client: TestClient, body: dict[str, str]) -> None:
        assert client.post("/api/v1/keys", json=body).status_code == 400
        assert client.get("/api/v1/keys").json() == []

    @pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
    def test_a_body_is_json_whatever_its_type_says(self, client: TestClient, kind: str) -> None:
        body = b'{"name": "alice", "role": "admin"}'
        headers = {"content-type": kind} if kind else {}
        assert client.post("/api/v1/keys", content=body, headers=headers).status_code == 201


class TestAuditOverHttp:
    @pytest.mark.parametrize(("limit", "shown"), [(2, 2), (0, 1), (-5, 1), (10**6, 3)])
    def test_a_reader_sees_their_tenant_s(
        self, client: TestClient, audit: Audit, database: Database, limit: int, shown: int
    ) -> None:
        with database.write() as connection:
            for tenant in ("default", "default", "default", "acme"):
                audit.add(connection, tenant, actor="a", action="b", target="c")
        answer = client.get("/api/v1/audit", params={"limit": limit}).json()
        assert [entry["tenant"] for entry in answer] == ["default"] * shown

    def test_a_client_does_not(self, client: TestClient, keys: Keys) -> None:
        headers = bearer(keys.create("alice", role="client"))
        assert client.get("/api/v1/audit", headers=headers).status_code == 403


class TestDnsRebinding:
    """A page whose name has been made to mean 127.0.0.1 is same-origin to itself; only its Host betrays it."""

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "localhost:8000", "[::1]", "[::1]:8000"]
    )
    def test_loopback_names_pass(self, client: TestClient, host: str) -> None:
        assert client.get("/admin", headers={"host": host}).status_code == 200
        assert client.post("/admin", headers={"host": host, "origin": f"http://{host}"}).status_code == 200

    FOREIGN = (
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example:8000", "0.0.0.0:8000",
        "192.168.1.4:8000", "127.0.0.1@evil.example", "[::2]:8000", "", "[::1].evil.example",
    )  # fmt: skip

    @pytest.mark.parametrize("host", FOREIGN)
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_others_do_not(self, client: TestClient, host: str, method: str) -> None:
        for path in ("/admin", "/read", "/api/v1/keys"):
            answer = client.request(method, path, headers={"host": host, "origin": f"http://{host}"})
            assert answer.status_code == 403
        answer = client.get("/open", headers={"host": host})
        assert answer.json()["code"] == "access_denied"
        assert "not a loopback name" in answer.json()["error"]

    def test_with_keys_any_name_may_be_used(self, client: TestClient, keys: Keys) -> None:
        headers = {"host": "predis.example", **bearer(keys.create("alice", role="admin"))}
        assert client.get("/admin", headers=headers).status_code == 200
        assert client.get("/admin", headers={"host": "predis.example"}).status_code == 401

    def test_insecure_says_so(self, insecure: TestClient) -> None:
        assert insecure.get("/admin", headers={"host": "predis.example"}).status_code == 200

    def test_while_nobody_knows_whether_there_are_keys(
        self, client: TestClient, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def silent() -> list[Any]:
            raise Unavailable("gone")

        monkeypatch.setattr(keys._store, "all_keys", silent)
        for host in ("predis.example", "localhost"):
            assert client.get("/admin", headers={"host": host}).status_code == 503
        assert client.get("/open", headers={"host": "predis.example"}).status_code == 503


class TestForeignOrigin:
    """A browser says where a page came from whenever it sends something that changes things."""

    @pytest.mark.parametrize(
        "origin",
        [
            "http://evil.example", "https://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:8000", "http://127.0.0.1",
            "http://127.0.0.1:8000.evil.example", "127.0.0.1:8000", "file://", "http://127.0.0.1:8000@evil.example",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_may_change_nothing(self, client: TestClient, keys: Keys, origin: str, method: str) -> None:
        body = {"name": "mine", "role": "admin"}
        answer = client.request(method, "/api/v1/keys", headers={"origin": origin}, json=body)
        assert answer.status_code in (403, 405)
        assert client.post("/admin", headers={"origin": origin}).json()["code"] == "access_denied"
        assert not keys.exist()

    def test_may_change_nothing_where_insecure_either(self, insecure: TestClient) -> None:
        assert insecure.post("/admin", headers={"origin": "http://evil.example"}).status_code == 403
        own = {"host": "predis.example", "origin": "https://predis.example"}
        assert insecure.post("/admin", headers=own).status_code == 200

    def test_may_change_nothing_with_a_key_either(self, client: TestClient, keys: Keys) -> None:
        headers = {"origin": "http://evil.example", **bearer(keys.create("alice", role="admin"))}
        assert client.post("/admin", headers=headers).status_code == 403

    def test_may_look_as_any_program_may(self, client: TestClient) -> None:
        """The browser keeps the answer from the page: there is no CORS header."""
        answer = client.get("/read", headers={"origin": "http://evil.example"})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]

    def test_the_own_origin_and_programs_may(self, client: TestClient) -> None:
        assert client.post("/admin", headers={"origin": HERE}).status_code == 200
        assert client.post("/admin").status_code == 200


def test_the_guard_leaves_other_scopes_alone(keys: Keys) -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope)

    asyncio.run(Guard(app, keys, insecure=False)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]
