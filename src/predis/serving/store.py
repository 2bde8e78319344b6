"""The rows of serving: endpoints, their Routes, and the workers that follow them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from predis.serving.route import Route, Segment, Split, Weights
from predis.state.engine import Database
from predis.state.schema import endpoints, routes, workers


@dataclass(frozen=True)
class Endpoint:
    """The name clients call. ``route`` is the number of its current Route, 0 before the first."""

    tenant: str
    name: str
    model: str
    route: int
    config: dict[str, Any]
    created_at: int


@dataclass(frozen=True)
class Worker:
    """What a worker last said of itself: the Routes it applies, and those it could not and why."""

    id: str
    pid: int
    started_at: int
    seen_at: int
    applied: dict[str, int]
    problems: dict[str, dict[str, Any]]


class ServingStore:
    """Reads and writes endpoints, Routes and workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_endpoint(self, connection: sa.Connection, endpoint: Endpoint) -> bool:
        """``False`` where the name is taken."""
        return bool(connection.execute(self._database.insert_new(endpoints), vars(endpoint)).rowcount)

    def endpoint(self, tenant: str, name: str) -> Endpoint | None:
        with self._database.read() as connection:
            row = connection.execute(sa.select(endpoints).filter_by(tenant=tenant, name=name)).one_or_none()
        return Endpoint(**row._mapping) if row else None

    def endpoints(self, tenant: str | None = None) -> list[Endpoint]:
        """By name; of all tenants where none is given."""
        statement = sa.select(endpoints).order_by(endpoints.c.tenant, endpoints.c.name)
        if tenant is not None:
            statement = statement.filter_by(tenant=tenant)
        with self._database.read() as connection:
            return [Endpoint(**row._mapping) for row in connection.execute(statement)]

    def config_now(self, connection: sa.Connection, endpoint: Endpoint) -> dict[str, Any]:
        """The configuration as it is, held against other writers until the caller's transaction ends."""
        key = {"tenant": endpoint.tenant, "name": endpoint.name}
        config: dict[str, Any] = connection.execute(
            sa.select(endpoints.c.config).filter_by(**key).with_for_update()
        ).scalar_one()
        return config

    def set_config(self, connection: sa.Connection, endpoint: Endpoint, *, config: dict[str, Any]) -> None:
        connection.execute(
            endpoints.update().filter_by(tenant=endpoint.tenant, name=endpoint.name).values(config=config)
        )

    def put_route(
        self,
        connection: sa.Connection,
        endpoint: Endpoint,
        *,
        route: Split,
        reason: str,
        at: int,
        actor: str,
    ) -> Route:
        """Make the endpoint's next Route and point the endpoint at it, in the caller's transaction."""
        key = {"tenant": endpoint.tenant, "name": endpoint.name}
        current = connection.execute(
            sa.select(endpoints.c.route).filter_by(**key).with_for_update()
        ).scalar_one()
        number = current + 1
        row = {
            "tenant": endpoint.tenant, "endpoint": endpoint.name, "number": number, **split_to_row(route), "reason": reason,
            "created_at": at, "created_by": actor,
        }  # fmt: skip
        connection.execute(routes.insert(), row)
        connection.execute(endpoints.update().filter_by(**key).values(route=number))
        return Route(endpoint.name, number, reason=reason, created_at=at, **vars(route))

    def route(self, tenant: str, endpoint: str, *, number: int) -> Route:
        """One Route; number 0 is the empty one."""
        if number == 0:
            return Route(endpoint, 0, {})
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(routes).filter_by(tenant=tenant, endpoint=endpoint, number=number)
            ).one()
        split = split_from_row(row._mapping)
        return Route(endpoint, row.number, reason=row.reason, created_at=row.created_at, **vars(split))

    def in_use(self, connection: sa.Connection) -> set[tuple[str, str, int]]:
        """Tenant, model and number of every version that the current Route of an endpoint names."""
        current = sa.and_(
            routes.c.tenant == endpoints.c.tenant,
            routes.c.endpoint == endpoints.c.name,
            routes.c.number == endpoints.c.route,
        )
        rows = connection.execute(sa.select(endpoints.c.model, routes).join(routes, current))
        return {
            (row.tenant, row.model, version)
            for row in rows
            for version in split_from_row(row._mapping).versions()
        }

    def beat(self, worker: Worker) -> None:
        with self._database.write() as connection:
            connection.execute(self._database.upsert(workers), vars(worker))

    def leave(self, worker_id: str) -> None:
        with self._database.write() as connection:
            connection.execute(workers.delete().filter_by(id=worker_id))

    def workers(self) -> list[Worker]:
        with self._database.read() as connection:
            return [
                Worker(**row._mapping)
                for row in connection.execute(sa.select(workers).order_by(workers.c.id))
            ]


def split_to_row(split: Split | Route) -> dict[str, Any]:
    """The columns of a split, as JSON can hold them. Versions are listed, for their order means something and an object's would be lost."""
    return {
        "weights": _listed(split.weights),
        "segments": [[segment.when, _listed(segment.weights)] for segment in split.segments],
        "shadows": _listed(split.shadows),
        "salt": split.salt,
    }


def split_from_row(row: Mapping[Any, Any]) -> Split:
    """The split of these columns.

    Raises:
        InvalidInput: it cannot be used.
    """
    segments = tuple(Segment(when, _weights(shares)) for when, shares in row["segments"])
    return Split(_weights(row["weights"]), segments, _weights(row["shadows"]), row["salt"])


def _listed(weights: Weights) -> list[list[float]]:
    return [[version, share] for version, share in weights.items()]


def _weights(listed: Iterable[Sequence[float]]) -> dict[int, float]:
    return {int(version): float(share) for version, share in listed}
