"""The demo's train functions: what a user of Predis would write for their own model."""

from __future__ import annotations

import lightgbm

from predis.demo.flights import PARAMETERS, ROUNDS
from predis.retraining import TrainedModel, TrainJob


def train(job: TrainJob) -> TrainedModel:
    """Fit the flight-delay classifier on the job's table."""
    data = lightgbm.Dataset(
        job.matrix(),
        label=job.labels(),
        feature_name=[field.name for field in job.inputs],
        categorical_feature=job.categorical(),
    )
    booster = lightgbm.train({**PARAMETERS, "num_threads": 1}, data, num_boost_round=ROUNDS)
    booster.save_model(job.output / "model.txt")
    return TrainedModel("lightgbm", "model.txt", notes={"rounds": ROUNDS, "rows": job.table.num_rows})


def train_inverted(job: TrainJob) -> TrainedModel:
    """The same with every label turned over: the mistake that the demo's last act makes on purpose."""
    table = job.table.set_column(
        job.table.column_names.index(job.label), job.label, [(1.0 - job.labels()).tolist()]
    )
    return train(TrainJob(table, job.label, job.output))
