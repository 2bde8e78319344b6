"""How well a model did on labelled rows, for every kind of model, each measure with a confidence interval.

Three kinds: ``binary`` (scores of the positive class, labels 0 and 1), ``regression`` (predicted and true numbers) and ``multiclass``
(see ``top_scores``: the class that was chosen and how sure the model was of it, in one number).

Intervals are analytic where there is one: DeLong for the AUC, Wilson (1927) for shares, the central limit theorem for means. All others
come from the grouped jackknife (Quenouille 1949; Shao and Wu 1989): the measure is taken ``GROUPS`` times, each time without one stretch of
neighbouring rows. It costs ``GROUPS`` evaluations, needs no random numbers, and widens where neighbours resemble each other. It
understates a little for measures that are not smooth (KS), where it is a guide and not a guarantee.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Bools, Floats, fraction, ordered, positives
from predis.stats._special import normal_quantile
from predis.stats.scores import auc, binary_scores

Task = Literal["binary", "regression", "multiclass"]
TASKS: tuple[Task, ...] = ("binary", "regression", "multiclass")
GROUPS = 20
CALIBRATION_BINS = 10
_SURE = 1.0 - 2.0**-40  # a confidence stays below the next class
_LEAST_PROBABILITY = 1e-12
_MOST_CLASSES = 50  # that are ranked against all others: each costs a sort
_LEAST_ROWS = 2 * GROUPS
_SHARES = ("accuracy", "precision", "recall")

Values = dict[str, float]
Interval = tuple[float, float]


def performance(
    task: Task,
    score: ArrayLike,
    *,
    label: ArrayLike,
    threshold: float = 0.5,
    quantile: float = 0.5,
    classes: int = 0,
) -> Values:
    """Every measure of a kind of model, as ``NAME``, ``NAME_low`` and ``NAME_high``; the interval holds the truth with 95 %.

    binary: auc, ks, gini, pr_auc, log_loss, brier, calibration_error (the last three of probabilities only), accuracy, precision, recall,
    f1, mcc (of score >= `threshold`). regression: mae, rmse, mape (of labels other than 0), r2, bias, quantile_loss (at `quantile`).
    multiclass: accuracy, macro_f1, log_loss and ovr_auc (both of what `top_scores` keeps, see `class_probability`; of `classes` classes, or
    as many as the data show), calibration_error. What has no value for the data is NaN, and so are both ends of its interval.

    score, label: float64[n]. Raises `InvalidInput` for another shape, a NaN, or labels that are none of the kind's.

    >>> found = performance("regression", [1.0, 2.0, 4.0], label=[1.0, 2.0, 3.0])
    >>> round(found["mae"], 3), round(found["rmse"], 3), found["r2"]
    (0.333, 0.577, 0.5)
    """
    values, labels = _checked(task, score, label=label)

    def estimate(rows: Bools | slice) -> Values:
        if task == "binary":
            return _binary(values[rows], labels[rows], threshold=threshold)
        if task == "regression":
            return _regression(values[rows], labels[rows], quantile=fraction(quantile, "quantile"))
        return _multiclass(values[rows], labels[rows], classes=classes)

    found = estimate(slice(None))
    intervals = _analytic(task, values, labels=labels, threshold=threshold, quantile=quantile)
    others = [name for name in found if name not in intervals]
    intervals |= _jackknifed(estimate, {name: found[name] for name in others}, rows=values.size)
    result: Values = {"rows": float(values.size)}
    for name, value in found.items():
        low, high = intervals[name] if math.isfinite(value) else (math.nan, math.nan)
        result |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return result


def top_scores(probabilities: ArrayLike) -> Floats:
    """The watched score float64[n] of class probabilities float64[n, k]: the class's number plus the confidence, kept below 1.

    One number a row is what windows, drift bins and the log keep. This one still tells which class was chosen and how sure the model
    was, so that moved classes and moved confidence both show as drift.

    >>> top_scores([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]).round(6).tolist()
    [2.7, 0.6]
    """
    table = np.asarray(probabilities, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] == 0:
        raise InvalidInput(f"probabilities must have shape (rows, classes), got {table.shape}")
    broken = np.isnan(table).any(axis=1)
    chosen = table.argmax(axis=1)
    confidence = np.clip(np.take_along_axis(table, chosen[:, None], axis=1)[:, 0], 0.0, _SURE)
    return np.where(broken, np.nan, chosen + confidence)


def class_probability(score: Floats, which: Floats, *, classes: int) -> Floats:
    """The probability float64[n] of one class for each row, as far as `top_scores` tells it.

    Of the class that was chosen it is known; the rest is spread evenly over the others, which is the likeliest guess (of largest entropy).

    >>> class_probability(np.array([2.75, 2.75]), np.array([2.0, 0.0]), classes=3).tolist()
    [0.75, 0.125]
    """
    chosen = np.floor(score)
    sure = score - chosen
    return np.where(chosen == which, sure, (1.0 - sure) / max(1, classes - 1))


def wilson(share: float, rows: float, *, level: float = 0.95) -> Interval:
    """Wilson's interval of a share of `rows`; (0, 1) without rows.

    >>> [round(end, 3) for end in wilson(0.9, 100)]
    [0.826, 0.945]
    """
    if rows <= 0:
        return 0.0, 1.0
    z = normal_quantile(0.5 + level / 2)
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    reach = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows)) / (1 + z * z / rows)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def average_precision(score: Floats, positive: Bools) -> float:
    """Area under precision over recall, as the sum of precision at each positive (ties together); NaN without positives."""
    total = int(np.count_nonzero(positive))
    if total == 0:
        return math.nan
    order = np.argsort(-score, kind="stable")
    descending = score[order]
    ends = np.append(np.flatnonzero(descending[1:] != descending[:-1]), len(score) - 1)
    hits = np.cumsum(positive[order])[ends]
    return float((hits / (ends + 1) * np.diff(hits, prepend=0)).sum() / total)


def calibration_error(confidence: Floats, right: Bools) -> float:
    """Expected calibration error (Naeini 2015): mean gap of confidence and share of rights over bins of equally many rows.

    Bins of equal counts, not widths, so that none is empty and few rare scores decide. NaN without rows. It is never below what chance
    alone gives, about sqrt(p (1 - p) * 10 / rows).
    """
    if confidence.size == 0:
        return math.nan
    order = np.argsort(confidence, kind="stable")
    gaps = np.array_split((confidence - right)[order], min(CALIBRATION_BINS, confidence.size))
    return float(sum(abs(part.sum()) for part in gaps) / confidence.size)


def _checked(task: Task, score: ArrayLike, *, label: ArrayLike) -> tuple[Floats, Floats]:
    if task not in TASKS:
        raise InvalidInput(f"a task is one of {', '.join(TASKS)}, got {task!r}")
    values = ordered(score, "score")
    if task == "binary":
        return values, positives(label, values.size).astype(np.float64)
    labels = ordered(label, "label")
    if labels.size != values.size:
        raise InvalidInput(f"{values.size} scores and {labels.size} labels: one per row")
    if not np.isfinite(labels).all() or not np.isfinite(values).all():
        raise InvalidInput("score and label must be finite numbers; drop the other rows first")
    if task == "multiclass" and ((labels < 0) | (labels != np.floor(labels))).any():
        raise InvalidInput("labels of classes must be their numbers: 0, 1, ...")
    return values, labels


def _binary(values: Floats, labels: Floats, *, threshold: float) -> Values:
    positive = labels == 1.0
    plain = binary_scores(values, positive)
    probabilities = math.isfinite(plain.brier)
    return {
        "auc": plain.auc,
        "ks": plain.ks,
        "gini": plain.gini,
        "pr_auc": average_precision(values, positive),
        "log_loss": plain.log_loss,
        "brier": plain.brier,
        "calibration_error": calibration_error(values, positive) if probabilities else math.nan,
        **_confusion(values >= threshold, positive),
    }


def _confusion(said: Bools, positive: Bools) -> Values:
    both, one, other = (
        float(np.count_nonzero(mask)) for mask in (said & positive, said & ~positive, ~said & positive)
    )
    return confusion_measures(both, one, misses=other, rows=said.size)


def confusion_measures(hits: float, false_alarms: float, *, misses: float, rows: float) -> Values:
    """Accuracy, precision, recall, F1 and MCC of a confusion matrix; its cells may be expected counts.

    >>> confusion_measures(3, 1, misses=2, rows=10)["recall"]
    0.6
    """
    rest = rows - hits - false_alarms - misses
    product = (hits + false_alarms) * (hits + misses) * (rest + false_alarms) * (rest + misses)
    return {
        "accuracy": _ratio(hits + rest, rows),
        "precision": _ratio(hits, hits + false_alarms),
        "recall": _ratio(hits, hits + misses),
        "f1": _ratio(2 * hits, 2 * hits + false_alarms + misses),
        "mcc": _ratio(hits * rest - false_alarms * misses, math.sqrt(max(product, 0.0))),
    }


def _regression(values: Floats, labels: Floats, *, quantile: float) -> Values:
    if values.size == 0:
        return dict.fromkeys(("mae", "rmse", "mape", "r2", "bias", "quantile_loss"), math.nan)
    errors = labels - values
    spread = float(np.square(labels - labels.mean()).sum())
    squares = float(np.square(errors).sum())
    relative = _relative(errors, labels)
    return {
        "mae": float(np.abs(errors).mean()),
        "rmse": math.sqrt(squares / values.size),
        "mape": float(relative.mean()) if relative.size else math.nan,
        "r2": 1.0 - squares / spread if spread > 0 else math.nan,
        "bias": float(-errors.mean()),
        "quantile_loss": float(_pinball(errors, quantile).mean()),
    }


def _relative(errors: Floats, labels: Floats) -> Floats:
    some = labels != 0
    found: Floats = np.abs(errors[some] / labels[some])
    return found


def _pinball(errors: Floats, quantile: float) -> Floats:
    return np.maximum(quantile * errors, (quantile - 1.0) * errors)


def _multiclass(values: Floats, labels: Floats, *, classes: int) -> Values:
    classes = max(classes, int(max(values.max(initial=0.0), labels.max(initial=0.0))) + 1)
    own = class_probability(values, labels, classes=classes)
    chosen = np.floor(values)
    right = chosen == labels
    f1 = []
    for each in np.unique(labels):
        one, other = chosen == each, labels == each
        hits = float(np.count_nonzero(one & other))
        f1.append(_ratio(2 * hits, float(np.count_nonzero(one) + np.count_nonzero(other))))
    return {
        "accuracy": float(right.mean()) if right.size else math.nan,
        "macro_f1": float(np.mean(f1)) if f1 else math.nan,
        "log_loss": float(-np.log(np.maximum(own, _LEAST_PROBABILITY)).mean()) if own.size else math.nan,
        "ovr_auc": _one_vs_rest(values, labels, classes=classes),
        "calibration_error": calibration_error(values - chosen, right),
    }


def _one_vs_rest(values: Floats, labels: Floats, *, classes: int) -> float:
    """Mean AUC of each class that occurs against all others."""
    present = np.unique(labels)
    if present.size > _MOST_CLASSES:
        return math.nan
    aucs = [
        auc(class_probability(values, np.full(values.size, each), classes=classes), labels == each)
        for each in present
    ]
    known = [each for each in aucs if math.isfinite(each)]
    return float(np.mean(known)) if known else math.nan


def _analytic(
    task: Task, values: Floats, *, labels: Floats, threshold: float, quantile: float
) -> dict[str, Interval]:
    if values.size == 0:
        return {}
    if task == "multiclass":
        return {"accuracy": wilson(float((np.floor(values) == labels).mean()), values.size)}
    errors = labels - values
    if task == "regression":
        means = {
            "mae": np.abs(errors),
            "bias": -errors,
            "mape": _relative(errors, labels),
            "quantile_loss": _pinball(errors, quantile),
        }
        return {name: _of_mean(each) for name, each in means.items()}
    plain = binary_scores(values, labels)
    found = {
        "auc": (plain.auc_low, plain.auc_high),
        "gini": (2 * plain.auc_low - 1, 2 * plain.auc_high - 1),
        "brier": _of_mean(np.square(errors)),
    }
    said = values >= threshold
    measured = _confusion(said, labels == 1.0)
    sizes = (values.size, int(np.count_nonzero(said)), int(np.count_nonzero(labels == 1.0)))
    return found | {
        name: wilson(measured[name], size)
        for name, size in zip(_SHARES, sizes, strict=True)
        if math.isfinite(measured[name])
    }


def _of_mean(parts: Floats) -> Interval:
    if parts.size < 2:
        return -math.inf, math.inf
    reach = normal_quantile(0.975) * float(parts.std(ddof=1)) / math.sqrt(parts.size)
    return float(parts.mean()) - reach, float(parts.mean()) + reach


def _jackknifed(
    estimate: Callable[[Bools], Values], found: Mapping[str, float], *, rows: int
) -> dict[str, Interval]:
    """Intervals from estimates that leave out one stretch of rows each."""
    if rows < _LEAST_ROWS:
        return dict.fromkeys(found, (-math.inf, math.inf))
    group = np.arange(rows) * GROUPS // rows
    parts = [estimate(group != each) for each in range(GROUPS)]
    intervals = {}
    for name, value in found.items():
        without = np.array([part[name] for part in parts])
        error = math.sqrt((GROUPS - 1) / GROUPS * float(np.square(without - without.mean()).sum()))
        reach = normal_quantile(0.975) * error
        intervals[name] = (value - reach, value + reach) if math.isfinite(reach) else (-math.inf, math.inf)
    return intervals


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
