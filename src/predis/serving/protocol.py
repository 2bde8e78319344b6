"""The Open Inference Protocol V2 as data: requests in, responses out, checked by hand.

Checking by hand instead of by a schema library is a measured choice: it is the hot path, and orjson already gives Python
objects of exact types, so a ``type(x) is float`` is all that is left to ask.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from predis.clock import parse_moment
from predis.errors import InvalidRequest, TooLarge
from predis.registry.signature import NUMPY_OF, Field, Signature
from predis.state.records import Matrix

MAX_ID = 128
_EXACT = 2**53


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    batch_rows: int = 10_000
    tensors: int = 4_096


@dataclass(slots=True)
class InferRequest:
    """A decoded request; its tensors are still plain objects, for the version's ``Binder`` to check."""

    inputs: dict[str, dict[str, Any]]
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    outputs: list[str] | None = None

    def event_time(self) -> int | None:
        """When what is asked about happens, if the client says so: a replay, a backfill, a queue."""
        found = self.parameters.get("event_time")
        return None if found is None else parse_moment(found, where="parameters.event_time")

    def routing_key(self) -> str:
        found = self.parameters.get("routing_key", "")
        if type(found) is not str:
            raise InvalidRequest(f"parameters.routing_key must be text, got {reprlib.repr(found)}")
        return found


@dataclass(slots=True)
class Bound:
    """A request's inputs as the model takes them.

    ``features`` is [rows, columns]: categorical levels as codes, -1 for a text that is not a level, NaN for missing.
    ``unseen`` holds those texts by (row, column).
    """

    features: Matrix
    unseen: dict[tuple[int, int], str]


