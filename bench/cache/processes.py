"""What the kernel says of processes: the processor and memory they took, what they have open."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_LOOK_S, _PATIENCE_S = 0.5, 60.0
_CALM, _LOOKS = 0.05, 6  # share of a core, and how many looks in a row must find no more


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, all its threads, as the scheduler counted them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def calm(pids: Sequence[int]) -> None:
    """Wait until processes do next to nothing: what they import late, open and look at first is done.

    Raises:
        TimeoutError
    """
    deadline, quiet = time.monotonic() + _PATIENCE_S, 0
    spent = [cpu_s(pid) for pid in pids]
    while time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        before, spent = spent, [cpu_s(pid) for pid in pids]
        busy = any(now - then > _CALM * _LOOK_S for then, now in zip(before, spent, strict=True))
        quiet = 0 if busy else quiet + 1
        if quiet == _LOOKS:
            return
    raise TimeoutError(f"of the processes {list(pids)} some are still at work")


def resident(pids: Sequence[int]) -> int:
    """Bytes of memory."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)


def files(pids: Sequence[int]) -> int:
    """How many they have open."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def listens(pid: int, port: int) -> bool:
    """Whether a process has a socket that listens on the port."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inodes = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1][-4:], 16) == port}
    with suppress(OSError):
        return any(os.readlink(file) in inodes for file in Path(f"/proc/{pid}/fd").iterdir())
    return False
