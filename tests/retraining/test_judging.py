"""Champion against challenger for numbers and for more than two classes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from predis.errors import InvalidInput
from predis.retraining import judging
from predis.retraining.training import TrainJob


def champion(task: str | None, classes: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(number=1, signature=SimpleNamespace(task=task, classes=classes))


class TestNumbers:
    def test_better_by_a_share_of_the_champions_error(self) -> None:
        rng = np.random.default_rng(1)
        labels = rng.normal(100.0, 20.0, 600)
        scores = labels + rng.normal(0, 10, 600), labels + rng.normal(0, 5, 600)
        found = judging.compared(champion("regression"), scores, labels=labels, margin=0.3)
        assert found["decision"] == "better"
        assert found["champion_mae"] > found["challenger_mae"]
        assert (
            judging.compared(champion("regression"), scores, labels=labels, margin=0.6)["decision"]
            == "not better"
        )

    def test_the_same_is_not_better(self) -> None:
        labels = np.arange(100.0)
        found = judging.compared(champion("regression"), (labels + 1, labels - 1), labels=labels, margin=0.0)
        assert found["decision"] == "not better"


class TestClasses:
    KNOWN = champion("multiclass", ("a", "b", "c"))

    def test_better_by_accuracy(self) -> None:
        rng = np.random.default_rng(2)
        labels = rng.integers(0, 3, 500).astype(float)
        guesses = np.where(rng.random(500) < 0.5, labels, rng.integers(0, 3, 500)) + 0.5
        found = judging.compared(self.KNOWN, (guesses, labels + 0.9), labels=labels, margin=0.05)
        assert (found["decision"], found["challenger_accuracy"]) == ("better", 1.0)

    def test_labels_go_to_the_train_function_by_name_and_come_back_as_numbers(self) -> None:
        column = judging.label_column(self.KNOWN, [2.0, 0.0, 1.0])
        assert column.to_pylist() == ["c", "a", "b"]
        assert judging.labels_of(self.KNOWN, pa.chunked_array([column])).tolist() == [2.0, 0.0, 1.0]
        job = TrainJob(pa.table({"x": [1.0, 2.0, 3.0], "y": column}), "y", None)  # type: ignore[arg-type]
        assert job.labels().tolist() == [2.0, 0.0, 1.0]
        with pytest.raises(InvalidInput, match="no class of version 1"):
            judging.labels_of(self.KNOWN, pa.chunked_array([["d"]]))

    def test_what_labels_may_be(self) -> None:
        assert judging.labels_allowed(self.KNOWN) == (["a", "b", "c"], 3)
        assert judging.labels_allowed(champion("regression")) == (None, 2)
        assert judging.labels_allowed(champion(None)) == ([0.0, 1.0], 2)
        assert "a, b, c" in judging.words(self.KNOWN)
