"""The embedded Valkey: what its configuration is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from predis.cache import embedded
from predis.cache.embedded import EmbeddedValkey, url_of
from predis.cache.resp import command
from predis.cache.upstream import Address, Single
from predis.errors import SetupError
from tests.cache.gateways import Raw, gateway, wait_until
from tests.installation import settings_of


def test_who_asks_and_never_reads_does_not_empty_the_cache(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home", cache_memory_bytes=128 << 20, cache_persist=False)
    valkey = EmbeddedValkey(settings)
    valkey.start()
    try:
        with gateway(Single(Address.of(url_of(settings)))) as served:
            never, other = Raw(served.port), Raw(served.port)
            number = never.ask(command(b"CLIENT", b"ID"))[1:-2]
            value = bytes(10_000)
            other.ask(b"".join(command(b"SET", b"key:%d" % place, value) for place in range(1_000)), 1_000)
            never.send(command(b"GET", b"key:1") * 20_000)
            wait_until(lambda: other.ask(command(b"CLIENT", b"LIST", b"ID", number)) == b"$0\r\n\r\n")
            assert other.ask(command(b"DBSIZE")) == b":1000\r\n"
            # It gets what is on its way to it, and the end.
            assert len(never.rest()) < 20_000 * len(value)
            for client in (never, other):
                client.close()
    finally:
        valkey.stop()


def test_one_that_reads_its_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = [b"-LOADING Valkey is loading the dataset in memory\r\n"] * 20
    asked = embedded._ask
    monkeypatch.setattr(embedded, "_ask", lambda *about: replies.pop() if replies else asked(*about))
    monkeypatch.setattr(embedded, "_READY_S", 0.05)  # less than those take
    valkey = EmbeddedValkey(settings_of(tmp_path / "home"))
    try:
        valkey.start()
    finally:
        valkey.stop()
    assert not replies


def test_a_damaged_file_is_said_with_how_to_go_on(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home", cache_persist=True)
    valkey = EmbeddedValkey(settings)
    valkey.start()
    valkey.stop()
    (log,) = (settings.valkey_folder / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(b"*3\r\n$3\r\nSET\r\nno length at all" + bytes(100))
    with pytest.raises(SetupError, match=r"moved away, .*appendonlydir is not read"):
        EmbeddedValkey(settings).start()
