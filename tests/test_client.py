from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from predis import client as module
from predis.client import Client, Prediction
from predis.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    ModelNotFound,
    Overloaded,
    PredisError,
    TooLarge,
    Unavailable,
    Unreachable,
    all_errors,
)

ANSWER = {"id": "p1", "model_version": "3", "outputs": [{"name": "probability", "data": [0.25, 0.5]}]}
METADATA = {
    "inputs": [
        {"name": "hour", "datatype": "INT64", "shape": [-1]},
        {"name": "carrier", "datatype": "BYTES", "shape": [-1]},
        {"name": "delay", "datatype": "FP64", "shape": [-1]},
    ]
}


@dataclass(frozen=True)
class Reply:
    """What the server does with a request: answers, and goes on; or ends the connection, saying so or not."""

    document: Any = field(default_factory=dict)
    status: int = 200
    raw: bytes | None = None
    says_close: bool = False
    closes: bool = False


class Drop:
    """The server reads the request and ends the connection without a word."""


class Cut:
    """The server promises more than it sends."""


class Refuse:
    """The server answers before it has read the body, and ends the connection."""


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ScriptedServer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def _any(self) -> None:
        reply = self.server.next_reply()
        if isinstance(reply, Refuse):
            self._answer(Reply({"error": "larger than 10 bytes", "code": "too_large"}, 413, says_close=True))
            return
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(Seen(self.command, self.path, headers, body, self.client_address[1]))
        if isinstance(reply, Drop):
            self.close_connection = True
        elif isinstance(reply, Cut):
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this")
            self.close_connection = True
        else:
            self._answer(reply)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _answer(self, reply: Reply) -> None:
        content = json.dumps(reply.document).encode() if reply.raw is None else reply.raw
        self.send_response(reply.status)
        self.send_header("content-length", str(len(content)))
        if reply.says_close:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = reply.closes or reply.says_close

    def log_message(self, *_: Any) -> None:
        pass


