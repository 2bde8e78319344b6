from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from predis.errors import InvalidRequest, PredisError, TooLarge
from predis.registry.signature import NUMPY_OF, Field, Signature
from predis.serving.binding import Binder
from predis.serving.encoding import Encoder
from predis.serving.inputs import Inputs, Takes, tensor_dtype
from predis.serving.protocol import InferRequest, Limits, decode_request
from predis.state.records import Matrix
from tests.serving.helpers import LIMITS, binary_body, body, signature, tensor

EXACT = 2**53
FORMS: tuple[Takes, ...] = ("matrix", "tensors")
both_forms = pytest.mark.parametrize("takes", FORMS)

# Which datatypes a tensor may say it has, for an input of each datatype: those every value of which converts. Written out,
# not computed, so that it is a second opinion. (Integers of 64 bits into FP64 are numpy's "safe" too: a caller's whole numbers
# for a column of numbers are what everybody sends; beyond 2^53 they are rounded, as JSON's own numbers are.)
UNSIGNED = ["UINT8", "UINT16", "UINT32", "UINT64"]
SIGNED = ["INT8", "INT16", "INT32", "INT64"]
FLOATS = ["FP16", "FP32", "FP64"]
ACCEPTED = {
    "BOOL": {"BOOL"},
    "BYTES": {"BYTES"},
    "UINT8": {"UINT8"},
    "UINT16": {"UINT8", "UINT16"},
    "UINT32": {"UINT8", "UINT16", "UINT32"},
    "UINT64": set(UNSIGNED),
    "INT8": {"INT8"},
    "INT16": {"INT8", "INT16", "UINT8"},
    "INT32": {"INT8", "INT16", "INT32", "UINT8", "UINT16"},
    "INT64": {*SIGNED, "UINT8", "UINT16", "UINT32"},
    "FP16": {"FP16", "INT8", "UINT8"},
    "FP32": {"FP16", "FP32", "INT8", "INT16", "UINT8", "UINT16"},
    "FP64": {"FP16", "FP32", "FP64", *SIGNED, *UNSIGNED},
}
SAMPLE: dict[str, Any] = {"BOOL": True, "BYTES": "a"}


def field_of(datatype: str, **more: Any) -> Field:
    return Field("x", datatype, levels=("a", "b", "c") if datatype == "BYTES" else (), **more)


def bind(wanted: Signature, content: bytes, limits: Limits = LIMITS, *, takes: Takes = "matrix") -> Inputs:
    return Binder(wanted, limits, takes=takes).bind(decode_request(content, limits))


def bind_x(
    field: Field, data: Any, *, datatype: str = "", shape: Any = None, takes: Takes = "matrix"
) -> Matrix:
    """What a monitor will see of these values of the input ``x``."""
    content = body(tensor("x", datatype or field.datatype, data, shape=shape))
    return bind(signature(field), content, takes=takes).features


def tensor_x(field: Field, data: Any, *, datatype: str = "", shape: Any = None) -> Any:
    """What a model that takes tensors is given."""
    found = bind(
        signature(field), body(tensor("x", datatype or field.datatype, data, shape=shape)), takes="tensors"
    )
    assert found.tensors is not None
    return found.tensors["x"]


def bind_array(field: Field, data: Any, *, datatype: str = "", takes: Takes = "matrix") -> Inputs:
    """Values that came as raw bytes."""
    array = np.asarray(data, NUMPY_OF[datatype or field.datatype])
    content, head = binary_body(tensor("x", datatype or field.datatype, array, shape=list(array.shape)))
    return Binder(signature(field), LIMITS, takes=takes).bind(
        decode_request(content, LIMITS, head_bytes=head)
    )


@both_forms
class TestDatatypes:
    def test_the_table_is_complete(self, takes: Takes) -> None:
        assert ACCEPTED.keys() == NUMPY_OF.keys()

    @pytest.mark.parametrize("said", NUMPY_OF)
    @pytest.mark.parametrize("wanted", NUMPY_OF)
    def test_lossless_ones_are_accepted_others_refused(self, wanted: str, said: str, takes: Takes) -> None:
        for rows in (1, 2):
            data = [SAMPLE.get(wanted, 1)] * rows
            if said in ACCEPTED[wanted]:
                found = bind_x(field_of(wanted), data, datatype=said, takes=takes)
                assert found.tolist() == [[0.0 if wanted == "BYTES" else 1.0]] * rows
            else:
                with pytest.raises(InvalidRequest, match=f"'x' must be {wanted}, got '{said}'"):
                    bind_x(field_of(wanted), data, datatype=said, takes=takes)

    @pytest.mark.parametrize("said", [None, "", "fp64", "FLOAT", 7, True, [], ["FP64"], {}, {"a": []}])
    def test_what_is_none_is_refused(self, said: Any, takes: Takes) -> None:
        x = {**tensor("x", "FP64", [1]), "datatype": said}
        with pytest.raises(InvalidRequest, match="'x' must be FP64"):
            bind(signature(Field("x", "FP64")), body(x), takes=takes)

    @pytest.mark.parametrize("value", [None, 1, 1.5, True, "a", [], {}, [1, 2], {"a": 1}], ids=repr)
    @pytest.mark.parametrize("wanted", NUMPY_OF)
    def test_values_must_be_of_the_kind(self, wanted: str, value: Any, takes: Takes) -> None:
        """No truth values for numbers, no numbers for truth values, no 1.5 for whole numbers, no texts for any."""
        kinds = {"BOOL": (bool,), "BYTES": (str,)}.get(
            wanted, (int, float) if wanted.startswith("FP") else (int,)
        )
        good = SAMPLE.get(wanted, 1)
        for before in ([good], []):
            if type(value) in kinds:
                rows = 1 + len(before)
                assert bind_x(field_of(wanted), [*before, value], takes=takes).shape == (rows, 1)
            else:
                with pytest.raises(InvalidRequest, match="'x'"):
                    bind_x(field_of(wanted), [*before, value], takes=takes)


