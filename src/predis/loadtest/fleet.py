"""The processes of a load test, started together, listened to, and added up."""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import uvloop

from predis.errors import PredisError, Unavailable, Unreachable
from predis.loadtest import arrivals
from predis.loadtest.generator import ClosedLoop, Generator, OpenLoop, reason_of
from predis.loadtest.load import Load, Target
from predis.loadtest.recorder import Recorder, Slice
from predis.loadtest.result import Point, Result, Usage

_LEAD_S = 0.2
_OTHER_FILES = 64


def run(
    target: Target, load: Load, *, processes: int = 1, on_second: Callable[[Point], None] = lambda _: None
) -> Result:
    """Put one load on a server and tell how it did.

    Args:
        processes: generator processes; each takes its share of connections and rate.
        on_second: called with each second of the window as it ends.

    Raises:
        Unreachable: no connection can be opened.
        Unavailable: a generator process ended on its own.
    """
    processes = max(1, min(processes, load.connections))
    context = multiprocessing.get_context("spawn")
    children, pipes = [], []
    try:
        for index in range(processes):
            ours, theirs = context.Pipe()
            child = context.Process(
                target=_generate,
                args=(theirs, target),
                kwargs={"load": load, "place": (index, processes)},
                daemon=True,
            )
            child.start()
            theirs.close()
            children.append(child)
            pipes.append(ours)
        for pipe in pipes:
            _heard(pipe)
        start = time.perf_counter() + _LEAD_S
        for pipe in pipes:
            pipe.send(start)
        return _listen(pipes, Result(load), on_second=on_second)
    finally:
        for child in children:
            child.terminate()
            child.join()
        for pipe in pipes:
            pipe.close()


def _listen(pipes: list[Any], result: Result, *, on_second: Callable[[Point], None]) -> Result:
    seconds: dict[int, list[Slice]] = {}
    usage: list[Usage] = []
    open_pipes = list(pipes)
    while open_pipes:
        for pipe in wait(open_pipes):
            heard = _heard(pipe)
            if isinstance(heard, Usage):
                usage.append(heard)
                open_pipes.remove(pipe)
                continue
            parts = seconds.setdefault(heard.second, [])
            parts.append(heard)
            if len(parts) == len(pipes):
                on_second(result.add(seconds.pop(heard.second)))
    for second in sorted(seconds):
        on_second(result.add(seconds[second]))
    result.usage = tuple(usage)
    return result


def _heard(pipe: Any) -> Any:
    """What a process says next; its error is raised here."""
    try:
        found = pipe.recv()
    except (EOFError, ConnectionError):
        raise Unavailable("a process of the load generator ended on its own; was it killed?") from None
    if isinstance(found, PredisError):
        raise found
    return found


def _generate(pipe: Pipe, target: Target, *, load: Load, place: tuple[int, int]) -> None:
    """A generator process, from its first to its last word."""
    gc.freeze()  # what is there now is never garbage
    _allow_files(load.connections)
    try:
        uvloop.run(_Process(pipe, target, load=load, place=place).run())
    except PredisError as error:
        pipe.send(error)
    except (BrokenPipeError, KeyboardInterrupt):  # nobody listens any more
        pass


def _allow_files(connections: int) -> None:
    """Raise the limit on open files, as far as this user may, where the connections need it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _times() -> tuple[float, float, float]:
    """Seconds that have passed, that this process has run, and that it could have run but was given no core; zero where that is unknown."""
    try:
        waited_ns = int(Path("/proc/self/schedstat").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        waited_ns = 0
    return time.perf_counter(), time.process_time(), waited_ns / 1e9


class _Process:
    """One process's part of the test.

    Args:
        place: its number, and how many there are.
    """

    def __init__(self, pipe: Pipe, target: Target, *, load: Load, place: tuple[int, int]) -> None:
        self._pipe = pipe
        self._load = load.share(*place)
        self._place = place
        self._recorder = Recorder()
        index, count = place
        first = index * len(target.requests) // count
        self._loop: type[Generator] = ClosedLoop if load.rate is None else OpenLoop
        self._generator = self._loop(target, self._load, recorder=self._recorder, first=first)
        self._address = f"{target.host}:{target.port}"

    async def run(self) -> None:
        load = self._load
        try:
            await self._generator.connect()
        except OSError as error:
            raise Unreachable(f"no connection to {self._address}: {reason_of(error)}") from None
        self._pipe.send("ready")
        start: float = self._pipe.recv()
        begin = start + load.warmup_s
        self._recorder.window(begin, begin + load.duration_s)
        if isinstance(self._generator, OpenLoop):
            self._generator.schedule(start + moment for moment in self._due())
        await asyncio.sleep(max(start - time.perf_counter(), 0.0))
        telling = asyncio.create_task(self._tell_seconds())
        before = _times()
        await self._generator.run()
        wall, used, waited = (after - earlier for after, earlier in zip(_times(), before, strict=True))
        telling.cancel()
        self._pipe.send(self._recorder.cut(0))
        self._pipe.send(Usage(used / wall, waited / wall))

    def _due(self) -> Any:
        index, count = self._place
        assert self._load.rate is not None
        if self._load.poisson:
            return arrivals.poisson(self._load.rate, seed=index)
        return arrivals.constant(self._load.rate, offset=index / count)

    async def _tell_seconds(self) -> None:
        """Hand each second over as it ends."""
        for second in itertools.count(1):
            await asyncio.sleep(max(self._recorder.begin + second - time.perf_counter(), 0.0))
            self._pipe.send(self._recorder.cut(second))
