from __future__ import annotations

import numpy as np
import pytest

from predis.errors import InvalidInput, ModelFailure
from predis.registry.signature import PROBABILITY, Field
from predis.serving import runtimes
from tests.serving.helpers import signature
from tests.serving.models import KINDS, NAMES, catboost_model, catboost_rows, matrix, numbers, tensors

A, KIND, B, C = (
    Field("a", "FP64", nullable=True),
    Field("kind", "BYTES", nullable=True, levels=KINDS),
    Field("b", "FP64", nullable=True),
    Field("c", "FP64", nullable=True),
)
MODEL = {"m.cbm": catboost_model(texts=True)}


class TestSignature:
    def test_made_of_the_model(self) -> None:
        found = runtimes.load("catboost", MODEL).signature
        assert found.inputs == (A, Field("kind", "BYTES", nullable=True), B, C)
        assert found.outputs == (PROBABILITY,)

    def test_made_of_the_references_columns(self) -> None:
        assert runtimes.load("catboost", MODEL, inputs=(A, KIND, B, C)).signature.inputs == (A, KIND, B, C)

    @pytest.mark.parametrize(
        ("loss", "output"),
        [
            ("MultiClass", Field("probabilities", "FP64", (-1, 3))),
            ("Poisson", Field("prediction", "FP64")),
            ("RMSE", Field("prediction", "FP64")),
        ],
    )
    def test_of_every_kind_of_loss(self, loss: str, output: Field) -> None:
        found = runtimes.load("catboost", {"m": catboost_model(texts=False, loss=loss)}).signature
        assert found.outputs == (output,)

    @pytest.mark.parametrize(
        ("inputs", "says"),
        [
            ((A, KIND, B), "the model has 4 features, its signature 3"),
            ((KIND, A, B, C), "in the model's order: a, kind, b, c"),
            (
                (A, Field("kind", "FP64"), B, C),
                "'kind' is categorical in the model: give it as texts, not FP64",
            ),
            ((A, Field("kind", "INT64", nullable=True), B, C), "'kind' is categorical"),
            ((A, KIND, Field("b", "BYTES", levels=("x",)), C), "'b' is a number in the model"),
            ((A, Field("kind", "BYTES", raw=True), B, C), "'kind' must be one number or text"),
            ((A, KIND, Field("both", "FP64", (-1, 2))), "one number or text per row"),
        ],
        ids=str,
    )
    def test_that_does_not_fit(self, inputs: tuple[Field, ...], says: str) -> None:
        for given in ({"inputs": inputs}, {"signature": signature(*inputs)}):
            with pytest.raises(InvalidInput, match=says):
                runtimes.load("catboost", MODEL, **given)  # type: ignore[arg-type]

    def test_levels_as_codes_where_the_model_has_numbers(self) -> None:
        coded = (*(Field(name, "FP64") for name in NAMES[:2]), Field("c", "BYTES", levels=("x", "y")))
        model = runtimes.load("catboost", {"m": catboost_model(texts=False)}, inputs=coded)
        assert model.takes == "matrix"
        with pytest.raises(InvalidInput, match="'c' is a number in the model"):
            runtimes.load(
                "catboost", {"m": catboost_model(texts=False)}, inputs=(*coded[:2], Field("c", "BYTES"))
            )


def test_whole_numbers_may_be_categories() -> None:
    model = runtimes.load("catboost", MODEL, inputs=(A, Field("kind", "INT64"), B, C))
    x = numbers(3)
    numbered = tensors(a=x[:, 0], kind=np.array([1, 2, 3]), b=x[:, 1], c=x[:, 2])
    as_texts = tensors(a=x[:, 0], kind=["1", "2", "3"], b=x[:, 1], c=x[:, 2])
    (right,) = runtimes.load("catboost", MODEL).predict(as_texts)
    np.testing.assert_array_equal(model.predict(numbered)[0], right)


def test_a_missing_text_is_an_empty_one() -> None:
    model, missing, empty = runtimes.load("catboost", MODEL), catboost_rows(5, 0), catboost_rows(5, 0)
    assert missing.tensors is not None
    assert empty.tensors is not None
    missing.tensors["kind"][:], empty.tensors["kind"][:] = None, ""
    np.testing.assert_array_equal(model.predict(missing)[0], model.predict(empty)[0])


@pytest.mark.parametrize("content", [b"", b"CBM", b"tree\n", b"{}"])
def test_another_file(content: bytes) -> None:
    with pytest.raises(ModelFailure, match="not a CatBoost model"):
        runtimes.load("catboost", {"m": content})


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_one_cut_short(share: float) -> None:
    whole = MODEL["m.cbm"]
    with pytest.raises(ModelFailure, match="CatBoost: "):
        runtimes.load("catboost", {"m": whole[: int(len(whole) * share)]})


def test_rows_of_numbers() -> None:
    model = runtimes.load("catboost", {"m": catboost_model(texts=False)})
    assert model.takes == "matrix"
    assert len(model.predict(matrix(numbers(4)))[0]) == 4
