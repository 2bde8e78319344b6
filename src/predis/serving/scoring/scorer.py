"""Scores spans of rows: what every worker of every engine does.

Rows are predicted in batches that begin at multiples of the batch's size, counted over the whole data set. So a row is always predicted
among the same rows, whoever does it, and comes out the same to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from predis.errors import InvalidInput, ModelFailure
from predis.registry.signature import NUMPY_OF, Signature
from predis.serving import runtimes
from predis.serving.scoring.data import Cursor, Data
from predis.serving.scoring.spans import Span
from predis.serving.scoring.workspace import Workspace
from predis.serving.tables import inputs_of, outputs_table

_BATCH_VALUES = 1 << 20
_BATCH_ROWS = 4_096
# A part is written when it is large or old enough: what a kill costs is that long at most.
_PART_ROWS = 131_072
_UNITS_PER_WORKER = 8
_LEAST_UNIT_ROWS = 16_384
_PART_BYTES = 32 << 20
_PART_S = 10.0


@dataclass(frozen=True)
class Job:
    """What is to be scored, with what, and where to. It travels to other processes and machines."""

    format: str
    contents: Mapping[str, bytes] = field(repr=False)
    signature: Signature
    data: Data
    target: str

    @property
    def batch_rows(self) -> int:
        """Rows predicted at once: fewer where they are wide, so that a batch stays within some megabytes."""
        width = sum(each.width for each in (*self.signature.inputs, *self.signature.outputs))
        return max(1, min(_BATCH_ROWS, _BATCH_VALUES // width))

    def unit_rows(self, rows: int, *, workers: int) -> int:
        """Rows a worker is given at once, of so many: whole batches, few enough that all workers end at nearly the same time."""
        wanted = min(max(rows // (workers * _UNITS_PER_WORKER), _LEAST_UNIT_ROWS), _PART_ROWS)
        return max(1, wanted // self.batch_rows) * self.batch_rows


def result_schema(job: Job) -> pa.Schema:
    """The columns of the result: those kept, then the outputs.

    Raises:
        InvalidInput: two of them have the same name.
    """
    fields = job.signature.outputs
    empty: list[NDArray[Any]] = [np.empty((0, *each.shape[1:]), NUMPY_OF[each.datatype]) for each in fields]
    schema = pa.schema(
        [
            *(job.data.schema.field(name) for name in job.data.keep),
            *outputs_table(job.signature, empty).schema,
        ]
    )
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise InvalidInput(
            f"the column to keep {twice[0]!r} has the name of an output; leave it out, or rename it in the data set"
        )
    return schema


class Scorer:
    """The model in memory, and a place in the data."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._runtime = runtimes.load(job.format, job.contents, signature=job.signature)
        self._cursor = Cursor(job.data)
        self._workspace = Workspace(job.target)

    def score(self, span: Span) -> Iterator[int]:
        """Score the rows of a span and store them in parts; yields how many rows each batch had.

        Raises:
            InvalidInput: a row does not fit the signature; the message says which.
            ModelFailure: the model failed on a row.
        """
        size = self._job.batch_rows
        waiting: list[pa.Table] = []
        start, began = span.start, time.monotonic()
        for at in range(span.start // size * size, span.stop, size):
            batch = Span(max(at, span.start), min(at + size, span.stop))
            waiting.append(self._scored(batch))
            old = time.monotonic() - began >= _PART_S
            if old or batch.stop - start >= _PART_ROWS or sum(t.nbytes for t in waiting) >= _PART_BYTES:
                self._workspace.write(Span(start, batch.stop), pa.concat_tables(waiting))
                waiting, start, began = [], batch.stop, time.monotonic()
            yield batch.rows
        if waiting:
            self._workspace.write(Span(start, span.stop), pa.concat_tables(waiting))

    def close(self) -> None:
        """Give the model's memory back."""
        self._runtime.close()

    def _scored(self, span: Span) -> pa.Table:
        table = self._cursor.read(*span)
        try:
            outputs = self._predicted(table)
        except (InvalidInput, ModelFailure) as error:
            row = self._first_bad_row(table)
            where = "" if row is None else f"{self._job.data.place(span.start + row)}: "
            raise type(error)(f"{where}{error.message}") from None
        columns = [*table.select(self._job.data.keep).columns, *outputs.columns]
        return pa.table(columns, names=[*self._job.data.keep, *outputs.column_names])

    def _predicted(self, table: pa.Table) -> pa.Table:
        signature = self._job.signature
        inputs = inputs_of(table.select(self._job.data.inputs), signature, takes=self._runtime.takes)
        return outputs_table(signature, runtimes.run(self._runtime, inputs))

    def _first_bad_row(self, table: pa.Table) -> int | None:
        """The first row that alone, or after good ones, fails; None where the fault is not one row's: every row has it."""
        low, high = 0, table.num_rows
        if self._fails(table.slice(0, 1)) and self._fails(table.slice(high - 1)) and high > 1:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if self._fails(table.slice(low, middle - low)):
                high = middle
            else:
                low = middle
        return low

    def _fails(self, table: pa.Table) -> bool:
        try:
            self._predicted(table)
        except (InvalidInput, ModelFailure):
            return True
        return False
