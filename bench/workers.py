"""Several workers on one port, and what changes cost their clients. See README.md beside this file.

    following   a Route is written to the state database: how long until no connection meets the old one any more
    ends        workers are told to stop, or killed, in turn: requests asked, and those that had to be asked a second time
    reloads     two versions of a model in turn: memory of all workers

A second time is asked only where a request went out and its connection ended without an answer, or where connecting was refused. A
connection that the server closes in between is replaced, which is how HTTP works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from predis.serving.route import Split
from predis.serving.store import Endpoint, ServingStore
from predis.state import Database
from tests import toys
from tests.installation import Installation, running, settings_of, wait_for

CONNECTIONS_A_WORKER = 6
PAUSE_S = 0.002
REQUEST = {
    "inputs": [
        {"name": "x", "datatype": "FP64", "shape": [1], "data": [0.5]},
        {"name": "z", "datatype": "FP64", "shape": [1], "data": [0.5]},
        {"name": "kind", "datatype": "BYTES", "shape": [1], "data": ["a"]},
    ]
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument(
        "--ends", type=int, default=12, help="workers that are told to stop, and that are killed"
    )
    parser.add_argument("--reloads", type=int, default=50)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"command": " ".join(["bench/workers.py", *sys.argv[1:]])}
    with site(arguments.workers) as made:
        found["following"] = asyncio.run(following(made, arguments.changes))
        for name, number in (("stopped", signal.SIGTERM), ("killed", signal.SIGKILL)):
            found[name] = asyncio.run(ends(made, number, times=arguments.ends))
        found["reloads"] = reloads(made, arguments.reloads)
    found["load_average"] = os.getloadavg()[0]
    print(json.dumps(found, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


class Site:
    """An installation whose endpoint has two versions in memory, and its state database."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation = installation
        self.folder = folder
        self.database = Database(installation.settings.database_url)
        self.store = ServingStore(self.database)

    def close(self) -> None:
        self.database.close()

    @property
    def connections(self) -> int:
        return CONNECTIONS_A_WORKER * self.installation.settings.workers

    def put(self, weights: dict[int, float]) -> int:
        """Write a Route; its number."""
        endpoint = Endpoint("default", toys.ENDPOINT, toys.MODEL, 0, {}, 0)
        with self.database.write() as connection:
            return self.store.put_route(
                connection, endpoint, route=Split(weights), reason="bench", at=time.time_ns(), actor="bench"
            ).number

    def follow(self, weights: dict[int, float]) -> None:
        """Write a Route, and wait until every worker says that it has applied it."""
        number = self.put(weights)
        name = f"default/{toys.ENDPOINT}"
        wait_for(lambda: {worker.applied.get(name) for worker in self.store.workers()} == {number})

    def pids(self) -> dict[str, int]:
        return {n: pid for n, pid in self.installation.supervisor.pids().items() if n.startswith("serving")}

    def memory_mb(self) -> float:
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids().values())
        return round(pages * os.sysconf("SC_PAGESIZE") / 2**20, 1)


@contextmanager
def site(workers: int) -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        with running(settings_of(home, workers=workers, log_level="error")) as installation:
            installation.deploy_toy(Path(folder))
            made = Site(installation, Path(folder))
            for sign in (-1.0, 1.0, -1.0):
                register(made, sign)
            made.follow({1: 1.0, 2: 0.0})
            yield made
            made.close()


def register(made: Site, sign: float) -> None:
    """A further version; from the third on they are large."""
    large = len(made.installation.client.versions(toys.MODEL)) > 1
    file = made.folder / "model.txt"
    file.write_bytes(toys.booster(sign=sign, repeats=1_000 if large else 1))
    made.installation.client.register(toys.MODEL, file, format="lightgbm", signature=toys.SIGNATURE.to_dict())


