from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from predis.registry.difference import difference
from predis.registry.model import File, Version
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.stats import build_profile, psi

X, KIND = Field("x", "FP64"), Field("kind", "BYTES", levels=("a", "b"))
ONE = Version(
    tenant="default", model="churn", number=3, format="lightgbm", digest="0" * 64, files=(File("model.txt", "1" * 64, 100),),
    signature=Signature((X, KIND), (PROBABILITY,), "probability"), metrics={"auc": 0.8, "log_loss": 0.5, "rows": 100.0},
    lineage={"parameters": {"depth": 6, "eta": 0.1}, "revision": "aaa", "reference": "2" * 64}, created_at=1, created_by="ann",
)  # fmt: skip


def profile(
    seed: int = 0, *, shift: float = 0.0, levels: tuple[str, ...] = ("a", "b"), rows: int = 20_000
) -> Any:
    rng = np.random.default_rng(seed)
    matrix = np.column_stack(
        [rng.normal(shift, 1, rows), rng.integers(0, len(levels), rows), rng.integers(0, 4, rows)]
    )
    matrix[: rows // 50, 0] = np.nan
    return build_profile(
        matrix, names=("x", "kind", "few"), levels={"kind": levels}, scores=rng.uniform(0, 1, rows),
        labels=(rng.uniform(0, 1, rows) < 0.25).astype(float),
    ).to_dict()  # fmt: skip


def test_a_version_and_itself() -> None:
    found = difference(ONE, replace(ONE, number=4, created_at=2))
    assert (found["before"], found["after"], found["same"]) == (3, 4, True)
    assert {m["difference"] for m in found["metrics"].values()} == {0.0}
    assert {m["better"] for m in found["metrics"].values()} == {None}
    assert found["inputs"] == found["outputs"] == {"added": [], "removed": [], "changed": {}}
    assert (found["order"], found["score"], found["format"], found["reference"]) == (None, None, None, None)
    assert found["files"] == {"added": [], "removed": [], "changed": []}
    assert found["provenance"] == {}


def test_metrics_of_different_holdouts_say_not_which_is_better() -> None:
    other = replace(ONE, metrics={"auc": 0.99}, lineage={**ONE.lineage, "holdout": "another"})
    found = difference(ONE, other)
    assert found["same_holdout"] is False
    assert found["metrics"]["auc"]["better"] is None
    assert found["metrics"]["auc"]["difference"] > 0


def test_metrics_know_what_is_better() -> None:
    metrics = {"auc": 0.82, "log_loss": 0.45, "rows": 200.0, "ks": 0.4}
    found = difference(ONE, replace(ONE, metrics=metrics))["metrics"]
    assert found["auc"]["difference"] == pytest.approx(0.02)
    assert [found[name]["better"] for name in ("auc", "log_loss", "rows", "ks")] == [True, True, None, None]
    assert found["ks"] == {"before": None, "after": 0.4, "difference": None, "better": None}
    assert difference(ONE, replace(ONE, metrics={"auc": 0.7}))["metrics"]["auc"]["better"] is False


def test_signatures() -> None:
    inputs = (
        Field("kind", "BYTES", levels=("b", "a", "c")),
        Field("x", "FP32", nullable=True),
        Field("z", "INT64"),
    )
    changed = replace(ONE, signature=Signature(inputs, (Field("margin", "FP64"),), "margin"), format="onnx")
    found = difference(ONE, changed)
    assert [field["name"] for field in found["inputs"]["added"]] == ["z"]
    assert found["inputs"]["changed"] == {
        "x": {"datatype": {"before": "FP64", "after": "FP32"}, "nullable": {"before": False, "after": True}},
        "kind": {"levels": {"added": ["c"], "removed": [], "moved": True}},
    }
    assert [field["name"] for field in found["outputs"]["removed"]] == ["probability"]
    assert found["score"] == {"before": "probability", "after": "margin"}
    assert found["format"] == {"before": "lightgbm", "after": "onnx"}
    assert found["order"] is None  # they do not have the same inputs
    turned = replace(ONE, signature=replace(ONE.signature, inputs=(KIND, X)))
    assert difference(ONE, turned)["order"] == {"before": ["x", "kind"], "after": ["kind", "x"]}


def test_files_and_size() -> None:
    files = (File("model.txt", "3" * 64, 150), File("note", "4" * 64, 1))
    found = difference(ONE, replace(ONE, files=files, digest="5" * 64))
    assert not found["same"]
    assert found["files"] == {"added": ["note"], "removed": [], "changed": ["model.txt"]}
    assert found["size_bytes"] == {"before": 100, "after": 151}


def test_provenance() -> None:
    lineage = {"parameters": {"depth": 7, "eta": 0.1, "seed": 1}, "revision": "aaa", "parent": 3}
    found = difference(ONE, replace(ONE, lineage=lineage, created_by="retraining"))["provenance"]
    assert found == {
        "created_by": {"before": "ann", "after": "retraining"},
        "parameters.depth": {"before": 6, "after": 7},
        "parameters.seed": {"before": None, "after": 1},
        "reference": {"before": "2" * 64, "after": None},
        "parent": {"before": None, "after": 3},
    }


class TestReferences:
    def between(self, before: Any, after: Any) -> dict[str, Any]:
        found: dict[str, Any] = difference(replace(ONE, profile=before), replace(ONE, profile=after))[
            "reference"
        ]
        return found

    def test_the_same(self) -> None:
        found = self.between(profile(), profile())
        assert all(
            shift == {"psi": 0.0, "exact": True} for shift in (found["score"], *found["features"].values())
        )
        assert found["rows"] == {"before": 20_000, "after": 20_000}
        assert found["label_rate"]["before"] == pytest.approx(0.25, abs=0.02)

    def test_other_rows_of_the_same_kind(self) -> None:
        found = self.between(profile(1), profile(2))
        assert all(shift["psi"] < 0.01 for shift in (found["score"], *found["features"].values()))
        assert not found["features"]["x"]["exact"]
        assert found["features"]["kind"]["exact"]
        assert found["features"]["few"]["exact"]

    def test_a_shift_is_seen_as_if_the_rows_were_there(self) -> None:
        """The PSI that spreads counts is near the one that has the rows."""
        before, after = profile(1), profile(2, shift=1.0)
        found = self.between(before, after)
        rows = np.random.default_rng(2).normal(1.0, 1, 20_000)[400:]
        cuts = [-np.inf, *before["bins"][0]["edges"][1:-1], np.inf]
        counts = [np.count_nonzero((rows >= low) & (rows < high)) for low, high in itertools.pairwise(cuts)]
        truth = psi([*before["counts"][0][1:-2], 400], [*counts, 400])
        assert found["features"]["x"]["psi"] == pytest.approx(truth, rel=0.1)
        assert next(iter(found["features"])) == "x"  # what moved most comes first

    def test_levels_go_by_their_names(self) -> None:
        found = self.between(profile(1), profile(1, levels=("b", "c", "a")))
        assert found["features"]["kind"]["exact"]
        assert found["features"]["kind"]["psi"] > 1.0

    def test_what_cannot_be_compared(self) -> None:
        empty = build_profile(
            np.full((50, 1), np.nan), names=("x",), levels={}, scores=np.zeros(50), labels=None
        ).to_dict()
        found = self.between(profile(), empty)
        assert found["features"] == {"x": {"psi": None, "exact": False}}
        assert found["label_rate"]["after"] is None
        assert difference(replace(ONE, profile=profile()), ONE)["reference"] is None
