"""The learner role, put together: rings in, insight out, beside Valkey's own figures."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
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
from predis.valkeys import Clustered, Watched, as_redis

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
    """Valkey's figures about itself, of a cluster all masters'. None while it does not answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = None

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys; None of all while Valkey does not answer."""
        found = self._asked(lambda client: _values(client, keys))
        return [None] * len(keys) if found is None else found

    def statistics(self) -> Statistics | None:
        told: list[dict[str, Any]] | None = self._asked(_told)
        if not told:
            return None
        databases = [
            value
            for said in told
            for name, value in said.items()
            if name.startswith("db") and isinstance(value, dict)
        ]
        first = told[0]
        return {
            **{name: sum(int(said.get(name, 0)) for said in told) for name in _FIGURES},
            "keys": sum(int(database["keys"]) for database in databases),
            "policy": first.get("maxmemory_policy", ""),
            "version": first.get("valkey_version", first.get("redis_version", "")),
        }

    def _asked(self, ask: Callable[[Any], Any]) -> Any:
        """What it says; None where it says nothing."""
        if not self._url:
            return None
        import redis

        try:
            if self._client is None:
                self._client = _connected(self._url)
            return ask(self._client)
        except (redis.RedisError, redis.RedisClusterException):
            return None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _connected(url: str) -> Any:
    """redis-py's client of a ``valkey_url``. One of a cluster asks its nodes at once."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    made: Any = redis  # redis-py does not say all its types
    once = {
        "retry": Retry(NoBackoff(), 0), "socket_timeout": _PATIENCE_S, "socket_connect_timeout": _PATIENCE_S,
    }  # fmt: skip
    if Watched.is_url(url):
        watched = Watched.of(url)
        sentinel = made.Sentinel(watched.places, sentinel_kwargs={**watched.login, **once})
        return sentinel.master_for(watched.name, **watched.master_login, **once)
    if Clustered.is_url(url):
        seeds = Clustered.of(url).seeds
        nodes = [made.cluster.ClusterNode(seed.host, seed.port) for seed in seeds]
        return made.RedisCluster(startup_nodes=nodes, ssl=seeds[0].tls, **seeds[0].login, **once)
    return made.Redis.from_url(as_redis(url), **once)


def _values(client: Any, keys: Sequence[bytes]) -> list[bytes | None]:
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.get(key)
    found = pipeline.execute(raise_on_error=False)
    return [value if isinstance(value, bytes) else None for value in found]  # of a hash: WRONGTYPE


def _told(client: Any) -> list[dict[str, Any]]:
    """INFO of each server."""
    if hasattr(client, "get_primaries"):
        return list(client.info(target_nodes="primaries").values())
    return [client.info()]
