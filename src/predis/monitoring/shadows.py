"""Copies of requests that a shadow scored, and the labels they meet.

A copy is compared with the answer that the client got for the same rows. Its label comes for that answer, and may be there before the copy
is taken in or long after. So a copy meets its label at two places: where copies are stored, those whose labels have met their answers
already; where labels meet their answers, those that were stored before. Both happen in transactions that take turns, so a label and a copy
meet exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from predis.monitoring.store import Key, MonitoringStore, Row, pack_scores, unpack_scores
from predis.state.records import Arm, Block


class Shadows:
    """Stores copies and their labels. Every method belongs to the caller's transaction, which has taken its turn."""

    def __init__(self, store: MonitoringStore) -> None:
        self._store = store

    def add(self, connection: Any, key: Key, *, block: Block) -> tuple[list[Row], int]:
        """Store the copies of a block of one shadow that are new: these, and how many scores the others have.

        ``key``: tenant, endpoint and version.
        """
        every = _copies(block)
        first = {row["id"]: row for row in reversed(every)}  # of a request that comes twice
        known = self._store.known_copies(connection, key, ids=first)
        new = [row for name, row in first.items() if name not in known]
        if new:
            self._store.add_copies(connection, key, rows=new)
        return new, score_count(every) - score_count(new)

    def meet_labels(self, connection: Any, key: Key, *, copies: Sequence[Row]) -> None:
        """Let copies that were just stored, and are counted, meet the labels that were there before them."""
        target = {name: key[name] for name in ("tenant", "endpoint")}
        labels = self._store.matched_labels(connection, target, ids=[copy["id"] for copy in copies])
        self._label(connection, key, pairs=list(_pairs(copies, labels)))

    def meet_copies(self, connection: Any, key: Key, *, labels: Sequence[Row]) -> None:
        """Let labels that have just met their answers meet the copies, too. ``key``: tenant and endpoint."""
        copies: dict[int, list[Row]] = {}
        for copy in self._store.copies(connection, key, ids={label["id"] for label in labels}):
            copies.setdefault(copy["version"], []).append(copy)
        for version, mine in copies.items():
            self._label(connection, {**key, "version": version}, pairs=list(_pairs(mine, labels)))

    def _label(self, connection: Any, key: Key, *, pairs: list[Row]) -> None:
        if not pairs:
            return
        arm = {**key, "arm": Arm.SHADOW}
        (counters,) = self._store.counters(connection, arm)  # they are written with the copies they count
        numbered = [{**pair, "number": counters["matured"] + place} for place, pair in enumerate(pairs)]
        self._store.add_shadow_labels(connection, key, rows=numbered)
        self._store.add_matured(connection, arm, count=len(pairs))


def score_count(copies: Sequence[Row]) -> int:
    """Scores of copies."""
    return sum(len(copy["scores"]) // 8 for copy in copies)


def comparable(block: Block) -> Any:
    """Which rows of a shadow's block have two scores that can be compared: bool[rows]."""
    if len(block.answers) != len(block.scores):
        return np.zeros(len(block.scores), np.bool_)
    return ~(np.isnan(block.scores) | np.isnan(block.answers))


def _copies(block: Block) -> list[Row]:
    """The requests of a shadow's block that can meet a label."""
    stops = np.cumsum(block.rows, dtype=np.int64)
    numbers = np.append(0, np.cumsum(comparable(block)))
    found = []
    for place in np.flatnonzero(numbers[stops] > numbers[stops - block.rows]).tolist():
        part = slice(int(stops[place] - block.rows[place]), int(stops[place]))
        found.append({
            "id": block.ids[place], "scores": pack_scores(block.scores[part]), "answers": pack_scores(block.answers[part]),
            "received_at": int(block.received_at[place]),
        })  # fmt: skip
    return found


def _pairs(copies: Sequence[Row], labels: Sequence[Row]) -> Iterator[Row]:
    """Rows of copies with their labels, in the order of the labels."""
    known = {copy["id"]: copy for copy in copies}
    for label in labels:
        copy = known.get(label["id"])
        if copy is None or label["row"] * 8 >= len(copy["scores"]):
            continue
        at = slice(label["row"] * 8, label["row"] * 8 + 8)
        score, answered = unpack_scores(copy["scores"][at] + copy["answers"][at])
        if score == score and answered == answered:  # neither is NaN
            yield {
                "id": label["id"], "row": label["row"], "score": score, "answered": answered,
                "label": label["label"], "value": label["value"], "received_at": copy["received_at"],
            }  # fmt: skip
