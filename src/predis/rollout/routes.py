"""Rollouts and freeze windows over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from predis.access.routes import Operator, Reader
from predis.clock import parse_moment
from predis.rollout.backtest import Backtests
from predis.rollout.backtest.jobs import MOST_ROWS
from predis.rollout.controller import Order, Rollouts
from predis.rollout.freezes import Window


class Deployment(BaseModel):
    """Which version an endpoint is to answer with, and how it gets there. ``plan`` overrides single values of the plan."""

    model_config = ConfigDict(extra="forbid")

    version: str | int
    strategy: str = "canary"
    plan: dict[str, Any] = Field(default_factory=dict)
    override_freeze: bool = False


class Wish(BaseModel):
    """What is to be said of it in the audit log; and, of an administrator, whether a freeze window is to be overridden."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field(default="", max_length=1_000)
    override_freeze: bool = False


class NewFreeze(BaseModel):
    """Moments (RFC 3339, or seconds since the epoch), or a weekly window such as ``fri 16:00-mon 06:00`` in a time zone."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str = Field(default="", max_length=128)
    starts_at: str | float | None = None
    ends_at: str | float | None = None
    weekly: str = Field(default="", max_length=64)
    zone: str = Field(default="UTC", max_length=64)
    reason: str = Field(default="", max_length=1_000)


def router(rollouts: Rollouts) -> APIRouter:
    """Routes under ``/api/v1`` for deployments, rollouts and freeze windows."""
    routes = APIRouter(tags=["rollouts"])

    @routes.post("/endpoints/{name}/deploy", status_code=202)
    def deploy(name: str, body: Deployment, caller: Operator) -> dict[str, Any]:
        """Begin to move an endpoint to a version. Overriding a freeze window needs an administrator."""
        if body.override_freeze:
            caller.require("admin")
        order = Order(body.version, {**body.plan, "strategy": body.strategy}, body.override_freeze)
        return rollouts.start(caller.tenant, name, order=order, actor=caller.name).to_dict()

    @routes.delete("/endpoints/{name}/segments")
    def drop_segment(name: str, when: str, caller: Operator) -> dict[str, Any]:
        """Answer the requests of a segment as all others are."""
        return rollouts.drop_segment(caller.tenant, name, when=when, actor=caller.name).to_dict()

    @routes.get("/rollouts")
    def list_rollouts(caller: Reader, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Rollouts, newest first."""
        return [rollout.to_dict() for rollout in rollouts.listed(caller.tenant, endpoint=endpoint)]

    @routes.get("/rollouts/{rollout}")
    def show_rollout(rollout: int, caller: Reader) -> dict[str, Any]:
        """One rollout with what its gates say and every move it made."""
        return rollouts.get(caller.tenant, rollout).to_dict()

    _add_wishes(routes, rollouts)
    _add_freezes(routes, rollouts)
    return routes


def _add_wishes(routes: APIRouter, rollouts: Rollouts) -> None:
    def ask(rollout: int, wish: str, *, body: Wish | None, caller: Any) -> dict[str, Any]:
        said = body or Wish()
        if said.override_freeze:
            caller.require("admin")
        return rollouts.wish(
            caller.tenant,
            rollout,
            wish=wish,
            actor=caller.name,
            note=said.note,
            override_freeze=said.override_freeze,
        ).to_dict()

    @routes.post("/rollouts/{rollout}/promote", status_code=202)
    def promote(rollout: int, caller: Operator, body: Wish | None = None) -> dict[str, Any]:
        """Give the candidate everything, whatever the gates still wait for."""
        return ask(rollout, "promote", body=body, caller=caller)

    @routes.post("/rollouts/{rollout}/abort", status_code=202)
    def abort(rollout: int, caller: Operator, body: Wish | None = None) -> dict[str, Any]:
        """Put the baseline back."""
        return ask(rollout, "abort", body=body, caller=caller)

    @routes.post("/rollouts/{rollout}/pause", status_code=202)
    def pause(rollout: int, caller: Operator, body: Wish | None = None) -> dict[str, Any]:
        """Leave the shares as they are until somebody resumes. Gates still turn it back."""
        return ask(rollout, "pause", body=body, caller=caller)

    @routes.post("/rollouts/{rollout}/resume", status_code=202)
    def resume(rollout: int, caller: Operator, body: Wish | None = None) -> dict[str, Any]:
        """Go on after a pause; the step bakes anew."""
        return ask(rollout, "resume", body=body, caller=caller)

    @routes.post("/rollouts/{rollout}/approve", status_code=202)
    def approve(rollout: int, caller: Operator, body: Wish | None = None) -> dict[str, Any]:
        """Say yes to the move that the rollout waits for."""
        return ask(rollout, "approve", body=body, caller=caller)

    @routes.post("/rollouts/{rollout}/reject", status_code=202)
    def reject(rollout: int, caller: Operator, body: Wish | None = None) -> dict[str, Any]:
        """Say no to it: the baseline is put back."""
        return ask(rollout, "reject", body=body, caller=caller)


