"""Metrics: numbers that every process writes into a file of its own and any process can show for all of them.

``TABLE`` says which there are. A process makes one ``Metrics`` and keeps handles from it; ``exposition`` gives the text that
Prometheus reads.
"""

from predis.metrics.exposition import Numbers, collected, exposition
from predis.metrics.handles import Counter, Gauge, Histogram
from predis.metrics.table import TABLE, Metric
from predis.metrics.writer import NOTHING, Metrics

__all__ = [
    "NOTHING",
    "TABLE",
    "Counter",
    "Gauge",
    "Histogram",
    "Metric",
    "Metrics",
    "Numbers",
    "collected",
    "exposition",
]
