"""The data set to be scored: one or many Parquet and CSV files as one sequence of rows, read in pieces from any row on.

A Parquet file can be entered at each of its row groups, a CSV file at its first row only; what lies between is read and passed over. So
whoever reads in order reads everything once.
"""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import itemgetter
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from predis.errors import InvalidInput, NotFound
from predis.registry.signature import Field
from predis.serving.scoring import csvfile, parquetfile
from predis.serving.scoring.files import identity, locate

ALL = ("*",)
_KINDS = {".parquet": parquetfile, ".pq": parquetfile, ".csv": csvfile, ".csv.gz": csvfile}


@dataclass(frozen=True)
class Source:
    """One file: where it is, how many rows each of its row groups has (a CSV file is one group), and what tells that it changed."""

    url: str
    name: str
    groups: tuple[int, ...]
    identity: str

    @property
    def rows(self) -> int:
        return sum(self.groups)


@dataclass(frozen=True)
class Data:
    """All files, the columns that are read of them with the type that all of them can be read as, those that are inputs of the model, and
    those to pass through.
    """

    sources: tuple[Source, ...]
    schema: pa.Schema
    inputs: tuple[str, ...]
    keep: tuple[str, ...]

    @property
    def rows(self) -> int:
        return sum(source.rows for source in self.sources)

    def place(self, row: int) -> str:
        """Where a row is, for people: the file, and its number there from 1."""
        for source in self.sources:
            if row < source.rows:
                return f"{source.name}, row {row + 1:,}"
            row -= source.rows
        return f"row {row + 1:,}"


def examine(url: str, fields: Sequence[Field], *, keep: Sequence[str] = (), target: str = "") -> Data:
    """Find the files that a path, folder, pattern or URL names, and look at each.

    Args:
        fields: the inputs, which must be columns.
        keep: other columns to read; every column where it is ``ALL``.
        target: where the result will be; neither it nor what it comes into being in is data, should they lie in the same folder.

    Raises:
        NotFound: there is no such file.
        InvalidInput: a file cannot be read, lacks a column, or has one of a type that does not go with the others'.
    """
    files, path = locate(url)
    paths = [each for each in _found(files, path) if not _belongs_to(target, files.unstrip_protocol(each))]
    if not paths:
        raise NotFound(f"{url}: there is no Parquet or CSV file there")
    with _named(PurePosixPath(paths[0]).name):
        first = _kind(paths[0]).columns(files, paths[0])
    keep = first if tuple(keep) == ALL else keep
    inputs = {name: field for field in fields for name in _columns_of(field, first)}
    wanted = tuple(dict.fromkeys((*inputs, *keep)))
    sources, schemas = [], []
    for each in paths:
        name = PurePosixPath(each).name
        with _named(name):
            _check_columns(_kind(each).columns(files, each), wanted, inputs=inputs)
            groups, schema = _kind(each).survey(files, each, wanted=wanted, inputs=inputs)
        sources.append(Source(files.unstrip_protocol(each), name, groups, identity(files, each)))
        schemas.append(schema)
    return Data(tuple(sources), _common(schemas, sources), tuple(inputs), tuple(keep))


