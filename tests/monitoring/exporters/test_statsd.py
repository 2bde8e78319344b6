from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from predis.errors import InvalidSetting, Unavailable
from predis.monitoring.exporters import Batch, Health
from predis.monitoring.exporters.statsd import UDP_BYTES, DogStatsD, StatsD
from tests.monitoring.exporters.given import AT_NS, batch, counter, gauge, notice, seconds

TAGS = (("environment", "prod"),)
OWN = "tenant:default,endpoint:churn,version:3"


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        found.settimeout(20)
        yield found


def address(udp: socket.socket) -> str:
    return f"udp://127.0.0.1:{udp.getsockname()[1]}"


def lines(exporter: StatsD, given: Batch) -> list[str]:
    return b"\n".join(exporter.encode(given)).decode().split("\n")


def test_plain_statsd_over_udp(udp: socket.socket) -> None:
    exporter = StatsD(address(udp), tags=TAGS)
    exporter.send(batch(counter(3, 90), counter(0, 90), gauge(2), seconds()))
    assert udp.recv(65_536).decode().split("\n") == [
        "prod.predis_requests_total.default.churn.3.ok:3|c",
        "prod.predis_alerts_open.critical:2|g",
        "prod.predis_request_seconds.default.churn.3:0.05|ms|@0.25",
        "prod.predis_request_seconds.default.churn.3:7.5|ms|@0.5",
    ]
    exporter.close()


def test_a_negative_gauge_is_reached_from_zero() -> None:
    assert lines(StatsD("udp://127.0.0.1:8125"), batch(gauge(-2))) == [
        "predis_alerts_open.critical:0|g",
        "predis_alerts_open.critical:-2|g",
    ]


def test_dogstatsd_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "dsd.socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
        agent.bind(str(path))
        agent.settimeout(20)
        exporter = DogStatsD(f"unix://{path}", tags=TAGS)
        exporter.send(batch(counter(3, 90), gauge(2), seconds()))
        exporter.close()
        assert agent.recv(65_536).decode().split("\n") == [
            f"predis_requests_total:3|c|#environment:prod,{OWN},outcome:ok",
            "predis_alerts_open:2|g|#environment:prod,severity:critical",
            f"predis_request_seconds:5e-05|d|@0.25|#environment:prod,{OWN}",
            f"predis_request_seconds:0.0075|d|@0.5|#environment:prod,{OWN}",
        ]


def test_alerts_are_events() -> None:
    raised, resolved = lines(
        DogStatsD("udp://127.0.0.1:8125"), batch(notices=(notice(), notice(resolved=True)))
    )
    assert raised.startswith(
        f"_e{{{len(notice().title)},{len(notice().text)}}}:{notice().title}|{notice().text}|"
    )
    assert f"d:{AT_NS // 1_000_000_000}|k:predis-c0ffee|s:predis|t:error|#tenant:default" in raised
    assert "|t:success|" in resolved


def test_lengths_of_events_are_bytes_and_text_is_one_line() -> None:
    odd = replace(notice(), endpoint="zürich|\n", title="[CRITICAL] zürich|\n")
    (line,) = lines(DogStatsD("udp://127.0.0.1:8125"), batch(notices=(odd,)))
    title = "[CRITICAL] zürich/\\n"
    assert line.startswith(f"_e{{{len(title.encode())},")
    assert f":{title}|" in line
    assert "endpoint:zürich__" in line


def test_each_endpoint_has_a_service_check() -> None:
    health = (
        Health("default", "churn"),
        Health("default", "fraud", "warning"),
        Health("b", "c", "emergency"),
    )
    found = lines(DogStatsD("udp://127.0.0.1:8125"), batch(health=health))
    at = AT_NS // 1_000_000_000
    assert found == [
        f"_sc|predis.endpoint|0|d:{at}|#tenant:default,endpoint:churn",
        f"_sc|predis.endpoint|1|d:{at}|#tenant:default,endpoint:fraud|m:worst open alert: warning",
        f"_sc|predis.endpoint|2|d:{at}|#tenant:b,endpoint:c|m:worst open alert: emergency",
    ]


def test_datagrams_are_full_and_fit(udp: socket.socket) -> None:
    exporter = DogStatsD(address(udp))
    datagrams = list(exporter.encode(batch(*[counter(n, n) for n in range(1, 101)])))
    assert all(len(datagram) <= UDP_BYTES for datagram in datagrams)
    assert all(len(a) + 1 + len(b.split(b"\n")[0]) > UDP_BYTES for a, b in itertools.pairwise(datagrams))
    assert sum(datagram.count(b"|c|") for datagram in datagrams) == 100


def test_an_agent_that_is_away_and_comes_back(tmp_path: Path) -> None:
    path, given = tmp_path / "dsd.socket", batch(counter(1, 1))
    exporter = DogStatsD(f"unix://{path}")
    with pytest.raises(Unavailable, match="takes nothing"):
        exporter.send(given)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
        agent.bind(str(path))
        agent.settimeout(20)
        exporter.send(given)
        assert agent.recv(65_536).startswith(b"predis_requests_total:1|c")
    exporter.close()


@pytest.mark.parametrize(
    "wrong", ["", "127.0.0.1:8125", "udp://", "unix://host/path", "udp://h:x", "tcp://h:1"]
)
def test_what_is_no_address(wrong: str) -> None:
    with pytest.raises(InvalidSetting, match="statsd_address"):
        StatsD(wrong)
