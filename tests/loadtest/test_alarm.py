"""The alarm: never early, as soon as possible when late, once, and not after it was cancelled."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from predis.loadtest.alarm import Alarm


@pytest.fixture(params=["timerfd", "loop"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to be woken."""
    if request.param == "timerfd" and sys.platform != "linux":
        pytest.skip("Linux has it")
    if request.param == "loop":
        monkeypatch.setattr(sys, "platform", "other")


@pytest.mark.usefixtures("platform")
def test_it_rings_at_its_moment_and_not_before() -> None:
    async def run() -> float:
        rung: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        alarm = Alarm(asyncio.get_running_loop(), lambda: rung.set_result(time.perf_counter()))
        moment = time.perf_counter() + 0.02
        alarm.set(moment)
        at = await rung
        alarm.close()
        return at - moment

    assert asyncio.run(run()) > -0.001  # a loop's timer is rounded by less than a millisecond


@pytest.mark.usefixtures("platform")
def test_a_moment_that_has_passed_rings_at_once() -> None:
    async def run() -> None:
        rung = asyncio.Event()
        alarm = Alarm(asyncio.get_running_loop(), rung.set)
        alarm.set(time.perf_counter() - 1)
        await rung.wait()
        alarm.close()

    asyncio.run(run())


@pytest.mark.usefixtures("platform")
def test_setting_it_again_moves_it_and_cancelling_stops_it() -> None:
    async def run() -> int:
        count = 0
        other = asyncio.Event()

        def ring() -> None:
            nonlocal count
            count += 1

        loop = asyncio.get_running_loop()
        moved, cancelled, last = Alarm(loop, ring), Alarm(loop, ring), Alarm(loop, other.set)
        now = time.perf_counter()
        moved.set(now + 0.005)
        moved.set(now + 0.01)
        cancelled.set(now + 0.005)
        cancelled.cancel()
        last.set(now + 0.05)
        await other.wait()
        for alarm in (moved, cancelled, last):
            alarm.close()
            alarm.close()
        return count

    assert asyncio.run(run()) == 1
