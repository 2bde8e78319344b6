"""One version from an MLflow server to a Predis installation, and one the other way: a client's work, through a temporary folder."""

from __future__ import annotations

import platform
import re
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from predis.client import Client
from predis.errors import InvalidInput, NotFound
from predis.registry.mlflow import flavours
from predis.registry.mlflow.flavours import MLMODEL
from predis.registry.mlflow.tracking import Tracking
from predis.registry.signature import Signature

EXPERIMENT = "predis"
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+|latest)|@(?P<alias>[^/@]+))")
_COMMIT = "mlflow.source.git.commit"
_SYSTEM = "mlflow."  # tags that MLflow sets for itself
_LONGEST_PARAMETER = 1_024


@dataclass(frozen=True)
class Found:
    """A version in MLflow: its registered name and number, where its files are, and what is known of the run that made it."""

    name: str
    version: str
    artifacts: str
    run_id: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]


def import_version(
    client: Client, tracking: Tracking, *, uri: str, name: str = "", **data: Any
) -> dict[str, Any]:
    """Register a version of MLflow's; what the control API says of it.

    Args:
        uri: ``models:/name/3``, ``models:/name@alias`` or ``models:/name/latest``.
        name: the model's name here, where it is another.
        data: as of ``Client.register``: ``reference``, ``holdout``, ``training``, ``label``, ``alias``, ``endorsements``.

    Raises:
        InvalidInput: no such URI; or the model has no flavour that Predis takes.
        NotFound: MLflow has no such version, or not its file.
    """
    found = find(tracking, uri)
    with TemporaryDirectory(prefix="predis-mlflow-") as folder:
        described = Path(folder) / MLMODEL
        tracking.download(found.artifacts, MLMODEL, to=described)
        model = flavours.read(described.read_bytes())
        file = _first(tracking, found.artifacts, names=model.files, folder=Path(folder))
        details = {name: value for name, value in data.items() if value}
        if model.inputs and not details.get("reference"):
            details["inputs"] = [field.to_dict() for field in model.inputs]
        short = {key: value for key, value in found.params.items() if len(value) <= _LONGEST_PARAMETER}
        return client.register(
            name or found.name,
            file,
            format=model.format,
            parameters=short,
            revision=found.tags.get(_COMMIT, ""),
            lineage={"mlflow": _origin(tracking, found, flavour=model.flavour)},
            **details,
        )


def find(tracking: Tracking, uri: str) -> Found:
    """What MLflow knows of a version.

    Raises:
        InvalidInput: it is no such URI.
        NotFound: there is no such version.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise InvalidInput(
            f"{uri!r} is not a version in MLflow: models:/NAME/3, models:/NAME@ALIAS or models:/NAME/latest"
        )
    entry = _entry(tracking, match["name"], version=match["version"], alias=match["alias"])
    name, version, run_id = entry["name"], str(entry["version"]), entry.get("run_id") or ""
    artifacts = tracking.get("model-versions/get-download-uri", name=name, version=version)["artifact_uri"]
    run = _run(tracking, run_id)
    logged = _logged(tracking, entry)
    tags = {**_pairs(run.get("tags")), **_pairs(entry.get("tags"))}
    return Found(
        name,
        version,
        artifacts,
        run_id,
        # Of a metric logged several times before the model, MLflow gives the model the first value; the run has the last.
        metrics={**_newest(logged.get("metrics")), **_newest(run.get("metrics"))},
        params={**_pairs(run.get("params")), **_pairs(logged.get("params"))},
        tags=tags,
    )


def _entry(tracking: Tracking, name: str, *, version: str | None, alias: str | None) -> dict[str, Any]:
    if alias:
        found = tracking.get("registered-models/alias", name=name, alias=alias)
    elif version == "latest":
        named = "name='{}'".format(name.replace("'", "''"))
        newest = tracking.get(
            "model-versions/search", filter=named, order_by="version_number DESC", max_results="1"
        ).get("model_versions")
        if not newest:
            raise NotFound(f"the MLflow server {tracking.uri} has no version of {name!r}")
        return dict(newest[0])
    else:
        found = tracking.get("model-versions/get", name=name, version=version or "")
    return dict(found["model_version"])


def _run(tracking: Tracking, run_id: str) -> dict[str, Any]:
    """What the run says; nothing where there is none any more."""
    if not run_id:
        return {}
    try:
        return dict(tracking.get("runs/get", run_id=run_id)["run"]["data"])
    except NotFound:
        return {}


def _logged(tracking: Tracking, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What MLflow 3 knows of the model itself, apart from its run."""
    source = str(entry.get("source") or "")
    model = entry.get("model_id") or (
        source.removeprefix("models:/") if source.startswith("models:/m-") else ""
    )
    if not model:
        return {}
    try:
        return dict(tracking.get(f"logged-models/{quote(model)}")["model"].get("data", {}))
    except NotFound:
        return {}


def _newest(metrics: Any) -> dict[str, Any]:
    """Of each metric the value of its last step; of a logged model MLflow lists them all."""
    return _pairs(
        sorted(metrics or (), key=lambda entry: (int(entry.get("step", 0)), int(entry.get("timestamp", 0))))
    )


def _pairs(entries: Any) -> dict[str, Any]:
    return {entry["key"]: entry.get("value", "") for entry in entries or ()}


def _first(tracking: Tracking, artifacts: str, *, names: tuple[str, ...], folder: Path) -> Path:
    for name in names:
        try:
            tracking.download(artifacts, name, to=folder / "files" / Path(name).name)
        except NotFound:
            continue
        return folder / "files" / Path(name).name
    raise NotFound(f"MLflow's model has none of the files its MLmodel names: {', '.join(names)}")


