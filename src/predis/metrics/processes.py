"""What the kernel says of a process: memory, CPU time, start and open files. Linux; elsewhere nothing is known."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks after the machine's start; 0 where that is not known.

    A process id is used again; together with its start it is not.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def usage(pid: int, ticks: int) -> Mapping[str, float]:
    """Metrics of a process by name; none where it is not the one that started then."""
    fields = _stat(pid)
    if not fields or int(fields[19]) != ticks:
        return {}
    try:
        files = len(os.listdir(_PROC / str(pid) / "fd"))
    except OSError:
        return {}
    hertz = os.sysconf("SC_CLK_TCK")
    return {
        "predis_process_resident_bytes": float(int(fields[21]) * os.sysconf("SC_PAGE_SIZE")),
        "predis_process_cpu_seconds_total": (int(fields[11]) + int(fields[12])) / hertz,
        "predis_process_start_time_seconds": _booted_at() + ticks / hertz,
        "predis_process_open_fds": float(files),
    }


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on: the second is a name in brackets that may hold anything."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("ascii", "replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


@cache
def _booted_at() -> float:
    lines = (_PROC / "stat").read_text("ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))
