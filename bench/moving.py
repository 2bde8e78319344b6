"""How quickly an endpoint is moved, on a running installation under load. See README.md beside this file.

    deploy   from the command to the first answer of the version: registered before, in no worker's memory
    abort    from the decision (the rollout's row) to the last answer of the version that was turned back, over all workers
    wish     from a person's `abort` to that last answer

Moments are those of this machine's clock, taken when an answer has been read.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import toys
from tests.installation import Installation, running, settings_of, wait_for

PAUSE_S = 0.002
REQUEST = {
    "inputs": [
        {"name": "x", "datatype": "FP64", "shape": [1], "data": [0.5]},
        {"name": "z", "datatype": "FP64", "shape": [1], "data": [0.5]},
        {"name": "kind", "datatype": "BYTES", "shape": [1], "data": ["a"]},
    ]
}


class Clients:
    """Connections that ask again and again, and when each version answered them last."""

    def __init__(self, port: int, count: int) -> None:
        self.last: dict[int, int] = {}
        self.first: dict[int, int] = {}
        self.failed = self.asked = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(port,)) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps(REQUEST)
        while not self._stop.wait(PAUSE_S):
            connection.request("POST", f"/v2/models/{toys.ENDPOINT}/infer", body)
            response = connection.getresponse()
            document = json.loads(response.read())
            now = time.time_ns()
            self.asked += 1
            if response.status != 200:
                self.failed += 1
                continue
            version = int(document["model_version"])
            self.first.setdefault(version, now)
            self.last[version] = now
        connection.close()

    def forget(self) -> None:
        self.first.clear()
        self.last.clear()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"command": " ".join(["bench/moving.py", *sys.argv[1:]])}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "home").mkdir()
        with running(settings_of(folder / "home", workers=arguments.workers)) as installation:
            installation.deploy_toy(folder)
            found |= measure(installation, folder, rounds=arguments.rounds, clients=4 * arguments.workers)
    print(json.dumps(found, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def measure(installation: Installation, folder: Path, *, rounds: int, clients: int) -> dict[str, Any]:
    client = installation.client
    deploys, decisions, wishes = [], [], []
    crowd = Clients(installation.settings.http_port, clients)
    file = folder / "model.txt"
    for turn in range(rounds):
        file.write_bytes(toys.booster(repeats=2 + turn))
        version = client.register(toys.MODEL, file, format="lightgbm", signature=toys.SIGNATURE.to_dict())[
            "version"
        ]
        crowd.forget()
        started = time.time_ns()
        rollout = client.deploy(toys.ENDPOINT, version, plan={"steps": [0.5], "bake_s": 600.0})["id"]
        wait_for(lambda version=version: version in crowd.first)
        deploys.append((crowd.first[version] - started) / 1e6)
        time.sleep(0.5)
        asked = time.time_ns()
        client.abort(rollout)
        decided = installation.finish(rollout)["ended_at_ns"]
        time.sleep(1.5)
        decisions.append((crowd.last[version] - decided) / 1e6)
        wishes.append((crowd.last[version] - asked) / 1e6)
    crowd.close()
    figures = {"deploy_ms": deploys, "abort_ms": decisions, "wish_ms": wishes}
    return {
        **{name: {"median": statistics.median(v), "most": max(v)} for name, v in figures.items()},
        "rounds": rounds, "requests": crowd.asked, "failed": crowd.failed,
    }  # fmt: skip


if __name__ == "__main__":
    main()
