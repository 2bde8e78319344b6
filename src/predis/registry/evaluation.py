"""What registering measures of a version: its metrics on the holdout, and its reference profile."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from predis.errors import InvalidInput
from predis.registry.columns import cast, encode_table, numpy_of
from predis.registry.signature import Signature
from predis.stats import binary_scores, build_profile

if TYPE_CHECKING:
    from predis.state.records import Matrix

SAMPLE_ROWS = 100_000
WATCHED_COLUMNS = (
    1_024  # inputs with more values a row (images, embeddings) have a profile of their scores only
)


class Scored(Protocol):
    """A model that scores tables."""

    @property
    def signature(self) -> Signature: ...

    @property
    def usable(self) -> bool:
        """Whether it can be asked again; a failure may have ended it."""

    def score(self, table: pa.Table) -> Matrix:
        """The watched score of each row, [rows]."""

    def timings(self, table: pa.Table, *, rows: int) -> list[float]:
        """Seconds that predicting each block of ``rows`` rows takes."""


def metrics_of(model: Scored, holdout: pa.Table, *, label: str) -> dict[str, float]:
    """How well a model tells the two labels of a data set apart.

    Raises:
        InvalidInput: the labels are missing, or all the same; or the data does not fit the model's signature.
    """
    labels = _labels(holdout, label, what="holdout")
    if labels is None:
        raise InvalidInput("metrics need the labels: name the holdout's label column")
    if labels.min() == labels.max():
        raise InvalidInput("metrics need labels of both kinds: every label of the holdout is the same")
    found = asdict(binary_scores(model.score(holdout), labels))
    # Log loss and Brier score have no value where scores are not probabilities, and JSON has no NaN.
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def profile_of(model: Scored, reference: pa.Table, *, label: str) -> dict[str, Any]:
    """The reference profile: bins and counts of inputs, scores and labels."""
    table, signature = _sampled(reference), model.signature
    inputs = signature.inputs if len(signature.feature_names) <= WATCHED_COLUMNS else ()
    profile = build_profile(
        encode_table(table, inputs, exact=False),
        names=signature.feature_names if inputs else (),
        levels=signature.levels if inputs else {},
        scores=model.score(table),
        labels=_labels(table, label, what="reference"),
    )
    return profile.to_dict()


def without(table: pa.Table, column: str) -> pa.Table:
    return table.drop_columns([column]) if column in table.column_names else table


def read_parquet(content: bytes, what: str) -> pa.Table:
    """
    Raises:
        InvalidInput: it is no Parquet file, or has no rows.
    """
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(f"the {what} is not a Parquet file: {error}") from error
    if table.num_rows == 0:
        raise InvalidInput(f"the {what} has no rows")
    return table


def _sampled(table: pa.Table) -> pa.Table:
    """At most SAMPLE_ROWS rows, evenly spread, so that time order and seasons stay represented."""
    if table.num_rows <= SAMPLE_ROWS:
        return table
    return table.take(np.linspace(0, table.num_rows - 1, SAMPLE_ROWS).astype(np.int64))


def _labels(table: pa.Table, label: str, *, what: str) -> Matrix | None:
    if not label or label not in table.column_names:
        return None
    try:
        values: Matrix = numpy_of(cast(table.column(label).combine_chunks(), pa.float64(), what="the label"))
    except InvalidInput:
        values = np.array([np.nan])
    if not np.isin(values, (0.0, 1.0)).all():
        raise InvalidInput(f"column {label!r} of the {what} must hold 0 and 1 only")
    return values
