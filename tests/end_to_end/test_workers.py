"""Several workers on one port, under steady load: nothing that an operator does costs a request, and a killed worker costs a second try."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from predis.client import Client
from predis.errors import EndpointNotFound, NotReady
from predis.serving.store import ServingStore, Worker
from predis.state import Database
from predis.state.schema import endpoints
from tests import toys
from tests.installation import PATIENCE_S, Installation, running, settings_of, wait_for
from tests.toy_model import scores_of

pytestmark = pytest.mark.slow

WORKERS = 3
CONNECTIONS = 9
PAUSE_S = 0.003
SLOW, LARGE = "slow", "large"
ROW = {"x": 0.6, "z": -0.5, "kind": "a"}
REQUEST = {
    "inputs": [
        {"name": field.name, "datatype": field.datatype, "shape": [1], "data": [ROW[field.name]]}
        for field in toys.INPUTS
    ]
}
# What the versions answer to that row: the first rises with x, the second falls.
SCORES = {number: float(scores_of(np.array([0.6]), sign=sign)[0]) for number, sign in ((1, 1.0), (2, -1.0))}
# Once the file `held` is there, loading lasts until the file `go` is too.
SLOW_MODEL = """
import os, time
from pathlib import Path

FOLDER = Path({folder!r})

def load(folder):
    if (FOLDER / "held").exists():
        (FOLDER / f"loading-{{os.getpid()}}").touch()
        while not (FOLDER / "go").exists():
            time.sleep(0.01)

def predict(inputs):
    return inputs["x"] * 0 + {score}
"""


class Sender:
    """One connection that asks again and again.

    A connection that the server has closed in between is replaced, which is how HTTP works. Only where a request went out and no answer
    came is it asked a second time; ``retries`` counts that, and connections that were refused.
    """

    def __init__(self, port: int, endpoint: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self._path = f"/v2/models/{endpoint}/infer"
        self._body = json.dumps(REQUEST)
        self.retries = 0
        self.versions: list[int] = []
        self.failed: list[tuple[int, bytes]] = []

    def ask(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                status, body = self._exchange()
                break
            except (ConnectionError, http.client.BadStatusLine, http.client.IncompleteRead):
                self._connection.close()
                self.retries += 1
                if time.monotonic() > deadline:
                    raise
        if status != 200:
            self.failed.append((status, body))
            return
        answer = json.loads(body)
        version = int(answer["model_version"])
        assert answer["outputs"][0]["data"] == [pytest.approx(SCORES[version], rel=1e-12)]
        self.versions.append(version)

    def close(self) -> None:
        self._connection.close()

    def _exchange(self) -> tuple[int, bytes]:
        sock = self._connection.sock
        if sock is not None and select.select([sock], [], [], 0)[0]:
            self._connection.close()
        self._connection.request("POST", self._path, self._body)
        response = self._connection.getresponse()
        return response.status, response.read()


class Traffic:
    """Steady predictions over several connections; every answer is checked and counted."""

    def __init__(self, installation: Installation, endpoint: str) -> None:
        self._stop = threading.Event()
        self._senders = [Sender(installation.settings.http_port, endpoint) for _ in range(CONNECTIONS)]
        self._pool = ThreadPoolExecutor(CONNECTIONS)
        self._futures = [self._pool.submit(self._send, sender) for sender in self._senders]

    def _send(self, sender: Sender) -> None:
        while not self._stop.wait(PAUSE_S):
            sender.ask()

    @property
    def retries(self) -> int:
        return sum(sender.retries for sender in self._senders)

    @property
    def failed(self) -> list[tuple[int, bytes]]:
        return [failure for sender in self._senders for failure in sender.failed]

    @property
    def versions(self) -> Counter[int]:
        """How often each version has answered."""
        return Counter(version for sender in self._senders for version in list(sender.versions))

    def go_on(self, times: int = 20) -> None:
        """Wait until every connection has been answered some more times, or asking has failed."""
        goal = [len(sender.versions) + times for sender in self._senders]

        def reached() -> bool:
            return all(len(s.versions) >= g for s, g in zip(self._senders, goal, strict=True))

        wait_for(lambda: reached() or self.failed or any(future.done() for future in self._futures))

    def only(self, version: int) -> None:
        """Wait until a version has given every connection's last answer: each stays with the worker that accepted it."""
        wait_for(lambda: {sender.versions[-1] for sender in self._senders} == {version})
        self.go_on()
        assert {sender.versions[-1] for sender in self._senders} == {version}

    def end(self) -> None:
        self._stop.set()
        self._pool.shutdown()
        for sender in self._senders:
            sender.close()
        for future in self._futures:
            future.result()


