from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from predis.errors import InvalidInput, ModelFailure
from predis.registry.signature import Field, Signature
from predis.serving import runtimes
from predis.serving.binding import Binder
from predis.serving.inputs import Inputs
from predis.serving.protocol import decode_request
from tests.serving.helpers import (
    FP32,
    FP64,
    INT32,
    INT64,
    LIMITS,
    ML,
    TEXT,
    WEIGHTS,
    body,
    columns_graph,
    graph,
    logistic_graph,
    signature,
    tensor,
    text_graph,
)
from tests.serving.models import TEXT_SIGNATURE, matrix, tensors


def load(content: bytes, **given: Any) -> runtimes.Runtime:
    return runtimes.load("onnx", {"model.onnx": content}, **given)


def session(content: bytes) -> Any:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def identity(datatype: int, shape: list[int | str | None]) -> bytes:
    return graph(
        [helper.make_node("Identity", ["x"], ["y"])], [("x", datatype, shape)], [("y", datatype, shape)]
    )


class TestMatrix:
    def test_signature(self) -> None:
        found = load(logistic_graph()).signature
        assert found == signature(Field("x", "FP32", (-1, 3)), outputs=(Field("p", "FP32", (-1, 1)),))

    @pytest.mark.parametrize("rows", [1, 2, 300])
    def test_parity(self, rows: int) -> None:
        features = np.random.default_rng(rows).normal(size=(rows, 3))
        (found,) = load(logistic_graph()).predict(matrix(features))
        (expected,) = session(logistic_graph()).run(None, {"x": features.astype(np.float32)})
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-features @ WEIGHTS)), rtol=1e-5)

    def test_takes_a_tables_columns_instead(self) -> None:
        columns = (
            Field("a", "INT64"),
            Field("b", "FP64", nullable=True),
            Field("kind", "BYTES", levels=("u", "v")),
        )
        model = load(logistic_graph(), inputs=columns)
        assert model.signature.inputs == columns
        assert model.takes == "matrix"
        (found,) = model.predict(matrix([[1, 0.5, 1], [2, np.nan, -1]], {(1, 2): "w"}))
        expected = session(logistic_graph()).run(
            None, {"x": np.array([[1, 0.5, 1], [2, np.nan, -1]], np.float32)}
        )[0]
        np.testing.assert_array_equal(found, expected)

    def test_several_threads(self) -> None:
        model = load(logistic_graph())
        features = np.random.default_rng(0).normal(size=(64, 3))
        (right,) = model.predict(matrix(features))

        def work(at: int) -> bool:
            return all(
                np.allclose(model.predict(matrix(features[at : at + n]))[0], right[at : at + n])
                for n in (1, 2, 5)
            )

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(60)))

    @pytest.mark.parametrize(
        "datatype",
        [
            "FLOAT",
            "DOUBLE",
            "FLOAT16",
            "INT64",
            "INT32",
            "INT16",
            "INT8",
            "UINT64",
            "UINT32",
            "UINT16",
            "UINT8",
            "BOOL",
        ],
    )
    def test_every_datatype_comes_back_as_it_went_in(self, datatype: str) -> None:
        model = load(identity(getattr(TensorProto, datatype), ["N", 2]))
        features = np.array([[0.0, 1.0], [1.0, 1.0]])
        wide = datatype in ("INT64", "UINT64")
        assert model.takes == ("tensors" if wide else "matrix")
        given = tensors(x=features.astype(datatype.lower())) if wide else matrix(features)
        (found,) = model.predict(given)
        assert found.astype(float).tolist() == features.tolist()
        assert model.signature.inputs[0].datatype == model.signature.outputs[0].datatype
        assert found.dtype == helper.tensor_dtype_to_np_dtype(getattr(TensorProto, datatype))

    @pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
    def test_whole_numbers_that_a_float_would_round(self, datatype: str) -> None:
        model = load(identity(getattr(TensorProto, datatype), ["N"]))
        given = np.array([2**53 + 1, 2**63 - 1], datatype.lower())
        (found,) = model.predict(tensors(x=given))
        assert found.tolist() == given.tolist()

    def test_long_rows_stay_as_narrow_as_they_came(self) -> None:
        model = load(identity(FP32, ["N", 3, 32, 32]))
        assert model.takes == "tensors"
        given = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
        np.testing.assert_array_equal(model.predict(tensors(x=given))[0], given)