@both_forms
class TestWholeNumbersWrittenAsFractions:
    """1.0 for 1: what clients send whose language has one kind of number."""

    def test_are_taken_where_they_are_whole(self, takes: Takes) -> None:
        field = field_of("INT32", nullable=True)
        for data in ([2.0], [1.0, 2], [1.0, None, 3]):
            np.testing.assert_array_equal(bind_x(field, data, takes=takes).ravel(), np.array(data, float))

    @pytest.mark.parametrize("value", [1.5, 1e300, 2.0**31, -(2.0**31) - 1])
    def test_others_are_not(self, value: float, takes: Takes) -> None:
        for data in ([value], [1.0, value]):
            with pytest.raises(InvalidRequest, match="'x'"):
                bind_x(field_of("INT32"), data, takes=takes)


class TestRange:
    @pytest.mark.parametrize("datatype", UNSIGNED + SIGNED)
    def test_whole_numbers_to_the_edges_and_not_beyond(self, datatype: str) -> None:
        info = np.iinfo(datatype.lower())
        low, high = max(int(info.min), -EXACT), min(int(info.max), EXACT)
        for data in ([low, high], [low], [high], [low, high] * 40):
            assert bind_x(field_of(datatype), data).ravel().tolist() == data
        for beyond in (low - 1, high + 1):
            for data in ([low, beyond], [beyond], [low, high] * 40 + [beyond]):
                with pytest.raises(InvalidRequest, match=f"does not fit {datatype}"):
                    bind_x(field_of(datatype), data)

    @pytest.mark.parametrize("datatype", UNSIGNED + SIGNED)
    def test_a_tensor_keeps_all_of_them_exactly(self, datatype: str) -> None:
        info = np.iinfo(datatype.lower())
        low, high = int(info.min), int(info.max)
        for data in ([low, high, high - 1], [high]):
            found = tensor_x(field_of(datatype), data)
            assert (found.dtype, found.tolist()) == (np.dtype(datatype.lower()), data)
        for beyond in (low - 1, high + 1):
            for data in ([low, beyond], [beyond]):
                with pytest.raises(InvalidRequest):
                    tensor_x(field_of(datatype), data)

    @pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
    def test_one_that_may_be_missing_is_a_float_and_only_as_exact(self, datatype: str) -> None:
        field = field_of(datatype, nullable=True)
        found = tensor_x(field, [EXACT, None])
        np.testing.assert_array_equal(found, [EXACT, np.nan])
        assert found.dtype == np.float64
        for data in ([EXACT + 1, None], [EXACT + 1], [EXACT + 1, *[None] * 80]):
            with pytest.raises(InvalidRequest, match="exactly"):
                tensor_x(field, data)

    @pytest.mark.parametrize("value", [2**64 - 1, 2**64, 10**30, -(10**30), 10**300])
    def test_huge_whole_numbers(self, value: int) -> None:
        assert bind_x(field_of("FP64"), [value, -1, 0.5])[0, 0] == float(value)
        assert bind_x(field_of("FP64"), [value])[0, 0] == float(value)
        with pytest.raises(InvalidRequest):
            bind_x(field_of("INT64"), [value])

    def test_huge_whole_numbers_in_a_wide_tensor(self) -> None:
        found = bind_x(field_of("FP64", shape=(-1, 2)), [2**64 - 1, -1, 2**63, 0.5], shape=[2, 2])
        assert found.tolist() == [[2.0**64, -1.0], [2.0**63, 0.5]]

    @both_forms
    @pytest.mark.parametrize(("datatype", "text"), [("FP16", "65519.9"), ("FP32", "3.4028235e+38")])
    def test_floats_that_round_to_the_largest(self, datatype: str, text: str, takes: Takes) -> None:
        found = bind_x(field_of(datatype), [float(text), -float(text)], takes=takes)
        assert NUMPY_OF[datatype](found[0, 0]) == np.finfo(NUMPY_OF[datatype]).max

    @both_forms
    @pytest.mark.parametrize(("datatype", "value"), [("FP16", 65520), ("FP32", 3.5e38), ("FP32", 2**128)])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_floats_that_would_be_infinite(
        self, datatype: str, value: float, sign: int, takes: Takes
    ) -> None:
        wanted = signature(Field("a", "FP64"), Field("w", datatype, (-1, 2)), Field("z", "FP64"))
        good = tensor("w", datatype, [1, 2], shape=[1, 2])
        others = [tensor("a", "FP64", [1e300]), tensor("z", "FP64", [-1e300])]
        assert bind(wanted, body(good, *others), takes=takes).features.tolist() == [[1e300, 1, 2, -1e300]]
        with pytest.raises(InvalidRequest, match=f"'w': .* does not fit {datatype}"):
            bind(wanted, body({**good, "data": [1, sign * value]}, *others), takes=takes)
        with pytest.raises(InvalidRequest, match=f"'x': .* does not fit {datatype}"):
            bind_x(field_of(datatype), [sign * value], takes=takes)

    @both_forms
    def test_missing_values_are_not_out_of_range(self, takes: Takes) -> None:
        for datatype in ("FP32", "INT8", "BOOL"):
            good = SAMPLE.get(datatype, 1)
            assert math.isnan(bind_x(field_of(datatype, nullable=True), [None, good], takes=takes)[0, 0])

    @pytest.mark.parametrize("tiny", ["1e-999", "5e-324", "-0.0"])
    def test_tiny_floats(self, tiny: str) -> None:
        content = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[%s]}]}' % tiny.encode()
        found = bind(signature(field_of("FP64")), content).features[0, 0]
        assert found == float(tiny)
        assert math.copysign(1, found) == math.copysign(1, float(tiny))


