from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from predis.errors import InvalidInput
from predis.registry import evaluation
from predis.registry.dataset import DataSet
from predis.registry.evaluation import metrics_of, profile_of, read_parquet, settled, survey, without
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.stats import Profile
from tests.toys import parquet


class Half:
    """A model that scores with one of its inputs."""

    def __init__(self, *inputs: Field) -> None:
        self.signature = Signature(inputs, (PROBABILITY,), "probability")

    def score(self, table: pa.Table) -> Any:
        return (
            table.column("x").combine_chunks().to_numpy().astype(float)
            if "x" in table.column_names
            else np.full(table.num_rows, 0.5)
        )


X = Field("x", "FP64")


class TestMetrics:
    def test_of_a_model_that_knows(self) -> None:
        found = metrics(Half(X), pa.table({"x": [0.1, 0.9, 0.2, 0.8], "y": [0, 1, 0, 1]}), label="y")
        assert found["auc"] == 1.0

    @pytest.mark.parametrize(
        ("labels", "label", "says"),
        [
            ([0, 1], "", "need the labels"), ([0, 1], "z", "need the labels"), ([1, 1], "y", "every label of the holdout is the same"),
            ([0, 2], "y", "must hold 0 and 1 only"), ([0, None], "y", "must hold 0 and 1 only"), (["a", "b", "c"], "y", "0 and 1 only, or the names of two"),
        ],
    )  # fmt: skip
    def test_without_labels_of_both_kinds(self, labels: list[Any], label: str, says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            metrics(Half(X), pa.table({"x": np.linspace(0, 1, len(labels)), "y": labels}), label=label)

    @pytest.mark.parametrize("kind", [pa.int8(), pa.float32(), pa.bool_(), pa.string()])
    def test_labels_of_any_type(self, kind: pa.DataType) -> None:
        labels = pa.array([False, True]) if kind == pa.bool_() else pa.array([0, 1]).cast(kind)
        if kind == pa.bool_():
            labels = labels.cast(pa.int8())
        assert metrics(Half(X), pa.table({"x": [0.1, 0.9], "y": labels}), label="y")["auc"] == 1.0


class TestProfile:
    def test_of_wide_inputs(self) -> None:
        table = pa.table({"x": [[1.0, 2.0], [3.0, 4.0]], "kinds": [["a", "b"], ["b", None]]})
        fields = (
            Field("x", "FP64", (-1, 2)),
            Field("kinds", "BYTES", (-1, 2), nullable=True, levels=("a", "b")),
        )

        class Flat(Half):
            def score(self, table: pa.Table) -> Any:
                return np.array([0.1, 0.2])

        found = Profile.from_dict(profile(Flat(*fields), table, label=""))
        assert [each.name for each in found.bins] == ["x[0]", "x[1]", "kinds[0]", "kinds[1]"]

    def test_of_free_texts(self) -> None:
        found = Profile.from_dict(
            profile(Half(Field("t", "BYTES", nullable=True)), pa.table({"t": ["long", None]}), label="")
        )
        assert [each.tolist() for each in found.counts] == [[1, 1]]  # one that is no level, one missing

    def test_of_rows_too_long_to_be_watched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(evaluation, "WATCHED_COLUMNS", 1)

        class Flat(Half):
            def score(self, table: pa.Table) -> Any:
                return np.array([0.1, 0.2])

        found = Profile.from_dict(
            profile(Flat(Field("x", "FP64", (-1, 2))), pa.table({"x": [[1, 2], [3, 4]]}), label="")
        )
        assert (found.bins, found.rows) == ((), 2)

    def test_of_whole_numbers_that_a_float_rounds(self) -> None:
        table = pa.table({"id": [2**60 + 1, 2**60 + 3]})
        assert Profile.from_dict(profile(Half(Field("id", "INT64")), table, label="")).rows == 2


@pytest.mark.parametrize("content", [b"", b"PAR1", parquet(pa.table({"x": [1]}))[:-5]])
def test_what_is_no_parquet(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="the reference is not a Parquet file"):
        read_parquet(content, "reference")


def test_no_rows() -> None:
    with pytest.raises(InvalidInput, match="the holdout has no rows"):
        read_parquet(parquet(pa.table({"x": pa.array([], pa.int64())})), "holdout")


def test_a_column_less() -> None:
    table = pa.table({"x": [1], "y": [2]})
    assert without(table, "y").column_names == ["x"]
    assert without(table, "z") is table


def data(table: pa.Table, what: str = "holdout") -> DataSet:
    return DataSet(pa.BufferReader(parquet(table)), what)


def metrics(model: Half, table: pa.Table, *, label: str) -> dict[str, float]:
    with data(table) as holdout:
        signature = settled(model.signature, [holdout], label=label)
        return metrics_of(model, holdout, label=label, signature=signature)[0]


def profile(model: Half, table: pa.Table, *, label: str) -> dict[str, Any]:
    with data(table, "reference") as reference:
        signature = settled(model.signature, [reference], label=label)
        sample = survey(reference, label=label).sample
        return profile_of(model, reference, sample=sample, label=label, signature=signature)


class Constant(Half):
    """A model with another output."""

    def __init__(self, output: Field, scores: list[float], **said: Any) -> None:
        self.signature = Signature((X,), (output,), output.name, **said)
        self._scores = scores

    def score(self, table: pa.Table) -> Any:
        return np.array(self._scores)


class TestTask:
    def test_of_numbers(self) -> None:
        model = Constant(Field("prediction", "FP64"), [1.0, 2.0])
        table = pa.table({"x": [0.1, 0.9], "y": [1.5, 2.0]})
        assert settled(model.signature, [data(table), None], label="y").task == "regression"
        assert metrics(model, table, label="y")["mae"] == 0.25
        assert settled(model.signature, [None], label="y").task is None

    def test_of_numbers_that_are_0_and_1(self) -> None:
        model = Constant(Field("decision", "FP64"), [-1.0, 2.0])
        assert metrics(model, pa.table({"x": [0.1, 0.9], "y": [0, 1]}), label="y")["auc"] == 1.0

    def test_of_classes(self) -> None:
        model = Constant(Field("probabilities", "FP64", (-1, 3)), [0.9, 1.8, 2.5])
        table = pa.table({"x": [0.1, 0.9, 0.2], "y": ["ant", "bee", "cat"]})
        found = settled(model.signature, [data(table)], label="y")
        assert (found.task, found.classes) == ("multiclass", ("ant", "bee", "cat"))
        assert metrics(model, table, label="y")["accuracy"] == 1.0
        assert Signature.from_dict(found.to_dict()) == found

    def test_said_otherwise(self) -> None:
        model = Constant(Field("probability", "FP64"), [0.2, 0.8], task="regression")
        assert "mae" in metrics(model, pa.table({"x": [0.1, 0.9], "y": [0.5, 1.0]}), label="y")
        with pytest.raises(InvalidInput, match="a task is one of"):
            Constant(Field("probability", "FP64"), [], task="ranking")
