"""A toy model, toy data and a toy installation, for the tests of what stands above the data plane.

The model (``toy_model``) is a row of LightGBM stumps on ONE column, written by hand: its score grows (or falls) with that column. The
data's label hangs on ``x`` or on ``z``; so which of two models is better is known beforehand, and nothing is ever trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from predis import settings as predis_settings
from predis.app.platform import Platform
from predis.clock import ManualClock
from predis.registry import Field, Registration, Signature
from predis.registry.columns import encode_table
from predis.registry.signature import PROBABILITY
from predis.rollout.controller import Order
from predis.rollout.store import Rollout
from predis.serving.inspect_child import Loaded
from predis.serving.store import Worker
from predis.state import Database, JournalWriter
from predis.state.records import Arm, BlockEncoder, More, Status
from tests.toy_model import booster, scores_of

TENANT, ENDPOINT, MODEL, LABEL = "default", "toy-endpoint", "toy-model", "label"
INPUTS = (Field("x", "FP64", nullable=True), Field("z", "FP64"), Field("kind", "BYTES", levels=("a", "b")))
SIGNATURE = Signature(INPUTS, (PROBABILITY,), "probability")
SECOND = 1_000_000_000


def table(rows: int, *, seed: int = 0, driver: str = "x", shift: float = 0.0) -> pa.Table:
    """Labelled examples. ``driver`` is the column the label hangs on, ``shift`` moves every number."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {name: rng.normal(size=rows) + shift for name in ("x", "z")}
    columns["kind"] = rng.choice(["a", "b"], size=rows)
    columns[LABEL] = (columns[driver] - shift + 0.8 * rng.normal(size=rows) > 0).astype(float)
    return pa.table(columns)


