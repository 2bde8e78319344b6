from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from predis.registry.signature import Field
from predis.serving.inputs import WIDE, form_of, sample, stack, tensor_dtype
from tests.serving.helpers import signature
from tests.serving.models import matrix, tensors

X, KIND, ID = (
    Field("x", "FP32", (-1, 2)),
    Field("kind", "BYTES", levels=("u", "v")),
    Field("id", "INT64", nullable=True),
)


class TestStack:
    def test_one_part_is_itself(self) -> None:
        one = matrix([[1, 2]])
        assert stack([one]) is one

    def test_matrices(self) -> None:
        found = stack([matrix([[1, -1]], {(0, 1): "a"}), matrix([[3, 4], [-1, 6]], {(1, 0): "b"})])
        assert found.rows == 3
        assert found.features.tolist() == [[1, -1], [3, 4], [-1, 6]]
        assert found.unseen == {(0, 1): "a", (2, 0): "b"}
        assert found.tensors is None

    def test_tensors(self) -> None:
        found = stack([tensors(x=np.zeros((1, 2)), t=["a"]), tensors(x=np.ones((2, 2)), t=["b", None])])
        assert found.tensors is not None
        assert found.tensors["x"].tolist() == [[0, 0], [1, 1], [1, 1]]
        assert found.tensors["t"].tolist() == ["a", "b", None]


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ((Field("x", "FP64"),), "matrix"),
        ((X, Field("n", "INT32"), Field("flag", "BOOL")), "matrix"),
        ((Field("x", "FP32", (-1, WIDE)),), "matrix"),
        ((Field("x", "FP32", (-1, WIDE)), Field("y", "FP32")), "tensors"),
        ((X, Field("n", "INT64")), "tensors"),
        ((Field("n", "UINT64"),), "tensors"),
        ((X, KIND), "tensors"),
    ],
    ids=str,
)
def test_the_form_that_loses_nothing(fields: tuple[Field, ...], form: str) -> None:
    assert form_of(fields) == form


@pytest.mark.parametrize(
    ("field", "dtype"),
    [
        (Field("x", "INT8"), np.int8), (Field("x", "INT8", nullable=True), np.float64), (Field("x", "BOOL", nullable=True), np.float64),
        (Field("x", "FP16", nullable=True), np.float16), (Field("x", "BYTES", nullable=True), np.object_), (Field("x", "BOOL"), np.bool_),
    ],
    ids=str,
)  # fmt: skip
def test_the_dtype_of_a_tensor(field: Field, dtype: Any) -> None:
    assert tensor_dtype(field) == np.dtype(dtype)


class TestSample:
    def test_as_a_matrix(self) -> None:
        found = sample(signature(X, KIND), "matrix", rows=3)
        assert (found.rows, found.features.tolist(), found.tensors) == (3, [[0, 0, 0]] * 3, None)

    def test_as_tensors(self) -> None:
        fields = (X, KIND, ID, Field("free", "BYTES"), Field("raw", "BYTES", (-1, 2), raw=True))
        found = sample(signature(*fields), "tensors", rows=2)
        assert found.tensors is not None
        assert {name: tensor[0].tolist() for name, tensor in found.tensors.items() if tensor.ndim > 1} == {
            "x": [0, 0],
            "raw": [b"", b""],
        }
        assert {name: tensor[0] for name, tensor in found.tensors.items() if tensor.ndim == 1} == {
            "kind": "u",
            "id": 0,
            "free": "",
        }
        assert [found.tensors[field.name].dtype for field in fields] == [
            tensor_dtype(field) for field in fields
        ]
