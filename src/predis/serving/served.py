"""A version in memory: its runtime, what reads requests for it and writes its answers, and what a prediction of it costs."""

from __future__ import annotations

import logging
import time
from functools import partial

from predis.errors import ModelFailure
from predis.metrics import Metrics
from predis.registry.model import Version
from predis.serving import runtimes
from predis.serving.batching import Batcher, BatchPolicy, Cost, Scheduler
from predis.serving.binding import Binder
from predis.serving.cache import CacheKeys
from predis.serving.encoding import Encoder
from predis.serving.inputs import sample
from predis.serving.measures import VersionMetrics
from predis.serving.protocol import Limits
from predis.state.records import BlockEncoder

log = logging.getLogger(__name__)

_WARM_RUNS = 5
_MANY = 16
_SLOW_S = 0.05
_UNKNOWN_S = 0.01


class ServedVersion:
    """A version of one endpoint, warmed and ready to answer.

    Raises:
        ModelFailure: the model fails on rows that fit its signature.
    """

    def __init__(
        self,
        version: Version,
        runtime: runtimes.Runtime,
        *,
        endpoint: str,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        signature = runtime.signature
        self.cost = _measured(runtime)
        self.version = version
        self.number = version.number
        self.endpoint = endpoint
        self.runtime = runtime
        self.takes = runtime.takes
        self.signature = signature
        self.binder = Binder(signature, limits, takes=runtime.takes)
        self.encoder = Encoder(endpoint, version.number, signature=signature)
        self.records = BlockEncoder(version.tenant, endpoint, version=version.number)
        self.cache_keys = CacheKeys(version)
        self.metrics = VersionMetrics(metrics, version.tenant, endpoint=endpoint, version=version.number)
        self.batcher: Batcher
        self.pending = (
            0  # requests and copies of them taken on and not done with; changes in the event loop only
        )

    def join(self, policy: BatchPolicy, scheduler: Scheduler) -> None:
        """Have requests joined by this policy from now on."""
        if hasattr(self, "batcher"):
            self.batcher.policy = policy
        else:
            # Of the runtime, not of ``self``: without a circle the memory goes when the last user does.
            predict = partial(runtimes.run, self.runtime)
            self.batcher = Batcher(predict, self.cost, policy=policy, scheduler=scheduler)

    def close(self) -> None:
        """Give the model's memory back."""
        self.runtime.close()
        self.metrics.unloaded()


def _measured(runtime: runtimes.Runtime) -> Cost:
    """Run the model a few times, so that no request pays for the first, and take the quickest runs as its price."""
    try:
        one = _quickest(runtime, 1)
        many = _quickest(runtime, _MANY)
    except ModelFailure as error:
        if runtime.takes == "matrix":
            raise
        # A function over texts or tensors may rightly refuse blank ones; its price is learnt from requests then.
        log.info("the model does not answer blank inputs (%s); its cost is not known yet", error)
        return Cost(_UNKNOWN_S, _UNKNOWN_S)
    row = max(0.0, (many - one) / (_MANY - 1))
    return Cost(max(0.0, one - row), row)


def _quickest(runtime: runtimes.Runtime, rows: int) -> float:
    blank = sample(runtime.signature, runtime.takes, rows=rows)
    best = float("inf")
    for _run in range(_WARM_RUNS):
        start = time.perf_counter()
        runtimes.run(runtime, blank)
        best = min(best, time.perf_counter() - start)
        if best > _SLOW_S:
            break
    return best
