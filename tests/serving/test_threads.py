from __future__ import annotations

import gc
import logging
import threading
import weakref

import pytest

from predis.serving.threads import Threads


class Gate:
    """Work that lasts until it is let go."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.open.wait(30)


def finished(threads: Threads) -> None:
    """Wait until what was handed over before is done."""
    done = threading.Event()
    threads.submit(done.set)
    assert done.wait(30)


def test_one_thread_works_in_the_order_of_handing_over() -> None:
    threads, order = Threads(1, "t"), []
    for number in range(50):
        threads.submit(lambda number=number: order.append(number))  # type: ignore[misc]
    finished(threads)
    assert order == list(range(50))


def test_as_many_at_once_as_allowed_and_no_more() -> None:
    threads, gates = Threads(2, "t"), [Gate() for _ in range(3)]
    for gate in gates:
        threads.submit(gate)
    assert gates[0].entered.wait(30)
    assert gates[1].entered.wait(30)
    assert not gates[2].entered.is_set()
    gates[0].open.set()
    assert gates[2].entered.wait(30)
    for gate in gates:
        gate.open.set()
    finished(threads)


def test_threads_are_started_when_they_are_needed_and_used_again() -> None:
    threads, names = Threads(4, "needed"), set()
    assert not any(thread.name.startswith("needed") for thread in threading.enumerate())
    for _time in range(20):
        done = threading.Event()
        threads.submit(lambda done=done: (names.add(threading.current_thread().name), done.set()))  # type: ignore[misc]
        assert done.wait(30)
    assert names <= {"needed-1", "needed-2"}  # one that has just set the event may not idle yet
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("needed"))


def test_work_that_fails_is_logged_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    threads = Threads(1, "t")
    with caplog.at_level(logging.ERROR):
        threads.submit(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        finished(threads)
    assert "ZeroDivisionError" in caplog.text


def test_closing_forgets_what_has_not_begun_and_tells_of_what_has() -> None:
    threads, gate, forgotten = Threads(1, "t"), Gate(), threading.Event()
    assert threads.close()
    threads.submit(gate)
    assert gate.entered.wait(30)
    threads.submit(forgotten.set)
    assert not threads.close()
    gate.open.set()
    finished(threads)
    assert not forgotten.is_set()
    while not threads.close():
        pass


def test_closing_ends_the_threads() -> None:
    threads, gate = Threads(2, "closed"), Gate()
    threads.submit(gate)
    assert gate.entered.wait(30)
    finished(threads)  # by the other one, which idles then
    started = [thread for thread in threading.enumerate() if thread.name.startswith("closed")]
    assert len(started) == 2
    assert not threads.close()
    gate.open.set()
    for thread in started:
        thread.join(30)
        assert not thread.is_alive()


def test_a_thread_that_idles_keeps_nothing_alive() -> None:
    class Model:
        def predict(self) -> None:
            pass

    threads, model = Threads(1, "t"), Model()
    kept = weakref.ref(model)
    threads.submit(model.predict)
    finished(threads)
    del model
    gc.collect()
    assert kept() is None
