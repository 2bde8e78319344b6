"""Why an endpoint does worse: what is estimated and what was realised, which moved inputs explain it, and in which segment it is worst.

Everything is made from the newest logged predictions of one version, when somebody asks. Moved inputs are judged by what they do to the
answers: one at a time, an input's values are replaced by those of the reference, the model is asked again in a process of its own, and what
changes is the input's contribution (permutation importance, against another distribution instead of the own one).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from predis.errors import InvalidInput
from predis.expressions import Expression, compile_expression
from predis.monitoring.log import PredictionLog, column_of
from predis.monitoring.segments import split
from predis.monitoring.store import MonitoringStore
from predis.registry import Registry, Version
from predis.registry.columns import encode_table, numpy_of
from predis.state.engine import Database
from predis.stats import Calibration, Profile, Task, expected_binary, performance, psi
from predis.stats.loss_model import LossModel

ASSUMPTION = "an estimate: right only if inputs moved and their meaning did not (covariate shift)"
_ROWS = 20_000
_ASKED_ROWS = 2_000
_LEAST_LABELS = 50
_MOST_INPUTS = 10
_SHOWN = 20
_JUDGED = {"binary": "auc", "multiclass": "accuracy", "regression": "mae"}
Matrix = NDArray[np.float64]


class Located(Protocol):
    """Where predictions are asked for."""

    def version_of(self, tenant: str, endpoint: str, *, number: int) -> Version | None: ...


@dataclass(frozen=True)
class _Rows:
    """The newest rows of a version: its inputs as a table and as the profile takes them, scores, labels (NaN: none)."""

    inputs: pa.Table
    features: Matrix
    scores: Matrix
    labels: Matrix


class Diagnosis:
    """Looks into one version of an endpoint.

    Args:
        take_in: brings the log and the labels up to now.
    """

    def __init__(
        self, database: Database, log: PredictionLog, *, registry: Registry, located: Located,
        take_in: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store = MonitoringStore(database)
        self._log = log
        self._registry = registry
        self._located = located
        self._take_in = take_in

    def of(
        self, tenant: str, endpoint: str, *, number: int, segments: Sequence[Expression] = ()
    ) -> dict[str, Any]:
        """``estimate`` (None where the version has no calibration), ``inputs`` by contribution, ``segments`` with the worst first.

        Raises:
            InvalidInput: the version is not known, was registered without a reference, or has answered nothing that was logged.
        """
        version = self._located.version_of(tenant, endpoint, number=number)
        if version is None or not version.profile:
            raise InvalidInput(
                f"version {number} of {endpoint} has no reference to compare with; register it with --reference"
            )
        profile = Profile.from_dict(version.profile)
        self._take_in()
        rows = self._rows(tenant, endpoint, version=version)
        if not len(rows.scores):
            raise InvalidInput(f"no prediction of version {number} of {endpoint} was logged yet")
        task = _task_of(version, rows.labels)
        calibration = version.profile.get("calibration")
        curve = Calibration.from_dict(calibration) if calibration and task == "binary" else None
        key = {"tenant": tenant, "endpoint": endpoint, "version": number}
        chosen = segments or tuple(_input(name) for name in profile.names)
        return {
            "endpoint": endpoint,
            "version": number,
            "task": task,
            "rows": len(rows.scores),
            "labels": int(np.isfinite(rows.labels).sum()),
            "estimate": self._estimate(key, rows, task=task, curve=curve, profile=profile),
            "contribution": "permutation",
            "inputs": self._inputs(version, rows, profile=profile, curve=curve),
            "segments": _segments(chosen, rows, task=task, profile=profile),
        }

    def _rows(self, tenant: str, endpoint: str, *, version: Version) -> _Rows:
        fields = version.signature.inputs
        if any(field.width > 1 or field.raw for field in fields):
            raise InvalidInput("inputs of more than one value a row are not looked into")
        table = self._log.newest(tenant, endpoint, version=version.number, columns=fields, rows=_ROWS)
        inputs = table.select([column_of(field.name) for field in fields]).rename_columns(
            [f.name for f in fields]
        )
        known = self._store.labels_since(tenant, endpoint)
        pairs = zip(table.column("id").to_pylist(), table.column("row").to_pylist(), strict=True)
        labels = np.array([known.get(pair, math.nan) for pair in pairs], np.float64)
        scores = numpy_of(table.column("score").combine_chunks())
        fine = np.isfinite(scores)
        inputs = inputs.filter(pa.array(fine))
        return _Rows(inputs, encode_table(inputs, fields, exact=False), scores[fine], labels[fine])

    def _estimate(
        self, key: Mapping[str, Any], rows: _Rows, *, task: Task, curve: Calibration | None, profile: Profile
    ) -> dict[str, Any] | None:
        if task == "binary" and curve is not None:
            found = expected_binary(rows.scores, curve)
            return {
                "method": "CBPE",
                "assumption": ASSUMPTION,
                **_finite(found),
                "error_so_far": self._realised(key),
            }
        labelled = np.isfinite(rows.labels)
        if task != "regression" or labelled.sum() < _LEAST_LABELS:
            return None
        losses = np.abs(rows.labels - rows.scores)
        model = LossModel(profile.bins, rows.features[labelled], loss=losses[labelled])
        value, low, high = model.expect(rows.features)
        early = np.flatnonzero(labelled)[: int(labelled.sum()) // 2]
        late = np.flatnonzero(labelled)[int(labelled.sum()) // 2 :]
        before = LossModel(profile.bins, rows.features[early], loss=losses[early])
        missed = abs(before.expect(rows.features[late])[0] - float(losses[late].mean()))
        error = {"measure": "mae", "windows": 1, "mean": missed, "worst": missed}
        return {
            "method": "DLE", "assumption": ASSUMPTION, **_finite({"mae": value, "mae_low": low, "mae_high": high}),
            "error_so_far": error,
        }  # fmt: skip

    def _realised(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """How far estimates were from what labels said later, over the windows of the same rows."""
        missed = [
            abs(window["scores"]["estimated_auc"] - window["scores"]["auc"])
            for window in self._store.performance(dict(key))
            if window["scores"].get("estimated_auc") is not None and window["scores"].get("auc") is not None
        ]
        if not missed:
            return None
        return {
            "measure": "auc",
            "windows": len(missed),
            "mean": float(np.mean(missed)),
            "worst": max(missed),
        }

    def _inputs(
        self, version: Version, rows: _Rows, *, profile: Profile, curve: Calibration | None
    ) -> list[dict[str, Any]]:
        """Inputs that moved, by what they do to the answers."""
        moved = []
        for place, (bins, counts) in enumerate(zip(profile.bins, profile.counts, strict=True)):
            moved.append((psi(counts, bins.count(rows.features[:, place])), bins.name))
        moved.sort(reverse=True)
        digest = version.lineage.get("reference")
        reference = self._registry.read_table(str(digest)) if digest else None
        if reference is None:
            return [{"input": name, "psi": value} for value, name in moved[:_MOST_INPUTS]]
        some = rows.inputs.take(_spread(rows.inputs.num_rows, _ASKED_ROWS))
        # Rows of the reference in no order of its own: a fixed shuffle, so that the answer is the same twice.
        drawn = reference.take(np.random.default_rng(0).integers(0, reference.num_rows, some.num_rows))
        found = []
        with self._registry.open(version) as model:
            now = model.score(some)
            for value, name in moved[:_MOST_INPUTS]:
                column = drawn.column(name).cast(some.schema.field(name).type)
                place = some.schema.get_field_index(name)
                then = model.score(some.set_column(place, name, column))
                found.append({"input": name, "psi": value, **_contribution(now, then, curve=curve)})
        return sorted(found, key=lambda each: -abs(each["score_moved"]))


def _contribution(now: Matrix, then: Matrix, *, curve: Calibration | None) -> dict[str, float | None]:
    """What an input's move does: to the mean score, to single scores, and to the expected AUC."""
    both = np.isfinite(now) & np.isfinite(then)
    found: dict[str, float | None] = {
        "score_shift": float((now - then)[both].mean()) if both.any() else None,
        "score_moved": float(np.abs(now - then)[both].mean()) if both.any() else 0.0,
    }
    if curve is not None and both.any():
        expected = [expected_binary(scores[both], curve)["auc"] for scores in (now, then)]
        found["auc_shift"] = expected[0] - expected[1]
    return _finite(found)


