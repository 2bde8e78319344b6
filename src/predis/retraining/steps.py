"""The steps of a retraining run. Each returns a small document that the workflow checkpoints; data goes to the artifact store.

A step may run twice if the process dies before its checkpoint, so each is safe to repeat: data is content-addressed, and registering
and rolling out first look for what an earlier try has left.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from predis.errors import ChangeFrozen, InvalidInput, MissingExtra, ModelFailure, RolloutInProgress
from predis.monitoring.log import PredictionLog, column_of
from predis.monitoring.store import MonitoringStore
from predis.registry import Registration, Registry, Version
from predis.registry.signature import Field
from predis.retraining import judging
from predis.retraining.config import RetrainingConfig
from predis.retraining.store import Run
from predis.retraining.training import TrainJob
from predis.rollout.controller import Order, Rollouts
from predis.serving.endpoints import Endpoints
from predis.settings import Settings
from predis.state import ArtifactStore, Database

log = logging.getLogger(__name__)

_TAIL = 2_000


@dataclass(frozen=True)
class Parts:
    """What a run works with. ``take_in`` reads the journal up to now."""

    database: Database
    artifacts: ArtifactStore
    registry: Registry
    endpoints: Endpoints
    rollouts: Rollouts
    log: PredictionLog
    evidence: MonitoringStore
    take_in: Callable[[], None]


class Steps:
    """What a run does, step by step."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self._parts = parts
        self._settings = settings
        self._trainers: set[subprocess.Popen[bytes]] = set()

    def stop(self) -> None:
        """End the train functions that run now; their steps fail, and are done again by whoever takes the runs up."""
        for trainer in tuple(self._trainers):
            trainer.kill()

    def build(self, run: Run, config: RetrainingConfig) -> dict[str, Any]:
        """The training set: what the champion was trained on, and every labelled prediction since; its newest part held out.

        Raises:
            InvalidInput: too few labelled predictions.
        """
        champion = self._champion(run)
        if config.label in champion.signature.feature_names:
            raise InvalidInput(
                f"the label {config.label!r} is an input of version {champion.number}; nothing is left to learn"
            )
        logged, events = self._labelled(run, champion, label=config.label)
        held = max(1, round(logged.num_rows * config.holdout_share))
        if held < config.least_rows:
            raise InvalidInput(
                f"{logged.num_rows} labelled predictions hold out {held}; "
                f"at least {config.least_rows} are needed to tell which model is better"
            )
        first = logged.num_rows - held
        test, train = logged.slice(first), logged.slice(0, first)
        origin = self._origin(run, champion)
        if origin:
            train = pa.concat_tables([self._earlier(origin, train.schema), train])
        return {
            "train": self._put(train),
            "test": self._put(test),
            "rows": train.num_rows + held,
            "train_rows": train.num_rows,
            "test_rows": held,
            "test_from": str(events[first].as_py()),
            "test_to": str(events[-1].as_py()),
        }

    def validate(self, run: Run, config: RetrainingConfig, *, built: dict[str, Any]) -> dict[str, Any]:
        """Check both parts against the champion's signature before anybody trains on them.

        Raises:
            InvalidInput: a check failed; the message names the column and how many rows broke it.
        """
        champion = self._champion(run)
        for part in ("train", "test"):
            table = self._parts.registry.read_table(built[part])
            _validate(table, champion, label=config.label, part=part)
        return {"validated_columns": len(champion.signature.inputs) + 1}

    def train(self, run: Run, config: RetrainingConfig, *, built: dict[str, Any]) -> dict[str, Any]:
        """Run the user's train function in a process with limits and store the file it makes.

        Raises:
            ModelFailure: the function failed, took too long or returned something else.
        """
        started = time.monotonic()
        folder = self._settings.home / "retraining" / run.id
        output = folder / "output"
        shutil.rmtree(output, ignore_errors=True)  # what a try that was killed has left
        output.mkdir(parents=True)
        table = folder / "train.parquet"
        table.write_bytes(self._parts.artifacts.read(built["train"]))
        result = self._run_trainer(folder, {
            "train": config.train, "label": config.label, "table": str(table), "output": str(output),
            "memory_bytes": self._settings.train_memory_bytes,
        })  # fmt: skip
        stored = self._parts.artifacts.put_file(output / result["file"])
        table.unlink()
        return {
            "format": result["format"], "file": result["file"], "digest": stored.digest, "notes": result["notes"],
            "train_seconds": round(time.monotonic() - started, 2),
        }  # fmt: skip

    def compare(
        self, run: Run, config: RetrainingConfig, *, built: dict[str, Any], trained: dict[str, Any]
    ) -> dict[str, Any]:
        """Champion against challenger on the held-out, newest rows, by a paired test (see ``judging``).

        ``better`` means that the lower 95 % bound of the difference is above the configured margin.
        """
        champion = self._champion(run)
        test = self._parts.registry.read_table(built["test"])
        labels = judging.labels_of(champion, test.column(config.label))
        registry = self._parts.registry
        inputs = _accepting(self._job(config, built).inputs, champion.signature.inputs)
        contents = {trained["file"]: self._parts.artifacts.read(trained["digest"])}
        with (
            registry.open(champion) as old,
            registry.inspect(trained["format"], contents, inputs=inputs) as new,
        ):
            scores = old.score(test), new.score(test)
        return judging.compared(champion, scores, labels=labels, margin=config.margin)

    def register(
        self, run: Run, config: RetrainingConfig, *, built: dict[str, Any], trained: dict[str, Any]
    ) -> int:
        """Register the challenger with where it comes from; the number it has, also when an earlier try registered it."""
        for version in self._parts.registry.versions(run.tenant, run.model):
            if version.lineage.get("retraining") == run.id:
                return version.number
        wanted = Registration(
            inputs=_accepting(self._job(config, built).inputs, self._champion(run).signature.inputs),
            model=run.model,
            format=trained["format"],
            files={trained["file"]: trained["digest"]},
            label=config.label,
            reference=built["train"],
            holdout=built["test"],
            training=built["train"],
            parent=run.champion,
            lineage={
                "retraining": run.id,
                "endpoint": run.endpoint,
                "trigger": run.trigger,
                "train": config.train,
                "notes": trained["notes"],
            },
        )
        return self._parts.registry.register(
            run.tenant, wanted, actor="retraining", alias="challenger"
        ).number

    def rollout(self, run: Run, config: RetrainingConfig, *, challenger: int) -> int | None:
        """Start the challenger's rollout; ``None`` while another rollout holds the endpoint."""
        for rollout in self._parts.rollouts.listed(run.tenant, endpoint=run.endpoint):
            if rollout.candidate == challenger:
                return rollout.id
        plan = {**config.plan, "strategy": config.strategy}
        try:
            return self._parts.rollouts.start(
                run.tenant, run.endpoint, order=Order(challenger, plan), actor="retraining"
            ).id
        except (RolloutInProgress, ChangeFrozen):
            return None

    def config(self, run: Run) -> RetrainingConfig:
        return RetrainingConfig.of(self._parts.endpoints.get(run.tenant, run.endpoint).config, run.endpoint)

    def _champion(self, run: Run) -> Version:
        return self._parts.registry.version(run.tenant, run.model, reference=run.champion)

    def _origin(self, run: Run, version: Version) -> str:
        """The training set that came before this endpoint's log. A retrained version's own holds parts of the log already."""
        while version.lineage.get("retraining") and version.lineage.get("endpoint") == run.endpoint:
            version = self._parts.registry.version(run.tenant, run.model, reference=version.lineage["parent"])
        return str(version.lineage.get("training", ""))

    def _earlier(self, digest: str, schema: pa.Schema) -> pa.Table:
        table = self._parts.registry.read_table(digest)
        missing = sorted(set(schema.names) - set(table.column_names))
        if missing:
            raise InvalidInput(f"the champion's training set has no column {missing[0]!r}")
        try:
            return table.select(schema.names).cast(schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidInput(f"the champion's training set does not fit its signature: {error}") from None

    def _labelled(self, run: Run, champion: Version, *, label: str) -> tuple[pa.Table, pa.ChunkedArray]:
        """Inputs and label of the logged predictions whose label is known, oldest first, each once; and when each was."""
        self._parts.take_in()
        self._parts.log.flush()
        labels = self._parts.evidence.labels_since(run.tenant, run.endpoint)
        inputs = champion.signature.inputs
        table = self._parts.log.table(run.tenant, run.endpoint, columns=inputs).sort_by("event_at")
        keys = list(zip(table.column("id").to_pylist(), table.column("row").to_pylist(), strict=True))
        first = dict(zip(reversed(keys), range(len(keys) - 1, -1, -1), strict=True))
        chosen = sorted(place for key, place in first.items() if key in labels)
        table = table.take(pa.array(chosen, pa.int64()))
        examples = table.select([column_of(field.name) for field in inputs])
        examples = examples.rename_columns([field.name for field in inputs])
        values = judging.label_column(champion, [labels[keys[place]] for place in chosen])
        return examples.append_column(label, values), table.column("event_at")

    def _job(self, config: RetrainingConfig, built: dict[str, Any]) -> TrainJob:
        """The job as the train function saw it, for its inputs."""
        return TrainJob(self._parts.registry.read_table(built["train"]), config.label, Path())

    def _run_trainer(self, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
        path = folder / "job.json"
        path.write_text(json.dumps(job))
        path.with_suffix(".result").unlink(missing_ok=True)
        output = folder / "train.log"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "predis.retraining.trainer", str(path)],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches control only, and a trainer that it killed would be a failure
            )
            self._trainers.add(process)
            try:
                process.wait(self._settings.train_timeout_s)
            except subprocess.TimeoutExpired:
                raise ModelFailure(
                    f"{job['train']} took longer than {self._settings.train_timeout_s:g} s (setting train_timeout_s)"
                ) from None
            finally:
                self._trainers.discard(process)
                process.kill()
                process.wait()
                if process.stdin:
                    process.stdin.close()
        try:
            result: dict[str, Any] = json.loads(path.with_suffix(".result").read_text())
        except FileNotFoundError:
            tail = output.read_bytes()[-_TAIL:].decode("utf-8", "replace").strip().splitlines()
            raise ModelFailure(
                f"{job['train']} died with status {process.returncode}: {tail[-1] if tail else 'it said nothing'}"
            ) from None
        if "error" in result:
            raise ModelFailure(result["error"])
        return result

    def _put(self, table: pa.Table) -> str:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return self._parts.artifacts.put(sink.getvalue().to_pybytes()).digest