class ScriptedServer(ThreadingHTTPServer):
    """Answers requests by a script, then as ``fallback`` says; keeps what it saw."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.script: deque[Any] = deque()
        self.fallback: Any = Reply()
        self.seen: list[Seen] = []
        self.ended = threading.Semaphore(0)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.005,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_reply(self) -> Any:
        return self.script.popleft() if self.script else self.fallback

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.ended.release()

    def wait_for_end(self) -> None:
        """Until one more connection has been ended by the server."""
        assert self.ended.acquire(timeout=30)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    found = ScriptedServer()
    yield found
    found.stop()


@pytest.fixture
def make() -> Iterator[Callable[..., Client]]:
    """Makes clients; they are closed before the server is."""
    made: list[Client] = []

    def create(url: str, **options: Any) -> Client:
        made.append(Client(url, url, **{"retry_s": 30.0, **options}))
        return made[-1]

    yield create
    for client in made:
        client.close()


@pytest.fixture
def client(server: ScriptedServer, make: Callable[..., Client]) -> Client:
    return make(server.url)


@pytest.fixture
def hasty(server: ScriptedServer, make: Callable[..., Client]) -> Client:
    """One try only."""
    return make(server.url, retry_s=0.0)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.002)
    for name in ("PREDIS_CONTROL", "PREDIS_SERVING", "PREDIS_KEY"):
        monkeypatch.delenv(name, raising=False)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


Make = Callable[..., Client]


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        ["127.0.0.1:8000", "ftp://host", "http://", "http:///path", "http://host:port", "http://[::1", "x"],
    )
    def test_what_is_none(self, url: str) -> None:
        for urls in ((url, ""), ("", url)):
            with pytest.raises(InvalidInput, match="is not a"):
                Client(*urls)

    def test_the_environment_says_where(
        self, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("PREDIS_CONTROL", "PREDIS_SERVING"):
            monkeypatch.setenv(name, server.url)
        monkeypatch.setenv("PREDIS_KEY", "pk_abc")
        with Client() as client:
            client.health()
            client.ready()
        assert [seen.path for seen in server.seen] == ["/api/v1/health", "/v2/health/ready"]
        assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer pk_abc"] * 2

    def test_a_path_stays_in_front(self, server: ScriptedServer, make: Make) -> None:
        make(server.url + "/predis/").health()
        assert server.seen[0].path == "/predis/api/v1/health"

    def test_no_key_no_header(self, server: ScriptedServer, client: Client) -> None:
        client.health()
        assert "authorization" not in server.seen[0].headers


class TestPredict:
    @pytest.fixture(autouse=True)
    def _metadata(self, server: ScriptedServer) -> None:
        server.script.append(Reply(METADATA))
        server.fallback = Reply(ANSWER)

    def test_a_row(self, server: ScriptedServer, client: Client) -> None:
        answer = client.predict("late", {"hour": 17, "delay": 2, "carrier": "UA"}, id="mine")
        assert answer == Prediction("p1", 3, {"probability": [0.25, 0.5]})
        assert answer.score == 0.25
        asked, sent = server.seen
        assert (asked.method, asked.path) == ("GET", "/v2/models/late")
        assert (sent.method, sent.path) == ("POST", "/v2/models/late/infer")
        assert sent.headers["content-type"] == "application/json"
        assert sent.json == {
            "id": "mine",
            "inputs": [
                {"name": "hour", "datatype": "INT64", "shape": [1], "data": [17]},
                {"name": "carrier", "datatype": "BYTES", "shape": [1], "data": ["UA"]},
                {"name": "delay", "datatype": "FP64", "shape": [1], "data": [2]},
            ],
            "parameters": {},
        }

    def test_rows_with_gaps(self, server: ScriptedServer, client: Client) -> None:
        """None, NaN and no entry at all are the same: missing."""
        nan = float("nan")
        client.predict(
            "late", [{"hour": nan, "carrier": nan, "delay": nan}, {"hour": 1, "carrier": None}, {}]
        )
        assert [tensor["data"] for tensor in server.seen[1].json["inputs"]] == [
            [None, 1, None],
            [None] * 3,
            [None] * 3,
        ]

    def test_parameters(self, server: ScriptedServer, client: Client) -> None:
        client.predict("late", {}, event_time="2013-04-01T05:00:00Z", routing_key="user-1")
        client.predict("late", {}, event_time=0)
        sent = [seen.json["parameters"] for seen in server.seen[1:]]
        assert sent == [{"event_time": "2013-04-01T05:00:00Z", "routing_key": "user-1"}, {"event_time": 0}]

    def test_each_prediction_has_an_id_of_its_own(self, server: ScriptedServer, client: Client) -> None:
        for _ in range(3):
            client.predict("late", {"hour": 1})
        assert len({seen.json["id"] for seen in server.seen[1:]}) == 3
        assert len(server.seen) == 4  # The inputs were asked for once.

    def test_a_try_again_has_the_same_id(self, server: ScriptedServer, client: Client) -> None:
        server.script += [Drop(), Reply({"error": "busy", "code": "overloaded"}, 503)]
        client.predict("late", {"hour": 1})
        assert len(server.seen) == 4
        assert len({seen.json["id"] for seen in server.seen[1:]}) == 1

    @pytest.mark.parametrize("rows", [{"hours": 1}, [{"hour": 1}, {"hours": 1}]])
    def test_an_input_there_is_not(self, client: Client, rows: Any) -> None:
        with pytest.raises(InvalidInput, match="no input 'hours'; it has hour, carrier, delay"):
            client.predict("late", rows)

    @pytest.mark.parametrize("value", [float("inf"), object(), {1, 2}])
    def test_what_json_cannot_say(self, server: ScriptedServer, client: Client, value: object) -> None:
        with pytest.raises(InvalidInput, match="cannot be sent as JSON"):
            client.predict("late", {"delay": value})
        assert len(server.seen) == 1

    def test_names_are_quoted(self, server: ScriptedServer, client: Client) -> None:
        client.predict("a name?x=1#é", {})
        assert server.seen[1].path == "/v2/models/a%20name%3Fx%3D1%23%C3%A9/infer"


class TestErrors:
    @pytest.mark.parametrize("code", sorted(all_errors()))
    def test_the_server_s_error_is_raised_here(
        self, server: ScriptedServer, hasty: Client, code: str
    ) -> None:
        server.fallback = Reply({"error": f"what was wrong: {code}", "code": code}, 400)
        with pytest.raises(PredisError, match=f"what was wrong: {code}") as caught:
            hasty.models()
        assert type(caught.value) is all_errors()[code]

    @pytest.mark.parametrize("document", [{"error": "odd", "code": "of another release"}, {"error": "odd"}])
    def test_a_code_that_is_not_known(self, server: ScriptedServer, hasty: Client, document: Any) -> None:
        server.fallback = Reply(document, 418)
        with pytest.raises(PredisError, match="odd") as caught:
            hasty.models()
        assert type(caught.value) is PredisError

    @pytest.mark.parametrize("document", [{}, [], "text", None, 7, {"detail": "not ours"}])
    def test_an_answer_of_another_server(self, server: ScriptedServer, hasty: Client, document: Any) -> None:
        server.fallback = Reply(document, 500)
        with pytest.raises(PredisError, match="status 500"):
            hasty.models()

    @pytest.mark.parametrize("raw", [b"<html>", b"\xff\xfe", b"{"])
    @pytest.mark.parametrize("status", [200, 502])
    def test_what_is_not_json(self, server: ScriptedServer, hasty: Client, raw: bytes, status: int) -> None:
        server.fallback = Reply(raw=raw, status=status)
        with pytest.raises(Unreachable, match="is it a Predis server"):
            hasty.models()

    def test_an_answer_without_a_body(self, server: ScriptedServer, client: Client) -> None:
        server.fallback = Reply(raw=b"", status=204)
        assert client.health() == {}

    def test_an_answer_that_is_too_early(self, server: ScriptedServer, hasty: Client) -> None:
        """The server answers without reading a large body and resets the connection: its reason is not lost."""
        server.fallback = Refuse()
        with pytest.raises(TooLarge, match="larger than 10 bytes"):
            hasty.upload(b"x" * (32 << 20))


class TestTryAgain:
    @pytest.mark.parametrize("code", ["overloaded", "unavailable", "not_ready"])
    def test_what_may_be_repeated_waits_for_a_busy_server(
        self, server: ScriptedServer, client: Client, code: str
    ) -> None:
        busy = Reply({"error": "later", "code": code}, 503)
        server.script += [busy, busy, Reply({"stored": 1})]
        assert client.feedback("late", [{"id": "a", "label": 1}]) == {"stored": 1}
        assert [seen.json for seen in server.seen] == [{"labels": [{"id": "a", "label": 1}]}] * 3

    @pytest.mark.parametrize("code", ["conflict", "invalid_input", "internal", "disk_full"])
    def test_what_will_not_change_is_not_tried_again(
        self, server: ScriptedServer, client: Client, code: str
    ) -> None:
        server.fallback = Reply({"error": "no", "code": code}, 400)
        with pytest.raises(PredisError, match="no"):
            client.models()
        assert len(server.seen) == 1

    def test_pauses_grow_and_patience_ends(
        self, server: ScriptedServer, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses: list[float] = []
        now = [0.0]

        class Time:
            monotonic = staticmethod(lambda: now[0])

            @staticmethod
            def sleep(pause_s: float) -> None:
                pauses.append(pause_s)
                now[0] += pause_s

        monkeypatch.setattr(module, "time", Time)
        monkeypatch.setattr(module, "_PAUSE_S", 0.05)
        server.fallback = Reply({"error": "later", "code": "overloaded"}, 503)
        with pytest.raises(Overloaded, match="later"):
            make(server.url, retry_s=15.0).models()
        assert pauses[:6] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0])
        assert max(pauses) == 1.0
        assert 14 < now[0] <= 15

    def test_a_server_that_comes_back(self, make: Make) -> None:
        """Nobody listens at first: nothing was sent, so that even what may not be repeated is tried again."""
        port = free_port()
        client = make(f"http://127.0.0.1:{port}")
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(client.models), pool.submit(client.create_endpoint, "late", "m")]
            server = ScriptedServer(port)
            server.fallback = Reply([])
            found = [call.result(30) for call in waiting]
        client.close()
        server.stop()
        assert found == [[], {}]
        assert sorted(seen.method for seen in server.seen) == ["GET", "POST"]

    def test_nobody_there(self, make: Make) -> None:
        client = make(f"http://127.0.0.1:{free_port()}", retry_s=0.01)
        with pytest.raises(Unreachable, match="predis up"):
            client.models()
        assert client.ready() is False

    def test_looking_whether_it_is_there_is_one_try(self, server: ScriptedServer, client: Client) -> None:
        server.fallback = Reply({"error": "later", "code": "unavailable"}, 503)
        with pytest.raises(Unavailable):
            client.health()
        assert client.ready() is False
        assert len(server.seen) == 2


class TestUnsent:
    """What may not be repeated is tried again only where it cannot have arrived."""

    def test_what_arrived_and_was_not_answered_is_not_repeated(
        self, server: ScriptedServer, client: Client
    ) -> None:
        server.script.append(Drop())
        with pytest.raises(Unreachable):
            client.deploy("late", 3)
        assert len(server.seen) == 1

    @pytest.mark.parametrize("kept", [False, True])
    def test_on_a_kept_connection_neither(self, server: ScriptedServer, client: Client, kept: bool) -> None:
        if kept:
            client.health()
        server.script.append(Drop())
        with pytest.raises(Unreachable):
            client.retrain("late")
        assert len([seen for seen in server.seen if seen.method == "POST"]) == 1

    def test_what_may_be_repeated_is(self, server: ScriptedServer, client: Client) -> None:
        server.script += [Drop(), Drop(), Reply({"state": "aborted"})]
        assert client.abort(7) == {"state": "aborted"}
        assert [seen.path for seen in server.seen] == ["/api/v1/rollouts/7/abort"] * 3

    def test_a_busy_server_is_not_asked_again_either(self, server: ScriptedServer, client: Client) -> None:
        server.script.append(Reply({"error": "later", "code": "unavailable"}, 503))
        with pytest.raises(Unavailable):
            client.deploy("late", 3)
        assert len(server.seen) == 1

    def test_a_conflict_is_told(self, server: ScriptedServer, client: Client) -> None:
        server.script.append(Reply({"error": "there", "code": "already_exists"}, 409))
        with pytest.raises(AlreadyExists) as caught:
            client.create_endpoint("late", "m")
        assert isinstance(caught.value, Conflict)


class TestConnections:
    def test_one_is_used_again(self, server: ScriptedServer, client: Client) -> None:
        for _ in range(5):
            client.health()
        assert len({seen.connection for seen in server.seen}) == 1

    def test_one_is_used_again_after_an_error(self, server: ScriptedServer, client: Client) -> None:
        server.script += [Reply({"error": "no", "code": "not_found"}, 404), Reply([])]
        with pytest.raises(PredisError):
            client.models()
        client.models()
        assert len({seen.connection for seen in server.seen}) == 1

    def test_one_the_server_closes_as_it_said_is_not(self, server: ScriptedServer, client: Client) -> None:
        server.fallback = Reply(says_close=True)
        for _ in range(3):
            client.health()
        assert len({seen.connection for seen in server.seen}) == 3

    @pytest.mark.parametrize("repeatable", [True, False])
    def test_one_that_the_server_ended_while_it_was_idle(
        self, server: ScriptedServer, hasty: Client, repeatable: bool
    ) -> None:
        """Even one try only succeeds, be it repeatable or not: nothing is sent on a connection that has ended."""
        server.script.append(Reply(closes=True))
        hasty.health()
        server.wait_for_end()
        found = hasty.health() if repeatable else hasty.create_endpoint("late", "m")
        assert found == {}
        assert len(server.seen) == 2

    def test_a_restarted_server(self, make: Make) -> None:
        first = ScriptedServer()
        client = make(first.url)
        first.script.append(Reply(closes=True))
        client.health()
        first.wait_for_end()
        first.stop()
        second = ScriptedServer(first.server_port)
        client.create_endpoint("late", "m")
        client.close()
        second.stop()
        assert len(second.seen) == 1

    def test_threads_do_not_share_one_at_a_time(self, server: ScriptedServer, client: Client) -> None:
        gate = threading.Barrier(4, timeout=30)
        with ThreadPoolExecutor(4) as pool:

            def call(place: int) -> Any:
                gate.wait()
                return [client.configure_endpoint(f"e{place}", {"n": n}) for n in range(5)]

            list(pool.map(call, range(4)))
        assert len(server.seen) == 20
        assert len({seen.connection for seen in server.seen}) <= 4
        for place in range(4):
            assert [s.json["n"] for s in server.seen if s.path.endswith(f"/e{place}")] == list(range(5))

    def test_threads_that_ended_leave_no_connections(self, server: ScriptedServer, client: Client) -> None:
        for _ in range(10):
            thread = threading.Thread(target=client.health)
            thread.start()
            thread.join()
        assert len({seen.connection for seen in server.seen}) == 1

    def test_closing_closes_and_a_closed_one_opens_again(
        self, server: ScriptedServer, client: Client
    ) -> None:
        client.health()
        client.close()
        server.wait_for_end()
        client.health()
        assert len({seen.connection for seen in server.seen}) == 2

    def test_a_server_that_says_nothing(self, make: Make) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            client = make(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05, retry_s=0.0)
            with pytest.raises(Unreachable, match="timed out"):
                client.models()

    def test_an_answer_that_breaks_off(self) -> None:
        with socket.socket() as broken:
            broken.bind(("127.0.0.1", 0))
            broken.listen()

            def answer() -> None:
                connection, _ = broken.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"half":')

            thread = threading.Thread(target=answer)
            thread.start()
            with (
                pytest.raises(Unreachable),
                Client(f"http://127.0.0.1:{broken.getsockname()[1]}", retry_s=0) as client,
            ):
                client.models()
            thread.join()


class TestUpload:
    CONTENT = bytes(range(256)) * 2_000

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "model.txt"
        path.write_bytes(self.CONTENT)
        return path

    def test_bytes(self, server: ScriptedServer, client: Client) -> None:
        server.fallback = Reply({"digest": "d"})
        assert client.upload(b"content") == "d"
        (seen,) = server.seen
        assert (seen.method, seen.path, seen.body) == ("PUT", "/api/v1/artifacts", b"content")
        assert seen.headers["content-type"] == "application/octet-stream"

    def test_a_file(self, server: ScriptedServer, client: Client, file: Path) -> None:
        server.fallback = Reply({"digest": "d"})
        assert client.upload(file) == "d"
        assert server.seen[0].body == self.CONTENT
        assert server.seen[0].headers["content-length"] == str(len(self.CONTENT))

    def test_an_empty_file(self, server: ScriptedServer, client: Client, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        server.fallback = Reply({"digest": "d"})
        assert client.upload(tmp_path / "empty") == "d"
        assert server.seen[0].body == b""

    def test_a_file_is_sent_whole_at_every_try(
        self, server: ScriptedServer, client: Client, file: Path
    ) -> None:
        """It is named by its digest: to store it twice does no harm, and to store the rest of it would."""
        busy = Reply({"error": "later", "code": "unavailable"}, 503)
        server.script += [Drop(), busy, Reply({"digest": "d"})]
        assert client.upload(file) == "d"
        assert [seen.body == self.CONTENT for seen in server.seen] == [True] * 3

    def test_a_server_that_dies_in_the_middle(
        self, server: ScriptedServer, client: Client, tmp_path: Path
    ) -> None:
        large = tmp_path / "large"
        large.write_bytes(self.CONTENT * 40)

        def next_reply() -> Any:
            server.next_reply = original  # type: ignore[method-assign]
            raise ConnectionResetError

        original = server.next_reply
        server.next_reply = next_reply  # type: ignore[method-assign]
        server.fallback = Reply({"digest": "d"})
        assert client.upload(large) == "d"
        assert [seen.body == self.CONTENT * 40 for seen in server.seen] == [True]

    def test_register_sends_the_data_sets_first(
        self, server: ScriptedServer, client: Client, file: Path, tmp_path: Path
    ) -> None:
        reference = tmp_path / "train.parquet"
        reference.write_bytes(b"table")
        server.script += [Reply({"digest": "r"}), Reply({"digest": "m"}), Reply({"version": 1}, 201)]
        made = client.register(
            "churn", file, format="lightgbm", reference=reference, holdout=None, label="y", alias=""
        )
        assert made == {"version": 1}
        assert [seen.body for seen in server.seen[:2]] == [b"table", self.CONTENT]
        assert server.seen[2].path == "/api/v1/models/churn/versions"
        assert server.seen[2].json == {
            "format": "lightgbm",
            "files": {"model.txt": "m"},
            "reference": "r",
            "label": "y",
        }


LISTS = {
    "models": ((), "GET /models"),
    "versions": (("churn",), "GET /models/churn/versions"),
    "endpoints": ((), "GET /endpoints"),
    "rollouts": (("late",), "GET /rollouts?endpoint=late"),
    "alerts": ((), "GET /alerts"),
    "retrainings": (("late",), "GET /retrainings?endpoint=late"),
}
THINGS = {
    "version": (("churn", "latest"), "GET /models/churn/versions/latest"),
    "verify": (("churn", 3), "POST /models/churn/versions/3/verify"),
    "profile": (("churn", 3), "GET /models/churn/versions/3/profile"),
    "endpoint": (("late",), "GET /endpoints/late"),
    "configure_endpoint": (("late", {"a": 1}), "PATCH /endpoints/late"),
    "create_endpoint": (("late", "churn"), "POST /endpoints"),
    "deploy": (("late", 3), "POST /endpoints/late/deploy"),
    "rollout": ((7,), "GET /rollouts/7"),
    "promote": ((7,), "POST /rollouts/7/promote"),
    "abort": ((7,), "POST /rollouts/7/abort"),
    "retrain": (("late",), "POST /endpoints/late/retrain"),
    "overview": (("late",), "GET /overview?endpoint=late"),
}


@pytest.mark.parametrize("name", [*LISTS, *THINGS])
def test_every_method_asks_for_its_thing(server: ScriptedServer, client: Client, name: str) -> None:
    arguments, expected = {**LISTS, **THINGS}[name]
    server.fallback = Reply([{"a": 1}] if name in LISTS else {"a": 1})
    assert getattr(client, name)(*arguments) == server.fallback.document
    (seen,) = server.seen
    method, path = expected.split(" ")
    assert (seen.method, seen.path) == (method, "/api/v1" + path)


def test_alias(server: ScriptedServer, client: Client) -> None:
    client.alias("churn", "champion", version=3)
    assert (server.seen[0].method, server.seen[0].path) == ("PUT", "/api/v1/models/churn/aliases/champion")
    assert server.seen[0].json == {"version": 3}


class TestArchives:
    """Bodies of any size, in both directions."""

    def test_a_file_whole_or_not_at_all(self, server: ScriptedServer, client: Client, tmp_path: Path) -> None:
        server.script.extend(
            [Reply(raw=b"x" * 300_000), Reply({"error": "no such model", "code": "model_not_found"}, 404)]
        )
        assert client.export_version("m", "champion", to=tmp_path / "a") == 300_000
        assert (tmp_path / "a").read_bytes() == b"x" * 300_000
        with pytest.raises(ModelNotFound, match="no such model"):
            client.export_version("m", 2, to=tmp_path / "b")
        assert [seen.path for seen in server.seen] == [
            "/api/v1/models/m/versions/champion/archive", "/api/v1/models/m/versions/2/archive",
        ]  # fmt: skip
        assert [file.name for file in tmp_path.iterdir()] == ["a"]

    def test_one_that_ends_in_the_middle(
        self, server: ScriptedServer, client: Client, tmp_path: Path
    ) -> None:
        server.script.append(Cut())
        with pytest.raises(Unreachable, match="stopped in the middle"):
            client.export_version("m", 1, to=tmp_path / "a")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_is_sent_with_what_is_wanted(
        self, server: ScriptedServer, client: Client, tmp_path: Path
    ) -> None:
        (tmp_path / "a").write_bytes(b"archive")
        server.script.extend([Drop(), Reply({"version": 3})])
        answer = client.import_version(tmp_path / "a", name="n", alias="", trust=True, source="http://x/?y")
        assert answer == {"version": 3}
        assert [(seen.path, seen.body) for seen in server.seen] == [
            ("/api/v1/models/import?name=n&trust=True&source=http%3A%2F%2Fx%2F%3Fy", b"archive")
        ] * 2

    def test_from_one_server_to_another(self, server: ScriptedServer, client: Client) -> None:
        server.script.extend([Reply(raw=b"y" * 200_000), Reply({"version": 1})])
        with client.archive("m", 1) as archive:
            assert archive.size == 200_000
            client.import_version(archive)
        assert server.seen[1].body == b"y" * 200_000
        assert server.seen[1].headers["content-length"] == "200000"


class TestKeys:
    def test_none_is_not_the_environment_s(
        self, server: ScriptedServer, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key of this installation is not for another."""
        monkeypatch.setenv("PREDIS_KEY", "pk_here")
        make(server.url, key="").health()
        make(server.url).health()
        assert [seen.headers.get("authorization") for seen in server.seen] == [None, "Bearer pk_here"]