def decode_request(body: bytes, limits: Limits) -> InferRequest:
    """An inference request from its JSON body.

    Raises:
        InvalidRequest: the body is not JSON, or not a request; the message says where.
        TooLarge: more tensors than allowed.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if type(document) is not dict:
        raise InvalidRequest("the body must be a JSON object with 'inputs'")
    tensors = document.get("inputs")
    if type(tensors) is not list or not tensors:
        raise InvalidRequest("'inputs' must be a list of at least one tensor")
    if len(tensors) > limits.tensors:
        raise TooLarge(
            f"{len(tensors)} input tensors; at most {limits.tensors} are allowed (setting max_tensors)"
        )
    inputs: dict[str, dict[str, Any]] = {}
    for tensor in tensors:
        if type(tensor) is not dict or type(tensor.get("name")) is not str:
            raise InvalidRequest(
                "each of 'inputs' must be an object with a 'name', 'datatype', 'shape' and 'data'"
            )
        inputs[tensor["name"]] = tensor
    if len(inputs) != len(tensors):
        raise InvalidRequest("two of 'inputs' have the same name")
    request = InferRequest(inputs)
    if len(document) > 1:
        _optional_parts(document, request)
    return request


def _optional_parts(document: dict[str, Any], request: InferRequest) -> None:
    found = document.get("id", "")
    if type(found) is not str or len(found) > MAX_ID or not found.isprintable():
        raise InvalidRequest(
            f"'id' must be a printable text of at most {MAX_ID} characters, got {reprlib.repr(found)}"
        )
    parameters = document.get("parameters", {})
    if type(parameters) is not dict:
        raise InvalidRequest("'parameters' must be an object")
    outputs = document.get("outputs")
    if outputs is not None:
        if type(outputs) is not list or not all(
            type(o) is dict and type(o.get("name")) is str for o in outputs
        ):
            raise InvalidRequest("'outputs' must be a list of objects with a 'name'")
        request.outputs = [o["name"] for o in outputs] or None
    request.id, request.parameters = found, parameters


class Binder:
    """Checks a request against one signature and turns it into a feature matrix. All that can be done once is done here."""

    def __init__(self, signature: Signature, limits: Limits) -> None:
        self._columns = tuple(_Column(f, position) for f, position in _positions(signature.inputs))
        self._names = frozenset(f.name for f in signature.inputs)
        self._width = sum(f.width for f in signature.inputs)
        self._max_rows = limits.batch_rows
        bounds = np.array([_float_bound(f.datatype) for f in signature.inputs for _ in range(f.width)])
        self._bounds = bounds if np.isfinite(bounds).any() else None

    def bind(self, request: InferRequest) -> Bound:
        """The inputs as a matrix.

        Raises:
            InvalidRequest: an input is missing, unknown, of another datatype or shape, or holds a value it must not.
            TooLarge: more rows than one request may have.
        """
        inputs = request.inputs
        if len(inputs) != len(self._columns) or not self._names.issuperset(inputs):
            self._name_problem(inputs)
        rows = self._rows(inputs[self._columns[0].name])
        unseen: dict[tuple[int, int], str] = {}
        try:
            features = np.empty((rows, self._width))
        except MemoryError:
            raise TooLarge(f"{rows} rows of {self._width} values do not fit into memory") from None
        for column in self._columns:
            column.fill(inputs[column.name], features, unseen=unseen)
        if self._bounds is not None:
            self._check_bounds(features, self._bounds)
        return Bound(features, unseen)

    def _rows(self, tensor: dict[str, Any]) -> int:
        shape = tensor.get("shape")
        rows = shape[0] if type(shape) is list and shape else None
        if type(rows) is not int or rows < 1:
            problem = "an empty batch" if rows == 0 else "needs a 'shape' that starts with the number of rows"
            raise InvalidRequest(f"input {tensor['name']!r}: {problem}; send at least one row")
        if rows > self._max_rows:
            raise TooLarge(
                f"{rows} rows; at most {self._max_rows} are allowed in one request (setting max_batch_rows)"
            )
        return rows

    def _name_problem(self, inputs: Mapping[str, Any]) -> None:
        missing = [c.name for c in self._columns if c.name not in inputs]
        unknown = sorted(set(inputs) - self._names)
        if missing:
            raise InvalidRequest(f"missing input{'s' * (len(missing) > 1)}: {', '.join(missing[:10])}")
        raise InvalidRequest(
            f"unknown input{'s' * (len(unknown) > 1)}: {', '.join(n[:80] for n in unknown[:10])}"
        )

    def _check_bounds(self, features: Matrix, bounds: Matrix) -> None:
        beyond = np.abs(features) >= bounds
        if not beyond.any():
            return
        row, at = np.argwhere(beyond)[0]
        column = next(c for c in reversed(self._columns) if c.at <= at)
        raise InvalidRequest(
            f"input {column.name!r}: {features[row, at]} does not fit {column.datatype} (it would be infinite)"
        )


def _positions(fields: Sequence[Field]) -> list[tuple[Field, int]]:
    found, at = [], 0
    for item in fields:
        found.append((item, at))
        at += item.width
    return found


class _Column:
    """One input's place in the matrix, and what may stand there."""

    __slots__ = (
        "_codes", "_datatypes", "_field", "_limits", "_nullable", "_types", "_width", "at", "datatype", "name",
    )  # fmt: skip

    def __init__(self, spec: Field, at: int) -> None:
        self.name = spec.name
        self.datatype = spec.datatype
        self.at = at
        self._field = spec
        self._width = spec.width
        self._nullable = spec.nullable
        self._datatypes = _accepted(spec.datatype)
        self._types = _python_types(spec.datatype)
        self._limits = _integer_limits(spec.datatype)
        self._codes = (
            {level: float(code) for code, level in enumerate(spec.levels)}
            if spec.datatype == "BYTES"
            else None
        )

    def fill(self, tensor: dict[str, Any], features: Matrix, *, unseen: dict[tuple[int, int], str]) -> None:
        data = tensor.get("data")
        rows = len(features)
        if tensor.get("datatype") not in self._datatypes:
            raise InvalidRequest(
                f"input {self.name!r} must be {self.datatype}, got {reprlib.repr(tensor.get('datatype'))}"
            )
        if type(data) is not list:
            raise InvalidRequest(f"input {self.name!r} needs its values in 'data', a list")
        self._check_shape(tensor.get("shape"), rows)
        if data and type(data[0]) is list:
            data = _flattened(data, self.name)
        if len(data) != rows * self._width:
            raise InvalidRequest(
                f"input {self.name!r} has {len(data)} values; its shape {tensor['shape']} needs {rows * self._width}"
            )
        if self._width == 1:
            features[:, self.at] = self._values(data, unseen)
        else:
            values = np.asarray(self._values(data, unseen), np.float64)
            features[:, self.at : self.at + self._width] = values.reshape(rows, self._width)

    def _check_shape(self, shape: Any, rows: int) -> None:
        wanted = [rows, *self._field.shape[1:]]
        if shape != wanted and not (self._width == 1 and shape == [rows, 1]):
            raise InvalidRequest(
                f"input {self.name!r} must have the shape {wanted}, got {reprlib.repr(shape)}"
            )
        if type(shape[0]) is not int:
            raise InvalidRequest(f"input {self.name!r}: a shape holds whole numbers")

    def _values(self, data: list[Any], unseen: dict[tuple[int, int], str]) -> list[float] | Matrix:
        """Floats of checked values; every test is on the set of exact types, so it costs the same for clean data of any length."""
        kinds = set(map(type, data))
        nulls = type(None) in kinds
        if nulls:
            if not self._nullable:
                raise InvalidRequest(f"input {self.name!r} holds null, which its signature does not allow")
            kinds.discard(type(None))
        if not kinds <= self._types:
            wrong = next(v for v in data if type(v) not in self._types and v is not None)
            raise InvalidRequest(
                f"input {self.name!r} must hold {self.datatype} values, got {reprlib.repr(wrong)}"
            )
        if self._codes is not None:
            return self._coded(data, self._codes, unseen=unseen)
        if self._limits is not None and kinds:
            self._check_range(data)
        return [np.nan if v is None else v for v in data] if nulls else data

    def _coded(
        self, data: list[Any], codes: dict[str, float], *, unseen: dict[tuple[int, int], str]
    ) -> list[float]:
        found = [codes.get(text, -1.0) for text in data]
        if -1.0 in found:
            for position, text in enumerate(data):
                if text is None:
                    found[position] = np.nan
                elif found[position] < 0:
                    row, column = divmod(position, self._width)
                    unseen[row, self.at + column] = text[:200]
        return found

    def _check_range(self, data: list[Any]) -> None:
        assert self._limits is not None
        low, high = self._limits
        for value in data:
            if value is not None and not low <= value <= high:
                raise InvalidRequest(
                    f"input {self.name!r}: {value} does not fit {self.datatype} (exactly, as a number)"
                )


