"""Keys: the same for the same rows of the same version, different for anything else."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from predis.registry.signature import PROBABILITY, Field, Signature
from predis.serving.binding import Binder
from predis.serving.cache import CacheKeys
from predis.serving.cache.keys import canonical
from predis.serving.inputs import Inputs
from predis.serving.protocol import InferRequest, Limits
from tests.serving.cache.helpers import AB, matrix, version

KEYS = CacheKeys(version())
TEXTS = st.one_of(st.none(), st.text(max_size=3), st.binary(max_size=3))
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, np.nan, 5e-324])


@st.composite
def matrices(draw: st.DrawFn) -> Inputs:
    rows, columns = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    features = draw(npst.arrays(np.float64, (rows, columns), elements=NUMBERS))
    places = st.tuples(st.integers(0, 2), st.integers(0, 2))
    return Inputs(rows, features, draw(st.dictionaries(places, st.text(max_size=3), max_size=2)))


@st.composite
def tensors(draw: st.DrawFn) -> Inputs:
    made: dict[str, Any] = {}
    for name in draw(st.lists(st.text("ab", max_size=3), unique=True, max_size=3)):
        shape = draw(npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=2))
        kind = draw(st.sampled_from([np.float32, np.float16, np.int64, np.uint8, np.bool_, np.object_]))
        made[name] = draw(npst.arrays(kind, shape, elements=TEXTS if kind is np.object_ else None))
    return Inputs(draw(st.integers(0, 2)), np.empty((0, 0)), {}, made)


def meaning(inputs: Inputs) -> object:
    """What makes two inputs the same, written down without any bytes in between."""
    if inputs.tensors is None:
        values = tuple("nan" if v != v else v + 0.0 for v in inputs.features.ravel().tolist())
        return ("matrix", inputs.features.shape, values, frozenset(inputs.unseen.items()))
    described = []
    for name, tensor in sorted(inputs.tensors.items()):
        items = tensor.ravel().tolist() if tensor.dtype.hasobject else tensor.tobytes()
        kinds = tuple(map(type, items)) if tensor.dtype.hasobject else ()
        described.append((name, tensor.dtype.str, tensor.shape, tuple(items), kinds))
    return ("tensors", inputs.rows, tuple(described))


@hypothesis_settings(max_examples=200)
@given(st.lists(st.one_of(matrices(), tensors()), min_size=2, max_size=8))
def test_two_inputs_have_one_key_only_if_they_mean_the_same(found: list[Inputs]) -> None:
    described = [(meaning(inputs), canonical(inputs), KEYS.of(inputs)) for inputs in found]
    for one, other in itertools.combinations(described, 2):
        same = one[0] == other[0]
        assert [one[1] == other[1], one[2] == other[2]] == [same, same]


def objects(*items: Any) -> np.ndarray:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (matrix([1.0, 2.0]), matrix([1.0], [2.0])),
        (matrix([]), Inputs(0, np.empty((0, 0)), {})),
        (Inputs(1, np.array([[-1.0]]), {(0, 0): "x"}), Inputs(1, np.array([[-1.0]]), {(0, 0): "y"})),
        (Inputs(1, np.array([[-1.0]]), {(0, 0): "x"}), Inputs(1, np.array([[-1.0]]), {})),
        (
            Inputs(1, np.array([[-1.0, -1.0]]), {(0, 0): "x", (0, 1): "y"}),
            Inputs(1, np.array([[-1.0, -1.0]]), {(0, 0): "y", (0, 1): "x"}),
        ),
        (
            Inputs(1, np.empty((1, 0)), {}, {"t": objects("ab", "c")}),
            Inputs(1, np.empty((1, 0)), {}, {"t": objects("a", "bc")}),
        ),
        (
            Inputs(1, np.empty((1, 0)), {}, {"t": objects("a")}),
            Inputs(1, np.empty((1, 0)), {}, {"t": objects(b"a")}),
        ),
        (
            Inputs(1, np.empty((1, 0)), {}, {"t": objects(None)}),
            Inputs(1, np.empty((1, 0)), {}, {"t": objects("")}),
        ),
        (
            Inputs(1, np.empty((1, 0)), {}, {"a": objects("x"), "b": objects("y")}),
            Inputs(1, np.empty((1, 0)), {}, {"a": objects("y"), "b": objects("x")}),
        ),
        (
            Inputs(1, np.empty((1, 0)), {}, {"t": np.array([1], np.int32)}),
            Inputs(1, np.empty((1, 0)), {}, {"t": np.array([1], np.uint32)}),
        ),
        (
            Inputs(2, np.empty((2, 0)), {}, {"t": np.zeros((2, 3), np.uint8)}),
            Inputs(2, np.empty((2, 0)), {}, {"t": np.zeros((2, 3, 1), np.uint8)}),
        ),
    ],
    ids=["shape", "empty", "unseen", "no unseen", "places", "lengths", "kind", "missing", "names", "dtype", "dimensions"],
)  # fmt: skip
def test_different_inputs(one: Inputs, other: Inputs) -> None:
    assert KEYS.of(one) != KEYS.of(other)


def test_zero_and_missing_have_one_form_in_a_matrix() -> None:
    odd_nan = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0001))[0]
    assert KEYS.of(matrix([-0.0, odd_nan])) == KEYS.of(matrix([0.0, np.nan]))


def test_the_order_in_memory_does_not_matter() -> None:
    rows = np.arange(12.0).reshape(3, 4)
    wanted = KEYS.of(Inputs(3, rows, {}))
    assert KEYS.of(Inputs(3, np.asfortranarray(rows), {})) == wanted
    assert KEYS.of(Inputs(3, np.repeat(rows, 2, axis=1)[:, ::2], {})) == wanted
    one = {(0, 1): "x", (2, 0): "y"}
    other = {(2, 0): "y", (0, 1): "x"}
    assert KEYS.of(Inputs(3, rows, one)) == KEYS.of(Inputs(3, rows, other))


def test_inputs_are_not_changed() -> None:
    features = np.array([[-0.0, np.nan]])
    features.flags.writeable = False
    KEYS.of(Inputs(1, features, {}))
    assert np.signbit(features[0, 0])


SWAPPED = Signature((Field("b", "FP64"), Field("a", "FP64")), (PROBABILITY,), "probability")


@pytest.mark.parametrize(
    "other",
    [
        version("other"),
        version(tenant="other"),
        version(digest="f" * 64),
        version(signature=SWAPPED),
        replace(version(), format="lightgbm"),
    ],
    ids=["model", "tenant", "files", "signature", "format"],
)
def test_whose_prediction_it_is(other: Any) -> None:
    rows = matrix([1.0, 2.0])
    assert CacheKeys(version()).of(rows) != CacheKeys(other).of(rows)


def test_the_same_artifact_registered_twice_is_the_same() -> None:
    rows = matrix([1.0, 2.0])
    assert CacheKeys(version(number=1, digest="a" * 64)).of(rows) == CacheKeys(
        version(number=2, digest="a" * 64)
    ).of(rows)


def test_names_do_not_run_into_each_other() -> None:
    rows = matrix([1.0, 2.0])
    assert CacheKeys(version("b", tenant="aa")).of(rows) != CacheKeys(version("ab", tenant="a")).of(rows)


class TestWires:
    """What reaches the cache is bound: a request as JSON, as binary tensors, over gRPC or as records is the same request."""

    def test_a_row_of_numbers(self) -> None:
        binder = Binder(AB, Limits())
        as_json = {
            n: {"name": n, "datatype": "FP64", "shape": [1], "data": [v]} for n, v in (("a", 1.5), ("b", 2.0))
        }
        as_arrays = {name: {**tensor, "data": np.array(tensor["data"])} for name, tensor in as_json.items()}
        columns = {name: {**tensor, "shape": [1, 1]} for name, tensor in reversed(as_json.items())}
        forms = [InferRequest(as_json), InferRequest(as_arrays), InferRequest(columns)]
        forms.append(InferRequest({}, rows=[{"b": 2, "a": 1.5}]))
        assert len({KEYS.of(binder.bind(request)) for request in forms}) == 1

    def test_rows_with_texts_and_missing_values(self) -> None:
        fields = (Field("a", "FP64", nullable=True), Field("c", "BYTES", levels=("red", "blue")))
        binder = Binder(Signature(fields, (PROBABILITY,), "probability"), Limits())
        as_json = {
            "a": {"name": "a", "datatype": "FP64", "shape": [3], "data": [1.0, None, 2.0]},
            "c": {"name": "c", "datatype": "BYTES", "shape": [3], "data": ["red", "blue", "mauve"]},
        }
        as_arrays = {
            "a": {**as_json["a"], "data": np.array([1.0, np.nan, 2.0])},
            "c": {**as_json["c"], "data": objects(b"red", b"blue", b"mauve")},
        }
        assert KEYS.of(binder.bind(InferRequest(as_json))) == KEYS.of(binder.bind(InferRequest(as_arrays)))
