"""The control role over HTTP: every route it documents, what it refuses and how it says so. No socket is opened."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from predis import __version__
from predis.app import control
from predis.app.control import control_app
from predis.app.platform import Platform
from predis.cache.predictor.tables import Tables
from predis.clock import ManualClock, iso
from predis.console.overview import Overview
from predis.errors import Unavailable, all_errors
from predis.metrics import Metrics
from predis.metrics.exposition import CONTENT_TYPE
from predis.registry.endorsing import Subject, endorse, make_key
from predis.retraining.store import RetrainingStore, Run
from predis.retraining.workflow import Workflow
from predis.state import Database
from tests import toys
from tests.toys import ENDPOINT, LABEL, MODEL, TENANT, Installation

LOOPBACK = "http://127.0.0.1:8000"


class Http:
    """A client of the application in this process. A 500 is an exception here."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.headers: dict[str, str] = {}
        self.base = LOOPBACK
        self.answered: set[tuple[str, str]] = set()

    def __call__(self, method: str, path: str, **given: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url=self.base) as client:
                headers = {**self.headers, **given.pop("headers", {})}
                return await client.request(method, path, headers=headers, **given)

        return asyncio.run(send())

    def get(self, path: str, **given: Any) -> Any:
        return self.ok("GET", path, **given)

    def post(self, path: str, body: Any = None, **given: Any) -> Any:
        return self.ok("POST", path, json=body, **given)

    def ok(self, method: str, path: str, **given: Any) -> Any:
        answer = self(method, "/api/v1" + path, **given)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def refused(self, method: str, path: str, **given: Any) -> tuple[int, str]:
        """Status and code of an error, which has the form that every error has."""
        answer = self(method, path if path.startswith(("/api", "/metrics")) else "/api/v1" + path, **given)
        assert answer.headers["content-type"] == "application/json"
        document = answer.json()
        assert set(document) == {"error", "code"}, document
        assert document["error"]
        assert "\n" not in document["error"]
        return answer.status_code, document["code"]


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock) as found:
        yield found


@pytest.fixture
def http(installation: Installation) -> Http:
    return Http(control_app(installation.platform, run_loops=False))