class Asker:
    """One connection that asks again and again, and notes which version answered when."""

    def __init__(self, port: int) -> None:
        self._port = port
        body = json.dumps(REQUEST)
        self._request = (
            f"POST /v2/models/{toys.ENDPOINT}/infer HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.answers: list[tuple[float, int]] = []
        self.again = 0
        self.failed = 0

    async def run(self) -> None:
        while True:
            try:
                await self._ask()
            except (ConnectionError, asyncio.IncompleteReadError):
                self.again += 1
                self._close()
            await asyncio.sleep(PAUSE_S)

    async def _ask(self) -> None:
        if self._streams is not None and self._streams[0].at_eof():
            self._close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        if head.split()[1] == b"200":
            self.answers.append((time.time(), int(answer["model_version"])))
        else:
            self.failed += 1
        if b"connection: close" in head:
            self._close()

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Askers:
    """Steady requests over many connections while it lasts."""

    def __init__(self, made: Site) -> None:
        self.each = [Asker(made.installation.settings.http_port) for _ in range(made.connections)]

    async def __aenter__(self) -> Askers:
        self._tasks = [asyncio.create_task(asker.run()) for asker in self.each]
        await self.go_on()
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def go_on(self, times: int = 10) -> None:
        goals = [len(asker.answers) + times for asker in self.each]
        await until(lambda: all(len(a.answers) >= goal for a, goal in zip(self.each, goals, strict=True)))

    def counts(self) -> dict[str, int]:
        return {
            "answered": sum(len(asker.answers) for asker in self.each),
            "asked_again": sum(asker.again for asker in self.each),
            "failed": sum(asker.failed for asker in self.each),
        }


async def following(made: Site, changes: int) -> dict[str, Any]:
    delays = []
    async with Askers(made) as askers:
        for number in range(changes):
            new = 2 - number % 2
            await asyncio.to_thread(made.put, {new: 1.0, 3 - new: 0.0})
            changed_at = time.time()
            await until(lambda n=new: {asker.answers[-1][1] for asker in askers.each} == {n})
            await askers.go_on(3)
            old = max(at for asker in askers.each for at, version in asker.answers[-2_000:] if version != new)
            delays.append((old - changed_at) * 1e3)
        counts = askers.counts()
    return {
        "changes": changes,
        "workers": made.installation.settings.workers,
        **counts,
        "last_old_answer_ms": spread(delays),
    }


async def ends(made: Site, number: int, *, times: int) -> dict[str, Any]:
    away = []
    async with Askers(made) as askers:
        for turn in range(times):
            name = sorted(made.pids())[turn % len(made.pids())]
            victim = made.pids()[name]
            os.kill(victim, number)
            ended_at = time.time()
            await asyncio.to_thread(wait_for, lambda n=name, v=victim: made.pids().get(n, v) != v)
            pid = made.pids()[name]
            await asyncio.to_thread(
                wait_for, lambda p=pid: p in {worker.pid for worker in made.store.workers()}
            )
            away.append((time.time() - ended_at) * 1e3)
            await askers.go_on()
        counts = askers.counts()
    return {"workers": times, **counts, "until_the_next_works_ms": spread(away)}


def reloads(made: Site, times: int) -> dict[str, Any]:
    made.installation.client.predict(toys.ENDPOINT, {"x": 0.5, "z": 0.5, "kind": "a"})
    used = []
    for number in range(times):
        made.follow({3 + number % 2: 1.0})
        time.sleep(0.5)  # what is not named any more is given back a look later
        used.append(made.memory_mb())
    return {"reloads": times, "memory_mb": used, "first_and_last_ten": [max(used[5:15]), max(used[-10:])]}


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 - what is waited for happens in other processes
        await asyncio.sleep(0.005)


def spread(values: Iterable[float]) -> dict[str, float]:
    found = sorted(values)
    return {
        "least": round(found[0], 1), "median": round(statistics.median(found), 1),
        "p90": round(found[int(0.9 * (len(found) - 1))], 1), "most": round(found[-1], 1),
    }  # fmt: skip


if __name__ == "__main__":
    main()
