"""The learner role, put together: rings in, insight out, beside Valkey's own figures."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

from predis.cache import embedded
from predis.cache.insight import load_s
from predis.cache.learner import Learner, Statistics
from predis.cache.predictor.export import AccessExport, Retention
from predis.cache.sources.declarations import Declarations
from predis.cache.teaching import Teaching
from predis.clock import SystemClock
from predis.metrics import Metrics
from predis.settings import Settings
from predis.state import Database
from predis.valkeys import Watched

_PATIENCE_S = 1.0
_FIGURES = (
    "used_memory", "used_memory_dataset", "maxmemory", "keyspace_hits", "keyspace_misses", "evicted_keys", "expired_keys",
    "connected_clients",
)  # fmt: skip


def run_learner(settings: Settings) -> None:
    """Learn until told to stop."""
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    metrics = Metrics(settings.metrics_folder, "learner")
    database = Database(settings.database_url)
    valkey = _Valkey(embedded.url_of(settings))
    folder = settings.home / "cache"
    declarations = Declarations(database, SystemClock(), allow_code=settings.allow_code)
    teaching = Teaching(
        folder,
        sources=lambda: [declared.source for declared in declarations.all()],
        peek=valkey.values,
        load_s=lambda: load_s(settings.metrics_folder),
    )
    export = _export(settings, metrics)
    listeners = (teaching.hear,) if export is None else (teaching.hear, export.take)
    learner = Learner(folder, statistics=valkey.statistics, metrics=metrics, listeners=listeners)
    try:
        learner.run(stop)
    finally:
        if export is not None:
            export.close()
        valkey.close()
        database.close()
        metrics.close()


def _export(settings: Settings, metrics: Metrics) -> AccessExport | None:
    """The access stream's files, where they are wanted."""
    if not settings.cache_export_bytes:
        return None
    retention = Retention(settings.cache_export_bytes, settings.cache_export_days * 86_400.0)
    return AccessExport(settings.home / "cache" / "accesses", retention=retention, metrics=metrics)


class _Valkey:
    """Valkey's figures about itself. None while it does not answer, and of a cluster, whose figures are in many places."""

    def __init__(self, url: str) -> None:
        self._url = url if url.startswith(("redis://", "rediss://", "unix://")) else ""
        self._client: Any = None

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys; None of all while Valkey does not answer."""
        client = self._connected()
        if client is None:
            return [None] * len(keys)
        import redis

        try:
            pipeline = client.pipeline(transaction=False)
            for key in keys:
                pipeline.get(key)
            found = pipeline.execute(raise_on_error=False)
        except redis.RedisError:
            return [None] * len(keys)
        return [value if isinstance(value, bytes) else None for value in found]  # of a hash: WRONGTYPE

    def statistics(self) -> Statistics | None:
        client = self._connected()
        if client is None:
            return None
        import redis

        try:
            said = client.info()
        except redis.RedisError:
            return None
        databases = [
            value for name, value in said.items() if name.startswith("db") and isinstance(value, dict)
        ]
        return {
            **{name: int(said.get(name, 0)) for name in _FIGURES},
            "keys": sum(int(database["keys"]) for database in databases),
            "policy": said.get("maxmemory_policy", ""),
            "version": said.get("valkey_version", said.get("redis_version", "")),
        }

    def _connected(self) -> Any:
        if self._client is None and self._url:
            import redis

            patience: dict[str, Any] = {"socket_timeout": _PATIENCE_S, "socket_connect_timeout": _PATIENCE_S}
            if Watched.is_url(self._url):
                watched = Watched.of(self._url)
                made: Any = redis.Sentinel  # redis-py does not say its types
                sentinel = made(watched.places, sentinel_kwargs={**watched.login, **patience})
                self._client = sentinel.master_for(watched.name, **watched.master_login, **patience)
            else:
                self._client = redis.Redis.from_url(self._url, **patience)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