@pytest.fixture(scope="module")
def refusing(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    """An installation with an endpoint, for many requests of which none may change anything."""
    folder = tmp_path_factory.mktemp("refusing")
    database = Database(f"sqlite:///{shutil.copyfile(migrated_sqlite, folder / 'state.sqlite')}")
    with toys.installed(database, folder / "home", ManualClock()) as found:
        deployed(found)
        before = found.platform.audit.entries(TENANT)
        yield Http(control_app(found.platform, run_loops=False))
        assert found.platform.audit.entries(TENANT) == before
    database.close()


only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


def deployed(installation: Installation) -> None:
    installation.register(data=False)
    installation.register("z", data=False)
    installation.create_endpoint()
    installation.deploy(1)


def test_the_whole_api(installation: Installation, http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's life over HTTP; at the end every documented route has answered."""
    monkeypatch.setattr(Workflow, "launch", lambda _self: None)
    monkeypatch.setattr(Workflow, "start", lambda _self, _run: None)
    answered: set[tuple[str, str]] = set()
    documented = http.get("/openapi.json")["paths"]
    real = http.ok

    def ok(method: str, path: str, **given: Any) -> Any:
        found = real(method, path, **given)
        parts = ("/api/v1" + path).partition("?")[0].split("/")
        for template in documented:
            wanted = template.split("/")
            if len(wanted) == len(parts) and all(
                w == p or w.startswith("{") for w, p in zip(wanted, parts, strict=True)
            ):
                answered.add((method.lower(), template))
        return found

    http.ok = ok  # type: ignore[method-assign]

    assert http.get("/health") == {"status": "ok", "release": __version__, "up_s": 0.0}
    reference = http.ok("PUT", "/artifacts", content=toys.parquet(toys.table(500)))
    holdout = http.ok("PUT", "/artifacts", content=toys.parquet(toys.table(300, seed=3)))
    for column in ("x", "z"):
        file = http.ok("PUT", "/artifacts", content=toys.booster(column))
        assert file["size_bytes"] == len(toys.booster(column))
        version = http.post(f"/models/{MODEL}/versions", {
            "format": "lightgbm", "files": {"model.txt": file["digest"]}, "signature": toys.SIGNATURE.to_dict(), "label": LABEL,
            "reference": reference["digest"], "holdout": holdout["digest"], "alias": "newest",
        })  # fmt: skip
        assert (version["model"], version["has_profile"], version["created_by"]) == (MODEL, True, "local")
    assert [(m["name"], m["versions"], m["newest"]) for m in http.get("/models")] == [(MODEL, 2, 2)]
    versions = http.get(f"/models/{MODEL}/versions")
    assert [(v["version"], v["aliases"]) for v in versions] == [(2, ["newest"]), (1, [])]
    assert http.get(f"/models/{MODEL}/versions/newest")["version"] == 2
    assert http.post(f"/models/{MODEL}/versions/1/verify")["ok"] is True
    assert [bins["name"] for bins in http.get(f"/models/{MODEL}/versions/1/profile")["bins"]] == [
        "x",
        "z",
        "kind",
    ]
    moved = http.ok("PUT", f"/models/{MODEL}/aliases/tested", json={"version": "newest"})
    assert moved == {"model": MODEL, "alias": "tested", "version": 2}

    archive = http("GET", f"/api/v1/models/{MODEL}/versions/1/archive")
    answered.add(("get", "/api/v1/models/{model}/versions/{version}/archive"))
    copy = http.ok("POST", "/models/import?name=copy&alias=first&source=here", content=archive.content)
    assert (copy["model"], copy["version"], copy["is_new"]) == ("copy", 1, True)
    assert copy["digest"] == versions[1]["digest"]
    assert http.ok("POST", "/models/import?name=copy", content=archive.content)["is_new"] is False
    there = {"to": "staging", "control": "https://staging", "version": 1}
    assert http.post(f"/models/{MODEL}/versions/tested/promotions", there)["version"] == 2

    _tell_versions_apart(http)
    _ask_about_the_cache(installation, http)
    answered.add(("get", "/api/v1/cache/what-if"))
    made = http.post("/endpoints", {"name": ENDPOINT, "model": MODEL})
    assert (made["name"], made["config"], made["route"]["weights"]) == (ENDPOINT, {}, {})
    config = {"retraining": {"train": "toy_model:train", "label": LABEL}}
    assert http.ok("PATCH", f"/endpoints/{ENDPOINT}", json=config)["config"] == config
    assert [e["name"] for e in http.get("/endpoints")] == [ENDPOINT]
    rollout = http.post(f"/endpoints/{ENDPOINT}/deploy", {"version": 1, "strategy": "direct"})
    assert (rollout["state"], rollout["strategy"], rollout["created_by"]) == ("warming", "direct", "local")
    installation.beat()
    installation.platform.rollouts.tick()
    assert http.get(f"/rollouts/{rollout['id']}")["state"] == "promoted"
    assert http.get(f"/endpoints/{ENDPOINT}")["route"]["weights"] == {"1": 1.0}

    table = toys.table(50)
    ids = installation.send(table, version=1)
    labels = [
        {"id": known, "label": label}
        for known, label in zip(ids, table.column(LABEL).to_pylist(), strict=True)
    ]
    assert http.post(f"/endpoints/{ENDPOINT}/feedback", {"labels": labels}) == {
        "received": 50, "stored": 50, "duplicates": 0,
    }  # fmt: skip
    installation.clock.advance(10)
    installation.digest()
    (alert,) = http.get(f"/alerts?endpoint={ENDPOINT}&limit=5")
    assert (alert["kind"], alert["severity"]) == ("endpoint_down", "emergency")
    assert http.get("/alerts?endpoint=other") == []
    _ask_about_alerts(http, alert["id"])

    for wish in ("abort", "promote"):
        rollout = http.post(f"/endpoints/{ENDPOINT}/deploy", {"version": "newest", "plan": {"bake_s": 1}})
        assert rollout["plan"]["bake_s"] == 1.0
        assert http.post(f"/rollouts/{rollout['id']}/{wish}")["wish"] == wish
        installation.beat()
        installation.platform.rollouts.tick()
    assert [r["state"] for r in http.get(f"/rollouts?endpoint={ENDPOINT}")] == [
        "promoted",
        "aborted",
        "promoted",
    ]
    _steer_rollouts(installation, http)
    _backtest(http)
    _look_back(installation, http)

    run = http.post(f"/endpoints/{ENDPOINT}/retrain")
    assert (run["trigger"], run["champion"], run["state"]) == ("manual", 2, "running")
    assert http.get(f"/retrainings/{run['id']}") == run
    assert [r["id"] for r in http.get(f"/retrainings?endpoint={ENDPOINT}")] == [run["id"]]
    assert http.get("/retrainings?endpoint=other") == []

    overview = http.get(f"/overview?endpoint={ENDPOINT}")
    assert overview == http.get("/overview")
    assert overview["endpoints"][0]["labels"]["matured"] == 50
    _manage_the_predictor(installation, http)

    admin = http.post("/keys", {"name": "ada", "role": "admin"})["key"]
    http.headers["authorization"] = f"Bearer {admin}"
    (key,) = http.get("/keys")
    assert (key["name"], key["role"], key["revoked_at"]) == ("ada", "admin", None)
    actions = {entry["action"] for entry in http.get("/audit?limit=1000")}
    assert {
        "model.register",
        "model.import",
        "model.promote",
        "endpoint.create",
        "rollout.start",
        "rollout.move",
        "retraining.start",
    } <= actions
    assert http.ok("DELETE", f"/keys/{key['id']}") is None

    everything = {(method, path) for path, methods in documented.items() for method in methods}
    assert everything - answered == set()


def _ask_about_alerts(http: Http, alert: int) -> None:
    """Every route of alerts, silences, whom alerts are told to, and objectives."""
    assert http.post(f"/alerts/{alert}/acknowledge", {"note": "on it"})["note"] == "on it"
    assert http.get(f"/alerts/{alert}")["acknowledged_by"] == "local"
    silence = http.post("/silences", {"reason": "test", "for_s": 60})
    assert http.get("/silences") == [silence]
    assert http.ok("DELETE", f"/silences/{silence['id']}") is None
    config = {"url": "http://127.0.0.1:9/", "secret": "file:hook"}
    route = http.post("/alert-routes", {"name": "ops", "channel": "webhook", "config": config})
    assert [r["name"] for r in http.get("/alert-routes")] == [route["name"]]
    assert http.post("/alert-routes/ops/test")["sent"] is False
    assert http.get("/alert-deliveries") == []
    assert http.ok("DELETE", "/alert-routes/ops") is None
    assert http.get("/objectives") == http.get(f"/endpoints/{ENDPOINT}/objectives") == []


def _tell_versions_apart(http: Http) -> None:
    """Differences, aliases and their history, keys and signatures, deletion and what it leaves."""
    assert set(http.get(f"/models/{MODEL}/diff?before=1&after=newest")) >= {"metrics", "after"}
    http.ok("PUT", f"/models/{MODEL}/aliases/passing", json={"version": 1})
    assert http.get(f"/models/{MODEL}/aliases")["passing"] == 1
    http.ok("DELETE", f"/models/{MODEL}/aliases/passing")
    assert [move["alias"] for move in http.get(f"/models/{MODEL}/aliases/history")][:2] == [
        "passing",
        "passing",
    ]
    private, public = make_key()
    key = http.post("/trust/keys", {"name": "ada", "public_key": public.decode()})["id"]
    assert [each["id"] for each in http.get("/trust/keys")] == [key]
    version = http.get(f"/models/{MODEL}/versions/1")
    named, signature = endorse(private, Subject(MODEL, version["format"], version["digest"]))
    signed = http.post(f"/models/{MODEL}/versions/1/signatures", {"endorsements": {named: signature}})
    assert (named, signed["version"]) == (key, 1)
    for required in (True, False):
        demanded = {"require_signatures": required}
        assert http.ok("PUT", "/trust/policy", json=demanded) == http.get("/trust/policy") == demanded
    http.ok("DELETE", f"/trust/keys/{key}")
    http.ok("DELETE", "/models/copy/aliases/first")
    http.ok("DELETE", "/models/copy/versions/1")
    assert http.post("/garbage", {"dry_run": True})


def _ask_about_the_cache(installation: Installation, http: Http) -> None:
    """A source is declared, tried and removed; before anything was read there is not much to tell."""
    path = installation.settings.home / "slow.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
        database.execute("INSERT INTO users VALUES (7, 'Ada')")
    source = {
        "kind": "sql", "pattern": "user:{id:int}", "url": f"sqlite:///{path}",
        "statement": "SELECT id, name FROM users WHERE id IN :id",
    }  # fmt: skip
    assert http.post("/cache/sources", {"name": "users", "source": source})["name"] == "users"
    assert [s["name"] for s in http.get("/cache/sources")] == ["users"]
    assert http.get("/cache/sources/users")["troubled"] == []
    assert "Ada" in http.post("/cache/sources/test", {"key": "user:7"})["value"]
    assert http.post("/cache/sources/users/retry") == {"writes": 0}
    assert http.ok("DELETE", "/cache/sources/users") is None
    insight = http.get("/cache/insight")
    assert (insight["at"], insight["workers"], insight["sources"]) == (None, 0, [])
    assert http.get("/cache/hot-keys") == []
    assert http.refused("GET", "/cache/what-if?memory=2x&policy=arc") == (503, "not_ready")
    predictor = http.get("/cache/predictor")
    assert (predictor["predictor"], predictor["learned"], predictor["workers"]) == (None, [], 0)


def _manage_the_predictor(installation: Installation, http: Http) -> None:
    """Versions of the cache's predictor come and go."""
    assert http.get("/cache/predictor/versions")["versions"] == []
    tables = Tables(followers={b"a": (b"b",)}).dump()
    versions = installation.platform.steward._versions
    for number in (1, 2):
        assert versions.add(tables, metrics={"miss_ratio": 0.2}, lineage={}, actor="test") == number
    installation.platform.steward.try_out(1, run="")
    assert http.post("/cache/predictor/promote")["champion"]["version"] == 1
    assert http.post("/cache/predictor/rollback", {"version": 2})["champion"]["version"] == 2
    assert http.post("/cache/predictor/rollback", {})["champion"]["version"] == 0
    assert http.refused("POST", "/cache/predictor/rollback", json={"version": 9}) == (
        404,
        "version_not_found",
    )
    run = http.post("/cache/predictor/train")
    assert (run["endpoint"], run["trigger"]) == ("(cache)", "manual")
    assert run["id"] not in {shown["id"] for shown in http.get("/overview")["retrainings"]}
    installation.platform.retrainings.end(run["id"], "rejected", why="a test")


def _steer_rollouts(installation: Installation, http: Http) -> None:
    """What people may ask of a rollout, segments, and windows in which nothing goes forward."""
    where = "tenant == 'nobody'"
    plan = {"approve": ["start"], "where": where}
    for wishes in (("approve", "pause", "resume", "abort"), ("reject",)):
        rollout = http.post(f"/endpoints/{ENDPOINT}/deploy", {"version": 1, "plan": plan})["id"]
        for wish in ("", *wishes):
            if wish:
                assert http.post(f"/rollouts/{rollout}/{wish}", {"note": "as agreed"})["wish"] == wish
            installation.beat()
            installation.platform.rollouts.tick()
        assert http.get(f"/rollouts/{rollout}")["state"] == "aborted"
    http.post(f"/endpoints/{ENDPOINT}/deploy", {"version": 1, "strategy": "direct", "plan": {"where": where}})
    installation.beat()
    installation.platform.rollouts.tick()
    segments = http.get(f"/endpoints/{ENDPOINT}")["route"]["segments"]
    assert segments == [{"when": where, "weights": {"1": 1.0}}]
    assert http.ok("DELETE", f"/endpoints/{ENDPOINT}/segments", params={"when": where})["segments"] == []
    shadow = http.post(f"/endpoints/{ENDPOINT}/deploy", {"version": 1, "strategy": "shadow"})["id"]
    installation.beat()
    installation.platform.rollouts.tick()
    assert http.get(f"/rollouts/{shadow}/shadow")["rows"] == 0
    http.post(f"/rollouts/{shadow}/abort")
    installation.beat()
    installation.platform.rollouts.tick()
    assert "strategies" in http.get("/plan")
    freeze = http.post("/freezes", {"starts_at": 0, "reason": "end of year"})
    assert [each["open"] for each in http.get("/freezes")] == [True]
    assert http.refused("POST", f"/endpoints/{ENDPOINT}/deploy", json={"version": 1}) == (
        409,
        "change_frozen",
    )
    assert http.ok("DELETE", f"/freezes/{freeze['id']}") is None


def _look_back(installation: Installation, http: Http) -> None:
    """What was asked and answered, in SQL, in bars, and why it is as it is."""
    installation.platform.log.look()
    counted = http.post("/query", {"sql": "select count(*) as n from predictions"})
    assert counted["rows"] == [[50]]
    assert http.get(f"/endpoints/{ENDPOINT}/history?since=2023-01-01T00:00:00Z&step_s=864000") is not None
    assert http.get(f"/endpoints/{ENDPOINT}/why?version=1")["version"] == 1
    since = iso(installation.clock.time_ns() - 3_600 * 10**9)
    assert http.get(f"/endpoints/{ENDPOINT}/windows?since={since}")["segments"] == []


def _backtest(http: Http) -> None:
    """One that has nothing to replay."""
    started = http.post(f"/endpoints/{ENDPOINT}/backtests", {"candidate": 1})
    assert [each["id"] for each in http.get("/backtests")] == [started["id"]]
    http.post(f"/backtests/{started['id']}/cancel")
    assert http.get(f"/backtests/{started['id']}")["endpoint"] == ENDPOINT


@only_sqlite
class TestMetrics:
    def test_they_are_those_of_all_processes(self, installation: Installation, http: Http) -> None:
        worker = Metrics(installation.settings.metrics_folder, "serving-0")
        worker.counter("predis_rows_total", tenant=TENANT, endpoint=ENDPOINT, version="1").add(3)
        answer = http("GET", "/metrics")
        assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE)
        assert f'predis_rows_total{{tenant="{TENANT}",endpoint="{ENDPOINT}",version="1"}} 3\n' in answer.text
        worker.close()

    def test_whoever_may_read_sees_those_of_their_tenant(
        self, installation: Installation, http: Http
    ) -> None:
        worker = Metrics(installation.settings.metrics_folder, "serving-0")
        for tenant in ("ours", "theirs"):
            worker.counter("predis_rows_total", tenant=tenant, endpoint="e", version="1").add(1)
        keys = installation.platform.keys
        viewer = keys.create("prometheus", role="viewer", tenant="ours")
        client = keys.create("application", role="client", tenant="ours")
        assert http.refused("GET", "/metrics") == (401, "unauthenticated")
        http.headers["authorization"] = f"Bearer {client}"
        assert http.refused("GET", "/metrics") == (403, "access_denied")
        http.headers["authorization"] = f"Bearer {viewer}"
        text = http("GET", "/metrics").text
        assert 'tenant="ours"' in text
        assert 'tenant="theirs"' not in text
        worker.close()

    def test_a_page_of_elsewhere_does_not(self, http: Http) -> None:
        http.base = "http://evil.example:8000"
        assert http.refused("GET", "/metrics") == (403, "access_denied")

    def test_control_tells_of_itself(self, installation: Installation, database: Database) -> None:
        metrics = Metrics(installation.settings.metrics_folder, "control")
        platform = Platform(installation.settings, clock=installation.clock, metrics=metrics)
        deployed(installation)
        installation.send(toys.table(5), version=1)
        platform._take_in()
        platform.measures.look()
        text = platform.exposition(TENANT).decode()
        assert "predis_ingest_requests_total 5\n" in text
        assert 'predis_rollouts_total{state="promoted"} 0\n' in text
        assert 'predis_process_resident_bytes{process="control"}' in text
        platform.close()
        metrics.close()


class TestErrors:
    @pytest.mark.parametrize(
        ("method", "path", "code"),
        [
            ("GET", "/models/nobody/versions", "model_not_found"),
            ("GET", "/models/nobody/versions/1", "model_not_found"),
            ("GET", f"/models/{MODEL}/versions/9", "version_not_found"),
            ("GET", f"/models/{MODEL}/versions/champ", "alias_not_found"),
            ("GET", f"/models/{MODEL}/versions/{'9' * 40}", "version_not_found"),
            ("GET", f"/models/{MODEL}/versions/\u00b2", "alias_not_found"),
            ("POST", f"/models/{MODEL}/versions/9/verify", "version_not_found"),
            ("GET", f"/models/{MODEL}/versions/9/profile", "version_not_found"),
            ("GET", "/endpoints/nowhere", "endpoint_not_found"),
            ("PATCH", "/endpoints/nowhere", "endpoint_not_found"),
            ("POST", "/endpoints/nowhere/retrain", "endpoint_not_found"),
            ("GET", "/overview?endpoint=nowhere", "endpoint_not_found"),
            ("GET", "/rollouts/999", "rollout_not_found"),
            ("GET", "/rollouts/-1", "rollout_not_found"),
            ("POST", "/rollouts/999/abort", "rollout_not_found"),
            ("GET", "/retrainings/999", "retraining_not_found"),
            ("DELETE", "/keys/999", "not_found"),
            ("GET", "/nothing", "not_found"),
            ("GET", "/api/v2/models", "not_found"),
            ("GET", "/", "not_found"),
        ],
    )
    def test_not_found(self, refusing: Http, *, method: str, path: str, code: str) -> None:
        body = {"json": {}} if method == "PATCH" else {}
        assert refusing.refused(method, path, **body) == (404, code)

    @pytest.mark.parametrize("number", [2**31, 2**63, 2**64, 10**30, -(2**63) - 1])
    def test_numbers_that_no_column_holds(self, installation: Installation, http: Http, number: int) -> None:
        deployed(installation)
        status, code = http.refused("GET", f"/rollouts/{number}")
        assert (status, code) in {(404, "rollout_not_found"), (400, "invalid_input")}
        assert http.refused("POST", f"/rollouts/{number}/abort")[0] in {404, 400}
        status, code = http.refused("POST", f"/endpoints/{ENDPOINT}/deploy", json={"version": number})
        assert (status, code) in {
            (404, "version_not_found"),
            (404, "alias_not_found"),
            (400, "invalid_input"),
        }

    @pytest.mark.parametrize(
        "path", ["/models/a%00b/versions", "/endpoints/a%00b", "/retrainings/a%00b", "/alerts?endpoint=a%00b"]
    )
    def test_names_that_no_column_holds(self, http: Http, database: Database, path: str) -> None:
        answer = http("GET", "/api/v1" + path)
        assert answer.status_code in {200, 400, 404}
        assert isinstance(answer.json(), dict | list)

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", f"/models/{MODEL}/versions", {"format": "pickle", "files": {"m": "0" * 64}}),
            ("POST", f"/models/{MODEL}/versions", {"format": "lightgbm", "files": {}}),
            ("POST", f"/models/{MODEL}/versions", {"format": "lightgbm", "files": {"m": "../../etc/passwd"}}),
            ("POST", f"/models/{MODEL}/versions", {"format": "lightgbm"}),
            ("POST", f"/models/{MODEL}/versions", {"format": "lightgbm", "files": {}, "pace": 1}),
            ("POST", "/models/UPPER/versions", {"format": "lightgbm", "files": {"m": "0" * 64}}),
            ("PUT", f"/models/{MODEL}/aliases/latest", {"version": 1}),
            ("PUT", f"/models/{MODEL}/aliases/3", {"version": 1}),
            ("PUT", f"/models/{MODEL}/aliases/Champion!", {"version": 1}),
            ("PUT", f"/models/{MODEL}/aliases/a", {"version": None}),
            ("POST", "/endpoints", {"name": "Not A Name", "model": MODEL}),
            ("POST", "/endpoints", {"name": "new"}),
            ("POST", "/endpoints", {"name": "new", "model": MODEL, "tenant": "other"}),
            ("POST", f"/endpoints/{ENDPOINT}/deploy", {"version": 2, "strategy": "sideways"}),
            ("POST", f"/endpoints/{ENDPOINT}/deploy", {"version": 2, "plan": {"pace": 1}}),
            ("POST", f"/endpoints/{ENDPOINT}/deploy", {"version": [2]}),
            ("POST", f"/endpoints/{ENDPOINT}/deploy", {}),
            ("POST", f"/endpoints/{ENDPOINT}/feedback", {"labels": []}),
            ("POST", f"/endpoints/{ENDPOINT}/feedback", {"labels": [{"id": "a"}]}),
            ("POST", f"/endpoints/{ENDPOINT}/feedback", {"labels": 3}),
            ("POST", f"/endpoints/{ENDPOINT}/feedback", [{"id": "a", "label": 1}]),
            ("POST", f"/endpoints/{ENDPOINT}/retrain", None),
            ("PATCH", f"/endpoints/{ENDPOINT}", [1]),
            ("PATCH", f"/endpoints/{ENDPOINT}", {"retraining": {"train": "x", "label": "y"}}),
            ("POST", "/endpoints", {"name": "new", "model": MODEL, "config": {"retraining": {"label": "y"}}}),
            ("POST", "/keys", {"name": "ada", "role": "king"}),
            ("POST", "/keys", {"name": "ada"}),
            ("GET", "/rollouts/first", None),
            ("GET", "/alerts?limit=many", None),
        ],
    )
    def test_bad_input(self, refusing: Http, *, method: str, path: str, body: Any) -> None:
        given = {} if body is None else {"json": body}
        assert refusing.refused(method, path, **given) == (400, "invalid_input")

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"\xff\xfe", b"null", b"3", b"[" * 100_000, b'{"name": "\\ud800"}']
    )
    def test_bodies_that_are_no_document(self, refusing: Http, content: bytes) -> None:
        assert refusing.refused("POST", "/endpoints", content=content) == (400, "invalid_input")
        if b"ud800" not in content:
            found = refusing.refused("PATCH", f"/endpoints/{ENDPOINT}", content=content)
            assert found == (400, "invalid_input")

    @pytest.mark.parametrize(
        "text",
        [
            '{"x": NaN}',
            '{"x": Infinity}',
            '{"x": "\\ud800"}',
            '{"\\ud800": 1}',
            '{"x": "a\\u0000b"}',
            '{"x": 1e999}',
        ],
    )
    def test_a_configuration_that_could_not_be_read_back(
        self, installation: Installation, http: Http, text: str
    ) -> None:
        """Whatever is taken must not spoil the lists it then stands in."""
        deployed(installation)
        answer = http("PATCH", f"/api/v1/endpoints/{ENDPOINT}", content=text.encode())
        assert answer.status_code == (200 if "u0000" in text else 400)
        lineage = f'{{"format": "lightgbm", "files": {{"m": "{installation.platform.artifacts.put(toys.booster()).digest}"}}, "lineage": {text}}}'
        answer = http("POST", f"/api/v1/models/{MODEL}/versions", content=lineage.encode())
        assert answer.status_code == (201 if "u0000" in text else 400)
        assert http.get(f"/models/{MODEL}/versions")
        assert [e["name"] for e in http.get("/endpoints")] == [ENDPOINT]
        assert [e["name"] for e in http.get("/overview")["endpoints"]] == [ENDPOINT]
        assert http.get("/audit")

    @only_sqlite
    def test_conflicts(self, installation: Installation, http: Http) -> None:
        deployed(installation)
        body = {"name": ENDPOINT, "model": MODEL}
        assert http.refused("POST", "/endpoints", json=body) == (409, "already_exists")
        assert http.refused("POST", f"/endpoints/{ENDPOINT}/deploy", json={"version": 1}) == (409, "conflict")
        assert http.refused("POST", "/rollouts/1/abort") == (409, "illegal_transition")
        http.post(f"/endpoints/{ENDPOINT}/deploy", {"version": 2})
        again = http.refused("POST", f"/endpoints/{ENDPOINT}/deploy", json={"version": 2})
        assert again == (409, "rollout_in_progress")

    @only_sqlite
    def test_files_that_are_not_what_they_are_said_to_be(self, http: Http) -> None:
        digest = http.ok("PUT", "/artifacts", content=b"not a model")["digest"]
        body = {"format": "lightgbm", "files": {"m": digest}}
        assert http.refused("POST", f"/models/{MODEL}/versions", json=body) == (422, "model_failure")
        missing = {"format": "lightgbm", "files": {"m": "0" * 64}}
        assert http.refused("POST", f"/models/{MODEL}/versions", json=missing) == (404, "not_found")
        good = http.ok("PUT", "/artifacts", content=toys.booster())["digest"]
        body = {"format": "lightgbm", "files": {"m": good}, "reference": digest}
        assert http.refused("POST", f"/models/{MODEL}/versions", json=body) == (400, "invalid_input")
        assert http.get("/models") == []

    @pytest.mark.parametrize(
        ("method", "path"), [("POST", "/query"), ("POST", f"/endpoints/{ENDPOINT}/feedback")]
    )
    def test_large_bodies(self, installation: Installation, http: Http, method: str, path: str) -> None:
        most = installation.platform.settings.max_body_bytes
        within = json.dumps({"sql": "x" * (most - 100)}).encode()
        beyond = json.dumps({"sql": "x" * most}).encode()
        assert http.refused(method, path, content=within) == (400, "invalid_input")
        assert http.refused(method, path, content=beyond) == (413, "too_large")

    def test_files_may_be_larger_than_that(self, installation: Installation, http: Http) -> None:
        content = b"x" * (installation.platform.settings.max_body_bytes + 1)
        assert http.ok("PUT", "/artifacts", content=content)["size_bytes"] == len(content)

    def test_methods(self, refusing: Http) -> None:
        assert refusing.refused("DELETE", "/models") == (405, "method_not_allowed")
        assert refusing.refused("GET", "/artifacts") == (405, "method_not_allowed")

    @only_sqlite
    def test_unavailable(self, http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
        def away(*_arguments: Any, **_named: Any) -> None:
            raise Unavailable("the state database does not answer: gone")

        monkeypatch.setattr(Overview, "of", away)
        assert http.refused("GET", "/overview") == (503, "unavailable")

    @only_sqlite
    def test_what_nobody_thought_of(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_arguments: Any, **_named: Any) -> None:
            raise RuntimeError("secret details")

        monkeypatch.setattr(Overview, "of", broken)
        app = control_app(installation.platform, run_loops=False)

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=LOOPBACK) as client:
                return await client.get("/api/v1/overview")

        answer = asyncio.run(send())
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "secret" not in answer.text
        assert "a request to /api/v1/overview failed" in caplog.text

    def test_codes_are_those_of_the_tree(self) -> None:
        assert {"not_found", "invalid_input", "internal"} <= set(all_errors())


