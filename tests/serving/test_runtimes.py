from __future__ import annotations

import numpy as np
import pytest

from predis.errors import InvalidInput, ModelFailure
from predis.registry.model import FORMATS
from predis.registry.signature import Field
from predis.serving import runtimes
from predis.state.records import Matrix
from tests.serving.helpers import ONE, SCORE, FakeRuntime, booster_text, logistic_graph, signature, table

TWO = np.array([[1.0], [2.0]])


def test_every_format_of_the_registry_has_a_runtime() -> None:
    for kind in FORMATS:
        with pytest.raises(ModelFailure):
            runtimes.load(kind, {"model": b"not a model"})


@pytest.mark.parametrize("kind", ["", "pickle", "LightGBM", "../onnx"])
def test_an_unknown_format(kind: str) -> None:
    with pytest.raises(InvalidInput, match="the formats are lightgbm, onnx"):
        runtimes.load(kind, {"model": b""})


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("contents", [{}, {"a": b"", "b": b""}])
def test_a_model_is_one_file(kind: str, contents: dict[str, bytes]) -> None:
    with pytest.raises(InvalidInput, match="is one file"):
        runtimes.load(kind, contents)


class TestRun:
    def test_gives_the_outputs(self) -> None:
        (found,) = runtimes.run(FakeRuntime(ONE), TWO, unseen={})
        assert found.tolist() == [1, 2]

    @pytest.mark.parametrize(
        "error", [ValueError("bad"), RuntimeError("bad"), MemoryError("bad"), InvalidInput("bad")]
    )
    def test_translates_whatever_the_library_raises(self, error: Exception) -> None:
        def fail(_features: Matrix) -> list[Matrix]:
            raise error

        with pytest.raises(ModelFailure, match=f"{type(error).__name__}: bad") as caught:
            runtimes.run(FakeRuntime(ONE, fail), TWO, unseen={})
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize(
        "outputs",
        [[], [np.zeros(1)], [np.zeros(3)], [np.zeros((1, 2))], [np.array(1.0)], [np.zeros(2), np.zeros(2)]],
        ids=lambda outputs: str([o.shape for o in outputs]),
    )
    def test_refuses_another_number_of_rows_or_outputs(self, outputs: list[Matrix]) -> None:
        """An answer with a row too few would be read as the answer of another row."""
        with pytest.raises(ModelFailure, match="for 2 rows and 1 outputs"):
            runtimes.run(FakeRuntime(ONE, lambda _features: outputs), TWO, unseen={})


class TestScores:
    OUTPUTS = (
        np.array([1, 0, 1]),
        np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]], np.float32),
        np.array([[1.0, 2.0, 3.0]] * 3),
        np.array([[4.0], [5.0], [6.0]]),
    )

    @pytest.mark.parametrize(
        ("score", "expected"),
        [("label", [1, 0, 1]), ("two", [0.9, 0.2, 0.5]), ("three", [1, 1, 1]), ("column", [4, 5, 6])],
    )
    def test_are_the_score_output_or_the_second_of_two_probabilities(
        self, score: str, expected: list[float]
    ) -> None:
        outputs = (
            Field("label", "INT64"),
            Field("two", "FP32", (-1, 2)),
            Field("three", "FP64", (-1, 3)),
            Field("column", "FP64", (-1, 1)),
        )
        found = runtimes.scores_of(signature(Field("x", "FP64"), outputs=outputs, score=score), self.OUTPUTS)
        np.testing.assert_allclose(found, expected, rtol=1e-7)
        assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.float64, (3,), True)


class TestInspect:
    """What the registry asks at registration."""

    def test_gives_the_signature_and_a_way_to_score(self) -> None:
        found, score = runtimes.inspect("lightgbm", {"m": booster_text()}, signature=None, inputs=())
        assert found.feature_names == ("a", "b", "kind", "c")
        scores = score(table(50))
        assert scores.shape == (50,)
        assert ((scores > 0) & (scores < 1)).all()

    def test_keeps_the_signature_given(self) -> None:
        wanted = signature(*(Field(n, "FP32") for n in "pqr"), outputs=(SCORE,))
        found, score = runtimes.inspect("onnx", {"m": logistic_graph()}, signature=wanted, inputs=())
        assert found is wanted
        assert score(np.zeros((1, 3))).tolist() == [0.5]


class TestOrder:
    def test_own_names_in_another_order_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match="the inputs must stand in the model's order: a, b"):
            runtimes.check_order("inputs", ["b", "a"], own=["a", "b"])

    @pytest.mark.parametrize("names", [["a", "b"], ("a", "b"), ["x", "y"], ["a", "c"], ["b"]])
    def test_other_names_are_a_matter_of_taste(self, names: list[str]) -> None:
        runtimes.check_order("inputs", names, own=("a", "b"))
