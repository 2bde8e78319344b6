"""Backtests in the background: started, followed, cancelled; one at a time on an endpoint.

Each runs in a thread of the control role that started it, with little priority, and its models in processes of their own. Its row in the
state database is where everybody else sees it: whoever asked may go away and come back. A row whose control has died says so when the
next one is asked for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from predis.clock import NANOSECONDS, parse_since
from predis.errors import Conflict, InvalidInput, NotFound, PredisError
from predis.rollout.backtest.report import Asked
from predis.rollout.backtest.run import Backtest, Parts
from predis.rollout.backtest.store import CANCELLED, DONE, FAILED, RUNNING, BacktestRow
from predis.serving.endpoints import Endpoints

log = logging.getLogger(__name__)

MOST_ROWS = 2_000_000
_SILENT = 3  # times as long as any one question to a model may take
_TELL_S = 0.5


class _Stopped(Exception):
    """The backtest is not to go on."""


class Backtests:
    """Starts backtests and tells what became of them.

    Args:
        yield_to_others: lowers the priority of the thread that calls it.
    """

    def __init__(self, parts: Parts, endpoints: Endpoints, *, yield_to_others: Callable[[], None]) -> None:
        self._parts = parts
        self._endpoints = endpoints
        self._yield_to_others = yield_to_others
        self._closing = threading.Event()
        self._threads: dict[int, threading.Thread] = {}

    def start(self, tenant: str, name: str, *, wanted: dict[str, Any], actor: str) -> BacktestRow:
        """Begin to replay an endpoint's log through a candidate.

        Args:
            wanted: ``candidate`` and ``baseline`` (number or alias; no baseline: the version that answers most), ``since``, ``rows``,
                ``threshold``.

        Raises:
            EndpointNotFound, VersionNotFound, AliasNotFound
            InvalidInput: there is no baseline, or the window cannot be read.
            Conflict: a backtest runs on the endpoint.
        """
        now = self._parts.clock.time_ns()
        asked = self._asked(tenant, name, wanted=wanted, now=now)
        row = {
            "tenant": tenant, "endpoint": name, "candidate": asked.candidate.number, "state": RUNNING, "progress": 0.0,
            "asked": {**wanted, "baseline": asked.baseline.number}, "report": None, "error": "", "created_at": now, "seen_at": now,
            "ended_at": None, "created_by": actor,
        }  # fmt: skip

        def noted(connection: Any, number: int) -> None:
            detail = {
                "backtest": number,
                "candidate": asked.candidate.number,
                "baseline": asked.baseline.number,
            }
            self._parts.audit.add(
                connection, tenant, actor=actor, action="backtest.start", target=name, detail=detail
            )

        number = self._parts.store.add(row, alive_since=self._alive_since(now), noted=noted)
        thread = threading.Thread(
            target=self._run, args=(number, asked), name=f"backtest-{number}", daemon=True
        )
        self._threads[number] = thread
        thread.start()
        return self.get(tenant, number)

    def get(self, tenant: str, backtest: int) -> BacktestRow:
        """
        Raises:
            NotFound
        """
        found = self._parts.store.backtest(tenant, backtest)
        if found is None:
            raise NotFound(
                f"there is no backtest {backtest}; `predis rollout backtest ENDPOINT --last` shows the newest"
            )
        now = self._parts.clock.time_ns()
        if found.state == RUNNING and found.seen_at < self._alive_since(now):
            self._parts.store.expire(tenant, found.endpoint, alive_since=self._alive_since(now), now=now)
            return self.get(tenant, backtest)
        return found

    def listed(self, tenant: str, *, endpoint: str | None = None) -> list[BacktestRow]:
        """Newest first."""
        return self._parts.store.backtests(tenant, endpoint=endpoint)

    def _alive_since(self, now: int) -> int:
        """Whoever works on a backtest has said so since then, or has died."""
        return now - round(_SILENT * self._parts.fresh_s * NANOSECONDS)

    def cancel(self, tenant: str, backtest: int) -> BacktestRow:
        """End one that runs; its thread stops at its next step.

        Raises:
            NotFound
            Conflict: it has ended.
        """
        found = self.get(tenant, backtest)
        values = {"state": CANCELLED, "ended_at": self._parts.clock.time_ns(), "error": "it was cancelled"}
        if not self._parts.store.end(backtest, values=values):
            raise Conflict(f"backtest {backtest} has ended ({self.get(tenant, backtest).state})")
        return self.get(tenant, found.id)

    def wait(self, backtest: int, *, timeout_s: float) -> None:
        """Until the thread of one that was started here has ended."""
        thread = self._threads.get(backtest)
        if thread:
            thread.join(timeout_s)

    def close(self) -> None:
        """End what runs here; their rows say so."""
        self._closing.set()
        for thread in list(self._threads.values()):
            thread.join(3.0)

    def _asked(self, tenant: str, name: str, *, wanted: dict[str, Any], now: int) -> Asked:
        endpoint = self._endpoints.get(tenant, name)
        registry = self._parts.registry
        candidate = registry.version(tenant, endpoint.model, reference=wanted["candidate"])
        weights = self._endpoints.current_route(endpoint).weights
        reference = wanted.get("baseline") or max(weights, key=lambda number: weights[number], default=None)
        if reference is None:
            raise InvalidInput(
                f"endpoint {name!r} serves no version to compare with; name one with --baseline"
            )
        baseline = registry.version(tenant, endpoint.model, reference=reference)
        if baseline.number == candidate.number:
            raise InvalidInput(
                f"version {candidate.number} is the baseline itself; name another --candidate or --baseline"
            )
        since = parse_since(str(wanted["since"]), now=now)
        return Asked(
            tenant=tenant, endpoint=name, candidate=candidate, baseline=baseline, since=since, until=now, rows=wanted["rows"],
            threshold=wanted["threshold"], replay_baseline=bool(wanted.get("baseline")),
        )  # fmt: skip

    def _run(self, backtest: int, asked: Asked) -> None:
        self._yield_to_others()
        try:
            report = Backtest(self._parts, asked, told=self._teller(backtest)).run()
            values: dict[str, Any] = {"state": DONE, "report": report, "progress": 1.0}
        except _Stopped:
            values = {"state": FAILED, "error": "the control role was stopped"}
        except PredisError as error:
            values = {"state": FAILED, "error": error.message}
        except Exception:
            log.exception("backtest %d failed", backtest)
            values = {"state": FAILED, "error": "an internal error; the server's log has it"}
        self._end(backtest, values)
        self._threads.pop(backtest, None)

    def _end(self, backtest: int, values: dict[str, Any]) -> None:
        ended_at = self._parts.clock.time_ns()
        try:
            self._parts.store.end(backtest, values={**values, "ended_at": ended_at})
        except PredisError as error:
            # The row ends all the same: nobody has worked on it for a while.
            log.warning("the end of backtest %d could not be written: %s", backtest, error)

    def _teller(self, backtest: int) -> Callable[[float], None]:
        """Writes progress down now and then, and stops what nobody wants any more."""
        clock = self._parts.clock
        told_at = clock.monotonic_s() - _TELL_S

        def told(progress: float) -> None:
            nonlocal told_at
            if self._closing.is_set():
                raise _Stopped
            if clock.monotonic_s() - told_at < _TELL_S:
                return
            told_at = clock.monotonic_s()
            if not self._parts.store.report_progress(backtest, progress=progress, now=clock.time_ns()):
                raise _Stopped

        return told
