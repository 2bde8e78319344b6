"""The rows of backtests, and what they read of others: the log's files, labels, and the baseline's counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from predis.clock import iso
from predis.errors import Conflict
from predis.state.engine import Database
from predis.state.records import Arm
from predis.state.schema import backtests, counters, feedback, log_files

RUNNING, DONE, FAILED, CANCELLED = "running", "done", "failed", "cancelled"
_IDS = 500  # in one statement


@dataclass(frozen=True)
class BacktestRow:
    """One backtest. ``asked`` is the request, ``report`` what was found, ``progress`` 0 to 1. Moments are nanoseconds."""

    id: int
    tenant: str
    endpoint: str
    candidate: int
    state: str
    progress: float
    asked: dict[str, Any]
    report: dict[str, Any] | None
    error: str
    created_at: int
    seen_at: int
    ended_at: int | None
    created_by: str

    def to_dict(self, *, whole: bool = True) -> dict[str, Any]:
        hidden = {"tenant", "seen_at"} | (set() if whole else {"report"})
        shown = {name: value for name, value in vars(self).items() if name not in hidden}
        return {**shown, "created_at": iso(self.created_at), "ended_at": iso(self.ended_at)}


@dataclass(frozen=True)
class Counted:
    """What a version did so far: requests, failed and refused ones, and latencies in the buckets of ``stats.latency``."""

    requests: int
    failed: int
    latency: NDArray[np.int64]


class BacktestStore:
    """Reads and writes backtests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, row: dict[str, Any], *, alive_since: int, noted: Callable[[sa.Connection, int], None]
    ) -> int:
        """Make a row, unless the endpoint has one that runs. One that nobody has worked on since ``alive_since`` has ended by that.

        ``noted`` is called with its number, in the transaction that makes it.

        Raises:
            Conflict: another one runs.
        """
        key = {"tenant": row["tenant"], "endpoint": row["endpoint"], "state": RUNNING}
        with self._database.write() as connection:
            gone = {
                "state": FAILED,
                "ended_at": row["created_at"],
                "error": "the control role that ran it ended",
            }
            connection.execute(
                backtests.update().filter_by(**key).where(backtests.c.seen_at < alive_since).values(**gone)
            )
            running = connection.execute(
                sa.select(backtests.c.id, backtests.c.candidate).filter_by(**key)
            ).first()
            if running is None:
                try:
                    with connection.begin_nested():
                        made = backtests.insert().values(**row).returning(backtests.c.id)
                        number = int(connection.execute(made).scalar_one())
                    noted(connection, number)
                    return number
                except (
                    sa.exc.IntegrityError
                ):  # another control took the place between the look and the insert
                    running = None
        which = f"backtest {running.id} of version {running.candidate}" if running else "another backtest"
        raise Conflict(
            f"{which} runs on endpoint {row['endpoint']!r}; wait for it, or cancel it: predis rollout backtest {row['endpoint']} --cancel"
        )

    def expire(self, tenant: str, endpoint: str, *, alive_since: int, now: int) -> None:
        """End what nobody has worked on since a moment."""
        gone = {"state": FAILED, "ended_at": now, "error": "the control role that ran it ended"}
        statement = backtests.update().filter_by(tenant=tenant, endpoint=endpoint, state=RUNNING)
        with self._database.write() as connection:
            connection.execute(statement.where(backtests.c.seen_at < alive_since).values(**gone))

    def report_progress(self, backtest: int, *, progress: float, now: int) -> bool:
        """Note how far it is; False where it is not to go on."""
        return self._change(backtest, {"progress": progress, "seen_at": now})

    def end(self, backtest: int, *, values: dict[str, Any]) -> bool:
        """Write the end of one that runs; False where it had ended before."""
        return self._change(backtest, values)

    def backtest(self, tenant: str, backtest: int) -> BacktestRow | None:
        with self._database.read() as connection:
            row = connection.execute(sa.select(backtests).filter_by(tenant=tenant, id=backtest)).one_or_none()
        return BacktestRow(**row._mapping) if row else None

    def backtests(self, tenant: str, *, endpoint: str | None, limit: int = 50) -> list[BacktestRow]:
        """Newest first."""
        statement = sa.select(backtests).filter_by(tenant=tenant).order_by(backtests.c.id.desc()).limit(limit)
        if endpoint is not None:
            statement = statement.filter_by(endpoint=endpoint)
        with self._database.read() as connection:
            return [BacktestRow(**row._mapping) for row in connection.execute(statement)]

    def log_files(self, tenant: str, endpoint: str) -> list[dict[str, Any]]:
        """The prediction log's files, in the order of time."""
        statement = sa.select(log_files.c.path, log_files.c.version, log_files.c.rows)
        statement = statement.filter_by(tenant=tenant, endpoint=endpoint).order_by(log_files.c.first_event)
        with self._database.read() as connection:
            return [dict(row._mapping) for row in connection.execute(statement)]

    def labels(
        self, tenant: str, endpoint: str, *, ids: Sequence[str]
    ) -> dict[tuple[str, int], tuple[float, int]]:
        """Labels by prediction id and row, each with the moment at which it was known."""
        c = feedback.c
        found = {}
        with self._database.read() as connection:
            for at in range(0, len(ids), _IDS):
                statement = sa.select(c.id, c.row, c.label, c.event_at).filter_by(
                    tenant=tenant, endpoint=endpoint
                )
                for row in connection.execute(statement.where(c.id.in_(ids[at : at + _IDS]))):
                    found[row.id, row.row] = (row.label, row.event_at)
        return found

    def counted(self, tenant: str, endpoint: str, *, version: int) -> Counted | None:
        """What a version answered so far, and refused; without what it did as a shadow. None where it did nothing."""
        c = counters.c
        statement = sa.select(c.requests, (c.failed + c.rejected).label("failed"), c.latency)
        with self._database.read() as connection:
            rows = connection.execute(
                statement.filter_by(tenant=tenant, endpoint=endpoint, version=version).where(
                    c.arm != Arm.SHADOW
                )
            ).all()
        if not sum(row.requests for row in rows):
            return None
        latency = np.sum([np.frombuffer(row.latency, "<i8") for row in rows], axis=0)
        return Counted(sum(row.requests for row in rows), sum(row.failed for row in rows), latency)

    def _change(self, backtest: int, values: dict[str, Any]) -> bool:
        statement = backtests.update().filter_by(id=backtest, state=RUNNING).values(**values)
        with self._database.write() as connection:
            return connection.execute(statement).rowcount == 1
