from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from predis.errors import InvalidInput, ModelFailure
from predis.registry.model import FORMATS
from predis.registry.signature import NUMPY_OF, Field
from predis.serving import runtimes
from predis.state.records import Matrix
from tests.serving.helpers import ONE, FakeRuntime, signature
from tests.serving.models import CASES, matrix

TWO = matrix([[1.0], [2.0]])


SINGLE_FILE = sorted(FORMATS.keys() - {"python", "sklearn"})


def test_every_format_of_the_registry_has_a_runtime() -> None:
    for kind in FORMATS:
        with pytest.raises(ModelFailure):
            runtimes.load(kind, {"model.py": b"not a model"})


def test_a_model_tested_of_every_format() -> None:
    assert {case.kind for case in CASES.values()} == FORMATS.keys()


@pytest.mark.parametrize("kind", ["", "pickle", "LightGBM", "../onnx"])
def test_an_unknown_format(kind: str) -> None:
    with pytest.raises(
        InvalidInput, match="the formats are catboost, lightgbm, onnx, python, sklearn, torch, xgboost"
    ):
        runtimes.load(kind, {"model": b""})


@pytest.mark.parametrize("kind", SINGLE_FILE)
@pytest.mark.parametrize("contents", [{}, {"a": b"", "b": b""}])
def test_a_model_is_one_file(kind: str, contents: dict[str, bytes]) -> None:
    with pytest.raises(InvalidInput, match="is one file"):
        runtimes.load(kind, contents)


class TestRun:
    def test_gives_the_outputs(self) -> None:
        (found,) = runtimes.run(FakeRuntime(ONE), TWO)
        assert found.tolist() == [1, 2]

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("bad"),
            RuntimeError("bad"),
            MemoryError("bad"),
            InvalidInput("bad"),
            SystemExit("bad"),
            GeneratorExit("bad"),
        ],
    )
    def test_translates_whatever_the_library_raises(self, error: BaseException) -> None:
        def fail(_features: Matrix) -> list[Matrix]:
            raise error

        with pytest.raises(ModelFailure, match=f"{type(error).__name__}: bad") as caught:
            runtimes.run(FakeRuntime(ONE, fail), TWO)
        assert caught.value.__cause__ is error

    def test_lets_whoever_is_at_the_keyboard_interrupt(self) -> None:
        def interrupt(_features: Matrix) -> list[Matrix]:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            runtimes.run(FakeRuntime(ONE, interrupt), TWO)

    @pytest.mark.parametrize("answer", [None, 0.5, [0.5], [None], [[0.5, 0.5]], ["ab"]], ids=repr)
    def test_refuses_what_is_no_list_of_arrays(self, answer: Any) -> None:
        with pytest.raises(ModelFailure, match="what is no list of arrays"):
            runtimes.run(FakeRuntime(ONE, lambda _features: answer), TWO)

    @pytest.mark.parametrize(
        "values", [[10**30, 1], [math.nan, 1.0], [math.inf, 1.0], [{}, 1], [None, 1]], ids=repr
    )
    def test_refuses_values_that_become_no_numbers(self, values: list[Any]) -> None:
        wanted = signature(Field("x", "FP64"), outputs=(Field("y", "INT32"),))
        output = np.array(values, np.object_)
        with pytest.raises(ModelFailure, match="output 'y' is not INT32"):
            runtimes.run(FakeRuntime(wanted, lambda _features: [output]), TWO)

    @pytest.mark.parametrize(
        ("outputs", "says"),
        [
            ([], "answered 0 outputs, its signature has 1"),
            ([np.zeros(2), np.zeros(2)], "answered 2 outputs"),
            ([np.zeros(1)], r"answered \[1\] for 2 rows of output 'score', whose shape is \[-1\]"),
            ([np.zeros(3)], "for 2 rows"),
            ([np.zeros((1, 2))], "for 2 rows"),
            ([np.zeros((2, 2))], "for 2 rows"),
            ([np.array(1.0)], "for 2 rows"),
            ([np.array(["a", "b"], np.object_)], "output 'score' is not FP64: ValueError"),
        ],
        ids=lambda value: "" if isinstance(value, str) else str([o.shape for o in value]),
    )
    def test_refuses_what_the_signature_does_not_say(self, outputs: list[Any], says: str) -> None:
        """An answer with a row too few would be read as the answer of another row."""
        with pytest.raises(ModelFailure, match=says):
            runtimes.run(FakeRuntime(ONE, lambda _features: outputs), TWO)

    @pytest.mark.parametrize(
        ("output", "field", "expected"),
        [
            (np.array([[1.0], [2.0]], np.float32), Field("y", "FP64"), [1.0, 2.0]),
            (np.array([1.0, 2.0]), Field("y", "FP32"), [1.0, 2.0]),
            (np.array([True, False]), Field("y", "INT64"), [1, 0]),
            (np.array([[1, 2], [3, 4]]), Field("y", "FP16", (-1, 2)), [[1, 2], [3, 4]]),
            (np.array([["a"], ["b"]], np.object_), Field("y", "BYTES"), ["a", "b"]),
        ],
        ids=str,
    )
    def test_makes_of_an_output_what_the_signature_says(
        self, output: Any, field: Field, expected: list[Any]
    ) -> None:
        wanted = signature(Field("x", "FP64"), outputs=(field,))
        (found,) = runtimes.run(FakeRuntime(wanted, lambda _features: [output]), TWO)
        assert found.tolist() == expected
        assert found.dtype == np.dtype(NUMPY_OF[field.datatype])


class TestScores:
    OUTPUTS = (
        np.array([1, 0, 1]),
        np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]], np.float32),
        np.array([[1.0, 2.0, 3.0]] * 3),
        np.array([[4.0], [5.0], [6.0]]),
    )

    @pytest.mark.parametrize(
        ("score", "expected"),
        [("label", [1, 0, 1]), ("two", [0.9, 0.2, 0.5]), ("three", [3 - 2**-40] * 3), ("column", [4, 5, 6])],
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


class TestOrder:
    def test_own_names_in_another_order_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match="the inputs must stand in the model's order: a, b"):
            runtimes.check_order("inputs", ["b", "a"], own=["a", "b"])

    @pytest.mark.parametrize("names", [["a", "b"], ("a", "b"), ["x", "y"], ["a", "c"], ["b"]])
    def test_other_names_are_a_matter_of_taste(self, names: list[str]) -> None:
        runtimes.check_order("inputs", names, own=("a", "b"))
