"""What the window takes in."""

from __future__ import annotations

from predis.loadtest.recorder import Recorder


def test_nothing_is_measured_before_there_is_a_window() -> None:
    recorder = Recorder()
    recorder.answered(1.0, 2.0)
    recorder.failed(1.0, "timeout")
    recorder.due(1.0, 1.1)
    recorder.waited(3, 1.0)
    found = recorder.cut(1)
    assert (
        found.answered,
        found.latency.total,
        found.lateness.total,
        found.errors.total(),
        found.waited,
    ) == (0, 0, 0, 0, 0)


def test_a_request_is_measured_if_it_began_in_the_window() -> None:
    recorder = Recorder()
    recorder.window(10.0, 20.0)
    recorder.answered(9.0, 10.5)  # asked while warming up
    recorder.answered(19.0, 25.0)  # answered after the end
    recorder.answered(12.0, 12.5)
    recorder.failed(9.9, "timeout")
    recorder.failed(19.9, "timeout")
    found = recorder.cut(1)
    assert found.answered == 2  # what the server did within the window, whenever it was asked
    assert (found.latency.total, found.latency.least, found.latency.most) == (2, 0.5, 6.0)
    assert found.errors == {"timeout": 1}


def test_the_first_word_on_each_kind_of_error_is_kept() -> None:
    recorder = Recorder()
    recorder.window(0.0, 1.0)
    recorder.failed(0.1, "HTTP 400", sample="x" * 1_000)
    recorder.failed(0.2, "HTTP 400", sample="another")
    assert recorder.cut(1).samples == {"HTTP 400": "x" * 300}


def test_a_cut_takes_what_came_since_the_last() -> None:
    recorder = Recorder()
    recorder.window(0.0, 10.0)
    recorder.answered(0.5, 0.6)
    recorder.due(0.5, 0.7)
    recorder.waited(2, 0.5)
    first = recorder.cut(1)
    recorder.answered(1.5, 1.6)
    second = recorder.cut(2)
    assert (first.second, first.answered, first.lateness.total, first.waited) == (0, 1, 1, 2)
    assert (second.second, second.answered, second.lateness.total, second.waited) == (1, 1, 0, 0)
