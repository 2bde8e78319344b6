"""Ingest: whatever happens in between, what is counted is what was recorded, once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from predis.clock import ManualClock
from predis.monitoring.feedback import Feedback
from predis.monitoring.ingest import CONSUMER, Ingest
from predis.monitoring.store import MonitoringStore, unpack_counts, unpack_scores
from predis.monitoring.tally import SLOT, split_features
from predis.state import Database, JournalReader, JournalWriter
from predis.state.journal import Position, streams
from predis.state.records import BlockEncoder, Status
from predis.state.schema import counters as counters_table
from predis.state.schema import journal_positions, predictions, traffic, windows
from predis.stats import Profile, build_profile
from tests import toys
from tests.toys import ENDPOINT, SECOND, TENANT, record

KEY = {"tenant": TENANT, "endpoint": ENDPOINT, "version": 1}
WINDOW = 100
COLUMNS = ("x", "z", "kind")


only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class Crash(Exception):
    """The process dies here."""


def profile_of(rows: int = 1_000) -> Profile:
    rng = np.random.default_rng(5)
    matrix = np.column_stack([rng.normal(size=(rows, 2)), rng.integers(0, 2, rows)])
    return build_profile(
        matrix, names=COLUMNS, levels={"kind": ("a", "b")}, scores=rng.random(rows), labels=None
    )


PROFILE = profile_of()


def ingest(database: Database, home: Path, *, profile: Profile | None = PROFILE) -> Ingest:
    return Ingest(
        database,
        home / "journal",
        profile=lambda _tenant, _endpoint, *, number: profile if number == 1 else None,
        window_rows=WINDOW,
    )


@pytest.fixture
def journal(home: Path) -> Iterator[JournalWriter]:
    writer = JournalWriter(home / "journal" / "serving-0", segment_bytes=1 << 16)
    yield writer
    writer.close()


def drain(found: Ingest) -> int:
    total = 0
    while taken := found.look():
        total += taken
    return total


def counters(database: Database, version: int = 1) -> dict[str, Any]:
    found = [r for r in MonitoringStore(database).all_counters(TENANT, ENDPOINT) if r["version"] == version]
    return found[0] if found else {}


def all_windows(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(sa.select(windows).order_by(windows.c.version, windows.c.number)))


def stored(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(predictions)).scalar_one())


def assert_everything_counted(database: Database, rows: int) -> None:
    """Each derived thing has seen each of ``rows`` one-row records exactly once."""
    found = counters(database)
    assert (found["requests"], found["rows"], found["duplicates"]) == (rows, rows, 0)
    assert unpack_counts(found["latency"]).sum() == rows
    assert stored(database) == rows
    seen = all_windows(database)
    assert [w.number for w in seen] == list(range(1, len(seen) + 1))
    assert sum(w.rows for w in seen) == rows
    for window in seen:
        assert unpack_counts(window.scores).sum() == window.rows
        assert [c.sum() for c in split_features(PROFILE, window.features)] == [window.rows] * 3
    slots = MonitoringStore(database).recent_slots(TENANT, ENDPOINT, since=0)
    assert sum(slot["requests"] for slot in slots) == rows
    assert sum(unpack_counts(slot["latency"]).sum() for slot in slots) == rows


class TestCounting:
    def test_nothing_yet(self, database: Database, home: Path) -> None:
        assert ingest(database, home).look() == 0
        (home / "journal").mkdir()
        assert ingest(database, home).look() == 0

    def test_every_record_once(self, database: Database, home: Path, journal: JournalWriter) -> None:
        found, sent = ingest(database, home), 0
        for size in (1, 250, 0, 33):
            for place in range(size):
                journal.append(record(f"p{sent + place}"))
            sent += size
            assert drain(found) == size
            assert_everything_counted(database, sent)
        assert MonitoringStore(database).journal_totals(CONSUMER) == {
            "records": sent, "dropped": 0, "damaged": 0,
        }  # fmt: skip

    @only_sqlite
    def test_every_stream(self, database: Database, home: Path, journal: JournalWriter) -> None:
        other = JournalWriter(home / "journal" / "serving-1", segment_bytes=1 << 16)
        try:
            for place in range(30):
                (journal, other)[place % 2].append(record(f"p{place}"))
            drain(ingest(database, home))
        finally:
            other.close()
        assert_everything_counted(database, 30)
        assert streams(home / "journal") == ["serving-0", "serving-1"]

    @only_sqlite
    def test_every_segment(self, database: Database, home: Path, journal: JournalWriter) -> None:
        for place in range(1_500):  # of some 150 bytes: several segments of 64 KiB
            journal.append(record(f"p{place}"))
        assert len(list(journal.folder.glob("*.seg"))) > 2
        assert drain(ingest(database, home)) == 1_500
        assert_everything_counted(database, 1_500)

    @only_sqlite
    def test_a_restart_between_any_two_looks(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        for place in range(40):
            journal.append(record(f"p{place}"))
            if place % 10 == 9:
                assert ingest(database, home).look() == 10
        assert ingest(database, home).look() == 0
        assert_everything_counted(database, 40)

    def test_scores_of_a_request_stand_together(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        journal.append(record("many", scores=[0.1, 0.2, 0.3]))
        drain(ingest(database, home))
        found = counters(database)
        assert (found["requests"], found["rows"], stored(database)) == (1, 3, 1)
        with database.read() as connection:
            (row,) = connection.execute(sa.select(predictions.c.id, predictions.c.scores))
        assert (row.id, unpack_scores(row.scores)) == ("many", [0.1, 0.2, 0.3])

    @only_sqlite
    def test_versions_are_counted_apart(self, database: Database, home: Path, journal: JournalWriter) -> None:
        for place in range(30):
            journal.append(record(f"p{place}", version=1 + (place % 3 == 0)))
        drain(ingest(database, home))
        assert (counters(database, 1)["rows"], counters(database, 2)["rows"]) == (20, 10)

    @only_sqlite
    def test_tenants_and_endpoints_are_counted_apart(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        journal.append(record("same", tenant="one"))
        journal.append(record("same", tenant="two"))
        journal.append(record("same", tenant="two", endpoint="other"))
        drain(ingest(database, home))
        store = MonitoringStore(database)
        for tenant, endpoint in (("one", ENDPOINT), ("two", ENDPOINT), ("two", "other")):
            assert [r["rows"] for r in store.all_counters(tenant, endpoint)] == [1]

    def test_a_repeated_prediction_id_is_a_duplicate(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        found = ingest(database, home)
        for prediction in ("a", "b", "a", "c", "a"):  # in one batch
            journal.append(record(prediction))
        drain(found)
        journal.append(record("b"))  # and in a later one
        drain(found)
        row = counters(database)
        assert (row["requests"], row["rows"], row["duplicates"], stored(database)) == (6, 3, 3, 3)

    def test_failed_and_rejected_requests(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        for place in range(10):
            status = (Status.OK, Status.FAILED, Status.REJECTED, Status.OK, Status.OK)[place % 5]
            journal.append(record(f"p{place}", status=status))
        drain(ingest(database, home))
        row = counters(database)
        assert {k: row[k] for k in ("requests", "failed", "rejected", "rows")} == {
            "requests": 10, "failed": 2, "rejected": 2, "rows": 6,
        }  # fmt: skip
        assert unpack_counts(row["latency"]).sum() == 6  # a refusal is no latency of the model
        (slot,) = MonitoringStore(database).recent_slots(TENANT, ENDPOINT, since=0)
        assert (slot["requests"], slot["failed"], slot["rejected"]) == (10, 2, 2)
        assert unpack_counts(slot["latency"]).sum() == 6

    @only_sqlite
    def test_only_failures(self, database: Database, home: Path, journal: JournalWriter) -> None:
        journal.append(record("p", status=Status.FAILED))
        drain(ingest(database, home))
        row = counters(database)
        assert (row["requests"], row["failed"], row["rows"]) == (1, 1, 0)
        assert all_windows(database) == []

    @only_sqlite
    def test_first_and_last_moment(self, database: Database, home: Path, journal: JournalWriter) -> None:
        found = ingest(database, home)
        for place, at in enumerate((50, 90, 70)):
            journal.append(record(f"p{place}", at=at))
            drain(found)
        assert (counters(database)["first_at"], counters(database)["last_at"]) == (50, 90)

    @pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
    def test_a_score_that_is_no_number_does_not_stop_the_counting(
        self, database: Database, home: Path, journal: JournalWriter, score: float
    ) -> None:
        found = ingest(database, home)
        journal.append(record("odd", scores=[score, 0.5]))
        journal.append(record("fine"))
        assert drain(found) == 2
        journal.append(record("odd", scores=[-score, 0.5]))
        assert drain(found) == 1
        row = counters(database)
        assert row["requests"] == 3
        assert (row["rows"], row["duplicates"]) == ((2, 1) if np.isnan(score) else (3, 2))
        assert sum(w.rows for w in all_windows(database)) == 5
        assert np.isfinite(all_windows(database)[0].score_sum)


def block(ids: list[str], *, rows: list[int], statuses: list[int], at: int = 1_700_000_000 * SECOND) -> bytes:
    """Requests that were answered together; each has a score and features of its own."""
    total = sum(rows)
    return BlockEncoder(TENANT, ENDPOINT, version=1).encode(
        ids,
        statuses,
        numbers=(rows, [at + place for place in range(len(ids))], [at] * len(ids), [1_000] * len(ids)),
        scores=np.linspace(0, 1, total),
        features=np.arange(3.0 * total).reshape(total, 3),
    )


class TestBlocks:
    """Requests answered together are one record, and are counted as those they are."""

    def test_requests_and_rows(self, database: Database, home: Path, journal: JournalWriter) -> None:
        statuses = [Status.OK, Status.REJECTED, Status.OK, Status.FAILED, Status.FAILED]
        journal.append(block(list("abcde"), rows=[2, 0, 3, 0, 0], statuses=statuses), 5)
        journal.append(block(["f"], rows=[1], statuses=[Status.OK]), 1)
        assert drain(ingest(database, home)) == 6
        found = counters(database)
        assert {name: found[name] for name in ("requests", "failed", "rejected", "rows", "duplicates")} == {
            "requests": 6, "failed": 2, "rejected": 1, "rows": 6, "duplicates": 0,
        }  # fmt: skip
        assert unpack_counts(found["latency"]).sum() == 3
        with database.read() as connection:
            rows = connection.execute(sa.select(predictions.c.id, predictions.c.scores))
            scores = {row.id: unpack_scores(row.scores) for row in rows}
        assert scores == {"a": [0, 0.25], "c": [0.5, 0.75, 1], "f": [0.0]}
        assert MonitoringStore(database).journal_totals(CONSUMER)["records"] == 6

    @only_sqlite
    def test_together_or_one_by_one_it_is_the_same(
        self, database: Database, home: Path, journal: JournalWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = np.random.default_rng(3)
        sizes = [int(size) for size in rng.integers(1, 40, 30)]
        total = sum(sizes)
        scores, features = rng.random(total), rng.normal(size=(total, 3))
        start = 0
        for size in sizes:
            part = slice(start, start + size)
            payload = BlockEncoder(TENANT, ENDPOINT, version=1).encode(
                [f"p{place}" for place in range(start, start + size)],
                bytes(size),
                numbers=([1] * size, [7] * size, [8] * size, [1_000] * size),
                scores=scores[part],
                features=features[part],
            )
            journal.append(payload, size)
            start += size
        alone = JournalWriter(home / "alone" / "journal" / "serving-0")
        for place in range(total):
            part = slice(place, place + 1)
            other = {"at": 7, "event_at": 8, "scores": scores[part], "features": features[part]}
            alone.append(record(f"p{place}", **other))
        alone.close()
        drain(ingest(database, home))
        together = (counters(database), all_windows(database))
        with database.write() as connection:
            for table in (predictions, traffic, windows, journal_positions, counters_table):
                connection.execute(table.delete())
        drain(ingest(database, home / "alone"))
        assert (counters(database), [*map(tuple, all_windows(database))]) == (
            together[0], [*map(tuple, together[1])],
        )  # fmt: skip

    def test_a_repeated_id_with_another_number_of_rows(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        """The first request of an id stays, whole; all rows of the others are duplicates."""
        ok = [Status.OK] * 3
        journal.append(block(["a", "b", "c"], rows=[2, 1, 2], statuses=ok), 3)
        found = ingest(database, home)
        drain(found)
        journal.append(block(["a", "b", "d"], rows=[1, 4, 3], statuses=ok), 3)
        drain(found)
        row = counters(database)
        assert (row["requests"], row["rows"], row["duplicates"], stored(database)) == (6, 8, 5, 4)

    def test_ids_as_long_as_they_may_be(self, database: Database, home: Path, journal: JournalWriter) -> None:
        ids = ["ä" * 128, "日" * 128, "%s ? :x '\"", "🦉" * 128]
        journal.append(block(ids, rows=[1] * 4, statuses=[Status.OK] * 4), 4)
        drain(ingest(database, home))
        with database.read() as connection:
            assert set(connection.scalars(sa.select(predictions.c.id))) == set(ids)

    def test_more_than_one_statement_takes(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        for size in (1, 127, 128, 129, 300):
            ids = [f"{size}-{place}" for place in range(size)]
            journal.append(block([*ids, ids[0]], rows=[1] * (size + 1), statuses=[0] * (size + 1)), size + 1)
        drain(ingest(database, home))
        row = counters(database)
        assert (row["rows"], row["duplicates"], stored(database)) == (685, 5, 685)


class TestLosses:
    def test_unreadable_payloads_are_counted(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        good = record("good")
        wrong_status = record("odd", status=9)  # type: ignore[arg-type]
        for payload in (b"x", good, good[:-1], b"\1" + good[1:], wrong_status):
            journal.append(payload)
        journal.append(bytes(80), 20)
        drain(ingest(database, home))
        assert counters(database)["requests"] == 1
        totals = MonitoringStore(database).journal_totals(CONSUMER)
        assert totals == {"records": 25, "dropped": 0, "damaged": 24}

    @only_sqlite
    def test_of_each_stream_its_own(self, database: Database, home: Path, journal: JournalWriter) -> None:
        other = JournalWriter(home / "journal" / "serving-1", segment_bytes=1 << 16)
        try:
            journal.append(record("a"))
            journal.append(b"garbage", 3)
            other.append(b"garbage", 5)
            other.append(record("b"))
        finally:
            other.close()
        drain(ingest(database, home))
        with database.read() as connection:
            rows = connection.execute(sa.select(journal_positions.c.stream, journal_positions.c.damaged))
            assert dict(map(tuple, rows)) == {CONSUMER + "serving-0": 3, CONSUMER + "serving-1": 5}
        assert counters(database)["requests"] == 2

    @only_sqlite
    def test_damaged_bytes_are_counted(self, database: Database, home: Path, journal: JournalWriter) -> None:
        for place in range(10):
            journal.append(record(f"p{place}"))
        journal.seal()
        (segment,) = journal.folder.glob("*.seg")
        content = bytearray(segment.read_bytes())
        content[content.index(b"p5")] ^= 1
        segment.write_bytes(content)
        journal.append(record("after"))
        found = ingest(database, home)
        while found.look():
            pass
        assert counters(database)["requests"] == 6  # five before the damage, one after the segment
        totals = MonitoringStore(database).journal_totals(CONSUMER)
        assert totals["damaged"] == 1
        assert totals["dropped"] == 5  # the damaged one and those behind it in its segment

    @only_sqlite
    def test_dropped_records_are_counted(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        for place in range(1_500):
            journal.append(record(f"p{place}"))
        first, *_, newest = sorted(journal.folder.glob("*.seg"))
        kept = drain_count(newest)
        for segment in sorted(journal.folder.glob("*.seg")):
            if segment != newest:
                segment.unlink()
        assert first != newest
        drain(ingest(database, home))
        assert counters(database)["requests"] == kept
        totals = MonitoringStore(database).journal_totals(CONSUMER)
        assert totals == {"records": kept, "dropped": 1_500 - kept, "damaged": 0}


def drain_count(segment: Path) -> int:
    number = int(segment.stem)
    return len(JournalReader(segment.parent).read(Position(number)).payloads)


class TestWindows:
    def test_split_at_the_boundary(self, database: Database, home: Path, journal: JournalWriter) -> None:
        found = ingest(database, home)
        for place in range(WINDOW - 1):
            journal.append(record(f"p{place}", event_at=1_000 + place))
        drain(found)
        (window,) = all_windows(database)
        assert (window.rows, window.closed) == (WINDOW - 1, False)
        # One request of 250 rows: one row for this window, two windows of their own, 49 rows of a fourth... of a third.
        journal.append(record("big", scores=np.linspace(0, 1, 250), event_at=5_000))
        drain(found)
        assert [(w.rows, w.closed) for w in all_windows(database)] == [
            (100, True), (100, True), (100, True), (49, False),
        ]  # fmt: skip
        first, second, *_ = all_windows(database)
        assert (first.first_event, first.last_event) == (1_000, 5_000)
        assert (second.first_event, second.last_event) == (5_000, 5_000)

    @only_sqlite
    def test_exactly_full(self, database: Database, home: Path, journal: JournalWriter) -> None:
        journal.append(record("full", scores=np.full(WINDOW, 0.25)))
        drain(ingest(database, home))
        (window,) = all_windows(database)
        assert (window.rows, window.closed, window.score_sum) == (WINDOW, True, 25.0)

    def test_counts_are_those_of_the_profile(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        rng = np.random.default_rng(9)
        features = np.column_stack([rng.normal(size=(WINDOW, 2)), rng.integers(-1, 2, WINDOW)])
        features[3, 0] = np.nan
        scores = rng.random(WINDOW)
        found = ingest(database, home)
        for part in (slice(0, 37), slice(37, 60), slice(60, WINDOW)):
            journal.append(record(f"p{part.start}", scores=scores[part], features=features[part]))
            drain(found)
        (window,) = all_windows(database)
        for counted, expected in zip(
            split_features(PROFILE, window.features), PROFILE.count(features), strict=True
        ):
            np.testing.assert_array_equal(counted, expected)
        np.testing.assert_array_equal(unpack_counts(window.scores), PROFILE.count_scores(scores))
        assert window.score_sum == pytest.approx(scores.sum())

    @only_sqlite
    def test_none_without_a_profile(self, database: Database, home: Path, journal: JournalWriter) -> None:
        journal.append(record("p", version=2))
        drain(ingest(database, home))
        assert all_windows(database) == []
        assert counters(database, 2)["rows"] == 1

    @only_sqlite
    def test_each_version_has_its_own(self, database: Database, home: Path, journal: JournalWriter) -> None:
        both = Ingest(
            database, home / "journal", profile=lambda _t, _e, *, number: PROFILE, window_rows=WINDOW
        )
        for place in range(2 * WINDOW):
            journal.append(record(f"p{place}", version=1 + place % 2))
        drain(both)
        assert [(w.version, w.number, w.closed) for w in all_windows(database)] == [
            (1, 1, True),
            (2, 1, True),
        ]

    @pytest.mark.parametrize("columns", [0, 2, 4])
    def test_features_that_are_not_those_of_the_profile(
        self, database: Database, home: Path, journal: JournalWriter, columns: int
    ) -> None:
        """Too wide to be captured, or another program's: the scores count, the features are left alone."""
        found = ingest(database, home)
        journal.append(record("odd", scores=[0.25] * 30, features=np.zeros((30, columns))))
        journal.append(record("fine", scores=[0.75] * 20))
        drain(found)
        (window,) = all_windows(database)
        assert (window.rows, window.score_sum) == (50, 22.5)
        assert unpack_counts(window.scores).sum() == 50
        assert [counts.sum() for counts in split_features(PROFILE, window.features)] == [20] * 3
        assert counters(database)["rows"] == 50

    @only_sqlite
    def test_a_profile_without_features(self, database: Database, home: Path, journal: JournalWriter) -> None:
        narrow = build_profile(np.empty((5, 0)), names=(), levels={}, scores=np.arange(5.0), labels=None)
        journal.append(record("p", scores=[0.5] * 3, features=np.empty((3, 0))))
        drain(ingest(database, home, profile=narrow))
        (window,) = all_windows(database)
        assert (window.rows, window.features) == (3, b"")
        assert split_features(narrow, window.features) == []

    @only_sqlite
    def test_made_smaller_between_two_starts(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        journal.append(record("before", scores=[0.5] * 70))
        drain(ingest(database, home))
        journal.append(record("after", scores=[0.5] * 70))
        smaller = Ingest(
            database, home / "journal", profile=lambda _t, _e, *, number: PROFILE, window_rows=50
        )
        drain(smaller)
        assert [(w.rows, w.closed) for w in all_windows(database)] == [(70, True), (50, True), (20, False)]


class TestSlots:
    @only_sqlite
    def test_by_the_moment_the_request_came(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        found = ingest(database, home)
        base = 1_000 * SLOT
        for place, at in enumerate((base, base + SLOT - 1, base + SLOT, base + 3 * SLOT)):
            journal.append(record(f"p{place}", at=at, event_at=7))
            drain(found)
        slots = MonitoringStore(database).recent_slots(TENANT, ENDPOINT, since=0)
        assert [(s["start"], s["requests"]) for s in slots] == [
            (base, 2), (base + SLOT, 1), (base + 3 * SLOT, 1),
        ]  # fmt: skip
        later = MonitoringStore(database).recent_slots(TENANT, ENDPOINT, since=base + SLOT)
        assert len(later) == 2

    def test_late_ones_are_added_to_theirs(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        found = ingest(database, home)
        for round_ in range(3):
            for slot in (*range(8), 2):
                journal.append(record(f"p{round_}-{slot}", at=slot * SLOT, status=Status.FAILED))
            drain(found)
        slots = MonitoringStore(database).recent_slots(TENANT, ENDPOINT, since=0)
        assert [(slot["start"] // SLOT, slot["requests"]) for slot in slots] == [
            (slot, 6 if slot == 2 else 3) for slot in range(8)
        ]

    def test_forgotten_with_the_predictions(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        for place, at in enumerate((1 * SLOT, 2 * SLOT, 9 * SLOT)):
            journal.append(record(f"p{place}", at=at))
        drain(ingest(database, home))
        store = MonitoringStore(database)
        with database.write() as connection:
            assert store.forget_predictions(connection, before=5 * SLOT) == 2
            store.take_slots(connection, width=SLOT, before=5 * SLOT)
        assert stored(database) == 1
        with database.read() as connection:
            assert connection.execute(sa.select(traffic.c.start)).scalars().all() == [9 * SLOT]
        assert counters(database)["rows"] == 3  # the counters go on


STEPS = (
    "positions", "add_predictions", "counters", "put_counters", "slots", "put_slots", "open_window", "put_windows", "move",
)  # fmt: skip


class TestCrashes:
    """Die at a moment, begin anew, and count."""

    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_inside_the_transaction(
        self, database: Database, home: Path, journal: JournalWriter, *, step: str, after: bool
    ) -> None:
        for place in range(150):
            journal.append(record(f"p{place}"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MonitoringStore, step, dying(getattr(MonitoringStore, step), after=after))
            with pytest.raises(Crash):
                ingest(database, home).look()
        assert stored(database) == 0
        assert MonitoringStore(database).position(CONSUMER + "serving-0") == Position()
        assert drain(ingest(database, home)) == 150
        assert_everything_counted(database, 150)

    def test_after_the_commit(
        self, database: Database, home: Path, journal: JournalWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for place in range(150):
            journal.append(record(f"p{place}"))
        real = database.write

        @contextlib.contextmanager
        def dying_write() -> Iterator[sa.Connection]:
            with real() as connection:
                yield connection
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(database, "write", dying_write)
            with pytest.raises(Crash):
                ingest(database, home).look()
        assert drain(ingest(database, home)) == 0
        assert_everything_counted(database, 150)

    def test_again_and_again(self, database: Database, home: Path, journal: JournalWriter) -> None:
        """Errors at random places between looks at a growing journal, which the process survives or not."""
        rng = np.random.default_rng(11)
        sent, found = 0, ingest(database, home)
        for _round in range(12):
            for _place in range(int(rng.integers(1, 40))):
                journal.append(record(f"p{sent}"))
                sent += 1
            if rng.random() < 0.3:
                found = ingest(database, home)
            if rng.random() < 0.3:
                found.look()  # so that there is something in mind
            step = STEPS[rng.integers(len(STEPS))]
            with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Crash):
                dies = dying(getattr(MonitoringStore, step), after=bool(rng.integers(2)))
                patch.setattr(MonitoringStore, step, dies)
                found.look()
        drain(found)
        assert_everything_counted(database, sent)


def dying(method: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    def dies(*arguments: Any, **named: Any) -> Any:
        if after:
            method(*arguments, **named)
        raise Crash

    return dies


class TestAtTheSameTime:
    def test_two_threads_that_look_count_once(
        self, database: Database, home: Path, journal: JournalWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The loop and a retraining both take the journal in; neither may count what the other counts."""
        for place in range(50):
            journal.append(record(f"p{place}"))
        both = threading.Barrier(2)
        real = JournalReader.read

        def read_together(self: JournalReader, position: Position, **named: Any) -> Any:
            batch = real(self, position, **named)
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.2)  # goes on alone where the other is kept out
            return batch

        monkeypatch.setattr(JournalReader, "read", read_together)
        found = ingest(database, home)
        threads = [threading.Thread(target=found.look) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert_everything_counted(database, 50)

    def test_two_processes_that_take_turns(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        """Each has in mind what it wrote last, which is no longer what stands in the database."""
        both = ingest(database, home), ingest(database, home)
        for round_ in range(6):
            for place in range(40):
                journal.append(record(f"p{round_}-{place}"))
            assert both[round_ % 3 % 2].look() == 40
        assert both[0].look() == both[1].look() == 0
        assert_everything_counted(database, 240)

    def test_two_processes_at_once(
        self, database: Database, home: Path, journal: JournalWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both have read the same records before either writes; only one of them may."""
        for place in range(50):
            journal.append(record(f"p{place}"))
        met = threading.Barrier(2)
        real = JournalReader.read

        def read_together(self: JournalReader, position: Position, **named: Any) -> Any:
            batch = real(self, position, **named)
            with contextlib.suppress(threading.BrokenBarrierError):
                met.wait(0.5)
            return batch

        monkeypatch.setattr(JournalReader, "read", read_together)
        taken: list[int] = []
        threads = [
            threading.Thread(target=lambda each=each: taken.append(each.look()))
            for each in (ingest(database, home), ingest(database, home))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [0, 50]
        assert_everything_counted(database, 50)

    def test_labels_matched_meanwhile_are_not_lost(
        self, database: Database, home: Path, journal: JournalWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ingest and feedback both change a version's counters, each in its own thread."""
        found, feedback = ingest(database, home), Feedback(database, ManualClock(), window_rows=100)
        for place in range(20):
            journal.append(record(f"p{place}"))
        drain(found)
        feedback.store(TENANT, ENDPOINT, labels=[{"id": f"p{place}", "label": 1} for place in range(20)])
        other = threading.Thread(target=feedback.mature)
        real = MonitoringStore.put_counters

        def put_slowly(self: MonitoringStore, connection: Any, rows: Any) -> None:
            if not other.ident:
                other.start()
                other.join(0.2)  # it waits for this transaction, or it has done its work
            real(self, connection, rows)

        monkeypatch.setattr(MonitoringStore, "put_counters", put_slowly)
        journal.append(record("one-more"))
        drain(found)
        other.join()
        assert (counters(database)["requests"], counters(database)["matured"]) == (21, 20)


@only_sqlite
class TestCost:
    """Counted in statements: how long they take is for ``bench/capture.py``."""

    @staticmethod
    def statements(database: Database, work: Callable[[], object]) -> list[str]:
        seen: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
            seen.append(statement.partition(" (")[0])

        sa.event.listen(database.engine, "before_cursor_execute", note)
        try:
            work()
        finally:
            sa.event.remove(database.engine, "before_cursor_execute", note)
        return seen

    def test_a_look_at_nothing_asks_nobody(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        found = ingest(database, home)
        found.look()
        assert self.statements(database, found.look) == []
        journal.append(record("p"))
        found.look()
        assert self.statements(database, found.look) == []

    def test_a_look_writes_and_hardly_reads(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        found = Ingest(
            database, home / "journal", profile=lambda _t, _e, *, number: PROFILE, window_rows=WINDOW
        )
        for round_ in range(2):
            for version in range(8):
                journal.append(record(f"{round_}-{version}", version=version))
            seen = self.statements(database, found.look)
        # One of predictions for each version; of all else one for all of them.
        assert len([statement for statement in seen if statement.startswith("INSERT INTO predictions")]) == 8
        assert len(seen) == 8 + 1 + 5 + 1  # BEGIN, positions and what was counted

    def test_catching_up(self, database: Database, home: Path, journal: JournalWriter) -> None:
        """Over as many segments as there are."""
        for place in range(1_500):
            journal.append(record(f"p{place}"))
        found = ingest(database, home)
        assert found.catch_up() == 1_500
        assert_everything_counted(database, 1_500)
        assert found.catch_up() == 0


def test_the_toy_model_is_what_the_tests_think_it_is() -> None:
    from predis.serving import runtimes
    from predis.serving.inputs import Inputs

    runtime = runtimes.load("lightgbm", {"m": toys.booster("z", sign=-1)}, signature=toys.SIGNATURE)
    features = np.random.default_rng(1).normal(size=(50, 3))
    answered = runtimes.scores_of(toys.SIGNATURE, runtimes.run(runtime, Inputs(50, features, {})))
    np.testing.assert_allclose(answered, toys.scores_of(features[:, 1], sign=-1))
