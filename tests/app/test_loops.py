"""Duties of the control role: they outlive errors, stop when told, and leave the processor to what cannot wait."""

from __future__ import annotations

import logging
import os
import sys
import threading

import pytest

from predis.app.loops import Loop
from predis.errors import Unavailable


def test_goes_on_after_any_error_and_stops(caplog: pytest.LogCaptureFixture) -> None:
    rounds, enough = [], threading.Event()

    def work() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise Unavailable("the database is away")
        if len(rounds) == 2:
            raise RuntimeError("what is this")
        enough.set()

    loop = Loop("ingest", 0.001, work=work)
    with caplog.at_level(logging.WARNING, logger="predis.app.loops"):
        loop.start()
        assert enough.wait(10)
        loop.stop()
    count = len(rounds)
    assert "ingest: the database is away; trying again" in caplog.text
    assert "ingest failed; trying again" in caplog.text
    assert len(rounds) == count


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priorities of their own")
@pytest.mark.parametrize(("background", "lower"), [(True, 10), (False, 0)])
def test_what_may_wait_leaves_the_processor_to_others(background: bool, lower: int) -> None:
    found: list[int] = []
    done = threading.Event()

    def work() -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        done.set()

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    loop = Loop("log", 3_600.0, work=work, background=background)
    loop.start()
    assert done.wait(10)
    loop.stop()
    assert found == [min(before + lower, 19)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_a_stop_does_not_wait_for_the_period() -> None:
    begun = threading.Event()
    loop = Loop("housekeeping", 3_600.0, work=begun.set)
    loop.start()
    assert begun.wait(10)
    loop.stop(timeout_s=60.0)
    assert not loop._thread.is_alive()
