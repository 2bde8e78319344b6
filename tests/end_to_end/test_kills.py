"""Every role is killed during a small replay; what was accepted is still counted, once."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import toys
from tests.installation import Installation, running, settings_of, wait_for

pytestmark = pytest.mark.slow
ROW = {"x": 0.5, "z": -0.5, "kind": "a"}


class Flow:
    """Predictions, each followed by its label, from a few threads, until told to stop."""

    def __init__(self, installation: Installation, senders: int = 3) -> None:
        self._client = installation.client
        self._stop = threading.Event()
        self.predicted: list[str] = []
        self.acknowledged: list[str] = []
        self._pool = ThreadPoolExecutor(senders)
        self._futures = [self._pool.submit(self._send, sender) for sender in range(senders)]

    def _send(self, sender: int) -> None:
        number = 0
        while not self._stop.is_set():
            name = f"sender-{sender}-{number}"
            self._client.predict(toys.ENDPOINT, ROW, id=name)
            self.predicted.append(name)
            self._client.feedback(toys.ENDPOINT, [{"id": name, "label": number % 2}])
            self.acknowledged.append(name)
            number += 1

    def end(self) -> None:
        """Stop, and raise whatever a sender met that its client could not mend."""
        self._stop.set()
        for future in self._futures:
            future.result()
        self._pool.shutdown()


def kill(installation: Installation, role: str, flow: Flow) -> None:
    """SIGKILL a role and wait until it has been replaced and traffic has gone on."""
    victim = installation.supervisor.pids()[role]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: installation.supervisor.pids().get(role, victim) != victim)
    wait_for(installation.ready)
    before = len(flow.acknowledged)
    wait_for(lambda: len(flow.acknowledged) > before + 30)


def test_every_role_may_be_killed_and_every_record_counts_once(home: Path, tmp_path: Path) -> None:
    with running(settings_of(home)) as installation:
        installation.deploy_toy(tmp_path)
        flow = Flow(installation)
        wait_for(lambda: len(flow.acknowledged) > 50)
        for role in ("serving-0", "control", "serving-1", "control"):
            kill(installation, role, flow)
        flow.end()

        assert installation.restarts == ["serving-0", "control", "serving-1", "control"]
        assert len(flow.predicted) == len(set(flow.predicted)) == len(flow.acknowledged)
        wait_for(lambda: installation.counted()["labels"]["predictions"] >= len(flow.predicted))
        wait_for(lambda: installation.counted()["labels"]["feedback"]["waiting"] == 0)
        counted = installation.counted()
        assert counted["labels"]["predictions"] == len(flow.predicted)
        assert counted["labels"]["feedback"]["stored"] == len(flow.acknowledged)
        assert counted["labels"]["matured"] == len(flow.acknowledged)
        # A request that a dying worker answered, but whose answer was lost, is asked again: one prediction, two requests.
        assert counted["traffic"]["rows"] == len(flow.predicted)
        assert counted["traffic"]["requests"] >= len(flow.predicted)
        journal = installation.client.overview()["system"]["journal"]
        assert journal["dropped"] == journal["damaged"] == 0


def test_control_killed_in_a_canary_goes_on_with_it(home: Path, tmp_path: Path) -> None:
    with running(settings_of(home)) as installation:
        installation.deploy_toy(tmp_path)
        file = tmp_path / "second.txt"
        file.write_bytes(toys.booster())
        installation.client.register(toys.MODEL, file, format="lightgbm", signature=toys.SIGNATURE.to_dict())
        flow = Flow(installation)
        plan = {"steps": [0.5], "bake_s": 2.0, "auc_gate": False, "min_requests": 100}
        rollout = installation.client.deploy(toys.ENDPOINT, 2, plan=plan)["id"]
        wait_for(lambda: installation.client.rollout(rollout)["state"] == "running")
        kill(installation, "control", flow)
        ended = installation.finish(rollout)
        flow.end()
        assert ended["state"] == "promoted", ended["reason"]
        assert installation.client.endpoint(toys.ENDPOINT)["route"]["weights"] == {"2": 1.0}
        aliases = installation.client.models()[0]["aliases"]
        assert aliases["champion"] == 2


def test_roles_end_when_their_supervisor_is_gone(home: Path) -> None:
    with running(settings_of(home)) as installation:
        pids = installation.supervisor.pids()
        installation.supervisor._stop.set()  # it no longer restarts anybody
        installation.supervisor._thread.join()
        for child in installation.supervisor._children:
            assert child.process is not None
            assert child.process.stdin is not None
            child.process.stdin.close()  # what the kernel does when the supervisor is killed
        wait_for(
            lambda: all(c.process and c.process.poll() is not None for c in installation.supervisor._children)
        )
        assert len(pids) == 3