@contextlib.contextmanager
def traffic(installation: Installation, endpoint: str = toys.ENDPOINT) -> Iterator[Traffic]:
    """While it lasts no request fails."""
    found = Traffic(installation, endpoint)
    try:
        found.go_on()
        yield found
        found.go_on()
    finally:
        found.end()
    assert found.failed == []


class Site:
    """Several workers, a model with two versions, an endpoint, and what an operator does to them."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation = installation
        self.folder = folder
        self.client = installation.client
        self.hasty = Client(installation.control, installation.serving, retry_s=0)
        self._database = Database(installation.settings.database_url)
        self._store = ServingStore(self._database)

    def close(self) -> None:
        self.hasty.close()
        self._database.close()

    @property
    def memory_mb(self) -> float:
        """Of all workers together."""
        pids = [pid for name, pid in self.installation.supervisor.pids().items() if name != "control"]
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        return pages * os.sysconf("SC_PAGESIZE") / 2**20

    def workers(self) -> list[Worker]:
        return self._store.workers()

    def register(self, model: str, contents: str | bytes, *, kind: str) -> None:
        file = self.folder / "model.py"
        file.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        self.client.register(model, file, format=kind, signature=toys.SIGNATURE.to_dict())

    def deploy(self, version: int, *, endpoint: str = toys.ENDPOINT) -> None:
        """Let a version answer everything, and wait until all workers follow."""
        rollout = self.client.deploy(endpoint, version, strategy="direct")["id"]
        ended = self.installation.finish(rollout)
        assert ended["state"] == "promoted", ended["reason"]
        route = self.client.endpoint(endpoint)["route"]["number"]
        wait_for(lambda: {w.applied.get(f"default/{endpoint}") for w in self.workers()} == {route})

    def repository(self, endpoint: str, verb: str) -> None:
        """The protocol's load and unload."""
        port = self.installation.settings.http_port
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as one:
            one.request("POST", f"/v2/repository/models/{endpoint}/{verb}", b"{}")
            assert one.getresponse().status == 200

    def remove(self, endpoint: str) -> None:
        with self._database.write() as connection:
            connection.execute(endpoints.delete().filter_by(name=endpoint))
        wait_for(lambda: not any(f"default/{endpoint}" in worker.applied for worker in self.workers()))

    def signal(self, worker: str, number: int) -> None:
        """Signal a worker, and wait until another works in its place."""
        supervisor = self.installation.supervisor
        victim = supervisor.pids()[worker]
        os.kill(victim, number)
        wait_for(lambda: supervisor.pids().get(worker, victim) != victim)
        wait_for(lambda: supervisor.pids().get(worker) in {w.pid for w in self.workers()})


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("workers")
    home = folder / "home"
    home.mkdir()
    with running(settings_of(home, workers=WORKERS, allow_code=True)) as installation:
        installation.deploy_toy(folder)
        site = Site(installation, folder)
        site.register(toys.MODEL, toys.booster(sign=-1.0), kind="lightgbm")
        wait_for(lambda: len(site.workers()) == WORKERS)
        yield site
        site.close()


@pytest.fixture
def site(shared_site: Site) -> Site:
    """One for all tests; at the start of each all workers answer with the first version."""
    if shared_site.client.endpoint(toys.ENDPOINT)["route"]["weights"] != {"1": 1.0}:
        shared_site.deploy(1)
    shared_site.installation.restarts.clear()
    return shared_site


def test_no_request_fails_or_is_asked_twice_whatever_is_deployed(site: Site) -> None:
    with traffic(site.installation) as sent:
        for version in (2, 1, 2, 1, 2, 1):
            site.deploy(version)
            sent.only(version)
        plan = {
            "steps": [0.3, 0.7],
            "bake_s": 0.5,
            "min_requests": 20,
            "auc_gate": False,
            "score_gate": False,
        }
        rollout = site.client.deploy(toys.ENDPOINT, 2, plan=plan)["id"]
        assert site.installation.finish(rollout)["state"] == "promoted"
        sent.only(2)
    assert sent.retries == 0


