"""Arithmetic on spans, against sets of rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.serving.scoring.spans import Span, cover, left, units

ROWS = 30
spans = st.lists(
    st.tuples(st.integers(0, ROWS), st.integers(0, ROWS)).map(lambda ends: Span(min(ends), max(ends))),
    max_size=8,
)


def rows_of(found: list[Span]) -> list[int]:
    return [row for span in found for row in range(*span)]


@given(spans)
def test_what_is_left_is_what_is_not_done(done: list[Span]) -> None:
    assert rows_of(left(done, ROWS)) == sorted(set(range(ROWS)) - set(rows_of(done)))


@given(spans, st.integers(1, 12))
def test_units_hold_the_same_rows_and_do_not_cross_a_multiple(done: list[Span], size: int) -> None:
    found = units(done, size)
    assert rows_of(found) == rows_of(done)
    assert all(span.start // size == (span.stop - 1) // size for span in found if span.rows)


@given(spans)
def test_a_cover_takes_every_row_once_in_order(done: list[Span]) -> None:
    if left(done, ROWS):
        with pytest.raises(ValueError, match=f"no part holds row {left(done, ROWS)[0].start}"):
            list(cover(done, ROWS))
        return
    taken = list(cover(done, ROWS))
    assert rows_of([span for _, span in taken]) == list(range(ROWS))
    assert all(done[place].start <= span.start and span.stop <= done[place].stop for place, span in taken)


def test_nothing_covers_nothing() -> None:
    assert list(cover([], 0)) == left([], 0) == []
