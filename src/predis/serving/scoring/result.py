"""The result: one Parquet file, put together from the parts, which tells what it was made of.

Its bytes depend on the data, the version and the columns kept, and on nothing else: not on how many processes scored, on which engine, or
how often they were interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from predis.errors import IntegrityFailure
from predis.serving.scoring.files import locate, whole
from predis.serving.scoring.spans import cover
from predis.serving.scoring.workspace import Workspace

_GROUP_ROWS = 131_072
_KEY = b"predis.scoring"


def made_of(url: str) -> tuple[bool, dict[str, Any] | None]:
    """Whether there is a file at a result's place, and the plan it was made by if it is such a result."""
    files, path = locate(url)
    if not files.exists(path):
        return False, None
    try:
        with files.open(path, "rb") as file:
            metadata = pq.read_metadata(file).metadata or {}
        return True, json.loads(metadata[_KEY])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return True, None


def size_of(url: str) -> int:
    """A file's size in bytes."""
    files, path = locate(url)
    return int(files.size(path))


def assemble(workspace: Workspace, plan: Mapping[str, Any], *, schema: pa.Schema) -> None:
    """Write the result from the parts of a workspace. Needs the memory of two row groups.

    Raises:
        IntegrityFailure: a part is damaged, or is missing.
    """
    files, path = locate(workspace.url)
    described = schema.with_metadata({_KEY: json.dumps(plan).encode()})
    with (
        whole(files, path, by=workspace.folder) as file,
        pq.ParquetWriter(file, described, compression="zstd") as writer,
    ):
        for group in _groups(_rows(workspace, plan["rows"]), schema):
            writer.write_table(group.replace_schema_metadata(described.metadata), row_group_size=_GROUP_ROWS)


def _rows(workspace: Workspace, rows: int) -> Iterator[pa.Table]:
    done = workspace.done()
    try:
        for place, taken in cover(done, rows):
            table = workspace.read(done[place])
            yield table.slice(taken.start - done[place].start, taken.rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IntegrityFailure(
            f"the parts of {workspace.url} are damaged: {error}; score again with --fresh"
        ) from None


def _groups(tables: Iterator[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of equal size."""
    waiting = schema.empty_table()
    for table in tables:
        waiting = pa.concat_tables([waiting, table.cast(schema)])
        while waiting.num_rows >= _GROUP_ROWS:
            yield waiting.slice(0, _GROUP_ROWS)
            waiting = waiting.slice(_GROUP_ROWS)
    if waiting.num_rows:
        yield waiting
