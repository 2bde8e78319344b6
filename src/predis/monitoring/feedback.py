"""Feedback: the labels that arrive later, stored first and matched with their predictions afterwards.

A label is acknowledged once its transaction is durable, whether or not its prediction is known yet: the journal may be a moment
behind, the prediction may never come. The first label of a prediction stays; repeats are counted. Matching gives each label its
number in the order of arrival ("matured"), so that a performance window is a range of numbers and survives any restart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from predis.clock import Clock, parse_moment
from predis.errors import InvalidInput, TooLarge
from predis.monitoring.shadows import Shadows
from predis.monitoring.spans.measuring import Measuring
from predis.monitoring.store import MonitoringStore
from predis.registry.signature import Signature
from predis.state.engine import Database
from predis.state.records import Arm
from predis.stats import Calibration, Task, expected_binary, performance

MAX_LABELS = 10_000
_MATCH_ROWS = 20_000
_VALUE_MAX = 1e15


class Models(Protocol):
    """What is known of the models behind an endpoint."""

    def signature(self, tenant: str, endpoint: str, *, number: int | None = None) -> Signature | None:
        """Of a version; of the one that answers most, where none is named. None where it is not known."""

    def calibration(self, tenant: str, endpoint: str, *, number: int) -> Calibration | None:
        """What a version's scores are worth; None where nobody measured it."""


class Feedback:
    """Stores labels, matches them, and closes performance windows.

    Args:
        window_rows: matured labels in one performance window.
        span_s: length of a window by time.
        models: tells what a label may be; without it every model is a binary classifier.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        window_rows: int,
        span_s: float = 3_600.0,
        models: Models | None = None,
    ) -> None:
        self._models = models
        self._database = database
        self._store = MonitoringStore(database)
        self._shadows = Shadows(self._store)
        self._clock = clock
        self._window_rows = window_rows
        self._settled: set[tuple[str, str]] = set()
        self._spans = Measuring(database, clock, length_s=span_s, measured=self._measured)

    def store(self, tenant: str, endpoint: str, *, labels: Sequence[Any]) -> dict[str, int]:
        """Make labels durable. All of them or, if one cannot be used, none.

        Args:
            labels: objects with ``id`` (the prediction's), ``label`` (0 or 1, true and false are the same; of a regressor a finite number;
                of a classifier of more classes the name of one, or its number), and if wanted ``row`` (of a request with several, from 0),
                ``event_time`` (when the label became known) and ``value`` (a finite number: what the case brought in or cost).

        Raises:
            InvalidInput: a label cannot be used; the message says which.
            TooLarge: more than ``MAX_LABELS`` at once.
        """
        if not isinstance(labels, list) or not labels:
            raise InvalidInput("'labels' must be a list of at least one label")
        if len(labels) > MAX_LABELS:
            raise TooLarge(f"{len(labels)} labels; send at most {MAX_LABELS} at once")
        now = self._clock.time_ns()
        signature = self._models.signature(tenant, endpoint) if self._models else None
        read = _reader(signature)
        rows = [_row(label, place, now=now, read=read) for place, label in enumerate(labels)]
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
            self._spans.look(*target)
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
            self._spans.count(connection, key, labels=found)
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
        task, scored = self._measured(key, scores, labels=labels)
        early = int(np.count_nonzero(label_events < events))  # somebody's clock jumped
        row = {
            **key,
            "rows": len(rows),
            "task": task,
            "positives": int(labels.sum()) if task == "binary" else 0,
            "first_event": first_event,
            "last_event": last_event,
            "closed_at": self._clock.time_ns(),
            "label_age_s": float(np.median(label_events - events)) / 1e9,
            "coverage": len(rows) / max(predicted, len(rows)),
            "early_labels": early,
            "scores": scored,
        }
        with self._database.write() as connection:
            self._store.add_performance(connection, row)

    def _measured(
        self, key: Mapping[str, Any], scores: Any, *, labels: Any
    ) -> tuple[Task, dict[str, float | None]]:
        """The measures of some rows of a version, and what would have been expected of the same rows without their labels."""
        task, found = self._known_measures(key, scores, labels=labels)
        return task, {name: _finite(value) for name, value in found.items()}

    def _known_measures(
        self, key: Mapping[str, Any], scores: Any, *, labels: Any
    ) -> tuple[Task, dict[str, float]]:
        if self._models is None:
            return "binary", performance("binary", scores, label=labels)
        known = self._models.signature(key["tenant"], key["endpoint"], number=key["version"])
        binary = bool(np.isin(labels, (0.0, 1.0)).all())
        task: Task = (known.task if known else None) or ("binary" if binary else "regression")
        if task == "binary" and not binary:  # they were taken when another kind of model answered
            return "regression", performance("regression", scores, label=labels)
        found = performance(task, scores, label=labels, classes=len(known.classes) if known else 0)
        calibration = self._models.calibration(key["tenant"], key["endpoint"], number=key["version"])
        if task == "binary" and calibration is not None:
            found |= {
                f"estimated_{name}": value for name, value in expected_binary(scores, calibration).items()
            }
        return task, found


Read = Callable[[Any, str], float]


def _reader(signature: Signature | None) -> Read:
    """How labels of a kind of model become numbers; what cannot be one raises ``InvalidInput``."""
    task = signature.task if signature else "binary"
    classes = {name: float(place) for place, name in enumerate(signature.classes)} if signature else {}

    def read(value: Any, where: str) -> float:
        if isinstance(value, str) and value in classes:
            return classes[value]
        if task == "multiclass" or (classes and isinstance(value, str)):
            if type(value) is int and 0 <= value < len(classes):
                return float(value)
            raise InvalidInput(
                f"{where} must be one of {', '.join(classes)}, or its number, got {value!r:.80}"
            )
        if task == "binary":
            if value not in (0, 1) or isinstance(value, str):
                raise InvalidInput(f"{where} must be 0 or 1, got {value!r:.80}")
            return float(value)
        if isinstance(value, bool) and task is None:
            return float(value)
        if not _is_amount(value):
            raise InvalidInput(f"{where} must be a finite number between -1e15 and 1e15, got {value!r:.80}")
        return float(value)

    return read


def _row(label: Any, place: int, *, now: int, read: Read) -> dict[str, Any]:
    if not isinstance(label, dict):
        raise InvalidInput(f"labels[{place}] must be an object with 'id' and 'label'")
    prediction, row, value = label.get("id"), label.get("row", 0), label.get("label")
    if not isinstance(prediction, str) or not 0 < len(prediction) <= 128 or not prediction.isprintable():
        raise InvalidInput(f"labels[{place}].id must be the id of a prediction, got {prediction!r:.80}")
    if type(row) is not int or not 0 <= row < 2**31:
        raise InvalidInput(f"labels[{place}].row must be a row number from 0, got {row!r:.80}")
    label_value = read(value, f"labels[{place}].label")
    worth = label.get("value")
    if worth is not None and not _is_amount(worth):
        raise InvalidInput(
            f"labels[{place}].value must be a finite number between -1e15 and 1e15, got {worth!r:.80}"
        )
    when = label.get("event_time")
    moment = now if when is None else parse_moment(when, where=f"labels[{place}].event_time")
    return {
        "id": prediction, "row": row, "label": label_value, "value": None if worth is None else float(worth), "event_at": moment,
        "received_at": now, "sequence": now + place, "matched": False,
    }  # fmt: skip


def _is_amount(value: Any) -> bool:
    """Whether it is a number that can be summed up and squared with others, which rules out NaN as well."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _VALUE_MAX


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