class TestOneRowAtATime:
    """Exporters fix the first dimension at 1 unless told otherwise; several rows are then as many runs."""

    @pytest.mark.parametrize("rows", [1, 2, 7])
    def test_answers_for_all_rows(self, rows: int) -> None:
        model = load(identity(FP32, [1, 3]))
        given = np.random.default_rng(rows).normal(size=(rows, 3))
        (found,) = runtimes.run(model, matrix(given))
        np.testing.assert_array_equal(found, given.astype(np.float32))
        assert model.signature.inputs == (Field("x", "FP32", (-1, 3)),)

    def test_of_tensors(self) -> None:
        model = load(identity(INT64, [1, 2]))
        given = np.arange(6, dtype=np.int64).reshape(3, 2)
        assert runtimes.run(model, tensors(x=given))[0].tolist() == given.tolist()


class TestColumns:
    INPUTS = (Field("b", "INT64"), Field("a", "FP64", nullable=True))  # not in the graph's order

    def test_of_their_own(self) -> None:
        model = load(columns_graph())
        assert model.signature.inputs == (Field("a", "FP32"), Field("b", "INT64"))
        assert model.takes == "tensors"
        (found,) = model.predict(tensors(a=np.array([1.5, np.nan], np.float32), b=[2, 3]))
        np.testing.assert_array_equal(found, np.array([21.5, np.nan], np.float32))

    def test_matched_with_the_references_by_name(self) -> None:
        model = load(columns_graph(), inputs=self.INPUTS)
        assert model.signature.inputs == (Field("a", "FP32", nullable=True), Field("b", "INT64"))

    def test_a_signature_in_another_order(self) -> None:
        with pytest.raises(InvalidInput, match="the inputs must stand in the model's order: a, b"):
            load(columns_graph(), signature=signature(*self.INPUTS, outputs=(Field("y", "FP32"),)))

    def test_whole_numbers_cannot_be_missing(self) -> None:
        """A null would reach the graph as the smallest number there is."""
        nullable = (Field("a", "FP64"), Field("b", "INT64", nullable=True))
        for given in (
            {"inputs": nullable},
            {"signature": signature(*nullable, outputs=(Field("y", "FP32"),))},
        ):
            with pytest.raises(InvalidInput, match="'b' is INT64 and cannot hold the nulls"):
                load(columns_graph(), **given)

    @pytest.mark.parametrize("datatype", [INT32, INT64, TensorProto.BOOL])
    def test_nor_a_matrix_of_them(self, datatype: int) -> None:
        columns = (Field("a", "FP64"), Field("b", "FP64", nullable=True))
        with pytest.raises(InvalidInput, match=r"'x' is \w+ and cannot hold the nulls"):
            load(identity(datatype, ["N", 2]), inputs=columns)


