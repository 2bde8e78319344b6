"""Any Python callable: a file ``model.py``, and whatever files it needs beside it.

    def load(folder):            # optional, called once; folder holds the version's files
        ...

    def predict(inputs):         # dict of arrays by input name -> an array, or a dict of arrays by output name
        return inputs["x"] * 2

or a class ``Model`` with these two as methods; then one object of it is made. The files are a package of their own: ``from . import other``
finds ``other.py`` beside ``model.py``, and two versions never see each other's files.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput, ModelFailure
from predis.registry.signature import Field, Signature
from predis.serving.inputs import Inputs, Takes
from predis.serving.runtimes import told, trim

MODULE = "model.py"
_numbers = itertools.count()


class Python:
    """Somebody's code in memory. One call at a time runs it, whoever asks: it need not know of threads."""

    takes: Takes = "tensors"

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._package = f"_predis_model_{next(_numbers)}"
        self._folder = Path(tempfile.mkdtemp(prefix="predis-model-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._lock = threading.Lock()
        self._target: Any = None
        try:
            _write(contents, self._folder)
            self.module = _import(self._package, self._folder)
            self._target = self.module.Model() if hasattr(self.module, "Model") else self.module
            if hasattr(self._target, "load"):
                self._target.load(self._folder)
        except (Exception, SystemExit) as error:
            self.close()
            raise ModelFailure(f"{MODULE} failed while loading: {told(error)}") from error
        if not callable(getattr(self._target, "predict", None)):
            self.close()
            raise ModelFailure(f"{MODULE} needs a function predict(inputs), or a class Model that has one")
        self.signature: Signature

    def predict(self, inputs: Inputs) -> Sequence[NDArray[Any]]:
        """What the code answers, in the order of the signature's outputs. It gets arrays that it cannot write to."""
        if self._target is None:
            raise ModelFailure("the model was closed")
        given = {}
        for name, tensor in (inputs.tensors or {}).items():
            given[name] = tensor.view()
            given[name].flags.writeable = False
        with self._lock:
            try:
                answer = self._target.predict(given)
            except SystemExit as error:
                raise ModelFailure(f"{MODULE} wanted to end the process") from error
        names = [field.name for field in self.signature.outputs]
        if not isinstance(answer, Mapping):
            return [_array(answer)]
        if set(answer) != set(names):
            raise ModelFailure(f"{MODULE} answered {sorted(map(str, answer))}, its signature has {names}")
        return [_array(answer[name]) for name in names]

    def close(self) -> None:
        """Forget the code and its files. What it has started or imported elsewhere is its own affair."""
        self._target = self.module = None
        for name in list(sys.modules):  # a copy, as others import meanwhile
            if name.partition(".")[0] == self._package:
                del sys.modules[name]
        sys.path_importer_cache.pop(str(self._folder), None)
        self._remove()
        trim()


def load(contents: Mapping[str, bytes], *, signature: Signature | None, inputs: tuple[Field, ...]) -> Python:
    """The code in memory, with the signature given, or the module's own ``SIGNATURE``.

    Raises:
        ModelFailure: the code failed while it was loaded, or has no ``predict``.
        InvalidInput: there is no ``model.py``, or no signature.
    """
    if MODULE not in contents:
        raise InvalidInput(f"a Python model needs a file {MODULE!r}, got {sorted(contents)}")
    found = Python(contents)
    try:
        own = getattr(found.module, "SIGNATURE", None)
        if signature is None and own is None:
            raise InvalidInput(
                f"a Python model needs a signature: give one, or let {MODULE} have a dictionary SIGNATURE"
            )
        found.signature = signature or Signature.from_dict(own)
    except InvalidInput:
        found.close()
        raise
    return found


def _array(values: Any) -> NDArray[Any]:
    """An array; of texts as objects, for that is how texts travel."""
    found = np.asarray(values)
    return found.astype(np.object_) if found.dtype.kind == "U" else found


def _write(contents: Mapping[str, bytes], folder: Path) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _import(package: str, folder: Path) -> Any:
    """``model.py`` as a module of a package whose folder this is."""
    spec = ModuleSpec(package, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[package] = module_from_spec(spec)
    return import_module(f"{package}.{Path(MODULE).stem}")
