"""The predictor's versions come and go on evidence, and every step is on record."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predis.cache.foretelling import FOLDER
from predis.cache.predictor import habits, standing
from predis.cache.predictor.export import AccessExport
from predis.cache.predictor.gain import Tally
from predis.cache.predictor.steward import Steward
from predis.cache.predictor.tables import Tables
from predis.cache.predictor.versions import MODEL, TENANT
from predis.cache.ring_reader import EVENT
from predis.clock import ManualClock
from predis.errors import Conflict, InvalidInput, VersionNotFound
from predis.retraining.workflow import Workflow
from predis.rollout.controller import Order
from predis.state import Database
from tests import toys
from tests.toys import Installation

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def installation(
    database: Database, home: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """The workflow engine is left out; what it would do is the test's to say."""
    monkeypatch.setattr(Workflow, "launch", lambda _self: None)
    monkeypatch.setattr(Workflow, "start", lambda _self, _run: None)
    (home / "cache" / FOLDER).mkdir(parents=True)
    with toys.installed(database, home, clock) as found:
        yield found


@pytest.fixture
def steward(installation: Installation) -> Steward:
    return installation.platform.steward


def _folder(installation: Installation) -> Path:
    return installation.settings.home / "cache" / FOLDER


def _registered(steward: Steward, name: bytes) -> int:
    tables = Tables(followers={b"a": (name,)})
    return steward._versions.add(
        tables.dump(), metrics={"miss_ratio": 0.2}, lineage={"kinds": {"user:{}": 100}}, actor="test"
    )


def _tell(installation: Installation, **versions: Tally) -> None:
    """A worker tells what it has counted in all."""
    status = {
        "at": time.time(), "began": 1.0, "hold_back": 0.1, "dropped": {}, "rules": [],
        "versions": {name[1:]: tally.to_dict() for name, tally in versions.items()},
    }  # fmt: skip
    (_folder(installation) / "status-0.json").write_text(json.dumps(status))


def _good(foretold: int = 10_000, gain: float = 0.9) -> Tally:
    held = foretold // 10
    return Tally(given=foretold - held, used=foretold - held, held=held, missed=round(held * gain))


def _promoted(installation: Installation, name: bytes) -> int:
    steward = installation.platform.steward
    number = _registered(steward, name)
    assert steward.try_out(number, run="")
    steward.promote(actor="ada")
    return number


def _decisions(steward: Steward) -> list[tuple[str, int]]:
    return [(one["decision"], one["version"]) for one in steward.shown()["decisions"]]


def test_a_version_is_tried_and_takes_over_once_it_has_shown_its_worth(
    installation: Installation, steward: Steward
) -> None:
    first = _registered(steward, b"first")
    assert steward.try_out(first, run="")
    assert steward.try_out(first, run=""), "asked again after a crash"
    in_use = standing.read(_folder(installation))
    assert (in_use.champion, in_use.candidate, in_use.share) == (0, first, 0.5)
    _tell(installation, v1=_good(100))
    steward.tick()
    assert steward.listed()[0]["state"] == "on trial"
    _tell(installation, v1=_good())
    steward.tick()
    assert steward.listed()[0]["state"] == "in use"
    assert installation.platform.registry.aliases(TENANT, MODEL) == {"champion": first}
    in_use = standing.read(_folder(installation))
    assert (in_use.champion, in_use.candidate, in_use.reference) == (first, 0, {"user:{}": 100})
    assert _decisions(steward) == [("promote", first), ("trial", first)]
    audited = [entry["action"] for entry in installation.platform.audit.entries(TENANT)]
    assert {"predictor.trial", "predictor.promote", "model.alias"} <= set(audited)
    shown = steward.shown()["champion"]
    assert (shown["version"], round(shown["gain_at_promotion"], 1)) == (first, 0.9)


def test_a_candidate_that_does_not_pay_is_dropped(installation: Installation, steward: Steward) -> None:
    _promoted(installation, b"first")
    second = _registered(steward, b"second")
    steward.try_out(second, run="")
    assert not steward.try_out(_registered(steward, b"third"), run=""), "one at a time"
    _tell(installation, v1=_good(), v2=_good(gain=0.0))
    steward.tick()
    assert _decisions(steward)[0] == ("drop", second)
    assert standing.read(_folder(installation)).candidate == 0


