"""Why an endpoint does worse: a moved input is named by what it does to the answers, a bad segment by how bad it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from predis.clock import ManualClock
from predis.errors import InvalidInput
from predis.expressions import Expression, compile_expression
from predis.monitoring.segments import LEVELS, OTHER, check_monitoring, configured, split
from predis.state import Database
from predis.stats import categorical_bins, numeric_bins
from tests.toys import ENDPOINT, LABEL, TENANT, Installation, installed, table

only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def expression(text: str) -> Expression:
    return compile_expression(text, names=["input.*"])


@only_sqlite
class TestDiagnosis:
    @pytest.fixture
    def toy(self, database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
        with installed(database, home, clock) as found:
            found.register("x")
            found.create_endpoint(monitoring={"segments": ["input.kind", "input.z > 1"]})
            found.deploy(1)
            yield found

    def moved(self, rows: int = 800) -> pa.Table:
        """``x`` moved by one, and where ``kind`` is b, labels are nearly noise."""
        found = table(rows, seed=5)
        rng = np.random.default_rng(6)
        noise = rng.integers(0, 2, rows).astype(float)
        kinds, labels = np.array(found["kind"].to_pylist()), found[LABEL].to_numpy()
        found = found.set_column(3, LABEL, pa.array(np.where(kinds == "b", noise, labels)))
        return found.set_column(0, "x", pa.array(found["x"].to_numpy() + 1.0))

    def test_what_moved_and_where_it_is_worst(self, toy: Installation) -> None:
        toy.observe(self.moved(), version=1)
        segments = (expression("input.kind"), expression("input.z > 1"))
        found = toy.platform.diagnosis.of(TENANT, ENDPOINT, number=1, segments=segments)
        assert (found["task"], found["rows"], found["labels"]) == ("binary", 800, 800)
        first, *others = found["inputs"]
        assert first["input"] == "x"
        assert first["score_shift"] > 0.05
        assert all(each["score_moved"] == 0 for each in others)  # the model does not look at them
        worst = found["segments"][0]
        assert (worst["segment"], worst["level"]) == ("input.kind", "b")
        assert worst["auc_high"] < 0.65
        assert found["estimate"]["method"] == "CBPE"
        assert found["estimate"]["auc"] > 0.7  # it cannot know that labels became noise
        assert found["estimate"]["error_so_far"]["mean"] > 0.05  # but labels told, and it says so
        assert "covariate shift" in found["estimate"]["assumption"]

    def test_every_input_where_no_segment_is_named(self, toy: Installation) -> None:
        toy.observe(self.moved(400), version=1)
        found = toy.platform.diagnosis.of(TENANT, ENDPOINT, number=1)
        levels = {(each["segment"], each["level"]): each for each in found["segments"]}
        assert levels["input['kind']", "b"]["auc_high"] < 0.7
        assert {segment for segment, _ in levels} >= {"input['kind']", "input['x']"}

    def test_nothing_to_look_at(self, toy: Installation) -> None:
        with pytest.raises(InvalidInput, match="was logged yet"):
            toy.platform.diagnosis.of(TENANT, ENDPOINT, number=1)
        with pytest.raises(InvalidInput, match="has no reference"):
            toy.platform.diagnosis.of(TENANT, ENDPOINT, number=7)


class TestSegments:
    COLUMNS: ClassVar[dict[str, list[Any]]] = {"n": [1.0, 5.0, None, 9.0], "t": ["a", "b", "a", None]}

    def test_of_texts(self) -> None:
        found = split(expression("input.t"), self.COLUMNS, bins={})
        assert {name: mine.tolist() for name, mine in found.items()} == {
            "a": [True, False, True, False], "b": [False, True, False, False], "missing": [False, False, False, True],
        }  # fmt: skip

    def test_of_a_condition(self) -> None:
        found = split(expression("input.n > 4 and input.t != 'x'"), self.COLUMNS, bins={})
        assert found["yes"].tolist() == [False, True, False, True]

    def test_of_numbers(self) -> None:
        bins = {"n": numeric_bins("n", np.arange(1, 101)), "t": categorical_bins("t", ["a"])}
        found = split(expression("input.n"), self.COLUMNS, bins=bins)
        assert found["missing"].tolist() == [False, False, True, False]
        assert sum(mine.sum() for mine in found.values()) == 4

    def test_the_rest_is_other(self) -> None:
        names = [f"l{place % 50}" for place in range(200)] + ["l0"] * 5
        found = split(expression("input.t"), {"t": names}, bins={})
        assert len(found) == LEVELS + 1
        assert next(iter(found)) == "l0"
        assert found[OTHER].sum() == 30 * 4

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"segments": ["score > 1"]}, "there is no 'score'"), ({"segments": "input.t"}, "is a list"), ({"slices": []}, "has the key segments"),
            ({"segments": ["input.t +"]}, "cannot be read"), ({"segments": ["input.t"] * 60}, "at most 50"), ([], "has the key"),
        ],
    )  # fmt: skip
    def test_refused(self, given: object, says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            check_monitoring({"monitoring": given}, "e")

    def test_none_configured(self) -> None:
        assert configured({}) == ()
