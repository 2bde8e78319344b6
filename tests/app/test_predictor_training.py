"""The cache's predictor on the platform's workflow, from recorded reads to a trial."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from predis.app.predictor_training import COURSE, refusal
from predis.cache.foretelling import FOLDER
from predis.cache.predictor import standing
from predis.cache.predictor.gain import Tally
from predis.cache.predictor.standing import Watcher
from predis.cache.predictor.versions import FILE, MODEL, TENANT
from predis.clock import ManualClock
from predis.state import Database
from tests import toys
from tests.cache.predictor.test_training import PATTERNS, record
from tests.toys import Installation

GOOD = {"rules": 1.0, "followed_keys": 0.0, "precision": 0.9, "loads_to_lru": 1.0}


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock, allow_code=True) as found:
        for number, (text, _) in enumerate(PATTERNS):
            document = {"pattern": text, "kind": "python", "function": "json:loads"}
            found.platform.sources.add(TENANT, f"s{number}", document=document, actor="test", replace=False)
        yield found


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (GOOD, ""),
        ({**GOOD, "rules": 0.0}, "nothing follows anything"),
        ({**GOOD, "precision": 0.2}, "20%"),
        ({**GOOD, "loads_to_lru": 1.4}, "1.40 times"),
        ({name: value for name, value in GOOD.items() if name != "precision"}, "foretold nothing"),
    ],
)
def test_what_the_report_must_show(report: dict[str, float], said: str) -> None:
    assert said in refusal(report)
    assert bool(refusal(report)) == bool(said)


def _ended(installation: Installation) -> str:
    """The state of the newest run once its steps are done."""
    deadline = time.monotonic() + 120
    while True:
        run = installation.platform.retrainings.newest(TENANT, COURSE)
        assert run is not None
        if run.state != "running":
            return run.state
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_from_recorded_reads_to_a_version_in_use(installation: Installation) -> None:
    platform, cache = installation.platform, installation.settings.home / "cache"
    record(cache / "accesses")
    at = platform.clock.time_ns()
    for path in (cache / "accesses").iterdir():
        os.utime(path, ns=(at, at))
    platform.steward.tick()
    assert _ended(installation) == "rolling_out"
    run = platform.retrainings.newest(TENANT, COURSE)
    assert run is not None
    assert (run.trigger, run.step, run.challenger) == ("first", "rollout", 1)
    assert run.detail["rules"] == 1.0
    version = platform.registry.version(TENANT, MODEL, reference="challenger")
    assert version.metrics["miss_ratio"] < version.metrics["lru_miss_ratio"]
    assert version.lineage["retraining"] == run.id
    assert platform.registry.verify(TENANT, MODEL, reference=1)["ok"]
    assert [file.name for file in version.files] == [FILE]
    arms = Watcher(cache / FOLDER).look()
    assert arms is not None
    assert arms.candidate is not None
    assert [str(one.rule) for one in arms.candidate.tables.rules] == ["session:{a} -> prefs:{a}"]
    good = Tally(given=9_000, used=9_000, held=1_000, missed=900)
    status = {
        "at": time.time(), "began": 1.0, "hold_back": 0.1, "dropped": {}, "rules": [], "versions": {"1": good.to_dict()},
    }  # fmt: skip
    (cache / FOLDER / "status-0.json").write_text(json.dumps(status))
    platform.steward.tick()
    assert standing.read(cache / FOLDER).champion == 1
    run = platform.retrainings.newest(TENANT, COURSE)
    assert run is not None
    assert run.state == "promoted"


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_reads_that_show_nothing_make_no_version(installation: Installation) -> None:
    platform = installation.platform
    for number, _ in enumerate(PATTERNS):
        platform.sources.remove(TENANT, f"s{number}", actor="test")
    record(installation.settings.home / "cache" / "accesses")
    platform.steward.train(actor="ada")
    assert _ended(installation) == "failed"
    run = platform.steward.shown()["training"]
    assert "of keys that a source has" in run["detail"]["error"]
    assert platform.steward.listed() == []
