from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from predis.errors import InvalidInput, ModelFailure
from predis.registry.signature import Field, Signature
from predis.serving import runtimes
from tests.serving.helpers import signature
from tests.serving.models import COLUMNS, exported, matrix, numbers, saved, tensors, torch_module, torchscript
from tests.serving.test_unpickling import Calls


def scripted(module: torch.nn.Module) -> bytes:
    return saved(torch.jit.save, torch.jit.script(module.eval()))


class Writes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(1.0).sum(1)


class Pair(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.sum(1) + y, (y > 0).to(torch.int64)


class Picky(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x == 0).any()):
            raise ValueError("no zeros, please")
        return x[:, 0]


class TestScripts:
    def test_take_a_tables_columns_as_one_tensor(self) -> None:
        columns = (*COLUMNS[:2], Field("kind", "BYTES", levels=("u", "v")))
        model = runtimes.load("torch", {"m": torchscript()}, inputs=columns)
        assert model.takes == "matrix"
        assert model.signature == Signature(columns, (Field("output", "FP32"),), "output")

    def test_or_as_the_signature_says(self) -> None:
        wanted = signature(Field("x", "FP32", (-1, 3)), outputs=(Field("p", "FP64"),))
        model = runtimes.load("torch", {"m": torchscript()}, signature=wanted)
        assert model.signature is wanted
        assert runtimes.run(model, matrix(numbers(2)))[0].dtype == np.float64

    def test_or_as_several_tensors(self) -> None:
        inputs = (Field("x", "FP32", (-1, 2)), Field("y", "FP32"))
        wanted = signature(*inputs, outputs=(Field("sum", "FP32"), Field("sign", "INT64")))
        model = runtimes.load("torch", {"m": scripted(Pair())}, signature=wanted)
        total, sign = runtimes.run(model, matrix([[1, 2, 3], [4, 5, -6]]))
        assert (total.tolist(), sign.tolist()) == ([6, 3], [1, 0])

    def test_need_to_be_told_what_they_take(self) -> None:
        with pytest.raises(InvalidInput, match="does not tell datatypes and shapes"):
            runtimes.load("torch", {"m": torchscript()})
        with pytest.raises(InvalidInput, match=r"takes 2 tensors \(x, y\), its signature has 3 inputs"):
            runtimes.load("torch", {"m": scripted(Pair())}, inputs=COLUMNS)

    def test_may_write_into_their_input(self) -> None:
        inputs = matrix(numbers(3))
        kept = inputs.features.copy()
        model = runtimes.load("torch", {"m": scripted(Writes())}, inputs=COLUMNS)
        first = model.predict(inputs)[0]
        np.testing.assert_array_equal(inputs.features, kept)
        np.testing.assert_array_equal(model.predict(inputs)[0], first)

    def test_that_do_not_answer_zeros_need_a_signature(self) -> None:
        content = scripted(Picky())
        with pytest.raises(ModelFailure, match=r"(?s)two rows of zeros.*give a signature"):
            runtimes.load("torch", {"m": content}, inputs=COLUMNS)
        wanted = signature(*COLUMNS, outputs=(Field("y", "FP32"),))
        model = runtimes.load("torch", {"m": content}, signature=wanted)
        assert runtimes.run(model, matrix([[7, 1, 1]]))[0].tolist() == [7]
        with pytest.raises(ModelFailure, match="no zeros, please"):
            runtimes.run(model, matrix([[0, 1, 1]]))

    def test_missing_numbers_are_nan(self) -> None:
        model = runtimes.load(
            "torch", {"m": torchscript()}, inputs=tuple(Field(c.name, "FP64", nullable=True) for c in COLUMNS)
        )
        assert np.isnan(model.predict(matrix([[np.nan, 1, 2]]))[0]).all()


