"""Large JSON bodies: their numbers straight into arrays.

Making a Python float of each of 5,000 numbers, looking at its type and copying it into an array costs three times what parsing it does.
simdjson parses to a tape and hands out a list of numbers as a buffer. Whatever is not a plain list of numbers (texts, nulls, truth
values, a body that is no JSON) is left to the general way, which also words the errors.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import simdjson

_Kind = Literal["d", "i", "u"]
_INTEGERS: dict[str, _Kind] = {
    **dict.fromkeys(("INT8", "INT16", "INT32", "INT64"), "i"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32", "UINT64"), "u"),
}
# A parser keeps its buffers, which grow to some times the largest body it has seen: one is kept, for bodies of usual size. It can
# hold one document at a time, so no piece of it may outlive ``parse``; requests are decoded in one thread, the event loop's.
_KEPT = simdjson.Parser()
_KEPT_BYTES = 1 << 20
_DTYPES: dict[_Kind, Any] = {"d": np.float64, "i": np.int64, "u": np.uint64}
_MARK = b"\xef\xbb\xbf"
_BRACKET = ord("[")
_MOST_NAMES = 64
_SIMPLE = frozenset((str, int, float, bool, type(None)))


def parse(body: bytes) -> dict[str, Any] | None:
    """The document, with ``data`` of its inputs as arrays (float64, int64 or uint64; [values] or [parts, values]) where they are numbers;
    None where it must be read the general way.
    """
    if body.startswith(_MARK):
        return None  # no JSON, though simdjson skips it
    try:
        parser = _KEPT if len(body) <= _KEPT_BYTES else simdjson.Parser()
        document = parser.parse(body)
        if not isinstance(document, simdjson.Object):
            return None
        parts = _parts(document)
        tensors = parts.pop("inputs", None)
        if not isinstance(tensors, simdjson.Array):
            return None
        found = {name: _plain(value) for name, value in parts.items()}
        found["inputs"] = [_tensor(tensor) for tensor in tensors]
        # ``as_buffer`` flattens whatever is nested; that nothing else was nested shows in the number of brackets.
        brackets = np.count_nonzero(np.frombuffer(body, np.uint8) == _BRACKET)
        return found if _lists(found) == brackets else None
    except (ValueError, RuntimeError):
        return None


def _parts(document: Any) -> dict[str, Any]:
    """An object's members, none of them turned into Python yet.

    Raises:
        ValueError: more of them than can be looked up one by one, one with a NUL, at which simdjson ends a name when it looks for it, or
            two of one name, of which it finds the first and others the last.
    """
    names = list(document)
    if len(names) > _MOST_NAMES or any("\0" in name for name in names):
        raise ValueError("names that cannot be looked up")
    if len(set(names)) != len(names):
        raise ValueError("a name stands twice")
    return {name: document[name] for name in names}


def _tensor(tensor: Any) -> Any:
    if not isinstance(tensor, simdjson.Object):
        return _plain(tensor)
    parts = _parts(tensor)
    found = {name: _plain(value) for name, value in parts.items() if name != "data"}
    if "data" in parts:
        found["data"] = _data(parts["data"], found.get("datatype"))
    return found


def _data(values: Any, datatype: Any) -> Any:
    if not isinstance(values, simdjson.Array) or not isinstance(datatype, str):
        return _plain(values)
    kind: _Kind | None = "d" if datatype.startswith("FP") else _INTEGERS.get(datatype)
    shape = _shape(values)
    if kind is None or shape is None:
        return values.as_list()
    try:
        return np.frombuffer(values.as_buffer(of_type=kind), _DTYPES[kind]).reshape(shape)
    except (TypeError, ValueError):
        return values.as_list()


def _shape(values: Any) -> tuple[int, ...] | None:
    """Of a flat list, or of a list of equally long flat ones, as far as that can be seen quickly; None of others."""
    if not len(values) or not isinstance(values[0], simdjson.Array):
        return (len(values),)
    width = len(values[0])
    if width and isinstance(values[0][0], simdjson.Array):
        return None
    same = all(isinstance(part, simdjson.Array) and len(part) == width for part in values)
    return (len(values), width) if same else None


def _lists(value: Any) -> int:
    """How many lists of the body a value was made of."""
    kind = type(value)
    if kind is list:
        return 1 if _SIMPLE.issuperset(map(type, value)) else 1 + sum(map(_lists, value))
    if kind is dict:
        return sum([_lists(part) for part in value.values() if type(part) is not str])
    if kind is np.ndarray:
        return 1 if value.ndim == 1 else 1 + len(value)
    return 0


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value
