from __future__ import annotations

import datetime
import decimal
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from predis.errors import InvalidInput
from predis.registry import columns as module
from predis.registry.columns import encode_table, infer_inputs
from predis.registry.signature import Field


def inferred(column: Any, kind: pa.DataType | None = None) -> Field:
    return infer_inputs(pa.table({"x": pa.array(column, kind)}))[0]


class TestInferInputs:
    @pytest.mark.parametrize(
        ("kind", "datatype"),
        [
            (pa.int8(), "INT64"),
            (pa.uint16(), "INT64"),
            (pa.int64(), "INT64"),
            (pa.float16(), "FP64"),
            (pa.float32(), "FP64"),
            (pa.float64(), "FP64"),
            (pa.bool_(), "BOOL"),
        ],
    )
    def test_numbers(self, kind: pa.DataType, datatype: str) -> None:
        values = pa.array(np.array([0, 1, 1], kind.to_pandas_dtype()), kind)
        assert inferred(values) == Field("x", datatype)
        assert inferred(pa.concat_arrays([values, pa.nulls(1, kind)])) == Field("x", datatype, nullable=True)

    def test_decimals(self) -> None:
        assert inferred([decimal.Decimal("1.50")]) == Field("x", "FP64")

    def test_a_nan_is_a_missing_value(self) -> None:
        assert inferred([1.0, math.nan]).nullable
        assert not inferred([1.0, math.inf]).nullable

    @pytest.mark.parametrize(
        "kind",
        [
            pa.string(),
            pa.large_string(),
            pa.dictionary(pa.int8(), pa.string()),
            pa.dictionary(pa.int32(), pa.large_string()),
        ],
    )
    def test_texts_have_levels_in_order(self, kind: pa.DataType) -> None:
        column = pa.array(["b", "a", "", "b"]).cast(kind)
        assert inferred(column) == Field("x", "BYTES", levels=("", "a", "b"))

    def test_only_the_levels_seen(self) -> None:
        column = pa.DictionaryArray.from_arrays(pa.array([0, None, 0]), ["seen", "never"])
        assert inferred(column) == Field("x", "BYTES", nullable=True, levels=("seen",))

    def test_a_dictionary_of_numbers_is_numbers(self) -> None:
        column = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([5, 7]))
        assert inferred(column) == Field("x", "INT64")

    def test_too_many_to_be_levels_are_free_texts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_LEVELS", 3)
        assert len(inferred(["a", "b", "c", None]).levels) == 3
        assert inferred(["a", "b", "c", "d"]) == Field("x", "BYTES")

    @pytest.mark.parametrize("column", [[datetime.date(2024, 1, 1)], [b"bytes"], [None], [{"a": 1}]], ids=str)
    def test_what_no_tensor_carries(self, column: list[Any]) -> None:
        with pytest.raises(InvalidInput, match="'x' is of type"):
            inferred(column)

    @pytest.mark.parametrize(
        "kind", [pa.list_(pa.float32()), pa.large_list(pa.int64()), pa.list_(pa.float64(), 2)], ids=str
    )
    def test_lists_of_one_length_are_a_wide_input(self, kind: pa.DataType) -> None:
        found = inferred([[1, 2], [3, 4], [5, 6]], kind)
        assert found == Field("x", "INT64" if "int" in str(kind) else "FP64", (-1, 2))

    def test_lists_of_lists(self) -> None:
        assert inferred([[["a", "b"]], [["a", None]]]) == Field(
            "x", "BYTES", (-1, 1, 2), nullable=True, levels=("a", "b")
        )

    @pytest.mark.parametrize(
        "column", [[[1], [1, 2]], [[1], None], [[], []], [[[1], [2]], [[1], [2, 3]]]], ids=str
    )
    def test_lists_without_a_length(self, column: list[Any]) -> None:
        with pytest.raises(InvalidInput, match="lists of different lengths"):
            inferred(column)

    def test_some_columns_in_an_order(self) -> None:
        sample = pa.table({"a": [1], "b": [1.0], "c": ["x"]})
        assert [f.name for f in infer_inputs(sample)] == ["a", "b", "c"]
        assert [f.name for f in infer_inputs(sample, names=("c", "a"))] == ["c", "a"]
        with pytest.raises(InvalidInput, match="no column 'd'; it has a, b, c"):
            infer_inputs(sample, names=("d",))


