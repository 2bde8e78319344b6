"""Retraining runs: who starts one and when, and one from its start to its promotion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predis.clock import ManualClock
from predis.errors import (
    Conflict,
    EndpointNotFound,
    InvalidInput,
    MissingExtra,
    RetrainingNotFound,
    Unavailable,
)
from predis.events import AlertRaised, RetrainingEnded
from predis.retraining.store import RetrainingStore
from predis.retraining.workflow import Workflow
from predis.rollout.states import State
from predis.state import Database
from predis.state.records import Arm
from tests import toys
from tests.toys import ENDPOINT, LABEL, MODEL, TENANT, Installation

ROOT = Path(__file__).parents[2]
COOLDOWN_S = 100.0
CONFIG = {"train": "toy_model:train", "label": LABEL, "least_rows": 20, "holdout_share": 0.25}


class Started(list[str]):
    """The runs that the workflow engine was asked to carry."""


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock, retrain_cooldown_s=COOLDOWN_S) as found:
        found.register()
        found.create_endpoint(retraining=CONFIG)
        found.deploy(1)
        yield found


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """The workflow engine is left out; what it would do is the test's to say."""
    found = Started()
    monkeypatch.setattr(Workflow, "launch", lambda _self: None)
    monkeypatch.setattr(Workflow, "start", lambda _self, run: found.append(run))
    return found


def alert(installation: Installation, kind: str = "performance", **other: Any) -> None:
    given = {
        "tenant": TENANT, "at_ns": installation.clock.time_ns(), "alert": 1, "endpoint": ENDPOINT, "version": 1,
        "severity": "critical", **other,
    }  # fmt: skip
    installation.platform.bus.publish(AlertRaised(kind=kind, **given))


def end(installation: Installation, run: str, outcome: str = "rejected") -> None:
    installation.platform.retrainings._steps_done(run, outcome)


def configure(installation: Installation, **changes: Any) -> None:
    changes = {"retraining": {**CONFIG, **changes}}
    installation.platform.endpoints.configure(TENANT, ENDPOINT, changes=changes, actor="test")


only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class TestStart:
    def test_a_run(self, installation: Installation, started: Started) -> None:
        run = installation.platform.retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="ada")
        assert started == [run.id]
        found = installation.platform.retrainings.get(TENANT, run.id)
        assert (found.state, found.step, found.trigger, found.champion) == ("running", "build", "manual", 1)
        assert (found.model, found.endpoint, found.ended_at) == (MODEL, ENDPOINT, None)
        (entry,) = [
            e for e in installation.platform.audit.entries(TENANT) if e["action"] == "retraining.start"
        ]
        assert (entry["actor"], entry["detail"]["run"]) == ("ada", run.id)
        assert [r["id"] for r in installation.platform.retrainings.listed(TENANT)] == [run.id]
        assert installation.platform.retrainings.listed("elsewhere") == []
        with pytest.raises(RetrainingNotFound):
            installation.platform.retrainings.get("elsewhere", run.id)

    def test_one_at_a_time(self, installation: Installation, started: Started) -> None:
        retrainings = installation.platform.retrainings
        run = retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="test")
        with pytest.raises(Conflict, match="being retrained already"):
            retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="test")
        end(installation, run.id)
        retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="test")
        assert len(started) == 2

    @only_sqlite
    def test_refused(self, installation: Installation, started: Started) -> None:
        retrainings = installation.platform.retrainings
        installation.create_endpoint("plain")
        installation.create_endpoint("idle", retraining=CONFIG)
        installation.platform.endpoints.checks.clear()  # it comes from a release that did not check
        installation.create_endpoint("odd", retraining={"train": "x"})
        for name, error in (
            ("nowhere", EndpointNotFound), ("plain", InvalidInput), ("odd", InvalidInput), ("idle", Conflict),
        ):  # fmt: skip
            with pytest.raises(error):
                retrainings.start(TENANT, name, trigger="manual", actor="test")
        assert started == []
        assert retrainings.listed(TENANT) == []

    def test_the_engine_does_not_take_it(
        self, installation: Installation, started: Started, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_self: Workflow, _run: str) -> None:
            raise Unavailable("there is no room")

        retrainings = installation.platform.retrainings
        with monkeypatch.context() as patch:
            patch.setattr(Workflow, "start", full)
            with pytest.raises(Unavailable):
                retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="test")
        (failed,) = retrainings.listed(TENANT)
        assert (failed["state"], failed["detail"]["error"]) == ("failed", "there is no room")
        run = retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="test")
        assert started == [run.id]

    @only_sqlite
    def test_without_the_engine(self, installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "dbos", None)
        with pytest.raises(MissingExtra, match=r"predis\[retraining\]"):
            installation.platform.retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="test")
        assert installation.platform.retrainings.listed(TENANT) == []


