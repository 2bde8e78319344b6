"""The roles of the cache as processes: killed, they are back, and Valkey has lost nothing it acknowledged."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from pathlib import Path

import pytest
import redis

from tests.installation import free_ports, running, settings_of, wait_for


@pytest.mark.slow
def test_a_killed_gateway_or_valkey_is_back_and_nothing_is_lost(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (port,) = free_ports(1)
    with running(settings_of(tmp_path / "home", cache_port=port, workers=1)) as installation:

        def kept() -> bool:
            with redis.Redis(port=port, socket_timeout=5) as client:
                try:
                    return client.get("a") == b"1"
                except redis.ConnectionError:
                    return False

        def works() -> bool:
            with redis.Redis(port=port, socket_timeout=5) as client:
                try:
                    return bool(client.set("a", "1"))
                except redis.ConnectionError:
                    return False

        wait_for(works)
        for role in ("cache-0", "valkey"):
            os.kill(installation.supervisor.pids()[role], signal.SIGKILL)
            wait_for(lambda role=role: role in installation.restarts)
            wait_for(kept)
    assert "Ready to accept" in (tmp_path / "home" / "valkey" / "valkey.log").read_text()
    assert "Ready to accept" not in capfd.readouterr().err  # it has its own log


_BEHIND = """\
[cache.sources.notes]
pattern = 'note:{{id:int}}'
kind = 'sql'
url = 'sqlite:///{path}'
statement = 'SELECT id, text FROM notes WHERE id IN :id'
encoding = 'text'
writes = 'behind'
upsert = 'INSERT INTO notes (id, text) VALUES (:id, :value) ON CONFLICT (id) DO UPDATE SET text = excluded.text'
"""


@pytest.mark.slow
def test_no_write_that_was_acknowledged_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client writes behind while the gateway's worker and then Valkey are killed; it tries again what was not acknowledged."""
    notes, config, (port,) = tmp_path / "notes.sqlite", tmp_path / "predis.toml", free_ports(1)
    with sqlite3.connect(notes) as made:
        made.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
    config.write_text(_BEHIND.format(path=notes))
    monkeypatch.setenv("PREDIS_CONFIG", str(config))
    acknowledged: list[int] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            try:
                with redis.Redis(port=port, socket_timeout=5) as client:
                    while not stop.is_set():
                        number = len(acknowledged)
                        client.set(f"note:{number}", f"text {number}")
                        acknowledged.append(number)
            except redis.RedisError:
                stop.wait(0.02)

    def stored() -> dict[int, str]:
        with sqlite3.connect(notes) as asked:
            return dict(asked.execute("SELECT id, text FROM notes"))

    with running(settings_of(tmp_path / "home", cache_port=port, workers=1)) as installation:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for role in ("cache-0", "valkey"):
                count = len(acknowledged) + 20
                wait_for(lambda count=count: len(acknowledged) > count)
                os.kill(installation.supervisor.pids()[role], signal.SIGKILL)
                wait_for(lambda role=role: role in installation.restarts)
            count = len(acknowledged) + 20
            wait_for(lambda: len(acknowledged) > count)
        finally:
            stop.set()
            writer.join()
        wait_for(lambda: set(acknowledged) <= stored().keys())
        assert all(text == f"text {number}" for number, text in stored().items())
