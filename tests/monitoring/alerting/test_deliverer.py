"""At least once, in order, whoever dies and whatever is down."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from predis.clock import ManualClock
from predis.metrics import Metrics
from predis.monitoring.alerting.channels import wire
from predis.monitoring.alerting.channels.webhook import verify
from predis.monitoring.alerting.deliverer import GIVE_UP_S, LEASE_S, Deliverer, pause_s
from predis.monitoring.alerting.secrets import Secrets
from predis.state import Database
from tests.monitoring.alerting.receivers import Receiver, Request
from tests.monitoring.alerting.worlds import SECRET, World, finding
from tests.toys import TENANT

only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def hooked(world: World, receiver: Receiver) -> World:
    world.route(url=receiver.url)
    return world


def events(receiver: Receiver) -> list[str]:
    return [request.json["event"] for request in receiver.requests]


def test_told_and_over(hooked: World, receiver: Receiver) -> None:
    hooked.look(finding())
    hooked.pump()
    hooked.resolve()
    hooked.pump()
    hooked.pump()
    assert events(receiver) == ["raised", "resolved"]
    request = receiver.requests[0]
    verify(
        SECRET, request.body, header=request.headers["predis-signature"], now_s=hooked.clock.time_ns() / 1e9
    )
    assert {row["state"] for row in hooked.rows()} == {"sent"}


def test_a_receiver_that_was_down_misses_nothing_and_nothing_overtakes(
    hooked: World, receiver: Receiver
) -> None:
    receiver.answer = lambda _request: 503
    hooked.look(finding())
    hooked.resolve()
    for _ in range(4):
        hooked.pump()
        hooked.clock.advance(30)
    assert events(receiver) == ["raised"] * 4  # the second waits for the first
    assert "status 503" in hooked.rows()[0]["error"]
    receiver.answer = lambda _request: 200
    hooked.restart()
    for _ in range(2):
        hooked.clock.advance(700)
        hooked.pump()
    assert events(receiver)[4:] == ["raised", "resolved"]
    assert len({r.headers["idempotency-key"] for r in receiver.requests[:5]}) == 1


def test_pauses_double_with_jitter_up_to_ten_minutes() -> None:
    assert [pause_s(n, chance=0.0) for n in (1, 2, 5, 99)] == [0.5, 1.0, 8.0, 300.0]
    assert [pause_s(n, chance=1.0) for n in (1, 2, 5, 99)] == [1.0, 2.0, 16.0, 600.0]


@only_sqlite
class TestFailures:
    def test_given_up_after_a_day_and_then_the_next(self, hooked: World, receiver: Receiver) -> None:
        receiver.answer = lambda _request: 500
        hooked.look(finding())
        hooked.resolve()
        while hooked.rows()[0]["state"] == "waiting":
            hooked.pump()
            hooked.clock.advance(600)
        first = hooked.rows()[0]
        assert first["state"] == "failed"
        assert first["ended_at"] - first["created_at"] > (GIVE_UP_S - 1_200) * 1e9
        receiver.answer = lambda _request: 200
        hooked.pump()
        assert events(receiver)[-1] == "resolved"

    def test_what_will_never_be_taken_is_given_up_at_once(self, hooked: World, receiver: Receiver) -> None:
        receiver.answer = lambda _request: 400
        hooked.look(finding())
        hooked.pump()
        (row,) = hooked.rows()
        assert (row["state"], row["attempts"], row["error"]) == ("failed", 1, "status 400: {}")
        (listed,) = hooked.desk.book.listed(TENANT)
        assert (listed["failed"], listed["error"]) == (1, "status 400: {}")

    def test_retry_after_is_honoured(self, hooked: World, receiver: Receiver) -> None:
        receiver.answer, receiver.more = lambda _request: 429, {"retry-after": "120"}
        hooked.look(finding())
        hooked.pump()
        hooked.clock.advance(119)
        hooked.pump()
        assert len(receiver.requests) == 1
        hooked.clock.advance(1)
        hooked.pump()
        assert len(receiver.requests) == 2

    def test_a_clock_that_jumps_ahead_ends_nothing(self, hooked: World, receiver: Receiver) -> None:
        receiver.answer = lambda _request: 503
        hooked.look(finding())
        hooked.clock.advance(30 * 86_400)
        for _ in range(3):
            hooked.pump()
            hooked.clock.advance(600)
        assert hooked.rows()[0]["state"] == "waiting"
        receiver.answer = lambda _request: 200
        hooked.pump()
        assert hooked.rows()[0]["state"] == "sent"

    def test_a_clock_that_jumps_back_delays_nothing(self, hooked: World, receiver: Receiver) -> None:
        receiver.answer = lambda _request: 503
        hooked.look(finding())
        hooked.pump()
        hooked.clock.advance(-86_400)
        receiver.answer = lambda _request: 200
        hooked.pump()
        assert hooked.rows()[0]["state"] == "sent"

    def test_a_receiver_that_answers_by_the_byte_is_left(
        self, hooked: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wire, "PATIENCE_S", 0.3)
        with dripping() as url:
            hooked.route("slow", url=url)
            hooked.look(finding())
            hooked.pump()
        (row,) = hooked.rows("slow")
        assert (row["state"], row["error"]) == ("waiting", "no whole answer within 0.3 s")

    def test_a_missing_secret_may_be_put_there(self, hooked: World, receiver: Receiver) -> None:
        secret = hooked.folder / "hook"
        kept = secret.read_text()
        secret.unlink()
        hooked.look(finding())
        hooked.pump()
        assert "put it into the file hook" in hooked.rows()[0]["error"]
        secret.write_text(kept)
        hooked.clock.advance(2)
        hooked.pump()
        assert events(receiver) == ["raised"]

    def test_counted(self, hooked: World, receiver: Receiver, tmp_path: Path) -> None:
        metrics = Metrics(tmp_path / "metrics", "control")
        hooked.desk.deliverer = Deliverer(
            hooked.database, Secrets(hooked.folder), clock=hooked.clock, metrics=metrics
        )
        receiver.answer = lambda _request: 503
        hooked.look(finding())
        hooked.pump()
        hooked.desk.deliverer.measure()
        assert metrics.gauge("predis_alert_deliveries_waiting").value == 1
        receiver.answer = lambda _request: 200
        hooked.clock.advance(3)
        hooked.pump()

        def count(outcome: str) -> float:
            return metrics.counter("predis_alert_deliveries_total", channel="webhook", outcome=outcome).value

        assert (count("retried"), count("sent"), count("failed")) == (1, 1, 0)
        assert metrics.histogram("predis_alert_delivery_seconds", channel="webhook").sum == pytest.approx(3)


@only_sqlite
def test_a_dead_receiver_does_not_hold_up_others(hooked: World, receiver: Receiver) -> None:
    let_go = threading.Event()

    def hangs(_request: Request) -> int:
        let_go.wait(30)
        return 200

    with Receiver(hangs) as dead:
        try:
            hooked.route("dead", url=dead.url)
            hooked.look(finding())
            hooked.desk.look()
            hooked.resolve()
            while "sent" not in {row["state"] for row in hooked.rows("ops")}:
                pass
            for _ in range(200):
                hooked.desk.look()
                if events(receiver) == ["raised", "resolved"]:
                    break
                threading.Event().wait(0.02)
            assert events(receiver) == ["raised", "resolved"]
            assert {row["state"] for row in hooked.rows("dead")} == {"waiting"}
        finally:
            let_go.set()
            hooked.desk.deliverer.finish()


def test_two_processes_do_not_send_the_same(hooked: World, receiver: Receiver) -> None:
    hooked.look(finding())
    other = Deliverer(hooked.database, Secrets(hooked.folder), clock=hooked.clock)
    both = [hooked.desk.deliverer, other]
    due = [deliverer._due() for deliverer in both]  # both saw it waiting
    for deliverer, found in zip(both, due, strict=True):
        (((tenant, route), rows),) = found.items()
        deliverer._busy[tenant, route] = threading.current_thread()
        deliverer._serve(tenant, route, rows=rows)
    assert events(receiver) == ["raised"]


@contextlib.contextmanager
def dripping() -> Iterator[str]:
    """A receiver that never ends its answer, and never lets anybody wait for long."""
    stop = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _address = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not stop.wait(0.02):
                connection.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            stop.set()
            thread.join()


_CHILD = """
import sys
from pathlib import Path
from predis.clock import SystemClock
from predis.monitoring.alerting.desk import Desk
from predis.state import Database
desk = Desk(Database(sys.argv[1]), Path(sys.argv[2]), clock=SystemClock())
desk.look()
desk.deliverer.finish(60)
"""


@pytest.fixture
def held() -> Iterator[tuple[Receiver, threading.Event]]:
    """A receiver that has the request and does not answer until it may."""
    let_go = threading.Event()

    def hold(_request: Request) -> int:
        let_go.wait(30)
        return 200

    with Receiver(hold) as found:
        yield found, let_go
        let_go.set()


def test_killed_between_sending_and_noting_it_repeats_with_the_same_key(
    world: World, database: Database, held: tuple[Receiver, threading.Event], clock: ManualClock
) -> None:
    """A real process, killed by SIGKILL while the receiver has the request already."""
    receiver, let_go = held
    arrived = threading.Event()
    answer = receiver.answer

    def told(request: Request) -> int:
        arrived.set()
        return answer(request)

    receiver.answer = told
    world.route(url=receiver.url)
    world.look(finding())
    url = database.engine.url.render_as_string(hide_password=False)
    child = subprocess.Popen([sys.executable, "-c", _CHILD, url, str(world.folder)])
    try:
        assert arrived.wait(60)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    let_go.set()
    (row,) = world.rows()
    assert (row["state"], row["attempts"]) == ("waiting", 1)
    # The child lived by the real clock: its lease ends there.
    clock.advance((row["due_at"] - clock.time_ns()) / 1e9 - 1)
    world.pump()
    assert world.rows()[0]["attempts"] == 1  # it might still be under way
    clock.advance(2)
    world.pump()
    assert world.rows()[0]["state"] == "sent"
    keys = [request.headers["idempotency-key"] for request in receiver.requests]
    assert keys == [row["key"]] * 2
    assert LEASE_S > 10
