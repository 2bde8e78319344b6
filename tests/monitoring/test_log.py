"""The prediction log: the files that the database lists hold every record once, as it was asked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from predis.clock import ManualClock
from predis.monitoring.ingest import Ingest
from predis.monitoring.log import DAY, LOG_CONSUMER, PredictionLog, column_of
from predis.monitoring.store import MonitoringStore
from predis.registry import Field, Signature, Version
from predis.registry.signature import PROBABILITY
from predis.state import Database, JournalWriter
from predis.state.records import BlockEncoder, More, Status
from tests.toys import ENDPOINT, INPUTS, SECOND, SIGNATURE, TENANT, record

AGE_S = 60.0
NOON = 1_700_049_600 * SECOND  # 2023-11-15T12:00:00Z


class Crash(Exception):
    """The process dies here."""


def version_of(number: int, signature: Signature = SIGNATURE) -> Version:
    return Version("default", "toy", number, "lightgbm", "", (), signature, {}, {}, 0, "test")


OTHER = Signature((Field("z", "FP64"), Field("w", "FP64")), (PROBABILITY,), "probability")


class World:
    def __init__(self, database: Database, home: Path, clock: ManualClock) -> None:
        self.database, self.clock, self.folder = database, clock, home / "log"
        self.store = MonitoringStore(database)
        self.journal = home / "journal"
        self.writer = JournalWriter(self.journal / "serving-0", segment_bytes=1 << 16)
        self.versions: dict[int, Version] = {1: version_of(1)}
        self.log = self.reopened()

    def reopened(self) -> PredictionLog:
        return PredictionLog(
            self.database,
            self.journal,
            folder=self.folder,
            version=lambda _tenant, _endpoint, *, number: self.versions.get(number),
            clock=self.clock,
            max_age_s=AGE_S,
        )

    def ingest(self) -> None:
        found = Ingest(self.database, self.journal, profile=lambda _t, _e, *, number: None, window_rows=1_000)
        while found.look():
            pass

    def append(self, count: int, *, prefix: str = "p", **other: Any) -> None:
        for place in range(count):
            self.writer.append(record(f"{prefix}{place}", **{"at": NOON, **other}))

    def listed(self) -> list[dict[str, Any]]:
        return self.store.log_files(TENANT, ENDPOINT)

    def on_disk(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def table(self, *fields: Field) -> pa.Table:
        return self.log.table(TENANT, ENDPOINT, columns=fields or INPUTS)

    def segments(self) -> list[int]:
        return sorted(int(path.stem) for path in self.writer.folder.glob("*.seg"))


@pytest.fixture
def world(database: Database, home: Path, clock: ManualClock) -> Iterator[World]:
    found = World(database, home, clock)
    yield found
    found.writer.close()


only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class TestWriting:
    def test_nothing_yet(self, world: World) -> None:
        assert world.log.look() == world.log.flush() == 0
        assert world.table().num_rows == 0
        assert world.table().column_names == ["id", "row", "version", "event_at", "score", "x", "z", "kind"]

    def test_rows_listed_are_rows_appended(self, world: World) -> None:
        sent = 0
        for count in (1, 40, 700):  # the last over several segments
            world.append(count, prefix=f"{sent}-")
            sent += count
            assert world.log.flush() == count
            assert sum(file["rows"] for file in world.listed()) == sent
        table = world.table()
        assert table.num_rows == len(set(table.column("id").to_pylist())) == sent
        for file in world.listed():
            path = world.folder / file["path"]
            assert (pq.read_metadata(path).num_rows, path.stat().st_size) == (
                file["rows"],
                file["size_bytes"],
            )

    def test_only_answers(self, world: World) -> None:
        world.append(3, prefix="ok")
        world.append(2, prefix="failed", status=Status.FAILED)
        world.append(2, prefix="rejected", status=Status.REJECTED)
        world.writer.append(b"no record")
        assert world.log.flush() == 8
        assert world.table().num_rows == 3
        totals = world.store.journal_totals(LOG_CONSUMER)
        assert totals == {"records": 8, "dropped": 0, "damaged": 1}

    def test_nothing_but_refusals_makes_no_file(self, world: World) -> None:
        world.append(2, status=Status.FAILED)
        assert world.log.flush() == 2
        assert (world.listed(), world.on_disk()) == ([], [])

    @only_sqlite
    def test_partitioned_by_endpoint_version_and_day(self, world: World) -> None:
        world.versions[2] = version_of(2)
        for place in range(12):
            event_at = NOON + (place // 6) * DAY
            world.append(1, prefix=f"{place}-", version=1 + place % 2, event_at=event_at)
        world.append(1, prefix="other", endpoint="elsewhere")
        world.log.flush()
        folders = {file["path"].rpartition("/")[0]: file["rows"] for file in world.listed()}
        assert folders == {
            f"default/{ENDPOINT}/version={version}/day={day}": 3
            for version in (1, 2)
            for day in ("2023-11-15", "2023-11-16")
        }
        assert {file["first_event"] for file in world.listed()} == {NOON, NOON + DAY}
        assert world.log.table(TENANT, "elsewhere", columns=()).num_rows == 1

    @only_sqlite
    def test_rows_of_a_request(self, world: World) -> None:
        features = [[1.0, 2.0, 0.0], [3.0, 4.0, 1.0]]
        world.writer.append(
            record("many", scores=[0.25, 0.75], features=features, at=NOON, event_at=NOON - 5)
        )
        world.log.flush()
        assert world.table().to_pydict() == {
            "id": ["many", "many"], "row": [0, 1], "version": [1, 1],
            "event_at": world.table().column("event_at").to_pylist(), "score": [0.25, 0.75], "x": [1.0, 3.0],
            "z": [2.0, 4.0], "kind": ["a", "b"],
        }  # fmt: skip
        assert world.table().column("event_at").cast(pa.int64()).to_pylist() == [NOON - 5] * 2

    @only_sqlite
    def test_a_score_that_is_no_number(self, world: World) -> None:
        world.writer.append(record("odd", scores=[np.nan, np.inf]))
        assert world.log.flush() == 1
        assert world.table().column("score").to_pylist() == [pytest.approx(np.nan, nan_ok=True), np.inf]


@only_sqlite
class TestColumns:
    def test_texts_come_back(self, world: World) -> None:
        """Levels by their codes, what no level is by its own text, and nothing where nothing was."""
        extra = orjson.dumps([[1, 2, "neu"], [3, 2, "ä\n"]])
        codes = np.array([[0, 0, 1], [0, 0, -1], [0, 0, np.nan], [0, 0, -1], [np.nan, 0, 0]], float)
        world.append(2, prefix="before")
        world.writer.append(record("a", scores=np.zeros(5), features=codes, at=NOON, extra=extra))
        world.append(1, prefix="after")
        world.log.flush()
        table = world.table()
        assert table.column("kind").to_pylist() == ["a", "a", "b", "neu", None, "ä\n", "a", "a"]
        assert table.column("x").to_pylist() == [0, 0, 0, 0, 0, 0, None, 0]

    def test_requests_answered_together(self, world: World) -> None:
        encoder = BlockEncoder(TENANT, ENDPOINT, version=1)
        for name in "ab":
            payload = encoder.encode(
                [f"{name}0", f"{name}1", f"{name}2"],
                [Status.OK, Status.FAILED, Status.OK],
                numbers=([2, 0, 1], [NOON, NOON + 1, NOON + 2], [NOON - 3, NOON, NOON], [5, 6, 7]),
                scores=np.array([0.25, 0.5, 0.75]),
                features=np.array([[1.0, 2.0, 0.0], [3.0, 4.0, -1.0], [5.0, 6.0, 1.0]]),
                more=More(extra=orjson.dumps([[1, 2, f"neu {name}"]])),
            )
            world.writer.append(payload, 3)
        assert world.log.flush() == 6
        table = world.table()
        assert table.column("id").to_pylist() == ["a0", "a0", "a2", "b0", "b0", "b2"]
        assert table.column("row").to_pylist() == [0, 1, 0] * 2
        assert table.column("score").to_pylist() == [0.25, 0.5, 0.75] * 2
        assert table.column("x").to_pylist() == [1.0, 3.0, 5.0] * 2
        assert table.column("kind").to_pylist() == ["a", "neu a", "b", "a", "neu b", "b"]
        events = table.column("event_at").cast(pa.int64()).to_pylist()
        assert events == [NOON - 3, NOON - 3, NOON] * 2

    def test_with_features_and_without(self, world: World) -> None:
        """Of one version in one batch: each has a file of its own."""
        world.append(2, prefix="with")
        world.append(3, prefix="without", scores=[0.5], features=np.empty((1, 0)))
        world.log.flush()
        assert sorted(file["rows"] for file in world.listed()) == [2, 3]
        assert world.table().num_rows == 5
        assert sorted(world.table().column("kind").to_pylist(), key=str) == [None] * 3 + ["a"] * 2

    def test_a_version_with_other_inputs_gives_nulls(self, world: World) -> None:
        world.versions[2] = version_of(2, OTHER)
        world.append(2, prefix="one", scores=[0.5], features=[[1.0, 2.0, 1.0]])
        world.append(1, prefix="two", scores=[0.5], features=[[7.0, 8.0]], version=2)
        world.log.flush()
        by_id = {row["id"]: row for row in world.table().to_pylist()}
        assert (by_id["one0"]["x"], by_id["one0"]["z"], by_id["one0"]["kind"]) == (1.0, 2.0, "b")
        assert (by_id["two0"]["x"], by_id["two0"]["z"], by_id["two0"]["kind"]) == (None, 7.0, None)
        both = world.table(*INPUTS, OTHER.inputs[1])
        assert {row["id"]: row["w"] for row in both.to_pylist()} == {"one0": None, "one1": None, "two0": 8.0}

    def test_an_unknown_version_or_shape_still_logs_the_scores(self, world: World) -> None:
        world.append(1, prefix="unknown", version=9)
        world.append(1, prefix="narrow", scores=[0.5], features=[[1.0]])
        world.log.flush()
        assert sorted(world.table().column("id").to_pylist()) == ["narrow0", "unknown0"]
        assert world.table().column("x").to_pylist() == [None, None]

    @pytest.mark.parametrize("name", ["score", "id", "row", "version", "event_at", "received_at", "day"])
    def test_an_input_may_be_called_like_a_column_of_the_log(self, world: World, name: str) -> None:
        signature = Signature((Field(name, "FP64"), Field("z", "FP64")), (PROBABILITY,), "probability")
        world.versions[1] = version_of(1, signature)
        world.writer.append(record("p", scores=[0.25], features=[[7.0, 8.0]], at=NOON))
        assert world.log.flush() == 1
        table = world.log.table(TENANT, ENDPOINT, columns=signature.inputs)
        assert table.select([column_of(name), "z", "id", "score"]).to_pylist() == [
            {column_of(name): 7.0, "z": 8.0, "id": "p", "score": 0.25}
        ]


class TestCrashes:
    def test_an_orphan_is_not_counted_and_is_replaced(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.append(30)

        def dies(*_arguments: Any, **_named: Any) -> None:
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(MonitoringStore, "move", dies)
            with pytest.raises(Crash):
                world.log.flush()
        (orphan,) = world.on_disk()
        assert pq.read_metadata(orphan).num_rows == 30
        assert (world.listed(), world.table().num_rows) == ([], 0)
        world.append(12, prefix="later")  # the next try takes more
        assert world.reopened().flush() == 42
        assert world.on_disk() == [orphan]
        assert [file["rows"] for file in world.listed()] == [42]
        assert world.table().num_rows == 42

    @only_sqlite
    def test_half_a_file_is_not_taken_for_one(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.append(5)

        def dies(_table: pa.Table, path: Path, **_named: Any) -> None:
            path.write_bytes(b"PAR1 half")
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(pq, "write_table", dies)
            with pytest.raises(Crash):
                world.log.flush()
        assert [path.suffix for path in world.on_disk()] == [".partial"]
        assert world.reopened().flush() == 5
        assert [path.suffix for path in world.on_disk()] == [".parquet"]

    def test_after_the_commit(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.append(30)
        real = world.database.write

        @contextlib.contextmanager
        def dying_write() -> Iterator[sa.Connection]:
            with real() as connection:
                yield connection
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(world.database, "write", dying_write)
            with pytest.raises(Crash):
                world.log.flush()
        assert world.reopened().flush() == 0
        assert world.table().num_rows == 30


@only_sqlite
class TestWhen:
    def test_waits_for_a_whole_segment(self, world: World) -> None:
        world.append(10)
        assert world.log.look() == 0
        world.append(600, prefix="more")  # of some 150 bytes: past 64 KiB
        assert len(world.segments()) > 1
        written = world.log.look()
        assert 10 < written < 610
        assert world.log.look() == 0
        assert world.table().num_rows == written

    def test_or_for_its_age(self, world: World) -> None:
        world.append(10)
        assert world.log.look() == 0
        world.clock.advance(AGE_S - 1)
        assert world.log.look() == 0
        world.clock.advance(2)
        assert world.log.look() == 10
        world.append(1, prefix="q")
        assert world.log.look() == 0
        world.clock.advance(AGE_S)
        assert world.log.look() == 1

    def test_a_restart_begins_the_wait_anew(self, world: World) -> None:
        world.append(10)
        world.log.look()
        world.clock.advance(AGE_S)
        again = world.reopened()
        assert again.look() == 0
        world.clock.advance(AGE_S)
        assert again.look() == 10


@only_sqlite
class TestForgetting:
    """A segment goes when both its readers are done with it."""

    def test_not_before_ingest_has_read_it(self, world: World) -> None:
        world.append(1_500)
        before = world.segments()
        assert len(before) > 2
        world.log.flush()
        assert world.segments() == before
        world.ingest()
        world.append(1, prefix="last")
        world.log.flush()
        assert world.segments() == before[-1:]
        assert world.store.all_counters(TENANT, ENDPOINT)[0]["rows"] == 1_500

    def test_not_before_the_log_has_read_it(self, world: World) -> None:
        world.append(1_500)
        before = world.segments()
        world.ingest()
        assert world.segments() == before
        world.log.look()  # whole segments only; the position is at the end of the last of them
        assert world.segments() == before[-2:]
        world.log.flush()
        assert world.segments() == before[-1:]
        assert world.table().num_rows == 1_500

    def test_the_newest_stays(self, world: World) -> None:
        world.append(5)
        world.ingest()
        world.log.flush()
        assert len(world.segments()) == 1


@only_sqlite
def test_old_files_are_forgotten_with_their_entries(world: World) -> None:
    world.append(10)
    world.log.flush()
    world.append(5, prefix="new")
    world.log.flush()
    files = sorted(world.log._folder.rglob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 2
    os.utime(files[0], ns=(1_000, 1_000))
    assert world.log.forget(before=2_000) == 1
    assert not files[0].exists()
    assert world.table().num_rows in (5, 10)
    assert world.log.forget(before=2_000) == 0
