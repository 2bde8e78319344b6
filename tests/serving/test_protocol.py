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

from predis.errors import InvalidInput, InvalidRequest, PredisError, TooLarge
from predis.registry.signature import NUMPY_OF, Field, Signature
from predis.serving.protocol import MAX_ID, Binder, Bound, Encoder, InferRequest, Limits, decode_request
from predis.state.records import Matrix
from tests.serving.helpers import LIMITS, SCORE, body, signature, tensor

EXACT = 2**53

# Which datatypes a tensor may say it has, for an input of each datatype: those every value of which converts. Written out,
# not computed, so that it is a second opinion. (Integers of 64 bits into FP64 are numpy's "safe" too: a caller's whole numbers
# for a column of numbers are what everybody sends; beyond 2^53 they are rounded, as JSON's own numbers are.)
UNSIGNED = ["UINT8", "UINT16", "UINT32", "UINT64"]
SIGNED = ["INT8", "INT16", "INT32", "INT64"]
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


def bind(wanted: Signature, content: bytes, limits: Limits = LIMITS) -> Bound:
    return Binder(wanted, limits).bind(decode_request(content, limits))


def bind_x(field: Field, data: Any, *, datatype: str = "", shape: Any = None) -> Matrix:
    return bind(signature(field), body(tensor("x", datatype or field.datatype, data, shape=shape))).features


class TestDecode:
    def test_the_parts_of_a_request(self) -> None:
        x = tensor("x", "FP64", [1.5])
        outputs = [{"name": "score", "parameters": {"binary_data": False}}]
        request = decode_request(body(x, id="r-1", parameters={"a": 1}, outputs=outputs), LIMITS)
        assert request == InferRequest({"x": x}, "r-1", {"a": 1}, ["score"])

    def test_only_inputs_are_needed(self) -> None:
        x = tensor("x", "FP64", [1.5])
        assert decode_request(body(x), LIMITS) == InferRequest({"x": x}, "", {}, None)

    @pytest.mark.parametrize("outputs", [None, []])
    def test_no_outputs_named_means_all(self, outputs: Any) -> None:
        assert decode_request(body(tensor("x", "FP64", [1]), outputs=outputs), LIMITS).outputs is None

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b'{"inputs": [\x00]}', "not JSON"),
            (b'{"inputs": [NaN]}', "not JSON"),
            (b'{"inputs": [1e999]}', "not JSON"),
            (b'{"inputs": [{"name": "\\ud800"}]}', "not JSON"),
            (b"[" * 5000 + b"]" * 5000, "not JSON"),
            (b"null", "JSON object"),
            (b"[]", "JSON object"),
            (b'"inputs"', "JSON object"),
            (b"{}", "'inputs' must be a list"),
            (b'{"inputs": {}}', "'inputs' must be a list"),
            (b'{"inputs": []}', "at least one tensor"),
            (b'{"inputs": [1]}', "each of 'inputs'"),
            (b'{"inputs": [{}]}', "each of 'inputs'"),
            (b'{"inputs": [{"name": 3}]}', "each of 'inputs'"),
            (b'{"inputs": [{"name": "x"}, {"name": "x"}]}', "same name"),
            (b'{"inputs": [{"name": "x"}], "id": 7}', "'id'"),
            (b'{"inputs": [{"name": "x"}], "id": "a\\nb"}', "'id'"),
            (b'{"inputs": [{"name": "x"}], "id": "%s"}' % (b"i" * (MAX_ID + 1)), "'id'"),
            (b'{"inputs": [{"name": "x"}], "parameters": []}', "'parameters'"),
            (b'{"inputs": [{"name": "x"}], "outputs": {}}', "'outputs'"),
            (b'{"inputs": [{"name": "x"}], "outputs": [{}]}', "'outputs'"),
            (b'{"inputs": [{"name": "x"}], "outputs": ["x"]}', "'outputs'"),
        ],
    )
    def test_what_is_no_request_is_refused_and_told_why(self, content: bytes, says: str) -> None:
        with pytest.raises(InvalidRequest, match=says):
            decode_request(content, LIMITS)

    def test_more_tensors_than_allowed(self) -> None:
        tensors = [tensor(f"x{i}", "FP64", [1]) for i in range(LIMITS.tensors + 1)]
        assert len(decode_request(body(*tensors[:-1]), LIMITS).inputs) == LIMITS.tensors
        with pytest.raises(TooLarge, match="max_tensors"):
            decode_request(body(*tensors), LIMITS)

    def test_the_longest_id(self) -> None:
        longest = "é" * MAX_ID
        assert decode_request(body(tensor("x", "FP64", [1]), id=longest), LIMITS).id == longest