class TestTexts:
    COLORS: ClassVar = np.array([["red"], ["blue"], [None], ["mauve"], ["teal"]], np.object_)

    def model(self) -> runtimes.Runtime:
        return load(text_graph(), signature=TEXT_SIGNATURE)

    def rows(self) -> Inputs:
        return tensors(x=np.array([[1, 2]] * 5, np.float32), color=self.COLORS)

    def test_reach_the_graph_as_texts_even_those_that_are_no_levels(self) -> None:
        label, p = self.model().predict(self.rows())
        points = np.array([100, 200, 300, 400, 900])  # red, blue, missing, mauve, another
        assert label.tolist() == [1, 0, 0, 0, 0]
        np.testing.assert_array_equal(p, np.column_stack([-(3 + points), 3 + points]))

    def test_through_a_request(self) -> None:
        texts = ["red", "mauve", None, "blue", "red", "é"]
        x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
        content = body(
            tensor("color", "BYTES", texts, shape=[6, 1]),
            tensor("x", "FP32", x.astype(float).tolist(), shape=[6, 2]),
        )
        model = self.model()
        bound = Binder(model.signature, LIMITS, takes=model.takes).bind(decode_request(content, LIMITS))
        found = model.predict(bound)
        given = np.array([[t or ""] for t in texts], np.object_)
        for mine, own in zip(found, session(text_graph()).run(None, {"x": x, "color": given}), strict=True):
            np.testing.assert_array_equal(mine, own)

    def test_the_score_is_the_probability_of_the_second_class(self) -> None:
        outputs = self.model().predict(self.rows())
        assert runtimes.scores_of(TEXT_SIGNATURE, outputs).tolist() == [103, 203, 303, 403, 903]

    def test_levels_come_from_the_reference(self) -> None:
        per_column = graph(
            [helper.make_node("LabelEncoder", ["color"], ["y"], domain=ML, keys_strings=["red"], values_floats=[1.0], default_float=0.0),
             helper.make_node("Identity", ["n"], ["m"])],
            [("n", FP32, ["N"]), ("color", TEXT, ["N"])],
            [("m", FP32, ["N"]), ("y", FP32, ["N"])],
        )  # fmt: skip
        columns = (Field("color", "BYTES", levels=("blue", "red")), Field("n", "FP64"))
        model = load(per_column, inputs=columns)
        assert model.signature.inputs == (Field("n", "FP32"), Field("color", "BYTES", levels=("blue", "red")))
        given = tensors(n=np.array([7, 8], np.float32), color=["red", "blue"])
        assert model.predict(given)[1].tolist() == [1, 0]

    def test_need_no_levels(self) -> None:
        model = load(text_graph())
        assert model.signature.inputs == (Field("x", "FP32", (-1, 2)), Field("color", "BYTES", (-1, 1)))
        for mine, own in zip(model.predict(self.rows()), self.model().predict(self.rows()), strict=True):
            np.testing.assert_array_equal(mine, own)

    def test_columns_of_a_table_for_one_tensor_of_texts(self) -> None:
        wide = graph(
            [helper.make_node("LabelEncoder", ["c"], ["y"], domain=ML, keys_strings=["red"], values_floats=[1.0], default_float=9.0)],
            [("c", TEXT, ["N", 2])],
            [("y", FP32, ["N", 2])],
        )  # fmt: skip
        columns = (Field("a", "BYTES", levels=("red",)), Field("b", "BYTES"))
        model = load(wide, inputs=columns)
        assert model.signature.inputs == columns
        assert model.predict(tensors(a=["red", "blue"], b=["blue", None]))[0].tolist() == [[1, 9], [9, 9]]

    @pytest.mark.parametrize(
        ("color", "says"),
        [
            (Field("color", "INT32", (-1, 1)), "'color' is BYTES in the graph; 'color' is INT32"),
            (Field("color", "BYTES", (-1, 1), raw=True), "'color' is raw"),
        ],
        ids=str,
    )
    def test_inputs_that_are_no_texts(self, color: Field, says: str) -> None:
        wanted = Signature((TEXT_SIGNATURE.inputs[0], color), TEXT_SIGNATURE.outputs, "p")
        with pytest.raises(InvalidInput, match=says):
            load(text_graph(), signature=wanted)

    def test_texts_for_numbers(self) -> None:
        wanted = Signature(
            (Field("x", "BYTES", (-1, 2)), TEXT_SIGNATURE.inputs[1]), TEXT_SIGNATURE.outputs, "p"
        )
        with pytest.raises(InvalidInput, match="'x' is FP32 in the graph; 'x' is BYTES"):
            load(text_graph(), signature=wanted)

    def test_a_wide_tensor_of_texts(self) -> None:
        wide = graph(
            [helper.make_node("LabelEncoder", ["c"], ["y"], domain=ML, keys_strings=["red", "teal"], values_floats=[1.0, 2.0],
                              default_float=9.0)],
            [("c", TEXT, ["N", 2])],
            [("y", FP32, ["N", 2])],
        )  # fmt: skip
        field = Field("c", "BYTES", (-1, 2), levels=("blue", "red"))
        model = load(wide, signature=signature(field, outputs=(Field("y", "FP32", (-1, 2)),)))
        texts = np.array([["blue", "red"], ["red", "teal"]], np.object_)
        (found,) = model.predict(tensors(c=texts))
        assert found.tolist() == [[9, 1], [1, 2]]

    def test_as_a_score(self) -> None:
        names = graph(
            [
                helper.make_node(
                    "LabelEncoder", ["x"], ["y"], domain=ML, keys_int64s=[0, 1], values_strings=["no", "yes"]
                )
            ],
            [("x", INT64, ["N"])],
            [("y", TEXT, ["N"])],
        )
        with pytest.raises(InvalidInput, match="'y' holds texts"):
            load(names)


