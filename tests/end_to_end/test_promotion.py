"""``predis promote`` between two real installations, as the people of a team run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predis.access import Keys
from predis.app.home import prepare
from predis.client import Client
from predis.clock import SystemClock
from predis.registry.endorsing import Subject, endorse, make_key
from predis.state import Database
from tests.installation import PATIENCE_S, Installation, running, settings_of
from tests.toys import MODEL

pytestmark = pytest.mark.slow

PRIVATE, PUBLIC = make_key()
REQUIRES = ["verify", "signature", "metrics.auc >= 0.7", "alias:approved", "served"]


class Team:
    """Two installations, and a folder with the predis.toml from which versions are promoted."""

    def __init__(self, dev: Installation, staging: Installation, *, key: str, folder: Path) -> None:
        self.dev, self.folder, self._key = dev, folder, key
        self.staging = Client(staging.control, staging.serving, key=key, retry_s=PATIENCE_S)
        (folder / "predis.toml").write_text(
            f'[environments.staging]\ncontrol = "{staging.control}"\nkey_env = "TEAM_STAGING_KEY"\n'
            f"requires = {json.dumps(REQUIRES)}\n"
        )

    def promote(self, *arguments: str, version: str = f"{MODEL}@1") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "predis", "promote", version, "--to", "staging", *arguments],
            env={**os.environ, "PREDIS_CONTROL": self.dev.control, "TEAM_STAGING_KEY": self._key},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def approve(self) -> None:
        """Sign the version and say so, and have both sides trust the key."""
        version = self.dev.client.version(MODEL, 1)
        key, signature = endorse(PRIVATE, Subject(MODEL, version["format"], version["digest"]))
        for side in (self.dev.client, self.staging):
            side.trust_key("release", PUBLIC.decode())
        self.dev.client.sign(MODEL, 1, endorsements={key: signature})
        self.dev.client.alias(MODEL, "approved", version=1)

    def audit(self, side: Client, action: str) -> list[dict[str, Any]]:
        return [entry for entry in side._api("GET", "/audit?limit=1000") if entry["action"] == action]


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    here, there = settings_of(tmp_path / "dev", workers=1), settings_of(tmp_path / "staging", workers=1)
    prepare(there)
    database = Database(there.database_url)
    key = Keys(database, SystemClock()).create("dev team", role="admin")
    database.close()
    with running(here) as dev, running(there) as staging:
        dev.deploy_toy(tmp_path)
        found = Team(dev, staging, key=key, folder=tmp_path)
        yield found
        found.staging.close()


def test_the_identical_version_once_it_meets_the_demands(team: Team) -> None:
    refused = team.promote("--json")
    assert refused.returncode == 1, refused.stderr
    checks = {check["demand"]: check["ok"] for check in json.loads(refused.stdout)["checks"]}
    assert checks == dict(zip(REQUIRES, (True, False, True, False, True), strict=True))
    assert team.staging.models() == []
    shown = team.promote()
    assert shown.returncode == 1
    assert "does not meet signature, alias:approved" in shown.stderr
    assert "no key that is trusted has signed it" in shown.stdout

    team.approve()
    looked = team.promote("--dry-run")
    assert looked.returncode == 0, looked.stderr
    assert "would be moved" in looked.stdout
    assert team.staging.models() == []

    team.staging.require_signatures(True)
    moved = team.promote("--alias", "candidate")
    assert moved.returncode == 0, moved.stderr
    sent, got = team.dev.client.version(MODEL, 1), team.staging.version(MODEL, "candidate")
    assert (got["digest"], got["files"], got["metrics"]) == (sent["digest"], sent["files"], sent["metrics"])
    assert got["lineage"]["origin"]["version"] == 1
    assert team.staging.profile(MODEL, 1) == team.dev.client.profile(MODEL, 1)
    assert [key["name"] for key in got["signed_by"]] == ["release"]

    (left,) = team.audit(team.dev.client, "model.promote")
    assert (left["target"], left["detail"]["to"], left["detail"]["version"]) == (f"{MODEL}@1", "staging", 1)
    (arrived,) = team.audit(team.staging, "model.import")
    assert arrived["actor"] == "dev team"
    assert arrived["detail"] == {"digest": sent["digest"], "from": f"{MODEL}@1", "source": team.dev.control}

    again = team.promote("--alias", "again")
    assert again.returncode == 0, again.stderr
    assert "was there already" in again.stdout
    assert [(row["version"], row["aliases"]) for row in team.staging.versions(MODEL)] == [
        (1, ["again", "candidate"])
    ]


def test_what_the_other_side_demands(team: Team) -> None:
    """It has the last word: a signature by a key that it does not trust is none there."""
    team.approve()
    (key,) = team.staging.trusted_keys()
    team.staging.revoke_trusted_key(key["id"])
    team.staging.require_signatures(True)
    refused = team.promote()
    assert refused.returncode == 1
    assert refused.stderr.rstrip().endswith("[untrusted]")
    assert team.staging.models() == []
    assert team.audit(team.dev.client, "model.promote") == []


def test_an_archive_that_a_person_carries(team: Team, tmp_path: Path) -> None:
    file = tmp_path / "model.predis"
    size = team.dev.client.export_version(MODEL, 1, to=file)
    assert file.stat().st_size == size
    found = team.staging.import_version(file, name="carried", alias="first", trust=True)
    assert (found["model"], found["version"], found["is_new"]) == ("carried", 1, True)
    assert found["digest"] == team.dev.client.version(MODEL, 1)["digest"]
    cut = tmp_path / "cut.predis"
    cut.write_bytes(file.read_bytes()[:-600])
    with pytest.raises(Exception, match="cut short"):
        team.staging.import_version(cut, name="cut")
    assert {row["name"] for row in team.staging.models()} == {"carried"}
