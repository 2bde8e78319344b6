"""More than a worker can do, and the end of one that has something to do: every request gets its answer or a refusal, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from predis.registry import Field, Signature
from tests.installation import PATIENCE_S, Installation, running, settings_of, wait_for

pytestmark = pytest.mark.slow

SIGNATURE = Signature((Field("x", "FP64"),), (Field("y", "FP64"),), "y")
# Answers what it was asked, after a while for each row; or, for a negative number, when the file `go` is there.
SLOW_MODEL = """
import time
from pathlib import Path

FOLDER = Path({folder!r})

def predict(inputs):
    x = inputs["x"]
    if x.min() < 0:
        (FOLDER / "begun").touch()
        while not (FOLDER / "go").exists():
            time.sleep(0.01)
    time.sleep({seconds} * len(x))
    return x * 2
"""
SLOW, QUICK = "slow", "quick"


@dataclass(frozen=True)
class Answer:
    """What a server said, and the number it was asked about."""

    asked: float
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def right(self) -> bool:
        return bool(self.status == 200 and self.body["outputs"][0]["data"] == [2 * self.asked])

    @property
    def refused(self) -> bool:
        known = {(503, "overloaded"), (429, "tenant_overloaded")}
        return (self.status, self.body.get("code")) in known and int(self.headers["retry-after"]) > 0


class Connection:
    """One connection, kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._writer.close()

    async def ask(self, endpoint: str, x: float, **headers: str) -> Answer:
        tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [x]}
        body = json.dumps({"inputs": [tensor]})
        lines = [
            f"POST /v2/models/{endpoint}/infer HTTP/1.1",
            "host: 127.0.0.1",
            f"content-length: {len(body)}",
        ]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        found = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        content = await self._reader.readexactly(int(found["content-length"]))
        return Answer(x, int(head[0].split()[1]), found, json.loads(content))

    async def ended(self) -> bool:
        """Whether the server closes the connection, without a word."""
        return await asyncio.wait_for(self._reader.read(1), PATIENCE_S) == b""


