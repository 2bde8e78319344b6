"""Binding: from a request's tensors to the rows a version's model takes, every value checked against the signature.

All that can be done once per version is done in the constructor. Three ways lead through it: one row of scalars as JSON, the commonest
request, is read value by value; lists are judged by the set of their exact types, so that clean data of any length costs the same few
operations; arrays (binary, gRPC, large JSON) never become Python objects at all.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidRequest, TooLarge
from predis.registry.signature import NUMPY_OF, Field, Signature
from predis.serving.inputs import Inputs, Unseen, tensor_dtype
from predis.serving.protocol import InferRequest, Limits, Tensor
from predis.state.records import Matrix

_WHOLE = frozenset((int,))
_EXACT = 2**53  # whole numbers up to here are exact in a float64
_INFINITE = {"FP16": 65520.0, "FP32": 2.0**128 - 2.0**103}  # from here on a value rounds to infinity
_ONE_ROW = ([1], [1, 1])
_SHOWN_TEXT = 200


class Binder:
    """Checks requests against one signature.

    Args:
        takes: the form the runtime wants, "matrix" or "tensors".
    """

    def __init__(self, signature: Signature, limits: Limits, *, takes: str = "matrix") -> None:
        self._limits = limits
        self._matrix = takes == "matrix"
        exact = _EXACT if self._matrix else None
        self._columns = tuple(
            _Column(field, at, exact=exact, nesting=limits.nesting)
            for field, at in _positions(signature.inputs)
        )
        self._names = frozenset(field.name for field in signature.inputs)
        self._width = sum(field.width for field in signature.inputs)
        self._watched = self._width <= limits.capture_columns
        scalar = self._matrix and all(field.width == 1 for field in signature.inputs)
        self._scalars = tuple(column.scalar() for column in self._columns) if scalar else ()

    def bind(self, request: InferRequest) -> Inputs:
        """The inputs of a request.

        Raises:
            InvalidRequest: an input is missing, unknown, of another datatype or shape, or holds a value it must not.
            TooLarge: more rows than one request may have.
        """
        inputs = request.inputs
        if request.rows is not None:
            return self._bind_lists(self._of_rows(request.rows), len(request.rows))
        if len(inputs) != len(self._columns) or not self._names.issuperset(inputs):
            self._name_problem(inputs)
        if self._scalars:
            values = self._one_row(inputs)
            if values is not None:
                return Inputs(1, np.array([values], np.float64), {})
        rows = self._rows(inputs[self._columns[0].name])
        return self._bind_lists([column.flat(inputs[column.name], rows) for column in self._columns], rows)

    def _one_row(self, inputs: Mapping[str, Tensor]) -> list[float] | None:
        """The values of one row of scalars; None where anything is unusual, for the general way to accept or refuse."""
        values: list[float] = []
        for name, datatype, kinds, low, high, codes in self._scalars:
            tensor = inputs[name]
            data, shape = tensor.get("data"), tensor.get("shape")
            if type(data) is not list or len(data) != 1 or tensor.get("datatype") != datatype:
                return None
            if shape not in _ONE_ROW or type(shape[0]) is not int:
                return None
            value = data[0]
            if type(value) not in kinds:
                return None
            if codes is not None:
                code = codes.get(value)
                if code is None:
                    return None
                values.append(code)
            elif value is None:
                values.append(np.nan)
            elif low < value < high:
                values.append(value)
            else:
                return None
        return values

    def _bind_lists(self, flat: Sequence[list[Any] | NDArray[Any]], rows: int) -> Inputs:
        unseen: Unseen = {}
        if self._matrix:
            return Inputs(rows, self._features(flat, rows, unseen=unseen), unseen)
        tensors = {
            column.name: column.array(data, rows) for column, data in zip(self._columns, flat, strict=True)
        }
        if not self._watched:
            return Inputs(rows, np.empty((rows, 0)), unseen, tensors)
        features = np.empty((rows, self._width))
        for column in self._columns:
            features[:, column.at : column.at + column.width] = column.watched(tensors[column.name], unseen)
        return Inputs(rows, features, unseen, tensors)

    def _features(self, flat: Sequence[list[Any] | NDArray[Any]], rows: int, *, unseen: Unseen) -> Matrix:
        if len(flat) == 1:
            return np.ascontiguousarray(self._columns[0].values(flat[0], unseen)).reshape(rows, self._width)
        features = np.empty((rows, self._width))
        for column, data in zip(self._columns, flat, strict=True):
            values = column.values(data, unseen)
            if column.width == 1:
                features[:, column.at] = values
            else:
                features[:, column.at : column.at + column.width] = values.reshape(rows, column.width)
        return features

    def _rows(self, tensor: Tensor) -> int:
        shape = tensor.get("shape")
        rows = shape[0] if type(shape) is list and shape else None
        if type(rows) is not int or rows < 1:
            problem = "an empty batch" if rows == 0 else "needs a 'shape' that starts with the number of rows"
            raise InvalidRequest(f"input {tensor['name']!r:.80}: {problem}; send at least one row")
        if rows > self._limits.batch_rows:
            raise TooLarge(
                f"{rows} rows; at most {self._limits.batch_rows} are allowed in one request (setting max_batch_rows)"
            )
        return rows

    def _of_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """Records as one flat list per input."""
        for number, row in enumerate(rows):
            if not self._names.issuperset(row):
                unknown = min(set(row) - self._names)
                raise InvalidRequest(f"row {number} has an unknown input {unknown!r:.80}; {self._expected()}")
        return [column.of_rows(rows) for column in self._columns]

    def _name_problem(self, inputs: Mapping[str, Any]) -> None:
        missing = [c.name for c in self._columns if c.name not in inputs]
        unknown = sorted(set(inputs) - self._names)
        if missing:
            raise InvalidRequest(f"missing input{'s' * (len(missing) > 1)}: {', '.join(missing[:10])}")
        raise InvalidRequest(
            f"unknown input{'s' * (len(unknown) > 1)}: {', '.join(n[:80] for n in unknown[:10])}; {self._expected()}"
        )

    def _expected(self) -> str:
        names = [column.name for column in self._columns]
        return f"the inputs are {', '.join(names[:10])}{' ...' * (len(names) > 10)}"


class _Column:
    """One input: its place in the matrix, and what may stand there."""

    __slots__ = (
        "_accepted",
        "_codes",
        "_dtype",
        "_field",
        "_high",
        "_kinds",
        "_low",
        "_nesting",
        "at",
        "name",
        "width",
    )

    def __init__(self, field: Field, at: int, *, exact: int | None, nesting: int) -> None:
        self.name = field.name
        self.at = at
        self.width = field.width
        self._field = field
        self._nesting = nesting
        self._dtype = tensor_dtype(field)
        self._accepted = _accepted(field.datatype)
        self._kinds = _python_types(field.datatype)
        self._low, self._high = _limits(field.datatype, _EXACT if self._dtype == np.float64 else exact)
        self._codes = (
            {level: float(code) for code, level in enumerate(field.levels)} if field.levels else None
        )

    def scalar(self) -> tuple[str, str, frozenset[type], float, float, dict[str, float] | None]:
        """What ``Binder._one_row`` looks at: name, datatype, types, open bounds, codes. A text without levels is never read that way."""
        kinds = self._kinds | ({type(None)} if self._field.nullable and self._codes is None else set())
        codes = self._codes if self._codes is not None or self._field.datatype != "BYTES" else {}
        return self.name, self._field.datatype, frozenset(kinds), self._low, self._high, codes

    def flat(self, tensor: Tensor, rows: int) -> list[Any] | NDArray[Any]:
        """The values in row-major order, as many as rows and field say; nothing is known of each yet.

        Raises:
            InvalidRequest: another datatype, shape or number of values.
        """
        data, shape = tensor.get("data"), tensor.get("shape")
        if tensor.get("datatype") not in self._accepted:
            raise InvalidRequest(
                f"input {self.name!r} must be {self._field.datatype}, got {reprlib.repr(tensor.get('datatype'))}"
            )
        self._check_shape(shape, rows)
        if type(data) is list:
            if data and type(data[0]) is list:
                data = self._flattened(data)
        elif not isinstance(data, np.ndarray):
            raise InvalidRequest(f"input {self.name!r} needs its values in 'data', a list")
        count = data.size if isinstance(data, np.ndarray) else len(data)
        if count != rows * self.width:
            raise InvalidRequest(
                f"input {self.name!r} has {count} values; its shape {shape} needs {rows * self.width}"
            )
        return data.reshape(-1) if isinstance(data, np.ndarray) else data

    def of_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """This input's values of records, in one flat list."""
        if not self._field.nullable:
            for number, row in enumerate(rows):
                if row.get(self.name) is None:
                    raise InvalidRequest(f"row {number} has no {self.name!r}, which may not be missing")
        found = [row.get(self.name) for row in rows]
        if self.width == 1:
            return found
        flat: list[Any] = []
        for number, value in enumerate(found):
            part = (
                self._flattened(value) if type(value) is list and value and type(value[0]) is list else value
            )
            if type(part) is not list or len(part) != self.width:
                raise InvalidRequest(f"row {number}: {self.name!r} must be a list of {self.width} values")
            flat += part
        return flat

    def values(self, data: list[Any] | NDArray[Any], unseen: Unseen) -> Matrix:
        """The checked values as float64: codes for levels, -1 for other texts, NaN for missing.

        Raises:
            InvalidRequest: a value of another type, outside the datatype's range, or missing where that is not allowed.
        """
        if self._field.datatype == "BYTES":
            return np.array(self._coded(self._texts(data), unseen))
        if isinstance(data, np.ndarray):
            self._check_array(data)
            return data.astype(np.float64)
        return np.array(self._numbers(data), np.float64)

    def array(self, data: list[Any] | NDArray[Any], rows: int) -> NDArray[Any]:
        """The checked values in the field's own datatype and shape.

        Raises:
            InvalidRequest: as ``values``.
        """
        shape = (rows, *self._field.shape[1:])
        if self._field.datatype == "BYTES":
            texts = self._texts(data)
            found = np.empty(len(texts), np.object_)
            found[:] = texts
            return found.reshape(shape)
        if isinstance(data, np.ndarray):
            self._check_array(data)
            return data.astype(self._dtype, copy=False).reshape(shape)
        return np.array(self._numbers(data), self._dtype).reshape(shape)

    def watched(self, tensor: NDArray[Any], unseen: Unseen) -> Matrix:
        """What a monitor sees of a tensor: its values, or codes of its texts; [rows, width]."""
        if self._field.datatype != "BYTES":
            return tensor.reshape(len(tensor), self.width).astype(np.float64)
        texts = tensor.reshape(-1).tolist()
        if self._field.raw:
            texts = [None if t is None else t[:_SHOWN_TEXT].decode("utf-8", "replace") for t in texts]
        return np.array(self._coded(texts, unseen)).reshape(len(tensor), self.width)

    def _check_shape(self, shape: Any, rows: int) -> None:
        wanted = [rows, *self._field.shape[1:]]
        if shape != wanted and not (self.width == 1 and shape in ([rows], [rows, 1])):
            raise InvalidRequest(
                f"input {self.name!r} must have the shape {wanted}, got {reprlib.repr(shape)}"
            )
        if type(shape[0]) is not int:
            raise InvalidRequest(f"input {self.name!r}: a shape holds whole numbers")

    def _check_types(self, data: list[Any]) -> bool:
        """Whether there are nulls; every test is on the set of exact types."""
        kinds = set(map(type, data))
        nulls = type(None) in kinds
        if nulls:
            if not self._field.nullable:
                raise InvalidRequest(f"input {self.name!r} holds null, which its signature does not allow")
            kinds.discard(type(None))
        if not kinds <= self._kinds:
            wrong = next(v for v in data if type(v) not in self._kinds and v is not None)
            raise InvalidRequest(
                f"input {self.name!r} must hold {self._field.datatype} values, got {reprlib.repr(wrong)}"
            )
        return nulls

    def _numbers(self, data: list[Any]) -> list[Any]:
        """The checked values of a list of numbers, NaN for null. Bounds are held against the numbers as they were sent: as float64, whole
        ones would have been rounded already. Some clients write whole numbers as fractions, 1.0 for 1.
        """
        if self._kinds == _WHOLE and float in map(type, data):
            data = [int(v) if type(v) is float and v.is_integer() and abs(v) < _EXACT else v for v in data]
        present = data
        if self._check_types(data):
            present = [v for v in data if v is not None]
            data = [np.nan if v is None else v for v in data]
        if self._high != np.inf and present:
            self._check_bounds(min(present), max(present))
        return data

    def _check_array(self, data: NDArray[Any]) -> None:
        """Values of an array that came as one: of the tensor's datatype, or of large JSON as float64 or (u)int64."""
        if data.dtype.kind == "O":
            raise InvalidRequest(f"input {self.name!r} must hold {self._field.datatype} values, got texts")
        if data.dtype.kind == "b" or not data.size:
            return
        least, greatest = data.min(), data.max()
        if least != least:
            if not self._field.nullable:
                raise InvalidRequest(f"input {self.name!r} holds NaN, which its signature does not allow")
            least, greatest = np.fmin.reduce(data), np.fmax.reduce(data)
        self._check_bounds(least.item(), greatest.item())

    def _check_bounds(self, least: Any, greatest: Any) -> None:
        if least <= self._low or greatest >= self._high:
            value = least if least <= self._low else greatest
            why = "it would be infinite" if self._field.datatype.startswith("FP") else "exactly, as a number"
            raise InvalidRequest(f"input {self.name!r}: {value} does not fit {self._field.datatype} ({why})")

    def _texts(self, data: list[Any] | NDArray[Any]) -> list[Any]:
        """Texts as ``str``, raw ones as ``bytes``; None where missing."""
        if isinstance(data, np.ndarray):
            found: list[Any] = data.tolist()
            return found if self._field.raw else [self._text(value) for value in found]
        self._check_types(data)
        return [t if t is None else t.encode() for t in data] if self._field.raw else data

    def _text(self, value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"input {self.name!r} holds bytes that are not UTF-8") from None

    def _coded(self, texts: list[Any], unseen: Unseen) -> list[float]:
        codes = self._codes or {}
        found = [codes.get(text, -1.0) for text in texts]
        if -1.0 in found:
            for position, text in enumerate(texts):
                if text is None:
                    found[position] = np.nan
                elif found[position] < 0:
                    row, column = divmod(position, self.width)
                    unseen[row, self.at + column] = text[:_SHOWN_TEXT]
        return found

    def _flattened(self, data: list[Any]) -> list[Any]:
        """Values of nested lists in row-major order."""
        for _depth in range(self._nesting):
            if not data or type(data[0]) is not list:
                return data
            width = len(data[0])
            if not all(type(part) is list and len(part) == width for part in data):
                raise InvalidRequest(f"input {self.name!r}: nested 'data' must be rectangular")
            data = [value for part in data for value in part]
        raise InvalidRequest(f"input {self.name!r}: 'data' is nested too deeply (setting max_nesting)")