class TestEventTime:
    @pytest.mark.parametrize(
        ("given_time", "nanoseconds"),
        [
            ("2013-04-01T05:00:00Z", 1_364_792_400_000_000_000),
            ("2013-04-01T05:00:00.250Z", 1_364_792_400_250_000_000),
            ("2013-04-01T07:00:00+02:00", 1_364_792_400_000_000_000),
            ("2013-04-01T05:00:00", 1_364_792_400_000_000_000),
            ("2013-04-01", 1_364_774_400_000_000_000),
            (1_364_792_400, 1_364_792_400_000_000_000),
            (1_364_792_400.5, 1_364_792_400_500_000_000),
            (0, 0),
        ],
    )
    def test_every_form(self, given_time: Any, nanoseconds: int) -> None:
        request = decode_request(
            body(tensor("x", "FP64", [1]), parameters={"event_time": given_time}), LIMITS
        )
        assert request.event_time() == nanoseconds

    @pytest.mark.parametrize("parameters", [{}, {"event_time": None}])
    def test_none(self, parameters: dict[str, Any]) -> None:
        request = decode_request(body(tensor("x", "FP64", [1]), parameters=parameters), LIMITS)
        assert request.event_time() is None

    @pytest.mark.parametrize(
        "wrong",
        [
            "",
            "yesterday",
            "2013-13-01",
            -1,
            1e300,
            2**63,
            True,
            [],
            {},
            [1] * 5000,
            "9" * 5000,
            "0001-01-01T00:00:00+23:59",
        ],
    )
    def test_neither_is_refused_in_few_words(self, wrong: Any) -> None:
        request = decode_request(body(tensor("x", "FP64", [1]), parameters={"event_time": wrong}), LIMITS)
        with pytest.raises(InvalidInput, match=r"parameters\.event_time") as caught:
            request.event_time()
        assert len(str(caught.value)) < 300


class TestRoutingKey:
    def test_text(self) -> None:
        assert InferRequest({}, parameters={"routing_key": "customer-7"}).routing_key() == "customer-7"
        assert InferRequest({}).routing_key() == ""

    @pytest.mark.parametrize("wrong", [7, None, ["a"], {"a": 1}])
    def test_other_is_refused(self, wrong: Any) -> None:
        with pytest.raises(InvalidRequest, match="routing_key"):
            InferRequest({}, parameters={"routing_key": wrong}).routing_key()


