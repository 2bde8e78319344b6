"""Tens of thousands of connections to one cache port: what an idle one costs, what it costs the others, and what is left of it.

A worker may have as many files open as ``ulimit -Hn`` says, and keeps two for each client, so several workers share the port. Clients
connect from several addresses of loopback: one address has some 28,000 ports.
"""

from __future__ import annotations

import multiprocessing as mp
import resource
import socket
import statistics
import time
from collections.abc import Sequence
from typing import Any

from bench.cache.processes import calm, files, resident
from predis.cache.resp import command

HELD_EACH = 10_000  # connections of one client process
_WORKING, _ROUNDS, _SENDING = 50, 9, 1_000
_PATIENCE_S = 30.0


def hold(port: int, count: int, *, source: str, ready: Any, end: Any) -> None:
    """Hold idle connections, in a process of its own."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = [socket.create_connection(("127.0.0.1", port), 60, (source, 0)) for _ in range(count)]
    ready.put(len(held))
    end.wait()
    for one in held:
        one.close()


def together(made: Sequence[socket.socket], rounds: int) -> float:
    """Median microseconds from a command of each connection to the last reply."""
    took, asked = [], command(b"GET", b"key:12345")
    for _ in range(rounds):
        begun = time.perf_counter()
        for one in made:
            one.sendall(asked)
        for one in made:
            one.recv(4096)
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e6


def crowd(port: int, pids: Sequence[int], idle: int) -> dict[str, Any]:
    """Fifty connections that work, without and with many that do nothing; then all of them close.

    Args:
        pids: of the workers that share the port.
    """
    calm(pids)
    at_rest = files(pids)
    made = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(_WORKING)]
    together(made, 100)
    alone = [together(made, 100) for _ in range(_ROUNDS)]
    size = resident(pids)
    context = mp.get_context("spawn")
    ready, end = context.Queue(), context.Event()
    counts = [min(HELD_EACH, idle - at) for at in range(0, idle, HELD_EACH)]
    holders = [
        context.Process(
            target=hold,
            args=(port, count),
            kwargs={"source": f"127.0.0.{2 + i}", "ready": ready, "end": end},
        )
        for i, count in enumerate(counts)
    ]
    for holder in holders:
        holder.start()
    held = sum(ready.get(timeout=120) for _ in holders)
    seen = _until(lambda: files(pids) >= at_rest + held)
    beside = [together(made, 100) for _ in range(_ROUNDS)]
    empty = (resident(pids) - size) / held
    sending = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(_SENDING)]
    size = resident(pids)
    for one in sending:
        one.sendall(b"PING\r\n")
        one.recv(16)
    used = (resident(pids) - size) / _SENDING
    end.set()
    for holder in holders:
        holder.join()
    for one in (*made, *sending):
        one.close()
    _until(lambda: files(pids) <= at_rest)
    return {
        "workers": len(pids),
        "held": held,
        "all accepted": seen,
        "bytes of one that sent nothing": round(empty),
        "more bytes of one that has sent something": round(used),
        f"us for a command on each of {_WORKING}, alone": round(statistics.median(alone), 1),
        f"us for a command on each of {_WORKING}, beside them": round(statistics.median(beside), 1),
        "files left open when all were closed": files(pids) - at_rest,
    }


def refusal(port: int, most: int) -> str:
    """What a client reads that is one too many."""
    held = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(most)]
    for one in held:
        one.sendall(b"PING\r\n")
        one.recv(16)
    with socket.create_connection(("127.0.0.1", port), 20) as refused:
        said = refused.recv(200).decode().strip()
        closed = refused.recv(200) == b""
    for one in held:
        one.close()
    return said if closed else f"{said} (and it was not closed)"


def _until(condition: Any) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
