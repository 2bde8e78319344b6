"""The controller: state, Route, alias and audit entry change together or not at all, whoever is killed when."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predis.clock import ManualClock
from predis.errors import (
    AccessDenied,
    AliasNotFound,
    ChangeFrozen,
    Conflict,
    EndpointNotFound,
    IllegalTransition,
    InvalidInput,
    NotFound,
    RolloutInProgress,
    RolloutNotFound,
    VersionNotFound,
)
from predis.events import RolloutEnded, RouteChanged
from predis.monitoring.evidence import EvidenceReader, Side
from predis.rollout import states
from predis.rollout.controller import CHAMPION, Order, Rollouts
from predis.rollout.freezes import Window
from predis.rollout.gathering import Gatherer
from predis.rollout.states import FINAL, State
from predis.rollout.store import Rollout, RolloutStore
from predis.serving.store import ServingStore
from predis.state import Database
from predis.state.records import Arm
from predis.stats import Moments, latency
from tests import toys
from tests.toys import ENDPOINT, MODEL, TENANT, Installation

FAST = {
    "bake_s": 0.0,
    "min_requests": 20,
    "auc_gate": False,
    "score_gate": False,
    "error_margin": 0.1,
    "slow_margin": 0.1,
}


class Crash(Exception):
    """The process dies here."""


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    """An endpoint that answers with version 1; versions 2 and 3 are there."""
    with toys.installed(database, home, clock) as found:
        for column, sign in (("x", 1.0), ("z", 1.0), ("x", -1.0)):
            found.register(column, sign=sign, data=False)
        found.create_endpoint()
        found.deploy(1)
        yield found


only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def state(installation: Installation, rollout: Rollout) -> Rollout:
    return installation.platform.rollouts.get(TENANT, rollout.id)


def tick(installation: Installation, *, beat: bool = True) -> None:
    installation.clock.advance(0.5)
    if beat:
        installation.beat()
    installation.platform.rollouts.tick()


def champion(installation: Installation) -> int | None:
    return installation.platform.registry.aliases(TENANT, MODEL).get(CHAMPION)


def traffic(installation: Installation, count: int = 400, *, candidate: int = 2, **other: Any) -> None:
    """So many predictions of both versions, labelled."""
    table = toys.table(count, seed=int(installation.clock.monotonic_s() * 10))
    installation.observe(table, version=1, arm=Arm.COMPARED)
    installation.observe(table, version=candidate, arm=Arm.COMPARED, **other)


class TestStart:
    @only_sqlite
    def test_the_first_deployment(self, installation: Installation) -> None:
        installation.create_endpoint("fresh")
        rollout = installation.start(2, endpoint="fresh")
        assert (rollout.baseline, rollout.candidate, rollout.state) == (None, 2, State.WARMING)
        assert installation.route("fresh") == {2: 1.0}
        tick(installation)
        assert state(installation, rollout).state == State.PROMOTED

    @only_sqlite
    def test_the_candidate_is_loaded_before_it_is_asked(self, installation: Installation) -> None:
        before = installation.platform.endpoints.get(TENANT, ENDPOINT).route
        rollout = installation.start(2)
        assert (rollout.baseline, rollout.state, rollout.step) == (1, State.WARMING, 0)
        assert installation.route() == {1: 1.0, 2: 0.0}
        assert list(installation.route()) == [1, 2]
        assert rollout.route == before + 1

    @only_sqlite
    def test_by_alias(self, installation: Installation) -> None:
        installation.platform.registry.alias(TENANT, MODEL, alias="next", to=3, actor="test")
        assert installation.start("next").candidate == 3

    @only_sqlite
    def test_refused(self, installation: Installation) -> None:
        before = installation.platform.endpoints.get(TENANT, ENDPOINT).route
        for version, plan, error in (
            (9, {}, VersionNotFound),
            ("nobody", {}, AliasNotFound),
            (1, {}, Conflict),
            (2, {"strategy": "sideways"}, InvalidInput),
            (2, {"pace": 3}, InvalidInput),
        ):
            with pytest.raises(error):
                installation.start(version, **plan)
        with pytest.raises(EndpointNotFound):
            installation.start(2, endpoint="nowhere")
        assert installation.platform.endpoints.get(TENANT, ENDPOINT).route == before
        assert installation.platform.rollouts.listed(TENANT, endpoint=ENDPOINT)[0].candidate == 1

    def test_one_at_a_time(self, installation: Installation) -> None:
        rollout = installation.start(2)
        route = installation.platform.endpoints.get(TENANT, ENDPOINT).route
        with pytest.raises(RolloutInProgress):
            installation.start(3)
        assert installation.platform.endpoints.get(TENANT, ENDPOINT).route == route  # nothing of the second
        assert state(installation, rollout).ended_at is None

    def test_one_at_a_time_however_many_ask_at_once(self, installation: Installation) -> None:
        start, outcomes = threading.Barrier(4), []

        def ask(version: int) -> None:
            start.wait()
            try:
                outcomes.append(installation.start(version).id)
            except RolloutInProgress as error:
                outcomes.append(error.code)

        threads = [threading.Thread(target=ask, args=(2 + place % 2,)) for place in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
        assert outcomes.count("rollout_in_progress") == 3
        active = RolloutStore(installation.platform.database).active()
        assert [r.route for r in active] == [installation.platform.endpoints.get(TENANT, ENDPOINT).route]

    def test_the_baseline_is_what_answers_when_it_begins(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another rollout ends between the look at the Route and the new one: its winner must not be thrown out."""
        real = Rollouts._defaults

        def meanwhile(self: Rollouts, endpoint: Any, baseline: int | None) -> dict[str, Any]:
            monkeypatch.setattr(Rollouts, "_defaults", real)
            installation.deploy(3)
            return real(self, endpoint, baseline)

        monkeypatch.setattr(Rollouts, "_defaults", meanwhile)
        with pytest.raises(Conflict, match="changed meanwhile"):
            installation.start(2)
        assert installation.route() == {3: 1.0}
        assert installation.start(2).baseline == 3

    @only_sqlite
    def test_slow_is_measured_on_the_baseline(self, installation: Installation) -> None:
        assert installation.start(2).plan["slow_s"] == 0.05  # nothing measured yet
        installation.platform.rollouts.wish(TENANT, 2, wish="abort", actor="test")
        tick(installation)
        installation.observe(toys.table(150), version=1, latency_us=100_000)
        assert installation.start(2).plan["slow_s"] == pytest.approx(0.1, rel=0.05)
        installation.platform.rollouts.wish(TENANT, 3, wish="abort", actor="test")
        tick(installation)
        assert installation.start(2, slow_s=0.5).plan["slow_s"] == 0.5

    @only_sqlite
    def test_is_told_and_written_down(self, installation: Installation) -> None:
        told: list[RouteChanged] = []
        installation.platform.bus.subscribe(RouteChanged, told.append)
        rollout = installation.start(2)
        assert [(event.endpoint, event.route) for event in told] == [(ENDPOINT, rollout.route)]
        newest = installation.platform.audit.entries(TENANT)[0]
        assert (newest["action"], newest["target"], newest["actor"]) == ("rollout.start", ENDPOINT, "test")