class TestDatatypes:
    def test_the_table_is_complete(self) -> None:
        assert ACCEPTED.keys() == NUMPY_OF.keys()

    @pytest.mark.parametrize("said", NUMPY_OF)
    @pytest.mark.parametrize("wanted", NUMPY_OF)
    def test_lossless_ones_are_accepted_others_refused(self, wanted: str, said: str) -> None:
        data = [SAMPLE.get(wanted, 1)]
        if said in ACCEPTED[wanted]:
            assert bind_x(field_of(wanted), data, datatype=said) == (0.0 if wanted == "BYTES" else 1.0)
        else:
            with pytest.raises(InvalidRequest, match=f"'x' must be {wanted}, got '{said}'"):
                bind_x(field_of(wanted), data, datatype=said)

    @pytest.mark.parametrize("said", [None, "", "fp64", "FLOAT", 7, True, [], ["FP64"], {}, {"a": []}])
    def test_what_is_none_is_refused(self, said: Any) -> None:
        x = {**tensor("x", "FP64", [1]), "datatype": said}
        with pytest.raises(InvalidRequest, match="'x' must be FP64"):
            bind(signature(Field("x", "FP64")), body(x))

    @pytest.mark.parametrize("value", [None, 1, 1.5, True, "a", [], {}, [1, 2], {"a": 1}], ids=repr)
    @pytest.mark.parametrize("wanted", NUMPY_OF)
    def test_values_must_be_of_the_kind(self, wanted: str, value: Any) -> None:
        """No truth values for numbers, no numbers for truth values, no 1.5 for whole numbers, no texts for any."""
        kinds = {"BOOL": (bool,), "BYTES": (str,)}.get(
            wanted, (int, float) if wanted.startswith("FP") else (int,)
        )
        good = SAMPLE.get(wanted, 1)
        if type(value) in kinds:
            assert bind_x(field_of(wanted), [good, value]).shape == (2, 1)
        else:
            with pytest.raises(InvalidRequest, match="'x'"):
                bind_x(field_of(wanted), [good, value])


class TestRange:
    @pytest.mark.parametrize("datatype", UNSIGNED + SIGNED)
    def test_whole_numbers_to_the_edges_and_not_beyond(self, datatype: str) -> None:
        info = np.iinfo(datatype.lower())
        low, high = max(int(info.min), -EXACT), min(int(info.max), EXACT)
        assert bind_x(field_of(datatype), [low, high]).ravel().tolist() == [low, high]
        for beyond in (low - 1, high + 1):
            with pytest.raises(InvalidRequest, match=f"does not fit {datatype}"):
                bind_x(field_of(datatype), [low, beyond])

    @pytest.mark.parametrize("value", [2**64 - 1, 2**64, 10**30, -(10**30), 10**300])
    def test_huge_whole_numbers(self, value: int) -> None:
        assert bind_x(field_of("FP64"), [value, -1, 0.5])[0, 0] == float(value)
        with pytest.raises(InvalidRequest):
            bind_x(field_of("INT64"), [value])

    def test_huge_whole_numbers_in_a_wide_tensor(self) -> None:
        found = bind_x(field_of("FP64", shape=(-1, 2)), [2**64 - 1, -1, 2**63, 0.5], shape=[2, 2])
        assert found.tolist() == [[2.0**64, -1.0], [2.0**63, 0.5]]

    @pytest.mark.parametrize(("datatype", "text"), [("FP16", "65519.9"), ("FP32", "3.4028235e+38")])
    def test_floats_that_round_to_the_largest(self, datatype: str, text: str) -> None:
        assert bind_x(field_of(datatype), [float(text), -float(text)])[0, 0] == float(text)

    @pytest.mark.parametrize(("datatype", "value"), [("FP16", 65520), ("FP32", 3.5e38), ("FP32", 2**128)])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_floats_that_would_be_infinite(self, datatype: str, value: float, sign: int) -> None:
        wanted = signature(Field("a", "FP64"), Field("w", datatype, (-1, 2)), Field("z", "FP64"))
        good = tensor("w", datatype, [1, 2], shape=[1, 2])
        others = [tensor("a", "FP64", [1e300]), tensor("z", "FP64", [-1e300])]
        assert bind(wanted, body(good, *others)).features.tolist() == [[1e300, 1, 2, -1e300]]
        with pytest.raises(InvalidRequest, match=f"'w': .* does not fit {datatype}"):
            bind(wanted, body({**good, "data": [1, sign * value]}, *others))

    def test_missing_values_are_not_out_of_range(self) -> None:
        assert math.isnan(bind_x(field_of("FP32", nullable=True), [None, 1.0])[0, 0])
        assert math.isnan(bind_x(field_of("INT8", nullable=True), [None, 1])[0, 0])

    @pytest.mark.parametrize("tiny", ["1e-999", "5e-324", "-0.0"])
    def test_tiny_floats(self, tiny: str) -> None:
        content = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[%s]}]}' % tiny.encode()
        found = bind(signature(field_of("FP64")), content).features[0, 0]
        assert found == float(tiny)
        assert math.copysign(1, found) == math.copysign(1, float(tiny))