@both_forms
class TestNull:
    @pytest.mark.parametrize("datatype", NUMPY_OF)
    def test_is_missing_where_the_signature_allows_it(self, datatype: str, takes: Takes) -> None:
        field = field_of(datatype, nullable=True)
        found = bind_x(field, [None, SAMPLE.get(datatype, 1), None], takes=takes)
        assert np.isnan(found).ravel().tolist() == [True, False, True]
        for data in ([None], [None, None]):
            assert np.isnan(bind_x(field, data, takes=takes)).all()

    @pytest.mark.parametrize("datatype", NUMPY_OF)
    def test_is_refused_elsewhere(self, datatype: str, takes: Takes) -> None:
        for data in ([SAMPLE.get(datatype, 1), None], [None]):
            with pytest.raises(InvalidRequest, match="'x' holds null"):
                bind_x(field_of(datatype), data, takes=takes)


NESTED = [[1, 2, 3], [4, 5, 6]]


@both_forms
class TestShape:
    @pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], NESTED, [[[1, 2, 3], [4, 5, 6]]]])
    def test_flat_and_nested_data_are_the_same(self, data: Any, takes: Takes) -> None:
        assert bind_x(field_of("FP64", shape=(-1, 3)), data, shape=[2, 3], takes=takes).tolist() == NESTED

    def test_dimensions_after_the_rows_become_columns_in_order(self, takes: Takes) -> None:
        values = np.arange(24.0).reshape(2, 3, 4)
        field = field_of("FP64", shape=(-1, 3, 4))
        assert (
            bind_x(field, values.tolist(), shape=[2, 3, 4], takes=takes).tolist()
            == values.reshape(2, 12).tolist()
        )
        if takes == "tensors":
            np.testing.assert_array_equal(tensor_x(field, values.tolist(), shape=[2, 3, 4]), values)

    @pytest.mark.parametrize("field", [Field("x", "FP64"), Field("x", "FP64", (-1, 1))])
    @pytest.mark.parametrize("rows", [1, 2])
    def test_a_column_may_stand_upright_or_lie(self, field: Field, rows: int, takes: Takes) -> None:
        for data in ([1, 2], [[1], [2]]):
            for shape in ([rows], [rows, 1]):
                found = bind(
                    signature(field), body(tensor("x", "FP64", data[:rows], shape=shape)), takes=takes
                )
                assert found.features.tolist() == [[1], [2]][:rows]
                if found.tensors is not None:
                    assert found.tensors["x"].shape == (rows, *field.shape[1:])

    @pytest.mark.parametrize("shape", [[2], [3], [3, 2], [2, 2], [2, 3, 1], [6], [2, -3], [2, "3"], [2, [3]]])
    def test_of_a_wide_tensor_must_be_the_signatures(self, shape: Any, takes: Takes) -> None:
        with pytest.raises(InvalidRequest, match="shape"):
            bind_x(field_of("FP64", shape=(-1, 3)), [1, 2, 3, 4, 5, 6], shape=[*shape], takes=takes)

    @pytest.mark.parametrize(
        "shape", [None, [], 2, "2", {}, [None], ["2"], [2.0], [True], [-1], [[2]]], ids=repr
    )
    def test_must_start_with_the_number_of_rows(self, shape: Any, takes: Takes) -> None:
        x = {**tensor("x", "FP64", [1, 2]), "shape": shape}
        for sent in (x, {**x, "data": [1]}, {k: v for k, v in x.items() if k != "shape"}):
            with pytest.raises(InvalidRequest, match="send at least one row"):
                bind(signature(field_of("FP64")), body(sent), takes=takes)

    def test_holds_whole_numbers(self, takes: Takes) -> None:
        wanted = signature(Field("a", "FP64"), Field("b", "FP64"))
        for shape in ([1.0], [True]):
            with pytest.raises(InvalidRequest, match="shape"):
                bind(
                    wanted, body(tensor("a", "FP64", [1]), tensor("b", "FP64", [1], shape=shape)), takes=takes
                )

    def test_an_empty_batch(self, takes: Takes) -> None:
        with pytest.raises(InvalidRequest, match="an empty batch"):
            bind_x(field_of("FP64"), [], shape=[0], takes=takes)

    @pytest.mark.parametrize("data", [None, 1, "12", {}, {"0": 1, "1": 2}])
    def test_data_must_be_a_list(self, data: Any, takes: Takes) -> None:
        for shape in ([2], [1]):
            with pytest.raises(InvalidRequest, match="'data', a list"):
                bind_x(field_of("FP64"), data, shape=shape, takes=takes)
        with pytest.raises(InvalidRequest, match="'data', a list"):
            bind(
                signature(field_of("FP64")),
                body({"name": "x", "datatype": "FP64", "shape": [2]}),
                takes=takes,
            )

    @pytest.mark.parametrize("data", [[], [1], [1, 2, 3], [[]], [[], []], [[1, 2], [3, 4]]])
    def test_too_few_and_too_many_values(self, data: Any, takes: Takes) -> None:
        with pytest.raises(InvalidRequest, match="needs 2"):
            bind_x(field_of("FP64"), data, shape=[2], takes=takes)

    @pytest.mark.parametrize(
        "data", [[[1], 2], [[1], [2, 3]], [[1], []], [[1], None], [[[1]], [2]], [[1], {}], [1, [2]]]
    )
    def test_ragged_data(self, data: Any, takes: Takes) -> None:
        with pytest.raises(InvalidRequest, match="'x'"):
            bind_x(field_of("FP64"), data, shape=[2], takes=takes)

    def test_deep_data(self, takes: Takes) -> None:
        """As deep as the JSON parser goes, which is deeper than Python's repr: a message about it must not fail either."""
        for depth in (8, 9, 900, 1010):
            for before in (b"", b"1,"):
                data = b"[" * depth + b"1" + b"]" * depth
                for x in (
                    b'"datatype":"FP64","shape":[%d],"data":[%s]' % (1 + bool(before), before + data),
                    b'"datatype":"FP64","shape":[1,%s],"data":[1]' % data,
                    b'"datatype":%s,"shape":[1],"data":[1]' % data,
                ):
                    for padding in (b"", b" " * 5000):
                        with pytest.raises(InvalidRequest):
                            bind(
                                signature(field_of("FP64")),
                                b'{"inputs":[{"name":"x",%s}]}' % (x + padding),
                                takes=takes,
                            )

    def test_more_rows_than_allowed(self, takes: Takes) -> None:
        most = LIMITS.batch_rows
        assert len(bind_x(field_of("FP64"), [1.0] * most, takes=takes)) == most
        for rows in (most + 1, 2**62, 10**18):
            with pytest.raises(TooLarge, match="max_batch_rows"):
                bind_x(field_of("FP64"), [1.0] * 3, shape=[rows], takes=takes)

    def test_inputs_must_agree_about_the_rows(self, takes: Takes) -> None:
        wanted = signature(Field("a", "FP64"), Field("b", "FP64"))
        with pytest.raises(InvalidRequest, match="'b' must have the shape \\[2\\]"):
            bind(wanted, body(tensor("a", "FP64", [1, 2]), tensor("b", "FP64", [1])), takes=takes)
        with pytest.raises(InvalidRequest, match="'b' must have the shape \\[1\\]"):
            bind(wanted, body(tensor("a", "FP64", [1]), tensor("b", "FP64", [1, 2])), takes=takes)