class TestCanary:
    def test_warm_running_promoted(self, installation: Installation) -> None:
        ended: list[RolloutEnded] = []
        installation.platform.bus.subscribe(RolloutEnded, ended.append)
        rollout = installation.start(2, **FAST, steps=[0.2, 0.6])
        tick(installation, beat=False)  # the worker serves the old Route still
        assert state(installation, rollout).state == State.WARMING
        tick(installation)
        assert (state(installation, rollout).state, installation.route()) == (State.RUNNING, {1: 0.8, 2: 0.2})
        assert champion(installation) == 1
        tick(installation)  # nothing known yet: nothing moves
        assert "0 of 20 requests" in state(installation, rollout).reason
        traffic(installation)
        tick(installation)
        assert (state(installation, rollout).step, installation.route()) == (1, {1: 0.4, 2: 0.6})
        traffic(installation)
        tick(installation)
        found = state(installation, rollout)
        assert (found.state, installation.route()) == (State.PROMOTED, {2: 1.0})
        assert found.ended_at == installation.clock.time_ns()
        assert {v["gate"]: v["verdict"] for v in found.verdicts} == {
            "errors": "pass",
            "latency": "pass",
            "split": "pass",
        }
        assert [(m["state"], m["share"]) for m in found.moves] == [
            ("warming", 0.0),
            ("running", 0.2),
            ("running", 0.6),
            ("promoted", 1.0),
        ]
        assert champion(installation) == 2
        assert [(event.rollout, event.state) for event in ended] == [(rollout.id, "promoted")]
        moves = [
            e["detail"] for e in installation.platform.audit.entries(TENANT) if e["action"] == "rollout.move"
        ]
        assert [(m["from"], m["to"], m["share"]) for m in moves[:3]] == [
            ("running", "promoted", 1.0), ("running", "running", 0.6), ("warming", "running", 0.2),
        ]  # fmt: skip

    @only_sqlite
    def test_what_was_before_does_not_count(self, installation: Installation) -> None:
        """The candidate was terrible yesterday; the gates look at today."""
        for place in range(100):
            payload = toys.record(f"f{place}", version=2, status=toys.Status.FAILED)
            installation.journal.append(payload)
        installation.digest()
        installation.clock.advance(60)
        rollout = installation.start(2, **FAST)
        tick(installation)
        traffic(installation)
        for _ in range(3):
            tick(installation)
        assert state(installation, rollout).state != State.ABORTED

    @only_sqlite
    def test_an_inverted_model_is_turned_back(self, installation: Installation) -> None:
        rollout = installation.start(3, bake_s=0.0, min_requests=20)
        tick(installation)
        for _ in range(6):
            traffic(installation, candidate=3, sign=-1.0)
            tick(installation)
            if state(installation, rollout).ended_at:
                break
        found = state(installation, rollout)
        assert (found.state, installation.route()) == (State.ABORTED, {1: 1.0})
        assert "AUC is surely" in found.reason
        assert champion(installation) == 1

    @only_sqlite
    def test_a_worker_that_is_behind_holds_it_up(self, installation: Installation) -> None:
        rollout = installation.start(2, **FAST)
        installation.beat("serving-0")
        installation.beat("serving-1", behind=1)
        tick(installation, beat=False)
        assert state(installation, rollout).state == State.WARMING
        installation.beat("serving-1")
        tick(installation, beat=False)
        assert state(installation, rollout).state == State.RUNNING

    @only_sqlite
    def test_a_worker_that_is_gone_does_not(self, installation: Installation) -> None:
        rollout = installation.start(2, **FAST)
        installation.beat("serving-1", behind=1)
        installation.clock.advance(6)
        tick(installation)
        assert state(installation, rollout).state == State.RUNNING

    @only_sqlite
    def test_without_workers_it_waits_and_fails_in_the_end(self, installation: Installation) -> None:
        rollout = installation.start(2, **FAST, warm_timeout_s=30.0)
        installation.clock.advance(20)
        tick(installation, beat=False)
        assert state(installation, rollout).state == State.WARMING
        installation.clock.advance(20)
        tick(installation, beat=False)
        assert (state(installation, rollout).state, installation.route()) == (State.FAILED, {1: 1.0})

    @only_sqlite
    def test_no_data_holds(self, installation: Installation) -> None:
        rollout = installation.start(2)
        tick(installation)
        for _ in range(20):
            installation.clock.advance(3_600)
            tick(installation)
        assert (state(installation, rollout).state, state(installation, rollout).step) == (State.RUNNING, 0)
        assert installation.route() == {1: 0.9, 2: 0.1}

    @only_sqlite
    def test_looking_changes_no_route(self, installation: Installation) -> None:
        rollout = installation.start(2)
        tick(installation)
        before = state(installation, rollout)
        for _ in range(5):
            tick(installation)
        after = state(installation, rollout)
        assert (before.route, before.step_at) == (after.route, after.step_at)


