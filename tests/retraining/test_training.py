"""What a train function gets is what the model will be asked with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from predis.registry import Field
from predis.retraining import TrainedModel, TrainJob
from tests import toys

TABLE = pa.table(
    {"size": [1.5, None, 3.0], "colour": ["red", "blue", None], "count": [1, 2, 3], "label": [0.0, 1.0, 1.0]}
)


def test_job() -> None:
    job = TrainJob(TABLE, "label", Path("out"))
    assert job.inputs == (
        Field("size", "FP64", nullable=True),
        Field("colour", "BYTES", nullable=True, levels=("blue", "red")),
        Field("count", "INT64"),
    )
    np.testing.assert_array_equal(job.matrix(), [[1.5, 1, 1], [np.nan, 0, 2], [3, np.nan, 3]])
    np.testing.assert_array_equal(job.labels(), [0, 1, 1])
    assert job.categorical() == [1]


def test_the_label_may_stand_anywhere() -> None:
    job = TrainJob(TABLE.select(["label", "count"]), "label", Path())
    assert [field.name for field in job.inputs] == ["count"]
    assert job.labels().dtype == np.float64


def test_labels_of_any_type() -> None:
    for values in ([0, 1], [0.0, 1.0], [False, True]):
        job = TrainJob(pa.table({"a": [1.0, 2.0], "y": values}), "y", Path())
        np.testing.assert_array_equal(job.labels(), [0.0, 1.0])


def test_toy_table() -> None:
    job = TrainJob(toys.table(50), toys.LABEL, Path())
    assert [field.name for field in job.inputs] == [field.name for field in toys.INPUTS]
    assert job.matrix().shape == (50, 3)


def test_trained_model_has_notes_if_it_wants() -> None:
    assert TrainedModel("onnx", "model.onnx").notes == {}
