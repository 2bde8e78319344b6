"""What registering measures of a version: its task, its metrics on the holdout, its reference profile, and what its scores are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from predis.errors import InvalidInput
from predis.registry.columns import Inference, cast, encode_table, numpy_of
from predis.registry.dataset import BATCH_ROWS, DataSet, parquet_errors
from predis.registry.signature import Field, Signature, Task
from predis.stats import build_profile, calibrate, performance
from predis.stats.profile_counter import ProfileCounter

if TYPE_CHECKING:
    from predis.state.records import Matrix

SAMPLE_ROWS = 100_000
_SAMPLE_BYTES = 256 << 20
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


def settled(signature: Signature, sets: Sequence[DataSet | None], *, label: str) -> Signature:
    """The signature with its task and classes, as far as outputs and labels tell them.

    Where neither does (one number, no labels), the task stays open: monitoring takes labels for numbers, and measures a classifier where
    all of them are 0 or 1.

    Raises:
        InvalidInput: the labels of a binary classifier are of more than two classes.
    """
    found = [each.distinct(label) for each in sets if each is not None and label]
    columns = [column for column in found if column is not None]
    task = signature.task or _task(signature, columns)
    classes = signature.classes
    if not classes and task != "regression" and (task == "multiclass" or any(map(_is_text, columns))):
        names = {
            str(value) for column in columns for value in pc.unique(column).to_pylist() if value is not None
        }
        width = next(field.width for field in signature.outputs if field.name == signature.score)
        classes = tuple(sorted(names)) if any(map(_is_text, columns)) else tuple(map(str, range(width)))
    if task == "binary" and classes and len(classes) != 2:
        raise InvalidInput(
            f"column {label!r} must hold 0 and 1 only, or the names of two classes, got {len(classes)}"
        )
    return replace(signature, task=task, classes=classes)


def _task(signature: Signature, columns: Sequence[pa.ChunkedArray]) -> Task | None:
    output = next(field for field in signature.outputs if field.name == signature.score)
    if output.width > 2:
        return "multiclass"
    if output.width == 2 or output.name == "probability":
        return "binary"
    if not columns or any(map(_is_text, columns)):
        return None
    values = {value for column in columns for value in pc.unique(column).to_pylist()}
    return "binary" if values <= {0, 1, None} else "regression"


def _is_text(column: pa.ChunkedArray) -> bool:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return False
    return not set(pc.unique(column).to_pylist()) <= {"0", "1", None}


def metrics_of(
    model: Scored, holdout: DataSet, *, label: str, signature: Signature
) -> tuple[dict[str, float], dict[str, Any] | None]:
    """How well a model does on a labelled data set, and what its scores are worth there.

    The measures are those of ``stats.performance`` for the task. The second is a ``Calibration`` as a dictionary, of binary classifiers
    only. Keeps 16 bytes a row: each score and its label.

    Args:
        signature: the model's, ``settled``.

    Raises:
        InvalidInput: the labels are missing or none of the task's, or a classifier's are all the same; or the data does not fit the model's
            signature.
    """
    distinct = holdout.distinct(label) if label else None
    if distinct is None:
        raise InvalidInput("metrics need the labels: name the holdout's label column")
    kinds = _known(distinct, label, what=holdout.what, signature=signature)
    task = signature.task or "regression"
    if task != "regression" and kinds.min() == kinds.max():
        raise InvalidInput("metrics need labels of both kinds: every label of the holdout is the same")
    scores, labels = np.empty(holdout.rows), np.empty(holdout.rows)
    at = 0
    for batch in holdout.batches():
        rows = slice(at, at := at + batch.num_rows)
        labels[rows] = _known(batch.column(label), label, what=holdout.what, signature=signature)
        scores[rows] = model.score(batch)
    found = performance(task, scores, label=labels)
    curve = None
    if task == "binary":
        found["positives"] = float(labels.sum())
        curve = calibrate(scores, labels)
    # Log loss and Brier score have no value where scores are not probabilities, and JSON has no NaN.
    metrics = {name: value for name, value in found.items() if math.isfinite(value)}
    return metrics, None if curve is None else curve.to_dict()


@dataclass(frozen=True)
class Survey:
    """What is known of a reference before the model is: its inputs, and a sample to fix bins on."""

    inputs: tuple[Field, ...]
    sample: pa.Table


def survey(reference: DataSet, *, label: str) -> Survey:
    """Read a reference once.

    Raises:
        InvalidInput: a column is of a type no model takes.
    """
    inference, spread = Inference(), reference.spread(SAMPLE_ROWS, most_bytes=_SAMPLE_BYTES)
    for batch in reference.batches():
        inference.add(without(batch, label))
        spread.add(batch)
    return Survey(inference.fields(), spread.sample())


def profile_of(
    model: Scored, reference: DataSet, *, sample: pa.Table, label: str, signature: Signature
) -> dict[str, Any]:
    """The reference profile: bins fixed on a sample of the reference, and counts of all its inputs, scores and labels.

    Reads the reference once, in constant memory. ``signature``: the model's, ``settled``. ``calibration`` says what scores of a binary
    classifier are worth among the sample's labels.
    """
    inputs = signature.inputs if len(signature.feature_names) <= WATCHED_COLUMNS else ()
    scores = _scores(model, sample)
    known = _labels(sample, label, what=reference.what, signature=signature)
    curve = calibrate(scores, known) if signature.task == "binary" and known is not None else None
    profile = build_profile(
        encode_table(sample, inputs, exact=False),
        names=signature.feature_names if inputs else (),
        levels=signature.levels if inputs else {},
        scores=scores,
        labels=known,
    )
    if profile.rows < reference.rows:
        counter = ProfileCounter(profile.bins, profile.score_bins, rows=reference.rows)
        for batch in reference.batches():
            counter.add(
                encode_table(batch, inputs, exact=False),
                scores=model.score(batch),
                labels=_labels(batch, label, what=reference.what, signature=signature),
            )
        profile = counter.profile()
    return {**profile.to_dict(), "calibration": None if curve is None else curve.to_dict()}


def without(table: pa.Table, column: str) -> pa.Table:
    return table.drop_columns([column]) if column in table.column_names else table


def read_parquet(content: bytes, what: str) -> pa.Table:
    """
    Raises:
        InvalidInput: it is no Parquet file, or has no rows.
    """
    with parquet_errors(what):
        table = pq.read_table(pa.BufferReader(content))
    if table.num_rows == 0:
        raise InvalidInput(f"the {what} has no rows")
    return table


def _scores(model: Scored, table: pa.Table) -> Matrix:
    """Scores [rows], asked for a batch at a time: a model has a time limit for each."""
    starts = range(0, table.num_rows, BATCH_ROWS)
    return np.concatenate([model.score(table.slice(start, BATCH_ROWS)) for start in starts])


def _labels(table: pa.Table, label: str, *, what: str, signature: Signature) -> Matrix | None:
    if not label or label not in table.column_names:
        return None
    return _known(table.column(label), label, what=what, signature=signature)


def _known(column: pa.ChunkedArray, label: str, *, what: str, signature: Signature) -> Matrix:
    """Labels as numbers: of classes, their places among the signature's."""
    array = column.combine_chunks()
    if signature.classes:
        places = pc.index_in(cast(array, pa.string(), what="the label"), pa.array(signature.classes))
        values: Matrix = numpy_of(places.cast(pa.float64()))
        if np.isnan(values).any():
            names = ", ".join(signature.classes)
            raise InvalidInput(f"column {label!r} of the {what} must hold one of {names} in each row")
        return values
    try:
        values = numpy_of(cast(array, pa.float64(), what="the label"))
    except InvalidInput:
        values = np.array([np.nan])
    if signature.task == "binary" and not np.isin(values, (0.0, 1.0)).all():
        raise InvalidInput(f"column {label!r} of the {what} must hold 0 and 1 only")
    if not np.isfinite(values).all():
        raise InvalidInput(f"column {label!r} of the {what} must hold a finite number in each row")
    return values
