"""Control's duty: a batch every interval to every exporter that the settings name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from predis.clock import Clock
from predis.errors import InvalidSetting
from predis.metrics import NOTHING, TABLE, Metrics
from predis.monitoring.exporters.batch import SEVERITIES, Batch, Exporter, Health, Sample
from predis.monitoring.exporters.courier import Courier
from predis.monitoring.exporters.gathering import Gathering
from predis.monitoring.exporters.naming import words_of
from predis.settings import Settings

# Loaded when they are named: each may need packages of its own.
EXPORTERS: Mapping[str, str] = {
    "cloudwatch": "predis.monitoring.exporters.cloudwatch:CloudWatch",
    "datadog": "predis.monitoring.exporters.datadog:Datadog",
    "dogstatsd": "predis.monitoring.exporters.statsd:DogStatsD",
    "newrelic": "predis.monitoring.exporters.otlp:NewRelic",
    "otlp": "predis.monitoring.exporters.otlp:Otlp",
    "statsd": "predis.monitoring.exporters.statsd:StatsD",
}


def exporters_of(
    settings: Settings, *, environ: Mapping[str, str] | None = None, for_notices: bool = False
) -> list[Exporter[Any]]:
    """The exporters that the settings name; ``for_notices``: of these, those that take notices of incidents.

    Raises:
        InvalidSetting: there is no exporter of that name, or it is not told what it needs.
        MissingExtra: its package is not installed.
    """
    environ = os.environ if environ is None else environ
    found = []
    for name in words_of(settings.exporters):
        if name not in EXPORTERS:
            raise InvalidSetting(f"exporters: there is no {name!r}; there are {', '.join(EXPORTERS)}")
        module, _, cls = EXPORTERS[name].partition(":")
        exporter = getattr(import_module(module), cls)
        if exporter.takes_notices or not for_notices:
            found.append(exporter.of(settings, environ))
    return found


class Exporting:
    """Makes batches and hands them to couriers. Does nothing where the settings name no exporter.

    Args:
        metrics: where it is counted what was sent and what was dropped.
        health: how each endpoint is now; asked once an interval.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        metrics: Metrics = NOTHING,
        clock: Clock,
        health: Callable[[], Iterable[Health]],
    ) -> None:
        self._clock = clock
        self._health = health
        self._couriers = [Courier(exporter, metrics=metrics) for exporter in exporters_of(settings)]
        self._gathering = Gathering(
            settings.metrics_folder, clock=clock, only=words_of(settings.export_metrics)
        )
        self._looked = False

    @property
    def active(self) -> bool:
        """Whether the settings name an exporter."""
        return bool(self._couriers)

    def look(self) -> None:
        """Send what was added since the last look; the numbers even where nobody can say how endpoints are."""
        self._looked = True
        health: list[Health] = []
        try:
            health += self._health()
        finally:
            self._put(self._gathering.gather(health))

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what was added last, as far as the backends take it in time: they share it."""
        if self._looked:
            self._put(self._gathering.gather())
        for courier in self._couriers:
            courier.end()
        until = time.monotonic() + timeout_s
        for courier in self._couriers:
            courier.close(max(0.0, until - time.monotonic()))

    def _put(self, batch: Batch) -> None:
        for courier in self._couriers:
            courier.put(batch)


def health_of(endpoints: Iterable[tuple[str, str]], open_alerts: Iterable[Mapping[str, Any]]) -> list[Health]:
    """How each endpoint is, by tenant and name, from the alerts that are open.

    >>> health_of([("default", "churn")], [{"tenant": "default", "endpoint": "churn", "severity": "critical"}])
    [Health(tenant='default', endpoint='churn', severity='critical')]
    """
    worst: dict[tuple[str, str], str] = {}
    for alert in open_alerts:
        key = (alert["tenant"], alert["endpoint"])
        worst[key] = max(worst.get(key, ""), alert["severity"], key=("", *SEVERITIES).index)
    return [Health(tenant, endpoint, worst.get((tenant, endpoint), "")) for tenant, endpoint in endpoints]


def sign_of_life(clock: Clock) -> Batch:
    """A batch with one sample, which says that nothing waits to be exported: enough to see whether a backend takes it."""
    now = clock.time_ns()
    sample = Sample(TABLE["predis_export_waiting"], (("exporter", "check"),), (0.0,), (0.0,))
    return Batch(origin_ns=now, began_ns=now, at_ns=now, samples=(sample,))