@only_sqlite
class TestBodies:
    """Clients send what they send."""

    @pytest.mark.parametrize(
        "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "nonsense"]
    )
    def test_the_content_type_does_not_matter(
        self, installation: Installation, http: Http, content_type: str | None
    ) -> None:
        headers = {"content-type": content_type} if content_type else {}
        installation.register(data=False)
        content = json.dumps({"name": "new", "model": MODEL}).encode()
        assert http.ok("POST", "/endpoints", content=content, headers=headers)["name"] == "new"
        labels = json.dumps({"labels": [{"id": "a", "label": 1}]}).encode()
        assert http.ok("POST", "/endpoints/new/feedback", content=labels, headers=headers)["stored"] == 1
        assert http.ok("PATCH", "/endpoints/new", content=b'{"a": 1}', headers=headers)["config"] == {"a": 1}

    def test_uploads_are_raw(self, http: Http) -> None:
        content = bytes(range(256)) * 1_000
        found = http.ok("PUT", "/artifacts", content=content, headers={"content-type": "application/json"})
        assert found["size_bytes"] == len(content)
        assert http.ok("PUT", "/artifacts", content=b"")["size_bytes"] == 0


@only_sqlite
class TestAccess:
    ROUTES = (
        ("GET", "/health", None), ("GET", "/models", "read"), ("GET", "/endpoints", "read"), ("GET", "/overview", "read"),
        ("GET", "/rollouts", "read"), ("GET", "/alerts", "read"), ("GET", "/retrainings", "read"), ("GET", "/audit", "read"),
        ("PUT", "/artifacts", "operate"), ("POST", f"/models/{MODEL}/versions", "operate"),
        ("PUT", f"/models/{MODEL}/aliases/a", "operate"), ("POST", "/endpoints", "operate"),
        ("PATCH", f"/endpoints/{ENDPOINT}", "operate"), ("POST", f"/endpoints/{ENDPOINT}/deploy", "operate"),
        ("POST", "/rollouts/1/abort", "operate"), ("POST", f"/endpoints/{ENDPOINT}/retrain", "operate"),
        ("POST", f"/endpoints/{ENDPOINT}/feedback", "predict"), ("GET", "/keys", "admin"), ("POST", "/keys", "admin"),
        ("DELETE", "/keys/1", "admin"), ("GET", "/alerts/1", "read"), ("POST", "/alerts/1/acknowledge", "operate"),
        ("GET", "/silences", "read"), ("POST", "/silences", "operate"), ("DELETE", "/silences/1", "operate"),
        ("GET", "/objectives", "read"), ("GET", f"/endpoints/{ENDPOINT}/objectives", "read"), ("GET", "/alert-routes", "operate"),
        ("GET", "/alert-deliveries", "operate"), ("GET", "/cache/insight", "read"), ("GET", "/cache/predictor", "read"),
        ("GET", "/cache/predictor/versions", "read"), ("POST", "/cache/predictor/promote", "operate"),
        ("POST", "/cache/predictor/rollback", "operate"),
        ("GET", "/cache/sources", "read"), ("GET", "/cache/sources/users", "operate"), ("POST", "/cache/sources", "admin"),
        ("POST", "/alert-routes", "admin"), ("DELETE", "/alert-routes/ops", "admin"), ("POST", "/alert-routes/ops/test", "admin"),
    )  # fmt: skip

    @pytest.mark.parametrize("role", ["client", "viewer", "operator", "admin"])
    def test_roles(self, installation: Installation, http: Http, role: str) -> None:
        rights = ["predict", "read", "operate", "admin"]
        may = rights[: ["client", "viewer", "operator", "admin"].index(role) + 1]
        key = installation.platform.keys.create("k", role=role)
        headers = {"authorization": f"Bearer {key}"}
        for method, path, right in self.ROUTES:
            answer = http(method, "/api/v1" + path, headers=headers)
            forbidden = answer.status_code == 403
            assert forbidden is (right is not None and right not in may), (method, path, answer.text)
            if forbidden:
                assert answer.json()["code"] == "access_denied"

    def test_code_needs_an_administrator(self, installation: Installation, http: Http) -> None:
        """It runs as the server. And it needs the setting allow_code, which is off here."""
        keys = installation.platform.keys
        body = {"format": "python", "files": {"model.py": "0" * 64}}
        for role, expected in (("operator", "role 'operator', which may not admin"), ("admin", "allow_code")):
            headers = {"authorization": f"Bearer {keys.create(role, role=role)}"}
            stored = http.ok("PUT", "/artifacts", content=b"def predict(inputs): ...", headers=headers)
            body["files"] = {"model.py": stored["digest"]}
            answer = http("POST", "/api/v1/models/m/versions", json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "access_denied")
            assert expected in answer.json()["error"]

    @pytest.mark.parametrize(
        "headers",
        [{}, {"authorization": "Bearer pk_wrong"}, {"authorization": "Basic abc"}, {"authorization": "\xe4"}],
    )
    def test_without_a_key_once_there_is_one(
        self, installation: Installation, http: Http, headers: dict[str, str]
    ) -> None:
        installation.platform.keys.create("k", role="admin")
        sent = {name: value.encode("latin-1") for name, value in headers.items()}
        for method, path, right in self.ROUTES:
            if right is not None:
                assert http.refused(method, path, headers=sent) == (401, "unauthenticated")
        assert http("GET", "/api/v1/health").status_code == 200
        assert http("GET", "/").status_code == 200  # a page without data

    def test_a_key_that_was_revoked(self, installation: Installation, http: Http) -> None:
        keys = installation.platform.keys
        other = {"authorization": f"Bearer {keys.create('other', role='admin')}"}
        key = {"authorization": f"Bearer {keys.create('k', role='viewer')}"}
        assert http("GET", "/api/v1/models", headers=key).status_code == 200
        (found,) = [k for k in http.get("/keys", headers=other) if k["name"] == "k"]
        http.ok("DELETE", f"/keys/{found['id']}", headers=other)
        assert http.refused("GET", "/models", headers=key) == (401, "unauthenticated")
        assert http.refused("DELETE", f"/keys/{found['id']}", headers=other) == (404, "not_found")

    def test_the_tenant_comes_from_the_key(self, installation: Installation, http: Http) -> None:
        deployed(installation)
        installation.platform.keys.create("mine", role="admin")
        other = installation.platform.keys.create("theirs", role="admin", tenant="elsewhere")
        headers = {"authorization": f"Bearer {other}"}
        for path in (
            "/models",
            "/endpoints",
            "/rollouts",
            "/alerts",
            "/silences",
            "/alert-routes",
            "/objectives",
            "/retrainings",
        ):
            assert http.get(path, headers=headers) == []
        assert http.get("/overview", headers=headers)["tenant"] == "elsewhere"
        assert [k["name"] for k in http.get("/keys", headers=headers)] == ["theirs"]
        for path in (f"/endpoints/{ENDPOINT}", f"/models/{MODEL}/versions", "/rollouts/1"):
            assert http.refused("GET", path, headers=headers)[0] == 404
        body = {"labels": [{"id": "a", "label": 1}]}
        assert http.refused("POST", f"/endpoints/{ENDPOINT}/feedback", json=body, headers=headers)[0] == 404

    def test_pages_elsewhere_may_not_change_anything(self, http: Http) -> None:
        for origin in ("https://evil.example", "http://127.0.0.1:9999", "null"):
            refused = http.refused("POST", "/endpoints", json={}, headers={"origin": origin})
            assert refused == (403, "access_denied")
        assert http("GET", "/api/v1/models", headers={"origin": "https://evil.example"}).status_code == 200
        own = http.refused("POST", "/endpoints", json={}, headers={"origin": LOOPBACK})
        assert own == (400, "invalid_input")

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example:8000", ""])
    def test_other_names_for_loopback(self, installation: Installation, http: Http, host: str) -> None:
        """Against DNS rebinding, as long as there are no keys."""
        refused = http.refused("GET", "/models", headers={"host": host})
        assert refused == (403, "access_denied")
        key = installation.platform.keys.create("k", role="admin")
        headers = {"host": host, "authorization": f"Bearer {key}"}
        assert http("GET", "/api/v1/models", headers=headers).status_code == 200

    @pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1", "[::1]:8000"])
    def test_loopback_names(self, http: Http, host: str) -> None:
        assert http("GET", "/api/v1/models", headers={"host": host}).status_code == 200


