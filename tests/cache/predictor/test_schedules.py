"""Schedules on their way from the learner to the workers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from predis.cache.predictor.schedules import FILE, MOST, Schedule, Schedules, read, write
from predis.errors import IntegrityFailure

ONE = Schedule(
    b"report:\xff",
    "report:{} every 60 s",
    period_s=60.0,
    tolerance_s=1.5,
    anchor_s=1e9,
    last_s=1e9 + 0.25,
    hit=True,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read(tmp_path) == Schedules(0.0, ())
    told = Schedules(1e9, (ONE, ONE))
    write(tmp_path / "new", told)
    assert read(tmp_path / "new") == told
    assert [path.name for path in (tmp_path / "new").iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("now_s", "due_s"),
    [(999_999_000, 60), (1e9 + 30, 60), (1e9 + 61, 60), (1e9 + 61.6, 120), (1e9 + 6_000, 6_000)],
)
def test_what_is_due_next(now_s: float, due_s: float) -> None:
    """One that may still be kept is the next; before the anchor it is the first after it."""
    assert ONE.due_s(now_s) == 1e9 + due_s


def test_it_is_over_some_time_after_the_last_read() -> None:
    assert not ONE.is_over(1e9 + 3_600)
    assert ONE.is_over(1e9 + 3_600 + 211)


def test_a_file_that_is_not_what_its_digest_says_is_refused(tmp_path: Path) -> None:
    write(tmp_path, Schedules(1e9, (ONE,)))
    contents = bytearray((tmp_path / FILE).read_bytes())
    contents[-20] ^= 1
    (tmp_path / FILE).write_bytes(contents)
    with pytest.raises(IntegrityFailure, match="digest"):
        read(tmp_path)


ROW = '["00", "r", 60.0, 1.0, 5.0, 5.0, true]'


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        '{"format": 2, "seen_s": 1, "schedules": []}',
        '{"format": 1, "schedules": []}',
        '{"format": 1, "seen_s": null, "schedules": []}',
        '{"format": 1, "seen_s": 1, "schedules": [[]]}',
        '{"format": 1, "seen_s": 1, "schedules": [["00", "r", 0.0, 0.0, 5.0, 5.0, true]]}',
        '{"format": 1, "seen_s": 1, "schedules": [["00", "r", 1.0, 2.0, 5.0, 5.0, true]]}',
        '{"format": 1, "seen_s": 1, "schedules": [["zz", "r", 60.0, 1.0, 5.0, 5.0, true]]}',
        f'{{"format": 1, "seen_s": 1, "schedules": [{", ".join([ROW] * (MOST + 1))}]}}',
    ],
)
def test_what_is_of_another_form_is_refused(tmp_path: Path, document: str) -> None:
    digest = hashlib.sha256(document.encode()).hexdigest()
    (tmp_path / FILE).write_text(f"{digest}\n{document}")
    with pytest.raises(IntegrityFailure):
        read(tmp_path)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(IntegrityFailure, match="cannot be read"):
        read(tmp_path)
