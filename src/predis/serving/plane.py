"""The data plane: live, ready, metadata, infer. No wire in it; ``rest.py`` only translates.

One request: pick a version from the endpoint's Route, bind the inputs to its signature, predict, encode, answer; then, after the
answer, one append to the journal. Everything that can be done once per Route is done when the Route is applied, so that a
request only follows references. Routes are swapped by assigning one dictionary entry: a request sees the old or the new one.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from predis.access import Caller
from predis.clock import Clock
from predis.errors import EndpointNotFound, InvalidInput, NotReady, Overloaded, PredisError, VersionNotFound
from predis.registry.model import Version
from predis.serving import runtimes
from predis.serving.protocol import Binder, Bound, Encoder, InferRequest, Limits
from predis.serving.route import Route
from predis.state.records import Matrix, Status, encode, target_bytes

_WARM_RUNS = 5
_NOTHING: Matrix = np.empty(0)
_NO_FEATURES: Matrix = np.empty((0, 0))


class Sink(Protocol):
    """Where records go: the journal's writer, or nothing."""

    def append(self, payload: bytes) -> bool: ...


class ServedVersion:
    """A version in memory, warmed: its runtime, binder and encoder, and what a row of it costs."""

    def __init__(self, version: Version, runtime: runtimes.Runtime, *, endpoint: str, limits: Limits) -> None:
        self.version = version
        self.number = version.number
        self.runtime = runtime
        self.binder = Binder(runtime.signature, limits)
        self.encoder = Encoder(endpoint, version.number, signature=runtime.signature)
        self.row_cost_s = self._warm(len(runtime.signature.feature_names))

    def predict(self, bound: Bound) -> Sequence[NDArray[Any]]:
        return runtimes.run(self.runtime, bound.features, unseen=bound.unseen)

    def scores(self, outputs: Sequence[NDArray[Any]]) -> Matrix:
        return runtimes.scores_of(self.runtime.signature, outputs)

    def _warm(self, columns: int) -> float:
        """Run the model a few times, so that no request pays for the first, and keep the quickest as the price of a row."""
        sample = np.zeros((1, columns))
        costs = []
        for _run in range(_WARM_RUNS):
            start = time.perf_counter()
            runtimes.run(self.runtime, sample, unseen={})
            costs.append(time.perf_counter() - start)
        return min(costs)


@dataclass(frozen=True)
class AppliedRoute:
    """A Route whose versions are all in memory."""

    tenant: str
    route: Route
    model: str
    versions: Mapping[int, ServedVersion]
    target: bytes

    @classmethod
    def of(
        cls, tenant: str, route: Route, *, model: str, versions: Mapping[int, ServedVersion]
    ) -> AppliedRoute:
        return cls(tenant, route, model, versions, target_bytes(tenant, route.endpoint))


@dataclass(slots=True)
class Answer:
    """The response body, and the record to append once it has been sent."""

    body: bytes
    served: ServedVersion
    applied: AppliedRoute
    bound: Bound
    outputs: Sequence[NDArray[Any]]
    id: str
    event_at: int | None