@only_sqlite
class TestDocuments:
    def test_openapi_is_served_and_is_the_documented_one(self, http: Http) -> None:
        served, documented = http.get("/openapi.json"), control.openapi()
        assert served["openapi"].startswith("3.")
        assert served["paths"] == documented["paths"]
        assert served["components"] == documented["components"]
        for path, methods in served["paths"].items():
            assert path.startswith("/api/v1/")
            for method, operation in methods.items():
                assert operation["description"], (method, path)

    def test_console(self, http: Http) -> None:
        page = http("GET", "/")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert http("GET", "/console/console.js").headers["content-type"].startswith("text/javascript")
        for name in ("nothing.js", "..%2foverview.py", "%2e%2e/routes.py", "index"):
            answer = http("GET", f"/console/{name}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    def test_no_other_pages(self, http: Http) -> None:
        for path in ("/docs", "/redoc", "/openapi.json", "/api/v1/docs"):
            assert http("GET", path).status_code == 404


class TestLoops:
    @only_sqlite
    def test_every_duty_once(self, installation: Installation) -> None:
        deployed(installation)
        installation.send(toys.table(20), version=1)
        loops = installation.platform.loops()
        assert [loop._name for loop in loops] == [
            "ingest", "log", "rollouts", "checks", "alerting", "retraining", "predictor", "measures", "budgets", "housekeeping",
        ]  # fmt: skip
        for loop in loops:
            loop._work()
        assert installation.platform.overview.of(TENANT)["endpoints"][0]["traffic"]["requests"] == 20

    @only_sqlite
    def test_run_while_the_application_lives(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deployed(installation)
        installation.send(toys.table(20), version=1)
        counted = threading.Event()
        ingest, real = installation.platform.ingest, installation.platform.ingest.look

        def look() -> int:
            taken = real()
            counted.set() if taken else None
            return taken

        monkeypatch.setattr(ingest, "look", look)
        asyncio.run(live(control_app(installation.platform), until=counted.is_set))

    @only_sqlite
    def test_a_run_that_an_earlier_process_left_goes_on(self, installation: Installation) -> None:
        pytest.importorskip("dbos")
        deployed(installation)
        store = RetrainingStore(installation.platform.database)
        left = Run("left", TENANT, ENDPOINT, MODEL, "manual", "running", "build", {}, 1, None, None, 1, None)
        with installation.platform.database.write() as connection:
            store.add(connection, left)

        def ended() -> bool:
            found = store.run("left")
            return found is not None and found.ended_at is not None

        asyncio.run(live(control_app(installation.platform), until=ended))


def waited(until: Callable[[], bool]) -> None:
    while not until():
        time.sleep(0.05)


async def live(app: Any, *, until: Callable[[], bool]) -> None:
    """An application's life: it starts, something becomes true, it ends."""
    received = asyncio.Queue[dict[str, str]]()
    sent = asyncio.Queue[dict[str, str]]()
    running = asyncio.create_task(app({"type": "lifespan", "state": {}}, received.get, sent.put))
    await received.put({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    await asyncio.to_thread(waited, until)
    await received.put({"type": "lifespan.shutdown"})
    assert (await sent.get())["type"] == "lifespan.shutdown.complete"
    await running


@only_sqlite
def test_old_predictions_are_forgotten(installation: Installation) -> None:
    deployed(installation)
    installation.observe(toys.table(30), version=1)
    installation.clock.advance((installation.settings.prediction_days + 1) * 86_400)
    installation.observe(toys.table(10), version=1)
    installation.platform._tidy()
    store = installation.platform.overview._parts.store
    assert len(store.labels_since(TENANT, ENDPOINT)) == 10
