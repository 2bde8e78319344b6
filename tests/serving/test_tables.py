from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from predis.errors import InvalidInput
from predis.registry.signature import NUMPY_OF, Field
from predis.serving.inputs import Inputs, tensor_dtype
from predis.serving.tables import inputs_of, outputs_table
from tests.serving.helpers import signature


def tensor(column: Any, field: Field, **more: Any) -> np.ndarray[Any, Any]:
    table = pa.table({field.name: column})
    found = inputs_of(table, signature(field), takes="tensors", **more)
    assert found.features.shape == (table.num_rows, 0)
    assert found.tensors is not None
    return found.tensors[field.name]


class TestMatrix:
    def test_codes_and_the_texts_that_have_none(self) -> None:
        kind = Field("kind", "BYTES", nullable=True, levels=("a", "b"))
        table = pa.table({"extra": [0] * 3, "kind": ["b", "new", None], "x": [1, 2, 3]})
        found = inputs_of(table, signature(Field("x", "FP32"), kind), takes="matrix")
        assert (found.rows, found.tensors, found.unseen) == (3, None, {(1, 1): "new"})
        np.testing.assert_array_equal(found.features, [[1, 1], [2, -1], [3, math.nan]])

    def test_wide_inputs_have_their_places(self) -> None:
        field = Field("kinds", "BYTES", (-1, 2), levels=("a",))
        table = pa.table({"n": [1.0], "kinds": [["a", "z"]]})
        found = inputs_of(table, signature(Field("n", "FP64"), field), takes="matrix")
        assert (found.features.tolist(), found.unseen) == ([[1, 0, -1]], {(0, 2): "z"})

    def test_rows_of_any_part_of_a_table(self) -> None:
        table = pa.table({"x": pa.chunked_array([[1.0, 2.0], [], [3.0, None]])})
        field = Field("x", "FP64", nullable=True)
        for start in range(4):
            found = inputs_of(table.slice(start, 2), signature(field), takes="matrix")
            np.testing.assert_array_equal(
                found.features[:, 0], np.array([1, 2, 3, math.nan])[start : start + 2]
            )


class TestTensors:
    @pytest.mark.parametrize("datatype", sorted(NUMPY_OF.keys() - {"BYTES"}))
    def test_of_every_datatype(self, datatype: str) -> None:
        for column in ([0, 1, 1], [0.0, 1.0, 1.0]) if datatype != "BOOL" else ([False, True, True],):
            found = tensor(column, Field("x", datatype))
            assert found.dtype == NUMPY_OF[datatype]
            assert found.tolist() == [0, 1, 1]

    @pytest.mark.parametrize("datatype", ["INT8", "UINT64", "BOOL", "FP16", "FP64"])
    def test_missing_numbers(self, datatype: str) -> None:
        field = Field("x", datatype, nullable=True)
        found = tensor(pa.array([1, None]).cast(pa.bool_() if datatype == "BOOL" else pa.int64()), field)
        assert found.dtype == tensor_dtype(field)
        np.testing.assert_array_equal(found, [1, math.nan])

    def test_whole_numbers_that_a_float_would_round(self) -> None:
        assert tensor(pa.array([2**63 + 1], pa.uint64()), Field("x", "UINT64")).tolist() == [2**63 + 1]

    def test_texts(self) -> None:
        for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
            column = pa.array(["ü", None, ""]).cast(kind)
            assert tensor(column, Field("x", "BYTES", nullable=True)).tolist() == ["ü", None, ""]

    def test_raw_bytes(self) -> None:
        column = pa.array([b"\xff\x00", None], pa.binary())
        assert tensor(column, Field("x", "BYTES", nullable=True, raw=True)).tolist() == [b"\xff\x00", None]
        assert tensor(["ü"], Field("x", "BYTES", raw=True)).tolist() == ["ü".encode()]

    def test_shapes(self) -> None:
        assert tensor([[[1, 2, 3], [4, 5, 6]]], Field("x", "FP32", (-1, 2, 3))).tolist() == [
            [[1, 2, 3], [4, 5, 6]]
        ]
        assert tensor([[1, 2, 3, 4]], Field("x", "FP32", (-1, 2, 2))).shape == (1, 2, 2)
        assert tensor(["a"], Field("x", "BYTES", (-1, 1))).shape == (1, 1)

    @pytest.mark.parametrize(
        ("column", "field"),
        [
            ([300], Field("x", "UINT8")),
            ([0.5], Field("x", "INT64")),
            ([-1], Field("x", "UINT64")),
            (["a"], Field("x", "FP64")),
            ([b"\xff"], Field("x", "BYTES")),
            ([[1, 2]], Field("x", "FP64")),
        ],
        ids=str,
    )
    def test_values_that_do_not_fit(self, column: list[Any], field: Field) -> None:
        with pytest.raises(InvalidInput, match="column 'x'"):
            tensor(column, field)


