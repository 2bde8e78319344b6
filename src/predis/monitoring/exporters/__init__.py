"""Exporters: the numbers of the metrics table, and what became of incidents, sent to systems that do not come and ask.

Prometheus asks (``GET /metrics``) and needs none of this; ``rules`` and ``grafana`` write what it and Grafana are set up with. All
others are behind one interface, ``Exporter.send(batch)``. ``Exporting`` makes a batch every interval and gives it to a ``Courier``
for each exporter: a bounded queue and a thread of its own, so that a backend that is slow or dead delays nobody, neither control's
duties nor the other backends, and serving has no part in it at all. Incidents are told through the outbox of alerting (``telling``),
which loses nothing.
"""

from predis.monitoring.exporters.batch import Batch, Exporter, Health, Notice, Sample
from predis.monitoring.exporters.courier import Courier
from predis.monitoring.exporters.exporting import Exporting

__all__ = ["Batch", "Courier", "Exporter", "Exporting", "Health", "Notice", "Sample"]
