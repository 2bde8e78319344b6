from __future__ import annotations

import contextlib
import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from predis.errors import InvalidInput
from predis.registry.signature import NUMPY_OF, PROBABILITY, Field, Signature

names = st.text(min_size=1, max_size=200)


@st.composite
def tensor_fields(draw: st.DrawFn, name: str | None = None) -> Field:
    datatype = draw(st.sampled_from(sorted(NUMPY_OF)))
    text = datatype == "BYTES"
    levels = draw(st.lists(st.text(max_size=8), max_size=4, unique=True)) if text else []
    shape = (-1, *draw(st.lists(st.integers(1, 50), max_size=3)))
    raw = text and not levels and draw(st.booleans())
    return Field(name or draw(names), datatype, shape, draw(st.booleans()), tuple(levels), raw)


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
            ({"datatype": "BYTES", "levels": ("a", "b", "a")}, "level 'a' stands twice"),
            ({"raw": True}, "raw is for BYTES"),
            ({"datatype": "BYTES", "levels": ("a",), "raw": True}, "raw is for BYTES tensors without levels"),
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
