"""A backtest from the log to the report: what it finds, and what it says where it can find nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from predis.clock import ManualClock
from predis.errors import InvalidInput, ModelFailure
from predis.registry import Field, Registration, Signature
from predis.registry.signature import PROBABILITY
from predis.state import Database
from predis.state.records import Arm
from tests import toys
from tests.rollout.backtest.log import error, report, serve
from tests.toy_model import booster

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def installed(database: Database, home: Path, clock: ManualClock) -> Iterator[toys.Installation]:
    """Version 1 is right and answers, version 2 looks at the wrong column, version 3 is version 1 again."""
    with toys.installed(database, home, clock) as found:
        for column in ("x", "z", "x"):
            found.register(column)
        found.create_endpoint()
        serve(found, 1)
        yield found


def test_a_worse_candidate_is_found_out_before_anybody_meets_it(installed: toys.Installation) -> None:
    asked = toys.table(3_000)
    installed.label(installed.send(asked, version=1), asked)
    installed.digest()
    found = report(installed, 2)
    assert found["conclusion"]["outcome"] == "fail"
    assert found["conclusion"]["text"].startswith("would likely fail on AUC: ")
    assert found["window"]["versions"] == {"1": 3_000}
    assert (found["baseline"], found["baseline_scores"]) == (1, "logged")
    assert found["quality"]["difference"]["high"] < -0.2
    assert found["quality"]["coverage"] == 1.0
    assert found["shift"]["share_far"] > 0.8
    assert found["flips"]["flips"] == found["flips"]["up"] + found["flips"]["down"] > 1_000
    assert {gate["gate"]: gate["verdict"] for gate in found["gates"]} == {
        "errors": "pass", "latency": "pass", "scores": "pass", "auc": "fail",
    }  # fmt: skip
    auc = next(gate for gate in found["gates"] if gate["gate"] == "auc")
    assert 50 <= auc["requests"] < 5_000
    json.dumps(found, allow_nan=False)


def test_the_same_model_again_passes_with_nothing_changed(installed: toys.Installation) -> None:
    asked = toys.table(3_000)
    installed.label(installed.send(asked, version=1), asked)
    installed.digest()
    found = report(installed, 3)
    assert found["conclusion"] == {"outcome": "pass", "text": "would likely pass every gate"}
    assert found["flips"]["flips"] == 0
    assert found["shift"]["difference"]["quantiles"]["0.99"] == 0.0
    assert (found["shift"]["psi"], found["shift"]["ks"]) == (0.0, 0.0)
    assert found["shift"]["correlation"] == pytest.approx(1.0)
    assert found["fidelity"] == {"rows": 3_000, "same": 3_000, "worst": 0.0}
    assert not any(segment["stands_out"] for segment in found["segments"]["rows"])
    assert [each["rows"] for each in found["speed"]] == [1, 64, 256]
    assert all(each["candidate"]["p50_ms"] > 0 and each["ratio"] > 0 for each in found["speed"])


def test_without_labels_it_says_that_it_cannot_tell(installed: toys.Installation) -> None:
    installed.send(toys.table(500), version=1)
    found = report(installed, 2)
    assert found["conclusion"]["outcome"] == "unknown"
    assert (
        "not enough labels to tell (none of the replayed rows has a label yet)" in found["conclusion"]["text"]
    )
    assert found["quality"]["labels"] == 0


def test_labels_of_one_class_have_no_auc(installed: toys.Installation) -> None:
    asked = toys.table(500)
    positive = asked.filter(pa.array(np.asarray(asked.column(toys.LABEL)) == 1.0))
    installed.label(installed.send(positive, version=1), positive)
    found = report(installed, 2)
    assert "every label is positive" in found["quality"]["problem"]
    assert found["quality"]["baseline"]["auc"] is None
    assert found["conclusion"]["outcome"] == "unknown"


def test_scores_of_several_versions_are_no_baseline(installed: toys.Installation) -> None:
    """Where they were answered by several, the baseline answers every row again."""
    asked = toys.table(600)
    installed.send(asked.slice(0, 300), version=1)
    installed.send(asked.slice(300), version=2, column="z")
    found = report(installed, 3)
    assert found["window"]["versions"] == {"1": 300, "2": 300}
    assert found["baseline_scores"] == "replayed"
    assert found["flips"]["flips"] == 0


def test_a_baseline_may_be_named(installed: toys.Installation) -> None:
    installed.send(toys.table(400), version=1)
    found = report(installed, 3, baseline=2)
    assert (found["baseline"], found["baseline_scores"]) == (2, "replayed")
    assert found["flips"]["flips"] > 100


def test_of_many_rows_every_nth_is_taken(installed: toys.Installation) -> None:
    for _ in range(5):
        installed.send(toys.table(400), version=1)
        installed.platform.log.flush()
        installed.clock.advance(3_600)
    found = report(installed, 2, rows=500)
    assert (found["window"]["logged_rows"], found["window"]["rows"], found["window"]["sampled"]) == (
        2_000,
        500,
        True,
    )
    assert sum(each["rows"] for each in found["over_time"]) == 500


def test_what_lies_before_the_window_is_left_alone(installed: toys.Installation) -> None:
    installed.send(toys.table(400), version=1)
    installed.clock.advance(86_400)
    installed.send(toys.table(300), version=1)
    assert report(installed, 2, since="1h")["window"]["rows"] == 300
    assert report(installed, 2, since="2023-11-14T00:00:00Z")["window"]["rows"] == 700
    assert "holds nothing in this window" in error(installed, 2, since="0s")


def test_copies_that_answered_nobody_are_no_log_of_answers(installed: toys.Installation) -> None:
    asked = toys.table(300)
    installed.send(asked, version=1)
    installed.send(asked, version=2, column="z", arm=Arm.SHADOW, prefix="copy")
    found = report(installed, 3)
    assert found["window"]["versions"] == {"1": 300}


def test_an_empty_log_is_told_plainly(installed: toys.Installation) -> None:
    assert "holds nothing in this window" in error(installed, 2)


def test_files_that_are_gone_or_damaged_are_named_and_counted(
    installed: toys.Installation, home: Path
) -> None:
    for rows in (200, 300, 400):
        installed.send(toys.table(rows), version=1)
        installed.platform.log.flush()
    by_size = sorted((home / "log").rglob("*.parquet"), key=lambda path: path.stat().st_size)
    by_size[0].unlink()
    content = by_size[1].read_bytes()
    by_size[1].write_bytes(content[: len(content) // 2])
    found = report(installed, 2)
    assert found["window"]["rows"] == 400
    assert {each["what"]: each["rows"] for each in found["left_out"]} == {
        by_size[0].name: 200,
        by_size[1].name: 300,
    }
    by_size[2].write_bytes(b"")
    assert "none of the logged predictions in this window can be replayed" in error(installed, 2)


def other_inputs(installed: toys.Installation, *more: Field) -> int:
    """A version with other inputs."""
    put = installed.platform.artifacts.put
    names = ("x", *(field.name for field in more))
    wanted = Registration(
        model=toys.MODEL, format="lightgbm", files={"model.txt": put(booster("x", names=names)).digest},
        signature=Signature((toys.INPUTS[0], *more), (PROBABILITY,), "probability"),
    )  # fmt: skip
    return installed.platform.registry.register(toys.TENANT, wanted, actor="test").number


def test_missing_inputs_are_named(installed: toys.Installation) -> None:
    installed.send(toys.table(300), version=1)
    candidate = other_inputs(installed, Field("age", "FP64"), Field("kind", "FP64"))
    said = error(installed, candidate)
    assert "version 1: it has no input age" in said
    assert "kind (text in the log, numbers wanted)" in said


def test_fewer_inputs_are_no_matter(installed: toys.Installation) -> None:
    installed.send(toys.table(300), version=1)
    found = report(installed, other_inputs(installed))
    assert found["window"]["rows"] == 300
    assert found["fidelity"]["same"] == 300
    assert found["speed"][0]["ratio"] is not None
    assert {each["input"] for each in found["segments"]["rows"]} == {"x", "z", "kind"}


def test_texts_and_missing_values_come_back_as_they_were(installed: toys.Installation) -> None:
    """Unknown levels and nulls reach the model again: the baseline says the same."""
    asked = toys.table(300)
    kinds = pa.array(["a", "never met", None] * 100)
    holes = pa.array([None, 0.5, -0.5] * 100, pa.float64())
    seen = []

    class Spy:
        def __init__(self, model: Any) -> None:
            self._model = model
            self.usable = True

        def score(self, table: pa.Table) -> Any:
            seen.append(table)
            return self._model.score(table)

        def timings(self, table: pa.Table, *, rows: int) -> list[float]:
            return [0.001]

    spied(installed, Spy)
    told = asked.set_column(0, "x", holes).set_column(2, "kind", kinds)
    extra = json.dumps([[0, 2, "never met"]]).encode()
    for place in range(3):
        installed.send(told.slice(place, 1), version=1, **({"extra": extra} if place == 1 else {}))
    report(installed, 3)
    assert seen[0].column("kind").to_pylist() == ["a", "never met", None]
    assert seen[0].column("x").to_pylist() == [None, 0.5, -0.5]


def spied(installed: toys.Installation, wrap: Callable[[Any], Any], *, version: int = 0) -> None:
    """Put something around the models that a backtest opens."""
    registry = installed.platform.registry
    opened = registry.open

    @contextmanager
    def open_wrapped(wanted: Any) -> Iterator[Any]:
        with opened(wanted) as model:
            yield wrap(model) if version in (0, wanted.number) else model

    registry.open = open_wrapped  # type: ignore[method-assign]


class Fragile:
    """A candidate that fails on rows with z above ``limit``."""

    usable = True
    limit = 2.5

    def __init__(self, model: Any) -> None:
        self._model = model

    def score(self, table: pa.Table) -> Any:
        bad = np.asarray(table.column("z")) > self.limit
        if bad.any():
            raise ModelFailure("z is too large for me")
        return self._model.score(table)

    def timings(self, table: pa.Table, *, rows: int) -> list[float]:
        return list(self._model.timings(table, rows=rows))


def test_rows_that_the_candidate_fails_on_are_counted(installed: toys.Installation) -> None:
    asked = toys.table(1_000)
    bad = int((np.asarray(asked.column("z")) > Fragile.limit).sum())
    spied(installed, Fragile, version=2)
    installed.send(asked, version=1)
    found = report(installed, 2)
    assert bad > 0
    assert found["errors"]["failed"] == bad
    assert found["errors"]["first"] == "z is too large for me"
    assert found["window"]["rows"] == 1_000 - bad


def test_a_candidate_that_fails_too_often_fails_the_gate(installed: toys.Installation) -> None:
    class Weak(Fragile):
        limit = 1.8

    spied(installed, Weak, version=2)
    installed.send(toys.table(1_000), version=1)
    found = report(installed, 2)
    assert found["errors"]["rate"] > 0.02
    assert "errors" in found["conclusion"]["text"]
    assert found["conclusion"]["outcome"] == "fail"


def test_a_candidate_that_always_fails_ends_it(installed: toys.Installation) -> None:
    class Broken(Fragile):
        limit = -np.inf

    spied(installed, Broken, version=2)
    installed.send(toys.table(300), version=1)
    assert error(installed, 2) == "the model fails on every row that was tried: z is too large for me"


def test_scores_that_are_no_numbers_are_counted_and_left_out(installed: toys.Installation) -> None:
    class Vague(Fragile):
        def score(self, table: pa.Table) -> Any:
            scores = np.array(self._model.score(table))
            scores[:2] = (np.nan, np.inf)
            return scores

    spied(installed, Vague, version=2)
    installed.send(toys.table(300), version=1)
    found = report(installed, 2)
    assert (found["errors"]["not_finite"], found["window"]["rows"]) == (2, 298)


def test_a_candidate_without_any_score_ends_it(installed: toys.Installation) -> None:
    class Mute(Fragile):
        def score(self, table: pa.Table) -> Any:
            return np.full(table.num_rows, np.nan)

    spied(installed, Mute, version=2)
    installed.send(toys.table(300), version=1)
    assert "version 2 gave no score for any of 300 rows" in error(installed, 2)


def test_a_baseline_that_does_not_open_costs_its_latency_only(installed: toys.Installation) -> None:
    def gone(_model: Any) -> Any:
        raise InvalidInput("the file is gone")

    spied(installed, gone, version=1)
    installed.send(toys.table(300), version=1)
    found = report(installed, 2)
    assert found["baseline_problem"] == "the file is gone"
    assert found["speed"][0]["ratio"] is None


def test_a_baseline_that_fails_on_the_log_costs_its_latency_only(installed: toys.Installation) -> None:
    class Broken(Fragile):
        limit = -np.inf

    spied(installed, Broken, version=1)
    installed.send(toys.table(300), version=1)
    found = report(installed, 2)
    assert "fails on every row" in found["baseline_problem"]
    assert (found["baseline_scores"], found["window"]["rows"]) == ("logged", 300)
    assert "fails on every row" in error(installed, 2, baseline=1)


def test_a_log_that_does_not_hold_all_that_the_model_saw_is_told(installed: toys.Installation) -> None:
    installed.send(toys.table(300), version=1, sign=-1.0)  # the scores are not those of version 1's file
    found = report(installed, 2)
    assert found["fidelity"]["same"] < 10
    assert found["fidelity"]["worst"] > 0.5


def test_flips_are_found_where_they_are(installed: toys.Installation) -> None:
    """Version 4 is version 1 but for one kind of row."""

    class Partial(Fragile):
        def score(self, table: pa.Table) -> Any:
            scores = np.array(self._model.score(table))
            mine = np.asarray(table.column("kind")) == "b"
            return np.where(mine, 1 - scores, scores)

    spied(installed, Partial, version=3)
    installed.send(toys.table(800), version=1)
    worst = report(installed, 3)["segments"]["rows"][0]
    assert (worst["input"], worst["segment"], worst["stands_out"]) == ("kind", "= b", True)
    assert worst["rate"] == 1.0
    assert worst["rest_rate"] == 0.0