class TestPrograms:
    def test_tell_their_signature(self) -> None:
        found = runtimes.load("torch", {"m": exported()}).signature
        assert found == Signature(
            (Field("x", "FP32", (-1, 3)), Field("ids", "INT64")),
            (Field("p", "FP32", (-1, 2)), Field("total", "FP32")),
            "p",
        )

    def test_take_a_tables_columns_as_one_tensor(self) -> None:
        model = runtimes.load("torch", {"m": exported("columns")}, inputs=COLUMNS)
        assert (model.takes, model.signature.inputs) == ("matrix", COLUMNS)

    @pytest.mark.parametrize("rows", [1, 2, 7])
    def test_exported_for_one_row_run_once_for_each(self, rows: int) -> None:
        model = runtimes.load("torch", {"m": exported("columns", rows=1)})
        given = numbers(rows)
        with torch.no_grad():
            own = torch_module("columns")(torch.tensor(given, dtype=torch.float32)).numpy()
        np.testing.assert_allclose(runtimes.run(model, matrix(given))[0], own, rtol=1e-6)

    def test_exported_for_five_rows_are_refused(self) -> None:
        with pytest.raises(
            InvalidInput, match=r"fixed first dimension of 5; export with a torch\.export\.Dim"
        ):
            runtimes.load("torch", {"m": exported("columns", rows=5)})

    @pytest.mark.parametrize(
        "file", ["data/weights/model_weights_config.json", "data/sample_inputs/model.pt"]
    )
    def test_pickles_within_are_not_run(self, file: str, tmp_path: Path) -> None:
        """torch.export.load reads them with weights_only=False where it can; here it cannot."""
        canary = tmp_path / "ran"
        changed = _with_exploit(exported("columns"), file, canary)
        with contextlib.suppress(ModelFailure):
            runtimes.load("torch", {"m": changed})
        assert not canary.exists()


def _with_exploit(content: bytes, file: str, canary: Path) -> bytes:
    """The program with a pickle that touches a file in place of a weight, or of its example."""
    exploit = pickle.dumps(Calls(open, str(canary), "w"))
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(sink, "w") as target:
        root = source.namelist()[0].split("/")[0]
        for name in source.namelist():
            found: Any = source.read(name)
            if name == f"{root}/{file}":
                if file.endswith(".json"):
                    document = json.loads(found)
                    for weight in document["config"].values():
                        weight["use_pickle"] = True
                    found = json.dumps(document)
                else:
                    found = exploit
            elif "/weights/weight_" in name and file.endswith(".json"):
                found = exploit
            target.writestr(name, found)
    return sink.getvalue()


@pytest.mark.parametrize("content", [b"", b"x" * 100, pickle.dumps({"a": 1})])
def test_another_file(content: bytes) -> None:
    with pytest.raises(ModelFailure, match=r"neither TorchScript .* nor an exported program"):
        runtimes.load("torch", {"m": content})


def test_weights_alone_are_no_model() -> None:
    with pytest.raises(ModelFailure, match="neither TorchScript"):
        runtimes.load("torch", {"m": saved(torch.save, torch_module("columns").state_dict())})


def test_one_thread_answers() -> None:
    runtimes.load("torch", {"m": exported()}).close()
    assert torch.get_num_threads() == 1


def test_texts_are_no_tensors() -> None:
    with pytest.raises(InvalidInput, match="is FP32 in the graph; 'kind' is BYTES"):
        runtimes.load("torch", {"m": torchscript()}, inputs=(*COLUMNS[:2], Field("kind", "BYTES")))
    with pytest.raises(InvalidInput, match="'ids' is INT64 and cannot hold the nulls"):
        wanted = signature(
            Field("x", "FP32", (-1, 3)),
            Field("ids", "INT64", nullable=True),
            outputs=(Field("p", "FP32", (-1, 2)), Field("t", "FP32")),
        )
        runtimes.load("torch", {"m": exported()}, signature=wanted)


def test_rows_of_whole_numbers_come_as_tensors() -> None:
    model = runtimes.load("torch", {"m": exported()})
    assert model.takes == "tensors"
    found = model.predict(tensors(x=numbers(2).astype(np.float32), ids=np.array([0, 9])))
    assert [part.shape for part in found] == [(2, 2), (2,)]
