"""Values for the requests of a load test: random but valid for an endpoint's inputs, or rows of the user's own file.

Random values follow the reference profile of the model's version where there is one: a tree that is always asked with the same side of its
first split is faster than it is in life. Without a profile, texts are drawn from their levels and numbers from a range every model takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput

DTYPES = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_WORDS = ("on time", "late", "a short text", "another text, which is somewhat longer than the others", "x")

Column = NDArray[Any]
"""Values of one input, [rows, width]; texts are ``str`` objects, missing values None or NaN."""


@dataclass(frozen=True)
class Input:
    """An input tensor as the server describes it."""

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)
    nullable: bool = False
    levels: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Input:
        """From the endpoint's metadata."""
        shape = tuple(int(size) for size in document["shape"])
        return cls(
            str(document["name"]),
            str(document["datatype"]),
            shape,
            bool(document.get("nullable")),
            tuple(document.get("levels", ())),
        )

    @property
    def width(self) -> int:
        """Values per row; a dimension the server leaves open is 1."""
        return int(np.prod([max(size, 1) for size in self.shape[1:]], dtype=np.int64))


@dataclass(frozen=True)
class Profile:
    """What the training inputs looked like: bins and counts by column name, as the registry tells them."""

    columns: Mapping[str, tuple[Mapping[str, Any], Sequence[int]]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Profile:
        pairs = zip(document["bins"], document["counts"], strict=True)
        return cls({bins["name"]: (bins, counts) for bins, counts in pairs})

    def numbers(self, name: str, size: int, *, rng: np.random.Generator) -> NDArray[np.float64] | None:
        """Random numbers that fall into the bins of a column as often as the training inputs did; None where it is not known."""
        bins, counts = self.columns.get(name, ({}, ()))
        edges = np.array([float(edge) for edge in bins.get("edges", ())])
        inner = np.array(counts[1:-2], np.float64)
        if bins.get("kind") != "numeric" or len(edges) < 2 or not inner.sum() or not np.isfinite(edges).all():
            return None
        chosen = rng.choice(len(inner), size, p=inner / inner.sum())
        if bins["levels"]:  # few distinct values, and these are they
            return np.array([float(value) for value in bins["levels"]])[chosen]
        return rng.uniform(edges[chosen], edges[chosen + 1])

    def texts(self, name: str, size: int, *, rng: np.random.Generator) -> Column | None:
        """Random levels, as often as in the training inputs; None where they are not known."""
        bins, counts = self.columns.get(name, ({}, ()))
        inner = np.array(counts[:-2], np.float64)
        if bins.get("kind") != "categorical" or not inner.sum():
            return None
        return rng.choice(np.array(bins["levels"], np.object_), size, p=inner / inner.sum())


def random_columns(
    inputs: Sequence[Input], rows: int, *, rng: np.random.Generator, profile: Profile | None = None
) -> dict[str, Column]:
    """Valid random values for every input, without missing ones."""
    profile = profile or Profile()
    return {
        each.name: _random(each, rows * each.width, rng=rng, profile=profile).reshape(rows, -1)
        for each in inputs
    }


def _random(each: Input, size: int, *, rng: np.random.Generator, profile: Profile) -> Column:
    if each.datatype == "BYTES":
        found = profile.texts(each.name, size, rng=rng)
        return rng.choice(np.array(each.levels or _WORDS, np.object_), size) if found is None else found
    if each.datatype == "BOOL":
        return rng.random(size) < 0.5
    names = [each.name] if each.width == 1 else [f"{each.name}[{place}]" for place in range(each.width)]
    parts = [profile.numbers(name, size // each.width, rng=rng) for name in names]
    known = [part for part in parts if part is not None]
    numbers = np.stack(known, 1).reshape(-1) if len(known) == len(parts) else None
    if each.datatype.startswith("FP"):
        return (rng.normal(size=size) if numbers is None else numbers).astype(DTYPES[each.datatype])
    limits: Any = np.iinfo(np.dtype(DTYPES[each.datatype]))
    whole = rng.integers(0, 100, size) if numbers is None else np.rint(numbers)
    return np.clip(whole, limits.min, min(limits.max, 2**53)).astype(DTYPES[each.datatype])


def table_columns(
    inputs: Sequence[Input], columns: Mapping[str, Sequence[Any]], *, where: str
) -> dict[str, Column]:
    """The columns of the user's file that the inputs need, [rows, width].

    Raises:
        InvalidInput: a column is missing, or its values do not fit.
    """
    missing = [each.name for each in inputs if each.name not in columns]
    if missing:
        raise InvalidInput(
            f"{where} has no column {missing[0]!r}; the endpoint's inputs are {', '.join(i.name for i in inputs)}"
        )
    found = {}
    for each in inputs:
        values = columns[each.name]
        flat = [v for value in values for v in _flat(value)]
        if len(flat) != len(values) * each.width:
            raise InvalidInput(f"{where}: column {each.name!r} must hold {each.width} values a row")
        found[each.name] = np.array(flat, np.object_).reshape(len(values), each.width)
    return found


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [inner for part in value for inner in _flat(part)]
    return [value]


def read_columns(path: Path, limit: int) -> dict[str, list[Any]]:
    """The first rows of a Parquet, CSV or JSON Lines file, by column.

    Raises:
        InvalidInput: it is none of these, cannot be read as what its ending says, or has no rows.
    """
    import pyarrow as pa

    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(f"{path.name}: rows come from a file that ends in {', '.join(readers)}")
    try:
        columns = reader(path, limit)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidInput(f"{path.name} cannot be read: {error}") from None
    if not columns or not next(iter(columns.values())):
        raise InvalidInput(f"{path.name} has no rows")
    return columns


def _parquet(path: Path, limit: int) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        batches, rows = [], 0
        for batch in file.iter_batches(min(limit, 65_536)):
            batches.append(batch)
            rows += batch.num_rows
            if rows >= limit:
                break
        table = pa.Table.from_batches(batches, file.schema_arrow)
    return dict(table.slice(0, limit).to_pydict())


def _csv(path: Path, limit: int) -> dict[str, list[Any]]:
    import pyarrow.csv

    return dict(pyarrow.csv.read_csv(path).slice(0, limit).to_pydict())


def _json_lines(path: Path, limit: int) -> dict[str, list[Any]]:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if len(rows) >= limit:
                break
            if line.strip():
                rows.append(json.loads(line))
                if not isinstance(rows[-1], dict):
                    raise ValueError(f"line {number} is not a JSON object")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