class TestTurningBack:
    @only_sqlite
    def test_a_problem_of_a_worker(self, installation: Installation) -> None:
        rollout = installation.start(2)
        installation.beat(problem="the file is not a LightGBM model")
        tick(installation, beat=False)
        found = state(installation, rollout)
        assert (found.state, installation.route()) == (State.FAILED, {1: 1.0})
        assert "not a LightGBM model" in found.reason
        assert champion(installation) == 1

    @only_sqlite
    def test_a_problem_with_the_very_first_version(self, installation: Installation) -> None:
        installation.create_endpoint("fresh")
        rollout = installation.start(2, endpoint="fresh")
        installation.beat(problem="broken")
        tick(installation, beat=False)
        assert (state(installation, rollout).state, installation.route("fresh")) == (State.FAILED, {})

    @only_sqlite
    def test_an_old_problem_is_over(self, installation: Installation) -> None:
        """A worker still tells of the Route before."""
        installation.start(2)
        installation.beat(problem="broken")
        tick(installation, beat=False)
        rollout = installation.start(3, **FAST)
        tick(installation, beat=False)
        assert state(installation, rollout).state == State.WARMING

    @pytest.mark.parametrize("running", [False, True])
    def test_abort(self, installation: Installation, *, running: bool) -> None:
        rollout = installation.start(2)
        if running:
            tick(installation)
            assert installation.route() == {1: 0.9, 2: 0.1}
        wished = installation.platform.rollouts.wish(TENANT, rollout.id, wish="abort", actor="ada")
        assert wished.wish == "abort"
        tick(installation)
        found = state(installation, rollout)
        assert (found.state, installation.route()) == (State.ABORTED, {1: 1.0})
        entry = next(e for e in installation.platform.audit.entries(TENANT) if e["action"] == "rollout.abort")
        assert entry["actor"] == "ada"

    @only_sqlite
    def test_promote(self, installation: Installation) -> None:
        rollout = installation.start(2)
        tick(installation)
        installation.platform.rollouts.wish(TENANT, rollout.id, wish="promote", actor="ada")
        tick(installation, beat=False)
        assert (state(installation, rollout).state, installation.route()) == (State.PROMOTED, {2: 1.0})
        assert champion(installation) == 2

    @only_sqlite
    def test_wishes_for_what_is_not(self, installation: Installation) -> None:
        rollouts = installation.platform.rollouts
        with pytest.raises(RolloutNotFound):
            rollouts.wish(TENANT, 99, wish="abort", actor="test")
        with pytest.raises(RolloutNotFound):
            rollouts.get("elsewhere", 1)
        with pytest.raises(IllegalTransition, match="has ended"):
            rollouts.wish(TENANT, 1, wish="abort", actor="test")


