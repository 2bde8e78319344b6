"""The Python client: predictions, feedback, registry, endpoints, rollouts, over HTTP, with the standard library alone.

    client = predis.Client()
    answer = client.predict("flight-delay", {"carrier": "UA", "hour": 17, ...})
    client.feedback("flight-delay", [{"id": answer.id, "label": 1}])

Connections are kept and used again; threads may share a client. What may be repeated safely (reads, predictions, feedback) is
tried again for a while when a server is restarting; what may not is only tried again if it cannot have arrived.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import select
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from predis.errors import InvalidInput, PredisError, Unreachable, all_errors

CONTROL_URL = "http://127.0.0.1:8000"
SERVING_URL = "http://127.0.0.1:8080"
_PAUSE_S = 0.05
_ARTIFACTS = "/api/v1/artifacts"


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
        key: API key; ``PREDIS_KEY`` by default.
        retry_s: how long to try again when a server does not answer or is overloaded.

    Raises (every method): the error of ``predis.errors`` that the server named, or ``Unreachable``.
    """

    def __init__(
        self,
        control: str = "",
        serving: str = "",
        *,
        key: str = "",
        timeout_s: float = 30.0,
        retry_s: float = 15.0,
    ) -> None:
        self._control = _Server(control or os.environ.get("PREDIS_CONTROL", CONTROL_URL), timeout_s)
        self._serving = _Server(serving or os.environ.get("PREDIS_SERVING", SERVING_URL), timeout_s)
        key = key or os.environ.get("PREDIS_KEY", "")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._retry_s = retry_s
        self._fields: dict[str, list[dict[str, Any]]] = {}

    def close(self) -> None:
        """Close every kept connection, of all threads."""
        self._control.close()
        self._serving.close()

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
        """Send labels: mappings with ``id`` (the prediction's), ``label`` (0 or 1), and if wanted ``row`` and ``event_time``.

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
            answer = self._call(self._control, "PUT", path=_ARTIFACTS, body=file, size=size, again=True)
            return str(answer["digest"])

    def register(self, model: str, file: Path, *, format: str, **details: Any) -> dict[str, Any]:
        """Register a version from a file, or from all files in a folder.

        Args:
            details: ``reference``, ``holdout``, ``training`` (paths of Parquet files), ``label``, ``signature``, ``lineage``, ``alias``.
        """
        data = {
            k: self.upload(Path(v)) if k in ("reference", "holdout", "training") and v else v
            for k, v in details.items()
        }
        body = {
            "format": format,
            "files": {name: self.upload(path) for name, path in _files_of(file).items()},
            **{k: v for k, v in data.items() if v},
        }
        return dict(self._api("POST", f"/models/{quote(model)}/versions", body=body))

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
    ) -> dict[str, Any]:
        """Begin to move an endpoint to a version; returns the rollout."""
        body = {"version": version, "strategy": strategy, "plan": dict(plan or {})}
        return dict(self._api("POST", f"/endpoints/{quote(endpoint)}/deploy", body=body))

    def rollouts(self, endpoint: str = "") -> list[dict[str, Any]]:
        return list(self._api("GET", "/rollouts" + (f"?endpoint={quote(endpoint)}" if endpoint else "")))

    def rollout(self, rollout: int) -> dict[str, Any]:
        return dict(self._api("GET", f"/rollouts/{rollout}"))

    def promote(self, rollout: int) -> dict[str, Any]:
        return dict(self._api("POST", f"/rollouts/{rollout}/promote", again=True))

    def abort(self, rollout: int) -> dict[str, Any]:
        return dict(self._api("POST", f"/rollouts/{rollout}/abort", again=True))

    # -- looking -------------------------------------------------------------------------------------------------------

    def overview(self, endpoint: str = "") -> dict[str, Any]:
        """What the console shows."""
        return dict(self._api("GET", "/overview" + (f"?endpoint={quote(endpoint)}" if endpoint else "")))

    def alerts(self, endpoint: str = "") -> list[dict[str, Any]]:
        return list(self._api("GET", "/alerts" + (f"?endpoint={quote(endpoint)}" if endpoint else "")))

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

    def _api(self, method: str, path: str, *, body: Any = None, again: bool = False) -> Any:
        raw = body if body is None or isinstance(body, bytes) else _json(body)
        return self._call(
            self._control, method, path="/api/v1" + path, body=raw, again=again or method == "GET"
        )

    def _call(
        self,
        server: _Server,
        method: str,
        *,
        path: str,
        body: bytes | IO[bytes] | None = None,
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

    def _once(
        self, server: _Server, method: str, *, path: str, body: bytes | IO[bytes] | None, size: int = 0
    ) -> Any:
        if body is not None and not isinstance(body, bytes):
            body.seek(0)  # An earlier try may have read some of it.
        status, content = server.exchange(method, path, body=body, headers=self._headers, size=size)
        try:
            document = json.loads(content) if content else {}
        except ValueError:
            raise Unreachable(
                f"{server.url} answered with something that is not JSON; is it a Predis server?"
            ) from None
        if status >= 400:
            raise _error(document, status)
        return document


class _Server:
    """Kept connections to one server: as many as were ever in use at once."""

    def __init__(self, url: str, timeout_s: float) -> None:
        try:
            parts = urlsplit(url)
            self._address = (parts.hostname or "", parts.port)
        except ValueError as error:
            raise InvalidInput(f"{url!r} is not a URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"{url!r} is not an http or https URL")
        self.url = url
        self._make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._idle: deque[http.client.HTTPConnection] = deque()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        if hasattr(self, "_idle"):
            self.close()

    def exchange(
        self, method: str, path: str, *, body: bytes | IO[bytes] | None, headers: Mapping[str, str], size: int
    ) -> tuple[int, bytes]:
        """
        Raises:
            Unreachable: no answer; its second argument is "unsent" where the request cannot have arrived whole.
        """
        extra = {"content-length": str(size)} if size else {}
        if isinstance(body, bytes):
            extra["content-type"] = "application/json" if path != _ARTIFACTS else "application/octet-stream"
        connection = self._connection()
        sent = False
        try:
            if connection.sock is None:
                connection.connect()
            sent = _send(
                connection, method, path=self._prefix + path, body=body, headers={**headers, **extra}
            )
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            problem = Unreachable(
                f"no answer from {self.url}: {error or type(error).__name__}; is `predis up` running?"
            )
            if not sent:
                problem.args = (problem.args[0], "unsent")
            raise problem from error
        if response.will_close or not sent:
            connection.close()
        else:
            self._idle.append(connection)
        return response.status, content

    def _connection(self) -> http.client.HTTPConnection:
        """A kept connection that the server has not ended meanwhile, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if not _is_readable(connection):
                return connection
            connection.close()
        return self._make(*self._address, timeout=self._timeout_s)


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    *,
    path: str,
    body: bytes | IO[bytes] | None,
    headers: Mapping[str, str],
) -> bool:
    """Whether the whole request was sent. A server may answer before it has read all, and close: it is too large, say."""
    try:
        connection.request(method, path, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _is_readable(connection: http.client.HTTPConnection) -> bool:
    """Whether there is something to read. Where nothing was asked that can only be the connection's end."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


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


def _files_of(path: Path) -> dict[str, Path]:
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


def _error(document: Any, status: int) -> PredisError:
    if not isinstance(document, dict):
        document = {}
    cls = all_errors().get(str(document.get("code")), PredisError)
    return cls(str(document.get("error") or f"the server answered with status {status}"))