class Plane:
    """Answers inference requests from applied Routes.

    Args:
        sink: takes one record a request, after the answer.
        inline_s: predictions expected to take longer run in a thread instead of the event loop.
        max_pending: requests worked on at once; more are refused with ``Overloaded``.
    """

    def __init__(
        self, *, clock: Clock, sink: Sink, limits: Limits, inline_s: float = 0.002, max_pending: int = 256
    ) -> None:
        self._clock = clock
        self._sink = sink
        self.limits = limits
        self._inline_s = inline_s
        self._max_pending = max_pending
        self._pending = 0
        self._applied: dict[tuple[str, str], AppliedRoute] = {}
        self._prefix = secrets.token_hex(6)
        self._count = itertools.count()
        self.following = False

    def live(self) -> bool:
        return True

    def ready(self) -> bool:
        """Whether the Routes are known, so that a request for any endpoint would find it."""
        return self.following

    def apply(self, applied: AppliedRoute) -> None:
        self._applied[applied.tenant, applied.route.endpoint] = applied

    def remove(self, tenant: str, endpoint: str) -> None:
        self._applied.pop((tenant, endpoint), None)

    def applied(self, tenant: str, endpoint: str) -> AppliedRoute | None:
        return self._applied.get((tenant, endpoint))

    def model_ready(self, caller: Caller, endpoint: str, *, version: str | None) -> bool:
        """Whether a request for this endpoint (and version) would be answered.

        Raises:
            EndpointNotFound, VersionNotFound
        """
        applied = self._find(caller.tenant, endpoint)
        if version is not None:
            _version_of(applied, version)
        return bool(applied.route.weights)

    def metadata(self) -> dict[str, Any]:
        from predis import __version__

        return {"name": "predis", "version": __version__, "extensions": []}

    def model_metadata(self, caller: Caller, endpoint: str, *, version: str | None) -> dict[str, Any]:
        """Names, datatypes and shapes as the protocol tells them, of the version asked for or the one with most weight."""
        applied = self._find(caller.tenant, endpoint)
        served = _version_of(applied, version) if version is not None else _heaviest(applied)
        signature = served.runtime.signature.to_dict()
        return {
            "name": endpoint,
            "versions": [str(number) for number, share in applied.route.weights.items() if share > 0],
            "platform": f"predis_{served.version.format}",
            "inputs": signature["inputs"],
            "outputs": signature["outputs"],
            "parameters": {"model": applied.model, "version": str(served.number)},
        }

    async def infer(
        self, caller: Caller, endpoint: str, *, version: str | None, request: InferRequest
    ) -> Answer:
        """Answer one request. The caller then sends the body and hands the answer to ``capture``.

        Raises:
            InvalidRequest, TooLarge: the request does not fit the version's signature.
            EndpointNotFound, VersionNotFound, NotReady, Overloaded, ModelFailure
        """
        started = time.perf_counter()
        applied = self._find(caller.tenant, endpoint)
        if not request.id:
            request.id = f"{self._prefix}-{next(self._count):x}"
        served = _version_of(applied, version) if version is not None else self._route(applied, request)
        if self._pending >= self._max_pending:
            raise Overloaded(
                f"more than {self._max_pending} requests are waiting here; try again in a second"
            )
        self._pending += 1
        try:
            event_at = request.event_time()
            served.encoder.check(request.outputs)
            bound = served.binder.bind(request)
            outputs = await self._predict(served, bound)
        except PredisError as error:
            self._capture_failure(applied, served, request_id=request.id, started=started, error=error)
            raise
        finally:
            self._pending -= 1
        body = served.encoder.encode(request.id, outputs, wanted=request.outputs)
        return Answer(body, served, applied, bound, outputs, request.id, event_at)

    def capture(self, answer: Answer, *, seconds: float) -> None:
        """Append what was asked and answered to the journal. Called after the answer was sent; never raises for want of disk."""
        now = self._clock.time_ns()
        extra = (
            orjson.dumps([[r, c, text] for (r, c), text in answer.bound.unseen.items()])
            if answer.bound.unseen
            else b""
        )
        payload = encode(
            (answer.applied.target, answer.id.encode(), answer.served.number, Status.OK),
            (now, now if answer.event_at is None else answer.event_at, int(seconds * 1e6)),
            scores=answer.served.scores(answer.outputs),
            features=answer.bound.features,
            extra=extra,
        )
        self._sink.append(payload)

    def _capture_failure(
        self,
        applied: AppliedRoute,
        served: ServedVersion,
        *,
        request_id: str,
        started: float,
        error: PredisError,
    ) -> None:
        status = Status.REJECTED if isinstance(error, InvalidInput) else Status.FAILED
        now = self._clock.time_ns()
        payload = encode(
            (applied.target, request_id.encode(), served.number, status),
            (now, now, int((time.perf_counter() - started) * 1e6)),
            scores=_NOTHING,
            features=_NO_FEATURES,
        )
        self._sink.append(payload)

    async def _predict(self, served: ServedVersion, bound: Bound) -> Sequence[NDArray[Any]]:
        if served.row_cost_s * len(bound.features) <= self._inline_s:
            return served.predict(bound)
        return await asyncio.get_running_loop().run_in_executor(None, served.predict, bound)

    def _route(self, applied: AppliedRoute, request: InferRequest) -> ServedVersion:
        if not applied.route.weights:
            raise NotReady(
                f"endpoint {applied.route.endpoint!r} has no version yet; deploy one with: predis deploy {applied.route.endpoint} VERSION"
            )
        return applied.versions[applied.route.pick(request.routing_key() or request.id)]

    def _find(self, tenant: str, endpoint: str) -> AppliedRoute:
        applied = self._applied.get((tenant, endpoint))
        if applied is None:
            if not self.following:
                raise NotReady("this worker has not read its Routes yet; try again in a moment")
            raise EndpointNotFound(f"there is no endpoint {endpoint!r}; `predis endpoint list` shows them")
        return applied


def _version_of(applied: AppliedRoute, version: str) -> ServedVersion:
    served = applied.versions.get(int(version)) if version.isdecimal() and len(version) < 10 else None
    if served is None:
        known = ", ".join(map(str, applied.versions)) or "none"
        raise VersionNotFound(
            f"endpoint {applied.route.endpoint!r} does not serve version {version!r:.40}; it serves {known}"
        )
    return served


def _heaviest(applied: AppliedRoute) -> ServedVersion:
    if not applied.versions:
        raise NotReady(f"endpoint {applied.route.endpoint!r} has no version yet")
    return applied.versions[max(applied.route.weights, key=lambda number: applied.route.weights[number])]