def _flattened(data: list[Any], name: str) -> list[Any]:
    """Values of nested lists in row-major order, at most eight deep."""
    for _depth in range(8):
        if not data or type(data[0]) is not list:
            return data
        if not all(type(part) is list and len(part) == len(data[0]) for part in data):
            raise InvalidRequest(f"input {name!r}: nested 'data' must be rectangular")
        data = [value for part in data for value in part]
    raise InvalidRequest(f"input {name!r}: 'data' is nested too deeply")


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
    return frozenset((int, float)) if datatype.startswith("FP") else frozenset((int,))


def _integer_limits(datatype: str) -> tuple[int, int] | None:
    """The range of an integer type, cut to what a float64 holds exactly."""
    if datatype in ("BYTES", "BOOL") or datatype.startswith("FP"):
        return None
    info: Any = np.iinfo(datatype.lower())
    return max(int(info.min), -_EXACT), min(int(info.max), _EXACT)


def _float_bound(datatype: str) -> float:
    """What rounds to infinity in a float narrower than float64, from half a step above its largest value on."""
    return {"FP16": 65520.0, "FP32": 2.0**128 - 2.0**103}.get(datatype, np.inf)


class Encoder:
    """Turns a version's outputs into response bytes."""

    def __init__(self, model_name: str, version: int, *, signature: Signature) -> None:
        self._head = {"model_name": model_name, "model_version": str(version)}
        self._fields = signature.outputs
        self._names = frozenset(f.name for f in signature.outputs)

    def check(self, wanted: list[str] | None) -> None:
        """Refuse outputs that the version does not have, before anything is computed.

        Raises:
            InvalidRequest
        """
        if wanted is not None and not self._names.issuperset(wanted):
            unknown = sorted(set(wanted) - self._names)
            raise InvalidRequest(
                f"unknown output {unknown[0]!r:.80}; the outputs are {', '.join(sorted(self._names))}"
            )

    def encode(
        self, request_id: str, outputs: Sequence[np.ndarray[Any, Any]], *, wanted: list[str] | None
    ) -> bytes:
        tensors = [
            {
                "name": spec.name,
                "datatype": spec.datatype,
                "shape": list(values.shape),
                "data": _plain(values),
            }
            for spec, values in zip(self._fields, outputs, strict=True)
            if wanted is None or spec.name in wanted
        ]
        return orjson.dumps({**self._head, "id": request_id, "outputs": tensors})


def _plain(values: np.ndarray[Any, Any]) -> list[Any]:
    flat: list[Any] = values.reshape(-1).tolist()
    return flat
