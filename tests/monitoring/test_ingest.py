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
from predis.monitoring.ingest import CONSUMER, SLOT, Ingest, decoded, grouped, split_features
from predis.monitoring.store import MonitoringStore, unpack_counts
from predis.state import Database, JournalReader, JournalWriter
from predis.state.journal import Position, streams
from predis.state.records import Status
from predis.state.schema import predictions, traffic, windows
from predis.stats import Profile, build_profile
from tests import toys
from tests.toys import ENDPOINT, TENANT, record

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

    def test_rows_of_a_request_are_predictions_of_their_own(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        journal.append(record("many", scores=[0.1, 0.2, 0.3]))
        drain(ingest(database, home))
        found = counters(database)
        assert (found["requests"], found["rows"], stored(database)) == (1, 3, 3)
        with database.read() as connection:
            rows = connection.execute(sa.select(predictions.c.row, predictions.c.score)).all()
        assert sorted(map(tuple, rows)) == [(0, 0.1), (1, 0.2), (2, 0.3)]

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


class TestLosses:
    def test_unreadable_payloads_are_counted(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        good = record("good")
        wrong_status = good[:1] + b"\x09" + good[2:]
        for payload in (b"x", good, good[:-1], b"\2" + good[1:], wrong_status, bytes(80)):
            journal.append(payload)
        drain(ingest(database, home))
        assert counters(database)["requests"] == 1
        totals = MonitoringStore(database).journal_totals(CONSUMER)
        assert totals == {"records": 6, "dropped": 0, "damaged": 5}

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

    def test_decoded_and_grouped(self) -> None:
        payloads = [record("a"), b"", record("b", version=2), record("c")]
        records, unreadable = decoded(payloads)
        assert unreadable == 1
        assert [(g.key["version"], [r.id for r in g.records]) for g in grouped(records)] == [
            (1, ["a", "c"]),
            (2, ["b"]),
        ]


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

    def test_forgotten_with_the_predictions(
        self, database: Database, home: Path, journal: JournalWriter
    ) -> None:
        for place, at in enumerate((1 * SLOT, 2 * SLOT, 9 * SLOT)):
            journal.append(record(f"p{place}", at=at))
        drain(ingest(database, home))
        store = MonitoringStore(database)
        with database.write() as connection:
            assert store.forget_predictions(connection, before=5 * SLOT) == 2
        assert stored(database) == 1
        with database.read() as connection:
            assert connection.execute(sa.select(traffic.c.start)).scalars().all() == [9 * SLOT]
        assert counters(database)["rows"] == 3  # the counters go on


STEPS = ("add_predictions", "counters", "put_counters", "add_slots", "open_window", "put_window", "move")


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
        """Crashes at random places between looks at a growing journal."""
        rng = np.random.default_rng(11)
        sent = 0
        for _round in range(12):
            for _place in range(int(rng.integers(1, 40))):
                journal.append(record(f"p{sent}"))
                sent += 1
            step = STEPS[rng.integers(len(STEPS))]
            with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Crash):
                dies = dying(getattr(MonitoringStore, step), after=bool(rng.integers(2)))
                patch.setattr(MonitoringStore, step, dies)
                ingest(database, home).look()
        drain(ingest(database, home))
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

        def put_slowly(self: MonitoringStore, connection: Any, row: Any) -> None:
            if threading.current_thread() is not other and not other.ident:
                other.start()
                other.join(0.2)  # it waits for this transaction, or it has done its work
            real(self, connection, row)

        monkeypatch.setattr(MonitoringStore, "put_counters", put_slowly)
        journal.append(record("one-more"))
        drain(found)
        other.join()
        assert (counters(database)["requests"], counters(database)["matured"]) == (21, 20)


def test_the_toy_model_is_what_the_tests_think_it_is() -> None:
    from predis.serving import runtimes

    runtime = runtimes.load("lightgbm", {"m": toys.booster("z", sign=-1)}, signature=toys.SIGNATURE)
    features = np.random.default_rng(1).normal(size=(50, 3))
    answered = runtimes.scores_of(toys.SIGNATURE, runtimes.run(runtime, features, unseen={}))
    np.testing.assert_allclose(answered, toys.scores_of(features[:, 1], sign=-1))