def test_no_request_fails_whatever_happens_to_other_endpoints(site: Site) -> None:
    with traffic(site.installation) as sent:
        for name in ("other-1", "other-2", "other-3"):
            site.client.create_endpoint(name, toys.MODEL)
            site.deploy(1, endpoint=name)
            assert site.client.predict(name, ROW).version == 1
            site.client.configure_endpoint(name, {"batching": {"rows": 1}, "cache": {"ttl_s": 60}})
            site.repository(name, "unload")
            for _worker in range(2 * WORKERS):
                with pytest.raises(NotReady, match="unloaded"):
                    site.hasty.infer(name, REQUEST)
            site.repository(name, "load")
            for _worker in range(2 * WORKERS):
                assert site.hasty.infer(name, REQUEST).version == 1
            site.deploy(2, endpoint=name)
            assert site.client.predict(name, ROW).version == 2
            site.remove(name)
            with pytest.raises(EndpointNotFound):
                site.hasty.infer(name, REQUEST)
            sent.go_on()
    assert sent.retries == 0
    assert set(sent.versions) == {1}


def test_memory_is_given_back_by_what_is_unloaded(site: Site) -> None:
    """Two versions of some megabytes in turn, fifty times."""
    for sign in (1.0, -1.0):
        site.register(LARGE, toys.booster(sign=sign, repeats=1_000), kind="lightgbm")
    site.client.create_endpoint(LARGE, LARGE)
    used = []
    for number in range(50):
        site.deploy(1 + number % 2, endpoint=LARGE)
        assert site.client.predict(LARGE, ROW).version == 1 + number % 2
        used.append(site.memory_mb)
    site.remove(LARGE)
    assert max(used[-10:]) < max(used[5:15]) + 2 * WORKERS, used


def test_a_model_that_takes_long_to_load_holds_up_nobody_else(site: Site) -> None:
    for version in (1, 2):
        code = SLOW_MODEL.format(folder=str(site.folder), score=SCORES[version])
        site.register(SLOW, code, kind="python")
    site.client.create_endpoint(SLOW, SLOW)
    site.deploy(1, endpoint=SLOW)
    with traffic(site.installation) as sent, traffic(site.installation, SLOW) as slow:
        (site.folder / "held").touch()
        rollout = site.client.deploy(SLOW, 2, strategy="direct")["id"]
        wait_for(lambda: len(list(site.folder.glob("loading-*"))) == WORKERS)
        for version in (2, 1):
            site.deploy(version)
            sent.only(version)
        assert site.client.rollout(rollout)["state"] == "warming"
        slow.go_on()
        assert set(slow.versions) == {1}
        (site.folder / "go").touch()
        assert site.installation.finish(rollout)["state"] == "promoted"
        slow.only(2)
    assert sent.retries == slow.retries == 0


def test_a_worker_told_to_stop_takes_no_request_with_it(site: Site) -> None:
    names = [f"serving-{number}" for number in range(WORKERS)]
    with traffic(site.installation) as sent:
        for worker in names:
            site.signal(worker, signal.SIGTERM)
            sent.go_on()
    assert site.installation.restarts == names
    # Connections that the kernel held for the worker when it closed its port may be reset.
    assert sent.retries <= WORKERS


def test_what_a_killed_worker_takes_with_it_is_asked_again(site: Site) -> None:
    with traffic(site.installation) as sent:
        for worker in range(WORKERS):
            site.signal(f"serving-{worker}", signal.SIGKILL)
            sent.go_on()
    # At most one for each connection, each time.
    assert sent.retries <= WORKERS * CONNECTIONS


def test_workers_are_killed_while_routes_change(site: Site) -> None:
    with traffic(site.installation) as sent:
        for version, number in ((2, signal.SIGKILL), (1, signal.SIGTERM), (2, signal.SIGKILL)):
            rollout = site.client.deploy(toys.ENDPOINT, version, strategy="direct")["id"]
            site.signal("serving-1", number)
            assert site.installation.finish(rollout)["state"] == "promoted"
            sent.only(version)
    assert sent.retries <= 3 * CONNECTIONS
