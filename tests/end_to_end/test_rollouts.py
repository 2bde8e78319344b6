"""Every strategy against real workers under load: no request fails but those that the candidate itself fails, and control may die."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from predis.client import Client
from predis.errors import IllegalTransition, PredisError, RolloutInProgress
from tests import toys
from tests.installation import PATIENCE_S, Installation, running, settings_of, wait_for

pytestmark = pytest.mark.slow

WORKERS, SENDERS, PAUSE_S = 2, 6, 0.004
GOOD, TWIN, INVERTED, FAILING, OTHER_SIDE = 1, 2, 3, 4, 5
FAILING_MODEL = "def predict(inputs):\n    raise ValueError('it is broken')\n"
QUICK = {
    "bake_s": 0.5,
    "min_requests": 60,
    "min_labels": 100,
    "error_margin": 0.1,
    "slow_margin": 0.5,
    "slow_s": 5.0,
}


class Answer(NamedTuple):
    """What one request met: ``version`` is None where it failed."""

    key: str
    tier: str
    version: int | None
    status: int


class Crowd:
    """People who ask again and again, each with a key and a tier of their own, and who tell later what became of it."""

    def __init__(self, installation: Installation, endpoint: str) -> None:
        self._port = installation.settings.http_port
        self._client = installation.client
        self._endpoint = endpoint
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self.answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._live, args=(place,)) for place in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def _live(self, place: int) -> None:
        rows = toys.table(4_000, seed=100 + place).to_pylist()
        labels = []
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        ) as connection:
            while not self._stop.wait(PAUSE_S):
                row, number = rows[next(self._numbers) % len(rows)], next(self._numbers)
                name = f"{self._endpoint}-{place}-{number}"
                self._ask(connection, name, row)
                labels.append({"id": name, "label": row[toys.LABEL], "value": row["x"]})
                if len(labels) >= 25:
                    self._client.feedback(self._endpoint, labels)
                    labels = []

    def _ask(self, connection: http.client.HTTPConnection, name: str, row: dict[str, Any]) -> None:
        # So many people that their number in each part is as chance has it for requests: the gate on the split counts requests.
        key, tier = f"person {hash(name) % 20_000}", ("gold", "plain")[hash(name) % 2]
        document = {
            "id": name,
            "parameters": {"routing_key": key},
            "inputs": [
                {"name": field.name, "datatype": field.datatype, "shape": [1], "data": [row[field.name]]}
                for field in toys.INPUTS
            ],
        }
        connection.request(
            "POST", f"/v2/models/{self._endpoint}/infer", json.dumps(document), {"X-Tier": tier}
        )
        response = connection.getresponse()
        content = json.loads(response.read())
        version = int(content["model_version"]) if response.status == 200 else None
        self.answers.append(Answer(key, tier, version, response.status))

    def go_on(self, times: int = 60) -> list[Answer]:
        """The next answers."""
        start = len(self.answers)
        wait_for(lambda: len(self.answers) >= start + times)
        return self.answers[start:]

    @property
    def versions(self) -> Counter[int | None]:
        return Counter(answer.version for answer in self.answers)

    @property
    def failed(self) -> int:
        return sum(answer.status != 200 for answer in self.answers)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


class Site:
    """Two workers, a model with five versions, and an endpoint for each test."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation, self.client = installation, installation.client
        # Of equal size in what they answer; a version's number is the place in this list.
        for place, (content, kind) in enumerate(
            (
                (toys.booster(), "lightgbm"), (toys.booster(repeats=2), "lightgbm"), (toys.booster(sign=-1.0), "lightgbm"),
                (FAILING_MODEL.encode(), "python"), (toys.booster("z"), "lightgbm"),
            )
        ):  # fmt: skip
            file = folder / f"{place}" / ("model.py" if kind == "python" else "model.txt")
            file.parent.mkdir()
            file.write_bytes(content)
            self.client.register(toys.MODEL, file, format=kind, signature=toys.SIGNATURE.to_dict())

    @contextlib.contextmanager
    def endpoint(self, name: str) -> Iterator[Crowd]:
        """An endpoint that the good version answers, and people who ask it."""
        self.client.create_endpoint(name, toys.MODEL)
        self.installation.finish(self.client.deploy(name, GOOD, strategy="direct")["id"])
        crowd = Crowd(self.installation, name)
        try:
            crowd.go_on()
            yield crowd
        finally:
            crowd.end()

    def deploy(self, name: str, version: int, *, strategy: str = "canary", **plan: Any) -> int:
        return int(self.client.deploy(name, version, strategy=strategy, plan={**QUICK, **plan})["id"])

    def until(self, rollout: int, state: str) -> dict[str, Any]:
        wait_for(
            lambda: self.client.rollout(rollout)["state"] == state or self.client.rollout(rollout)["ended_at"]
        )
        found = self.client.rollout(rollout)
        assert found["state"] == state, found["reason"]
        return found

    def ended(self, rollout: int, state: str) -> dict[str, Any]:
        found = self.installation.finish(rollout)
        assert found["state"] == state, (found["reason"], found["verdicts"])
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("rollouts")
    (folder / "home").mkdir()
    with running(settings_of(folder / "home", workers=WORKERS, allow_code=True)) as installation:
        yield Site(installation, folder)