def test_a_champion_whose_gain_is_gone_goes_back_to_the_one_before(
    installation: Installation, steward: Steward
) -> None:
    first, second = _promoted(installation, b"first"), _promoted(installation, b"second")
    _tell(installation, v2=_good(gain=0.0))
    steward.tick()
    assert _decisions(steward)[0] == ("roll back", second)
    assert standing.read(_folder(installation)).champion == first
    _tell(installation, v2=_good(gain=0.0), v1=_good(gain=0.0))
    steward.tick()
    assert standing.read(_folder(installation)).champion == 0, "and then to none"
    assert installation.platform.registry.aliases(TENANT, MODEL) == {}


def test_people_roll_back_and_promote(installation: Installation, steward: Steward) -> None:
    with pytest.raises(Conflict, match="on trial"):
        steward.promote(actor="ada")
    with pytest.raises(Conflict, match="in use already"):
        steward.rollback(actor="ada")
    first, second = _promoted(installation, b"first"), _promoted(installation, b"second")
    third = _registered(steward, b"third")
    steward.try_out(third, run="")
    assert steward.rollback(actor="ada")["candidate"] is None, "a trial ends first"
    assert steward.rollback(actor="ada")["champion"]["version"] == first
    assert steward.rollback(second, actor="ada")["champion"]["version"] == second
    assert steward.rollback(0, actor="ada")["champion"]["version"] == 0
    with pytest.raises(VersionNotFound):
        steward.rollback(9, actor="ada")
    assert {one["actor"] for one in steward.shown()["decisions"]} == {"ada", "predictor"}


def test_a_damaged_file_is_made_whole_and_a_damaged_artifact_is_left(
    installation: Installation, steward: Steward, clock: ManualClock
) -> None:
    _promoted(installation, b"first")
    second = _promoted(installation, b"second")
    (file,) = _folder(installation).glob("version-*")
    whole = file.read_bytes()
    file.write_bytes(b"broken")
    clock.advance(31)
    steward.tick()
    assert file.read_bytes() == whole
    file.unlink()
    for stored in installation.settings.home.rglob(hashlib.sha256(whole).hexdigest()):
        stored.chmod(0o600)
        stored.write_bytes(b"broken")
    clock.advance(31)
    steward.tick()
    assert standing.read(_folder(installation)).champion == 1
    decision = steward.shown()["decisions"][0]
    assert (decision["decision"], decision["version"]) == ("roll back", second)
    assert "not to be trusted" in decision["why"]


def test_a_version_is_listed_like_any_model_and_served_by_no_endpoint(
    installation: Installation, steward: Steward
) -> None:
    number = _promoted(installation, b"first")
    registry, endpoints = installation.platform.registry, installation.platform.endpoints
    (model,) = registry.models(TENANT)
    assert model["name"] == MODEL
    assert registry.verify(TENANT, MODEL, reference="champion")["ok"]
    with pytest.raises(Conflict, match="alias 'champion'"):
        registry.garbage.delete(TENANT, MODEL, number=number, actor="ada")
    endpoints.create(TENANT, "wrong", model=MODEL, config={}, actor="ada")
    with pytest.raises(InvalidInput, match="no endpoint serves"):
        installation.platform.rollouts.start(TENANT, "wrong", order=Order(number, {}), actor="ada")


def test_evidence_outlives_a_restart(installation: Installation, steward: Steward) -> None:
    first = _registered(steward, b"first")
    steward.try_out(first, run="")
    _tell(installation, v1=_good(100))
    steward.tick()
    steward._save()
    again = Steward(steward._cache, steward._parts, database=steward._database, clock=steward._clock)
    trial = again.shown()["candidate"]
    assert (trial["version"], trial["candidate"]["given"]) == (first, 90)
    again.tick()
    assert again.shown()["candidate"]["candidate"]["given"] == 90, "not counted twice"


def test_evidence_that_is_lost_is_gathered_anew(
    installation: Installation, steward: Steward, caplog: pytest.LogCaptureFixture
) -> None:
    first = _registered(steward, b"first")
    steward.try_out(first, run="")
    (_folder(installation) / "steward.json").write_text("{")
    again = Steward(steward._cache, steward._parts, database=steward._database, clock=steward._clock)
    assert "gathered anew" in caplog.text
    _tell(installation, v1=_good())
    again.tick()
    assert _decisions(again) == [("promote", first)]