def _origin(tracking: Tracking, found: Found, *, flavour: str) -> dict[str, Any]:
    """What is kept of where a version comes from. MLflow's metrics are its word, not measured here: they stay apart from the version's."""
    return {
        "tracking_uri": tracking.uri,
        "model": found.name,
        "version": found.version,
        "run_id": found.run_id,
        "artifacts": found.artifacts,
        "flavour": flavour,
        "metrics": {key: float(value) for key, value in found.metrics.items() if _is_number(value)},
        "tags": {key: value for key, value in found.tags.items() if not key.startswith(_SYSTEM)},
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) != float("inf") and value == value


def export_version(
    client: Client, tracking: Tracking, *, model: str, version: str | int, name: str = ""
) -> dict[str, Any]:
    """Make a version of MLflow's registry of one here, under a run of the experiment ``predis``; what MLflow says of it.

    Raises:
        InvalidInput: the version is of a format, or of files, that no flavour of MLflow loads.
        NotFound: there is no such version.
    """
    found = client.version(model, version)
    if len(found["files"]) != 1:
        raise InvalidInput(
            f"{model}@{found['version']} has {len(found['files'])} files; MLflow's flavours have one"
        )
    file = flavours.file_of(found["format"], found["files"][0]["name"])
    signature = Signature.from_dict(found["signature"])
    texts = flavours.describe(found["format"], file, signature=signature, python=platform.python_version())
    with TemporaryDirectory(prefix="predis-mlflow-") as folder:
        for text, content in texts.items():
            (Path(folder) / text).write_text(content)
        (Path(folder) / file).parent.mkdir(exist_ok=True)
        _unpack(client, found, to=Path(folder) / file)
        if file.startswith("data/"):
            (Path(folder) / "data" / "pickle_module_info.txt").write_text("mlflow.pytorch.pickle_module")
        return _publish(tracking, found, folder=Path(folder), name=name or model)


def _unpack(client: Client, version: Mapping[str, Any], *, to: Path) -> None:
    """The version's one file, by way of its archive."""
    archive = to.parent / "archive.predis"
    client.export_version(version["model"], version["version"], to=archive)
    with tarfile.open(archive) as packed:
        content = packed.extractfile(f"files/{version['files'][0]['digest']}")
        assert content is not None
        with to.open("wb") as target:
            while chunk := content.read(1 << 20):
                target.write(chunk)
    archive.unlink()


def _publish(tracking: Tracking, version: Mapping[str, Any], *, folder: Path, name: str) -> dict[str, Any]:
    """A run, its model and the files of that, then the version in the registry: what is in the registry is whole."""
    label = f"{version['model']}@{version['version']}"
    tags = _tags(version)
    experiment = _experiment(tracking)
    run = tracking.post(
        "runs/create", experiment_id=experiment, run_name=label, start_time=_now_ms(), tags=_entries(tags)
    )["run"]["info"]
    tracking.post("runs/log-batch", run_id=run["run_id"], metrics=_metrics(version), params=_params(version))
    source, artifacts = _place(tracking, run, experiment=experiment, version=version)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        tracking.upload(artifacts, file.relative_to(folder).as_posix(), file=file)
    body = {
        "name": name,
        "source": source,
        "run_id": run["run_id"],
        "tags": _entries(tags),
        "description": f"{label} of Predis",
    }
    if source.startswith("models:/"):
        body["model_id"] = source.removeprefix("models:/")
        tracking.patch(
            f"logged-models/{body['model_id']}", model_id=body["model_id"], status="LOGGED_MODEL_READY"
        )
    try:
        tracking.get("registered-models/get", name=name)
    except NotFound:
        tracking.post("registered-models/create", name=name)
    made = tracking.post("model-versions/create", **body)["model_version"]
    tracking.post("runs/update", run_id=run["run_id"], status="FINISHED", end_time=_now_ms())
    return dict(made)


def _place(
    tracking: Tracking, run: Mapping[str, Any], *, experiment: str, version: Mapping[str, Any]
) -> tuple[str, str]:
    """What the registry will call the model's source, and where its files go: a logged model's, or the run's where MLflow is older."""
    try:
        model = tracking.post(
            "logged-models", experiment_id=experiment, name=version["model"].replace(".", "-"), source_run_id=run["run_id"],
            params=_params(version), tags=_entries(_tags(version)),
        )["model"]["info"]  # fmt: skip
    except NotFound:
        return f"{run['artifact_uri']}/model", f"{run['artifact_uri']}/model"
    return f"models:/{model['model_id']}", str(model["artifact_uri"])


def _experiment(tracking: Tracking) -> str:
    try:
        found = tracking.get("experiments/get-by-name", experiment_name=EXPERIMENT)
        return str(found["experiment"]["experiment_id"])
    except NotFound:
        return str(tracking.post("experiments/create", name=EXPERIMENT)["experiment_id"])


def _tags(version: Mapping[str, Any]) -> dict[str, str]:
    known = version["lineage"].get("mlflow", {}).get("tags", {})
    own = {
        "predis.model": version["model"],
        "predis.version": str(version["version"]),
        "predis.digest": version["digest"],
    }
    revision = version["lineage"].get("revision")
    return {**known, **own, **({_COMMIT: revision} if revision else {})}


def _params(version: Mapping[str, Any]) -> list[dict[str, str]]:
    return _entries(version["lineage"].get("parameters", {}))


def _metrics(version: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those measured here; and MLflow's own, of a version that came from there, where there is none of that name."""
    found = {**version["lineage"].get("mlflow", {}).get("metrics", {}), **version["metrics"]}
    return [{"key": key, "value": value, "timestamp": _now_ms(), "step": 0} for key, value in found.items()]


def _entries(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"key": key, "value": str(value)} for key, value in values.items()]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