def test_a_shape_of_any_size() -> None:
    """Nothing is made for it before the values are counted: a small body may ask for more than any machine has."""
    widest = signature(Field("x", "FP64", (-1, 1_000_000)), Field("y", "FP64", (-1, 1_000_000)))
    limits = Limits(batch_rows=10**9)
    content = body(*(tensor(n, "FP64", [1], shape=[10**9, 1_000_000]) for n in "xy"))
    for takes in FORMS:
        with pytest.raises(InvalidRequest, match=r"has 1 values; its shape .* needs 1000000000000000"):
            bind(widest, content, limits, takes=takes)


@both_forms
class TestNames:
    WANTED = signature(Field("a", "FP64"), Field("b", "FP64"))

    def test_order_does_not_matter(self, takes: Takes) -> None:
        found = bind(self.WANTED, body(tensor("b", "FP64", [2]), tensor("a", "FP64", [1])), takes=takes)
        assert found.features.tolist() == [[1, 2]]

    @pytest.mark.parametrize(
        ("names", "says"),
        [
            ("a", "missing input: b"),
            ("x", "missing inputs: a, b"),
            ("ax", "missing input: b"),
            ("abx", "unknown input: x"),
            ("abxy", "unknown inputs: x, y"),
        ],
    )
    def test_missing_and_unknown(self, names: str, says: str, takes: Takes) -> None:
        with pytest.raises(InvalidRequest, match=says):
            bind(self.WANTED, body(*(tensor(name, "FP64", [1]) for name in names)), takes=takes)

    def test_messages_stay_short(self, takes: Takes) -> None:
        tensors = [tensor(n + "x" * 5000, "FP64", [1]) for n in ("a", "b")]
        with pytest.raises(InvalidRequest) as caught:
            bind(self.WANTED, body(*tensors, tensor("a", "FP64", [1]), tensor("b", "FP64", [1])), takes=takes)
        assert len(str(caught.value)) < 300

    def test_many_are_shown_by_the_first_ten(self, takes: Takes) -> None:
        wanted = signature(*(Field(f"c{number:02}", "FP64") for number in range(30)))
        with pytest.raises(InvalidRequest, match=r"missing inputs: c00, .*, c09$"):
            bind(wanted, body(tensor("x", "FP64", [1])), takes=takes)


