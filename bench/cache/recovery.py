"""How long a start takes, and how long the cache is away after a SIGKILL of its gateway worker, and of its Valkey.

    python -m bench.cache.recovery --report bench/results/2026-11-21-cache-recovery.json

Of a real ``predis up``. Away is the time from the signal to the first answer to a SET on a new connection, which is tried every 5 ms.
Between two kills there are eleven seconds, after which the supervisor has forgotten the one before. ``cpu_s``: what a gateway worker takes
of the processor until it answers, and prefetching is there too. Beside the figures stand the goals.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.cache.processes import calm, cpu_s
from predis.cache.resp import command
from tests.installation import free_ports

_PAUSE_S = 11.0  # from 10 s on the supervisor takes a child for steady, and starts it again at once
_MOST_UP_S, _MOST_AWAY_S, _MOST_CPU_S = 5.0, 2.0, 1.0
_SET = command(b"SET", b"key", b"value")


def works(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as made:
        made.sendall(_SET)
        return made.recv(64) == b"+OK\r\n"
    return False


def wait(port: int, begun: float) -> float:
    while not works(port):
        if time.perf_counter() - begun > 60:
            raise TimeoutError("the cache did not come back")
        time.sleep(0.005)
    return time.perf_counter() - begun


def children(parent: int) -> dict[int, list[str]]:
    """The command lines of a process's children, whichever of its threads started them."""
    pids = [
        pid
        for task in Path(f"/proc/{parent}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    return {int(pid): Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in pids}


def victim_of(supervisor: int, role: str) -> int:
    """The process to be killed: a role's, and of Valkey the server itself."""
    (found,) = [pid for pid, words in children(supervisor).items() if role in words]
    return next(iter(children(found))) if role == "valkey" else found


def goals(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, beside what was."""
    rows = [
        ("seconds until predis up is ready", found["up_s"], _MOST_UP_S),
        *(
            (f"seconds without the cache, {role} killed", took["most"], _MOST_AWAY_S)
            for role, took in found["away_s"].items()
        ),
        ("CPU seconds of a gateway worker's start", max(found["cpu_s"]), _MOST_CPU_S),
    ]
    return [
        {"figure": figure, "measured": round(value, 2), "goal": f"< {goal:g}", "met": value < goal}
        for figure, value, goal in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    control, http, cache = free_ports(3)
    away: dict[str, list[float]] = {"cache": [], "valkey": []}
    spent: list[float] = []
    with tempfile.TemporaryDirectory() as home:
        flags = ["--home", home, "--control-port", str(control), "--http-port", str(http), "--grpc-port", "0"]
        begun = time.perf_counter()
        up = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "predis",
                "up",
                *flags,
                "--cache-port",
                str(cache),
                "--log-level",
                "error",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert up.stdout is not None
            greeting = next(line for line in up.stdout if "Predis is up" in line)
            started = time.perf_counter() - begun
            for _ in range(chosen.rounds):
                for role, took in away.items():
                    time.sleep(_PAUSE_S)
                    begun = time.perf_counter()
                    os.kill(victim_of(up.pid, role), signal.SIGKILL)
                    took.append(wait(cache, begun))
                    if role == "cache":
                        begun_anew = victim_of(up.pid, role)
                        calm([begun_anew])
                        spent.append(round(cpu_s(begun_anew), 3))
        finally:
            up.terminate()
            up.wait()
    found: dict[str, Any] = {
        "up_s": started,
        "greeting": greeting.strip(),
        "away_s": {
            role: {"median": statistics.median(took), "most": max(took)} for role, took in away.items()
        },
        "cpu_s": spent,
        "rounds": chosen.rounds,
        "load_average": os.getloadavg(),
    }
    found["goals"] = goals(found)
    print(json.dumps(found, indent=2))
    for row in found["goals"]:
        print(f"{row['figure']:45} {row['measured']:>8} {row['goal']:>8} {'met' if row['met'] else 'MISSED'}")
    if chosen.report:
        chosen.report.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
