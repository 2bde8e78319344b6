from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from predis.metrics import TABLE, processes


def test_the_kernel_knows_this_process() -> None:
    found = processes.usage(os.getpid(), processes.start_ticks(os.getpid()))
    assert found["predis_process_resident_bytes"] > 10e6
    assert found["predis_process_cpu_seconds_total"] > 0
    assert found["predis_process_open_fds"] >= 3
    assert found["predis_process_start_time_seconds"] <= time.time() + 1
    assert found.keys() <= TABLE.keys()
    assert {TABLE[name].by for name in found} == {"process"}


def test_a_process_id_that_was_given_away_again_is_another_process() -> None:
    assert processes.usage(os.getpid(), processes.start_ticks(os.getpid()) + 1) == {}


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    assert processes.start_ticks(gone.pid) == 0
    assert processes.usage(gone.pid, 0) == {}


def test_a_name_with_brackets_and_spaces_does_not_confuse(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = ["S", *map(str, range(4, 53))]
    monkeypatch.setattr(processes.Path, "read_text", lambda *_: f"7 (a) b ( c) {' '.join(fields)}\n")
    assert processes.start_ticks(7) == 22