@only_sqlite
def test_a_configuration_is_checked_before_it_is_stored(installation: Installation) -> None:
    with pytest.raises(InvalidInput, match="module:function"):
        installation.create_endpoint("odd", retraining={**CONFIG, "train": "x"})
    with pytest.raises(InvalidInput, match="no 'pace'"):
        configure(installation, pace=1)
    assert installation.platform.endpoints.get(TENANT, ENDPOINT).config == {"retraining": CONFIG}


@only_sqlite
class TestOnAlert:
    def test_starts_one(self, installation: Installation, started: Started) -> None:
        alert(installation)
        (run,) = installation.platform.retrainings.listed(TENANT)
        assert (run["trigger"], started) == ("performance", [run["id"]])

    def test_of_the_kinds_that_the_endpoint_names(self, installation: Installation, started: Started) -> None:
        for kind in ("drift", "errors", "latency", "endpoint_down", "evidence"):
            alert(installation, kind)
        assert started == []
        configure(installation, on=["drift"])
        alert(installation, "performance")
        assert started == []
        alert(installation, "drift", severity="info")
        assert len(started) == 1

    def test_not_while_one_is_under_way(self, installation: Installation, started: Started) -> None:
        alert(installation)
        installation.clock.advance(10 * COOLDOWN_S)
        alert(installation)
        installation.platform.retrainings._store.note(started[0], state="rolling_out")
        alert(installation)
        assert len(started) == 1

    def test_not_until_it_has_cooled_down(self, installation: Installation, started: Started) -> None:
        alert(installation)
        installation.clock.advance(5)
        end(installation, started[0])
        for _ in range(3):
            installation.clock.advance(COOLDOWN_S / 4)
            alert(installation)
        assert len(started) == 1
        installation.clock.advance(COOLDOWN_S / 2)
        alert(installation)
        assert len(started) == 2

    def test_a_person_need_not_wait(self, installation: Installation, started: Started) -> None:
        alert(installation)
        end(installation, started[0])
        installation.platform.retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="ada")
        assert len(started) == 2

    def test_endpoints_cool_down_apart(self, installation: Installation, started: Started) -> None:
        installation.create_endpoint("second", retraining=CONFIG)
        installation.deploy(1, endpoint="second")
        alert(installation)
        alert(installation, endpoint="second")
        assert len(started) == 2

    def test_an_alert_that_lasts_asks_again(self, installation: Installation, started: Started) -> None:
        """It is raised once; that the renewed model was no better must not be the last word."""
        for seed in (3, 4):
            installation.observe(toys.table(200, seed=seed, driver="z"), version=1)
        assert len(started) == 1
        end(installation, started[0])
        installation.platform.retrainings.tick()
        assert len(started) == 1
        installation.clock.advance(2 * COOLDOWN_S)
        installation.platform.retrainings.tick()
        assert len(started) == 2
        installation.platform.retrainings.tick()
        assert len(started) == 2

    @pytest.mark.parametrize("config", [None, {"train": "x", "label": ""}, {**CONFIG, "pace": 1}])
    def test_a_configuration_that_cannot_be_used_harms_nobody_else(
        self, installation: Installation, started: Started, config: Any
    ) -> None:
        installation.create_endpoint("odd")
        endpoints = installation.platform.endpoints
        with installation.platform.database.write() as connection:  # as another release may have stored it
            endpoints.store.set_config(
                connection, endpoints.get(TENANT, "odd"), config={"retraining": config}
            )
        installation.create_endpoint("second", retraining=CONFIG)
        for name in ("odd", "second"):
            installation.deploy(1, endpoint=name)
        for seed in (3, 4):
            table = toys.table(200, seed=seed, driver="z")
            for name in ("odd", "second"):
                installation.label(installation.send(table, version=1, endpoint=name), table, endpoint=name)
            installation.digest()
        end(installation, started[0])
        installation.clock.advance(2 * COOLDOWN_S)
        installation.platform.retrainings.tick()
        runs = installation.platform.retrainings.listed(TENANT)
        assert [run["endpoint"] for run in runs] == ["second", "second"]

    def test_an_endpoint_that_is_not_there(self, installation: Installation, started: Started) -> None:
        alert(installation, endpoint="nowhere")
        assert started == []