class TestLevels:
    COLOR = Field("color", "BYTES", nullable=True, levels=("blue", "green", "red"))

    @both_forms
    def test_codes_null_and_unseen(self, takes: Takes) -> None:
        texts = ["red", None, "blue", "mauve", "", "Red"]
        bound = bind(
            signature(Field("n", "FP64"), self.COLOR),
            body(tensor("n", "FP64", [0] * 6), tensor("color", "BYTES", texts)),
            takes=takes,
        )
        np.testing.assert_array_equal(bound.features[:, 1], [2, np.nan, 0, -1, -1, -1])
        assert bound.unseen == {(3, 1): "mauve", (4, 1): "", (5, 1): "Red"}
        if bound.tensors is not None:
            assert bound.tensors["color"].tolist() == texts

    @both_forms
    @pytest.mark.parametrize(("text", "code"), [("red", 2), (None, np.nan), ("mauve", -1)])
    def test_in_one_row(self, text: str | None, code: float, takes: Takes) -> None:
        bound = bind(signature(self.COLOR), body(tensor("color", "BYTES", [text])), takes=takes)
        np.testing.assert_array_equal(bound.features, [[code]])
        assert bound.unseen == ({(0, 0): "mauve"} if text == "mauve" else {})

    def test_nothing_unseen(self) -> None:
        bound = bind(signature(self.COLOR), body(tensor("color", "BYTES", ["red", "green"])))
        assert (bound.features.ravel().tolist(), bound.unseen) == ([2, 1], {})

    @both_forms
    def test_a_long_text_is_cut(self, takes: Takes) -> None:
        bound = bind(signature(self.COLOR), body(tensor("color", "BYTES", ["é" * 1000])), takes=takes)
        assert bound.unseen == {(0, 0): "é" * 200}
        if bound.tensors is not None:
            assert bound.tensors["color"][0] == "é" * 1000

    @both_forms
    def test_a_wide_tensor_of_texts(self, takes: Takes) -> None:
        wide = Field("colors", "BYTES", (-1, 2), levels=self.COLOR.levels)
        bound = bind(
            signature(Field("n", "FP64"), wide),
            body(
                tensor("n", "FP64", [7, 8]),
                tensor("colors", "BYTES", [["red", "x"], ["y", "blue"]], shape=[2, 2]),
            ),
            takes=takes,
        )
        assert bound.features.tolist() == [[7, 2, -1], [8, -1, 0]]
        assert bound.unseen == {(0, 2): "x", (1, 1): "y"}

    @both_forms
    @pytest.mark.parametrize("text", ["red", "3.5", ""])
    def test_without_levels_every_text_is_unseen(self, text: str, takes: Takes) -> None:
        """A column of nulls only, in the reference, has no levels. A text that looks like a number is still a text."""
        bound = bind(
            signature(Field("color", "BYTES", nullable=True)),
            body(tensor("color", "BYTES", [text])),
            takes=takes,
        )
        assert (bound.features.tolist(), bound.unseen) == ([[-1]], {(0, 0): text})


class TestRows:
    """Records by name, as a data frame gives them."""

    WANTED = signature(
        Field("n", "FP64", nullable=True), Field("k", "BYTES", levels=("a", "b")), Field("w", "FP64", (-1, 2))
    )

    def bind(self, *rows: Any, takes: Takes = "matrix") -> Inputs:
        return bind(self.WANTED, orjson.dumps({"rows": rows}), takes=takes)

    @both_forms
    def test_are_read_by_name(self, takes: Takes) -> None:
        found = self.bind({"k": "b", "w": [1, 2], "n": 0.5}, {"w": [3, 4], "k": "zz"}, takes=takes)
        np.testing.assert_array_equal(found.features, [[0.5, 1, 1, 2], [np.nan, -1, 3, 4]])
        assert (found.rows, found.unseen) == (2, {(1, 1): "zz"})

    def test_are_bound_like_tensors(self) -> None:
        by_rows = self.bind({"n": 1, "k": "a", "w": [1, 2]}, {"n": None, "k": "b", "w": [3, 4]})
        by_tensors = bind(
            self.WANTED,
            body(
                tensor("n", "FP64", [1, None]),
                tensor("k", "BYTES", ["a", "b"]),
                tensor("w", "FP64", [1, 2, 3, 4], shape=[2, 2]),
            ),
        )
        np.testing.assert_array_equal(by_rows.features, by_tensors.features)

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            (
                {"k": "a", "w": [1, 2], "z": 1, "y": 1},
                "row 1 has an unknown input 'y'; the inputs are n, k, w",
            ),
            ({"w": [1, 2]}, "row 1 has no 'k', which may not be missing"),
            ({"w": [1, 2], "k": None}, "row 1 has no 'k'"),
            ({"k": "a"}, "row 1 has no 'w'"),
            ({"k": "a", "w": 1}, "row 1: 'w' must be a list of 2 values"),
            ({"k": "a", "w": [1]}, "row 1: 'w' must be a list of 2 values"),
            ({"k": "a", "w": [1, 2, 3]}, "row 1: 'w' must be a list of 2 values"),
            ({"k": "a", "w": {}}, "row 1: 'w' must be a list of 2 values"),
            ({"k": "a", "w": [[1, 2], [3]]}, "rectangular"),
            ({"k": "a", "w": [1, "2"]}, "'w' must hold FP64 values, got '2'"),
            ({"k": 1, "w": [1, 2]}, "'k' must hold BYTES values, got 1"),
            ({"k": "a", "w": [1, 2], "n": "1"}, "'n' must hold FP64 values"),
            ({"k": "a", "w": [1, 2], "n": [1]}, "'n' must hold FP64 values"),
        ],
    )
    def test_what_is_wrong_with_one(self, row: Any, says: str) -> None:
        with pytest.raises(InvalidRequest, match=says):
            self.bind({"k": "a", "w": [1, 2]}, row)

    def test_nested_values_of_a_wide_input(self) -> None:
        wanted = signature(Field("w", "FP64", (-1, 2, 2)))
        content = orjson.dumps({"rows": [{"w": [[1, 2], [3, 4]]}, {"w": [5, 6, 7, 8]}]})
        assert bind(wanted, content).features.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