def _segments(
    chosen: Sequence[Expression], rows: _Rows, *, task: Task, profile: Profile
) -> list[dict[str, Any]]:
    """Every level of every segment, those first that are worst for certain: by the better end of the interval."""
    columns = {name: rows.inputs.column(name).to_pylist() for name in rows.inputs.column_names}
    bins = {each.name: each for each in profile.bins}
    strange = _strange(rows.features, profile)
    found = []
    for expression in chosen:
        for level, mine in split(expression, columns, bins=bins).items():
            found.append(
                {
                    "segment": expression.text,
                    "level": level,
                    **_measured(rows, mine, task=task),
                    **strange(mine),
                }
            )
    better_end, sign = (f"{_JUDGED[task]}_low", -1) if task == "regression" else (f"{_JUDGED[task]}_high", 1)
    found.sort(key=lambda each: sign * each[better_end] if each.get(better_end) is not None else math.inf)
    return found[: max(_SHOWN, len(chosen))]


def _input(name: str) -> Expression:
    """The segment that an input makes."""
    return compile_expression(f"input[{name!r}]", names=["input.*"])


def _measured(rows: _Rows, mine: NDArray[np.bool_], *, task: Task) -> dict[str, Any]:
    labelled = mine & np.isfinite(rows.labels)
    found: dict[str, Any] = {
        "rows": int(mine.sum()),
        "labels": int(labelled.sum()),
        "score": float(rows.scores[mine].mean()),
    }
    if labelled.sum() >= _LEAST_LABELS:
        name = _JUDGED[task]
        quality = performance(task, rows.scores[labelled], label=rows.labels[labelled])
        found |= _finite({each: quality[each] for each in (name, f"{name}_low", f"{name}_high")})
    return found


def _strange(features: Matrix, profile: Profile) -> Any:
    """Shares of values that are missing, out of the reference's range, and unseen, over the inputs of some rows."""
    places = [bins.place(features[:, at]) for at, bins in enumerate(profile.bins)]

    def shares(mine: NDArray[np.bool_]) -> dict[str, float]:
        missing = outside = unseen = 0
        for bins, place in zip(profile.bins, places, strict=True):
            own = place[mine]
            missing += int(np.count_nonzero(own == bins.size - 1))
            if bins.kind == "categorical":
                unseen += int(np.count_nonzero(own == bins.size - 2))
            else:
                outside += int(np.count_nonzero((own == 0) | (own == bins.size - 2)))
        values = max(1, int(mine.sum()) * len(profile.bins))
        return {"missing": missing / values, "out_of_range": outside / values, "unseen": unseen / values}

    return shares


def _task_of(version: Version, labels: Matrix) -> Task:
    known = labels[np.isfinite(labels)]
    return version.signature.task or ("binary" if np.isin(known, (0.0, 1.0)).all() else "regression")


def _spread(rows: int, most: int) -> Any:
    return np.linspace(0, rows - 1, min(rows, most)).astype(np.int64)


def _finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        name: value if value is not None and math.isfinite(value) else None for name, value in values.items()
    }
