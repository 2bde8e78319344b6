"""Measures the load generator itself, beside wrk, against a server that answers every request with the same bytes. See README.md here.

What a generator costs is told as time of a core per request; its reverse is the most that one process of it can do. That is steadier on a
shared machine than the requests per second, which are told too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from predis.loadtest import Load, Target, run
from predis.loadtest.bodies import http_request

CONNECTIONS = (1, 16, 64)
RATES = (1_000, 5_000, 10_000, 20_000)
SERVER_CORE, GENERATOR_CORE = 0, 1
INPUT = {"name": "input", "shape": [1, 22], "datatype": "FP32", "data": [1.2345] * 22}
BODY = json.dumps({"inputs": [INPUT]}).encode()
ANSWER = (
    b'{"model_name":"m","outputs":[{"name":"probability","datatype":"FP64","shape":[1],"data":[0.12345]}]}'
)
PATH = "/v2/models/m/infer"


class Constant(asyncio.Protocol):
    """Answers whatever comes in one piece, unread."""

    ANSWER = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
        + ANSWER
    )

    def connection_made(self, transport: Any) -> None:
        self.write = transport.write

    def data_received(self, _data: bytes) -> None:
        self.write(self.ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def constant_server() -> Iterator[int]:
    command = ["taskset", "-c", str(SERVER_CORE), sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()


def ours(port: int, load: Load) -> dict[str, float]:
    request = http_request(
        PATH, BODY, headers={"host": f"127.0.0.1:{port}", "content-type": "application/json"}
    )
    found = run(Target(host="127.0.0.1", port=port, requests=(request,) * 64), load)
    assert not found.errors, found.errors
    (usage,) = found.usage
    return {
        "answers_per_s": round(found.throughput),
        "core_us": round(usage.used / found.throughput * 1e6, 2),
        "p50_us": round(found.latency.quantile(0.5) * 1e6, 1),
        "p99_us": round(found.latency.quantile(0.99) * 1e6, 1),
        **({"late_p50_us": round(found.lateness.quantile(0.5) * 1e6, 1)} if load.rate else {}),
        **({"late_p99_us": round(found.lateness.quantile(0.99) * 1e6, 1)} if load.rate else {}),
    }


def wrk(port: int, connections: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(f'wrk.method = "POST"\nwrk.body = [==[{BODY.decode()}]==]\n')
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:g}",
            "--latency",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}{PATH}",
        ]
        before = os.times()
        began = time.perf_counter()
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        wall, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    rate = float(re.search(r"Requests/sec: +([\d.]+)", shown)[1])  # type: ignore[index]
    return {
        "answers_per_s": round(rate),
        "core_us": round(used / wall / rate * 1e6, 2),
        "p50_us": _microseconds(re.search(r"50% +([\d.]+)(\w+)", shown)),
        "p99_us": _microseconds(re.search(r"99% +([\d.]+)(\w+)", shown)),
    }


def _microseconds(found: re.Match[str] | None) -> float:
    assert found is not None
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]]


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are told")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of each measurement")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        import uvloop

        uvloop.run(serve())
        return
    os.sched_setaffinity(0, {GENERATOR_CORE})
    found: dict[str, list[dict[str, float]]] = {}
    with constant_server() as port:
        for _ in range(arguments.rounds):
            for count in CONNECTIONS:
                load = Load(connections=count, duration_s=arguments.seconds)
                found.setdefault(f"closed, {load.name}", []).append(ours(port, load))
                if shutil.which("wrk"):
                    found.setdefault(f"wrk, {load.name}", []).append(wrk(port, count, arguments.seconds))
            for rate in RATES:
                load = Load(connections=256, duration_s=arguments.seconds, rate=rate)
                found.setdefault(f"open, {load.name}", []).append(ours(port, load))
    figures = {name: medians(rounds) for name, rounds in found.items()}
    for name, figure in figures.items():
        print(f"{name:24}", *(f"{key} {value:>9,.6g}" for key, value in figure.items()), sep="  ")
    if arguments.out:
        document = {
            "command": " ".join(["bench/loadtest.py", *sys.argv[1:]]),
            "rounds": arguments.rounds,
            "figures": figures,
        }
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
