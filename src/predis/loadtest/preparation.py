"""From an endpoint's description to a target: different requests, encoded once, before the test begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from predis.errors import InvalidInput
from predis.loadtest.bodies import binary_body, grpc_message, http_request, json_body
from predis.loadtest.load import Target
from predis.loadtest.values import Column, Input, Profile, random_columns, table_columns

_MOST_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What requests to make.

    ``encoding`` is json, binary or grpc; ``distinct`` how many different ones to rotate over, fewer where they would take more than
    64 MiB; ``key`` an API key to send along.
    """

    endpoint: str
    version: str = ""
    encoding: str = "json"
    distinct: int = 1_024
    key: str = ""


class Source:
    """Where the values of the requests come from: a file's rows, in order and over again, or random ones."""

    def __init__(
        self,
        inputs: Sequence[Input],
        rows: int,
        *,
        seed: int = 0,
        profile: Profile | None = None,
        table: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self.inputs, self._rows, self._profile = inputs, rows, profile
        self._rng = np.random.default_rng(seed)
        self._table = None if table is None else table_columns(inputs, table, where="the file")

    def columns(self, number: int) -> dict[str, Column]:
        """The values of the ``number``-th request."""
        if self._table is None:
            return random_columns(self.inputs, self._rows, rng=self._rng, profile=self._profile)
        places = np.arange(number * self._rows, (number + 1) * self._rows)
        return {name: column[places % len(column)] for name, column in self._table.items()}


def prepare(url: str, wanted: Wanted, *, source: Source) -> Target:
    """Requests to an endpoint at ``url``, with the source's values; for gRPC the URL's port is that of gRPC.

    Raises:
        InvalidInput: the URL is none, or the values do not fit the inputs.
    """
    host, port, tls, path = _address(url, wanted)
    headers = {
        "host": urlsplit(url).netloc,
        **({"authorization": f"Bearer {wanted.key}"} if wanted.key else {}),
    }
    requests: list[bytes] = []
    size = 0
    for number in range(wanted.distinct):
        columns = source.columns(number)
        if wanted.encoding == "grpc":
            request = grpc_message(source.inputs, columns, model=wanted.endpoint, version=wanted.version)
        elif wanted.encoding == "binary":
            body, length = binary_body(source.inputs, columns)
            more = {
                "content-type": "application/octet-stream",
                "inference-header-content-length": str(length),
            }
            request = http_request(path, body, headers=headers | more)
        else:
            body = json_body(source.inputs, columns)
            request = http_request(path, body, headers=headers | {"content-type": "application/json"})
        requests.append(request)
        size += len(request)
        if size + len(request) > _MOST_BYTES:
            break
    return Target(
        host=host,
        port=port,
        tls=tls,
        requests=tuple(requests),
        grpc=wanted.encoding == "grpc",
        key=wanted.key,
    )


def _address(url: str, wanted: Wanted) -> tuple[str, int, bool, str]:
    """Host, port, whether TLS is spoken, and the path of inference requests."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidInput(f"{url!r} is not an http or https URL")
    tls = parts.scheme == "https"
    version = f"/versions/{quote(wanted.version, safe='')}" if wanted.version else ""
    path = f"{parts.path.rstrip('/')}/v2/models/{quote(wanted.endpoint, safe='')}{version}/infer"
    return host, port or (443 if tls else 80), tls, path
