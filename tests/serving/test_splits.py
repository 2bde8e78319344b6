"""Segments and shadows over real sockets: the same over HTTP and gRPC, on every worker, and in the journal."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from predis.clock import ManualClock
from predis.registry.signature import Field
from predis.serving.capture import Capture
from predis.serving.grpc_messages import message_class
from predis.serving.http import HttpLimits, HttpServer
from predis.serving.plane import AppliedRoute, Plane
from predis.serving.route import Segment
from predis.serving.served import ServedVersion
from predis.state.records import Arm, Status
from tests.serving.grpc_helpers import Running, running, wait_until
from tests.serving.helpers import FakeRuntime, ListSink, Record, applied, rest, served, signature

X, CARRIER = Field("x", "FP64"), Field("carrier", "BYTES", levels=("AA", "BB"))
SIGNATURE = signature(X, CARRIER)
SEGMENTS = (
    Segment("header.x_country in ['DE', 'AT']", {2: 1.0}),
    Segment("parameter.tier == 'gold' and not startswith(key, 'test-')", {3: 1.0}),
    Segment("input.carrier == 'BB' and input.x > 5", {4: 1.0}),
)


def answering(score: float) -> FakeRuntime:
    return FakeRuntime(SIGNATURE, lambda features: [features[:, 0] + score])


def made(number: int) -> ServedVersion:
    """A version that adds its number to x."""
    return served(number, answering(float(number)))


class Worker:
    """A plane with its journal, and both its servers in a thread."""

    def __init__(self, plane: Plane, journal: ListSink, grpc: Running) -> None:
        self.plane, self.journal, self._grpc = plane, journal, grpc
        self._server = HttpServer(rest(plane).handle, HttpLimits())
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        port = self._listening.getsockname()[1]
        grpc.within(self._server.start([self._listening]))
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def close(self) -> None:
        self._http.close()
        self._grpc.within(self._server.drain(0.0))

    def by_http(
        self,
        *,
        x: Sequence[float] = (1.0,),
        carrier: str = "AA",
        id: str = "",
        path: str = "e",
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> tuple[int, list[float]]:
        """The version that answered, and its scores."""
        inputs = [
            {"name": "x", "datatype": "FP64", "shape": [len(x)], "data": list(x)},
            {"name": "carrier", "datatype": "BYTES", "shape": [len(x)], "data": [carrier] * len(x)},
        ]
        content = json.dumps({"id": id, "inputs": inputs, "parameters": parameters or {}})
        self._http.request("POST", f"/v2/models/{path}/infer", content, dict(headers or {}))
        reply = self._http.getresponse()
        document = json.loads(reply.read())
        assert reply.status == 200, document
        return int(document["model_version"]), document["outputs"][0]["data"]

    def by_grpc(
        self,
        *,
        x: Sequence[float] = (1.0,),
        carrier: str = "AA",
        id: str = "",
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> tuple[int, list[float]]:
        text = carrier.encode()
        request = {
            "model_name": "e",
            "id": id,
            "inputs": [
                {"name": "x", "datatype": "FP64", "shape": [len(x)]},
                {"name": "carrier", "datatype": "BYTES", "shape": [len(x)]},
            ],
            "raw_input_contents": [np.array(x).tobytes(), (len(text).to_bytes(4, "little") + text) * len(x)],
            "parameters": {name: {"string_param": value} for name, value in (parameters or {}).items()},
        }
        data = message_class("ModelInferRequest")(**request).SerializeToString()
        metadata = [(name.lower(), value) for name, value in (headers or {}).items()]
        answer = message_class("ModelInferResponse").FromString(
            self._grpc.send("ModelInfer", data, metadata=metadata)
        )
        return int(answer.model_version), np.frombuffer(answer.raw_output_contents[0]).tolist()

    def shadowed(self, count: int) -> dict[str, Record]:
        """So many records of copies, by id."""
        wait_until(lambda: len(self._of(Arm.SHADOW)) >= count)
        return {record.id: record for record in self._of(Arm.SHADOW)}

    def answered(self) -> dict[str, Record]:
        return {record.id: record for record in self.journal.records if record.arm is not Arm.SHADOW}

    def _of(self, arm: Arm) -> list[Record]:
        return [record for record in self.journal.records if record.arm is arm]


@contextlib.contextmanager
def worker(*routes: AppliedRoute) -> Iterator[Worker]:
    journal = ListSink()
    plane = Plane(Capture(journal, ManualClock()))
    for route in routes:
        plane.apply(route)
    plane.following = True
    with running(plane) as grpc:
        found = Worker(plane, journal, grpc)
        try:
            yield found
        finally:
            found.close()


def by(wire: str, found: Worker) -> Any:
    return found.by_http if wire == "http" else found.by_grpc


wires = pytest.mark.parametrize("wire", ["http", "grpc"])


class TestSegments:
    @wires
    def test_send_requests_where_they_say(self, wire: str) -> None:
        with worker(applied({1: 1.0}, [made(n) for n in (1, 2, 3, 4)], segments=SEGMENTS)) as found:
            ask = by(wire, found)
            assert ask() == (1, [2.0])
            assert ask(headers={"X-Country": "AT"}) == (2, [3.0])
            assert ask(headers={"X-Country": "FR"}) == (1, [2.0])
            assert ask(parameters={"tier": "gold"}) == (3, [4.0])
            assert ask(parameters={"tier": "gold", "routing_key": "test-7"}) == (1, [2.0])
            assert ask(parameters={"tier": "gold"}, headers={"X-Predis-Routing-Key": "test-7"}) == (1, [2.0])
            assert ask(x=[6.0, 1.0], carrier="BB") == (4, [10.0, 5.0])
            assert ask(x=[1.0, 6.0], carrier="BB") == (1, [2.0, 7.0])
            assert ask(x=[6.0], carrier="BB", headers={"x-country": "DE"}) == (2, [8.0])
            wait_until(lambda: len(found.journal.records) == 9)
            assert {record.arm for record in found.journal.records} == {Arm.ORDINARY}

    def test_tell_compared_traffic_from_other(self) -> None:
        segments = (Segment("header.x_country == 'DE'", {1: 0.5, 2: 0.5}),)
        with worker(applied({1: 1.0, 2: 0.0}, [made(1), made(2)], segments=segments)) as found:
            drawn = [found.by_http(id=f"de-{n}", headers={"x-country": "DE"})[0] for n in range(40)]
            found.by_http(id="fr")
            found.by_http(id="named", path="e/versions/2", headers={"x-country": "DE"})
            assert set(drawn) == {1, 2}
            wait_until(lambda: len(found.journal.records) == 42)
            arms = {record.id: (record.version, record.arm) for record in found.journal.records}
            assert arms.pop("fr") == (1, Arm.ORDINARY)
            assert arms.pop("named") == (2, Arm.ORDINARY)
            assert arms == {f"de-{n}": (version, Arm.COMPARED) for n, version in enumerate(drawn)}

    def test_workers_and_wires_agree_on_who_meets_whom_until_the_salt_changes(self) -> None:
        half = {1: 0.5, 2: 0.5}
        keys = [f"customer-{n}" for n in range(40)]

        def route(salt: str) -> AppliedRoute:
            segments = (Segment("tenant == 'default'", half),)
            return applied({1: 1.0}, [made(1), made(2)], segments=segments, salt=salt)

        def met(found: Worker, wire: str) -> list[int]:
            return [by(wire, found)(headers={"x-predis-routing-key": key})[0] for key in keys]

        with worker(route("rollout 1")) as first, worker(route("rollout 1")) as second:
            known = met(first, "http")
            assert set(known) == {1, 2}
            assert known == met(first, "grpc") == met(second, "http") == met(second, "grpc")
            for each in (first, second):
                each.plane.apply(route("rollout 2"))
            anew = met(first, "http")
            assert anew == met(second, "http")
            assert anew != known


class TestShadows:
    @wires
    def test_are_given_what_was_answered(self, wire: str) -> None:
        with worker(applied({1: 1.0}, [made(1), made(2)], shadows={2: 1.0})) as found:
            given = {f"r{n}": by(wire, found)(x=[n, n + 0.5], id=f"r{n}") for n in range(10)}
            copies, answered = found.shadowed(10), found.answered()
            for name, (version, scores) in given.items():
                copy = copies[name]
                assert (version, copy.version, copy.status) == (1, 2, Status.OK)
                assert copy.answers == answered[name].scores == scores
                assert copy.scores == [score + 1 for score in scores]
                assert copy.features.tolist() == answered[name].features.tolist()

    @wires
    def test_of_another_signature_are_given_what_fits(self, wire: str) -> None:
        wider = served(2, FakeRuntime(signature(X, Field("carrier", "BYTES", levels=("ZZ", "AA", "BB")))))
        other = served(3, FakeRuntime(signature(X, CARRIER, Field("y", "FP64"))))
        with worker(applied({1: 1.0}, [made(1), wider, other], shadows={2: 1.0, 3: 1.0})) as found:
            for n in range(5):
                assert by(wire, found)(x=[float(n)], carrier="BB", id=f"r{n}") == (1, [n + 1.0])
            wait_until(lambda: len(found.journal.records) == 15)
            copies = [record for record in found.journal.records if record.arm is Arm.SHADOW]
            rejected = {record.id for record in copies if record.version == 3}
            assert rejected == {f"r{n}" for n in range(5)}
            assert {record.status for record in copies if record.version == 3} == {Status.REJECTED}
            coded = {record.id: record.scores for record in copies if record.version == 2}
            assert coded == {f"r{n}": [n + 2.0] for n in range(5)}

    @wires
    def test_that_fail_or_hang_change_no_answer(self, wire: str) -> None:
        gate = threading.Event()
        bad, hung = answering(0.0), answering(0.0)
        versions = [made(1), served(2, bad), served(3, hung)]

        def fail(_features: Any) -> list[NDArray[Any]]:
            raise ValueError("a shadow is at fault")

        def hang(features: Any) -> list[NDArray[Any]]:
            assert gate.wait(30)
            return [features[:, 0]]

        bad.answer, hung.answer = fail, hang
        with worker(applied({1: 1.0}, versions, shadows={2: 1.0, 3: 1.0})) as found:
            try:
                for n in range(30):
                    assert by(wire, found)(x=[float(n)], id=f"r{n}") == (1, [n + 1.0])
                assert {record.status for record in found.shadowed(30).values()} == {Status.FAILED}
                assert {record.version for record in found.shadowed(30).values()} == {2}
            finally:
                gate.set()
            wait_until(lambda: len(found.journal.records) == 90)

    def test_a_route_may_change_amid_copies(self) -> None:
        """Under steady requests shadows come and go; all is answered, and nobody's copy goes to a version that is none."""
        first, second = made(2), made(3)
        routes = [
            applied({1: 1.0}, [made(1), first], shadows={2: 1.0}),
            applied({1: 1.0}, [made(1), second], shadows={3: 0.5}),
            applied({1: 1.0}, [made(1)]),
            applied({1: 0.5, 3: 0.5}, [made(1), second, first], shadows={2: 1.0}),
        ]
        with worker(routes[0]) as found:
            for n in range(120):
                if n % 5 == 0:
                    found.plane.apply(routes[n // 5 % len(routes)])
                version, (score,) = found.by_http(x=[float(n)], id=f"r{n}")
                assert score == n + version
            wait_until(lambda: not first.pending and not second.pending)
            copies = [record for record in found.journal.records if record.arm is Arm.SHADOW]
            assert copies
            answered = found.answered()
            for copy in copies:
                assert copy.scores == [int(copy.id[1:]) + copy.version]
                assert copy.answers == answered[copy.id].scores
                assert copy.version != answered[copy.id].version
