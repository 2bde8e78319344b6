"""Segments: kinds of rows that are looked at apart.

An endpoint names them in its configuration, as expressions over inputs:

    {"monitoring": {"segments": ["input.carrier", "input.distance > 1000"]}}

Each expression splits the rows by its value: a text by its levels, a truth into yes and no, a number of many values by the bins of the
reference. Where none is named, every input is a segment of its own. The most frequent ``LEVELS`` are kept, the rest is "other".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput
from predis.expressions import Expression, compile_expression
from predis.stats import Bins

LEVELS = 20
MAX_SEGMENTS = 50
OTHER, MISSING = "other", "missing"
_INPUT = "input."


def configured(config: Mapping[str, Any]) -> tuple[Expression, ...]:
    """The segments that an endpoint's configuration names.

    Raises:
        InvalidInput: one cannot be read; the message names it.
    """
    found = config.get("monitoring", {})
    if not isinstance(found, Mapping) or not set(found) <= {"segments"}:
        raise InvalidInput(f"monitoring has the key segments, got {found!r:.80}")
    texts = found.get("segments", [])
    if (
        not isinstance(texts, list)
        or len(texts) > MAX_SEGMENTS
        or not all(isinstance(text, str) for text in texts)
    ):
        raise InvalidInput(
            f"monitoring.segments is a list of at most {MAX_SEGMENTS} expressions, got {texts!r:.80}"
        )
    return tuple(compile_expression(text, names=["input.*"]) for text in texts)


def check_monitoring(config: Mapping[str, Any], endpoint: str) -> None:
    """Let an endpoint's configuration pass if its monitoring, where it has one, can be used.

    Raises:
        InvalidInput
    """
    try:
        configured(config)
    except InvalidInput as error:
        raise InvalidInput(f"endpoint {endpoint!r}: {error.message}") from None


def split(
    expression: Expression, columns: Mapping[str, Sequence[Any]], *, bins: Mapping[str, Bins]
) -> dict[str, NDArray[np.bool_]]:
    """Which rows are in each level of a segment: bool[rows] by the level's name, the largest first.

    Args:
        columns: values by input; None where one is missing.
        bins: those of the reference, by input: they cut numbers of many values.
    """
    alone = next(iter(expression.names)) if len(expression.names) == 1 else ""
    own = bins.get(alone.removeprefix(_INPUT))
    if own is not None and own.kind == "numeric" and expression.text in (alone, f"input[{own.name!r}]"):
        values = np.array([np.nan if v is None else v for v in columns[own.name]], np.float64)
        return _levels([own.labels[place] for place in own.place(values)])
    rows = len(next(iter(columns.values()), ()))
    read = {
        f"{_INPUT}{name}": values for name, values in columns.items() if f"{_INPUT}{name}" in expression.names
    }
    return _levels([named(expression({name: v[row] for name, v in read.items()}.get)) for row in range(rows)])


def named(value: Any) -> str:
    if value is None or value != value:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _levels(names: list[str]) -> dict[str, NDArray[np.bool_]]:
    counts = Counter(names).most_common()
    kept = {name for name, _ in counts[: LEVELS if len(counts) > LEVELS + 1 else None]}
    array = np.array([name if name in kept else OTHER for name in names], dtype=np.str_)
    found = {name: array == name for name, _ in counts if name in kept}
    return found if len(kept) == len(counts) else {**found, OTHER: array == OTHER}