class TestNulls:
    @pytest.mark.parametrize("takes", ["matrix", "tensors"])
    @pytest.mark.parametrize(
        "field", [Field("x", "FP64"), Field("x", "INT64"), Field("x", "BYTES", levels=("1",))], ids=str
    )
    def test_where_the_signature_allows_none(self, field: Field, takes: Any) -> None:
        table = pa.table({"x": pa.array(["1", None]) if field.levels else pa.array([1, None])})
        with pytest.raises(InvalidInput, match="'x' holds a null, which the signature does not allow"):
            inputs_of(table, signature(field), takes=takes)

    def test_may_be_left_to_the_model(self) -> None:
        table = pa.table({"x": [1.0, None]})
        found = inputs_of(table, signature(Field("x", "FP64")), takes="matrix", strict=False)
        np.testing.assert_array_equal(found.features[:, 0], [1, math.nan])
        with pytest.raises(InvalidInput, match="holds a null, which int64 cannot"):
            tensor(pa.array([1, None]), Field("x", "INT64"), strict=False)


class TestOutputs:
    def test_one_column_each(self) -> None:
        fields = (
            Field("p", "FP32"), Field("pair", "FP64", (-1, 2)), Field("image", "INT8", (-1, 2, 2)), Field("word", "BYTES"),
            Field("half", "FP16"), Field("flag", "BOOL"), Field("raw", "BYTES", raw=True),
        )  # fmt: skip
        outputs = [
            np.array([0.5, 1.5], np.float32), np.array([[1.0, 2.0], [3.0, 4.0]]), np.arange(8, dtype=np.int8).reshape(2, 2, 2),
            np.array(["a", "ü"], np.object_), np.array([1, 2], np.float16), np.array([True, False]), np.array([b"\xff", b""], np.object_),
        ]  # fmt: skip
        found = outputs_table(signature(Field("x", "FP64"), outputs=fields), outputs)
        assert found.to_pydict() == {
            "p": [0.5, 1.5], "pair": [[1, 2], [3, 4]], "image": [[[0, 1], [2, 3]], [[4, 5], [6, 7]]], "word": ["a", "ü"],
            "half": [1, 2], "flag": [True, False], "raw": [b"\xff", b""],
        }  # fmt: skip
        assert found.schema.field("p").type == pa.float32()
        assert found.schema.field("pair").type == pa.list_(pa.float64(), 2)

    def test_nan_is_no_null(self) -> None:
        found = outputs_table(signature(Field("x", "FP64")), [np.array([math.nan])])
        assert found.column(0).null_count == 0

    @given(st.integers(0, 5), st.lists(st.integers(1, 3), max_size=3))
    def test_what_goes_out_comes_in_again(self, rows: int, inner: list[int]) -> None:
        field = Field("x", "FP64", (-1, *inner))
        values = np.random.default_rng(rows).normal(size=(rows, *inner))
        table = outputs_table(signature(Field("y", "FP64"), outputs=(field,)), [values])
        found = inputs_of(table, signature(field), takes="tensors")
        assert isinstance(found, Inputs)
        assert found.tensors is not None
        np.testing.assert_array_equal(found.tensors["x"], values)
