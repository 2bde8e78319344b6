"""Replays flights as they happened, only faster: a request when a flight is planned to leave, its label when it has landed.

The replay keeps the order of time in two ways. Requests go out in the order of departure, a few dozen at once, and a label is sent only
after everything that left before that landing has been asked for. Nothing is lost quietly: a request that fails for good is counted.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from predis.client import Client
from predis.demo.flights import CATEGORICALS, FEATURES
from predis.errors import PredisError, Unavailable

if TYPE_CHECKING:
    import pandas as pd

SENDERS = 3
BURST = 96
_SLOW_PAUSE_S = 0.25


@dataclass
class Progress:
    """What the replay has done so far. ``scores`` and ``versions`` are per flight; version 0 means not asked."""

    scores: np.ndarray[Any, np.dtype[np.float64]]
    versions: np.ndarray[Any, np.dtype[np.int32]]
    requests: int = 0
    failed: int = 0
    feedback_sent: int = 0
    labelled: int = 0
    problems: list[str] = field(default_factory=list)


class Features(Protocol):
    """Where features of flights are looked up."""

    def features(self, places: Sequence[int]) -> Sequence[Mapping[str, float | None]]:
        """Some features of each of these flights, by name; they take the place of the table's.

        Raises:
            Unavailable: they cannot be had.
        """


class Replay:
    """Flights in the order of time, as requests and feedback to one endpoint.

    Args:
        flights: as ``flights.load`` returns them; sorted by ``scheduled``.
        prefix: starts every prediction's id.
        lookups: where features are looked up before each request; None: all are the table's.
    """

    def __init__(
        self,
        client: Client,
        endpoint: str,
        *,
        flights: pd.DataFrame,
        prefix: str,
        lookups: Features | None = None,
    ) -> None:
        self._client = client
        self._lookups = lookups
        self._endpoint = endpoint
        self._prefix = prefix
        self._scheduled = flights["scheduled"].to_numpy().astype("datetime64[s]").astype(np.int64)
        self._landed = flights["landed"].to_numpy().astype("datetime64[s]").astype(np.int64)
        self._late = flights["late"].to_numpy()
        self._columns = _columns(flights)
        self._by_landing = np.argsort(self._landed, kind="stable")
        self.total = len(flights)
        self.progress = Progress(np.full(self.total, np.nan), np.zeros(self.total, np.int32))
        self.slow = threading.Event()

    def run(self, keep_going: Callable[[int], bool]) -> None:
        """Send flights until there are no more, or ``keep_going`` (asked with the number sent) says stop; then the last labels."""
        with ThreadPoolExecutor(SENDERS) as pool:
            at = self.progress.requests
            while at < self.total and keep_going(at):
                stop = min(self.total, at + BURST)
                list(pool.map(self._send_some, np.array_split(np.arange(at, stop), SENDERS)))
                at = stop
                self.progress.requests = at
                self._send_labels(until=self._scheduled[at - 1])
                if self.slow.is_set():
                    time.sleep(_SLOW_PAUSE_S)

    def moment(self) -> str:
        """The date and hour the replay has reached."""
        at = max(0, self.progress.requests - 1)
        return str(self._scheduled[at].astype("datetime64[s]"))[:16].replace("T", " ")

    def labels(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.asarray(self._late, np.float64)

    def _send_some(self, places: np.ndarray[Any, Any]) -> None:
        try:
            looked_up = self._lookups.features(places.tolist()) if self._lookups else [{}] * len(places)
        except Unavailable as error:
            self.progress.failed += len(places)
            self.progress.problems.append(f"{error.code}: {error}")
            return
        for place, known in zip(places.tolist(), looked_up, strict=True):
            try:
                answer = self._client.infer(self._endpoint, self._request(place, known))
            except PredisError as error:
                self.progress.failed += 1
                self.progress.problems.append(f"{error.code}: {error}")
                continue
            self.progress.scores[place] = answer.score
            self.progress.versions[place] = answer.version

    def _request(self, place: int, known: Mapping[str, float | None]) -> dict[str, Any]:
        inputs = [
            {"name": name, "datatype": datatype, "shape": [1], "data": [known.get(name, values[place])]}
            for name, datatype, values in self._columns
        ]
        moment = int(self._scheduled[place])
        return {"id": f"{self._prefix}-{place}", "parameters": {"event_time": moment}, "inputs": inputs}

    def _send_labels(self, *, until: int) -> None:
        """Feedback for everything that has landed by now and was answered."""
        first = self.progress.labelled
        landed = self._landed[self._by_landing]
        last = int(np.searchsorted(landed, until, side="right"))
        due = [int(p) for p in self._by_landing[first:last] if self.progress.versions[p] > 0]
        labels = [
            {"id": f"{self._prefix}-{p}", "label": int(self._late[p]), "event_time": int(self._landed[p])}
            for p in due
        ]
        if labels:
            self._client.feedback(self._endpoint, labels)
        self.progress.labelled = last
        self.progress.feedback_sent += len(labels)


def _columns(flights: pd.DataFrame) -> list[tuple[str, str, list[Any]]]:
    """Each feature's name, datatype and values as JSON knows them: text, number or null."""
    found: list[tuple[str, str, list[Any]]] = []
    for name in FEATURES:
        column = flights[name]
        if name in CATEGORICALS:
            found.append((name, "BYTES", column.tolist()))
        else:
            found.append((name, "FP64", [None if math.isnan(v) else v for v in column.tolist()]))
    return found