class TestOutputs:
    def test_the_first_with_fractions_is_the_score(self) -> None:
        two = graph(
            [
                helper.make_node("Cast", ["x"], ["label"], to=INT64),
                helper.make_node("Identity", ["x"], ["p"]),
            ],
            [("x", FP64, ["N"])],
            [("label", INT64, ["N"]), ("p", FP64, ["N"])],
        )
        assert load(two).signature.score == "p"
        (label, p) = load(two).predict(matrix([[1.0], [2.5]]))
        assert (label.tolist(), p.tolist()) == ([1, 2], [1, 2.5])

    @pytest.mark.parametrize(
        ("outputs", "says"),
        [
            (TEXT_SIGNATURE.outputs[:1], "must list them all"),
            (TEXT_SIGNATURE.outputs[::-1], "the outputs must stand in the model's order: label, p"),
            (
                (Field("label", "BYTES"), TEXT_SIGNATURE.outputs[1]),
                "'label' is INT64 in the graph, not BYTES",
            ),
        ],
    )
    def test_a_signature_must_tell_them_as_they_are(self, outputs: tuple[Field, ...], says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            load(text_graph(), signature=Signature(TEXT_SIGNATURE.inputs, outputs, outputs[0].name))

    def test_a_column_is_flattened_where_the_signature_says_so(self) -> None:
        wanted = signature(Field("x", "FP32", (-1, 3)), outputs=(Field("p", "FP32"),))
        (found,) = runtimes.run(load(logistic_graph(), signature=wanted), matrix(np.zeros((4, 3))))
        assert found.tolist() == [0.5] * 4


class TestRefused:
    @pytest.mark.parametrize("content", [b"", b"x", b"tree\n", b"\x08\x08", logistic_graph()[:-20]])
    def test_not_a_graph(self, content: bytes) -> None:
        with pytest.raises(ModelFailure, match="not an ONNX graph"):
            load(content)

    def test_a_zipmap(self) -> None:
        """What skl2onnx adds to classifiers unless told not to: a map per row instead of a tensor."""
        maps = helper.make_sequence_type_proto(
            helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FP32, None))
        )
        content = graph(
            [helper.make_node("ZipMap", ["x"], ["z"], domain=ML, classlabels_int64s=[0, 1])],
            [("x", FP32, ["N", 2])],
            [helper.make_value_info("z", maps)],
        )
        with pytest.raises(InvalidInput, match="zipmap=False"):
            load(content)

    def test_weights_in_another_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """They would be read from wherever the file says, relative to where the server was started."""
        weights = np.arange(3, dtype=np.float32)
        (tmp_path / "secret.bin").write_bytes(weights.tobytes())
        monkeypatch.chdir(tmp_path)
        for location in ("secret.bin", str(tmp_path / "secret.bin"), "../secret.bin"):
            model = onnx.load_from_string(logistic_graph())
            constant = model.graph.initializer[0]
            constant.ClearField("raw_data")
            constant.data_location = onnx.TensorProto.EXTERNAL
            for key, value in {"location": location, "offset": "0", "length": "12"}.items():
                constant.external_data.add(key=key, value=value)
            with pytest.raises(ModelFailure, match="not an ONNX graph"):
                load(model.SerializeToString())

    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_another_number_of_columns(self, count: int) -> None:
        columns = tuple(Field(f"c{i}", "FP64") for i in range(count))
        wanted = signature(*columns, outputs=(Field("p", "FP32", (-1, 1)),))
        with pytest.raises(InvalidInput, match=f"takes 3 values per row, the signature gives {count}"):
            load(logistic_graph(), signature=wanted)

    @pytest.mark.parametrize(
        ("shape", "says"),
        [
            (["N", "M"], "only the first dimension may be open"),
            ([3, 2], "must be the rows"),
            (["N", 2, None], "only the first"),
        ],
    )
    def test_shapes_that_are_no_rows(self, shape: list[int | str | None], says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            load(identity(FP32, shape))

    def test_a_graph_that_fails_on_some_values_fails_as_a_model(self) -> None:
        picky = graph(
            [
                helper.make_node("Cast", ["x"], ["i"], to=INT64),
                helper.make_node("Gather", ["values", "i"], ["y"]),
            ],
            [("x", FP32, ["N"])],
            [("y", FP32, ["N"])],
            values=np.array([1, 2], np.float32),
        )
        model = load(picky)
        assert runtimes.run(model, matrix([[1.0]]))[0].tolist() == [2]
        with pytest.raises(ModelFailure, match="the model failed"):
            runtimes.run(model, matrix([[10.0]]))