def parquet(found: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(found, sink)
    return sink.getvalue().to_pybytes()


def record(
    prediction: str,
    *,
    scores: Any = (0.5,),
    features: Any = None,
    version: int = 1,
    status: Status = Status.OK,
    at: int = 1_700_000_000 * SECOND,
    **other: Any,
) -> bytes:
    """One request's record for the journal. ``other``: endpoint, tenant, event_at, latency_us, arm, answers, extra."""
    values = np.asarray(scores if status is Status.OK else (), np.float64)
    matrix = np.zeros((len(values), 3)) if features is None else np.asarray(features, np.float64)
    if status is not Status.OK:
        matrix = np.empty((0, 0))
    encoder = BlockEncoder(other.get("tenant", TENANT), other.get("endpoint", ENDPOINT), version=version)
    return encoder.encode(
        [prediction],
        [status],
        numbers=([len(values)], [at], [other.get("event_at", at)], [other.get("latency_us", 1_000)]),
        scores=values,
        features=np.ascontiguousarray(matrix),
        more=More(
            bytes([other.get("arm", Arm.ORDINARY)]),
            np.asarray(other.get("answers", ()), np.float64),
            other.get("extra", b""),
        ),
    )


class Installation:
    """A control role without loops, and in place of the workers whatever the test says of them.

    Args:
        flags: settings, over the defaults.
    """

    def __init__(
        self, database: Database, home: Path, *, clock: ManualClock, flags: Mapping[str, Any]
    ) -> None:
        given = {
            "home": home, "state_url": database.url, "window_rows": 200, "label_window_rows": 200,
            "journal_segment_bytes": 1 << 20, **flags,
        }  # fmt: skip
        self.settings = predis_settings.load(given, environ={})
        self.clock = clock
        self.platform = Platform(self.settings, clock=clock, inspect=Loaded)
        self.journal = JournalWriter(
            self.settings.journal_folder / "serving-0", segment_bytes=self.settings.journal_segment_bytes
        )
        self._sent = 0

    def close(self) -> None:
        self.journal.close()
        self.platform.close()

    def register(self, column: str = "x", *, sign: float = 1.0, alias: str = "", data: bool = True) -> int:
        """A version of the toy model, and its number. ``data``: with reference, holdout and training set."""
        put = self.platform.artifacts.put
        training = put(parquet(table(2_000, seed=1))).digest if data else ""
        wanted = Registration(
            model=MODEL, format="lightgbm", files={"model.txt": put(booster(column, sign=sign)).digest}, signature=SIGNATURE,
            label=LABEL, reference=training, training=training,
            holdout=put(parquet(table(1_000, seed=2))).digest if data else "",
        )  # fmt: skip
        return self.platform.registry.register(TENANT, wanted, actor="test", alias=alias).number

    def create_endpoint(self, name: str = ENDPOINT, **config: Any) -> None:
        self.platform.endpoints.create(TENANT, name, model=MODEL, config=config, actor="test")

    def beat(self, worker: str = "serving-0", *, behind: int = 0, problem: str = "") -> None:
        """A worker says that it applies every Route, or one ``behind``, or that it has a ``problem`` with the newest."""
        applied, problems = {}, {}
        for endpoint in self.platform.endpoints.store.endpoints():
            name = f"{endpoint.tenant}/{endpoint.name}"
            applied[name] = endpoint.route - behind - bool(problem)
            if problem:
                problems[name] = {"route": endpoint.route, "code": "model_failure", "message": problem}
        now = self.clock.time_ns()
        self.platform.endpoints.store.beat(Worker(worker, 4_711, now, now, applied, problems))

    def start(self, version: int | str, *, endpoint: str = ENDPOINT, **plan: Any) -> Rollout:
        return self.platform.rollouts.start(TENANT, endpoint, order=Order(version, plan), actor="test")

    def deploy(self, version: int | str, *, endpoint: str = ENDPOINT) -> None:
        """Let a version answer everything, at once."""
        rollout = self.start(version, endpoint=endpoint, strategy="direct")
        self.beat()
        self.platform.rollouts.tick()
        assert self.platform.rollouts.get(TENANT, rollout.id).state == "promoted"
        self.beat()

    def route(self, endpoint: str = ENDPOINT) -> dict[int, float]:
        endpoints = self.platform.endpoints
        return dict(endpoints.current_route(endpoints.get(TENANT, endpoint)).weights)

    def send(
        self, found: pa.Table, *, version: int, column: str = "x", prefix: str = "", **other: Any
    ) -> list[str]:
        """Predictions of one-row requests for a table, into the journal; their ids. ``other``: as of ``record``, and sign."""
        features = encode_table(found, INPUTS)
        scores = scores_of(features[:, [f.name for f in INPUTS].index(column)], sign=other.pop("sign", 1.0))
        ids = []
        for place in range(found.num_rows):
            ids.append(f"{prefix or 'p'}-{self._sent}")
            self._sent += 1
            given = {"at": self.clock.time_ns() + place, **other}
            payload = record(
                ids[-1],
                scores=scores[place : place + 1],
                features=features[place : place + 1],
                version=version,
                **given,
            )
            assert self.journal.append(payload)
        return ids

    def copy(self, ids: list[str], found: pa.Table, *, version: int) -> None:
        """What a shadow made of copies of these requests, which version 1's column answered."""
        features = encode_table(found, INPUTS)
        answers, scores = scores_of(features[:, 0]), scores_of(features[:, 0], sign=-1.0)
        for place, known in enumerate(ids):
            row = slice(place, place + 1)
            self.journal.append(
                record(
                    known, scores=scores[row], features=features[row], version=version, arm=Arm.SHADOW, answers=answers[row],
                    at=self.clock.time_ns() + place,
                )
            )  # fmt: skip

    def label(self, ids: list[str], found: pa.Table, *, endpoint: str = ENDPOINT) -> None:
        labels = found.column(LABEL).to_pylist()
        sent = [{"id": known, "label": label} for known, label in zip(ids, labels, strict=True)]
        self.platform.feedback.store(TENANT, endpoint, labels=sent)

    def digest(self) -> None:
        """Read the journal, match the labels, look at everything: what the loops do."""
        while self.platform.ingest.look():
            pass
        while self.platform.feedback.mature():
            pass
        self.platform.monitor.look()

    def observe(self, found: pa.Table, *, version: int, column: str = "x", **other: Any) -> None:
        """Send, label and digest a table."""
        self.label(self.send(found, version=version, column=column, **other), found)
        self.digest()


@contextlib.contextmanager
def installed(database: Database, home: Path, clock: ManualClock, **flags: Any) -> Iterator[Installation]:
    found = Installation(database, home, clock=clock, flags=flags)
    try:
        yield found
    finally:
        found.close()
