"""A tally: whatever the blocks, what it gives back is what they hold, and goes on from what the database has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from predis.monitoring.store import unpack_counts, unpack_scores
from predis.monitoring.tally import SLOT, Tally, by_arm, prediction_rows, split_features
from predis.state.records import Arm, Block, Status
from predis.stats import Profile, build_profile, latency

KEY = {"tenant": "default", "endpoint": "toy", "version": 1}


def block(rows: list[int], **changes: Any) -> Block:
    """Requests with so many rows each."""
    n, total = len(rows), sum(rows)
    arrays = {
        "status": np.zeros(n, np.uint8),
        "arms": np.zeros(n, np.uint8),
        "received_at": np.full(n, 3 * SLOT, np.int64),
        "event_at": np.arange(n, dtype=np.int64),
        "latency_us": np.full(n, 1_000, np.uint32),
        "scores": np.linspace(0, 1, total),
        "features": np.zeros((total, 2)),
    }
    given = {**arrays, **{name: np.asarray(value, arrays[name].dtype) for name, value in changes.items()}}
    ids = [f"p{place}" for place in range(n)]
    return Block("default", "toy", 1, ids, rows=np.array(rows, np.uint32), **given)


def profile() -> Profile:
    rng = np.random.default_rng(1)
    return build_profile(
        rng.normal(size=(500, 2)), names=("x", "z"), levels={}, scores=rng.random(500), labels=None
    )


def counted(tally: Tally, found: Block, *, new: int = 0, repeated: int = 0) -> None:
    tally.recall(tally.unknown_slots(found), [])
    tally.count(found, new=new, repeated=repeated)


class TestCounters:
    def test_of_nothing(self) -> None:
        tally = Tally(KEY)
        counted(tally, block([1]), new=1)
        (row,) = tally.changed_counters()
        assert {name: row[name] for name in ("requests", "failed", "rejected", "rows", "duplicates")} == {
            "requests": 1, "failed": 0, "rejected": 0, "rows": 1, "duplicates": 0,
        }  # fmt: skip
        assert (row["first_at"], row["last_at"]) == (3 * SLOT, 3 * SLOT)

    def test_go_on_from_the_database(self) -> None:
        first = Tally(KEY)
        status = [Status.OK, Status.FAILED, Status.REJECTED, Status.OK]
        found = block([1, 0, 0, 2], status=status, received_at=[50, 20, 90, 60])
        counted(first, found, new=2, repeated=1)
        second = Tally(KEY, counters=first.changed_counters())
        counted(second, found, new=3)
        (row,) = second.changed_counters()
        assert (row["requests"], row["failed"], row["rejected"]) == (8, 2, 2)
        assert (row["rows"], row["duplicates"], row["first_at"], row["last_at"]) == (5, 1, 20, 90)
        assert unpack_counts(row["latency"]).tolist() == (4 * latency.count([0.001])).tolist()

    def test_hold_nothing_that_a_database_does_not_know(self) -> None:
        tally = Tally(KEY)
        found = block([1, 2])
        counted(tally, found, new=3)
        tally.fill_windows(found, profile(), size=2)
        rows = [*tally.changed_counters(), *tally.changed_slots(), *tally.changed_windows()]
        assert {type(value) for row in rows for value in row.values()} <= {int, float, str, bytes, bool, dict}


class TestSlots:
    def test_have_to_be_known_before_they_are_counted(self) -> None:
        tally = Tally(KEY)
        found = block([1, 1, 1], received_at=[7 * SLOT + 1, 8 * SLOT, 8 * SLOT - 1])
        assert tally.unknown_slots(found) == [7 * SLOT, 8 * SLOT]
        earlier = {
            "requests": 10, "failed": 4, "rejected": 1, "start": 7 * SLOT, "latency": latency.count([1.0] * 5).tobytes(),
        }  # fmt: skip
        tally.recall([7 * SLOT, 8 * SLOT], [earlier])
        assert tally.unknown_slots(found) == []
        tally.count(found, new=3, repeated=0)
        first, second = tally.changed_slots()
        assert (first["start"], first["requests"], first["failed"]) == (7 * SLOT, 12, 4)
        assert unpack_counts(first["latency"]).sum() == 7
        assert (second["start"], second["requests"]) == (8 * SLOT, 1)

    def test_that_did_not_change_are_not_written_again(self) -> None:
        tally = Tally(KEY)
        counted(tally, block([1], received_at=[SLOT]))
        assert len(tally.changed_slots()) == 1
        assert tally.changed_slots() == []
        counted(tally, block([1], received_at=[2 * SLOT]))
        assert [row["start"] for row in tally.changed_slots()] == [2 * SLOT]

    def test_of_long_ago_are_forgotten(self) -> None:
        tally = Tally(KEY)
        found = block([1] * 50, received_at=np.arange(50) * SLOT)
        counted(tally, found)
        assert len(tally.changed_slots()) == 50
        assert len(tally.unknown_slots(found)) == 42


class TestWindows:
    def test_the_same_in_pieces_and_over_restarts(self) -> None:
        rng = np.random.default_rng(2)
        reference = profile()
        scores, features = rng.random(230), rng.normal(size=(230, 2))
        whole, pieces = (Tally(KEY) for _ in range(2))
        whole.fill_windows(block([1] * 230, scores=scores, features=features), reference, size=100)
        written: dict[int, Any] = {}
        for start in range(0, 230, 23):
            part = slice(start, start + 23)
            events = np.arange(start, start + 23)
            found = block([1] * 23, scores=scores[part], features=features[part], event_at=events)
            pieces.fill_windows(found, reference, size=100)
            written |= {row["number"]: row for row in pieces.changed_windows()}
            pieces = Tally(KEY, window=written[max(written)])
        expected = {row["number"]: row for row in whole.changed_windows()}
        assert [row["rows"] for row in expected.values()] == [100, 100, 30]
        for number, row in expected.items():
            assert written[number] == {**row, "score_sum": pytest.approx(row["score_sum"])}
        for name, counts in zip(("x", "z"), split_features(reference, expected[1]["features"]), strict=True):
            column = reference.names.index(name)
            np.testing.assert_array_equal(counts, reference.bins[column].count(features[:100, column]))

    def test_nothing_answered_opens_none(self) -> None:
        tally = Tally(KEY)
        refused = block([0, 0], status=[Status.FAILED] * 2)
        tally.fill_windows(refused, profile(), size=10)
        assert tally.changed_windows() == []


class TestByArm:
    def test_a_block_of_one_arm_is_left_alone(self) -> None:
        found = block([1, 2], arms=[Arm.COMPARED] * 2)
        (part,) = by_arm(found)
        assert part is found

    def test_requests_keep_what_is_theirs(self) -> None:
        arms = [Arm.COMPARED, Arm.ORDINARY, Arm.COMPARED, Arm.SHADOW]
        status = [Status.OK, Status.OK, Status.OK, Status.FAILED]
        found = block([2, 1, 3, 0], arms=arms, status=status, features=np.arange(12.0).reshape(6, 2))
        ordinary, compared, shadow = by_arm(found)
        assert [part.ids for part in (ordinary, compared, shadow)] == [["p1"], ["p0", "p2"], ["p3"]]
        assert compared.rows.tolist() == [2, 3]
        np.testing.assert_array_equal(compared.scores, found.scores[[0, 1, 3, 4, 5]])
        np.testing.assert_array_equal(ordinary.features, found.features[2:3])
        assert (len(shadow.scores), shadow.status.tolist()) == (0, [Status.FAILED])

    def test_a_tally_counts_each_apart(self) -> None:
        tally = Tally(KEY)
        found = block([1] * 6, arms=[0, 1, 2, 1, 0, 1])
        for part in by_arm(found):
            counted(tally, part, new=len(part.ids))
        rows = {row["arm"]: row for row in tally.changed_counters()}
        assert {arm: (row["requests"], row["rows"]) for arm, row in rows.items()} == {
            0: (2, 2), 1: (3, 3), 2: (1, 1),
        }  # fmt: skip
        (slot,) = tally.changed_slots()
        assert slot["requests"] == 5  # nobody was answered by a shadow
        assert tally.changed_counters() == []


class TestPredictionRows:
    def test_one_for_each_answered_request(self) -> None:
        found = prediction_rows(block([2, 0, 1, 2], received_at=[5, 6, 7, 8]))
        assert sorted(found) == [1, 2]
        ((name, scores, event_at, received_at, cells),) = found[1]
        assert (name, unpack_scores(scores), event_at, received_at, cells) == ("p2", [0.5], 2, 7, None)
        assert [(row[0], unpack_scores(row[1])) for row in found[2]] == [
            ("p0", [0.0, 0.25]), ("p3", [0.75, 1.0]),
        ]  # fmt: skip

    def test_by_the_scores_that_are_numbers(self) -> None:
        other_nan = np.frombuffer(b"\x01\x02\x03\x04\x05\x06\xf8\xff", "<f8")[0]
        scores = [0.5, np.nan, other_nan, np.inf, 1.0, -np.inf]
        found = prediction_rows(block([2, 1, 3], scores=scores))
        assert {count: [row[0] for row in rows] for count, rows in found.items()} == {
            1: ["p0"], 0: ["p1"], 3: ["p2"],
        }  # fmt: skip
        # However a NaN came about, it is stored as the one that SQL looks for.
        assert found[0][0][1] == found[1][0][1][8:] == np.array([np.nan], "<f8").tobytes()