def _positions(fields: Sequence[Field]) -> list[tuple[Field, int]]:
    found, at = [], 0
    for item in fields:
        found.append((item, at))
        at += item.width
    return found


def _accepted(datatype: str) -> tuple[str, ...]:
    """Datatypes that convert to this one without loss, itself first. A tuple, for what is looked up may not be hashable."""
    if datatype in ("BYTES", "BOOL"):
        return (datatype,)
    target = np.dtype(NUMPY_OF[datatype])
    others = (
        name
        for name, kind in NUMPY_OF.items()
        if name not in ("BYTES", "BOOL", datatype) and np.can_cast(np.dtype(kind), target, "safe")
    )
    return (datatype, *others)


def _python_types(datatype: str) -> frozenset[type]:
    if datatype == "BYTES":
        return frozenset((str,))
    if datatype == "BOOL":
        return frozenset((bool,))
    return frozenset((int, float)) if datatype.startswith("FP") else _WHOLE


def _limits(datatype: str, exact: int | None) -> tuple[float, float]:
    """Open bounds of a datatype's values; of whole numbers cut to ``exact`` where they will be float64."""
    if datatype.startswith("FP"):
        bound = _INFINITE.get(datatype, np.inf)
        return -bound, bound
    if datatype in ("BYTES", "BOOL"):
        return -np.inf, np.inf
    info: Any = np.iinfo(datatype.lower())
    low, high = int(info.min), int(info.max)
    if exact is not None:
        low, high = max(low, -exact), min(high, exact)
    return low - 1, high + 1
