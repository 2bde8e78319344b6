"""The way back to a client, by itself: what waits behind a gap, and how much of it."""

from __future__ import annotations

import pytest

from predis.cache import answers
from predis.cache.answers import Answers, Gap, Turn


class Gapped(Turn):
    """A command whose answer is not known yet."""

    def __init__(self, gap: Gap) -> None:
        super().__init__()
        self._gap = gap

    def answer(self, reply: bytes) -> Gap:
        return self._gap


def test_values_that_wait_for_the_one_before_them_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are a source's, not Valkey's, and take as much memory."""
    monkeypatch.setattr(answers, "HOLD_BYTES", 100)
    held: list[bool] = []
    written: list[bytes] = []
    way = Answers(written.append, hold=lambda much, _needed: held.append(much), crowd=held.append)
    gaps = [Gap() for _ in range(3)]
    for gap in gaps:
        way.expect(Gapped(gap))
    way.feed(b"$-1\r\n" * 3)
    way.fill(gaps[2], bytes(60))
    assert held == [False]
    way.fill(gaps[1], bytes(60))
    assert held == [False, True]
    way.fill(gaps[0], b"x")
    assert held == [False, True, False]
    assert written == [b"x" + bytes(120)]
    assert way.quiet