class TestArrays:
    """Values that came as raw bytes and are never Python objects."""

    @both_forms
    @pytest.mark.parametrize("datatype", [name for name in NUMPY_OF if name != "BYTES"])
    def test_of_every_datatype(self, datatype: str, takes: Takes) -> None:
        found = bind_array(field_of(datatype), [1, 0, 1], takes=takes)
        assert found.features.tolist() == [[1], [0], [1]]
        if found.tensors is not None:
            assert found.tensors["x"].dtype == NUMPY_OF[datatype]

    @pytest.mark.parametrize(
        ("wanted", "said"), [(w, s) for w in NUMPY_OF for s in ACCEPTED[w] if w not in ("BYTES", s)]
    )
    def test_that_convert(self, wanted: str, said: str) -> None:
        assert bind_array(field_of(wanted), [1, 0], datatype=said).features.tolist() == [[1], [0]]
        found = bind_array(field_of(wanted), [1, 0], datatype=said, takes="tensors").tensors
        assert found is not None
        assert found["x"].dtype == NUMPY_OF[wanted]

    @both_forms
    @pytest.mark.parametrize("datatype", FLOATS)
    def test_nan_is_missing_where_that_is_allowed(self, datatype: str, takes: Takes) -> None:
        for data in ([np.nan], [1, np.nan, 2], [np.nan, np.nan]):
            found = bind_array(field_of(datatype, nullable=True), data, takes=takes)
            np.testing.assert_array_equal(found.features.ravel(), data)
            with pytest.raises(InvalidRequest, match="'x' holds NaN"):
                bind_array(field_of(datatype), data, takes=takes)

    @both_forms
    @pytest.mark.parametrize("wanted", FLOATS)
    @pytest.mark.parametrize("value", [np.inf, -np.inf])
    def test_infinity_is_refused(self, wanted: str, value: float, takes: Takes) -> None:
        """As in JSON, which cannot say it; models and monitors would not know what to do with it."""
        for data in ([value], [1, value], [value, -value], [np.nan, value]):
            with pytest.raises(InvalidRequest, match=f"does not fit {wanted}"):
                bind_array(field_of(wanted, nullable=True), data, takes=takes)

    @both_forms
    @pytest.mark.parametrize("datatype", FLOATS)
    def test_the_largest_values_are_fine(self, datatype: str, takes: Takes) -> None:
        """Their sum is infinite, and adding them up would be warned of."""
        largest = float(np.finfo(NUMPY_OF[datatype]).max)
        found = bind_array(field_of(datatype), [largest] * 3 + [-largest], takes=takes)
        assert found.features.ravel().tolist() == [largest] * 3 + [-largest]

    @pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
    def test_whole_numbers_beyond_the_exact_ones(self, datatype: str) -> None:
        most = int(np.iinfo(datatype.lower()).max)
        with pytest.raises(InvalidRequest, match="exactly"):
            bind_array(field_of(datatype), [0, most])
        found = bind_array(field_of(datatype), [0, most, most - 1], takes="tensors").tensors
        assert found is not None
        assert found["x"].tolist() == [0, most, most - 1]
        with pytest.raises(InvalidRequest, match="exactly"):
            bind_array(field_of(datatype, nullable=True), [0, most], takes="tensors")

    @both_forms
    def test_texts(self, takes: Takes) -> None:
        found = bind_array(field_of("BYTES"), [b"c", "é".encode(), b"a"], takes=takes)
        assert found.features.ravel().tolist() == [2, -1, 0]
        assert found.unseen == {(1, 0): "é"}
        if found.tensors is not None:
            assert found.tensors["x"].tolist() == ["c", "é", "a"]

    @both_forms
    def test_bytes_that_are_no_text(self, takes: Takes) -> None:
        with pytest.raises(InvalidRequest, match="'x' holds bytes that are not UTF-8"):
            bind_array(field_of("BYTES"), [b"a", b"\xff"], takes=takes)

    @both_forms
    def test_a_wrong_shape(self, takes: Takes) -> None:
        with pytest.raises(InvalidRequest, match="must have the shape"):
            bind_array(field_of("FP64"), [[1, 2], [3, 4]], takes=takes)

    def test_what_was_sent_is_not_changed(self) -> None:
        """A view on the body would be read-only; a matrix may be written to by nobody else."""
        found = bind_array(field_of("FP64"), [1, 2])
        assert found.features.flags.owndata or found.features.base is not None
        assert found.features.flags.c_contiguous


class TestTensors:
    """What a model that takes tensors is given."""

    def test_raw_values_are_bytes(self) -> None:
        field = Field("x", "BYTES", raw=True, nullable=True)
        assert tensor_x(field, ["é", None, ""]).tolist() == ["é".encode(), None, b""]
        found = bind_array(field, [b"\xff\x00", b""], takes="tensors")
        assert found.tensors is not None
        assert found.tensors["x"].tolist() == [b"\xff\x00", b""]
        assert found.unseen == {(0, 0): "\ufffd\x00", (1, 0): ""}

    def test_of_a_large_raw_value_monitors_see_the_beginning(self) -> None:
        found = bind_array(Field("x", "BYTES", raw=True), [b"\xff" * 5000, b"a" * 5000], takes="tensors")
        assert found.unseen == {(0, 0): "\ufffd" * 200, (1, 0): "a" * 200}

    @pytest.mark.parametrize("datatype", NUMPY_OF)
    @pytest.mark.parametrize("nullable", [False, True])
    def test_are_of_the_promised_dtype_and_shape(self, datatype: str, nullable: bool) -> None:
        field = Field("x", datatype, (-1, 2), nullable=nullable)
        found = tensor_x(field, [SAMPLE.get(datatype, 1)] * 6, shape=[3, 2])
        assert (found.dtype, found.shape) == (tensor_dtype(field), (3, 2))

    def test_each_input_has_its_own(self) -> None:
        wanted = signature(Field("n", "INT64"), Field("t", "BYTES"), Field("w", "FP32", (-1, 2, 1)))
        bound = bind(
            wanted,
            body(
                tensor("w", "FP32", [1, 2, 3, 4], shape=[2, 2, 1]),
                tensor("n", "INT64", [2**62 + 1, -1]),
                tensor("t", "BYTES", ["ü", "b"]),
            ),
            takes="tensors",
        )
        assert bound.tensors is not None
        assert list(bound.tensors) == ["n", "t", "w"]
        assert bound.tensors["n"].tolist() == [2**62 + 1, -1]
        assert bound.tensors["t"].tolist() == ["ü", "b"]
        assert bound.tensors["w"].shape == (2, 2, 1)
        np.testing.assert_array_equal(bound.features, [[2.0**62, -1, 1, 2], [-1, -1, 3, 4]])
        assert bound.unseen == {(0, 1): "ü", (1, 1): "b"}

    def test_wide_ones_are_not_watched(self) -> None:
        most = Limits(capture_columns=3)
        for width, watched in ((3, 3), (4, 0)):
            field = Field("x", "FP64", (-1, width))
            content = body(tensor("x", "FP64", list(range(2 * width)), shape=[2, width]))
            bound = bind(signature(field), content, most, takes="tensors")
            assert bound.features.shape == (2, watched)
            assert bound.unseen == {}
            assert bound.tensors is not None
            assert bound.tensors["x"].shape == (2, width)

    def test_a_matrix_is_always_whole(self) -> None:
        field = Field("x", "FP64", (-1, 4))
        content = body(tensor("x", "FP64", [1, 2, 3, 4], shape=[1, 4]))
        assert bind(signature(field), content, Limits(capture_columns=3)).features.shape == (1, 4)