# -- training --------------------------------------------------------------------------------------------------------------


def _record(installation: Installation, rows: int = 5_000, *, age_s: float = 0.0) -> None:
    """Reads that the learner recorded, as of the test's clock."""
    folder = installation.settings.home / "cache" / "accesses"
    events = np.zeros(rows, EVENT)
    with AccessExport(folder) as export:
        export.take("0", events)
    at_ns = installation.clock.time_ns() - int(age_s * 1e9)
    for path in folder.glob("*.parquet"):
        os.utime(path, ns=(at_ns, at_ns))


def _run(installation: Installation) -> Any:
    return installation.platform.retrainings.newest(TENANT, "(cache)")


def test_the_first_version_is_trained_once_reads_are_recorded(
    installation: Installation, steward: Steward
) -> None:
    steward.tick()
    assert _run(installation) is None
    _record(installation)
    steward.tick()
    run = _run(installation)
    assert (run.trigger, run.model, run.champion, run.state) == ("first", MODEL, 0, "running")
    steward.tick()
    assert _run(installation).id == run.id
    assert installation.platform.retrainings.listed(TENANT)[0]["endpoint"] == "(cache)"
    with pytest.raises(Conflict, match="retrained already"):
        steward.train(actor="ada")


def test_it_is_trained_anew_when_it_is_old_or_habits_have_drifted(
    installation: Installation, steward: Steward, clock: ManualClock
) -> None:
    _record(installation)
    steward.tick()
    number = _registered(steward, b"first")
    installation.platform.retrainings._steps_done(_run(installation).id, "rolling_out")
    steward.try_out(number, run=_run(installation).id)
    steward.promote(actor="ada")
    assert _run(installation).state == "promoted"
    clock.advance(2 * 3_600)
    _record(installation)
    steward.tick()
    assert _run(installation).ended_at, "neither"
    (_folder(installation) / habits.FILE).write_text(
        json.dumps({"version": number, "drifted": True, "moved": []})
    )
    steward.tick()
    assert (_run(installation).trigger, _run(installation).champion) == ("drift", number)
    installation.platform.retrainings._steps_done(_run(installation).id, "failed")
    (_folder(installation) / habits.FILE).unlink()
    clock.advance(25 * 3_600)
    steward.tick()
    assert _run(installation).ended_at, "nothing was read since"
    _record(installation)
    steward.tick()
    assert _run(installation).trigger == "time"


def test_a_version_that_lost_its_gain_has_another_trained(
    installation: Installation, steward: Steward, clock: ManualClock
) -> None:
    _record(installation)
    steward.tick()
    installation.platform.retrainings.end(_run(installation).id, "rejected", why="a test")
    for name in (b"first", b"second"):
        clock.advance(3_600)
        number = _promoted(installation, name)
    clock.advance(1)
    _record(installation)
    _tell(installation, **{f"v{number}": _good(gain=0.0)})
    steward.tick()
    assert (_run(installation).trigger, _run(installation).champion) == ("gain", 1)


def test_a_run_whose_trial_has_ended_ends(installation: Installation, steward: Steward) -> None:
    """Control was killed between the end of the trial and that of the run."""
    _record(installation)
    steward.tick()
    run = _run(installation)
    number = _registered(steward, b"first")
    steward.try_out(number, run="")
    installation.platform.retrainings._steps_done(run.id, "rolling_out")
    installation.platform.retrainings._store.note(run.id, challenger=number)
    steward.tick()
    assert _run(installation).ended_at is None
    assert steward._records.trial.run == run.id
    steward._records.trial.run = ""
    steward.promote(actor="ada")
    steward.tick()
    assert _run(installation).state == "promoted"


def test_what_stands_against_training_is_shown(
    installation: Installation, steward: Steward, monkeypatch: pytest.MonkeyPatch
) -> None:
    from predis.errors import MissingExtra

    def missing(_self: Workflow) -> None:
        raise MissingExtra.of("dbos", "retraining")

    monkeypatch.setattr(Workflow, "launch", missing)
    _record(installation)
    steward.tick()
    assert "retraining" in steward.shown()["problem"]