class TestPeople:
    @only_sqlite
    def test_a_yes_of_somebody_else(self, installation: Installation) -> None:
        rollouts = installation.platform.rollouts
        rollout = installation.start(2, **FAST, approve=["start"], four_eyes=True)
        tick(installation)
        assert (state(installation, rollout).state, installation.route()) == (State.WAITING, {1: 1.0, 2: 0.0})
        with pytest.raises(AccessDenied, match="somebody else than test"):
            rollouts.wish(TENANT, rollout.id, wish="approve", actor="test")
        with pytest.raises(AccessDenied):
            rollouts.wish(TENANT, rollout.id, wish="promote", actor="test")
        rollouts.wish(TENANT, rollout.id, wish="approve", actor="ada", note="looked at the backtest")
        tick(installation)
        assert (state(installation, rollout).state, installation.route()) == (State.RUNNING, {1: 0.9, 2: 0.1})
        entry = next(
            e for e in installation.platform.audit.entries(TENANT) if e["action"] == "rollout.approve"
        )
        assert (entry["actor"], entry["detail"]["note"]) == ("ada", "looked at the backtest")

    @only_sqlite
    def test_pause_and_resume_leave_the_route_alone(self, installation: Installation) -> None:
        rollouts = installation.platform.rollouts
        rollout = installation.start(2, **FAST)
        tick(installation)
        before = state(installation, rollout)
        rollouts.wish(TENANT, rollout.id, wish="pause", actor="ada")
        traffic(installation)
        tick(installation)
        paused = state(installation, rollout)
        assert (paused.state, paused.route, paused.share, paused.marks) == (
            State.PAUSED,
            before.route,
            0.1,
            before.marks,
        )
        traffic(installation)
        tick(installation)
        assert state(installation, rollout).state == State.PAUSED
        rollouts.wish(TENANT, rollout.id, wish="resume", actor="ada")
        tick(installation)
        again = state(installation, rollout)
        assert (again.state, again.route, again.marks) == (State.RUNNING, before.route, before.marks)

    @only_sqlite
    def test_what_is_frozen(self, installation: Installation) -> None:
        rollouts = installation.platform.rollouts
        window = rollouts.freezes.add(TENANT, Window(starts_at=0, reason="end of year"), actor="ada")
        with pytest.raises(ChangeFrozen, match="end of year"):
            installation.start(2, **FAST)
        order = Order(2, FAST, override_freeze=True)
        hurried = rollouts.start(TENANT, ENDPOINT, order=order, actor="root")
        tick(installation)
        assert state(installation, hurried).state == State.RUNNING
        rollouts.wish(TENANT, hurried.id, wish="abort", actor="ada")
        tick(installation)
        rollouts.freezes.remove(TENANT, window["id"], actor="ada")
        rollout = installation.start(2, **FAST)
        window = rollouts.freezes.add(TENANT, Window(endpoint=ENDPOINT, starts_at=0), actor="ada")
        tick(installation)
        assert "frozen" in state(installation, rollout).reason
        with pytest.raises(ChangeFrozen):
            rollouts.wish(TENANT, rollout.id, wish="promote", actor="test")
        rollouts.freezes.remove(TENANT, window["id"], actor="ada")
        tick(installation)
        assert state(installation, rollout).state == State.RUNNING


