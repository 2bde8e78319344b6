"""Reading pickles, plain or joblib's, without letting them choose what runs.

Two readers share the format. The *scanner* goes through a file and notes what it names; nothing named is imported, dummies stand in for all
of it, so that a refusal can list everything at once. The *loader* then builds the object, asking ``importable`` for each name. It is
Python's own unpickler in its Python form, which lets the steps be narrowed that the C form hides: an imported class or function is
never given state (that would change it for everybody), a dotted name is never followed, extension codes are not known.

joblib's files are pickles with the bytes of arrays between the opcodes, after an object that describes them; this module reads these
itself, for joblib's own reader has changed from release to release.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import pickle
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np

from predis.errors import ModelFailure, Untrusted
from predis.serving import importable
from predis.serving.runtimes import told

_JOBLIB_ARRAY = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_COMPRESSED: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", gzip.decompress),
    (b"BZ", bz2.decompress),
    (b"\xfd7zXZ", lzma.decompress),
    (b"\x5d\x00", lzma.decompress),
    (b"x", zlib.decompress),
)


def load(content: bytes) -> Any:
    """The object in a pickle, or in a joblib file, compressed or not.

    Raises:
        Untrusted: the file names something that is not admitted; the message lists all of it.
        ModelFailure: it is no such file, or is damaged.
    """
    stream = _plain(content)
    named = _names(stream)
    refused = importable.refused(named)
    if refused:
        raise Untrusted(importable.refusal(refused))
    try:
        return _Loader(io.BytesIO(stream), {}).load()
    except Untrusted:
        raise
    except Exception as error:
        raise _damaged(error) from error


def _names(stream: bytes) -> set[tuple[str, str]]:
    """What a file names. Where it cannot be read to its end that is an error only if nothing it named until then is refused."""
    named: dict[tuple[str, str], Any] = {}
    try:
        _Scanner(io.BytesIO(stream), named).load()
    except Untrusted:
        raise
    except Exception as error:
        if not importable.refused(named.keys() - {_JOBLIB_ARRAY}):
            raise _damaged(error) from error
    return named.keys() - {_JOBLIB_ARRAY}


def _damaged(error: Exception) -> ModelFailure:
    return ModelFailure(f"the file is not a pickle or joblib file that can be read: {told(error)}")


def _plain(content: bytes) -> bytes:
    for prefix, decompress in _COMPRESSED:
        if content.startswith(prefix):
            try:
                return decompress(content)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise ModelFailure(f"the file's compression is damaged: {error}") from error
    return content


class _JoblibArray:
    """joblib's description of an array whose bytes follow in the file."""

    subclass: Any
    shape: tuple[int, ...]
    order: str
    dtype: np.dtype[Any]
    allow_mmap: bool
    numpy_array_alignment_bytes: int | None = None  # files before joblib 1.2 have none

    def size_bytes(self) -> int:
        if any(type(length) is not int or length < 0 for length in self.shape):
            raise ValueError(f"an array of the shape {self.shape!r}")
        return math.prod(self.shape) * self.dtype.itemsize

    def skip_padding(self, file: BinaryIO) -> None:
        if self.numpy_array_alignment_bytes is not None:
            file.read(int.from_bytes(file.read(1), "little"))


_Unpickler: Any = pickle._Unpickler


class _Reader(_Unpickler, ABC):  # type: ignore[misc]  # typeshed knows the C form only
    """What both readers do alike: the steps that are narrowed, and joblib's arrays.

    ``named`` holds what was found under each name, also by readers of pickles within.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Unpickler.dispatch)

    def __init__(self, file: BinaryIO, named: dict[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self.named = named
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        found = _JoblibArray if (module, name) == _JOBLIB_ARRAY else self.resolve(module, name)
        self.named[module, name] = found
        return found

    def get_extension(self, code: int) -> None:
        raise Untrusted(f"the file uses the extension code {code}, which could stand for anything")

    def load_build(self) -> None:
        target = self.stack[-2]
        if any(target is found for found in self.named.values()):
            raise Untrusted(f"the file changes {target!r:.80}, which is not its own")
        super().load_build()
        if isinstance(self.stack[-1], _JoblibArray):
            self.stack[-1] = self.array(self.stack[-1])

    dispatch[pickle.BUILD[0]] = load_build

    @abstractmethod
    def resolve(self, module: str, name: str) -> Any:
        """What stands for a name."""

    @abstractmethod
    def array(self, found: _JoblibArray) -> Any:
        """What stands for an array; leaves the file behind its bytes."""

    def nested(self) -> Any:
        """What a pickle within stands for: an array of objects."""
        return type(self)(self._file, self.named).load()


class _Inert:
    """Stands for anything a file names, while it is scanned. It takes whatever is done to it and does nothing."""

    def __new__(cls, *_arguments: Any, **_named: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_arguments: Any, **_named: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...

    def __setitem__(self, _key: Any, _value: Any) -> None: ...

    def append(self, _value: Any) -> None: ...

    def extend(self, _values: Any) -> None: ...

    def add(self, _value: Any) -> None: ...


def _inert(name: str) -> type[_Inert]:
    """A class of its own for each name: only what a file names must be told from what it makes."""
    return type(name, (_Inert,), {})


class _Scanner(_Reader):
    """Only notes what a file names. Of all that dtypes alone are real: they say how many bytes an array takes."""

    def resolve(self, module: str, name: str) -> Any:
        return np.dtype if (module, name) == ("numpy", "dtype") else _inert(name)

    def array(self, found: _JoblibArray) -> Any:
        if found.dtype.hasobject:
            return self.nested()
        found.skip_padding(self._file)
        self._file.seek(found.size_bytes(), io.SEEK_CUR)
        return _Inert()


class _Loader(_Reader):
    """Builds the object of a file."""

    def resolve(self, module: str, name: str) -> Any:
        return importable.resolve(module, name)

    def array(self, found: _JoblibArray) -> Any:
        if found.dtype.hasobject:
            return self.nested()
        found.skip_padding(self._file)
        content = self._file.read(found.size_bytes())
        values = np.frombuffer(bytearray(content), found.dtype)
        return values.reshape(found.shape, order="F" if found.order == "F" else "C")
