"""All prediction caches of a worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from predis.metrics import NOTHING, Metrics
from predis.serving.cache.config import CacheConfig
from predis.serving.cache.endpoint import Asker, EndpointCache, MemoryCache, ValkeyCache
from predis.serving.cache.valkey import Valkey

log = logging.getLogger(__name__)


class PredictionCache:
    """One worker's caches, by endpoint. ``of`` and ``remove`` may be called by any one thread; all else in the event loop.

    Args:
        valkey: None where no ``valkey_url`` is set.
    """

    def __init__(
        self,
        valkey: Valkey | None = None,
        *,
        metrics: Metrics = NOTHING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._valkey = valkey
        self._metrics = metrics
        self._clock = clock
        self._caches: dict[tuple[str, str], EndpointCache] = {}

    def of(
        self, tenant: str, endpoint: str, *, config: CacheConfig | None, asker: Asker
    ) -> EndpointCache | None:
        """The cache of an endpoint configured so; None where it has none.

        It is the same one as long as the configuration is: what it holds outlives a change of Route, as keys know the version. A
        call that began with an earlier one is finished with that.
        """
        found = self._caches.get((tenant, endpoint))
        if found is not None and found.config == config:
            return found
        self.remove(tenant, endpoint)
        made = None if config is None else self._made(config, asker, tenant=tenant, endpoint=endpoint)
        if made is not None:
            self._caches[tenant, endpoint] = made
        return made

    def remove(self, tenant: str, endpoint: str) -> None:
        """Forget an endpoint's cache and what it holds in memory."""
        found = self._caches.pop((tenant, endpoint), None)
        if found is not None:
            found.close()

    def expire(self) -> None:
        """Give back the memory of predictions whose time is over; to be called now and then."""
        for cache in list(self._caches.values()):
            cache.expire()

    async def close(self) -> None:
        """Close the connection to Valkey. Calls that wait for it have a miss."""
        if self._valkey is not None:
            await self._valkey.close()

    def _made(self, config: CacheConfig, asker: Asker, *, tenant: str, endpoint: str) -> EndpointCache | None:
        if config.store == "memory":
            return MemoryCache(
                config, asker, metrics=self._metrics, tenant=tenant, endpoint=endpoint, clock=self._clock
            )
        if self._valkey is None:
            log.warning(
                "endpoint %s is to keep predictions in Valkey, but valkey_url names none, or a cluster: it works without a cache",
                endpoint,
            )
            return None
        return ValkeyCache(
            config, asker, metrics=self._metrics, tenant=tenant, endpoint=endpoint, valkey=self._valkey
        )
