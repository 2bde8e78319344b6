"""What the data plane says of itself: metadata, configuration, index, statistics, in the protocol's own terms and those of its extensions.

Plain dictionaries in the JSON form of the protocol; gRPC makes messages of the same.
"""

from __future__ import annotations

from typing import Any

from predis import __version__
from predis.access import Caller
from predis.metrics import Numbers
from predis.registry.signature import Field
from predis.serving.measures import Totals
from predis.serving.plane import AppliedRoute, Plane
from predis.serving.served import ServedVersion

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")


def server_metadata() -> dict[str, Any]:
    return {"name": "predis", "version": __version__, "extensions": list(EXTENSIONS)}


def model_ready(plane: Plane, caller: Caller, *, endpoint: str, version: str | None) -> bool:
    """Whether a request for this endpoint (and version) would be answered.

    Raises:
        EndpointNotFound, VersionNotFound
    """
    applied = plane.find(caller.tenant, endpoint)
    if version is not None:
        plane.version(applied, version)
    return bool(applied.route.weights)


def model_metadata(plane: Plane, caller: Caller, *, endpoint: str, version: str | None) -> dict[str, Any]:
    """Names, datatypes and shapes, of the version asked for or the one with most weight."""
    applied, served = _served(plane, caller, endpoint=endpoint, version=version)
    return {
        "name": endpoint,
        "versions": [str(number) for number in applied.route.answering()],
        "platform": f"predis_{served.version.format}",
        "inputs": [field.to_dict() for field in served.signature.inputs],
        "outputs": [field.to_dict() for field in served.signature.outputs],
        "parameters": {"model": applied.model, "version": str(served.number)},
    }


def model_config(plane: Plane, caller: Caller, *, endpoint: str, version: str | None) -> dict[str, Any]:
    """The configuration as the model configuration extension tells it; shapes there are without the rows."""
    applied, served = _served(plane, caller, endpoint=endpoint, version=version)
    policy = served.batcher.policy
    return {
        "name": endpoint,
        "platform": f"predis_{served.version.format}",
        "backend": served.version.format,
        "version_policy": {"specific": {"versions": sorted(applied.versions)}},
        "max_batch_size": policy.rows,
        "input": [_config_of(field) for field in served.signature.inputs],
        "output": [_config_of(field) for field in served.signature.outputs],
        "dynamic_batching": {"max_queue_delay_microseconds": 0},
        "response_cache": {"enable": applied.config.cache is not None},
    }


def index(plane: Plane, caller: Caller, *, ready_only: bool = False) -> list[dict[str, str]]:
    """Every endpoint of the caller's tenant and each of its versions."""
    found = []
    for applied in plane.endpoints(caller.tenant):
        name = applied.route.endpoint
        found += [
            {"name": name, "version": str(number), "state": "READY", "reason": ""}
            for number in applied.versions
        ]
        if not applied.versions and not ready_only:
            why = applied.problem or ("no version is deployed" if applied.config.loaded else "unloaded")
            found.append({"name": name, "version": "", "state": "UNAVAILABLE", "reason": why})
    return found


def statistics(
    plane: Plane, caller: Caller, *, endpoint: str | None, version: str | None, numbers: Numbers
) -> dict[str, Any]:
    """What one endpoint (or every one) has done on all workers, as the statistics extension tells it. Durations are nanoseconds.

    Args:
        numbers: what the installation's processes have counted.

    Raises:
        EndpointNotFound, VersionNotFound
    """
    if endpoint is None:
        chosen = [served for a in plane.endpoints(caller.tenant) for served in a.versions.values()]
    elif version is not None:
        chosen = [plane.version(plane.find(caller.tenant, endpoint), version)]
    else:
        chosen = list(plane.find(caller.tenant, endpoint).versions.values())
    return {"model_stats": [_statistics(served, caller.tenant, numbers=numbers) for served in chosen]}


def _statistics(served: ServedVersion, tenant: str, *, numbers: Numbers) -> dict[str, Any]:
    totals = Totals(numbers, tenant, endpoint=served.endpoint, version=served.number)
    batches, predict_ns = totals.spent("predis_predict_seconds")
    return {
        "name": served.endpoint,
        "version": str(served.number),
        "last_inference": totals.last_ms(),
        "inference_count": totals.rows(),
        "execution_count": batches,
        "inference_stats": {
            "success": _counted(totals.spent("predis_request_seconds")),
            "fail": _counted((totals.outcome("rejected", "failed", "shed", "deadline"), 0)),
            "queue": _counted(totals.spent("predis_queue_seconds")),
            "compute_infer": _counted((batches, predict_ns)),
        },
        "batch_stats": [],
    }


def _counted(spent: tuple[int, int]) -> dict[str, int]:
    return {"count": spent[0], "ns": spent[1]}


def _served(
    plane: Plane, caller: Caller, *, endpoint: str, version: str | None
) -> tuple[AppliedRoute, ServedVersion]:
    applied = plane.find(caller.tenant, endpoint)
    return applied, plane.version(applied, version)


def _config_of(field: Field) -> dict[str, Any]:
    kind = "STRING" if field.datatype == "BYTES" else field.datatype
    return {"name": field.name, "data_type": f"TYPE_{kind}", "dims": list(field.shape[1:]) or [1]}
