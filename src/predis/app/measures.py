"""The numbers of the control role: what it read, what is wrong, and what ended."""

from __future__ import annotations

from predis.clock import Clock
from predis.events import Bus, RetrainingEnded, RolloutEnded
from predis.metrics import Counter, Metrics
from predis.monitoring.alerts import Severity
from predis.monitoring.ingest import CONSUMER
from predis.monitoring.store import MonitoringStore, Row
from predis.retraining.store import FINAL as RETRAINING_OUTCOMES
from predis.rollout.states import FINAL as ROLLOUT_ENDS


class ControlMetrics:
    """Counts what the bus tells of, and takes over from the database what is counted there (``look``)."""

    def __init__(self, metrics: Metrics, store: MonitoringStore, *, bus: Bus, clock: Clock) -> None:
        self._metrics = metrics
        self._store = store
        self._clock = clock
        self._caught_up_at = clock.monotonic_s()
        self._seen: dict[str, Row] | None = None  # the journal's streams as they were at the last look
        self._read = metrics.counter("predis_ingest_requests_total")
        self._lag = metrics.gauge("predis_ingest_lag_seconds")
        self._open = {
            severity.word: metrics.gauge("predis_alerts_open", severity=severity.word)
            for severity in Severity
        }
        # Made before anything ends: a rate needs the zero that it began at.
        for state in ROLLOUT_ENDS:
            metrics.counter("predis_rollouts_total", state=state)
        for outcome in RETRAINING_OUTCOMES:
            metrics.counter("predis_retrainings_total", outcome=outcome)
        bus.subscribe(RolloutEnded, self._rollout_ended)
        bus.subscribe(RetrainingEnded, self._retraining_ended)

    def caught_up(self) -> None:
        """All that the journal held has been read."""
        self._caught_up_at = self._clock.monotonic_s()

    def look(self) -> None:
        """Bring the numbers up to date. The lag first: it has to grow when the database does not answer."""
        self._lag.set(self._clock.monotonic_s() - self._caught_up_at)
        self._look_at_journal()
        open_alerts = [alert["severity"] for alert in self._store.open_alerts()]
        for severity, gauge in self._open.items():
            gauge.set(open_alerts.count(severity))

    def budgets(self, tenant: str, endpoint: str, *, levels: list[Row]) -> None:
        """What is left of an endpoint's error budgets, as ``ServiceLevels.shown`` tells it."""
        for level in levels:
            labels = {"tenant": tenant, "endpoint": endpoint, "objective": level["objective"]}
            self._metrics.gauge("predis_error_budget_left_ratio", **labels).set(level["budget_left"])

    def _look_at_journal(self) -> None:
        """Count on by what the totals in the database rose since the last look; a journal that began anew makes them fall."""
        rows = self._store.journal_streams(CONSUMER)
        if self._seen is None:  # of what came before this process, what its predecessor had no time to count
            self._read.advance(sum(row["records"] for row in rows))
            for row in rows:
                self._dropped(row).advance(row["dropped"])
        else:
            for row in rows:
                before = self._seen.get(row["stream"], {"records": 0, "dropped": 0})
                self._read.add(max(0, row["records"] - before["records"]))
                self._dropped(row).add(max(0, row["dropped"] - before["dropped"]))
        self._seen = {row["stream"]: row for row in rows}

    def _dropped(self, row: Row) -> Counter:
        return self._metrics.counter("predis_journal_dropped_total", stream=row["stream"])

    def _rollout_ended(self, event: RolloutEnded) -> None:
        self._metrics.counter("predis_rollouts_total", state=event.state).add()

    def _retraining_ended(self, event: RetrainingEnded) -> None:
        self._metrics.counter("predis_retrainings_total", outcome=event.outcome).add()
