"""A real installation for end-to-end tests: processes, ports, a client, and a toy model that answers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from predis import settings as predis_settings
from predis.client import Client
from predis.errors import PredisError
from predis.settings import Settings
from predis.supervisor import Supervisor
from tests import toys

PATIENCE_S = 90.0


class Installation:
    """What ``predis up`` starts, started in a test. The supervisor runs here, its roles are processes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.restarts: list[str] = []
        self.supervisor = Supervisor(settings, on_restart=lambda name, _status: self.restarts.append(name))
        self.control = f"http://{settings.host}:{settings.control_port}"
        self.serving = f"http://{settings.host}:{settings.http_port}"
        self.client = Client(self.control, self.serving, retry_s=PATIENCE_S)

    def ready(self) -> bool:
        try:
            with Client(self.control, self.serving, retry_s=0.0) as hasty:
                return hasty.health()["status"] == "ok" and hasty.ready()
        except PredisError:
            return False

    def deploy_toy(self, folder: Path, *, config: dict[str, Any] | None = None) -> None:
        """Register the toy model, create its endpoint and deploy it."""
        paths = {}
        for name, seed in (("reference", 1), ("holdout", 2), ("training", 1)):
            paths[name] = folder / f"{name}.parquet"
            pq.write_table(toys.table(2_000, seed=seed), paths[name])
        file = folder / "model.txt"
        file.write_bytes(toys.booster())
        self.client.register(
            toys.MODEL, file, format="lightgbm", label=toys.LABEL, signature=toys.SIGNATURE.to_dict(), **paths
        )
        self.client.create_endpoint(toys.ENDPOINT, toys.MODEL, config=config)
        self.finish(self.client.deploy(toys.ENDPOINT, 1, strategy="direct")["id"])

    def finish(self, rollout: int) -> dict[str, Any]:
        """Wait for a rollout's end."""
        wait_for(lambda: self.client.rollout(rollout)["ended_at"] is not None)
        return self.client.rollout(rollout)

    def counted(self) -> dict[str, Any]:
        endpoint: dict[str, Any] = self.client.overview(toys.ENDPOINT)["endpoints"][0]
        return endpoint


def wait_for(condition: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
    """Wait until something holds; fail if it does not within the patience."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        threading.Event().wait(0.02)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def settings_of(home: Path, **more: Any) -> Settings:
    control, http, grpc = free_ports(3)
    return predis_settings.load(
        {
            "home": home,
            "control_port": control,
            "http_port": http,
            "grpc_port": grpc,
            "cache_port": 0,
            "log_level": "warning",
            **more,
        },
        environ={},
    )


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Installation]:
    """An installation that is ready; stopped at the end, whatever happens."""
    made = Installation(settings)
    made.supervisor.start()
    try:
        wait_for(made.ready)
        yield made
    finally:
        made.client.close()
        made.supervisor.stop()
