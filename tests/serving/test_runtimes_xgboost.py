from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
import xgboost

from predis.errors import InvalidInput, ModelFailure
from predis.registry.signature import PROBABILITY, Field
from predis.serving import runtimes
from tests.serving.helpers import signature
from tests.serving.models import NAMES, matrix, numbers, xgboost_model

KIND = Field("kind", "BYTES", levels=("r", "s", "t"))
INPUTS = (*(Field(name, "FP64", nullable=True) for name in NAMES), KIND)


def trained(objective: str, labels: Any, **more: Any) -> bytes:
    x = numbers(100)
    made = xgboost.train({"objective": objective, "nthread": 1, **more}, xgboost.DMatrix(x, labels), 3)
    return bytes(made.save_raw("ubj"))


class TestSignature:
    def test_made_of_the_model(self) -> None:
        found = runtimes.load("xgboost", {"m": xgboost_model()}).signature
        assert found.inputs == tuple(Field(name, "FP64", nullable=True) for name in (*NAMES, "kind"))
        assert (found.outputs, found.score) == ((PROBABILITY,), "probability")

    def test_of_a_model_without_names(self) -> None:
        content = trained("reg:squarederror", numbers(100)[:, 0])
        found = runtimes.load("xgboost", {"m": content}).signature
        assert found.feature_names == ("f0", "f1", "f2")

    @pytest.mark.parametrize(
        ("objective", "labels", "more", "output"),
        [
            ("binary:logistic", (numbers(100)[:, 0] > 0).astype(int), {}, PROBABILITY),
            ("binary:hinge", (numbers(100)[:, 0] > 0).astype(int), {}, Field("prediction", "FP64")),
            ("binary:logitraw", (numbers(100)[:, 0] > 0).astype(int), {}, Field("prediction", "FP64")),
            ("reg:squarederror", numbers(100)[:, 0], {}, Field("prediction", "FP64")),
            ("count:poisson", np.exp(numbers(100)[:, 0]), {}, Field("prediction", "FP64")),
            ("multi:softprob", np.arange(100) % 3, {"num_class": 3}, Field("probabilities", "FP64", (-1, 3))),
            ("multi:softmax", np.arange(100) % 3, {"num_class": 3}, Field("prediction", "FP64")),
            ("reg:squarederror", numbers(100)[:, :2], {}, Field("prediction", "FP64", (-1, 2))),
        ],
        ids=str,
    )
    def test_of_every_kind_of_objective(self, objective: str, labels: Any, more: Any, output: Field) -> None:
        content = trained(objective, labels, **more)
        model = runtimes.load("xgboost", {"m": content})
        assert model.signature.outputs == (output,)
        (found,) = runtimes.run(model, matrix(numbers(7)))
        own = xgboost.Booster(model_file=bytearray(content)).predict(xgboost.DMatrix(numbers(7)))
        np.testing.assert_array_equal(found, own)

    def test_made_of_the_references_columns(self) -> None:
        assert runtimes.load("xgboost", {"m": xgboost_model()}, inputs=INPUTS).signature.inputs == INPUTS

    @pytest.mark.parametrize(
        ("inputs", "says"),
        [
            (INPUTS[:3], "the model has 4 features, its signature 3"),
            ((INPUTS[1], INPUTS[0], *INPUTS[2:]), "in the model's order: a, b, c, kind"),
            ((*INPUTS[:3], Field("kind", "BYTES")), "'kind' holds free texts"),
        ],
        ids=str,
    )
    def test_that_does_not_fit(self, inputs: tuple[Field, ...], says: str) -> None:
        for given in ({"inputs": inputs}, {"signature": signature(*inputs)}):
            with pytest.raises(InvalidInput, match=says):
                runtimes.load("xgboost", {"m": xgboost_model()}, **given)  # type: ignore[arg-type]


class TestLevels:
    """From 3.1 on XGBoost keeps the categories of the pandas table that a model was trained on."""

    @staticmethod
    def trained(categories: list[Any], form: str = "ubj") -> tuple[bytes, Any]:
        random = np.random.default_rng(0)
        values = [categories[at] for at in random.integers(0, len(categories), 200)]
        frame = pandas.DataFrame(
            {"x": random.normal(size=200), "kind": pandas.Categorical(values, categories)}
        )
        labels = (frame["x"] + (frame["kind"] == categories[0]) > 0.5).astype(float)
        data = xgboost.DMatrix(frame, labels, enable_categorical=True)
        made = xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 5)
        return bytes(made.save_raw(form)), (made, frame, data)

    @pytest.mark.parametrize("form", ["ubj", "json"])
    def test_are_the_models_own(self, form: str) -> None:
        content, (made, frame, data) = self.trained(["w", "u", "v"], form)
        reference = (Field("x", "FP64"), Field("kind", "BYTES", levels=("u", "v", "w")))
        for inputs in (reference, ()):
            model = runtimes.load("xgboost", {"m": content}, inputs=inputs)
            assert model.signature.inputs[1].levels == ("w", "u", "v")
        codes = np.column_stack([frame["x"], frame["kind"].cat.codes])
        np.testing.assert_array_equal(runtimes.run(model, matrix(codes))[0], made.predict(data))

    def test_that_are_numbers(self) -> None:
        content, _trained = self.trained([30, 10, 20])
        with pytest.raises(InvalidInput, match="give each of them as texts"):
            runtimes.load("xgboost", {"m": content}, inputs=(Field("x", "FP64"), Field("kind", "INT64")))

    def test_that_were_not_kept_whole(self) -> None:
        content, _trained = self.trained(["ü", "é", "w"])
        try:
            found = runtimes.load("xgboost", {"m": content}).signature.inputs[1].levels
        except InvalidInput as error:
            assert "list the levels in a signature" in str(error)  # noqa: PT017, as XGBoost 3.2 does
        else:
            assert found == ("ü", "é", "w")


class TestNotAModel:
    @pytest.mark.parametrize("content", [b"", b"binf", b"\x80\x04", b"tree\n"])
    def test_another_file(self, content: bytes) -> None:
        with pytest.raises(ModelFailure, match="in JSON or UBJSON"):
            runtimes.load("xgboost", {"m": content})

    @pytest.mark.parametrize("content", [b"{", b"{}", b'{"learner": {}}', xgboost_model(form="json")[:-100]])
    def test_a_damaged_one(self, content: bytes) -> None:
        with pytest.raises(ModelFailure, match="XGBoost: "):
            runtimes.load("xgboost", {"m": content})
