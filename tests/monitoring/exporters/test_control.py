"""Exporters where they run: in the control role."""

from __future__ import annotations

import socket
from pathlib import Path

from predis.app.home import prepare
from predis.app.platform import Platform
from predis.metrics import Metrics
from predis.settings import Settings
from tests.installation import settings_of


def made(settings: Settings) -> Platform:
    prepare(settings)
    return Platform(settings, metrics=Metrics(settings.metrics_folder, "control"))


def names(platform: Platform) -> set[str]:
    return {loop._name for loop in platform.loops()}


def test_only_who_names_an_exporter_has_the_duty(home: Path) -> None:
    platform = made(settings_of(home))
    assert "export" not in names(platform)
    platform.close()


def test_control_exports_its_numbers(home: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(20)
        address = f"udp://127.0.0.1:{agent.getsockname()[1]}"
        platform = made(
            settings_of(
                home, exporters="dogstatsd", statsd_address=address, export_metrics="predis_alerts_open"
            )
        )
        assert "export" in names(platform)
        platform.exporting.look()
        sent = agent.recv(65_536).decode().split("\n")
        platform.close()
    assert "predis_alerts_open:0|g|#severity:critical" in sent


def test_a_dead_backend_does_not_hold_control(home: Path) -> None:
    platform = made(settings_of(home, exporters="dogstatsd", statsd_address=f"unix://{home}/nobody"))
    for _ in range(300):
        platform.exporting.look()
    platform.close()
