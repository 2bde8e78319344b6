"""The rows of the cache: sources declared through the API, and the queues of writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from predis.state.engine import Database
from predis.state.schema import cache_drains, cache_sources, cache_writes

Row = dict[str, Any]


class SourceStore:
    """Sources that were declared through the API. Methods that take a connection belong to the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rows(self, tenant: str | None = None) -> list[Row]:
        """By tenant and name; of every tenant, unless one is named."""
        statement = sa.select(cache_sources).order_by(cache_sources.c.tenant, cache_sources.c.name)
        if tenant is not None:
            statement = statement.filter_by(tenant=tenant)
        with self._database.read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def put(self, connection: sa.Connection, row: Row) -> None:
        connection.execute(self._database.upsert(cache_sources), row)

    def remove(self, connection: sa.Connection, tenant: str, *, name: str) -> bool:
        """Whether there was one."""
        return bool(connection.execute(cache_sources.delete().filter_by(tenant=tenant, name=name)).rowcount)


class WriteStore:
    """The queues. What was not set aside is in the order of its ``id``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, rows: Sequence[Row]) -> None:
        """Durable on return."""
        with self._database.write() as connection:
            connection.execute(cache_writes.insert(), list(rows))

    def is_empty(self, tenant: str, source: str) -> bool:
        """Whether nothing waits."""
        with self._database.read() as connection:
            return (
                connection.execute(_waiting(cache_writes.c.id, tenant=tenant, source=source).limit(1)).first()
                is None
            )

    def next(self, tenant: str, source: str, *, limit: int, limit_bytes: int = 32 << 20) -> list[Row]:
        """The oldest that wait: at most so many, with values of no more than so many bytes but for the first."""
        c = cache_writes.c
        sized = _waiting(c.id, sa.func.length(c.value).label("size"), tenant=tenant, source=source)
        with self._database.read() as connection:
            last, size = -1, 0
            for row in connection.execute(sized.order_by(c.id).limit(limit)):
                size += row.size
                if last >= 0 and size > limit_bytes:
                    break
                last = row.id
            whole = _waiting(cache_writes, tenant=tenant, source=source).where(c.id <= last).order_by(c.id)
            return [dict(row) for row in connection.execute(whole).mappings()]

    def of_key(self, key: bytes) -> list[Row]:
        """What waits to be written of a key, oldest first, from the last that replaces all of it on."""
        c = cache_writes.c
        waiting = sa.and_(c.key == key, c.set_aside.is_(False))
        last = sa.select(sa.func.max(c.id)).where(waiting, c.kind != "fields").scalar_subquery()
        statement = sa.select(cache_writes).where(waiting, c.id >= sa.func.coalesce(last, 0)).order_by(c.id)
        with self._database.read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def done(self, ids: Sequence[int]) -> None:
        with self._database.write() as connection:
            connection.execute(cache_writes.delete().where(cache_writes.c.id.in_(ids)))

    def failed(self, ids: Sequence[int], values: Row) -> None:
        """Note why these were not taken, and when they are tried again, or that they are not."""
        with self._database.write() as connection:
            connection.execute(cache_writes.update().where(cache_writes.c.id.in_(ids)).values(**values))

    def count(self, connection: sa.Connection, tenant: str, *, source: str) -> int:
        """How many the source has not taken, those that were set aside among them."""
        statement = sa.select(sa.func.count()).select_from(cache_writes)
        return int(connection.execute(statement.filter_by(tenant=tenant, source=source)).scalar_one())

    def discard(self, connection: sa.Connection, tenant: str, *, source: str) -> None:
        connection.execute(cache_writes.delete().filter_by(tenant=tenant, source=source))

    def again(self, tenant: str, source: str) -> int:
        """Try what was set aside once more; how many they are."""
        aside = cache_writes.update().filter_by(tenant=tenant, source=source, set_aside=True)
        with self._database.write() as connection:
            return int(connection.execute(aside.values(set_aside=False, attempts=0, due_at=0)).rowcount)

    def depths(self) -> list[Row]:
        """By source: how many wait, when the oldest was written, how many are set aside."""
        aside = cache_writes.c.set_aside
        statement = sa.select(
            cache_writes.c.tenant,
            cache_writes.c.source,
            sa.func.sum(sa.case((aside, 0), else_=1)).label("waiting"),
            sa.func.min(sa.case((aside, None), else_=cache_writes.c.created_at)).label("oldest"),
            sa.func.sum(sa.case((aside, 1), else_=0)).label("set_aside"),
        ).group_by(cache_writes.c.tenant, cache_writes.c.source)
        with self._database.read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def troubled(self, tenant: str, source: str, *, limit: int) -> list[Row]:
        """Those that the source has not taken so far, newest first; what was set aside before the rest."""
        c = cache_writes.c
        bad = sa.select(cache_writes).where(c.tenant == tenant, c.source == source, c.error != "")
        with self._database.read() as connection:
            found = connection.execute(bad.order_by(c.set_aside.desc(), c.id.desc()).limit(limit)).mappings()
            return [dict(row) for row in found]

    def claim(self, tenant: str, source: str, *, holder: str, now: int, until: int) -> bool:
        """Whether the queue is this worker's to work off, until then: nobody else has it, or whoever had it is not heard of any more."""
        row = {"tenant": tenant, "source": source, "holder": holder, "until": until}
        free = sa.or_(cache_drains.c.until < now, cache_drains.c.holder == holder)
        with self._database.write() as connection:
            if connection.execute(self._database.insert_new(cache_drains), row).rowcount:
                return True
            taken = cache_drains.update().filter_by(tenant=tenant, source=source).where(free)
            return bool(connection.execute(taken.values(holder=holder, until=until)).rowcount)

    def leave(self, holder: str) -> None:
        """Let go of every queue."""
        with self._database.write() as connection:
            connection.execute(cache_drains.delete().filter_by(holder=holder))


def _waiting(*columns: Any, tenant: str, source: str) -> sa.Select[Any]:
    c = cache_writes.c
    return sa.select(*columns).where(c.tenant == tenant, c.source == source, c.set_aside.is_(False))
