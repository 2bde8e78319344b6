"""Feedback: the labels that arrive later, stored first and matched with their predictions afterwards.

A label is acknowledged once its transaction is durable, whether or not its prediction is known yet: the journal may be a moment
behind, the prediction may never come. The first label of a prediction stays; repeats are counted. Matching gives each label its
number in the order of arrival ("matured"), so that a performance window is a range of numbers and survives any restart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from predis.clock import Clock, parse_moment
from predis.errors import InvalidInput, TooLarge
from predis.monitoring.shadows import Shadows
from predis.monitoring.store import MonitoringStore
from predis.state.engine import Database
from predis.state.records import Arm
from predis.stats import binary_scores

MAX_LABELS = 10_000
_MATCH_ROWS = 20_000
_VALUE_MAX = 1e15


class Feedback:
    """Stores labels, matches them, and closes performance windows.

    Args:
        window_rows: matured labels in one performance window.
    """

    def __init__(self, database: Database, clock: Clock, *, window_rows: int) -> None:
        self._database = database
        self._store = MonitoringStore(database)
        self._shadows = Shadows(self._store)
        self._clock = clock
        self._window_rows = window_rows
        self._settled: set[tuple[str, str]] = set()

    def store(self, tenant: str, endpoint: str, *, labels: Sequence[Any]) -> dict[str, int]:
        """Make labels durable. All of them or, if one cannot be used, none.

        Args:
            labels: objects with ``id`` (the prediction's), ``label`` (0 or 1; true and false are the same), and if wanted
                ``row`` (of a request with several, from 0), ``event_time`` (when the label became known) and ``value`` (a
                finite number: what the case brought in or cost).

        Raises:
            InvalidInput: a label cannot be used; the message says which.
            TooLarge: more than ``MAX_LABELS`` at once.
        """
        if not isinstance(labels, list) or not labels:
            raise InvalidInput("'labels' must be a list of at least one label")
        if len(labels) > MAX_LABELS:
            raise TooLarge(f"{len(labels)} labels; send at most {MAX_LABELS} at once")
        now = self._clock.time_ns()
        rows = [_row(label, place, now=now) for place, label in enumerate(labels)]
        key = {"tenant": tenant, "endpoint": endpoint}
        with self._database.write() as connection:
            stored = self._store.add_feedback(connection, [{**key, **row} for row in rows])
            self._store.count_feedback(connection, key, received=len(rows), stored=stored)
        return {"received": len(rows), "stored": stored, "duplicates": len(rows) - stored}

    def mature(self) -> int:
        """Match what waits with predictions that are known, and close windows that are full; labels matched.

        The two are transactions of their own. What was matched but not closed, by this process or one that died, is closed next time.
        """
        total = 0
        for target in self._store.endpoints_with_feedback():
            matched = self._match(*target)
            if matched or target not in self._settled:
                self._settled.discard(target)
                self._close_windows(*target)
                self._settled.add(target)
            total += matched
        return total

    def _match(self, tenant: str, endpoint: str) -> int:
        with self._database.write() as connection:
            self._store.take_turn(connection)
            found = self._store.matches(connection, tenant, endpoint=endpoint, limit=_MATCH_ROWS)
            if not found:
                return 0
            key = {"tenant": tenant, "endpoint": endpoint}
            next_number = self._reserve(connection, key, found=found)
            for row in found:
                row["number"] = next_number[row["version"]]
                next_number[row["version"]] += 1
            self._store.set_labels(connection, key, rows=found)
            self._shadows.meet_copies(connection, key, labels=found)
        return len(found)

    def _reserve(
        self, connection: Any, key: dict[str, Any], *, found: Sequence[Mapping[str, Any]]
    ) -> dict[int, int]:
        """The next number of each version's labels; the counts that it comes from grow by what was found."""
        first = {}
        for version in sorted({row["version"] for row in found}):
            counted = {
                row["arm"]: row for row in self._store.counters(connection, {**key, "version": version})
            }
            counted.pop(Arm.SHADOW, None)
            matured = Counter(row["arm"] for row in found if row["version"] == version)
            if not matured.keys() <= counted.keys():  # counters are written with the predictions they count
                raise RuntimeError(f"version {version} of {key['endpoint']} has predictions but no counters")
            first[version] = sum(row["matured"] for row in counted.values())
            for arm, count in sorted(matured.items()):
                self._store.add_matured(connection, {**key, "version": version, "arm": arm}, count=count)
        return first

    def _close_windows(self, tenant: str, endpoint: str) -> None:
        for counters in self._store.all_counters(tenant, endpoint):
            key = {"tenant": tenant, "endpoint": endpoint, "version": counters["version"]}
            newest = self._store.performance(key, limit=1)
            number, start = (newest[0]["number"] + 1, newest[0]["stop"]) if newest else (1, 0)
            while counters["matured"] >= start + self._window_rows:
                stop = start + self._window_rows
                rows = self._store.matured(key, start=start, stop=stop)
                if (
                    rows
                ):  # they may have been forgotten, where nobody looked for longer than predictions are kept
                    self._close({**key, "number": number, "stop": stop}, rows)
                    number += 1
                start = stop

    def _close(self, key: dict[str, Any], rows: Sequence[Any]) -> None:
        """Store the window that these labels fill; ``key`` has its number and the number after its last label."""
        scores, labels, events, label_events = (
            np.array(column, np.float64) for column in zip(*rows, strict=True)
        )
        first_event, last_event = (
            int(min(row.event_at for row in rows)),
            int(max(row.event_at for row in rows)),
        )
        version = {name: key[name] for name in ("tenant", "endpoint", "version")}
        predicted = self._store.predictions_between(version, first=first_event, last=last_event)
        quality = binary_scores(scores, labels)
        row = {
            **key,
            "rows": len(rows),
            "positives": int(labels.sum()),
            "first_event": first_event,
            "last_event": last_event,
            "label_age_s": float(np.median(label_events - events)) / 1e9,
            "coverage": len(rows) / max(predicted, len(rows)),
            "scores": {name: _finite(value) for name, value in vars(quality).items()},
        }
        with self._database.write() as connection:
            self._store.add_performance(connection, row)


def _row(label: Any, place: int, *, now: int) -> dict[str, Any]:
    if not isinstance(label, dict):
        raise InvalidInput(f"labels[{place}] must be an object with 'id' and 'label'")
    prediction, row, value = label.get("id"), label.get("row", 0), label.get("label")
    if not isinstance(prediction, str) or not 0 < len(prediction) <= 128 or not prediction.isprintable():
        raise InvalidInput(f"labels[{place}].id must be the id of a prediction, got {prediction!r:.80}")
    if type(row) is not int or not 0 <= row < 2**31:
        raise InvalidInput(f"labels[{place}].row must be a row number from 0, got {row!r:.80}")
    if value not in (0, 1) or isinstance(value, str):
        raise InvalidInput(f"labels[{place}].label must be 0 or 1, got {value!r:.80}")
    worth = label.get("value")
    if worth is not None and not _is_amount(worth):
        raise InvalidInput(
            f"labels[{place}].value must be a finite number between -1e15 and 1e15, got {worth!r:.80}"
        )
    when = label.get("event_time")
    moment = now if when is None else parse_moment(when, where=f"labels[{place}].event_time")
    return {
        "id": prediction, "row": row, "label": float(value), "value": None if worth is None else float(worth), "event_at": moment,
        "received_at": now, "sequence": now + place, "matched": False,
    }  # fmt: skip


def _is_amount(value: Any) -> bool:
    """Whether it is a number that can be summed up and squared with others, which rules out NaN as well."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _VALUE_MAX


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