def _accepting(inputs: tuple[Field, ...], champion: tuple[Field, ...]) -> tuple[Field, ...]:
    """The challenger's inputs as clients know them from the champion: its datatypes, and open for nulls where its are.

    Clients, and a rollback to the champion, must not notice that the model was renewed.
    """
    known = {field.name: field for field in champion}
    accepted = []
    for field in inputs:
        before = known.get(field.name, field)
        datatype = field.datatype if "BYTES" in (field.datatype, before.datatype) else before.datatype
        accepted.append(replace(field, datatype=datatype, nullable=field.nullable or before.nullable))
    return tuple(accepted)


def _validate(table: pa.Table, champion: Version, *, label: str, part: str) -> None:
    try:
        import pandera.pandas as pandera
    except ImportError:
        raise MissingExtra.of("pandera", "retraining") from None
    known, least = judging.labels_allowed(champion)
    columns = {label: pandera.Column(None, None if known is None else pandera.Check.isin(known))}
    for field in champion.signature.inputs:
        # What serving accepted may be missing or a level never met before; what must not happen is a column that says nothing.
        told = pandera.Check(lambda s: s.notna().any(), error="holds no value at all")
        columns[field.name] = pandera.Column(None, told, nullable=True)
    schema = pandera.DataFrameSchema(
        columns,
        checks=pandera.Check(
            lambda frame: frame[label].nunique() >= least,
            error=f"{label} must hold {judging.words(champion)}",
        ),
    )
    try:
        schema.validate(table.to_pandas(), lazy=True)
    except pandera.errors.SchemaErrors as error:
        raise InvalidInput(
            f"the {part} set of {table.num_rows} rows failed {len(error.failure_cases)} checks; first: {_first(error.failure_cases)}"
        ) from None


def _first(cases: Any) -> str:
    """The first of pandera's failure cases in words; one that names its column before one that is about the whole table."""
    missing = cases[cases["check"] == "column_in_dataframe"]
    if len(missing):
        return f"column {missing.iloc[0]['failure_case']!r} is missing"
    named = cases[cases["column"].notna()]
    if len(named):
        return f"column {named.iloc[0]['column']!r} {named.iloc[0]['check']}"
    return str(cases.iloc[0]["check"])
