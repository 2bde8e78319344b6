"""What one worker does when more is asked of it than it can do. See README.md beside this file.

First its capacity, by a closed loop of 64 connections; then open loops (requests fall due at their own rate, whatever the server does) at
multiples of it; then a storm: 1,000 connections, each of which asks again as soon as it is answered or refused. The worker is held on core
0, the generator on core 1; as root both have priority over what else runs on the machine. Latencies are of accepted requests: from the
moment each was due in an open loop, from when it was sent in a closed one.

An open loop has 2,000 connections. Where they are all busy requests wait on the generator's side, for which the server cannot be blamed and
of which it knows nothing; then ``waited`` says so, and latencies from when they were due say nothing of the server.

    cheap       LightGBM, ROWS rows a request: predicted in the event loop
    expensive   Python code that computes for 5 ms a row: predicted in a thread, which does not let go of the interpreter by itself
    waiting     Python code that sleeps for 5 ms a row: what a call of a library outside the interpreter is like
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.serving import boost
from predis.client import Client
from predis.loadtest import fleet
from predis.loadtest.bodies import http_request
from predis.loadtest.load import Load, Target
from tests import toys
from tests.installation import running, settings_of, wait_for

FACTORS = (0.5, 1.0, 2.0, 3.0)
SERVER_CORE, GENERATOR_CORE = 0, 1
CLOSED, OPEN, STORM = 64, 2_000, 1_000
BURN = """
import time

def predict(inputs):
    rows = len(inputs["x"])
    until = time.thread_time() + rows * {seconds}
    while time.thread_time() < until:
        pass
    return inputs["x"] * 0
"""
SLEEP = """
import time

def predict(inputs):
    time.sleep(len(inputs["x"]) * {seconds})
    return inputs["x"] * 0
"""


@dataclass(frozen=True)
class Case:
    """A model, and the rows of one request for it."""

    kind: str
    contents: bytes
    rows: int


CASES: Mapping[str, Case] = {
    "cheap": Case("lightgbm", toys.booster(), 32),
    "expensive": Case("python", BURN.format(seconds=0.005).encode(), 1),
    "waiting": Case("python", SLEEP.format(seconds=0.005).encode(), 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"command": " ".join(["bench/overload.py", *sys.argv[1:]])}
    for name in arguments.cases.split(","):
        with serving(CASES[name]) as (target, worker):
            found[name] = measured(target, worker, seconds=arguments.seconds, rounds=arguments.rounds)
    print(json.dumps(found, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def measured(target: Target, worker: int, *, seconds: float, rounds: int) -> dict[str, Any]:
    """Windows of all loads in turn, several times; medians."""
    windows: dict[str, list[dict[str, Any]]] = {}
    capacity = 0.0
    for _ in range(rounds):
        closed = run(target, Load(connections=CLOSED, duration_s=seconds), worker)
        windows.setdefault("closed", []).append(closed)
        capacity = statistics.median(w["goodput"] for w in windows["closed"])
        for factor in FACTORS:
            load = Load(connections=OPEN, duration_s=seconds, rate=factor * capacity)
            windows.setdefault(f"{factor:g}x", []).append(run(target, load, worker))
        storm = Load(connections=STORM, duration_s=seconds)
        windows.setdefault("storm", []).append(run(target, storm, worker))
    table = {name: summary(each) for name, each in windows.items()}
    peak = max(line["goodput"] for line in table.values())
    for line in table.values():
        line["of_peak"] = round(line["goodput"] / peak, 3)
    return {"load_average": os.getloadavg()[0], **table}


def run(target: Target, load: Load, worker: int) -> dict[str, Any]:
    with first_in_line():
        result = fleet.run(target, load)
    line = {
        "offered": load.rate,
        "goodput": result.throughput,
        "p50_ms": result.latency.quantile(0.5) * 1e3,
        "p99_ms": result.latency.quantile(0.99) * 1e3,
        "refused": sum(count for kind, count in result.errors.items() if kind == "HTTP 503")
        / load.duration_s,
        "other_errors": {kind: count for kind, count in result.errors.items() if kind != "HTTP 503"},
        "generator_cpu": max(usage.used for usage in result.usage),
        "generator_late_p99_ms": result.lateness.quantile(0.99) * 1e3 if load.rate else 0.0,
        "waited": result.waited,
        "memory_mb": memory_mb(worker),
    }
    print(json.dumps(line), file=sys.stderr, flush=True)
    return line


def summary(windows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in windows[0]:
        values = [window[name] for window in windows]
        found[name] = values if name == "other_errors" else values[0] and round(statistics.median(values), 3)
    return found


@contextmanager
def serving(case: Case) -> Iterator[tuple[Target, int]]:
    """An installation with one worker that serves a case: what to send to it, and its process."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        settings = settings_of(home, workers=1, allow_code=True, log_level="error")
        with running(settings) as installation:
            deploy(installation.client, Path(folder), case)
            wait_for(lambda: answers(installation.client))
            worker = installation.supervisor.pids()["serving-0"]
            pinned = ["taskset", "-a", "-c", "-p", str(SERVER_CORE), str(worker)]
            subprocess.run(pinned, check=True, stdout=subprocess.DEVNULL)
            boost(worker)
            yield Target(host=settings.host, port=settings.http_port, requests=(request(case.rows),)), worker


@contextmanager
def first_in_line() -> Iterator[None]:
    """On the generator's core, and there before others; so are processes started in between."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {GENERATOR_CORE})
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def deploy(client: Client, folder: Path, case: Case) -> None:
    file = folder / "model.py"
    file.write_bytes(case.contents)
    client.register("m", file, format=case.kind, signature=toys.SIGNATURE.to_dict())
    client.create_endpoint("m", "m")
    rollout = client.deploy("m", 1, strategy="direct")["id"]
    wait_for(lambda: client.rollout(rollout)["ended_at"])


def answers(client: Client) -> bool:
    return client.predict("m", {"x": 0.5, "z": 0.5, "kind": "a"}).version == 1


def request(rows: int) -> bytes:
    values = {"x": [0.25] * rows, "z": [-0.5] * rows, "kind": ["a"] * rows}
    inputs = [
        {"name": field.name, "datatype": field.datatype, "shape": [rows], "data": values[field.name]}
        for field in toys.INPUTS
    ]
    body = json.dumps({"inputs": inputs}).encode()
    return http_request("/v2/models/m/infer", body, headers={"host": "127.0.0.1"})


def memory_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGESIZE") / 2**20, 1)


if __name__ == "__main__":
    main()