def _add_freezes(routes: APIRouter, rollouts: Rollouts) -> None:
    @routes.get("/freezes")
    def list_freezes(caller: Reader) -> list[dict[str, Any]]:
        """Windows in which rollouts do not go forward, and whether they are open now."""
        return rollouts.freezes.listed(caller.tenant)

    @routes.post("/freezes", status_code=201)
    def add_freeze(body: NewFreeze, caller: Operator) -> dict[str, Any]:
        """A new window. Rollouts still turn back in it, and people may still stop them."""
        moments = {
            name: None if value is None else parse_moment(value, where=name)
            for name, value in (("starts_at", body.starts_at), ("ends_at", body.ends_at))
        }
        window = Window(**{**body.model_dump(), **moments})
        return rollouts.freezes.add(caller.tenant, window, actor=caller.name)

    @routes.delete("/freezes/{freeze}", status_code=204)
    def remove_freeze(freeze: int, caller: Operator) -> None:
        """End a window before its time."""
        rollouts.freezes.remove(caller.tenant, freeze, actor=caller.name)


class BacktestRequest(BaseModel):
    """What to replay: the candidate, against a baseline (the version that answers most, if none is named), over which window.

    ``since`` is a span such as ``7d`` or a moment; of more than ``rows`` logged predictions every n-th is taken.
    """

    model_config = ConfigDict(extra="forbid")

    candidate: str | int
    baseline: str | int | None = None
    since: str = "7d"
    rows: int = Field(default=200_000, ge=1, le=MOST_ROWS)
    threshold: float = Field(default=0.5, allow_inf_nan=False)


def backtest_router(backtests: Backtests) -> APIRouter:
    """Routes under ``/api/v1`` for backtests."""
    routes = APIRouter(tags=["rollouts"])

    @routes.post("/endpoints/{name}/backtests", status_code=202)
    def start_backtest(name: str, body: BacktestRequest, caller: Operator) -> dict[str, Any]:
        """Begin to replay an endpoint's prediction log through a candidate. It goes on whether or not anybody waits."""
        return backtests.start(caller.tenant, name, wanted=body.model_dump(), actor=caller.name).to_dict()

    @routes.get("/backtests")
    def list_backtests(caller: Reader, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Backtests, newest first, without their reports."""
        return [each.to_dict(whole=False) for each in backtests.listed(caller.tenant, endpoint=endpoint)]

    @routes.get("/backtests/{backtest}")
    def show_backtest(backtest: int, caller: Reader) -> dict[str, Any]:
        """One backtest: how far it is, and its report once there is one."""
        return backtests.get(caller.tenant, backtest).to_dict()

    @routes.post("/backtests/{backtest}/cancel", status_code=202)
    def cancel_backtest(backtest: int, caller: Operator) -> dict[str, Any]:
        """End a backtest that runs."""
        return backtests.cancel(caller.tenant, backtest).to_dict()

    return routes