class TestStrategies:
    @only_sqlite
    def test_blue_green_keeps_the_old_side_at_hand(self, installation: Installation) -> None:
        rollout = installation.start(2, strategy="blue-green", keep_s=60.0, min_requests=10)
        tick(installation)
        assert (state(installation, rollout).state, installation.route()) == (State.HOLDING, {1: 0.0, 2: 1.0})
        assert champion(installation) == 1
        installation.observe(toys.table(50), version=2)
        installation.clock.advance(61)
        tick(installation)
        assert (state(installation, rollout).state, installation.route()) == (State.PROMOTED, {2: 1.0})
        assert champion(installation) == 2

    @only_sqlite
    def test_an_error_burst_turns_back_within_a_look(self, installation: Installation) -> None:
        rollout = installation.start(2, strategy="blue-green", keep_s=60.0)
        tick(installation)
        installation.clock.advance(3)
        for place in range(60):
            installation.journal.append(
                toys.record(
                    f"f{place}", version=2, status=toys.Status.FAILED, at=installation.clock.time_ns()
                )
            )
        installation.digest()
        tick(installation)
        found = state(installation, rollout)
        assert (found.state, installation.route()) == (State.ABORTED, {1: 1.0})
        assert "of its requests of the last 2 s failed" in found.reason

    @only_sqlite
    def test_a_shadow_answers_nobody_and_is_taken_off_at_the_end(self, installation: Installation) -> None:
        rollout = installation.start(2, **FAST, strategy="shadow", shadow_share=0.5)
        tick(installation)
        endpoint = installation.platform.endpoints.get(TENANT, ENDPOINT)
        route = installation.platform.endpoints.current_route(endpoint)
        assert (route.shadows, route.answering()) == ({2: 0.5}, (1,))
        table = toys.table(400)
        ids = installation.send(table, version=1)
        installation.copy(ids, table, version=2)
        installation.digest()
        tick(installation)
        found = state(installation, rollout)
        assert (found.state, installation.route()) == (State.CONCLUDED, {1: 1.0})
        assert "400 rows copied" in found.reason
        assert champion(installation) == 1

    @only_sqlite
    def test_a_segment_is_moved_and_taken_off_again(self, installation: Installation) -> None:
        where = "parameter.tier == 'gold'"
        rollout = installation.start(2, strategy="direct", where=where)
        tick(installation)
        assert state(installation, rollout).state == State.PROMOTED
        endpoint = installation.platform.endpoints.get(TENANT, ENDPOINT)
        route = installation.platform.endpoints.current_route(endpoint)
        assert [(s.when, s.weights) for s in route.segments] == [(where, {2: 1.0})]
        assert (route.weights, champion(installation)) == ({1: 1.0}, 1)
        with pytest.raises(Conflict, match="answers with version 2 already"):
            installation.start(2, where=where)
        installation.start(3, **FAST)  # of all others; the segment stays
        with pytest.raises(RolloutInProgress):
            installation.platform.rollouts.drop_segment(TENANT, ENDPOINT, when=where, actor="ada")
        tick(installation)
        running = installation.platform.endpoints.current_route(
            installation.platform.endpoints.get(TENANT, ENDPOINT)
        )
        assert [s.when for s in running.segments] == [where]
        installation.platform.rollouts.wish(TENANT, 3, wish="abort", actor="ada")
        tick(installation)
        with pytest.raises(NotFound):
            installation.platform.rollouts.drop_segment(TENANT, ENDPOINT, when="key == 'x'", actor="ada")
        bare = installation.platform.rollouts.drop_segment(TENANT, ENDPOINT, when=where, actor="ada")
        assert (bare.segments, bare.weights) == ((), {1: 1.0})

    @only_sqlite
    def test_a_crash_of_workers_turns_back(self, installation: Installation) -> None:
        rollout = installation.start(2, **FAST)
        installation.beat("serving-1")
        installation.beat("serving-2")
        tick(installation)
        installation.clock.advance(0.5)
        for name in ("serving-1", "serving-2"):
            installation.beat(name)
        for _ in range(12):
            tick(installation)  # only serving-0 goes on
        found = state(installation, rollout)
        assert (found.state, "2 workers died" in found.reason) == (State.ABORTED, True)

    @only_sqlite
    def test_workers_that_died_long_after_one_another_do_not(self, installation: Installation) -> None:
        rollout = installation.start(2, **FAST)
        tick(installation)
        for name in ("serving-1", "serving-2"):
            installation.beat(name)
            for _ in range(140):
                tick(installation)
        assert state(installation, rollout).state == State.RUNNING