class TestNull:
    @pytest.mark.parametrize("datatype", NUMPY_OF)
    def test_is_missing_where_the_signature_allows_it(self, datatype: str) -> None:
        data = [None, SAMPLE.get(datatype, 1), None]
        found = bind_x(field_of(datatype, nullable=True), data)
        assert np.isnan(found).ravel().tolist() == [True, False, True]
        assert np.isnan(bind_x(field_of(datatype, nullable=True), [None, None])).all()

    @pytest.mark.parametrize("datatype", NUMPY_OF)
    def test_is_refused_elsewhere(self, datatype: str) -> None:
        with pytest.raises(InvalidRequest, match="'x' holds null"):
            bind_x(field_of(datatype), [SAMPLE.get(datatype, 1), None])


NESTED = [[1, 2, 3], [4, 5, 6]]


class TestShape:
    @pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], NESTED, [[[1, 2, 3], [4, 5, 6]]]])
    def test_flat_and_nested_data_are_the_same(self, data: Any) -> None:
        assert bind_x(field_of("FP64", shape=(-1, 3)), data, shape=[2, 3]).tolist() == NESTED

    def test_dimensions_after_the_rows_become_columns_in_order(self) -> None:
        values = np.arange(24.0).reshape(2, 3, 4)
        found = bind_x(field_of("FP64", shape=(-1, 3, 4)), values.tolist(), shape=[2, 3, 4])
        assert found.tolist() == values.reshape(2, 12).tolist()

    @pytest.mark.parametrize("data", [[1, 2], [[1], [2]]])
    @pytest.mark.parametrize("shape", [[2], [2, 1]])
    def test_a_column_may_stand_upright(self, data: Any, shape: list[int]) -> None:
        assert bind_x(field_of("FP64"), data, shape=shape).tolist() == [[1], [2]]

    @pytest.mark.parametrize("shape", [[2], [3], [3, 2], [2, 2], [2, 3, 1], [6], [2, -3], [2, "3"], [2, [3]]])
    def test_of_a_wide_tensor_must_be_the_signatures(self, shape: Any) -> None:
        with pytest.raises(InvalidRequest, match="shape"):
            bind_x(field_of("FP64", shape=(-1, 3)), [1, 2, 3, 4, 5, 6], shape=[*shape])

    @pytest.mark.parametrize(
        "shape", [None, [], 2, "2", {}, [None], ["2"], [2.0], [True], [-1], [[2]]], ids=repr
    )
    def test_must_start_with_the_number_of_rows(self, shape: Any) -> None:
        x = {**tensor("x", "FP64", [1, 2]), "shape": shape}
        with pytest.raises(InvalidRequest, match="send at least one row"):
            bind(signature(field_of("FP64")), body(x))
        with pytest.raises(InvalidRequest, match="send at least one row"):
            bind(signature(field_of("FP64")), body({k: v for k, v in x.items() if k != "shape"}))

    def test_an_empty_batch(self) -> None:
        with pytest.raises(InvalidRequest, match="an empty batch"):
            bind_x(field_of("FP64"), [], shape=[0])

    @pytest.mark.parametrize("data", [None, 1, "12", {}, {"0": 1, "1": 2}])
    def test_data_must_be_a_list(self, data: Any) -> None:
        with pytest.raises(InvalidRequest, match="'data', a list"):
            bind_x(field_of("FP64"), data, shape=[2])
        with pytest.raises(InvalidRequest, match="'data', a list"):
            bind(signature(field_of("FP64")), body({"name": "x", "datatype": "FP64", "shape": [2]}))

    @pytest.mark.parametrize("data", [[], [1], [1, 2, 3], [[]], [[], []], [[1, 2], [3, 4]]])
    def test_too_few_and_too_many_values(self, data: Any) -> None:
        with pytest.raises(InvalidRequest, match="needs 2"):
            bind_x(field_of("FP64"), data, shape=[2])

    @pytest.mark.parametrize(
        "data", [[[1], 2], [[1], [2, 3]], [[1], []], [[1], None], [[[1]], [2]], [[1], {}]]
    )
    def test_ragged_data(self, data: Any) -> None:
        with pytest.raises(InvalidRequest, match="'x'"):
            bind_x(field_of("FP64"), data, shape=[2])

    def test_deep_data(self) -> None:
        """As deep as the JSON parser goes, which is deeper than Python's repr: a message about it must not fail either."""
        for depth in (8, 9, 900, 1010):
            for before in (b"", b"1,"):
                data = b"[" * depth + b"1" + b"]" * depth
                for x in (
                    b'"datatype":"FP64","shape":[%d],"data":[%s]' % (1 + bool(before), before + data),
                    b'"datatype":"FP64","shape":[1,%s],"data":[1]' % data,
                    b'"datatype":%s,"shape":[1],"data":[1]' % data,
                ):
                    with pytest.raises(InvalidRequest):
                        bind(signature(field_of("FP64")), b'{"inputs":[{"name":"x",%s}]}' % x)

    @pytest.mark.parametrize("part", ["id", "parameters", "outputs"])
    def test_deep_parts(self, part: str) -> None:
        deep = b"[" * 1010 + b"]" * 1010
        with pytest.raises(InvalidRequest):
            decode_request(b'{"inputs":[{"name":"x"}],"%s":%s}' % (part.encode(), deep), LIMITS)

    def test_deep_parameters(self) -> None:
        deep = orjson.loads(b"[" * 1010 + b"]" * 1010)
        request = InferRequest({}, parameters={"routing_key": deep, "event_time": deep})
        with pytest.raises(InvalidRequest):
            request.routing_key()
        with pytest.raises(InvalidInput):
            request.event_time()

    def test_more_rows_than_allowed(self) -> None:
        most = LIMITS.batch_rows
        assert len(bind_x(field_of("FP64"), [1.0] * most)) == most
        for rows in (most + 1, 2**62, 10**18):
            with pytest.raises(TooLarge, match="max_batch_rows"):
                bind_x(field_of("FP64"), [1.0] * 3, shape=[rows])

    def test_rows_that_do_not_fit_into_memory(self) -> None:
        """A small body may ask for a matrix of any size; it is refused, whether or not the machine would lend so much."""
        widest = signature(Field("x", "FP64", (-1, 1_000_000)), Field("y", "FP64", (-1, 1_000_000)))
        limits = Limits(batch_rows=10**9)
        content = body(*(tensor(n, "FP64", [1], shape=[10**9, 1_000_000]) for n in "xy"))
        with pytest.raises(TooLarge, match="memory"):
            bind(widest, content, limits)

    def test_inputs_must_agree_about_the_rows(self) -> None:
        wanted = signature(Field("a", "FP64"), Field("b", "FP64"))
        with pytest.raises(InvalidRequest, match="'b' must have the shape \\[2\\]"):
            bind(wanted, body(tensor("a", "FP64", [1, 2]), tensor("b", "FP64", [1])))