# --- one row ----------------------------------------------------------------------------------------------------------------

one_value = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-300, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["a", "b", "zz", "", 65520, 2**53, 2**53 + 1, 3.5e38])
)
TWICE: list[tuple[Any, Any]] = [
    ([1], [2]),
    ([1, 1], [2, 1]),
    ([True], [True]),
    ([1.0], [2.0]),
    ([1, 2], [2, 2]),
    (None, None),
]
ONE_ROW_FIELDS = [
    *(field_of(kind, nullable=nullable) for kind in NUMPY_OF for nullable in (False, True)),
    Field("x", "BYTES"),
    Field("x", "FP64", (-1, 1)),
]


@settings(max_examples=120)
@given(
    st.sampled_from(list(NUMPY_OF)),
    one_value,
    st.sampled_from(TWICE),
    st.booleans(),
)
@example("FP64", 1.5, TWICE[0], False)
@example("FP64", 1.5, TWICE[1], True)
def test_one_row_is_bound_as_one_of_two(
    datatype: str, value: Any, shapes: tuple[Any, Any], nested: bool
) -> None:
    """The short way for the commonest request accepts and refuses what the general one does."""
    item = [value] if nested else value
    for field in ONE_ROW_FIELDS:
        found: list[Any] = []
        for rows, shape in zip((1, 2), shapes, strict=True):
            x = {"name": "x", "datatype": datatype, "shape": shape, "data": [item] * rows}
            try:
                inputs = bind(signature(field), orjson.dumps({"inputs": [x]}))
                assert inputs.rows == rows
                np.testing.assert_array_equal(inputs.features[0], inputs.features[-1])
                found.append((str(inputs.features[0].tolist()), inputs.unseen.get((0, 0))))
            except PredisError as error:
                found.append(type(error))
        assert found[0] == found[1], field


def test_one_row_of_many_inputs() -> None:
    names = [f"c{number}" for number in range(40)]
    wanted = signature(*(Field(name, "FP64" if at % 2 else "INT32") for at, name in enumerate(names)))
    content = body(
        *(tensor(name, wanted.inputs[at].datatype, [at]) for at, name in reversed(list(enumerate(names))))
    )
    found = bind(wanted, content)
    assert found.features.tolist() == [list(range(40))]
    assert (found.features.dtype, found.rows, found.tensors) == (np.float64, 1, None)


# --- parity with numpy ------------------------------------------------------------------------------------------------------

MIXED = signature(
    Field("flag", "BOOL"),
    Field("count", "INT32", nullable=True),
    Field("wide", "FP64", (-1, 2, 2)),
    Field("kind", "BYTES", nullable=True, levels=("a", "b", "ü")),
    Field("small", "FP32"),
)
finite = st.floats(allow_nan=False, allow_infinity=False)
ROW = st.fixed_dictionaries(
    {
        "flag": st.booleans(),
        "count": st.none() | st.integers(-(2**31), 2**31 - 1),
        "wide": st.lists(finite | st.integers(-(2**63), 2**64 - 1), min_size=4, max_size=4),
        "kind": st.none() | st.sampled_from(["a", "b", "ü", "zz", ""]),
        "small": st.floats(width=32, allow_nan=False, allow_infinity=False)
        | st.integers(-(2**63), 2**64 - 1),
    }
)


def tensors_of(rows: list[dict[str, Any]], *, nested: bool) -> list[dict[str, Any]]:
    wide = [row["wide"] for row in rows]
    return [
        tensor("wide", "FP64", wide if nested else [v for row in wide for v in row], shape=[len(rows), 2, 2]),
        *(
            tensor(f.name, f.datatype, [row[f.name] for row in rows])
            for f in MIXED.inputs
            if f.name != "wide"
        ),
    ]


@given(
    st.lists(ROW, min_size=1, max_size=20),
    st.sampled_from(["flat", "nested", "rows", "large"]),
    st.sampled_from(FORMS),
)
def test_the_bound_matrix_is_what_numpy_makes_of_the_columns(
    rows: list[dict[str, Any]], how: str, takes: Takes
) -> None:
    content = orjson.dumps(
        {"rows": rows} if how == "rows" else {"inputs": tensors_of(rows, nested=how == "nested")}
    )
    if how == "large":
        content += b" " * 5000
    bound = bind(MIXED, content, takes=takes)
    codes = {"a": 0, "b": 1, "ü": 2, None: np.nan}
    expected = np.column_stack(
        [
            np.array([row["flag"] for row in rows], np.float64),
            np.array([np.nan if row["count"] is None else row["count"] for row in rows], np.float64),
            np.array([[float(v) for v in row["wide"]] for row in rows], np.float64),
            np.array([codes.get(row["kind"], -1) for row in rows], np.float64),
            np.array([float(row["small"]) for row in rows], np.float64 if takes == "matrix" else np.float32),
        ]
    )
    np.testing.assert_array_equal(bound.features, expected)
    assert bound.features.flags.c_contiguous
    assert bound.features.dtype == np.float64
    assert bound.unseen == {(at, 6): row["kind"] for at, row in enumerate(rows) if row["kind"] in ("zz", "")}