def test_a_canary_is_promoted_step_by_step_though_control_is_killed_on_the_way(site: Site) -> None:
    with site.endpoint("canary") as crowd:
        rollout = site.deploy("canary", TWIN, steps=[0.3, 0.6])
        site.until(rollout, "running")
        with pytest.raises(RolloutInProgress, match=f"rollout {rollout}"):
            site.deploy("canary", INVERTED)
        os.kill(site.installation.supervisor.pids()["control"], signal.SIGKILL)
        crowd.go_on()  # the data plane keeps its Route
        found = site.ended(rollout, "promoted")
        assert [(move["state"], move["share"]) for move in found["moves"]] == [
            ("warming", 0.0), ("running", 0.3), ("running", 0.6), ("promoted", 1.0),
        ]  # fmt: skip
        wait_for(lambda: {answer.version for answer in crowd.go_on()} == {TWIN})
    assert (crowd.failed, set(crowd.versions)) == (0, {GOOD, TWIN})


def test_a_worse_canary_is_turned_back(site: Site) -> None:
    with site.endpoint("worse") as crowd:
        found = site.ended(site.deploy("worse", INVERTED, steps=[0.5], score_gate=False), "aborted")
        assert "AUC is surely" in found["reason"]
        wait_for(lambda: {answer.version for answer in crowd.go_on()} == {GOOD})
    assert (crowd.failed, set(crowd.versions)) == (0, {GOOD, INVERTED})


def test_what_fails_hard_is_turned_back_at_once(site: Site) -> None:
    with site.endpoint("failing") as crowd:
        found = site.ended(site.deploy("failing", FAILING, steps=[0.5]), "aborted")
        assert "failed" in found["reason"]
        wait_for(lambda: {answer.version for answer in crowd.go_on()} == {GOOD})
    assert {answer.status for answer in crowd.answers} == {200, 422}  # of the candidate, and of nobody else
    assert crowd.versions[None] < crowd.versions[GOOD]


def test_blue_green_switches_and_returns(site: Site) -> None:
    with site.endpoint("colours") as crowd:
        rollout = site.deploy("colours", TWIN, strategy="blue-green", keep_s=3_600)
        site.until(rollout, "holding")
        wait_for(lambda: {answer.version for answer in crowd.go_on()} == {TWIN})
        assert site.client.endpoint("colours")["route"]["weights"] == {
            str(GOOD): 0.0,
            str(TWIN): 1.0,
        }  # ready to return
        site.client.abort(rollout)
        site.ended(rollout, "aborted")
        wait_for(lambda: {answer.version for answer in crowd.go_on()} == {GOOD})
        site.ended(site.deploy("colours", TWIN, strategy="blue-green", keep_s=0.5), "promoted")
    assert crowd.failed == 0


def test_an_ab_test_is_sticky_and_ends_with_its_verdict(site: Site) -> None:
    with site.endpoint("ab") as crowd:
        plan = {"reward": "1 if (score > 0.5) == (label == 1) else 0", "auc_gate": False, "score_gate": False}
        endless = site.deploy(
            "ab", OTHER_SIDE, strategy="ab", reward_abort=1.0, **{**plan, "min_labels": 10**9}
        )
        site.until(endless, "running")
        wait_for(
            lambda: site.client.rollout(endless)["reason"].startswith("no verdict yet")
        )  # no worker is behind
        crowd.go_on()
        met = crowd.go_on(600)
        site.client.abort(endless)
        site.ended(endless, "aborted")
        rollout = site.deploy("ab", OTHER_SIDE, strategy="ab", reward_abort=1.0, **plan)
        assert "worse" in site.ended(rollout, "concluded")["reason"]
        back = site.deploy("ab", TWIN, strategy="ab", max_s=1.0, **plan)  # there is nothing to be found
        assert "no difference" in site.ended(back, "concluded")["reason"]
    versions: dict[str, set[int | None]] = {}
    for answer in met:
        versions.setdefault(answer.key, set()).add(answer.version)
    assert {len(each) for each in versions.values()} == {1}
    assert {version for each in versions.values() for version in each} == {GOOD, OTHER_SIDE}
    assert crowd.failed == 0


