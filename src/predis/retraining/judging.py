"""Which of two models is better, whatever kind they are of; and what labels of that kind are.

two classes     AUC, DeLong's paired test
more classes    accuracy, paired row by row
numbers         mean absolute error, paired row by row; the gain as a share of the champion's
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predis.errors import InvalidInput
from predis.registry import Version
from predis.state.records import Matrix
from predis.stats import Task, compare_auc, compare_losses, row_losses


def task_of(champion: Version) -> Task:
    """What kind of model it is; one that does not say is taken for a binary classifier."""
    return champion.signature.task or "binary"


def label_column(champion: Version, labels: Sequence[float]) -> pa.Array:
    """Labels as a train function gets them: numbers, or of more than two classes their names."""
    classes = champion.signature.classes
    if task_of(champion) != "multiclass" or not classes:
        return pa.array(labels, pa.float64())
    return pa.array([classes[int(label)] for label in labels], pa.string())


def labels_of(champion: Version, column: pa.ChunkedArray) -> Matrix:
    """The numbers float64[n] of what ``label_column`` made.

    Raises:
        InvalidInput: a name is no class of the champion.
    """
    if pa.types.is_string(column.type):
        column = pc.index_in(column, pa.array(champion.signature.classes, pa.string()))
        if column.null_count:
            raise InvalidInput(f"{column.null_count} labels are no class of version {champion.number}")
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def labels_allowed(champion: Version) -> tuple[list[Any] | None, int]:
    """What labels may be (None: any number), and how many different ones there must be."""
    task = task_of(champion)
    if task == "regression":
        return None, 2
    if task == "multiclass":
        classes = champion.signature.classes
        return list(classes) if classes else None, len(classes) or 2
    return [0.0, 1.0], 2


def words(champion: Version) -> str:
    """The same in words."""
    task = task_of(champion)
    return {
        "binary": "both 0 and 1",
        "multiclass": f"every class: {', '.join(champion.signature.classes)}",
        "regression": "different numbers",
    }[task]


def compared(
    champion: Version, scores: tuple[Matrix, Matrix], *, labels: Matrix, margin: float
) -> dict[str, Any]:
    """The champion's scores against the challenger's. With too few rows there are no bounds, and nothing is better for certain."""
    task = task_of(champion)
    found: dict[str, Any]
    if task == "binary":
        auc = compare_auc(*scores, label=labels)
        names = ("champion_auc", "challenger_auc", "difference", "low", "high", "p_value")
        found = {name: getattr(auc, name) for name in names}
        low = auc.low
    else:
        losses = compare_losses(*(row_losses(task, each, label=labels) for each in scores))
        scale = losses.champion_loss if task == "regression" else 1.0
        sides = (losses.champion_loss, losses.challenger_loss)
        measure = "mae" if task == "regression" else "accuracy"
        shown = sides if task == "regression" else tuple(1.0 - loss for loss in sides)
        found = {
            f"champion_{measure}": shown[0], f"challenger_{measure}": shown[1], "difference": losses.gain, "low": losses.low,
            "high": losses.high, "p_value": losses.p_value,
        }  # fmt: skip
        low = losses.low / scale if scale > 0 else losses.low
    finite = {name: value if math.isfinite(value) else None for name, value in found.items()}
    return {**finite, "decision": "better" if low > margin else "not better"}
