"""Outcomes added up over workers that end and begin."""

from __future__ import annotations

from typing import Any

from predis.cache.predictor.gain import Tally
from predis.cache.predictor.ledger import Latest, Ledger


def _told(began: float, **versions: int) -> dict[str, Any]:
    return {
        "began": began,
        "versions": {name[1:]: Tally(given=given).to_dict() for name, given in versions.items()},
    }


def test_only_what_is_new_counts() -> None:
    ledger = Ledger()
    assert ledger.take({"0": _told(1.0, v3=10)}) == {3: Tally(given=10)}
    assert ledger.take({"0": _told(1.0, v3=15, v4=2), "1": _told(2.0, v3=7)}) == {
        3: Tally(given=12),
        4: Tally(given=2),
    }
    assert ledger.take({"0": _told(1.0, v3=15, v4=2)}) == {}


def test_a_worker_that_began_anew_starts_at_nothing() -> None:
    ledger = Ledger()
    ledger.take({"0": _told(1.0, v3=10)})
    assert ledger.take({"0": _told(5.0, v3=4)}) == {3: Tally(given=4)}


def test_it_goes_on_where_another_stopped() -> None:
    first = Ledger()
    first.take({"0": _told(1.0, v3=10)})
    assert Ledger(first.seen).take({"0": _told(1.0, v3=11)}) == {3: Tally(given=1)}


def test_latest_forgets() -> None:
    latest = Latest(window=100)
    for _ in range(50):
        latest.add(Tally(given=10))
    assert 100 <= latest.tally.given <= 200
