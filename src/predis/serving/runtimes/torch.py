"""PyTorch: TorchScript files, and programs of ``torch.export`` (.pt2). Both are programs: they are loaded from signed versions only.

On one thread: workers are the parallelism.
"""

from __future__ import annotations

import gc
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput, MissingExtra, ModelFailure
from predis.registry.signature import NUMPY_OF, Field, Signature
from predis.serving.inputs import Inputs, form_of, sample
from predis.serving.runtimes import only_file, told, trim
from predis.serving.runtimes.ports import Port, ports_of

_DATATYPES = {
    f"torch.{np.dtype(kind).name}": datatype for datatype, kind in NUMPY_OF.items() if datatype != "BYTES"
}


class Torch:
    """A module and the way from a row to its tensors.

    ``single``: the program was exported for one row at a time; then several rows are as many calls.
    """

    def __init__(self, module: Any, specs: Sequence[Field], *, signature: Signature, single: bool) -> None:
        self._module = module
        self._single = single
        self._ports: Sequence[Port] = ports_of(specs, signature)
        self.takes = form_of(specs)
        self.signature = signature

    def predict(self, inputs: Inputs) -> Sequence[NDArray[Any]]:
        """The module's answer: a tensor, or several of a tuple or a dictionary, in its order."""
        return list(self.named(inputs).values())

    def named(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """The outputs by the names the module gives them, or by their places."""
        if self._module is None:
            raise ModelFailure("the model was closed")
        tensors = [port.of(inputs) for port in self._ports]
        if not self._single or inputs.rows == 1:
            return self._run(tensors)
        rows = [self._run([tensor[at : at + 1] for tensor in tensors]) for at in range(inputs.rows)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def _run(self, tensors: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        import torch

        with torch.inference_mode():
            answer = self._module(*map(torch.from_numpy, tensors))
        if isinstance(answer, torch.Tensor):
            return {"output": answer.numpy()}
        named = (
            answer
            if isinstance(answer, Mapping)
            else {f"output_{at}": part for at, part in enumerate(answer)}
        )
        return {str(name): part.numpy() for name, part in named.items()}

    def close(self) -> None:
        if self._module is not None:
            self._module = None
            gc.collect()  # modules refer to themselves in circles
            trim()


def load(contents: Mapping[str, bytes], *, signature: Signature | None, inputs: tuple[Field, ...]) -> Torch:
    """A module from TorchScript or an exported program.

    Raises:
        ModelFailure: the file is neither, or the module fails on a row of zeros.
        InvalidInput: the signature does not fit, or is needed: TorchScript keeps neither datatypes nor shapes.
    """
    content = only_file(contents, "PyTorch")
    exported = _is_exported(content)
    module, specs, single = _exported(content) if exported else _scripted(content, signature, inputs=inputs)
    if signature is not None:
        return Torch(module, specs, signature=signature, single=single)
    chosen = inputs if inputs and sum(field.width for field in specs) == len(inputs) else specs
    draft = Signature(tuple(chosen), (Field("none", "FP64"),), "none")
    runtime = Torch(module, specs, signature=draft, single=single)
    outputs = _outputs(runtime)
    score = next((field for field in outputs if field.datatype.startswith("FP")), outputs[0])
    runtime.signature = Signature(draft.inputs, outputs, score.name)
    return runtime


def _is_exported(content: bytes) -> bool:
    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        names = []
    parts = {part for name in names for part in name.split("/")[1:2]}
    if not parts & {"code", "models"}:
        raise ModelFailure(
            "the file is neither TorchScript (torch.jit.save) nor an exported program (torch.export.save)"
        )
    return "code" not in parts


def _torch() -> Any:
    # A .pt2 file may hold pickles, which torch.export reads with weights_only=False; this makes it True wherever it is asked for.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        import torch
    except ImportError:
        raise MissingExtra.of("torch", "torch") from None
    torch.set_num_threads(1)
    return torch


def _exported(content: bytes) -> tuple[Any, tuple[Field, ...], bool]:
    """The program, its inputs, and whether it was exported for one row at a time."""
    torch = _torch()
    try:
        program = torch.export.load(io.BytesIO(content))
        taken = set(program.graph_signature.user_inputs)
        values = {
            node.name: node.meta["val"]
            for node in program.graph.nodes
            if node.op == "placeholder" and node.name in taken
        }
        module = program.module()
    except Exception as error:
        raise ModelFailure(f"PyTorch cannot read the program: {told(error)}") from error
    specs = tuple(_spec(name, value) for name, value in values.items())
    return module, specs, any(type(value.shape[0]) is int for value in values.values())


def _spec(name: str, value: Any) -> Field:
    datatype = _DATATYPES.get(str(getattr(value, "dtype", "")))
    if datatype is None:
        raise InvalidInput(f"input {name!r} is no tensor, or of a datatype that Predis does not carry")
    rows, *inner = value.shape or (0,)
    if type(rows) is int and rows != 1:
        raise InvalidInput(
            f"input {name!r} has a fixed first dimension of {rows}; export with a torch.export.Dim there, for the rows"
        )
    if any(type(length) is not int for length in inner):
        raise InvalidInput(
            f"input {name!r} has the shape {list(value.shape)}: only the first dimension may be open"
        )
    return Field(name, datatype, (-1, *inner))


def _scripted(
    content: bytes, signature: Signature | None, *, inputs: tuple[Field, ...]
) -> tuple[Any, tuple[Field, ...], bool]:
    """The module; its tensors are the signature's inputs, or where it takes one, all columns in float32."""
    torch = _torch()
    try:
        module = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()
        names = [argument.name for argument in module._c._get_method("forward").schema.arguments[1:]]
    except Exception as error:
        raise ModelFailure(f"PyTorch cannot read the file: {told(error)}") from error
    fields = signature.inputs if signature is not None else inputs
    if not fields:
        raise InvalidInput(
            "TorchScript does not tell datatypes and shapes; register with a reference data set, or with a signature"
        )
    if len(names) == len(fields) and signature is not None:
        return module, fields, False
    if len(names) != 1:
        raise InvalidInput(
            f"the module takes {len(names)} tensors ({', '.join(names)}), its signature has {len(fields)} inputs"
        )
    return module, (Field(names[0], "FP32", (-1, sum(field.width for field in fields))),), False


def _outputs(runtime: Torch) -> tuple[Field, ...]:
    """Found by asking the module two rows of zeros.

    Raises:
        ModelFailure: it fails on them, or answers what no output can be.
    """
    try:
        named = runtime.named(sample(runtime.signature, runtime.takes, rows=2))
    except Exception as error:
        raise ModelFailure(
            f"the module failed on two rows of zeros ({told(error)}); if it may, give a signature"
        ) from error
    return tuple(
        Field(name, _DATATYPES[f"torch.{found.dtype.name}"], (-1, *found.shape[1:]))
        for name, found in named.items()
    )
