"""An MLflow tracking server, as its REST API has it (paths under ``/api/2.0``).

https://mlflow.org/docs/latest/api_reference/rest-api.html. Artifacts that the server itself keeps (``mlflow-artifacts:``) go through its
proxy, any others straight to where they lie, by fsspec. Works with MLflow 2 and 3; the latter's logged models are used where it has them.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from predis.errors import AccessDenied, InvalidInput, NotFound, PredisError, SetupError, Unreachable

PROXIED = "mlflow-artifacts"
_TIMEOUT_S = 60.0
_LOCAL = frozenset(("", "file"))
# Stores that fsspec may be asked for. An address is the server's word, and fsspec knows names for the files of this machine too.
_STORES = frozenset(("s3", "gs", "abfs", "abfss", "az", "hdfs"))
_LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))


class Tracking:
    """One MLflow server. Credentials come from where MLflow's own client takes them: ``MLFLOW_TRACKING_TOKEN``, or
    ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``.

    Args:
        uri: its http or https URL.

    Raises (every method):
        NotFound: MLflow has no such thing.
        AccessDenied: it does not let us.
        InvalidInput: it refuses what was asked.
        Unreachable: no answer, or none of MLflow.
    """

    def __init__(self, uri: str, *, environ: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"{uri!r} is not the http or https URL of an MLflow server")
        self.uri = uri.rstrip("/")
        self._host = parts.hostname
        self._headers = _credentials(os.environ if environ is None else environ)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """What is at a path of the API, ``model-versions/get`` for example."""
        return self._json("GET", f"mlflow/{path}?{urlencode(query)}")

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        return self._json("POST", f"mlflow/{path}", body=body)

    def patch(self, path: str, **body: Any) -> dict[str, Any]:
        return self._json("PATCH", f"mlflow/{path}", body=body)

    def download(self, artifacts: str, name: str, *, to: Path) -> None:
        """Copy one file below an artifact URI."""
        to.parent.mkdir(parents=True, exist_ok=True)
        with to.open("wb") as target:
            if (proxied := _proxied(artifacts)) is not None:
                with self._open("GET", _proxy_path(proxied, name)) as source:
                    shutil.copyfileobj(source, target)
                return
            files, root = self._files(artifacts)
            try:
                with files.open(f"{root}/{name}", "rb") as source:
                    shutil.copyfileobj(source, target)
            except FileNotFoundError:
                raise NotFound(f"MLflow keeps no file {name!r} in {artifacts}") from None

    def upload(self, artifacts: str, name: str, *, file: Path) -> None:
        """Write one file below an artifact URI."""
        if (proxied := _proxied(artifacts)) is not None:
            with file.open("rb") as source:
                headers = {
                    "content-length": str(file.stat().st_size),
                    "content-type": "application/octet-stream",
                }
                self._open("PUT", _proxy_path(proxied, name), data=source, headers=headers).close()
            return
        files, root = self._files(artifacts)
        files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        with file.open("rb") as source, files.open(f"{root}/{name}", "wb") as target:
            shutil.copyfileobj(source, target)

    def _files(self, artifacts: str) -> tuple[Any, str]:
        """The file system an artifact URI names, and the folder in it."""
        import fsspec

        scheme = urlsplit(artifacts).scheme
        if scheme in _LOCAL and self._host not in _LOOPBACK:
            raise InvalidInput(
                f"the MLflow server {self.uri} names a folder of its own machine ({artifacts}); start it with --serve-artifacts"
            )
        if scheme not in _LOCAL | _STORES or "::" in artifacts:
            raise InvalidInput(
                f"MLflow keeps the artifacts at {artifacts}; Predis reads them through the server, from {', '.join(sorted(_STORES))}, and "
                "from a folder of this machine"
            )
        try:
            files, root = fsspec.url_to_fs(artifacts)
        except ImportError as error:
            raise SetupError(f"artifacts at {scheme}:// need a package beside fsspec: {error}") from None
        return files, str(root).rstrip("/")

    def _json(self, method: str, path: str, *, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        with self._open(method, path, data=data, headers={"content-type": "application/json"}) as answer:
            try:
                found = json.load(answer)
            except ValueError:
                found = None
        if not isinstance(found, dict):
            raise Unreachable(f"{self.uri} answered with something that is not JSON; is it an MLflow server?")
        return found

    def _open(
        self, method: str, path: str, *, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        request = urllib.request.Request(  # noqa: S310, the scheme was checked
            f"{self.uri}/api/2.0/{path}",
            data=data,
            method=method,
            headers={**self._headers, **(headers or {})},
        )
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, error.read(), uri=self.uri) from None
        except OSError as error:
            raise Unreachable(f"no answer from the MLflow server {self.uri}: {error}") from None


def _credentials(environ: Mapping[str, str]) -> dict[str, str]:
    if token := environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"authorization": f"Bearer {token}"}
    if user := environ.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{user}:{environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    return {}


def _proxied(artifacts: str) -> str | None:
    """The path that the server's proxy knows an artifact URI by; ``None`` where it is not the server's."""
    parts = urlsplit(artifacts)
    return parts.path.strip("/") if parts.scheme == PROXIED else None


def _proxy_path(folder: str, name: str) -> str:
    return f"mlflow-artifacts/artifacts/{quote(f'{folder}/{name}')}"


def _refusal(status: int, content: bytes, *, uri: str) -> PredisError:
    try:
        document = json.loads(content)
        code, message = str(document["error_code"]), str(document["message"])
    except (ValueError, TypeError, KeyError):
        code, message = "", f"status {status}"
    told = f"the MLflow server {uri} says: {message[:400]}"
    if status == 404 or code == "RESOURCE_DOES_NOT_EXIST":
        return NotFound(told)
    if status in (401, 403):
        return AccessDenied(
            f"{told}; set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return Unreachable(told) if status >= 500 else InvalidInput(told)
