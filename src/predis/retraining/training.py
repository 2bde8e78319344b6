"""The contract of a train function: a job comes in, a model file comes out.

    def train(job: TrainJob) -> TrainedModel:
        matrix, label = job.matrix(), job.labels()
        ...
        booster.save_model(job.output / "model.txt")
        return TrainedModel("lightgbm", "model.txt", notes={"trees": 200})

The function runs in a process of its own, with limits on time and memory; what it prints goes to the run's log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predis.registry.columns import encode_table, infer_inputs
from predis.registry.signature import Field
from predis.state.records import Matrix


@dataclass(frozen=True)
class TrainJob:
    """What a train function gets.

    ``table`` holds one row per labelled example, oldest first: the inputs by name, texts as texts, and the label column.
    ``output`` is an empty folder for the model's file.
    """

    table: pa.Table
    label: str
    output: Path

    @property
    def inputs(self) -> tuple[Field, ...]:
        """The input fields as the registry will infer them from this table; texts with their levels."""
        return infer_inputs(self.table.drop_columns([self.label]))

    def matrix(self) -> Matrix:
        """The inputs as float64 [rows, columns]: codes for levels, NaN for missing. This is what the model will be asked with."""
        return encode_table(self.table, self.inputs)

    def labels(self) -> Matrix:
        """The labels as float64 [rows]; names of classes as their places in the alphabet."""
        column = self.table.column(self.label)
        if pa.types.is_string(column.type):
            names = pa.array(sorted(column.unique().to_pylist()), pa.string())
            column = pc.index_in(column, names)
        return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)

    def categorical(self) -> list[int]:
        """Columns of the matrix that hold codes."""
        return [place for place, spec in enumerate(self.inputs) if spec.levels]


@dataclass(frozen=True)
class TrainedModel:
    """What a train function returns: the model's format, its file in the job's output folder, and notes for the lineage."""

    format: str
    file: str
    notes: Mapping[str, Any] = field(default_factory=dict)