# What ``_apply`` does, in order; a process may die before or after each.
STAGES = (
    (ServingStore, "put_route"),
    (RolloutStore, "move"),
    (toys.Platform, None),  # the commit itself
)


@contextlib.contextmanager
def dying(installation: Installation, owner: type, name: str | None, *, after: bool) -> Iterator[None]:
    """Within this, the process dies at a stage of ``_apply``."""
    with pytest.MonkeyPatch.context() as patch:
        if name is None:
            database, real = installation.platform.database, installation.platform.database.write

            @contextlib.contextmanager
            def write() -> Iterator[Any]:
                with real() as connection:
                    yield connection
                    if not after:
                        raise Crash
                raise Crash

            patch.setattr(database, "write", write)
        else:
            method = getattr(owner, name)

            def dies(*arguments: Any, **named: Any) -> Any:
                if after:
                    method(*arguments, **named)
                raise Crash

            patch.setattr(owner, name, dies)
        yield


def snapshot(installation: Installation, rollout: Rollout) -> tuple[Any, ...]:
    found = state(installation, rollout)
    endpoint = installation.platform.endpoints.get(TENANT, ENDPOINT)
    return (
        found.state, found.step, found.route, endpoint.route, installation.route(), champion(installation),
        len(installation.platform.audit.entries(TENANT)),
    )  # fmt: skip


