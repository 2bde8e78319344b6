"""The cache over HTTP: its sources, what is known of it, what its predictor has learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from predis.access import DEFAULT_TENANT, Keys
from predis.access.keys import Caller
from predis.access.routes import Administrator, Operator, Reader
from predis.cache import scheduling
from predis.cache.foretelling import FOLDER, learned, merged
from predis.cache.insight import Insight
from predis.cache.predictor.steward import Steward
from predis.cache.sources.desk import SourceDesk
from predis.errors import AccessDenied


class NewSource(BaseModel):
    """A source: its name, and its fields as ``predis cache source add --fields`` lists them. ``replace``: there may be one already."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=64)
    source: dict[str, Any]
    replace: bool = False


class Trial(BaseModel):
    """A key as clients name it."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=1_024)


def router(desk: SourceDesk) -> APIRouter:
    """Routes under ``/api/v1`` for sources. Only administrators change them: a source makes the server connect to wherever it names."""
    routes = APIRouter(prefix="/cache/sources", tags=["cache"])

    @routes.get("")
    def list_sources(caller: Reader) -> list[dict[str, Any]]:
        """Sources by name, with what waits to be written to each."""
        return desk.listed(caller.tenant)

    @routes.post("", status_code=201)
    def add_source(body: NewSource, caller: Administrator) -> dict[str, Any]:
        """Declare a source; gateways follow within a second."""
        return desk.add(
            caller.tenant, body.name, document=body.source, actor=caller.name, replace=body.replace
        )

    @routes.post("/test")
    def test_source(body: Trial, caller: Operator) -> dict[str, Any]:
        """Ask a key's source for it, past Valkey: what matched, what was asked, how long it took, and the value or the error."""
        return desk.test(caller.tenant, body.key)

    @routes.get("/{name}")
    def show_source(name: str, caller: Operator) -> dict[str, Any]:
        """One source with every field, and the writes that it has not taken."""
        return desk.shown(caller.tenant, name)

    @routes.delete("/{name}", status_code=204)
    def remove_source(name: str, caller: Administrator, discard: bool = False) -> None:
        """End a source; what is in Valkey stays until it expires. ``discard``: drop the writes that wait for it."""
        desk.remove(caller.tenant, name, actor=caller.name, discard=discard)

    @routes.post("/{name}/retry")
    def retry_writes(name: str, caller: Operator) -> dict[str, int]:
        """Try once more what the source refused for good."""
        return {"writes": desk.retry(caller.tenant, name, actor=caller.name)}

    return routes


class Rollback(BaseModel):
    """Where to go back to: the version before if left out, 0 for what the learner finds by itself."""

    model_config = ConfigDict(extra="forbid")

    version: int | None = Field(default=None, ge=0)


def predictor_router(steward: Steward, keys: Keys) -> APIRouter:
    """Routes under ``/api/v1/cache/predictor`` for its versions. There is one predictor: only the tenant ``default`` has a say."""
    routes = APIRouter(prefix="/cache/predictor", tags=["cache"])

    def check(caller: Caller) -> None:
        if keys.exist() and caller.tenant != DEFAULT_TENANT:
            raise AccessDenied(
                "the predictor is of all tenants: its versions are for keys of the tenant default only"
            )

    @routes.get("/versions")
    def list_predictors(caller: Reader) -> dict[str, Any]:
        """Its versions with the simulator's report on each, which is in use and which on trial, and what was decided why."""
        check(caller)
        return {**steward.shown(), "versions": steward.listed()}

    @routes.post("/train", status_code=202)
    def train_predictor(caller: Operator) -> dict[str, Any]:
        """Begin to train a version; it is tried with a share of the keys, and takes over once it has shown its worth."""
        check(caller)
        return steward.train(actor=caller.name)

    @routes.post("/promote")
    def promote_predictor(caller: Operator) -> dict[str, Any]:
        """Let the version on trial take over now."""
        check(caller)
        return steward.promote(actor=caller.name)

    @routes.post("/rollback")
    def roll_back_predictor(body: Rollback, caller: Operator) -> dict[str, Any]:
        """End the trial, where one is under way; else go back to the version before, or to the one named."""
        check(caller)
        return steward.rollback(body.version, actor=caller.name)

    return routes


def insight_router(insight: Insight, keys: Keys, *, folder: Path) -> APIRouter:
    """Routes under ``/api/v1/cache`` that tell how the cache does. The tenant ``default`` sees all keys, another its own.

    Args:
        folder: the cache's folder in the home.
    """
    routes = APIRouter(prefix="/cache", tags=["cache"])

    def own(caller: Caller) -> str | None:
        return caller.tenant if keys.exist() and caller.tenant != DEFAULT_TENANT else None

    @routes.get("/insight")
    def show_insight(caller: Reader) -> dict[str, Any]:
        """Hit rate, latency by source, hot and big keys, shares of prefixes, what-if curves. A tenant sees its own keys."""
        return insight.shown(own(caller))

    @routes.get("/hot-keys")
    def show_hot_keys(caller: Reader, limit: int = 20) -> list[dict[str, Any]]:
        """The keys that are read most: ``share`` of the reads at most, ``share_low`` at least."""
        found: list[dict[str, Any]] = insight.shown(own(caller)).get("hot_keys", [])
        return found[: max(0, limit)]

    @routes.get("/what-if")
    def show_what_if(_caller: Reader, memory: str = "2x", policy: str = "lru") -> dict[str, Any]:
        """What another memory (2x, 512MB) or policy (lru, s3-fifo, twoq, arc) would give, in figures and in words."""
        return insight.what_if(memory, policy)

    @routes.get("/predictor")
    def show_predictor(caller: Reader) -> dict[str, Any]:
        """What was learnt, how often it was right and how early, the gain that the hold-back measures, and keys read on a schedule."""
        if own(caller) is not None:
            raise AccessDenied(
                "the predictor is of all tenants: its rules are shown to keys of the tenant default only"
            )
        return {
            **merged(folder).to_dict(),
            "learned": learned(folder),
            "schedules": scheduling.shown(folder / FOLDER),
        }

    return routes
