"""A load generator for servers of the Open Inference Protocol: closed and open loops, honest percentiles."""

from predis.loadtest.fleet import run
from predis.loadtest.histogram import Histogram
from predis.loadtest.load import Load, Target
from predis.loadtest.result import Point, Result, knee

__all__ = ["Histogram", "Load", "Point", "Result", "Target", "knee", "run"]