class TestCrashes:
    @pytest.mark.parametrize(("owner", "name"), STAGES)
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_at_any_stage_of_a_promotion(
        self, installation: Installation, owner: type, name: str | None, *, after: bool
    ) -> None:
        rollout = installation.start(2, strategy="direct")
        installation.beat()
        before = snapshot(installation, rollout)
        with dying(installation, owner, name, after=after), pytest.raises(Crash):
            installation.platform.rollouts.tick()
        committed = name is None and after
        assert (snapshot(installation, rollout) == before) is not committed
        tick(installation)  # whoever comes next goes on from the row
        found = snapshot(installation, rollout)
        assert (found[0], found[4], found[5]) == (State.PROMOTED, {2: 1.0}, 2)
        assert found[2] == found[3] == before[3] + 1  # one Route more, not two
        assert found[6] == before[6] + 2  # one move and one alias

    def test_abort_and_baseline_come_together(self, installation: Installation) -> None:
        rollout = installation.start(2)
        tick(installation)
        installation.platform.rollouts.wish(TENANT, rollout.id, wish="abort", actor="test")
        for owner, name in STAGES[:2]:
            with dying(installation, owner, name, after=True), pytest.raises(Crash):
                installation.platform.rollouts.tick()
            assert state(installation, rollout).state == State.RUNNING
            assert installation.route() == {1: 0.9, 2: 0.1}
        tick(installation)
        assert (state(installation, rollout).state, installation.route()) == (State.ABORTED, {1: 1.0})

    @only_sqlite
    def test_between_decision_and_deed(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rollout = installation.start(2, **FAST)
        installation.beat()

        def dies(*_arguments: Any, **_named: Any) -> None:
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(Rollouts, "_apply", dies)
            with pytest.raises(Crash):
                installation.platform.rollouts.tick()
        assert state(installation, rollout).state == State.WARMING
        tick(installation)
        assert state(installation, rollout).state == State.RUNNING

    def test_two_controls_make_one_move(
        self, installation: Installation, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both have seen the same row; the second to write finds another state there."""
        rollout = installation.start(2, **FAST)
        installation.beat()
        stale = state(installation, rollout)
        tick(installation)
        before = snapshot(installation, rollout)
        monkeypatch.setattr(RolloutStore, "active", lambda _self: [stale])
        with caplog.at_level(logging.INFO, logger="predis.rollout.controller"):
            installation.platform.rollouts.tick()
        assert "another control was quicker" in caplog.text
        assert snapshot(installation, rollout) == before

    @only_sqlite
    def test_one_that_cannot_be_looked_at_does_not_hold_up_the_others(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        installation.create_endpoint("other")
        broken, fine = installation.start(2, **FAST), installation.start(3, endpoint="other")
        real = Gatherer.gather

        def gather(self: Gatherer, rollout: Rollout, *arguments: Any, **named: Any) -> Any:
            if rollout.id == broken.id:
                raise InvalidInput("this one is broken")
            return real(self, rollout, *arguments, **named)

        monkeypatch.setattr(Gatherer, "gather", gather)
        tick(installation)
        assert state(installation, broken).state == State.WARMING
        assert state(installation, fine).state == State.PROMOTED


def random_side(rng: np.random.Generator) -> Side:
    requests = int(rng.integers(0, 3_000))
    failed = int(rng.binomial(requests, rng.choice([0.0, 0.01, 0.3], p=[0.45, 0.45, 0.1])))
    rewards = Moments.of(rng.normal(rng.normal(0, 0.1), 1, 200))
    return Side(
        requests=requests,
        failed=failed,
        latency=latency.count([0.001]) * (requests - failed),
        labels=400,
        rewards=rewards,
    )


PLANS: tuple[dict[str, Any], ...] = (
    FAST, {**FAST, "approve": ["start", "promote"]}, {**FAST, "where": "tenant == 'x'"}, {**FAST, "strategy": "shadow"},
    {**FAST, "strategy": "blue-green", "keep_s": 1.0}, {**FAST, "strategy": "ab", "reward": "label", "max_s": 20.0},
    {**FAST, "strategy": "bandit", "max_s": 20.0}, {"strategy": "direct"},
)  # fmt: skip


def test_a_random_life(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random evidence, wishes, reports of workers and deaths: every move is legal, every Route whole, one rollout at a time."""
    rng = np.random.default_rng(17)
    moved: list[tuple[str, str]] = []
    real_move = RolloutStore.move

    def move(self: RolloutStore, connection: Any, rollout: Rollout, *, target: str, values: Any) -> None:
        real_move(self, connection, rollout, target=target, values=values)
        moved.append((rollout.state, target))

    def sides(*_arguments: Any, **_named: Any) -> tuple[Side, Side]:
        return random_side(rng), random_side(rng)

    monkeypatch.setattr(RolloutStore, "move", move)
    monkeypatch.setattr(EvidenceReader, "sides", sides)
    ended: dict[int, Rollout] = {}
    for _step in range(250):
        rollouts = installation.platform.rollouts
        action = rng.choice(["start", "wish", "tick", "die"], p=[0.15, 0.1, 0.55, 0.2])
        with contextlib.suppress(Conflict, Crash):
            if action == "start":
                installation.start(int(rng.integers(1, 4)), **PLANS[rng.integers(len(PLANS))])
            elif action == "wish":
                wanted = str(rng.choice(sorted(states.WISHES)))
                rollouts.wish(
                    TENANT, int(rng.integers(1, 1 + len(rollouts.listed(TENANT)))), wish=wanted, actor="t"
                )
            else:
                problem = "broken" if rng.random() < 0.1 else ""
                installation.clock.advance(float(rng.choice([0.1, 5.0])))
                installation.beat(behind=int(rng.random() < 0.2), problem=problem)
                owner, name = STAGES[rng.integers(len(STAGES))]
                with (
                    dying(installation, owner, name, after=bool(rng.integers(2)))
                    if action == "die"
                    else contextlib.nullcontext()
                ):
                    rollouts.tick()
        active = RolloutStore(installation.platform.database).active()
        endpoint = installation.platform.endpoints.get(TENANT, ENDPOINT)
        assert len(active) <= 1
        assert [r.route for r in active] in ([], [endpoint.route])
        assert sum(installation.route().values()) == pytest.approx(1.0)
        for rollout in rollouts.listed(TENANT):
            assert (rollout.state in FINAL) == (rollout.ended_at is not None)
            assert ended.get(rollout.id, rollout) == rollout  # what has ended stays as it is
            if rollout.ended_at is not None:
                ended[rollout.id] = rollout
        everybody = (r for r in rollouts.listed(TENANT) if r.state == State.PROMOTED and not r.plan["where"])
        newest = next(everybody, None)
        assert newest is not None
        assert champion(installation) == newest.candidate
    for source, target in moved:
        states.check(source, target)
    assert {State.PROMOTED, State.ABORTED, State.WAITING, State.HOLDING} <= {target for _, target in moved}
    assert len(ended) > 3