class TestEncodeTable:
    def test_a_matrix_in_the_order_of_the_fields(self) -> None:
        table = pa.table(
            {"extra": [0, 0], "flag": [True, None], "n": [7, None], "x": [0.5, math.nan], "kind": ["b", None]}
        )
        inputs = infer_inputs(table, names=("kind", "x", "n", "flag"))
        matrix = encode_table(table, inputs)
        assert matrix.dtype == np.float64
        assert matrix.flags.c_contiguous
        np.testing.assert_array_equal(matrix, [[0, 0.5, 7, 1], [math.nan] * 4])

    def test_unseen_is_not_missing(self) -> None:
        field = Field("kind", "BYTES", nullable=True, levels=("a", "b"))
        column = pa.chunked_array([["b", None], [], ["c", "a", "", "A"]], pa.string())
        for found in (column, column.dictionary_encode(), column.cast(pa.large_string())):
            codes = encode_table(pa.table({"kind": found}), (field,))[:, 0]
            np.testing.assert_array_equal(codes, [1, math.nan, -1, 0, -1, -1])

    @given(st.data())
    def test_codes_lead_back_to_the_texts(self, data: st.DataObject) -> None:
        levels = data.draw(st.lists(st.text(max_size=4), min_size=1, max_size=6, unique=True))
        texts = data.draw(st.lists(st.sampled_from(levels) | st.none(), max_size=12))
        field = Field("x", "BYTES", levels=tuple(levels))
        codes = encode_table(pa.table({"x": pa.array(texts, pa.string())}), (field,))[:, 0]
        assert [None if math.isnan(code) else levels[int(code)] for code in codes] == texts

    def test_nothing_but_nulls(self) -> None:
        inputs = (Field("kind", "BYTES", levels=("a",)), Field("x", "FP64"))
        table = pa.table({"kind": pa.nulls(2), "x": pa.nulls(2)})
        assert np.isnan(encode_table(table, inputs)).all()

    def test_no_rows(self) -> None:
        table = pa.table({"x": pa.array([], pa.float64()), "kind": pa.array([], pa.string())})
        inputs = (Field("x", "FP64"), Field("kind", "BYTES", levels=("a",)))
        assert encode_table(table, inputs).shape == (0, 2)

    @pytest.mark.parametrize(
        ("column", "field"),
        [
            (["a"], Field("x", "FP64")),
            ([datetime.date(2024, 1, 1)], Field("x", "FP64")),
            ([[1.0]], Field("x", "FP64")),
            ([[1.0]], Field("x", "BYTES", levels=("a",))),
            ([2**60 + 1], Field("x", "INT64")),
        ],
        ids=str,
    )
    def test_a_column_that_is_something_else(self, column: list[Any], field: Field) -> None:
        with pytest.raises(InvalidInput, match="column 'x' cannot be read as"):
            encode_table(pa.table({"x": column}), (field,))

    def test_rounding_where_that_does_no_harm(self) -> None:
        table, inputs = pa.table({"x": [2**60 + 1]}), (Field("x", "INT64"),)
        assert encode_table(table, inputs, exact=False)[0, 0] == 2.0**60

    @pytest.mark.parametrize(
        "kind", [pa.list_(pa.float64()), pa.list_(pa.float64(), 2), pa.large_list(pa.float32())], ids=str
    )
    def test_wide_inputs_from_lists(self, kind: pa.DataType) -> None:
        column = pa.chunked_array([pa.array([[9, 9], [1, 2]], kind).slice(1), pa.array([[3, None]], kind)])
        table = pa.table({"n": [7, 8], "x": column})
        inputs = (Field("x", "FP32", (-1, 2)), Field("n", "INT64"))
        np.testing.assert_array_equal(encode_table(table, inputs), [[1, 2, 7], [3, math.nan, 8]])

    def test_wide_inputs_from_lists_of_lists(self) -> None:
        table = pa.table({"x": [[["a", "b"], ["b", "z"]]]})
        inputs = (Field("x", "BYTES", (-1, 2, 2), levels=("a", "b")),)
        assert encode_table(table, inputs).tolist() == [[0, 1, 1, -1]]
        assert encode_table(
            pa.table({"x": [["a", "b", "b", "z"]]}), (Field("x", "BYTES", (-1, 4), levels=("a", "b")),)
        ).shape == (1, 4)

    def test_wide_inputs_from_a_column_per_place(self) -> None:
        table = pa.table({"x[1]": [2.0, 4.0], "x[0]": pa.chunked_array([[1.0], [3.0]])})
        assert encode_table(table, (Field("x", "FP64", (-1, 2)),)).tolist() == [[1, 2], [3, 4]]
        with pytest.raises(InvalidInput, match="no column 'x'"):
            encode_table(table, (Field("x", "FP64", (-1, 3)),))

    @pytest.mark.parametrize(
        "column",
        [[[1.0], [2.0]], [[1.0, 2.0], None], [[1.0, 2.0], [3.0]], [1.0, 2.0], [[1.0], [2.0, 3.0, 4.0]]],
        ids=str,
    )
    def test_lists_of_another_length(self, column: list[Any]) -> None:
        with pytest.raises(InvalidInput, match="column 'x' must hold 2 values in each row"):
            encode_table(pa.table({"x": column}), (Field("x", "FP64", (-1, 2)),))

    def test_a_column_that_is_not_there(self) -> None:
        with pytest.raises(InvalidInput, match="no column 'y'"):
            encode_table(pa.table({"x": [1]}), (Field("y", "FP64"),))