class TestNames:
    WANTED = signature(Field("a", "FP64"), Field("b", "FP64"))

    def test_order_does_not_matter(self) -> None:
        found = bind(self.WANTED, body(tensor("b", "FP64", [2]), tensor("a", "FP64", [1])))
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
    def test_missing_and_unknown(self, names: str, says: str) -> None:
        with pytest.raises(InvalidRequest, match=says):
            bind(self.WANTED, body(*(tensor(name, "FP64", [1]) for name in names)))

    def test_messages_stay_short(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            bind(
                self.WANTED,
                body(
                    *(tensor(n + "x" * 5000, "FP64", [1]) for n in ("a", "b")),
                    tensor("a", "FP64", [1]),
                    tensor("b", "FP64", [1]),
                ),
            )
        assert len(str(caught.value)) < 300


class TestLevels:
    COLOR = Field("color", "BYTES", nullable=True, levels=("blue", "green", "red"))

    def test_codes_null_and_unseen(self) -> None:
        texts = ["red", None, "blue", "mauve", "", "Red"]
        bound = bind(
            signature(Field("n", "FP64"), self.COLOR),
            body(tensor("n", "FP64", [0] * 6), tensor("color", "BYTES", texts)),
        )
        np.testing.assert_array_equal(bound.features[:, 1], [2, np.nan, 0, -1, -1, -1])
        assert bound.unseen == {(3, 1): "mauve", (4, 1): "", (5, 1): "Red"}

    def test_nothing_unseen(self) -> None:
        bound = bind(signature(self.COLOR), body(tensor("color", "BYTES", ["red", "green"])))
        assert (bound.features.ravel().tolist(), bound.unseen) == ([2, 1], {})

    def test_a_long_text_is_cut(self) -> None:
        bound = bind(signature(self.COLOR), body(tensor("color", "BYTES", ["é" * 1000])))
        assert bound.unseen == {(0, 0): "é" * 200}

    def test_a_wide_tensor_of_texts(self) -> None:
        wide = Field("colors", "BYTES", (-1, 2), levels=self.COLOR.levels)
        bound = bind(
            signature(Field("n", "FP64"), wide),
            body(
                tensor("n", "FP64", [7, 8]),
                tensor("colors", "BYTES", [["red", "x"], ["y", "blue"]], shape=[2, 2]),
            ),
        )
        assert bound.features.tolist() == [[7, 2, -1], [8, -1, 0]]
        assert bound.unseen == {(0, 2): "x", (1, 1): "y"}

    @pytest.mark.parametrize("text", ["red", "3.5", ""])
    def test_without_levels_every_text_is_unseen(self, text: str) -> None:
        """A column of nulls only, in the reference, has no levels. A text that looks like a number is still a text."""
        bound = bind(
            signature(Field("color", "BYTES", nullable=True)), body(tensor("color", "BYTES", [text]))
        )
        assert (bound.features.tolist(), bound.unseen) == ([[-1]], {(0, 0): text})


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


@given(st.lists(ROW, min_size=1, max_size=20), st.booleans())
def test_the_bound_matrix_is_what_numpy_makes_of_the_columns(
    rows: list[dict[str, Any]], nested: bool
) -> None:
    tensors = [
        tensor("wide", "FP64", [row["wide"] for row in rows] if nested else [value for row in rows for value in row["wide"]],
               shape=[len(rows), 2, 2]),
        *(tensor(f.name, f.datatype, [row[f.name] for row in rows]) for f in MIXED.inputs if f.name != "wide"),
    ]  # fmt: skip
    bound = bind(MIXED, orjson.dumps({"inputs": tensors}))
    codes = {"a": 0, "b": 1, "ü": 2, None: np.nan}
    expected = np.column_stack(
        [
            np.array([row["flag"] for row in rows], np.float64),
            np.array([np.nan if row["count"] is None else row["count"] for row in rows], np.float64),
            np.array([[float(v) for v in row["wide"]] for row in rows], np.float64),
            np.array([codes.get(row["kind"], -1) for row in rows], np.float64),
            np.array([float(row["small"]) for row in rows], np.float64),
        ]
    )
    np.testing.assert_array_equal(bound.features, expected)
    assert bound.features.flags.c_contiguous
    assert bound.features.dtype == np.float64
    assert bound.unseen == {(at, 6): row["kind"] for at, row in enumerate(rows) if row["kind"] in ("zz", "")}


# --- anything at all --------------------------------------------------------------------------------------------------------

BINDERS = [
    Binder(wanted, LIMITS)
    for wanted in (
        MIXED,
        signature(*(field_of(d) for d in ["FP64"])),
        *(signature(field_of(d, nullable=n)) for d in NUMPY_OF for n in (False, True)),
        signature(Field("x", "FP32", (-1, 3))),
        signature(Field("x", "BYTES")),
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


one_tensor = st.fixed_dictionaries(
    {},
    optional={
        "name": or_else(st.sampled_from(["x", "flag", "count", "wide", "kind", "small"])),
        "datatype": or_else(st.sampled_from(list(NUMPY_OF))),
        "shape": or_else(st.lists(st.integers(0, 4), min_size=1, max_size=3)),
        "data": or_else(st.lists(scalars, max_size=5) | st.lists(st.lists(scalars, max_size=3), max_size=3)),
    },
)
mostly_requests = st.fixed_dictionaries(
    {"inputs": or_else(st.lists(or_else(one_tensor), max_size=6))},
    optional={
        "id": or_else(st.text(max_size=140)),
        "parameters": or_else(
            st.fixed_dictionaries({}, optional={"event_time": anything, "routing_key": anything})
        ),
        "outputs": or_else(
            st.lists(or_else(st.fixed_dictionaries({"name": st.text(max_size=5)})), max_size=3)
        ),
        "other": anything,
    },
)


def survive(content: bytes) -> None:
    """Everything a request goes through; only errors of ours may come out."""
    with contextlib.suppress(PredisError):
        request = decode_request(content, LIMITS)
        for step in (request.event_time, request.routing_key, lambda: ENCODER.check(request.outputs)):
            with contextlib.suppress(PredisError):
                step()
        for binder in BINDERS:
            with contextlib.suppress(PredisError):
                bound = binder.bind(request)
                assert bound.features.dtype == np.float64
                assert not np.isinf(bound.features).any()
                assert all(bound.features[place] == -1 for place in bound.unseen)


def as_json(document: Any) -> bytes:
    """As Python writes it: NaN, Infinity, numbers of any length and lone surrogates are all in it."""
    return json.dumps(document).encode("utf-8", "surrogatepass")


class TestAnything:
    @settings(max_examples=300)
    @given(mostly_requests)
    def test_nearly_a_request(self, document: Any) -> None:
        survive(as_json(document))

    @given(anything)
    def test_any_json(self, document: Any) -> None:
        survive(as_json(document))

    @given(st.binary())
    @example(b"\xed\xa0\x80")
    @example(b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1]}]}\x00')
    def test_any_bytes(self, content: bytes) -> None:
        survive(content)

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


