"""The Python client: predictions, feedback, registry, endpoints, rollouts, over HTTP, with the standard library alone.

    client = predis.Client()
    answer = client.predict("flight-delay", {"carrier": "UA", "hour": 17, ...})
    client.feedback("flight-delay", [{"id": answer.id, "label": 1}])

Connections are kept and used again; threads may share a client. What may be repeated safely (reads, predictions, feedback) is
tried again for a while when a server is restarting; what may not is only tried again if it cannot have arrived.
"""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from predis.client.connection import ARTIFACTS, Archive, Sent, Server, error_of
from predis.errors import InvalidInput, PredisError, Unreachable

CONTROL_URL = "http://127.0.0.1:8000"
SERVING_URL = "http://127.0.0.1:8080"
_PAUSE_S = 0.05
_CHUNK = 1 << 18
_WORK_S = 3_600.0  # longest that registering or importing a version may take


@dataclass(frozen=True)
class Prediction:
    """An answer: its id (by which feedback names it), the version that gave it, and the outputs by name."""

    id: str
    version: int
    outputs: Mapping[str, Any]

    @property
    def score(self) -> float:
        """The first value of the first output."""
        return float(next(iter(self.outputs.values()))[0])


class Client:
    """One installation of Predis, as an application sees it.

    Args:
        control: URL of the control API; ``PREDIS_CONTROL`` or loopback's port 8000 by default.
        serving: URL of the data plane; ``PREDIS_SERVING`` or loopback's port 8080 by default.
        key: API key; ``PREDIS_KEY`` by default, empty for none.
        retry_s: how long to try again when a server does not answer or is overloaded.

    Raises (every method): the error of ``predis.errors`` that the server named, or ``Unreachable``.
    """

    def __init__(
        self,
        control: str = "",
        serving: str = "",
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        retry_s: float = 15.0,
    ) -> None:
        self._control = Server(control or os.environ.get("PREDIS_CONTROL", CONTROL_URL), timeout_s)
        # Whoever registers a large reference waits for it to be scored.
        self._at_work = Server(self._control.url, max(timeout_s, _WORK_S))
        self._serving = Server(serving or os.environ.get("PREDIS_SERVING", SERVING_URL), timeout_s)
        key = os.environ.get("PREDIS_KEY", "") if key is None else key
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._retry_s = retry_s
        self._fields: dict[str, list[dict[str, Any]]] = {}

    @property
    def url(self) -> str:
        """Of the control API."""
        return self._control.url

    def close(self) -> None:
        """Close every kept connection, of all threads."""
        for server in (self._control, self._at_work, self._serving):
            server.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # -- predictions and feedback --------------------------------------------------------------------------------------

    def predict(
        self, endpoint: str, row: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, id: str = "", event_time: str | float | None = None,
        routing_key: str = "",
    ) -> Prediction:  # fmt: skip
        """Predict one row, or several, given as mappings from input names to values; ``None`` or an absent name is missing.

        Args:
            id: the prediction's id, unique; made here where none is given, so that a repeated try is recognised.
            event_time: when what is asked about happens (RFC 3339 or seconds), if not now.
            routing_key: rows with the same key meet the same version during a rollout.
        """
        rows = [row] if isinstance(row, Mapping) else list(row)
        fields = self._inputs(endpoint)
        request: dict[str, Any] = {
            "id": id or uuid.uuid4().hex,
            "inputs": [_tensor(field, rows) for field in fields],
        }
        parameters = {"event_time": event_time, "routing_key": routing_key or None}
        request["parameters"] = {name: value for name, value in parameters.items() if value is not None}
        unknown = set().union(*rows) - {field["name"] for field in fields}
        if unknown:
            raise InvalidInput(
                f"endpoint {endpoint!r} has no input {sorted(unknown)[0]!r}; it has {', '.join(f['name'] for f in fields)}"
            )
        return self.infer(endpoint, request)

    def infer(self, endpoint: str, request: Mapping[str, Any]) -> Prediction:
        """Send a request of the Open Inference Protocol as it stands."""
        body = _json(request)
        answer = self._call(
            self._serving, "POST", path=f"/v2/models/{quote(endpoint)}/infer", body=body, again=True
        )
        return Prediction(
            answer["id"], int(answer["model_version"]), {o["name"]: o["data"] for o in answer["outputs"]}
        )

    def feedback(self, endpoint: str, labels: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Send labels: mappings with ``id`` (the prediction's), ``label`` (0 or 1), and if wanted ``row``, ``event_time`` and
        ``value`` (what the case brought in or cost).

        Returns once they are durable: how many were received, stored, and duplicates.
        """
        return dict(
            self._api(
                "POST", f"/endpoints/{quote(endpoint)}/feedback", body={"labels": list(labels)}, again=True
            )
        )

    def metadata(self, endpoint: str) -> dict[str, Any]:
        """The data plane's description of an endpoint: inputs, outputs, versions."""
        return dict(self._call(self._serving, "GET", path=f"/v2/models/{quote(endpoint)}", again=True))

    def ready(self) -> bool:
        """Whether a worker answers and knows its Routes. One try, no patience."""
        try:
            return bool(self._once(self._serving, "GET", path="/v2/health/ready", body=None).get("ready"))
        except PredisError:
            return False

    # -- registry ------------------------------------------------------------------------------------------------------

    def upload(self, content: bytes | Path) -> str:
        """Store a file and return its digest, by which ``register`` names it."""
        if isinstance(content, bytes):
            return str(self._api("PUT", "/artifacts", body=content, again=True)["digest"])
        with content.open("rb") as file:
            size = content.stat().st_size
            answer = self._call(self._control, "PUT", path=ARTIFACTS, body=file, size=size, again=True)
            return str(answer["digest"])

    def register(self, model: str, file: Path, *, format: str, **details: Any) -> dict[str, Any]:
        """Register a version from a file, or from all files in a folder.

        Args:
            details: ``reference``, ``holdout``, ``training`` (paths of Parquet files), ``label``, ``signature``, ``parameters``,
                ``revision``, ``parent``, ``lineage``, ``endorsements`` (signatures by key id), ``alias``.
        """
        data = {
            k: self.upload(Path(v)) if k in ("reference", "holdout", "training") and v else v
            for k, v in details.items()
        }
        body = {
            "format": format,
            "files": {name: self.upload(path) for name, path in files_of(file).items()},
            **{k: v for k, v in data.items() if v},
        }
        return dict(self._api("POST", f"/models/{quote(model)}/versions", body=body, at_work=True))

    def models(self) -> list[dict[str, Any]]:
        return list(self._api("GET", "/models"))

    def versions(self, model: str) -> list[dict[str, Any]]:
        return list(self._api("GET", f"/models/{quote(model)}/versions"))

    def version(self, model: str, version: str | int) -> dict[str, Any]:
        return dict(self._api("GET", f"/models/{quote(model)}/versions/{quote(str(version))}"))

    def profile(self, model: str, version: str | int) -> dict[str, Any]:
        """A version's reference profile: bins and counts of its training inputs and scores."""
        return dict(self._api("GET", f"/models/{quote(model)}/versions/{quote(str(version))}/profile"))

    def verify(self, model: str, version: str | int) -> dict[str, Any]:
        return dict(
            self._api("POST", f"/models/{quote(model)}/versions/{quote(str(version))}/verify", again=True)
        )

    def alias(self, model: str, alias: str, *, version: str | int) -> dict[str, Any]:
        return dict(
            self._api(
                "PUT", f"/models/{quote(model)}/aliases/{quote(alias)}", body={"version": version}, again=True
            )
        )

    @contextmanager
    def archive(self, model: str, version: str | int) -> Iterator[Archive]:
        """A version as one file, read as it comes: to write it somewhere, or to give it to another client's ``import_version``."""
        path = f"/api/v1/models/{quote(model)}/versions/{quote(str(version))}/archive"
        with self._control.stream(path, headers=self._headers) as found:
            yield found

    def export_version(self, model: str, version: str | int, *, to: Path) -> int:
        """Write a version's archive to a file, whole or not at all; its size in bytes."""
        partial = to.with_name(f".{to.name}.{uuid.uuid4().hex[:8]}")
        try:
            with self.archive(model, version) as archive, partial.open("xb") as file:
                while chunk := archive.read(_CHUNK):
                    file.write(chunk)
            partial.replace(to)
            return archive.size
        finally:
            partial.unlink(missing_ok=True)

    def import_version(self, archive: Path | Archive, **wanted: str | bool) -> dict[str, Any]:
        """Make a version of an archive; ``is_new`` is false where it was there already.

        Args:
            wanted: ``name`` (the model's, if another), ``alias``, ``trust`` (an administrator stands for a program), ``source``.
        """
        query = urlencode({name: str(value) for name, value in wanted.items() if value})
        path = "/api/v1/models/import" + (f"?{query}" if query else "")
        if isinstance(archive, Archive):
            return dict(self._call(self._at_work, "POST", path=path, body=archive, size=archive.size))
        with archive.open("rb") as file:
            size = archive.stat().st_size
            return dict(self._call(self._at_work, "POST", path=path, body=file, size=size, again=True))

    def note_promotion(self, model: str, version: str | int, *, promoted: Mapping[str, Any]) -> None:
        """Have the audit log say where a version was moved ``to``: the environment, its ``control`` URL, its ``version`` there."""
        path = f"/models/{quote(model)}/versions/{quote(str(version))}/promotions"
        self._api("POST", path, body=dict(promoted))

    def delete_alias(self, model: str, alias: str) -> None:
        self._api("DELETE", f"/models/{quote(model)}/aliases/{quote(alias)}")

    def aliases(self, model: str) -> dict[str, int]:
        return dict(self._api("GET", f"/models/{quote(model)}/aliases"))

    def alias_history(self, model: str, *, limit: int = 200) -> list[dict[str, Any]]:
        """Who moved which alias, when, from what to what; newest first."""
        return list(self._api("GET", f"/models/{quote(model)}/aliases/history?limit={limit}"))

    def diff(self, model: str, before: str | int, *, after: str | int) -> dict[str, Any]:
        """What is different between two versions."""
        query = f"before={quote(str(before))}&after={quote(str(after))}"
        return dict(self._api("GET", f"/models/{quote(model)}/diff?{query}"))

    def sign(self, model: str, version: str | int, *, endorsements: Mapping[str, str]) -> dict[str, Any]:
        """Have signatures over a version kept, given by the ids of their keys."""
        path = f"/models/{quote(model)}/versions/{quote(str(version))}/signatures"
        return dict(self._api("POST", path, body={"endorsements": dict(endorsements)}, again=True))

    def delete_version(self, model: str, version: int) -> None:
        """Delete a version that nothing needs."""
        self._api("DELETE", f"/models/{quote(model)}/versions/{version}")

    def collect_garbage(
        self, *, older_than_s: float, keep_last: int | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Delete what nothing names; what was deleted, or would be."""
        body = {"older_than_s": older_than_s, "keep_last": keep_last, "dry_run": dry_run}
        return dict(self._api("POST", "/garbage", body=body, again=True))

    def trusted_keys(self) -> list[dict[str, Any]]:
        return list(self._api("GET", "/trust/keys"))

    def trust_key(self, name: str, public_key: str) -> dict[str, Any]:
        """Trust signatures by this public key, in PEM."""
        return dict(self._api("POST", "/trust/keys", body={"name": name, "public_key": public_key}))

    def revoke_trusted_key(self, key: str) -> None:
        self._api("DELETE", f"/trust/keys/{quote(key)}")

    def trust_policy(self) -> dict[str, Any]:
        return dict(self._api("GET", "/trust/policy"))

    def require_signatures(self, demand: bool) -> dict[str, Any]:
        """Demand that versions are signed, or no more."""
        return dict(self._api("PUT", "/trust/policy", body={"require_signatures": demand}, again=True))

    # -- endpoints and rollouts ----------------------------------------------------------------------------------------

    def create_endpoint(
        self, name: str, model: str, *, config: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return dict(
            self._api("POST", "/endpoints", body={"name": name, "model": model, "config": dict(config or {})})
        )

    def configure_endpoint(self, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self._api("PATCH", f"/endpoints/{quote(name)}", body=dict(config), again=True))

    def endpoints(self) -> list[dict[str, Any]]:
        return list(self._api("GET", "/endpoints"))

    def endpoint(self, name: str) -> dict[str, Any]:
        return dict(self._api("GET", f"/endpoints/{quote(name)}"))

    def deploy(
        self,
        endpoint: str,
        version: str | int,
        *,
        strategy: str = "canary",
        plan: Mapping[str, Any] | None = None,
        override_freeze: bool = False,
    ) -> dict[str, Any]:
        """Begin to move an endpoint to a version; returns the rollout. An administrator may do so in a freeze window."""
        body: dict[str, Any] = {"version": version, "strategy": strategy, "plan": dict(plan or {})}
        if override_freeze:
            body["override_freeze"] = True
        return dict(self._api("POST", f"/endpoints/{quote(endpoint)}/deploy", body=body))

    def rollouts(self, endpoint: str = "") -> list[dict[str, Any]]:
        return list(self._api("GET", "/rollouts" + (f"?endpoint={quote(endpoint)}" if endpoint else "")))

    def rollout(self, rollout: int) -> dict[str, Any]:
        return dict(self._api("GET", f"/rollouts/{rollout}"))

    def ask(self, rollout: int, wish: str, **said: Any) -> dict[str, Any]:
        """Ask for ``promote``, ``abort``, ``pause``, ``resume``, ``approve`` or ``reject``, with a ``note`` if wanted."""
        return dict(self._api("POST", f"/rollouts/{rollout}/{quote(wish)}", body=said, again=True))

    def promote(self, rollout: int) -> dict[str, Any]:
        return self.ask(rollout, "promote")

    def abort(self, rollout: int) -> dict[str, Any]:
        return self.ask(rollout, "abort")

    def drop_segment(self, endpoint: str, when: str) -> dict[str, Any]:
        """Answer a segment's requests as all others; returns the Route."""
        return dict(self._api("DELETE", f"/endpoints/{quote(endpoint)}/segments?when={quote(when, safe='')}"))

    def freezes(self) -> list[dict[str, Any]]:
        return list(self._api("GET", "/freezes"))

    def add_freeze(self, **window: Any) -> dict[str, Any]:
        """A window (``starts_at`` and ``ends_at``, or ``weekly`` and ``zone``; ``endpoint``, ``reason``) in which nothing goes forward."""
        return dict(self._api("POST", "/freezes", body=window))

    def remove_freeze(self, freeze: int) -> None:
        self._api("DELETE", f"/freezes/{freeze}")

    def backtest(self, endpoint: str, candidate: str | int, **wanted: Any) -> dict[str, Any]:
        """Begin to replay the endpoint's prediction log through a version; returns the backtest, which `show_backtest` follows.

        Args:
            wanted: ``since`` ("7d"), ``rows`` (200,000), ``threshold`` (0.5), ``baseline``.
        """
        body = {
            "candidate": candidate,
            **{name: value for name, value in wanted.items() if value is not None},
        }
        return dict(self._api("POST", f"/endpoints/{quote(endpoint)}/backtests", body=body))

    def backtests(self, endpoint: str = "") -> list[dict[str, Any]]:
        return list(self._api("GET", "/backtests" + (f"?endpoint={quote(endpoint)}" if endpoint else "")))

    def show_backtest(self, backtest: int) -> dict[str, Any]:
        """How far a backtest is, and its report once there is one."""
        return dict(self._api("GET", f"/backtests/{backtest}"))

    def cancel_backtest(self, backtest: int) -> dict[str, Any]:
        return dict(self._api("POST", f"/backtests/{backtest}/cancel", again=True))

    # -- looking -------------------------------------------------------------------------------------------------------

    def overview(self, endpoint: str = "") -> dict[str, Any]:
        """What the console shows."""
        return dict(self._api("GET", "/overview" + (f"?endpoint={quote(endpoint)}" if endpoint else "")))

    def cache_insight(self) -> dict[str, Any]:
        """How the cache does: hit rate, sources, hot and big keys, what-if curves."""
        return dict(self._api("GET", "/cache/insight"))

    def cache_predictor(self) -> dict[str, Any]:
        """What the cache's predictor has learnt, and what prefetching by it is worth."""
        return dict(self._api("GET", "/cache/predictor"))

    def cache_predictors(self) -> dict[str, Any]:
        """The predictor's versions, which is in use and which on trial, and what was decided why."""
        return dict(self._api("GET", "/cache/predictor/versions"))

    def train_cache_predictor(self) -> dict[str, Any]:
        """Begin to train a version of the predictor; returns the run, as ``retrainings`` lists it."""
        return dict(self._api("POST", "/cache/predictor/train"))

    def promote_cache_predictor(self) -> dict[str, Any]:
        """Let the version on trial take over now."""
        return dict(self._api("POST", "/cache/predictor/promote"))

    def roll_back_cache_predictor(self, version: int | None = None) -> dict[str, Any]:
        """End the trial, where one is under way; else go back to the version before, or to ``version`` (0: none)."""
        return dict(self._api("POST", "/cache/predictor/rollback", body={"version": version}))

    def cache_what_if(self, memory: str = "2x", policy: str = "lru") -> dict[str, Any]:
        """What another memory (2x, 512MB) or policy (lru, s3-fifo, twoq, arc) would give the cache."""
        return dict(self._api("GET", f"/cache/what-if?memory={quote(memory)}&policy={quote(policy)}"))

    def cache_sources(self) -> list[dict[str, Any]]:
        """Where the cache loads keys from, with what waits to be written there."""
        return list(self._api("GET", "/cache/sources"))

    def cache_source(self, name: str) -> dict[str, Any]:
        return dict(self._api("GET", f"/cache/sources/{quote(name, safe='')}"))

    def add_cache_source(
        self, name: str, source: Mapping[str, Any], *, replace: bool = False
    ) -> dict[str, Any]:
        """Declare a source; ``source`` are its fields, as ``[cache.sources.NAME]`` in predis.toml has them."""
        body = {"name": name, "source": dict(source), "replace": replace}
        return dict(self._api("POST", "/cache/sources", body=body))

    def test_cache_source(self, key: str) -> dict[str, Any]:
        """Ask a key's source for it, past the cache."""
        return dict(self._api("POST", "/cache/sources/test", body={"key": key}, again=True))

    def retry_cache_source(self, name: str) -> int:
        """Try once more what a source refused for good; how many writes that are."""
        return int(self._api("POST", f"/cache/sources/{quote(name, safe='')}/retry")["writes"])

    def remove_cache_source(self, name: str, *, discard: bool = False) -> None:
        """End a source; with ``discard``, though writes wait for it."""
        self._api("DELETE", f"/cache/sources/{quote(name, safe='')}" + ("?discard=true" if discard else ""))

    def alerts(self, endpoint: str = "") -> list[dict[str, Any]]:
        return list(self._api("GET", "/alerts" + (f"?endpoint={quote(endpoint)}" if endpoint else "")))

    def alert(self, alert: int) -> dict[str, Any]:
        """One alert with what each route was told of its incident."""
        return dict(self._api("GET", f"/alerts/{alert}"))

    def acknowledge(self, alert: int, *, note: str = "") -> dict[str, Any]:
        """Take care of an alert's incident: nothing escalates any more."""
        return dict(self._api("POST", f"/alerts/{alert}/acknowledge", body={"note": note}, again=True))

    def silences(self, *, ended: bool = False) -> list[dict[str, Any]]:
        return list(self._api("GET", "/silences" + ("?ended=true" if ended else "")))

    def add_silence(self, reason: str, **which: Any) -> dict[str, Any]:
        """Tell nobody of some alerts. ``which``: endpoint, kind, severity, version; and until or for_s."""
        return dict(self._api("POST", "/silences", body={"reason": reason, **which}))

    def end_silence(self, silence: int) -> None:
        self._api("DELETE", f"/silences/{silence}")

    def alert_routes(self) -> list[dict[str, Any]]:
        """Whom alerts are told to."""
        return list(self._api("GET", "/alert-routes"))

    def alert_deliveries(self, *, limit: int = 100) -> list[dict[str, Any]]:
        """The outbox: what routes are to be told, and were; what waits first, then the newest."""
        return list(self._api("GET", f"/alert-deliveries?limit={limit}"))

    def add_alert_route(
        self, name: str, *, channel: str, config: dict[str, Any], **which: Any
    ) -> dict[str, Any]:
        """Tell alerts to somebody more. ``which``: endpoint, kinds, severity, after_s, per_hour."""
        body = {"name": name, "channel": channel, "config": config, **which}
        return dict(self._api("POST", "/alert-routes", body=body))

    def remove_alert_route(self, name: str) -> None:
        self._api("DELETE", f"/alert-routes/{quote(name, safe='')}")

    def test_alert_route(self, name: str) -> dict[str, Any]:
        """Send a test notice now: whether it was ``sent``, and the ``error``."""
        return dict(self._api("POST", f"/alert-routes/{quote(name, safe='')}/test"))

    def objectives(self, endpoint: str = "") -> list[dict[str, Any]]:
        """Objectives with what is left of their error budgets."""
        return list(
            self._api("GET", f"/endpoints/{quote(endpoint)}/objectives" if endpoint else "/objectives")
        )

    def query(self, sql: str, *, format: str = "json") -> dict[str, Any]:
        """One SELECT over predictions and labels: columns and rows; of the formats csv and parquet, ``content`` in base64."""
        return dict(self._api("POST", "/query", body={"sql": sql, "format": format}, again=True))

    def why(self, endpoint: str, *, version: int | None = None) -> dict[str, Any]:
        """Estimated and realised performance, what moved inputs do to the answers, and the worst segments."""
        which = f"?version={version}" if version else ""
        return dict(self._api("GET", f"/endpoints/{quote(endpoint)}/why{which}"))

    def windows(
        self, endpoint: str, *, since: str, version: int | None = None, segment: str = ""
    ) -> dict[str, Any]:
        """Windows by time since a moment (RFC 3339): of the endpoint, and of each level of its segments."""
        asked = {
            "since": since,
            **({"version": version} if version else {}),
            **({"segment": segment} if segment else {}),
        }
        return dict(self._api("GET", f"/endpoints/{quote(endpoint)}/windows?{urlencode(asked)}"))

    def retrain(self, endpoint: str) -> dict[str, Any]:
        """Start a retraining run by hand."""
        return dict(self._api("POST", f"/endpoints/{quote(endpoint)}/retrain"))

    def retrainings(self, endpoint: str = "") -> list[dict[str, Any]]:
        return list(self._api("GET", "/retrainings" + (f"?endpoint={quote(endpoint)}" if endpoint else "")))

    def health(self) -> dict[str, Any]:
        """The control role's health. One try, no patience."""
        return dict(self._once(self._control, "GET", path="/api/v1/health", body=None))

    # -- the wire ------------------------------------------------------------------------------------------------------

    def _inputs(self, endpoint: str) -> list[dict[str, Any]]:
        if endpoint not in self._fields:
            self._fields[endpoint] = self.metadata(endpoint)["inputs"]
        return self._fields[endpoint]

    def _api(
        self, method: str, path: str, *, body: Any = None, again: bool = False, at_work: bool = False
    ) -> Any:
        raw = body if body is None or isinstance(body, bytes) else _json(body)
        server = self._at_work if at_work else self._control
        return self._call(server, method, path="/api/v1" + path, body=raw, again=again or method == "GET")

    def _call(
        self,
        server: Server,
        method: str,
        *,
        path: str,
        body: Sent = None,
        again: bool = False,
        size: int = 0,
    ) -> Any:
        """One answer, with patience: up to ``retry_s`` while the server is away or asks to come back."""
        deadline = time.monotonic() + self._retry_s
        pause = _PAUSE_S
        while True:
            try:
                return self._once(server, method, path=path, body=body, size=size)
            except PredisError as error:
                retry = isinstance(error, Unreachable) and (again or error.args[1:] == ("unsent",))
                retry = retry or (again and error.code in ("not_ready", "overloaded", "unavailable"))
                if not retry or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _once(self, server: Server, method: str, *, path: str, body: Sent, size: int = 0) -> Any:
        if body is not None and not isinstance(body, bytes | Archive):
            body.seek(0)  # An earlier try may have read some of it.
        status, content = server.exchange(method, path, body=body, headers=self._headers, size=size)
        try:
            document = json.loads(content) if content else {}
        except ValueError:
            raise Unreachable(
                f"{server.url} answered with something that is not JSON; is it a Predis server?"
            ) from None
        if status >= 400:
            raise error_of(document, status)
        return document


def _tensor(field: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    name = field["name"]
    data = [row.get(name) for row in rows]
    # Tables tell a missing value by NaN, in columns of texts and whole numbers too.
    data = [None if isinstance(v, float) and math.isnan(v) else v for v in data]
    return {
        "name": name,
        "datatype": field["datatype"],
        "shape": [len(rows), *field["shape"][1:]],
        "data": data,
    }


def files_of(path: Path) -> dict[str, Path]:
    """A file by its name; the files of a folder by their paths in it, without what Python and editors leave there."""
    if not path.is_dir():
        return {path.name: path}
    found = {file.relative_to(path): file for file in sorted(path.rglob("*")) if file.is_file()}
    return {
        name.as_posix(): file
        for name, file in found.items()
        if not any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    }


def _json(document: Any) -> bytes:
    try:
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"what was given cannot be sent as JSON: {error}") from error
