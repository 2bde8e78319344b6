"""The logged predictions of a window, read back as tables that a model scores.

Files are read one at a time, so memory does not grow with the window. Where it holds more rows than were asked for, every n-th prediction
is taken, in the order of time. The files come in an order that is spread over the window from the start (the bits of their places, read
backwards), so that the first thousand rows are as good a sample as the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from predis.errors import InvalidInput
from predis.monitoring.log import column_of
from predis.registry import Version
from predis.registry.columns import numpy_of
from predis.registry.signature import Field
from predis.state.records import Arm, Matrix

BATCH_ROWS = 4_096
_SHADOW = Arm.SHADOW.name.lower()  # as the log writes it
_META = ("id", "row", "version", "event_at", "received_at", "score")


@dataclass(frozen=True)
class Batch:
    """Rows of the log: who asked when, what was answered by which version, and the inputs as a table."""

    ids: list[str]
    rows: NDArray[np.int64]
    versions: NDArray[np.int64]
    event_at: NDArray[np.int64]
    received_at: NDArray[np.int64]
    scores: Matrix
    inputs: pa.Table

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class _Part:
    """A file, how many of its rows lie in the window, and how many such rows come before it."""

    path: Path
    rows: int
    before: int


@dataclass
class Replay:
    """What of the log can be replayed: ``logged`` rows of these ``versions``. ``left_out`` says which files or versions cannot, and why.

    Args:
        folder: where the log's files are.
        since, until: the window, nanoseconds; of the moments at which predictions were asked for.
        inputs: what the models take.
        most: rows to take, evenly over time, where there are more.
    """

    folder: Path
    since: int
    until: int
    inputs: tuple[Field, ...]
    most: int
    left_out: list[dict[str, Any]] = field(default_factory=list)
    logged: int = 0
    versions: set[int] = field(default_factory=set)
    _parts: list[_Part] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows that will be read, unless a file turns out to be damaged."""
        return min(self.logged, self.most)

    def look(self, files: Sequence[Mapping[str, Any]], *, version: Callable[[int], Version | None]) -> None:
        """Choose among the log's files, in the order of time.

        Raises:
            InvalidInput: nothing is left of the window; the message says why, and which inputs are missing.
        """
        lacking = {number: self._lacking(version(number)) for number in {file["version"] for file in files}}
        for file in files:
            found = self._in_window(file)
            if not found:
                continue
            if lacking[file["version"]]:
                self._leave_out(f"version {file['version']}", lacking[file["version"]], rows=found)
                continue
            self._parts.append(_Part(self.folder / file["path"], found, self.logged))
            self.logged += found
            self.versions.add(file["version"])
        if not self.logged:
            raise InvalidInput(self._nothing())

    def batches(self) -> Iterator[Batch]:
        """The sampled rows, at most ``BATCH_ROWS`` at a time."""
        for place in spread(len(self._parts)):
            part = self._parts[place]
            try:
                table = self._read(part.path)
            except (OSError, pa.ArrowException) as error:
                self._leave_out(part.path.name, f"it cannot be read: {_first_line(error)}", rows=part.rows)
                continue
            missing = self._absent(table)
            if missing:
                self._leave_out(part.path.name, missing, rows=part.rows)
                continue
            table = table.take(pa.array(self._chosen(part)))
            for at in range(0, table.num_rows, BATCH_ROWS):
                yield self._batch(table.slice(at, BATCH_ROWS))

    def _in_window(self, file: Mapping[str, Any]) -> int:
        """How many of a file's rows lie in the window; a file that is gone or damaged has none, and is named."""
        path = self.folder / file["path"]
        try:
            # A file was written after every row in it was received.
            if path.stat().st_mtime_ns < self.since:
                return 0
            found = pq.read_table(path, columns=["received_at", "arm"], partitioning=None)
            return int(self._mask(found).sum())
        except FileNotFoundError:
            self._leave_out(path.name, "the file is gone", rows=file["rows"])
        except (OSError, pa.ArrowException, KeyError) as error:
            self._leave_out(path.name, f"it cannot be read: {_first_line(error)}", rows=file["rows"])
        return 0

    def _mask(self, table: pa.Table) -> NDArray[np.bool_]:
        """The rows asked for in the window that were answers to somebody."""
        moments = _whole(table, "received_at")
        shadows = numpy_of(pc.equal(table.column("arm"), _SHADOW).combine_chunks())
        found: NDArray[np.bool_] = (moments >= self.since) & (moments < self.until) & ~shadows
        return found

    def _read(self, path: Path) -> pa.Table:
        there = set(pq.read_schema(path).names)
        wanted = [*_META, "arm", *(column_of(name) for name in _names(self.inputs))]
        table = pq.read_table(path, columns=[name for name in wanted if name in there], partitioning=None)
        return table.filter(pa.array(self._mask(table)))

    def _chosen(self, part: _Part) -> NDArray[np.int64]:
        """Places of the sampled rows among a file's rows in the window: every n-th of all the rows of all files."""
        places = part.before + np.arange(part.rows + 1, dtype=np.int64)
        steps = places * self.rows // self.logged
        return np.flatnonzero(steps[1:] > steps[:-1])

    def _batch(self, table: pa.Table) -> Batch:
        names = _names(self.inputs)
        inputs = table.select([column_of(name) for name in names]).rename_columns(list(names))
        return Batch(
            ids=table.column("id").to_pylist(),
            rows=_whole(table, "row"),
            versions=_whole(table, "version"),
            event_at=_whole(table, "event_at"),
            received_at=_whole(table, "received_at"),
            scores=numpy_of(table.column("score").combine_chunks()),
            inputs=inputs,
        )

    def _lacking(self, version: Version | None) -> str:
        """What the logged rows of a version do not tell of the wanted inputs, in words; nothing where they tell all."""
        if version is None:
            return "the version is not known (any more)"
        known = {each.name: each for each in version.signature.inputs}
        missing = [each.name for each in self.inputs if each.name not in known]
        other = [
            f"{each.name} ({_kind(known[each.name])} in the log, {_kind(each)} wanted)"
            for each in self.inputs
            if each.name in known and _kind(known[each.name]) != _kind(each)
        ]
        parts = [f"it has no input {', '.join(missing)}"] if missing else []
        return "; ".join([*parts, f"of another kind: {', '.join(other)}"] if other else parts)

    def _absent(self, table: pa.Table) -> str:
        absent = [name for name in _names(self.inputs) if column_of(name) not in table.column_names]
        if not absent:
            return ""
        return f"its inputs were not kept ({_some(absent)}): see the setting capture_columns"

    def _leave_out(self, what: str, why: str, *, rows: int) -> None:
        for each in self.left_out:
            if (each["what"], each["why"]) == (what, why):
                each["rows"] += rows
                return
        self.left_out.append({"what": what, "why": why, "rows": rows})

    def _nothing(self) -> str:
        if not self.left_out:
            return "the prediction log holds nothing in this window; look further back with --since, or send predictions first"
        reasons = "; ".join(f"{each['what']}: {each['why']}" for each in self.left_out[:5])
        return f"none of the logged predictions in this window can be replayed. {reasons}"


def spread(count: int) -> list[int]:
    """0 to count - 1 in an order that is spread evenly from the start (van der Corput's).

    >>> spread(6)
    [0, 4, 2, 1, 5, 3]
    """
    bits = max(1, math.ceil(math.log2(max(count, 2))))
    backwards = (int(f"{place:0{bits}b}"[::-1], 2) for place in range(1 << bits))
    return [place for place in backwards if place < count]


def _names(inputs: tuple[Field, ...]) -> list[str]:
    """One name per logged column: of a wide input ``name[0]``, ``name[1]``, ..."""
    return [
        name
        for each in inputs
        for name in ([each.name] if each.width == 1 else [f"{each.name}[{at}]" for at in range(each.width)])
    ]


def _kind(given: Field) -> str:
    """What the log can tell apart."""
    kind = "bytes" if given.raw else "text" if given.datatype == "BYTES" else "numbers"
    return kind if given.width == 1 else f"{kind} [{given.width}]"


def _whole(table: pa.Table, name: str) -> NDArray[np.int64]:
    return numpy_of(table.column(name).combine_chunks().cast(pa.int64()))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
