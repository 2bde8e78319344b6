"""The toy model's file, and train functions that make it. Light, for a trainer's process imports it by the name ``toy_model``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from predis.retraining import TrainedModel, TrainJob

NAMES = ("x", "z", "kind")
THRESHOLDS = tuple(-2 + 0.25 * place for place in range(17))


def booster(
    column: str = "x", *, sign: float = 1.0, names: tuple[str, ...] = NAMES, repeats: int = 1
) -> bytes:
    """LightGBM's text of stumps on ``column``, falling where ``sign`` is negative; ``repeats`` makes it large without another answer."""
    leaf = 0.25 * sign / repeats
    head = (
        f"tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx={len(names) - 1}\n"
        f"objective=binary sigmoid:1\nfeature_names={' '.join(names)}\nfeature_infos={' '.join('none' for _ in names)}\n\n"
    )
    trees = [
        f"Tree={place}\nnum_leaves=2\nnum_cat=0\nsplit_feature={names.index(column)}\nsplit_gain=1\nthreshold={threshold}\n"
        f"decision_type=2\nleft_child=-1\nright_child=-2\nleaf_value={-leaf} {leaf}\nleaf_weight=1 1\n"
        "leaf_count=1 1\ninternal_value=0\ninternal_weight=0\ninternal_count=2\nis_linear=0\nshrinkage=1\n\n\n"
        for place, threshold in enumerate(THRESHOLDS * repeats)
    ]
    return (head + "".join(trees) + "end of trees\n").encode()


def scores_of(column: np.ndarray[Any, Any], *, sign: float = 1.0) -> np.ndarray[Any, Any]:
    """What the model answers, without LightGBM."""
    raw = sum(np.where(column > threshold, 0.25, -0.25) for threshold in THRESHOLDS) * sign
    return 1 / (1 + np.exp(-raw))


def _made(
    job: TrainJob, column: str, *, sign: float = 1.0, notes: dict[str, Any] | None = None
) -> TrainedModel:
    (job.output / "model.txt").write_bytes(booster(column, sign=sign))
    return TrainedModel(
        "lightgbm", "model.txt", notes=notes or {"rows": job.table.num_rows, "column": column}
    )


def train(job: TrainJob) -> TrainedModel:
    """The number that goes with the label best."""
    matrix, labels = job.matrix(), job.labels()
    strength = [abs(np.corrcoef(np.nan_to_num(matrix[:, at]), labels)[0, 1]) for at in (0, 1)]
    return _made(job, NAMES[int(np.argmax(strength))])


def train_z(job: TrainJob) -> TrainedModel:
    return _made(job, "z")


def train_x(job: TrainJob) -> TrainedModel:
    return _made(job, "x")


def train_inverted(job: TrainJob) -> TrainedModel:
    return _made(job, "x", sign=-1.0)


def fails(job: TrainJob) -> TrainedModel:
    raise ValueError(f"no luck with {job.table.num_rows} rows")


def returns_nothing(job: TrainJob) -> None:
    _made(job, "z")


def makes_no_file(job: TrainJob) -> TrainedModel:
    return TrainedModel("lightgbm", "model.txt")


def makes_no_model(job: TrainJob) -> TrainedModel:
    (job.output / "model.txt").write_text("not a model")
    return TrainedModel("lightgbm", "model.txt")


def notes_that_are_no_json(job: TrainJob) -> TrainedModel:
    return _made(job, "z", notes={"model": object()})


def notes_that_are_none(job: TrainJob) -> TrainedModel:
    _made(job, "z")
    return TrainedModel("lightgbm", "model.txt", notes=None)  # type: ignore[arg-type]


def hungry(job: TrainJob) -> TrainedModel:
    bytearray(6 << 30)
    return _made(job, "z")


def never_ends(job: TrainJob) -> TrainedModel:
    while True:
        time.sleep(0.05)


def is_killed(job: TrainJob) -> TrainedModel:
    sys.stdout.write("about to die\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    return _made(job, "z")


def leaves(job: TrainJob) -> TrainedModel:
    sys.stdout.write("that is enough for me\n")
    sys.exit(3)


def tells_of_its_folder(job: TrainJob) -> TrainedModel:
    there = sorted(path.name for path in job.output.iterdir())
    return _made(
        job, "z", notes={"there": there, "nice": os.nice(0), "parent": os.getppid(), "session": os.getsid(0)}
    )


def waits_for_a_sign(job: TrainJob) -> TrainedModel:
    """Says that it has begun, once per process, and goes on when it is told to."""
    folder = Path(os.environ["TOY_SIGNS"])
    (folder / f"begun-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return _made(job, "z")
