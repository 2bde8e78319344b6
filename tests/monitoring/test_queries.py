"""SQL over the prediction log: what it answers, and everything that it must not be able to do."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predis.clock import ManualClock
from predis.errors import DeadlineExceeded, InvalidInput
from predis.monitoring import queries
from predis.monitoring.feedback import Feedback
from predis.monitoring.ingest import Ingest
from predis.monitoring.log import PredictionLog
from predis.monitoring.queries import Bounds, Queries
from predis.state import Database, JournalWriter
from predis.state.records import Arm
from tests.toys import ENDPOINT, TENANT, record

pytest.importorskip("duckdb")
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class World:
    """Two tenants' predictions."""

    def __init__(self, database: Database, home: Path, clock: ManualClock) -> None:
        self.database, self.home, self.clock = database, home, clock
        journal = home / "journal"
        writer = JournalWriter(journal / "serving-0")
        for place in range(6):
            writer.append(record(f"p{place}", scores=[place / 10], version=1 + place % 2, at=clock.time_ns()))
        writer.append(
            record("p0", scores=[0.9], version=3, arm=Arm.SHADOW, answers=[0.0], at=clock.time_ns())
        )
        writer.append(record("s1", scores=[0.5], tenant="rival", endpoint="secret", at=clock.time_ns()))
        writer.close()
        Ingest(database, journal, profile=lambda _t, _e, *, number: None, window_rows=100).catch_up()
        log = PredictionLog(
            database, journal, folder=home / "log", version=lambda _t, _e, *, number: None, clock=clock
        )
        log.flush()
        feedback = Feedback(database, clock, window_rows=100)
        feedback.store(TENANT, ENDPOINT, labels=[{"id": "p1", "label": 1}, {"id": "p2", "label": 0}])
        feedback.mature()

    def ask(self, sql: str, *, tenant: str = TENANT, **other: Any) -> dict[str, Any]:
        bounds = other.pop("bounds", None)
        asked = Queries(self.database, self.home / "log", take_in=lambda: None, bounds=bounds)
        return asked.run(tenant, sql, **other)


@pytest.fixture
def world(database: Database, home: Path, clock: ManualClock) -> World:
    return World(database, home, clock)


class TestAnswers:
    def test_counts(self, world: World) -> None:
        found = world.ask("select version, count(*) as n from predictions group by 1 order by 1;")
        assert [column["name"] for column in found["columns"]] == ["version", "n"]
        assert found["rows"] == [[1, 3], [2, 3]]
        assert not found["truncated"]

    def test_an_endpoint_and_its_labels(self, world: World) -> None:
        sql = f'select id, score, label from "{ENDPOINT}" join labels using (endpoint, id, row) order by 1'
        assert world.ask(sql)["rows"] == [["p1", 0.1, 1.0], ["p2", 0.2, 0.0]]

    def test_shadows_are_apart(self, world: World) -> None:
        assert world.ask("select id, version from shadows")["rows"] == [["p0", 3]]

    def test_moments(self, world: World) -> None:
        ((moment,),) = world.ask("select max(event_at) from predictions")["rows"]
        assert moment.endswith("+00:00")

    @pytest.mark.parametrize(
        "sql",
        [
            "select count(*) from predictions where event_at <= now() and received_at > now() - interval 100 years",
            f'select count(*) from "{ENDPOINT}" where event_at <= now()',
            "select count(*) from labels where label_event_at <= now() + interval 100 years",
        ],
    )
    def test_moments_compare_with_now(self, world: World, sql: str) -> None:
        assert world.ask(sql)["rows"] != [[0]]

    def test_values_that_json_lacks(self, world: World) -> None:
        sql = "select 'nan'::double, 1.5::decimal(4, 2), [1, 2], {'a': 'inf'::float}, 'x'::blob"
        assert world.ask(sql)["rows"] == [[None, 1.5, [1, 2], {"a": None}, "b'x'"]]

    def test_files(self, world: World) -> None:
        found = world.ask("select id from predictions order by 1", format="csv")
        assert base64.b64decode(found["content"]).decode().splitlines()[:2] == ['"id"', '"p0"']
        found = world.ask("select id from predictions", format="parquet")
        assert (
            pq.read_table(pa.BufferReader(base64.b64decode(found["content"]))).num_rows == found["rows"] == 6
        )

    def test_too_many_rows(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(queries, "SHOWN_ROWS", 4)
        found = world.ask("select id from predictions")
        assert (len(found["rows"]), found["truncated"]) == (4, True)

    def test_nothing_yet(self, world: World) -> None:
        assert world.ask("select count(*) from predictions", tenant="new")["rows"] == [[0]]
        assert world.ask("select * from labels", tenant="new")["rows"] == []

    def test_a_file_that_is_gone(self, world: World) -> None:
        for path in (world.home / "log").rglob("*.parquet"):
            path.unlink()
        assert world.ask("select count(*) from predictions")["rows"] == [[0]]


class TestBounds:
    def test_others_rows(self, world: World) -> None:
        assert world.ask("select id from predictions", tenant="rival")["rows"] == [["s1"]]
        with pytest.raises(InvalidInput, match="DuckDB says"):
            world.ask("select * from secret")

    @pytest.mark.parametrize(
        "sql",
        [
            "drop view predictions", "create table t as select 1", "select 1; select 2", "", "set memory_limit = '9GB'",
            "copy predictions to 'x.parquet'", "attach 'x.db'", "pragma database_list", "install httpfs", "load httpfs", "call pragma_version()",
            "insert into predictions values (1)", "x" * 30_000,
        ],
    )  # fmt: skip
    def test_only_one_select(self, world: World, sql: str) -> None:
        with pytest.raises(InvalidInput):
            world.ask(sql)

    @pytest.mark.parametrize(
        "sql",
        [
            "select * from read_text('{other}')", "select * from read_parquet('{other}')", "select * from '{other}'",
            "select * from glob('{folder}/*')", "select * from read_csv('/etc/passwd')", "select * from 'https://example.com/x.parquet'",
            "select * from read_parquet('{folder}/**/*.parquet')", "from query('copy (select 1) to ''x.csv''')", "select getenv('HOME')",
            "select * from world", "select * from files",
        ],
    )  # fmt: skip
    def test_no_other_file(self, world: World, sql: str) -> None:
        (other,) = (world.home / "log" / "rival").rglob("*.parquet")
        with pytest.raises(InvalidInput, match="DuckDB says"):
            world.ask(sql.format(other=other, folder=world.home / "log"))

    def test_time(self, world: World) -> None:
        endless = "select count(*) from range(1000000) a, range(1000000) b where a.range % 7 = b.range % 3"
        with pytest.raises(DeadlineExceeded, match="took longer than"):
            world.ask(endless, bounds=Bounds(timeout_s=0.2))

    def test_memory(self, world: World) -> None:
        with pytest.raises(InvalidInput, match="memory"):
            world.ask("select list(a.range) from range(50000000) a", bounds=Bounds(memory_bytes=32 << 20))

    def test_format(self, world: World) -> None:
        with pytest.raises(InvalidInput, match="format is one of"):
            world.ask("select 1", format="xml")
