"""Windows by time: every request counts once, in its levels, and a label in the window of its prediction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from predis.clock import NANOSECONDS, ManualClock
from predis.errors import InvalidInput
from predis.expressions import compile_expression
from predis.monitoring.segments import LEVELS, MISSING, OTHER
from predis.monitoring.spans.segmenting import NOT_CAPTURED, LevelBook, Segmenter
from predis.state import Database
from predis.state.records import Status, decode_all
from predis.stats import numeric_bins
from tests.toys import ENDPOINT, TENANT, Installation, installed, record, table

HOUR = 3_600 * NANOSECONDS


def expression(text: str) -> Any:
    return compile_expression(text, names=["input.*"])


@pytest.fixture
def toy(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with installed(database, home, clock) as found:
        found.register("x")
        found.create_endpoint(monitoring={"segments": ["input.kind", "input.z > 1"]})
        found.deploy(1)
        yield found


def report(toy: Installation, **asked: Any) -> dict[str, Any]:
    return toy.platform.spans.listed(TENANT, ENDPOINT, **{"since": toy.clock.time_ns() - 48 * HOUR, **asked})


def levels(found: dict[str, Any], segment: str) -> dict[str, dict[str, Any]]:
    """The newest window of each level."""
    part = next(each for each in found["segments"] if each["segment"] == segment)
    return {window["level"]: window for window in part["windows"]}


class TestWindows:
    def test_volume_quality_and_latency_by_level(self, toy: Installation) -> None:
        rows = table(800, seed=5)
        toy.observe(rows, version=1, latency_us=2_000)
        found = report(toy)
        (whole,) = found["windows"]
        assert (whole["requests"], whole["rows"], whole["labels"], whole["coverage"]) == (800, 800, 800, 1.0)
        assert whole["error_rate"] == 0.0
        assert whole["task"] == "binary"
        assert whole["measures"]["auc_low"] < whole["measures"]["auc"] < whole["measures"]["auc_high"]
        assert whole["latency_ms"]["p50"] == pytest.approx(2.0, rel=0.05)
        kinds = levels(found, "input.kind")
        counts = rows.column("kind").value_counts().to_pylist()
        assert {name: kinds[name]["rows"] for name in ("a", "b")} == {
            c["values"]: c["counts"] for c in counts
        }
        assert all(kinds[name]["measures"]["auc"] > 0.6 for name in ("a", "b"))
        assert sum(window["rows"] for window in levels(found, "input.z > 1").values()) == 800

    def test_a_late_label_counts_in_the_window_of_its_prediction(self, toy: Installation) -> None:
        rows = table(100, seed=6)
        ids = toy.send(rows, version=1)
        toy.digest()
        toy.clock.advance(3 * 3_600)
        toy.send(rows, version=1)
        toy.label(ids, rows)
        toy.digest()
        first, second = report(toy)["windows"]
        assert (first["labels"], second["labels"]) == (100, 0)
        assert first["label_age_s"] == pytest.approx(3 * 3_600, rel=0.01)

    def test_windows_are_measured_again_when_more_labels_have_come(self, toy: Installation) -> None:
        rows = table(200, seed=7)
        ids = toy.send(rows, version=1)
        toy.label(ids[:100], rows.slice(0, 100))
        toy.digest()
        assert report(toy)["windows"][0]["measures"]["rows"] == 100
        toy.label(ids[100:], rows.slice(100))
        toy.digest()
        assert report(toy)["windows"][0]["measures"]["rows"] == 100  # at most once a minute
        toy.clock.advance(61)
        toy.digest()
        assert report(toy)["windows"][0]["measures"]["rows"] == 200

    def test_what_failed_has_no_level_but_is_counted(self, toy: Installation) -> None:
        toy.send(table(60, seed=8), version=1)
        for place in range(20):
            toy.journal.append(record(f"f{place}", status=Status.FAILED, at=toy.clock.time_ns()))
        toy.digest()
        found = report(toy)
        assert found["windows"][0]["error_rate"] == 0.25
        assert levels(found, "input.kind")[NOT_CAPTURED]["failed"] == 20

    def test_missing_and_out_of_range_values_are_counted(self, toy: Installation) -> None:
        rows = table(100, seed=9)
        x = [None] * 50 + [1e6] * 50
        toy.send(rows.set_column(0, "x", pa.array(x, pa.float64())), version=1)
        toy.digest()
        (whole,) = report(toy)["windows"]
        assert whole["missing"] == pytest.approx(50 / 300)
        assert 50 / 300 <= whole["out_of_range"] < 60 / 300

    def test_nothing_is_lost_by_a_restart(self, toy: Installation) -> None:
        toy.send(table(50, seed=1), version=1)
        toy.digest()
        toy.platform.ingest._known = None  # as in a new process
        toy.send(table(50, seed=2), version=1)
        toy.digest()
        found = report(toy)
        assert found["windows"][0]["rows"] == 100
        assert sum(window["rows"] for window in levels(found, "input.kind").values()) == 100

    def test_only_one_segment_and_one_version(self, toy: Installation) -> None:
        toy.send(table(50, seed=1), version=1)
        toy.digest()
        assert [each["segment"] for each in report(toy, segment="input.kind")["segments"]] == ["input.kind"]
        assert report(toy, version=2)["windows"] == []

    def test_too_many(self, toy: Installation) -> None:
        with pytest.raises(InvalidInput, match="2000 windows"):
            report(toy, since=0)

    def test_old_windows_are_dropped(self, toy: Installation) -> None:
        toy.send(table(50, seed=1), version=1)
        toy.digest()
        toy.clock.advance(61 * 86_400)
        toy.platform.history.tidy()
        assert report(toy, since=toy.clock.time_ns() - 62 * 24 * HOUR)["windows"] == []


class TestManyLevels:
    def test_a_column_of_10_000_values_does_not_explode(self) -> None:
        book = LevelBook()
        names = tuple(f"v{place}" for place in range(10_000))
        segmenter = Segmenter([expression("input.v")], names=["v"], levels={"v": names}, bins={})
        rng = np.random.default_rng(1)
        for _ in range(5):
            often = rng.integers(0, 5, 1_000)
            codes = np.where(rng.random(1_000) < 0.5, often, rng.integers(0, 10_000, 1_000)).astype(float)
            (block,), _ = decode_all([record("p", scores=np.full(1_000, 0.5), features=codes[:, None])])
            cells = segmenter.cells(block, book)
        known = {row["level"]: row["number"] for row in book.new()}
        assert len(known) == 101
        assert {*names[:5], OTHER} <= set(known)
        assert set(np.unique(cells)) <= set(known.values())

    def test_the_largest_are_shown_and_the_rest_is_other(self, toy: Installation) -> None:
        rows = table(900, seed=3)
        z = np.repeat(np.arange(30), 30)
        toy.platform.endpoints.create(
            TENANT,
            "wide",
            model="toy-model",
            config={"monitoring": {"segments": ["input.z + 0"]}},
            actor="test",
        )
        toy.deploy(1, endpoint="wide")
        toy.send(rows.set_column(1, "z", pa.array(z, pa.float64())), version=1, endpoint="wide")
        toy.digest()
        found = toy.platform.spans.listed(TENANT, "wide", since=toy.clock.time_ns() - HOUR)
        shown = levels(found, "input.z + 0")
        assert len(shown) == LEVELS + 1
        assert shown[OTHER]["rows"] == 300
        assert found["segments"][0]["levels"] == 30


class TestSegmenter:
    def codes(self, text: str, features: Any, **more: Any) -> list[str]:
        given = {"names": ["x", "kind"], "levels": {"kind": ("a", "b")}, "bins": {}, **more}
        book = LevelBook()
        (block,), _ = decode_all(
            [record("p", scores=np.zeros(len(features)), features=features, extra=b'[[2,1,"c"]]')]
        )
        cells = Segmenter([expression(text)], **given).cells(block, book)
        names = {row["number"]: row["level"] for row in book.new()}
        return [names[number] for number in cells[:, 0].tolist()]

    def test_texts_with_those_never_met_and_missing_ones(self) -> None:
        features = [[0, 0], [0, 1], [0, -1], [0, np.nan]]
        assert self.codes("input.kind", features) == ["a", "b", "c", MISSING]

    def test_a_number_is_cut_by_the_reference(self) -> None:
        bins = {"x": numeric_bins("x", range(100), bins=2)}
        assert self.codes("input.x", [[1, 0], [60, 0], [0, -1]], bins=bins) == ["0 - 50", "50 - 99", "0 - 50"]

    def test_an_expression(self) -> None:
        features = [[1, 0], [3, 0], [3, -1]]
        assert self.codes("input.x > 2 and input.kind == 'a'", features) == ["no", "yes", "no"]

    def test_inputs_that_were_not_kept(self) -> None:
        assert self.codes("input.kind", np.empty((3, 0)).tolist() or [[]] * 3) == [NOT_CAPTURED] * 3
