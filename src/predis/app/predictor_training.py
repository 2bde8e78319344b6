"""The cache's predictor on the platform's retraining workflow: the course of a run, and what it runs in a process of its own.

build      the newest recorded reads, into the artifact store
train      in a process with limits, as any train function: tables, and the simulator's report on reads they have not seen; learned models
           where the setting ``cache_predictor_models`` names some
judge      what the report must show before anything is tried on clients
register   the next version of the model, with where it comes from
rollout    on trial, once no other is; the steward ends the run
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from predis.cache.predictor import recorded
from predis.cache.predictor.steward import Steward
from predis.cache.predictor.versions import FILE, FORMAT, MODEL, MOST_LOADS, TENANT, Versions
from predis.cache.sources.source import Source
from predis.errors import MissingExtra
from predis.retraining.config import RetrainingConfig
from predis.retraining.runs import Renewed, Retrainings
from predis.retraining.store import Run
from predis.retraining.training import TrainedModel, TrainJob
from predis.retraining.workflow import Track
from predis.state import ArtifactStore

COURSE = "(cache)"
"""What stands in the place of an endpoint in runs of the predictor: no endpoint can have that name."""
_TURN_S = 5.0
_LEAST_PRECISION = 0.5
_NEEDS = {
    "boosting": (("lightgbm", "lightgbm"),),
    "lstm": (("torch", "torch"), ("onnxruntime", "onnx")),
}  # package, extra


def train(job: TrainJob) -> TrainedModel:
    """The train function: writes the tables, notes the report and the lineage."""
    from predis.cache.predictor import training  # late: control needs no simulator

    demand(recorded.brief(job.table).models)
    trained = training.train(job.table)
    (job.output / FILE).write_bytes(trained.tables.dump())
    return TrainedModel(FORMAT, FILE, notes={"metrics": trained.metrics, "lineage": trained.lineage})


class PredictorCourse:
    """What a run does, step by step. Each step may be done twice, should the process die before it is on record.

    Args:
        recorded: where the learner writes reads.
        load_s: how long most loads take, as the gateway measured it; None while nobody knows.
        models: learned models that may add to the tables.
    """

    def __init__(
        self,
        recorded: Path,
        artifacts: ArtifactStore,
        *,
        versions: Versions,
        sources: Callable[[], list[Source]],
        load_s: Callable[[], float | None],
        models: Iterable[str] = (),
    ) -> None:
        self._recorded = recorded
        self._artifacts = artifacts
        self._versions = versions
        self._sources = sources
        self._load_s = load_s
        self._models = tuple(models)
        self.steward: Steward | None = None

    def __call__(self, run: Run, track: Track) -> str:
        built = track.at("build", self._build)
        track.note({"detail": {"rows": built["rows"]}})
        config = RetrainingConfig(train=f"{__name__}:{train.__name__}", label="")
        trained = track.at("train", lambda: track.steps.train(run, config, built={"train": built["reads"]}))
        report = trained["notes"]["metrics"]
        track.note({"detail": {"train_seconds": trained["train_seconds"], **report}})
        refused = track.at("judge", lambda: refusal(report))
        if refused:
            track.note({"detail": {"decision": refused}})
            return "rejected"
        number = track.at("register", lambda: self._register(run, trained, reads=built["reads"]))
        track.note({"challenger": number, "detail": {"decision": "good enough to be tried"}})
        while not track.at("rollout", lambda: self._try_out(number, run)):
            track.sleep(_TURN_S)
        return "rolling_out"

    def _build(self) -> dict[str, Any]:
        patterns = [(source.matched.text, source.tenant) for source in self._sources()]
        table = recorded.gather(self._recorded, patterns, delay_s=self._load_s() or 0.0, models=self._models)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return {
            "reads": self._artifacts.put(sink.getvalue().to_pybytes()).digest,
            "rows": table.num_rows,
        }

    def _register(self, run: Run, trained: dict[str, Any], *, reads: str) -> int:
        # The reads are not among what the version keeps: they may name people, and are deleted with the next collection of garbage.
        lineage = {
            **trained["notes"]["lineage"], "retraining": run.id, "trigger": run.trigger, "reads_sha256": reads,
            **({"parent": run.champion} if run.champion else {}),
        }  # fmt: skip
        tables = self._artifacts.read(trained["digest"])
        return self._versions.add(
            tables, metrics=trained["notes"]["metrics"], lineage=lineage, actor="retraining"
        )

    def _try_out(self, number: int, run: Run) -> bool:
        assert self.steward is not None
        return self.steward.try_out(number, run=run.id)


class PlatformTrainings:
    """The workflow's runs, as the steward needs them. ``models``: that they may train."""

    def __init__(self, retrainings: Retrainings, *, models: Iterable[str] = ()) -> None:
        self._retrainings = retrainings
        self._models = tuple(models)

    def begin(self, *, trigger: str, champion: int, actor: str) -> Run:
        demand(self._models)
        return self._retrainings.begin(Renewed(TENANT, COURSE, MODEL, champion), trigger=trigger, actor=actor)

    def newest(self) -> Run | None:
        return self._retrainings.newest(TENANT, COURSE)

    def end(self, run: str, outcome: str, *, why: str) -> None:
        self._retrainings.end(run, outcome, why=why)


def demand(models: Iterable[str]) -> None:
    """Asks for the packages that learned models need.

    Raises:
        MissingExtra: one is not installed.
    """
    for model in models:
        for package, extra in _NEEDS[model]:
            if importlib.util.find_spec(package) is None:
                raise MissingExtra(
                    f"cache_predictor_models names {model}, which needs the package {package!r}; install it with: "
                    f"pip install 'predis[{extra}]', or take {model} out of that setting"
                )


def refusal(report: dict[str, float]) -> str:
    """Why tables with such a report are not tried on clients; empty where they are."""
    if not report["rules"] and not report["followed_keys"]:
        return "nothing follows anything in these reads"
    precision = report.get("precision")
    if precision is None:
        return "it foretold nothing of the newest reads"
    if precision < _LEAST_PRECISION:
        return (
            f"{precision:.0%} of what it would have prefetched was read, {_LEAST_PRECISION:.0%} are demanded"
        )
    if report["loads_to_lru"] > MOST_LOADS:
        return (
            f"it would have loaded {report['loads_to_lru']:.2f} times as much as LRU, {MOST_LOADS} is allowed"
        )
    return ""
