"""An endpoint with answers, shadow copies and labels, and no control role around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from predis.clock import ManualClock
from predis.monitoring.feedback import Feedback
from predis.monitoring.ingest import Ingest
from predis.monitoring.store import MonitoringStore, Row
from predis.state import Database, JournalWriter
from predis.state.records import Arm
from predis.state.schema import shadow_labels
from tests.toys import ENDPOINT, TENANT, record

TARGET = {"tenant": TENANT, "endpoint": ENDPOINT}
BASELINE, CANDIDATE = 1, 2


class World:
    """Each look and each matching is by a new object: nothing may hang on what a process remembers."""

    def __init__(self, database: Database, home: Path, clock: ManualClock) -> None:
        self.database, self.clock, self.journal = database, clock, home / "journal"
        self.store = MonitoringStore(database)
        self.writer = JournalWriter(self.journal / "serving-0")

    def ingest(self) -> Ingest:
        return Ingest(self.database, self.journal, profile=lambda _t, _e, *, number: None, window_rows=100)

    def feedback(self) -> Feedback:
        return Feedback(self.database, self.clock, window_rows=100)

    def answer(self, *ids: str, version: int = BASELINE, **other: Any) -> None:
        """Requests that a version answered, still in the journal. ``other``: as of ``record``."""
        for name in ids:
            self.writer.append(record(name, version=version, **{"at": self.clock.time_ns(), **other}))

    def copy(
        self, *ids: str, scores: Any = (0.5,), answers: Any = (0.5,), version: int = CANDIDATE, **other: Any
    ) -> None:
        """Copies of requests that a shadow scored, still in the journal."""
        given = {"at": self.clock.time_ns(), "arm": Arm.SHADOW, **other}
        for name in ids:
            self.writer.append(record(name, version=version, scores=scores, answers=answers, **given))

    def label(self, *ids: str, label: int = 1, **other: Any) -> None:
        labels = [{"id": name, "label": label, **other} for name in ids]
        self.feedback().store(TENANT, ENDPOINT, labels=labels)

    def look(self) -> int:
        return self.ingest().catch_up()

    def mature(self) -> int:
        return self.feedback().mature()

    def digest(self) -> None:
        self.look()
        self.mature()

    def counters(self, version: int, arm: Arm) -> Row:
        """Those of one arm; {} where nothing came that way."""
        rows = self.store.counters_by_arm(TENANT, ENDPOINT)
        return next((row for row in rows if (row["version"], row["arm"]) == (version, arm)), {})

    def shadow_labels(self, version: int = CANDIDATE) -> list[Row]:
        """Copies that met their label, by number."""
        statement = sa.select(shadow_labels).filter_by(version=version).order_by(shadow_labels.c.number)
        with self.database.read() as connection:
            return [dict(row._mapping) for row in connection.execute(statement)]
