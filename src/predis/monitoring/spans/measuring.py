"""How well a version did in each window by time, and in each level of its segments.

A window is measured when labels have come, and again when more have.

What is due stands in the database, so nothing is forgotten by a restart. A look measures some windows and no more, since intervals cost
some dozen evaluations each; a window is measured again at most once a minute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from predis.clock import NANOSECONDS, Clock
from predis.monitoring.spans.counting import WHOLE
from predis.monitoring.spans.store import SpanStore
from predis.monitoring.store import Key, Row
from predis.state.engine import Database

LEAST_LABELS = 50
MOST_LABELS = 20_000  # of a window: the newest
_WINDOWS_IN_LOOK = 20
_AGAIN_S = 60.0
Measured = Callable[..., tuple[str, dict[str, float | None]]]


class Measuring:
    """Counts labels in their windows, and measures these.

    Args:
        length_s: of a window.
        measured: (key of a version, scores, labels) to the kind of model and its measures.
    """

    def __init__(self, database: Database, clock: Clock, *, length_s: float, measured: Measured) -> None:
        self._database = database
        self._store = SpanStore(database)
        self._clock = clock
        self._length = round(length_s * NANOSECONDS)
        self._measured = measured

    def count(self, connection: Any, key: Key, *, labels: Iterable[Mapping[str, Any]]) -> None:
        """Labels that have met their predictions, in the transaction that says so. ``key``: tenant and endpoint."""
        found: Counter[tuple[int, int, int]] = Counter()
        for label in labels:
            start = label["received_at"] // self._length * self._length
            found.update((label["version"], number, start) for number in (WHOLE, *cells_of(label["cells"])))
        for version, some in groupby(sorted(found.items()), key=lambda item: item[0][0]):
            counts = [(number, start, count) for (_, number, start), count in some]
            self._store.add_matured(connection, {**key, "version": version}, counts=counts)

    def look(self, tenant: str, endpoint: str) -> int:
        """Measure some of the windows that are due; how many."""
        now = self._clock.time_ns()
        due = self._store.due(
            tenant, endpoint, least=LEAST_LABELS, before=now - round(_AGAIN_S * NANOSECONDS), limit=_WINDOWS_IN_LOOK
        )  # fmt: skip
        for (version, start, length), some in groupby(
            due, key=lambda row: (row["version"], row["start"], row["length"])
        ):
            key = {"tenant": tenant, "endpoint": endpoint, "version": version}
            rows = self._store.labels(key, since=start, until=start + length, limit=MOST_LABELS)
            for window in some:
                self._measure(
                    {**key, "number": window["number"], "start": start}, rows, window=window, now=now
                )
        return len(due)

    def _measure(self, key: Key, rows: Sequence[Any], *, window: Row, now: int) -> None:
        number = key["number"]
        mine = rows if number == WHOLE else [row for row in rows if number in cells_of(row.cells)]
        values: dict[str, Any] = {"measured": window["matured"], "measured_at": now}
        if len(mine) >= LEAST_LABELS:
            version = {name: key[name] for name in ("tenant", "endpoint", "version")}
            scores, labels, events, known = np.array([row[:4] for row in mine], np.float64).T
            task, found = self._measured(version, scores, labels=labels)
            age_s = float(np.median(known - events)) / NANOSECONDS
            values["measures"] = {"task": task, "label_age_s": age_s, **found}
        with self._database.write() as connection:
            self._store.put_measures(connection, key, values=values)


def cells_of(content: bytes | None) -> tuple[int, ...]:
    """The numbers of a row's levels."""
    return tuple(np.frombuffer(content, "<u2").tolist()) if content else ()