# --- answers ----------------------------------------------------------------------------------------------------------------


class TestEncoder:
    TWO = signature(
        Field("x", "FP64"), outputs=(Field("label", "INT64"), Field("p", "FP32", (-1, 2))), score="p"
    )
    OUTPUTS = (np.array([1, 0]), np.array([[0.25, 0.75], [1.0, np.nan]], np.float32))

    def encoded(self, wanted: list[str] | None = None) -> Any:
        return orjson.loads(Encoder("e", 3, signature=self.TWO).encode("r", self.OUTPUTS, wanted=wanted))

    def test_is_the_protocols_answer(self) -> None:
        assert self.encoded() == {
            "model_name": "e",
            "model_version": "3",
            "id": "r",
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": [2], "data": [1, 0]},
                {"name": "p", "datatype": "FP32", "shape": [2, 2], "data": [0.25, 0.75, 1.0, None]},
            ],
        }

    @pytest.mark.parametrize("wanted", [["p"], ["label"], ["p", "label"], ["p", "p"]])
    def test_only_outputs_asked_for(self, wanted: list[str]) -> None:
        assert [o["name"] for o in self.encoded(wanted)["outputs"]] == sorted(set(wanted))

    def test_unknown_outputs_are_refused_beforehand(self) -> None:
        encoder = Encoder("e", 3, signature=self.TWO)
        encoder.check(None)
        encoder.check(["p"])
        with pytest.raises(InvalidRequest, match="unknown output 'q'; the outputs are label, p"):
            encoder.check(["p", "q"])

    @given(st.lists(st.floats(), min_size=1, max_size=20))
    def test_floats_come_back_as_they_were_and_what_json_cannot_say_is_null(
        self, values: list[float]
    ) -> None:
        content = Encoder("e", 1, signature=signature(SCORE)).encode("", [np.array(values)], wanted=None)
        back = orjson.loads(content)["outputs"][0]["data"]
        assert back == [v if math.isfinite(v) else None for v in values]