class TestEnd:
    @pytest.mark.parametrize(
        ("wish", "state", "outcome"),
        [
            ("promote", State.PROMOTED, "promoted"),
            ("abort", State.ABORTED, "rejected"),
            ("", State.FAILED, "failed"),
        ],
    )
    def test_with_its_rollout(
        self, installation: Installation, started: Started, *, wish: str, state: str, outcome: str
    ) -> None:
        ended: list[RetrainingEnded] = []
        installation.platform.bus.subscribe(RetrainingEnded, ended.append)
        retrainings = installation.platform.retrainings
        run = retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="test")
        installation.register("z", data=False)
        rollout = installation.start(2)
        retrainings._store.note(run.id, rollout=rollout.id, challenger=2)
        retrainings._steps_done(run.id, "rolling_out")
        retrainings.tick()
        assert retrainings.get(TENANT, run.id).state == "rolling_out"
        if wish:
            installation.platform.rollouts.wish(TENANT, rollout.id, wish=wish, actor="test")
        installation.beat(problem="" if wish else "broken")
        installation.platform.rollouts.tick()
        assert installation.platform.rollouts.get(TENANT, rollout.id).state == state
        for _ in range(2):
            retrainings.tick()
        found = retrainings.get(TENANT, run.id)
        assert (found.state, found.ended_at) == (outcome, installation.clock.time_ns())
        assert found.detail["rollout_reason"]
        assert [(event.run, event.outcome) for event in ended] == [(run.id, outcome)]

    @only_sqlite
    @pytest.mark.parametrize("outcome", ["rejected", "failed"])
    def test_without_a_rollout(self, installation: Installation, started: Started, outcome: str) -> None:
        run = installation.platform.retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="test")
        end(installation, run.id, outcome)
        found = installation.platform.retrainings.get(TENANT, run.id)
        assert (found.state, found.ended_at) == (outcome, installation.clock.time_ns())


def test_resume_takes_up_what_runs(installation: Installation, started: Started) -> None:
    retrainings = installation.platform.retrainings
    retrainings.resume()
    assert started == []
    run = retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="test")
    retrainings.resume()
    assert started == [run.id, run.id]
    retrainings._steps_done(run.id, "rolling_out")
    retrainings.resume()
    assert len(started) == 2


# -- the whole of it ------------------------------------------------------------------------------------------------------


def broken_relation(installation: Installation) -> None:
    """The label hangs on ``z`` now; version 1 goes by ``x``."""
    for seed in range(30, 34):
        installation.clock.advance(1)
        installation.observe(toys.table(200, seed=seed, driver="z"), version=1)


