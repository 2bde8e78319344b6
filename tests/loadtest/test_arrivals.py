"""Arrivals: rates, gaps, and that processes do not send at once."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from predis.loadtest import arrivals


def test_constant_arrivals_are_evenly_spaced() -> None:
    moments = list(islice(arrivals.constant(200, offset=0.5), 5))
    assert moments == pytest.approx([0.0025, 0.0075, 0.0125, 0.0175, 0.0225])


def test_processes_share_a_constant_rate_evenly() -> None:
    shares = [list(islice(arrivals.constant(100, offset=index / 4), 10)) for index in range(4)]
    assert np.diff(np.sort(np.concatenate(shares))) == pytest.approx(np.full(39, 1 / 400))


def test_poisson_arrivals_have_the_rate_and_exponential_gaps() -> None:
    moments = np.array(list(islice(arrivals.poisson(1_000, seed=3), 50_000)))
    gaps = np.diff(moments)
    assert (gaps >= 0).all()
    assert gaps.mean() == pytest.approx(0.001, rel=0.02)
    assert gaps.std() == pytest.approx(0.001, rel=0.03)  # as the mean is: exponential


def test_poisson_arrivals_are_the_seeds() -> None:
    first, again, other = (list(islice(arrivals.poisson(50, seed=seed), 2_000)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
