from __future__ import annotations

import contextlib
import datetime
import decimal
import json
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from predis.errors import InvalidInput
from predis.registry import signature as module
from predis.registry.signature import NUMPY_OF, PROBABILITY, Field, Signature, encode_table, infer_inputs

names = st.text(min_size=1, max_size=200)


@st.composite
def tensor_fields(draw: st.DrawFn, name: str | None = None) -> Field:
    datatype = draw(st.sampled_from(sorted(NUMPY_OF)))
    levels = draw(st.lists(st.text(max_size=8), max_size=4)) if datatype == "BYTES" else []
    shape = (-1, *draw(st.lists(st.integers(1, 50), max_size=3)))
    return Field(name or draw(names), datatype, shape, draw(st.booleans()), tuple(levels))


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    sides = [
        tuple(
            draw(tensor_fields(name)) for name in draw(st.lists(names, min_size=1, max_size=3, unique=True))
        )
        for _ in range(2)
    ]
    return Signature(sides[0], sides[1], draw(st.sampled_from(sides[1])).name)


class TestField:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"name": ""}, "1 to 200"),
            ({"name": "x" * 201}, "1 to 200"),
            ({"datatype": "FLOAT"}, "FLOAT"),
            ({"shape": ()}, "-1 for the rows"),
            ({"shape": (3,)}, "-1 for the rows"),
            ({"shape": (-1, 0)}, "-1 for the rows"),
            ({"shape": (-1, -1)}, "-1 for the rows"),
            ({"shape": (-1, 10**7)}, "-1 for the rows"),
            ({"shape": (-1,) + (1,) * 8}, "-1 for the rows"),
            ({"levels": ("a",)}, "levels are for BYTES"),
        ],
    )
    def test_what_cannot_be(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInput, match=message):
            Field(**{"name": "x", "datatype": "FP64", **values})

    @pytest.mark.parametrize(("shape", "width"), [((-1,), 1), ((-1, 4), 4), ((-1, 2, 3), 6)])
    def test_width(self, shape: tuple[int, ...], width: int) -> None:
        assert Field("x", "FP64", shape).width == width


class TestSignature:
    @given(signatures())
    def test_through_json(self, found: Signature) -> None:
        assert Signature.from_dict(json.loads(json.dumps(found.to_dict()))) == found

    def test_the_score_is_the_first_output_unless_named(self) -> None:
        document = {"inputs": [PROBABILITY.to_dict()], "outputs": [{"name": "a", "datatype": "FP32"}]}
        assert Signature.from_dict(document).score == "a"

    def test_feature_names(self) -> None:
        inputs = (Field("a", "FP64"), Field("m", "FP32", (-1, 3)), Field("b", "INT64"))
        assert Signature(inputs, (PROBABILITY,), "probability").feature_names == (
            "a",
            "m[0]",
            "m[1]",
            "m[2]",
            "b",
        )

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            (None, "an object with inputs"),
            ([], "an object with inputs"),
            ({}, "a list of inputs"),
            ({"inputs": []}, "a list of inputs"),
            ({"inputs": {}}, "a list of inputs"),
            ({"inputs": ["x"]}, "an object with at least a name"),
            ({"inputs": [{"datatype": "FP64"}]}, "an object with at least a name"),
            ({"inputs": [{"name": 3, "datatype": "FP64"}]}, "an object with at least a name"),
            ({"inputs": [{"name": "x"}]}, "x: datatype 'None'"),
            ({"inputs": [{"name": "x", "datatype": ["FP64"]}]}, "x: datatype"),
            ({"inputs": [{"name": "x", "datatype": "FP64", "shape": 3}]}, "x: shape must be"),
            ({"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, True]}]}, "x: shape must be"),
            ({"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 2.0]}]}, "x: shape must be"),
            ({"inputs": [{"name": "x", "datatype": "BYTES", "levels": "ab"}]}, "x: levels must be"),
            ({"inputs": [{"name": "x", "datatype": "BYTES", "levels": [1]}]}, "x: levels must be"),
            ({"inputs": [PROBABILITY.to_dict()]}, "a list of outputs"),
            ({"inputs": [PROBABILITY.to_dict()] * 2, "outputs": [PROBABILITY.to_dict()]}, "different names"),
            ({"inputs": [PROBABILITY.to_dict()], "outputs": [PROBABILITY.to_dict()], "score": "x"}, "'x'"),
        ],
    )  # fmt: skip
    def test_documents_that_are_none(self, document: Any, message: str) -> None:
        with pytest.raises(InvalidInput, match=message):
            Signature.from_dict(document)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["inputs", "outputs", "name", "datatype", "shape", "levels", "score"]),
                    inner,
                )
            ),
            max_leaves=12,
        )
    )
    def test_any_json_is_a_signature_or_invalid_input(self, document: Any) -> None:
        with contextlib.suppress(InvalidInput):
            Signature.from_dict(document)


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

    def test_too_many_levels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_LEVELS", 3)
        assert len(inferred(["a", "b", "c", None]).levels) == 3
        with pytest.raises(InvalidInput, match="'x' has 4 different texts"):
            inferred(["a", "b", "c", "d"])

    @pytest.mark.parametrize(
        "column", [[datetime.date(2024, 1, 1)], [[1.0]], [b"bytes"], [None], [{"a": 1}]], ids=str
    )
    def test_what_no_tensor_carries(self, column: list[Any]) -> None:
        with pytest.raises(InvalidInput, match="'x' is of type"):
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

    def test_a_column_that_is_not_there(self) -> None:
        with pytest.raises(InvalidInput, match="no column 'y'"):
            encode_table(pa.table({"x": [1]}), (Field("y", "FP64"),))
