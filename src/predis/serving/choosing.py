"""Choosing: which version answers a request. All that can be done once is done when a Route is applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from predis.expressions import Expression, compile_expression
from predis.serving.route import SEGMENT_NAMES, Route, Segment, Weights
from predis.serving.served import ServedVersion
from predis.state.records import Arm

_COMPARED = int(Arm.COMPARED)
_Read = Callable[[Any], Any]  # from a call to the value of a name


class _Draw(NamedTuple):
    """Versions that share requests; ``only`` is the one that has them all."""

    weights: Weights
    only: ServedVersion | None


class _Condition(NamedTuple):
    """A segment's condition, to be called with a call, and who answers where it holds."""

    when: Expression
    draw: _Draw


class Chooser:
    """Chooses versions by one Route, which has weights.

    Args:
        versions: those of the Route, in memory.
    """

    def __init__(self, route: Route, versions: Mapping[int, ServedVersion]) -> None:
        self._route = route
        self._versions = versions
        self._draw = self._drawn(route.weights)
        self._conditions = tuple(self._condition(segment) for segment in route.segments)

    @property
    def only(self) -> ServedVersion | None:
        """The version that answers every request, whatever it says; None where there are several."""
        return None if self._conditions else self._draw.only

    def choose(self, call: Any) -> ServedVersion:
        """The version that answers a call; the call is marked where that was drawn by chance.

        Raises:
            InvalidRequest: the routing key is no text.
        """
        request = call.request
        key = request.routing_key()
        draw = self._draw
        for condition in self._conditions:
            if condition.when.holds(call):
                draw = condition.draw
                break
        if draw.only is not None:
            return draw.only
        call.arm = _COMPARED
        return self._versions[self._route.pick(key or request.id, draw.weights)]

    def _drawn(self, weights: Weights) -> _Draw:
        sharing = [version for version, share in weights.items() if share > 0]
        return _Draw(weights, self._versions[sharing[0]] if len(sharing) == 1 else None)

    def _condition(self, segment: Segment) -> _Condition:
        return _Condition(
            compile_expression(segment.when, names=SEGMENT_NAMES, read=_read_of), self._drawn(segment.weights)
        )


def _read_of(name: str) -> _Read:
    kind, _, rest = name.partition(".")
    match kind:
        case "header":
            return _header(rest.lower().replace("_", "-"))
        case "parameter":
            return lambda call: call.request.parameters.get(rest)
        case "input":
            return lambda call: _first(call.request, rest)
        case "key":
            return lambda call: call.request.routing_key() or None
        case _:
            return lambda call: call.caller.tenant


def _header(name: str) -> _Read:
    """HTTP has headers as bytes, gRPC has its metadata as texts."""
    raw = name.encode()

    def read(call: Any) -> Any:
        found = call.headers.get(raw)
        return call.headers.get(name) if found is None else found.decode("utf-8", "replace")

    return read


def _first(request: Any, name: str) -> Any:
    """An input's value in the first row, as it was sent; nothing was checked yet."""
    if request.rows is not None:
        value = request.rows[0].get(name)
    else:
        value = request.inputs.get(name, {}).get("data")
    while isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, np.ndarray):
        value = value.item(0) if value.size else None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
