"""How a load is shared among processes."""

from __future__ import annotations

import pytest

from predis.loadtest import Load


def test_shares_add_up() -> None:
    load = Load(connections=10, duration_s=5, rate=900)
    shares = [load.share(index, 4) for index in range(4)]
    assert [share.connections for share in shares] == [3, 3, 2, 2]
    assert [share.rate for share in shares] == pytest.approx([225.0] * 4)
    assert {share.duration_s for share in shares} == {5}


def test_a_closed_loop_has_no_rate_to_share() -> None:
    assert Load(connections=2, duration_s=1).share(1, 2).rate is None


def test_names() -> None:
    assert Load(connections=1, duration_s=1).name == "1 connection"
    assert Load(connections=1_000, duration_s=1).name == "1,000 connections"
    assert Load(connections=1, duration_s=1, rate=0.5).name == "0.5/s"
