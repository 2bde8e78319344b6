from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from predis import __version__
from predis.access import Caller
from predis.access.keys import LOCAL
from predis.clock import ManualClock
from predis.errors import EndpointNotFound, InvalidRequest, ModelFailure, NotReady, VersionNotFound
from predis.metrics import Metrics, collected
from predis.registry.signature import Field
from predis.serving import describe
from predis.serving.batching import BatchPolicy
from predis.serving.plane import Plane
from predis.serving.protocol import decode_request
from tests.serving.helpers import (
    LIMITS,
    ONE,
    FakeRuntime,
    applied,
    body,
    call,
    ready_plane,
    served,
    signature,
    tensor,
)

OTHER = Caller("other", "o", "client")


@pytest.fixture
def plane(clock: ManualClock) -> Plane:
    return ready_plane(
        clock,
        applied({1: 0.2, 2: 0.8, 3: 0.0}),
        applied({}, endpoint="empty"),
        applied({}, endpoint="away", config={"loaded": False}),
        applied({7: 1.0}, tenant="other", endpoint="theirs"),
    )


def test_the_server_names_itself_and_its_extensions() -> None:
    assert describe.server_metadata() == {
        "name": "predis",
        "version": __version__,
        "extensions": [
            "binary_tensor_data",
            "classification",
            "model_configuration",
            "model_repository",
            "statistics",
        ],
    }


class TestReady:
    def test_where_a_request_would_be_answered(self, plane: Plane) -> None:
        assert describe.model_ready(plane, LOCAL, endpoint="e", version=None)
        assert describe.model_ready(plane, LOCAL, endpoint="e", version="3")
        assert not describe.model_ready(plane, LOCAL, endpoint="empty", version=None)
        assert not describe.model_ready(plane, LOCAL, endpoint="away", version=None)

    def test_what_is_not_there(self, plane: Plane) -> None:
        for endpoint, version, error in (
            ("nobody", None, EndpointNotFound),
            ("theirs", None, EndpointNotFound),
            ("e", "9", VersionNotFound),
            ("empty", "1", VersionNotFound),
        ):
            with pytest.raises(error):
                describe.model_ready(plane, LOCAL, endpoint=endpoint, version=version)
        assert describe.model_ready(plane, OTHER, endpoint="theirs", version=None)

    def test_before_the_routes_are_known(self, clock: ManualClock) -> None:
        plane = ready_plane(clock)
        plane.following = False
        with pytest.raises(NotReady):
            describe.model_ready(plane, LOCAL, endpoint="e", version=None)


class TestMetadata:
    def test_is_of_the_version_with_most_weight(self, plane: Plane) -> None:
        assert describe.model_metadata(plane, LOCAL, endpoint="e", version=None) == {
            "name": "e",
            "versions": ["1", "2"],
            "platform": "predis_lightgbm",
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
            "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1]}],
            "parameters": {"model": "m", "version": "2"},
        }

    def test_or_of_the_one_asked_for(self, plane: Plane) -> None:
        found = describe.model_metadata(plane, LOCAL, endpoint="e", version="3")
        assert (found["parameters"]["version"], found["versions"]) == ("3", ["1", "2"])

    @pytest.mark.parametrize("tell", [describe.model_metadata, describe.model_config])
    def test_what_is_not_there(self, plane: Plane, tell: Any) -> None:
        for endpoint, version, error, says in (
            ("nobody", None, EndpointNotFound, "no endpoint 'nobody'"),
            ("e", "9", VersionNotFound, "it serves 1, 2, 3"),
            ("empty", None, NotReady, "has no version yet"),
            ("away", None, NotReady, "is unloaded"),
        ):
            with pytest.raises(error, match=says):
                tell(plane, LOCAL, endpoint=endpoint, version=version)


def test_the_configuration(clock: ManualClock) -> None:
    wanted = signature(
        Field("n", "INT64", nullable=True),
        Field("image", "FP32", (-1, 3, 4)),
        Field("text", "BYTES"),
        outputs=(Field("p", "FP32", (-1, 2)),),
    )
    version = served(4, FakeRuntime(wanted, lambda f: [f[:, :2]]))
    config: dict[str, Any] = {"batching": {"rows": 64}, "cache": {"store": "memory"}}
    plane = ready_plane(
        clock, applied({4: 1.0, 2: 0.0}, [version], config=config), policy=BatchPolicy(rows=9)
    )
    assert describe.model_config(plane, LOCAL, endpoint="e", version=None) == {
        "name": "e",
        "platform": "predis_lightgbm",
        "backend": "lightgbm",
        "version_policy": {"specific": {"versions": [2, 4]}},
        "max_batch_size": 64,
        "input": [
            {"name": "n", "data_type": "TYPE_INT64", "dims": [1]},
            {"name": "image", "data_type": "TYPE_FP32", "dims": [3, 4]},
            {"name": "text", "data_type": "TYPE_STRING", "dims": [1]},
        ],
        "output": [{"name": "p", "data_type": "TYPE_FP32", "dims": [2]}],
        "dynamic_batching": {"max_queue_delay_microseconds": 0},
        "response_cache": {"enable": True},
    }
    plane.apply(applied({4: 1.0}, [version]))
    found = describe.model_config(plane, LOCAL, endpoint="e", version="4")
    assert (found["max_batch_size"], found["response_cache"]) == (9, {"enable": False})


