"""Opening sources: whoever calls one, made from its declaration."""

from __future__ import annotations

import os

from predis.cache.sources.calling import Caller
from predis.cache.sources.code import CodeCaller
from predis.cache.sources.source import Source
from predis.cache.sources.sql import SqlCaller
from predis.cache.sources.web import WebCaller
from predis.errors import AccessDenied, InvalidInput

SECRETS = "PREDIS_SOURCE_"
"""Sources that are declared through the API may read environment variables that begin so, and no others."""


def caller_of(source: Source, *, allow_code: bool = False, by_file: bool = True) -> Caller:
    """Whoever calls this source.

    Args:
        by_file: whether it was declared in ``predis.toml``, by whoever starts the server, and may so read any environment variable.

    Raises:
        InvalidInput: it cannot be called: no such driver, function or environment variable.
        AccessDenied: it is a Python function, and the setting ``allow_code`` is off.
    """
    if source.kind == "sql":
        return SqlCaller(source, url=source.url or secret(source.url_env, by_file=by_file))
    if source.kind == "http":
        headers = {name: secret(variable, by_file=by_file) for name, variable in source.headers_env.items()}
        url = source.url or secret(source.url_env, by_file=by_file)
        return WebCaller(source, url=url, headers={**source.headers, **headers})
    if not allow_code:
        raise AccessDenied(
            f"source {source.name!r} runs Python code, which the setting allow_code must allow"
        )
    return CodeCaller(source)


def secret(variable: str, *, by_file: bool) -> str:
    """An environment variable's value.

    Raises:
        InvalidInput: it is not set, or one that a source declared through the API may not read.
    """
    if not by_file and not variable.startswith(SECRETS):
        raise InvalidInput(
            f"a source declared here may only read environment variables called {SECRETS}..., not {variable}"
        )
    value = os.environ.get(variable, "")
    if not value:
        raise InvalidInput(f"the environment variable {variable} is not set where the gateway runs")
    return value
