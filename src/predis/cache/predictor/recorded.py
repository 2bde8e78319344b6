"""The reads that the learner recorded, as one table to train on: it says in its schema of which sources it is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from predis.cache.predictor.export import exported
from predis.errors import InvalidInput

MOST_ROWS = 300_000
LEAST_ROWS = 2_000
_BRIEF = b"predis.predictor"
_LEAST_DELAY_S = 0.002


class Brief(NamedTuple):
    """What training needs to know beside the reads: pattern and tenant of each source, how long a load takes, and models that may help."""

    patterns: tuple[tuple[str, str], ...]
    delay_s: float
    models: tuple[str, ...] = ()


def gather(
    folder: Path,
    patterns: Iterable[tuple[str, str]],
    *,
    delay_s: float,
    models: Iterable[str] = (),
    most: int = MOST_ROWS,
) -> pa.Table:
    """The newest recorded reads, oldest first, with the brief.

    Args:
        folder: where the learner writes them.
        patterns: text and tenant of each source's.
        models: see ``learned``.

    Raises:
        InvalidInput: there are too few.
    """
    tables: list[pa.Table] = []
    rows = 0
    for path in reversed(exported(folder)):
        table = pq.read_table(path, columns=["key", "ts", "client", "whole"])
        table = table.filter(table["whole"]).drop_columns(["whole"])
        tables.append(table)
        rows += table.num_rows
        if rows >= most:
            break
    if rows < LEAST_ROWS:
        raise InvalidInput(
            f"{rows:,} reads are recorded, at least {LEAST_ROWS:,} are needed: let clients read through the cache for a while; "
            "the learner writes down what it hears every ten minutes"
        )
    table = pa.concat_tables(tables).sort_by("ts")
    table = table.slice(max(0, table.num_rows - most))
    given = Brief(tuple(patterns), max(delay_s, _LEAST_DELAY_S), tuple(models))
    return table.replace_schema_metadata({_BRIEF: json.dumps(given._asdict()).encode()})


def brief(table: pa.Table) -> Brief:
    """What ``gather`` wrote into a table.

    Raises:
        InvalidInput: it is none of its tables.
    """
    try:
        document = json.loads(table.schema.metadata[_BRIEF])
        patterns = tuple((text, tenant) for text, tenant in document["patterns"])
        return Brief(patterns, float(document["delay_s"]), tuple(document["models"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput("this table does not say of which sources it is") from error


def rows(folder: Path) -> int:
    """How many reads are recorded.

    Raises:
        OSError, pa.ArrowException: a file is written or deleted just now.
    """
    return sum(pq.read_metadata(path).num_rows for path in exported(folder))
