"""Endpoints: create, list, show. Moving one to another version is a rollout's work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from predis.access.audit import Audit
from predis.clock import Clock, iso
from predis.errors import AlreadyExists, EndpointNotFound
from predis.registry import Registry
from predis.registry.model import check_name
from predis.serving.route import Route
from predis.serving.store import Endpoint, ServingStore
from predis.state import Database


class Endpoints:
    """The endpoints of all tenants.

    ``checks`` are called with a configuration and the endpoint's name before it is stored, and raise ``InvalidInput`` where it cannot
    be used; ``app`` adds those of the parts above.
    """

    def __init__(self, database: Database, registry: Registry, *, clock: Clock) -> None:
        self._database = database
        self._registry = registry
        self._clock = clock
        self._audit = Audit(database, clock)
        self.store = ServingStore(database)
        self.checks: list[Callable[[Mapping[str, Any], str], None]] = []

    def create(self, tenant: str, name: str, *, model: str, config: dict[str, Any], actor: str) -> Endpoint:
        """A new endpoint for a model, with an empty Route.

        Raises:
            InvalidInput: the name cannot be one.
            ModelNotFound
            AlreadyExists: the name is taken.
        """
        check_name(name, "endpoint")
        self._check(config, name)
        self._registry.versions(tenant, model)
        endpoint = Endpoint(tenant, name, model, 0, config, self._clock.time_ns())
        with self._database.write() as connection:
            if not self.store.add_endpoint(connection, endpoint):
                raise AlreadyExists(f"endpoint {name!r} exists already")
            self._audit.add(
                connection,
                tenant,
                actor=actor,
                action="endpoint.create",
                target=name,
                detail={"model": model},
            )
        return endpoint

    def configure(self, tenant: str, name: str, *, changes: dict[str, Any], actor: str) -> Endpoint:
        """Change an endpoint's configuration: the keys given replace those there."""
        endpoint = self.get(tenant, name)
        with self._database.write() as connection:
            config = {**self.store.config_now(connection, endpoint), **changes}
            self._check(config, name)
            self.store.set_config(connection, endpoint, config=config)
            self._audit.add(
                connection, tenant, actor=actor, action="endpoint.configure", target=name, detail=changes
            )
        return self.get(tenant, name)

    def _check(self, config: dict[str, Any], name: str) -> None:
        for check in self.checks:
            check(config, name)

    def get(self, tenant: str, name: str) -> Endpoint:
        """
        Raises:
            EndpointNotFound
        """
        found = self.store.endpoint(tenant, name)
        if found is None:
            raise EndpointNotFound(f"there is no endpoint {name!r}; `predis endpoint list` shows them")
        return found

    def listed(self, tenant: str) -> list[Endpoint]:
        return self.store.endpoints(tenant)

    def current_route(self, endpoint: Endpoint) -> Route:
        return self.store.route(endpoint.tenant, endpoint.name, number=endpoint.route)

    def to_dict(self, endpoint: Endpoint) -> dict[str, Any]:
        return {
            "name": endpoint.name,
            "model": endpoint.model,
            "route": self.current_route(endpoint).to_dict(),
            "config": endpoint.config,
            "created_at": iso(endpoint.created_at),
        }