class Cursor:
    """Reads a data set's rows, forward; going back, or far ahead, opens the file again."""

    def __init__(self, data: Data) -> None:
        self._data = data
        # Every row group: which file's, which of that, and the row it begins at.
        self._groups = [
            (place, group) for place, source in enumerate(data.sources) for group in range(len(source.groups))
        ]
        self._starts = [0, *accumulate(rows for source in data.sources for rows in source.groups)][:-1]
        self._at = 0
        self._batches = self._from(0)
        self._rest: pa.RecordBatch | None = None

    def read(self, start: int, stop: int) -> pa.Table:
        """The rows from ``start`` up to ``stop``, in the data set's schema.

        Raises:
            InvalidInput: a file cannot be read, a value not as its column's type, or the file is not what it was.
        """
        self._go_to(start)
        parts = []
        while self._at < stop:
            parts.append(self._take(stop - self._at))
        return pa.Table.from_batches(parts, self._data.schema)

    def _go_to(self, row: int) -> None:
        group = bisect_right(self._starts, row) - 1
        if row < self._at or self._starts[group] > self._at:
            self._at, self._batches, self._rest = self._starts[group], self._from(group), None
        while self._at < row:
            self._take(row - self._at)

    def _take(self, most: int) -> pa.RecordBatch:
        """The next rows, at most so many."""
        batch = self._rest if self._rest is not None else next(self._batches, None)
        if batch is None:
            raise InvalidInput(
                "the data set became shorter while it was read; run again when nobody writes to it"
            )
        taken = batch.slice(0, most)
        self._rest = batch.slice(most) if batch.num_rows > most else None
        self._at += taken.num_rows
        return taken

    def _from(self, group: int) -> Iterator[pa.RecordBatch]:
        for place, members in groupby(self._groups[group:], key=itemgetter(0)):
            source = self._data.sources[place]
            files, path = locate(source.url)
            numbers = [number for _, number in members]
            with _named(source.name):
                for batch in _kind(path).read(files, path, groups=numbers, schema=self._data.schema):
                    yield _cast(batch, self._data.schema)


def _found(files: Any, path: str) -> list[str]:
    """The files that a path, a folder or a pattern means, by name; those that begin with . or _ are not data."""
    if any(sign in path for sign in "*?["):
        found = files.glob(path)
    elif files.isdir(path):
        found = [each for each in files.find(path) if _ending(each)]
    else:
        return [path] if files.exists(path) else []
    hidden = (".", "_")
    return sorted(
        each for each in found if not PurePosixPath(each).name.startswith(hidden) and not files.isdir(each)
    )


def _belongs_to(target: str, url: str) -> bool:
    """Whether a file is the result, or in its workspace."""
    if not target:
        return False
    files, path = locate(target)
    result = files.unstrip_protocol(path)
    return url == result or url.startswith(f"{result}.scoring/")


def _columns_of(field: Field, found: Sequence[str]) -> list[str]:
    """The columns that an input comes from: one of its name, or of a wide one, one per place."""
    if field.width == 1 or field.name in found:
        return [field.name]
    return [f"{field.name}[{place}]" for place in range(field.width)]


def _ending(path: str) -> str:
    return next((ending for ending in _KINDS if path.lower().endswith(ending)), "")


def _kind(path: str) -> Any:
    """The module that reads a file, by the name's ending."""
    ending = _ending(path)
    if not ending:
        raise InvalidInput(f"{path}: what is scored are files that end in {', '.join(_KINDS)}")
    return _KINDS[ending]


def _check_columns(found: Sequence[str], wanted: Sequence[str], *, inputs: Collection[str]) -> None:
    missing = [column for column in wanted if column not in found]
    if not missing:
        return
    near = difflib.get_close_matches(missing[0], found, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(found[:20])}"
    why = "an input of the model" if missing[0] in inputs else "to be kept"
    more = f", and {len(missing) - 1} more are missing" if len(missing) > 1 else ""
    raise InvalidInput(f"there is no column {missing[0]!r}, which is {why}{more}{hint}")


def _common(schemas: Sequence[pa.Schema], sources: Sequence[Source]) -> pa.Schema:
    """The schema that all files can be read as."""
    common = schemas[0]
    for schema, source in zip(schemas[1:], sources[1:], strict=True):
        try:
            common = pa.unify_schemas([common, schema], promote_options="permissive")
        except pa.ArrowException as error:
            raise InvalidInput(f"{source.name} does not go with {sources[0].name}: {error}") from None
    return common


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(schema):
        return batch
    columns = [batch.column(batch.schema.get_field_index(name)) for name in schema.names]
    return pa.RecordBatch.from_arrays(
        [column.cast(kind) for column, kind in zip(columns, schema.types, strict=True)], schema=schema
    )


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What the reading library raises, as an error that names the file."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.message}") from None
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{name} cannot be read: {error}") from None