class Site:
    """One worker with a slow endpoint and a quick one."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation = installation
        self.port = installation.settings.http_port
        self.folder = folder

    def add(self, endpoint: str, seconds: float) -> None:
        file = self.folder / "model.py"
        file.write_text(SLOW_MODEL.format(folder=str(self.folder), seconds=seconds))
        client = self.installation.client
        client.register(endpoint, file, format="python", signature=SIGNATURE.to_dict())
        client.create_endpoint(endpoint, endpoint)
        assert self.installation.finish(client.deploy(endpoint, 1)["id"])["state"] == "promoted"

    def connection(self) -> Connection:
        return Connection(self.port)

    async def flood(self, endpoint: str, connections: int, each: int) -> list[Answer]:
        """So many requests on each of so many connections, none of which waits for another."""

        async def one(number: int) -> list[Answer]:
            async with self.connection() as connection:
                return [await connection.ask(endpoint, float(number * each + n)) for n in range(each)]

        found = await asyncio.wait_for(asyncio.gather(*map(one, range(connections))), PATIENCE_S)
        return [answer for answers in found for answer in answers]

    @property
    def worker(self) -> int:
        return self.installation.supervisor.pids()["serving-0"]

    @property
    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self.worker}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 2**20

    async def begun(self) -> None:
        """Wait until a prediction has begun that lasts until it is let ``go`` on."""
        await asyncio.to_thread(wait_for, (self.folder / "begun").exists)

    def go(self) -> None:
        (self.folder / "go").touch()


@contextlib.contextmanager
def site(folder: Path, **more: Any) -> Iterator[Site]:
    home = folder / "home"
    home.mkdir()
    with running(settings_of(home, workers=1, allow_code=True, **more)) as installation:
        found = Site(installation, folder)
        found.add(SLOW, 0.01)
        found.add(QUICK, 0.0)
        yield found


def right(answers: Sequence[Answer]) -> int:
    """How many were answered; the others were refused as they should be."""
    assert all(answer.right or answer.refused for answer in answers), [
        a for a in answers if not a.right and not a.refused
    ][:3]
    return sum(answer.right for answer in answers)


@pytest.mark.parametrize("limit", [{"max_wait_ms": 100.0}, {"max_pending": 20}, {"tenant_pending": 20}])
def test_what_is_too_much_is_refused_and_the_rest_answered(tmp_path: Path, limit: dict[str, Any]) -> None:
    async def check(found: Site) -> None:
        await found.flood(SLOW, 10, 5)
        before = found.memory_mb
        answers = await found.flood(SLOW, 200, 10)
        assert len(answers) == 2_000
        assert 0 < right(answers) < 2_000
        assert {answer.status for answer in answers} == {200, 429 if "tenant_pending" in limit else 503}
        assert found.memory_mb < before + 32
        async with found.connection() as connection:
            assert (await connection.ask(SLOW, 5.0)).right

    with site(tmp_path, **limit) as found:
        asyncio.run(check(found))


def test_an_endpoint_with_too_much_to_do_does_not_cost_others(tmp_path: Path) -> None:
    async def check(found: Site) -> None:
        slow, quick = await asyncio.gather(found.flood(SLOW, 100, 10), found.flood(QUICK, 20, 50))
        assert right(slow) < 1_000
        assert right(quick) == 1_000

    with site(tmp_path, max_pending=20) as found:
        asyncio.run(check(found))


def test_whose_deadline_passes_is_told_so_then(tmp_path: Path) -> None:
    async def check(found: Site) -> None:
        async with found.connection() as first, found.connection() as second, found.connection() as third:
            held = asyncio.create_task(first.ask(SLOW, -1.0))
            await found.begun()
            patient = asyncio.create_task(second.ask(SLOW, 7.0, x_request_timeout_ms="60000"))
            for milliseconds in ("1", "200"):
                late = await third.ask(SLOW, 8.0, x_request_timeout_ms=milliseconds)
                assert (late.status, late.body["code"]) == (504, "deadline_exceeded")
            assert not held.done()
            assert not patient.done()
            found.go()
            assert (await held).right
            assert (await patient).right

    with site(tmp_path) as found:
        asyncio.run(check(found))


def test_a_worker_told_to_stop_finishes_what_it_has_begun(tmp_path: Path) -> None:
    async def check(found: Site) -> None:
        worker = found.worker
        async with contextlib.AsyncExitStack() as stack:
            busy = [await stack.enter_async_context(found.connection()) for _ in range(4)]
            idle = await stack.enter_async_context(found.connection())
            asked = [asyncio.create_task(one.ask(SLOW, -1.0 - n)) for n, one in enumerate(busy)]
            assert (await idle.ask(QUICK, 1.0)).headers.get("connection") != "close"
            await found.begun()
            os.kill(worker, signal.SIGTERM)
            assert await idle.ended()
            with pytest.raises(ConnectionError):
                async with found.connection():
                    pass
            assert not any(task.done() for task in asked)
            found.go()
            answers = await asyncio.gather(*asked)
        assert right(answers) == 4
        assert {answer.headers["connection"] for answer in answers} == {"close"}
        assert found.installation.restarts in ([], ["serving-0"])

    with site(tmp_path, drain_s=PATIENCE_S) as found:
        asyncio.run(check(found))
        wait_for(lambda: found.installation.restarts == ["serving-0"])
        wait_for(found.installation.ready)


def test_a_prediction_that_does_not_end_does_not_keep_a_worker(tmp_path: Path) -> None:
    ends = []

    async def check(found: Site) -> None:
        async with found.connection() as connection:
            asked = asyncio.create_task(connection.ask(SLOW, -1.0))
            await found.begun()
            worker = found.worker
            found.installation.supervisor._on_restart = lambda name, status: ends.append((name, status))
            os.kill(worker, signal.SIGTERM)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asked
        await asyncio.to_thread(wait_for, lambda: ends)

    with site(tmp_path, drain_s=0.5) as found:
        asyncio.run(check(found))
    assert ends == [("serving-0", 0)]