class TestIndex:
    def test_every_version_of_every_endpoint_of_the_tenant(self, plane: Plane) -> None:
        assert describe.index(plane, LOCAL) == [
            {"name": "away", "version": "", "state": "UNAVAILABLE", "reason": "unloaded"},
            {"name": "e", "version": "1", "state": "READY", "reason": ""},
            {"name": "e", "version": "2", "state": "READY", "reason": ""},
            {"name": "e", "version": "3", "state": "READY", "reason": ""},
            {"name": "empty", "version": "", "state": "UNAVAILABLE", "reason": "no version is deployed"},
        ]
        assert [found["name"] for found in describe.index(plane, OTHER)] == ["theirs"]

    def test_only_those_that_are_ready(self, plane: Plane) -> None:
        assert {found["name"] for found in describe.index(plane, LOCAL, ready_only=True)} == {"e"}


class TestStatistics:
    def tell(self, plane: Plane, folder: Path, endpoint: str | None = "e", version: str | None = None) -> Any:
        return describe.statistics(
            plane, LOCAL, endpoint=endpoint, version=version, numbers=collected(folder)
        )["model_stats"]

    def test_of_one_version(self, clock: ManualClock, tmp_path: Path) -> None:
        metrics = Metrics(tmp_path, "serving-0")
        runtime = FakeRuntime(ONE)
        version = served(1, runtime, metrics=metrics)
        plane = ready_plane(clock, applied({1: 1.0}, [version]))

        def ask(*data: float, **more: Any) -> None:
            content = body(tensor("x", "FP64", list(data)), **more)
            asyncio.run(plane.infer(call(decode_request(content, LIMITS))))

        ask(1, 2)
        ask(3)
        with pytest.raises(InvalidRequest):
            ask(1, outputs=[{"name": "none"}])
        runtime.answer = lambda features: []
        with pytest.raises(ModelFailure):
            ask(1)
        (found,) = self.tell(plane, tmp_path)
        stats = found.pop("inference_stats")
        last = found.pop("last_inference")
        assert found == {
            "name": "e",
            "version": "1",
            "inference_count": 3,
            "execution_count": 2,
            "batch_stats": [],
        }
        assert {name: part["count"] for name, part in stats.items()} == {
            "success": 2,
            "fail": 2,
            "queue": 2,
            "compute_infer": 2,
        }
        assert stats["success"]["ns"] > stats["compute_infer"]["ns"] > 0
        assert last > 1_700_000_000_000  # milliseconds
        metrics.close()

    def test_of_all_workers_together(self, clock: ManualClock, tmp_path: Path) -> None:
        workers = [Metrics(tmp_path, f"serving-{number}") for number in range(2)]
        for metrics in workers:
            plane = ready_plane(clock, applied({1: 1.0}, [served(1, metrics=metrics)]))
            asyncio.run(plane.infer(call(decode_request(body(tensor("x", "FP64", [1, 2])), LIMITS))))
        (found,) = self.tell(plane, tmp_path)
        assert (found["inference_count"], found["execution_count"]) == (4, 2)
        for metrics in workers:
            metrics.close()

    def test_of_what_has_not_been_asked_yet(self, plane: Plane, tmp_path: Path) -> None:
        (found,) = self.tell(plane, tmp_path, version="3")
        assert (found["last_inference"], found["inference_count"]) == (0, 0)
        assert found["inference_stats"]["success"] == {"count": 0, "ns": 0}

    def test_of_which(self, plane: Plane, tmp_path: Path) -> None:
        def which(endpoint: str | None, version: str | None = None) -> list[tuple[str, str]]:
            return [(s["name"], s["version"]) for s in self.tell(plane, tmp_path, endpoint, version)]

        assert which("e") == which(None) == [("e", "1"), ("e", "2"), ("e", "3")]
        assert which("e", "2") == [("e", "2")]
        assert which("empty") == []
        for endpoint, version, error in (
            ("nobody", None, EndpointNotFound),
            ("theirs", None, EndpointNotFound),
            ("e", "9", VersionNotFound),
        ):
            with pytest.raises(error):
                which(endpoint, version)