def test_a_shadow_answers_nobody(site: Site) -> None:
    with site.endpoint("shadow") as crowd:
        rollout = site.deploy("shadow", TWIN, strategy="shadow", shadow_share=0.5)
        found = site.ended(rollout, "concluded")
        assert "rows copied, 0.00% answered otherwise" in found["reason"]
        assert {verdict["verdict"] for verdict in found["verdicts"]} == {"pass"}
        broken = site.deploy("shadow", FAILING, strategy="shadow")
        site.ended(broken, "aborted")
    assert (crowd.failed, set(crowd.versions)) == (0, {GOOD})


def test_a_bandit_follows_what_is_earned(site: Site) -> None:
    with site.endpoint("bandit") as crowd:
        plan = {
            "reward": "1 if (score > 0.5) == (label == 1) else 0",
            "auc_gate": False,
            "score_gate": False,
            "min_labels": 500,
        }
        rollout = site.deploy("bandit", OTHER_SIDE, strategy="bandit", reward_abort=1.0, **plan)
        wait_for(lambda: site.client.rollout(rollout)["ended_at"], patience_s=120)
        found = site.ended(rollout, "concluded")
        shares = [move["share"] for move in found["moves"] if move["state"] == "running"]
        assert shares[0] == 0.5
        assert 0.1 <= shares[-1] == min(shares) < 0.5
        wait_for(lambda: {answer.version for answer in crowd.go_on()} == {GOOD})
    assert crowd.failed == 0


def test_a_segment_moves_alone(site: Site) -> None:
    where = "header.x_tier == 'gold'"
    with site.endpoint("segment") as crowd:
        site.ended(site.deploy("segment", TWIN, strategy="direct", where=where), "promoted")
        wait_for(lambda: {(a.tier, a.version) for a in crowd.go_on()} == {("gold", TWIN), ("plain", GOOD)})
        site.ended(site.deploy("segment", INVERTED, where=where, steps=[0.5], score_gate=False), "aborted")
        wait_for(lambda: {(a.tier, a.version) for a in crowd.go_on()} == {("gold", TWIN), ("plain", GOOD)})
        site.client.drop_segment("segment", where)
        wait_for(lambda: {a.version for a in crowd.go_on()} == {GOOD})
    assert {a.version for a in crowd.answers if a.tier == "plain"} == {GOOD}
    assert crowd.failed == 0


def test_people_decide(site: Site) -> None:
    with site.endpoint("people") as crowd:
        rollout = site.deploy("people", TWIN, steps=[0.4], approve=["start", "promote"])
        site.until(rollout, "waiting")
        assert {answer.version for answer in crowd.go_on()} == {GOOD}
        site.client.ask(rollout, "approve")
        site.until(rollout, "running")
        site.client.ask(rollout, "pause", note="lunch")
        site.until(rollout, "paused")
        with pytest.raises(IllegalTransition):
            site.client.ask(rollout, "approve")
        site.client.ask(rollout, "resume")
        site.until(rollout, "waiting")
        site.client.ask(rollout, "approve")
        site.ended(rollout, "promoted")
        freeze = site.client.add_freeze(weekly="mon 00:00-sun 23:59", endpoint="people")
        with pytest.raises(PredisError) as refused:
            site.deploy("people", GOOD)
        assert refused.value.code == "change_frozen"
        site.client.remove_freeze(freeze["id"])
        site.ended(site.deploy("people", GOOD, strategy="direct"), "promoted")
    assert crowd.failed == 0


def test_nobody_else_may(site: Site) -> None:
    """Without the right no rollout moves; what was tried is not done."""
    with (
        Client(
            site.installation.control, site.installation.serving, key="predis_nobody", retry_s=0
        ) as stranger,
        pytest.raises(PredisError),
    ):
        stranger.promote(1)
    assert site.client.rollout(1)["state"] == "promoted"