# --- anything at all --------------------------------------------------------------------------------------------------------

BINDERS = [
    Binder(wanted, LIMITS, takes=takes)
    for takes in FORMS
    for wanted in (
        MIXED,
        *(signature(field_of(d, nullable=n)) for d in NUMPY_OF for n in (False, True)),
        signature(Field("x", "FP32", (-1, 3))),
        signature(Field("x", "BYTES")),
        signature(Field("x", "BYTES", raw=True)),
        signature(Field("x", "BYTES", (-1, 2), levels=("a",))),
    )
]
ENCODER = Encoder("e", 1, signature=MIXED)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
scalars |= st.sampled_from(["x", "a", "FP64", "flag", 1, 2, 0, [1], [2], [1, 1], 1e308, "2013-04-01"])
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def or_else(likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is expected, or now and then anything."""
    return st.one_of(likely, likely, likely, anything)


NAMES = ["x", "flag", "count", "wide", "kind", "small"]
one_tensor = st.fixed_dictionaries(
    {},
    optional={
        "name": or_else(st.sampled_from(NAMES)),
        "datatype": or_else(st.sampled_from(list(NUMPY_OF))),
        "shape": or_else(st.lists(st.integers(0, 4), min_size=1, max_size=3)),
        "data": or_else(st.lists(scalars, max_size=5) | st.lists(st.lists(scalars, max_size=3), max_size=3)),
        "parameters": or_else(st.fixed_dictionaries({"binary_data_size": st.integers(0, 20)})),
    },
)
optional_parts: dict[Any, Any] = {
    "id": or_else(st.text(max_size=140)),
    "parameters": or_else(
        st.fixed_dictionaries(
            {}, optional={"event_time": anything, "routing_key": anything, "timeout": anything}
        )
    ),
    "outputs": or_else(st.lists(or_else(st.fixed_dictionaries({"name": st.text(max_size=5)})), max_size=3)),
    "other": anything,
}
mostly_requests = st.one_of(
    st.fixed_dictionaries(
        {"inputs": or_else(st.lists(or_else(one_tensor), max_size=6))}, optional=optional_parts
    ),
    st.fixed_dictionaries(
        {"rows": or_else(st.lists(or_else(st.dictionaries(st.sampled_from(NAMES), scalars)), max_size=3))},
        optional=optional_parts,
    ),
)


def survive(content: bytes, head_bytes: int | None = None) -> None:
    """Everything a request goes through; only errors of ours may come out."""
    with contextlib.suppress(PredisError):
        request = decode_request(content, LIMITS, head_bytes=head_bytes)
        for step in (
            request.event_time,
            request.routing_key,
            request.timeout_s,
            lambda: ENCODER.check(request.outputs),
        ):
            with contextlib.suppress(PredisError):
                step()
        for binder in BINDERS:
            with contextlib.suppress(PredisError):
                bound = binder.bind(request)
                assert bound.features.dtype == np.float64
                assert not np.isinf(bound.features).any()
                assert all(bound.features[place] == -1 for place in bound.unseen)
                if bound.tensors is not None:
                    assert all(len(values) == bound.rows for values in bound.tensors.values())


def as_json(document: Any) -> bytes:
    """As Python writes it: NaN, Infinity, numbers of any length and lone surrogates are all in it."""
    return json.dumps(document).encode("utf-8", "surrogatepass")


class TestAnything:
    @settings(max_examples=150)
    @given(mostly_requests, st.sampled_from([b"", b" " * 5000]))
    def test_nearly_a_request(self, document: Any, padding: bytes) -> None:
        survive(as_json(document) + padding)

    @given(anything)
    def test_any_json(self, document: Any) -> None:
        survive(as_json(document))

    @given(st.binary())
    @example(b"\xed\xa0\x80")
    @example(b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1]}]}\x00')
    def test_any_bytes(self, content: bytes) -> None:
        survive(content)

    @given(mostly_requests, st.binary(max_size=40))
    def test_any_bytes_behind_a_head(self, document: Any, raw: bytes) -> None:
        head = as_json(document)
        survive(head + raw, len(head))

    @given(st.data())
    def test_a_good_request_with_bytes_changed(self, data: st.DataObject) -> None:
        good = body(
            tensor("x", "FP64", [1.5, 2, None]), id="r", parameters={"event_time": 5}, outputs=[{"name": "s"}]
        )
        content = bytearray(good)
        for _change in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
        survive(bytes(content[: data.draw(st.integers(0, len(good)))]))
        survive(bytes(content))

    @given(
        st.sampled_from(list(NUMPY_OF)),
        st.binary(max_size=48),
        st.lists(st.integers(0, 6), min_size=1, max_size=3),
    )
    def test_any_raw_tensor(self, datatype: str, raw: bytes, shape: list[int]) -> None:
        x = {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
        head = body(x)
        survive(head + raw, len(head))


def test_a_request_of_no_wire() -> None:
    """gRPC makes the same request of its own messages."""
    x = {"name": "x", "datatype": "FP64", "shape": [2], "data": np.array([1.0, 2.0])}
    assert Binder(signature(Field("x", "FP64")), LIMITS).bind(InferRequest({"x": x})).features.tolist() == [
        [1],
        [2],
    ]
