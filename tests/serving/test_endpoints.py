from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from predis.access.audit import Audit
from predis.clock import ManualClock
from predis.errors import AlreadyExists, EndpointNotFound, InvalidInput, ModelNotFound
from predis.registry import Registry
from predis.registry.model import Registration
from predis.serving.config import check_serving
from predis.serving.endpoints import Endpoints
from predis.serving.route import Route
from predis.serving.store import Endpoint
from predis.state import ArtifactStore, Database
from tests.registries import open_registry
from tests.serving.helpers import booster_text


@pytest.fixture
def registry(database: Database, clock: ManualClock, tmp_path: Path) -> Registry:
    """Has the model ``m``, of both tenants."""
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    registry = open_registry(database, artifacts, clock=clock)
    digest = artifacts.put(booster_text()).digest
    for tenant in ("default", "other"):
        wanted = Registration(model="m", format="lightgbm", files={"model.txt": digest})
        registry.register(tenant, wanted, actor="ada")
    return registry


@pytest.fixture
def endpoints(database: Database, registry: Registry, clock: ManualClock) -> Endpoints:
    return Endpoints(database, registry, clock=clock)


def create(endpoints: Endpoints, name: str = "e", tenant: str = "default", **config: Any) -> Endpoint:
    return endpoints.create(tenant, name, model="m", config=config, actor="ada")


def deeds(database: Database, clock: ManualClock) -> list[tuple[str, str, Any]]:
    found = Audit(database, clock).entries("default")
    return [(d["action"], d["target"], d["detail"]) for d in found if d["action"].startswith("endpoint")]


class TestCreate:
    def test_an_endpoint_starts_with_an_empty_route(self, endpoints: Endpoints, clock: ManualClock) -> None:
        made = create(endpoints, a=1)
        assert made == Endpoint("default", "e", "m", 0, {"a": 1}, clock.time_ns())
        assert endpoints.get("default", "e") == made
        assert endpoints.current_route(made) == Route("e", 0, {})
        assert endpoints.to_dict(made) == {
            "name": "e",
            "model": "m",
            "route": {
                "number": 0,
                "weights": {},
                "segments": [],
                "shadows": {},
                "salt": "",
                "reason": "",
                "created_at": None,
            },
            "config": {"a": 1},
            "created_at": "2023-11-14T22:13:20Z",
        }

    def test_a_name_is_taken_once_in_each_tenant(
        self, endpoints: Endpoints, database: Database, clock: ManualClock
    ) -> None:
        create(endpoints, first=True)
        with pytest.raises(AlreadyExists, match="'e' exists already"):
            create(endpoints, second=True)
        create(endpoints, tenant="other")
        assert endpoints.get("default", "e").config == {"first": True}
        assert deeds(database, clock) == [("endpoint.create", "e", {"model": "m"})]

    def test_by_many_at_once_it_is_made_once(self, endpoints: Endpoints) -> None:
        def attempt(number: int) -> bool:
            try:
                create(endpoints, by=number)
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(attempt, range(6))) == 1

    @pytest.mark.parametrize("name", ["", "A", "a/b", "a b", "-a", "a-", "é", "a\n", "x" * 129, None, 7])
    def test_a_name_that_cannot_stand_in_a_url(self, endpoints: Endpoints, name: Any) -> None:
        with pytest.raises(InvalidInput, match="endpoint's name"):
            create(endpoints, name)

    def test_a_model_that_is_not_there(self, endpoints: Endpoints) -> None:
        with pytest.raises(ModelNotFound):
            endpoints.create("default", "e", model="nothing", config={}, actor="ada")
        with pytest.raises(EndpointNotFound):
            endpoints.get("default", "e")

    def test_listed_by_name_and_tenant(self, endpoints: Endpoints) -> None:
        for name in ("b", "c", "a"):
            create(endpoints, name)
        create(endpoints, "d", tenant="other")
        assert [e.name for e in endpoints.listed("default")] == ["a", "b", "c"]
        assert [e.name for e in endpoints.listed("other")] == ["d"]
        assert endpoints.listed("nobody") == []
        with pytest.raises(EndpointNotFound):
            endpoints.get("default", "d")


class TestConfigure:
    def test_replaces_the_keys_given(
        self, endpoints: Endpoints, database: Database, clock: ManualClock
    ) -> None:
        create(endpoints, a=1, b={"c": 2})
        assert endpoints.configure("default", "e", changes={"b": 3, "d": None}, actor="ada").config == {
            "a": 1,
            "b": 3,
            "d": None,
        }
        assert deeds(database, clock)[0] == ("endpoint.configure", "e", {"b": 3, "d": None})

    def test_of_one_tenant_only(self, endpoints: Endpoints) -> None:
        create(endpoints)
        create(endpoints, tenant="other")
        endpoints.configure("default", "e", changes={"a": 1}, actor="ada")
        assert endpoints.get("other", "e").config == {}
        with pytest.raises(EndpointNotFound):
            endpoints.configure("nobody", "e", changes={"a": 1}, actor="ada")

    def test_at_the_same_time_loses_nothing(self, endpoints: Endpoints) -> None:
        create(endpoints)

        def change(number: int) -> None:
            endpoints.configure("default", "e", changes={f"k{number}": number}, actor="ada")

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(change, range(18)))
        assert endpoints.get("default", "e").config == {f"k{n}": n for n in range(18)}


class TestChecks:
    """What cannot be used is refused before it is stored."""

    def test_at_creation(self, endpoints: Endpoints) -> None:
        endpoints.checks.append(check_serving)
        with pytest.raises(InvalidInput, match=r"endpoint 'e': batching\.rows is a whole number"):
            create(endpoints, batching={"rows": 0})
        assert endpoints.listed("default") == []
        assert create(endpoints, batching={"rows": 5}).config == {"batching": {"rows": 5}}

    def test_at_a_change_of_the_whole_configuration(
        self, endpoints: Endpoints, database: Database, clock: ManualClock
    ) -> None:
        create(endpoints, cache={"ttl_s": 5})
        endpoints.checks.append(check_serving)
        with pytest.raises(InvalidInput, match="endpoint 'e': capture is true or false"):
            endpoints.configure("default", "e", changes={"capture": "no", "cache": None}, actor="ada")
        assert endpoints.get("default", "e").config == {"cache": {"ttl_s": 5}}
        assert [deed for deed, _target, _detail in deeds(database, clock)] == ["endpoint.create"]