@pytest.mark.slow
@only_sqlite
def test_from_the_alert_to_the_promotion(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    configure(
        installation, train="toy_model:train_z", plan={"bake_s": 0.0, "min_requests": 20, "min_labels": 20}
    )
    retrainings = installation.platform.retrainings
    broken_relation(installation)
    (run,) = retrainings.listed(TENANT)
    assert run["trigger"] == "performance"
    deadline = time.monotonic() + 60
    while retrainings.get(TENANT, run["id"]).state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = retrainings.get(TENANT, run["id"])
    assert (found.state, found.step, found.challenger) == ("rolling_out", "rollout", 2), found.detail
    assert found.detail["decision"] == "better"
    assert found.detail["test_rows"] + found.detail["train_rows"] == found.detail["rows"] >= 2_400
    assert installation.platform.registry.aliases(TENANT, MODEL) == {"champion": 1, "challenger": 2}
    for seed in range(50, 70):
        installation.clock.advance(1)
        installation.beat()
        installation.platform.rollouts.tick()
        retrainings.tick()
        if retrainings.get(TENANT, run["id"]).ended_at:
            break
        table = toys.table(200, seed=seed, driver="z")
        installation.observe(table, version=1, arm=Arm.COMPARED)
        installation.observe(table, version=2, column="z", arm=Arm.COMPARED)
    assert retrainings.get(TENANT, run["id"]).state == "promoted"
    assert installation.route() == {2: 1.0}
    assert installation.platform.registry.aliases(TENANT, MODEL)["champion"] == 2


def runs(pid: int) -> bool:
    """Whether a process that is not our child still does something. (One that nobody waits for stays as a zombie.)"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
@only_sqlite
def test_a_control_killed_while_it_trains(
    installation: Installation, database: Database, tmp_path: Path
) -> None:
    """SIGKILL in the middle of the train step; the next process goes on there, and one challenger comes out."""
    configure(installation, train="toy_model:waits_for_a_sign", strategy="direct", on=["manual"])
    broken_relation(installation)
    with pytest.MonkeyPatch.context() as patch:  # the run is written down, and nobody works on it yet
        patch.setattr(Workflow, "launch", lambda _self: None)
        patch.setattr(Workflow, "start", lambda _self, _run: None)
        run = installation.platform.retrainings.start(TENANT, ENDPOINT, trigger="manual", actor="test")
    home = installation.settings.home
    command = [
        sys.executable,
        str(Path(__file__).with_name("control_process.py")),
        str(home),
        database.url,
        run.id,
    ]
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "TOY_SIGNS": str(tmp_path)}

    store, processes = RetrainingStore(database), []
    try:
        processes.append(subprocess.Popen(command, env=environment))
        while not (begun := list(tmp_path.glob("begun-*"))):
            assert processes[0].poll() is None
            time.sleep(0.02)
        found = store.run(run.id)
        assert found is not None
        assert (found.state, found.step) == ("running", "train")
        os.kill(processes[0].pid, signal.SIGKILL)
        processes[0].wait()
        while runs(int(begun[0].name.removeprefix("begun-"))):
            time.sleep(0.02)  # its trainer ends because it is gone
        (tmp_path / "go").touch()
        processes.append(subprocess.Popen(command, env=environment))
        assert processes[1].wait(60) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len(list(tmp_path.glob("begun-*"))) == 2
    found = store.run(run.id)
    assert found is not None
    assert (found.state, found.challenger) == ("promoted", 2), found.detail
    versions = installation.platform.registry.versions(TENANT, MODEL)
    assert [v.number for v in versions if v.lineage.get("retraining") == run.id] == [2]
    assert len(versions) == 2
    assert installation.route() == {2: 1.0}
    rollouts = installation.platform.rollouts.listed(TENANT, endpoint=ENDPOINT)
    assert [r.candidate for r in rollouts] == [2, 1]
