from __future__ import annotations

from pathlib import Path

import pytest

from predis.cache.accesses import ALL, STRETCH, Observe, Observers, measured_costs
from predis.cache.ring import Flag, Looking, Producer
from predis.cache.ring_reader import Consumer, keys_of
from predis.settings import load

LOOK_S, PUT_S = 1e-6, 4e-6  # so that the default budget looks at 500 reads a second, and writes 62


class Time:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """Observers of one worker, a learner's ear, and sessions that are told what to call."""

    def __init__(self, folder: Path, *, budget: float = 0.001) -> None:
        self.time = Time()
        self.ring = Producer(folder / "0.ring", 1 << 16)
        self.ear = Consumer(folder / "0.ring")
        self.observers = Observers(self.ring, budget=budget, seed=1, costs=(LOOK_S, PUT_S), clock=self.time)
        self.calls: dict[int, Observe | None] = {}

    def connect(self, client: int) -> None:
        self.calls[client] = self.observers.for_client(
            client, lambda observe: self.calls.update({client: observe})
        )

    def read(self, client: int, key: bytes, *, hit: bool = True) -> bool:
        observe = self.calls[client]
        if observe is not None:
            observe(key, hit=hit, size=10)
        return observe is not None

    def turn(self, seconds: float = 1.0) -> None:
        self.time.now += seconds
        self.observers.turn()


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


class TestNobody:
    def test_without_a_ring_every_session_has_none(self) -> None:
        observers = Observers(None)
        assert observers.for_client(1) is None
        observers.turn()
        observers.gone(1)
        observers.close()

    def test_by_setting(self, tmp_path: Path) -> None:
        settings = load({"home": tmp_path, "cache_observe": 0}, environ={})
        assert Observers.of(settings, 0).for_client(1) is None
        assert not (tmp_path / "cache").exists()

    def test_a_ring_that_cannot_be_had_stops_no_worker(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = load({"home": tmp_path, "cache_ring_events": 1024}, environ={})
        first, second = Observers.of(settings, 0), Observers.of(settings, 0)
        assert second.for_client(1) is None
        assert "not observed" in caplog.text
        first.close()

    def test_nobody_listens(self, worker: Worker) -> None:
        worker.connect(1)
        worker.turn()
        assert worker.calls == {1: None}

    def test_the_learner_comes_and_goes(self, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        worker.connect(1)
        worker.ear.want(ALL)
        worker.ear.read()
        worker.turn()
        assert worker.calls[1] is not None
        monkeypatch.setattr(Producer, "heard_us", 0)
        worker.turn()
        assert worker.calls == {1: None}


class TestByKey:
    @pytest.fixture(autouse=True)
    def _listen(self, worker: Worker) -> None:
        worker.ear.want(ALL // 2)
        worker.ear.read()
        for client in (1, 2):
            worker.connect(client)
        worker.turn()

    def test_keys_below_the_threshold_of_every_client(self, worker: Worker) -> None:
        keys = [b"k%d" % number for number in range(60)]
        for key in keys:
            assert worker.read(1, key)
            assert worker.read(2, key, hit=False)
        events = worker.ear.read()
        assert set(events["flags"]) == {Flag.SPATIAL | Flag.HIT, Flag.SPATIAL}
        assert all(events["place"] < ALL // 2)
        found = keys_of(events)
        assert 15 <= len(found) / 2 <= 45
        assert sorted(set(found)) == sorted(found[::2])  # both clients' reads of each
        worker.turn()
        assert (worker.ear.looked, worker.ear.looking, worker.ear.threshold) == (120, Looking.AT_IT, ALL // 2)

    def test_more_than_can_be_written_lowers_the_threshold(self, worker: Worker) -> None:
        for number in range(400):
            worker.read(1, b"k%d" % number)
        worker.turn()
        assert worker.ear.threshold < ALL // 4
        for _ in range(200):  # and it rises again
            worker.turn()
        assert worker.ear.threshold == ALL // 2

    def test_more_than_the_budget_means_rests(self, worker: Worker) -> None:
        """5,000 reads a second at 1 us, of which 0.5 ms may be spent: a tenth of the time, in windows of a minute at least."""
        at_it = []
        for _ in range(3_000):
            worker.ear.read()
            for _ in range(100):
                worker.read(1, b"k")
            worker.observers.looked *= 50
            worker.turn()
            at_it.append(worker.ear.looking is Looking.AT_IT)
        share = sum(at_it) / len(at_it)
        assert 0.1 < share < 0.2  # the first window is on credit
        lengths = [len(part) for part in "".join("x" if on else " " for on in at_it).split()]
        assert min(lengths) >= 60

    def test_nothing_is_wanted(self, worker: Worker) -> None:
        worker.ear.want(0)
        worker.turn()
        assert worker.calls == {1: None, 2: None}
        assert worker.ear.looking is Looking.READY


class TestStretches:
    def test_a_stretch_is_whole_and_ends(self, tmp_path: Path) -> None:
        worker = Worker(tmp_path, budget=0.1)
        for client in range(1, 4):
            worker.connect(client)
        worker.ear.read()
        worker.turn()
        followed = [client for client, observe in worker.calls.items() if observe]
        assert followed
        client = followed[0]
        for number in range(2 * STRETCH):
            worker.read(client, b"k%d" % number)
        events = worker.ear.read()
        assert keys_of(events) == [b"k%d" % number for number in range(STRETCH)]
        assert events["flags"][0] == Flag.WHOLE | Flag.FIRST | Flag.HIT
        assert set(events["flags"][1:]) == {Flag.WHOLE | Flag.HIT}
        assert worker.calls[client] is None

    def test_within_the_budget(self, worker: Worker) -> None:
        """A quarter of 1 ms at 4 us: 62 reads a second."""
        for client in range(50):
            worker.connect(client)
        for _ in range(600):
            worker.ear.read()
            for client in range(50):
                for _ in range(20):
                    worker.read(client, b"k")
            worker.turn()
        assert 0.8 * 62 * 600 < worker.ring.written < 1.1 * 62 * 600 + STRETCH

    def test_a_quiet_client_is_left_after_a_while_and_a_gone_one_at_once(self, tmp_path: Path) -> None:
        worker = Worker(tmp_path, budget=0.01)
        worker.connect(1)
        worker.ear.read()
        worker.turn()
        assert worker.calls[1] is not None
        first = worker.calls[1]
        worker.turn(61)
        assert worker.calls[1] is not first
        worker.observers.gone(1)
        worker.turn()
        worker.observers.close()


def test_costs_are_measured() -> None:
    look_s, put_s = measured_costs()
    assert 0 < look_s < put_s
