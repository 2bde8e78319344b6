"""The data plane: live, ready, metadata, infer. No wire in it; ``rest.py`` and ``grpc.py`` only translate.

One request: pick a version from the endpoint's Route, bind the inputs to its signature, join its batcher; then predict, answer, and
append to the journal what was asked and answered, one record for a whole batch. Everything that can be done once per Route is done when
the Route is applied, so that a request only follows references. Routes are swapped by assigning one dictionary entry: a request sees
the old or the new one.

The plane lives in the event loop. Other threads (the follower) call ``apply`` and ``remove`` only.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from predis.access import Caller
from predis.errors import (
    DeadlineExceeded,
    EndpointNotFound,
    InvalidInput,
    NotReady,
    Overloaded,
    PredisError,
    TenantOverloaded,
    VersionNotFound,
)
from predis.serving.batching import Batch, Batcher, BatchPolicy, Outputs
from predis.serving.cache import EndpointCache, PredictionCache
from predis.serving.capture import Capture
from predis.serving.choosing import Chooser
from predis.serving.config import ServingConfig
from predis.serving.inputs import Inputs
from predis.serving.protocol import InferRequest
from predis.serving.route import Route
from predis.serving.served import ServedVersion
from predis.serving.shadows import Shadow, Shadows
from predis.serving.threads import Threads

log = logging.getLogger(__name__)

# With very many connections the event loop reads and reads, for seconds; what waits is not made to wait for the end of that.
_ROUND_S = 0.005


class Call:
    """One request on its way through the plane.

    ``started``, ``ended`` and ``deadline`` are moments of ``time.perf_counter``. ``reply`` is called exactly once for a call that
    ``submit`` accepted, in the event loop, when ``outputs`` or ``error`` is set. Whoever has no more use for the answer calls ``cancel``.
    ``headers`` are the request's, by lower-case name, as the wire has them. ``predicted`` is when its prediction began and ended, and
    ``together`` how many rows that was of; a cached answer has none.
    """

    __slots__ = (
        "applied", "arm", "caller", "cancelled", "context", "deadline", "ended", "endpoint", "error", "event_at", "headers", "inputs",
        "key", "outputs", "predicted", "reply", "request", "served", "started", "timer", "together", "trace", "version",
    )  # fmt: skip

    def __init__(
        self,
        caller: Caller,
        endpoint: str,
        *,
        request: InferRequest,
        version: str | None = None,
        started: float | None = None,
        deadline: float = math.inf,
    ) -> None:
        self.caller = caller
        self.endpoint = endpoint
        self.version = version
        self.request = request
        self.started = time.perf_counter() if started is None else started
        self.deadline = deadline
        self.reply: Callable[[Call], None] = _nobody
        self.context: Any = None
        self.trace: Any = None
        self.timer: asyncio.TimerHandle | None = None
        self.cancelled = False
        self.arm = 0
        self.headers: Mapping[Any, Any] = _NO_HEADERS
        self.event_at: int | None = None
        self.key: bytes | None = None
        self.outputs: Outputs | None = None
        self.error: PredisError | None = None
        self.predicted: tuple[float, float] | None = None
        self.together = 0
        self.ended = 0.0
        self.applied: AppliedRoute
        self.served: ServedVersion
        self.inputs: Inputs

    def cancel(self) -> None:
        """Nobody waits for the answer any more; where it is not predicted yet, it will not be."""
        self.cancelled = True


_NO_HEADERS: Mapping[Any, Any] = {}


def _nobody(_call: Call) -> None:
    """The reply of a call that nobody waits for."""


@dataclass(frozen=True)
class AppliedRoute:
    """A Route whose versions are all in memory, or none of them where a ``problem`` is. ``Plane.apply`` adds what it makes of them."""

    tenant: str
    route: Route
    model: str
    versions: Mapping[int, ServedVersion]
    config: ServingConfig = ServingConfig()
    cache: EndpointCache | None = None
    chooser: Chooser | None = None
    shadows: tuple[Shadow, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Admission:
    """How much a plane takes on before it refuses.

    Args:
        pending: requests worked on at once.
        wait_s: longest that a request may be expected to wait for its turn.
        tenant_pending: requests of one tenant worked on at once; 0: no limit.
    """

    pending: int = 512
    wait_s: float = 1.0
    tenant_pending: int = 0


class Plane:
    """Answers inference requests from applied Routes.

    Args:
        capture: keeps what was asked and answered.
        policy: how waiting requests are joined where an endpoint's configuration does not say.
        caches: of endpoints that are configured to have one.
        threads: predictions that run at once outside the event loop.
    """

    def __init__(
        self,
        capture: Capture,
        *,
        admission: Admission | None = None,
        policy: BatchPolicy | None = None,
        caches: PredictionCache | None = None,
        threads: int = 2,
    ) -> None:
        self._capture = capture
        self._caches = caches or PredictionCache()
        self._admission = admission or Admission()
        self._policy = policy or BatchPolicy()
        self._threads = Threads(threads, "predict")
        self._shadows = Shadows(capture, has_room=lambda: 2 * self._pending <= self._admission.pending)
        self._shadowing = False
        self._pending = 0
        self._pending_of: dict[str, int] = defaultdict(int)
        self._applied: dict[tuple[str, str], AppliedRoute] = {}
        self._due: list[Batcher] = []
        self._round_due = False
        self._round_until = 0.0
        self._finished: deque[Callable[[], None]] = deque()
        self._prefix = secrets.token_hex(6)
        self._count = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.following = False

    # -- what is served --------------------------------------------------------------------------------------------------

    def live(self) -> bool:
        return True

    def ready(self) -> bool:
        """Whether the Routes are known, so that a request for any endpoint would find it."""
        return self.following

    @property
    def pending(self) -> int:
        """Requests worked on now."""
        return self._pending

    def apply(self, applied: AppliedRoute) -> None:
        """Answer an endpoint by this Route from now on."""
        config = applied.config
        policy = BatchPolicy(
            self._policy.rows if config.batch_rows is None else config.batch_rows,
            self._policy.seconds if config.batch_s is None else config.batch_s,
            self._policy.inline_s,
        )
        for served in applied.versions.values():
            served.join(policy, self)
        tenant, endpoint = applied.tenant, applied.route.endpoint
        route, versions = applied.route, applied.versions
        before = self._applied.get((tenant, endpoint))
        shadows = self._shadows.of(
            # What is not kept is not worth predicting.
            route if config.capture else Route(endpoint, 0, {}),
            versions,
            before=before.shadows if before else (),
        )
        self._applied[tenant, endpoint] = replace(
            applied,
            cache=self._caches.of(tenant, endpoint, config=config.cache, asker=self),
            chooser=Chooser(route, versions) if route.weights else None,
            shadows=shadows,
        )
        self._shadowing = any(each.shadows for each in list(self._applied.values()))

    def remove(self, tenant: str, endpoint: str) -> None:
        removed = self._applied.pop((tenant, endpoint), None)
        for shadow in removed.shadows if removed else ():
            shadow.close()
        self._caches.remove(tenant, endpoint)

    def settled(self) -> threading.Event:
        """Set once every request that met the Routes as they were until now has been taken on or refused: one is so in a single step of
        the event loop.
        """
        found = threading.Event()
        try:
            (self._running_loop() if self._loop is None else self._loop).call_soon_threadsafe(found.set)
        except RuntimeError:  # no loop runs, so no request does
            found.set()
        return found

    def applied(self, tenant: str, endpoint: str) -> AppliedRoute | None:
        return self._applied.get((tenant, endpoint))

    def endpoints(self, tenant: str) -> list[AppliedRoute]:
        """The tenant's endpoints, by name."""
        found = [applied for applied in list(self._applied.values()) if applied.tenant == tenant]
        return sorted(found, key=lambda applied: applied.route.endpoint)

    def find(self, tenant: str, endpoint: str) -> AppliedRoute:
        """
        Raises:
            EndpointNotFound, NotReady
        """
        applied = self._applied.get((tenant, endpoint))
        if applied is None:
            if not self.following:
                raise NotReady("this worker has not read its Routes yet; try again in a moment")
            raise EndpointNotFound(f"there is no endpoint {endpoint!r}; `predis endpoint list` shows them")
        return applied

    def version(self, applied: AppliedRoute, version: str | None) -> ServedVersion:
        """The version asked for, or the one with most weight.

        Raises:
            VersionNotFound, NotReady
        """
        if version is not None:
            return _version_of(applied, version)
        if not applied.versions:
            raise _nothing_to_answer(applied)
        weights = applied.route.weights
        return applied.versions[max(weights, key=lambda number: weights[number])]

    # -- requests --------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Take a call on; its ``reply`` comes in the event loop, now or later.

        Raises:
            InvalidRequest, TooLarge: the request does not fit the version's signature.
            EndpointNotFound, VersionNotFound, NotReady
            Overloaded, TenantOverloaded, DeadlineExceeded: refused without work.
        """
        applied = call.applied = self.find(call.caller.tenant, call.endpoint)
        request = call.request
        if not request.id:
            request.id = f"{self._prefix}-{next(self._count):x}"
        served = call.served = (
            self._choose(applied, call) if call.version is None else _version_of(applied, call.version)
        )
        try:
            self._admit(call, served.batcher)
            call.event_at = request.event_time()
            served.encoder.check(request.outputs)
            call.inputs = served.binder.bind(request)
        except PredisError as error:
            self._refused(call, error)
            raise
        self._pending += 1
        served.pending += 1
        if self._admission.tenant_pending:
            self._pending_of[applied.tenant] += 1
        if applied.cache is None:
            self.uncached(call)
        else:
            call.key = served.cache_keys.of(call.inputs)
            applied.cache.begin(call.key, call)

    def check_room(self, tenant: str, endpoint: str, *, version: str | None) -> None:
        """Refuse a request before its body is read, where there is no room for it whatever it says.

        Raises:
            Overloaded, TenantOverloaded
        """
        applied = self._applied.get((tenant, endpoint))
        if not self._pending or applied is None:
            return
        if version is not None:
            served = _version_of(applied, version)
        elif applied.chooser is not None and applied.chooser.only is not None:
            served = applied.chooser.only
        else:
            return
        try:
            self._find_room(tenant, served.batcher)
        except PredisError as error:
            served.metrics.refused(error)
            raise

    async def infer(self, call: Call) -> Call:
        """``submit``, and wait for the reply.

        Raises:
            PredisError: whatever kept the call from its outputs.
        """
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def reply(_call: Call) -> None:
            if not answered.done():
                answered.set_result(None)

        call.reply = reply
        self.submit(call)
        try:
            await answered
        except asyncio.CancelledError:
            call.cancel()
            raise
        if call.error is not None:
            raise call.error
        return call

    def close(self) -> bool:
        """Predict nothing more in threads. Whether nothing is being predicted there: what is cannot be stopped."""
        shadows_ended = self._shadows.close()
        return self._threads.close() and shadows_ended

    def _choose(self, applied: AppliedRoute, call: Call) -> ServedVersion:
        if applied.chooser is None:
            raise _nothing_to_answer(applied)
        return applied.chooser.choose(call)

    def _admit(self, call: Call, batcher: Batcher) -> None:
        timeout = call.request.timeout_s() if call.request.parameters else None
        if timeout is not None:
            call.deadline = min(call.deadline, call.started + timeout)
        now, wait = self._find_room(call.caller.tenant, batcher)
        if now + wait >= call.deadline:
            raise DeadlineExceeded("the deadline would pass before this request's turn")

    def _find_room(self, tenant: str, batcher: Batcher) -> tuple[float, float]:
        """What time it is, and how long a request would have to wait.

        Requests that the loop can answer by itself are no reason to refuse one: there is room once they are answered. And one for a version
        that is idle is never refused because others are not, so that a version with more to do than it can does not starve the rest.

        Raises:
            Overloaded, TenantOverloaded
        """
        limits = self._admission
        if (
            self._finished
            or self._pending >= limits.pending
            or (limits.tenant_pending and self._is_full(tenant))
        ):
            self._turn()
        now = time.perf_counter()
        wait = batcher.expected_wait_s(now)
        if limits.tenant_pending and self._is_full(tenant):
            raise TenantOverloaded(
                f"more than {limits.tenant_pending} requests of tenant {tenant!r} are worked on here (setting tenant_pending)"
            )
        if self._pending >= limits.pending and not batcher.idle:
            raise Overloaded(f"more than {limits.pending} requests are waiting here; try again in a second")
        if wait > limits.wait_s:
            raise Overloaded(
                f"a request would wait {wait:.1f} s here, more than {limits.wait_s:g} s (setting max_wait_ms); try again in a second"
            )
        return now, wait

    def _is_full(self, tenant: str) -> bool:
        return self._pending_of[tenant] >= self._admission.tenant_pending

    def _refused(self, call: Call, error: PredisError) -> None:
        if isinstance(error, InvalidInput):
            call.error, call.ended = error, time.perf_counter()
            self._keep(call)
        else:
            call.served.metrics.refused(error)

    # -- a batcher's scheduler -------------------------------------------------------------------------------------------

    def wake(self, batcher: Batcher) -> None:
        """Let the batcher work when the loop's current round has ended: by then all that waits has been read."""
        self._due.append(batcher)
        if not self._round_due:
            self._round_due = True
            self._round_until = time.perf_counter() + _ROUND_S
            self._running_loop().call_soon(self._round)

    def aside(self, work: Callable[[], None], after: Callable[[], None]) -> None:
        """Do work in a thread, and then ``after`` in the event loop."""
        loop = self._running_loop()

        def run() -> None:
            work()
            self._finished.append(after)
            with suppress(RuntimeError):  # the loop has ended, and nobody waits for the answer any more
                loop.call_soon_threadsafe(self._finish)

        self._threads.submit(run)

    def done(self, batch: Batch) -> None:
        """Answer the calls of a finished batch, then keep what was answered."""
        start = 0
        for number, call in enumerate(batch.calls):
            stop = start + call.inputs.rows
            found: Outputs | PredisError | None = batch.outputs
            if batch.each is not None:
                found = batch.each[number]
            elif len(batch.calls) > 1 and batch.outputs is not None:
                found = [output[start:stop] for output in batch.outputs]
            if isinstance(found, PredisError):
                call.error = found
            else:
                call.outputs = found
            call.predicted = (batch.started, batch.ended)
            call.together = batch.rows
            self._answer(call)
            if call.key is not None:
                self._settle(call)
            start = stop
        try:
            self._capture.batch(batch)
        except Exception:
            log.exception("predictions could not be kept")
        if self._shadowing:
            self._copy(batch.calls)

    def expired(self, call: Call) -> None:
        """Answer a call that waited past its deadline."""
        call.error = DeadlineExceeded("the deadline passed while the request waited for its turn")
        call.served.metrics.refused(call.error)
        self._answer(call)
        if call.key is not None:
            self._settle(call)

    def _overdue(self, call: Call) -> None:
        """A call's deadline passes. Where its prediction has begun it is answered by that."""
        if call.served.batcher.drop(call):
            self.expired(call)

    # -- asked by a prediction cache -------------------------------------------------------------------------------------

    def cached(self, call: Call, outputs: Outputs) -> None:
        """Answer a call with what was predicted for the same rows before."""
        call.outputs = outputs
        self._answer(call)
        self._keep(call)
        if self._shadowing:
            self._copy([call])

    def uncached(self, call: Call) -> None:
        """Have a call predicted."""
        batcher = call.served.batcher
        if not batcher:
            self.wake(batcher)
        batcher.add(call)
        if call.deadline < math.inf and batcher.running:
            left = call.deadline - time.perf_counter()
            call.timer = self._running_loop().call_later(max(0.0, left), self._overdue, call)
        if call.started > self._round_until:
            self._turn()

    def failed(self, call: Call, error: PredisError) -> None:
        """Answer a call whose rows the model failed on, asked for by another call."""
        call.error = error
        self._answer(call)
        self._keep(call)

    def _settle(self, call: Call) -> None:
        """Tell the cache what became of a call that it had predicted."""
        cache = call.applied.cache
        if cache is None or call.key is None:
            return
        if call.outputs is not None:
            cache.finish(call.key, call.outputs)
        else:
            cache.abandon(call.key, call.error)

    # -- answers ---------------------------------------------------------------------------------------------------------

    def _answer(self, call: Call) -> None:
        if call.timer is not None:
            call.timer.cancel()
        self._pending -= 1
        call.served.pending -= 1
        if self._admission.tenant_pending:
            self._pending_of[call.applied.tenant] -= 1
        try:
            call.reply(call)
        except Exception:
            log.exception("an answer could not be given")
        call.ended = time.perf_counter()

    def _keep(self, call: Call) -> None:
        """Keep a call that was answered or refused by itself."""
        try:
            self._capture.alone([call])
        except Exception:
            log.exception("a prediction could not be kept")

    def _copy(self, calls: Sequence[Call]) -> None:
        """Copy calls that a Route had answered to the shadows of the Route that there is now: only its versions are sure to be open."""
        for call in calls:
            applied = self._applied.get((call.applied.tenant, call.endpoint))
            if applied is None or call.error is not None or call.version is not None:
                continue
            for shadow in applied.shadows:
                try:
                    shadow.offer(call)
                except Exception:
                    log.exception("a request could not be copied")

    def _turn(self) -> None:
        """Go on with what threads have finished and with what waits, though the loop is still reading."""
        self._finish()
        self._round()

    def _finish(self) -> None:
        while self._finished:
            _guarded(self._finished.popleft())

    def _round(self) -> None:
        self._round_due = False
        due, self._due = self._due, []
        for batcher in due:
            _guarded(batcher.work)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.get_running_loop()
        return self._loop


def _version_of(applied: AppliedRoute, version: str) -> ServedVersion:
    served = applied.versions.get(int(version)) if version.isdecimal() and len(version) < 10 else None
    if served is None:
        known = ", ".join(map(str, applied.versions)) or "none"
        raise VersionNotFound(
            f"endpoint {applied.route.endpoint!r} does not serve version {version!r:.40}; it serves {known}"
        )
    return served


def _guarded(work: Callable[[], None]) -> None:
    """Work on a batch: what goes wrong is not the fault of the request at hand."""
    try:
        work()
    except Exception:
        log.exception("a batch could not be worked on")


def _nothing_to_answer(applied: AppliedRoute) -> NotReady:
    name = applied.route.endpoint
    if applied.problem:
        return NotReady(
            f"endpoint {name!r} cannot answer, as its version could not be loaded: {applied.problem}"
        )
    if not applied.config.loaded:
        return NotReady(f"endpoint {name!r} is unloaded; load it with: predis endpoint load {name}")
    return NotReady(f"endpoint {name!r} has no version yet; deploy one with: predis deploy {name} VERSION")
