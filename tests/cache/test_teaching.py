"""From what the learner hears to what is published."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predis.cache.foretelling import FOLDER, in_use, learned
from predis.cache.predictor import habits
from predis.cache.predictor.published import current
from predis.cache.predictor.standing import Standing, establish
from predis.cache.ring import Flag
from predis.cache.ring_reader import EVENT
from predis.cache.sources.source import Source
from predis.cache.teaching import Teaching
from predis.errors import Unavailable

PYTHON = {"kind": "python", "function": "a:b"}
SOURCES = [
    Source.of("sessions", {"pattern": "session:{u}", **PYTHON}),
    Source.of("prefs", {"pattern": "prefs:{u}", **PYTHON}),
    Source.of("carts", {"pattern": "cart:{u}", **PYTHON}),
]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _visits(then: str, *, gap_us: int = 50_000, n: int = 60, start: int = 0) -> np.ndarray[Any, Any]:
    return _reads([
        read
        for i in range(start, start + n)
        for read in ((i * 1_000_000, f"session:{i * 17}"), (i * 1_000_000 + gap_us, f"{then}:{i * 17}"))
    ])  # fmt: skip


def _reads(reads: Sequence[tuple[int, str]]) -> np.ndarray[Any, Any]:
    """Misses of one client: microseconds, key."""
    events = np.zeros(len(reads), dtype=EVENT)
    for event, (us, key) in zip(events, reads, strict=True):
        event["us"], event["flags"], event["length"], event["key"] = (
            us,
            int(Flag.WHOLE),
            len(key),
            key.encode(),
        )
    return events


def _rules(folder: Path) -> list[str]:
    return [entry["rule"] for entry in learned(folder)]


def _teaching(folder: Path, clock: Clock, **given: Any) -> Teaching:
    return Teaching(folder, sources=lambda: SOURCES, clock=clock, **given)


def test_rules_are_published_once_they_are_known_and_again_when_they_change(tmp_path: Path) -> None:
    clock = Clock()
    teaching = _teaching(tmp_path, clock)
    teaching.hear("0", _visits("prefs"))
    assert current(tmp_path / FOLDER) is None, "it is compiled every few seconds only"
    clock.now = 6.0
    teaching.hear("0", _visits("prefs", start=60))
    entry = current(tmp_path / FOLDER)
    assert entry is not None
    assert (entry["number"], entry["rules"], entry["reads"]) == (1, 1, 240)
    assert _rules(tmp_path) == ["session:{a} -> prefs:{a}"]
    clock.now = 12.0
    teaching.hear("0", _visits("prefs", start=120))
    assert current(tmp_path / FOLDER) == entry, "the rules are the same"
    clock.now = 18.0
    teaching.hear("0", _visits("cart", n=200, start=180))
    assert set(_rules(tmp_path)) == {"session:{a} -> prefs:{a}", "session:{a} -> cart:{a}"}
    assert (current(tmp_path / FOLDER) or {})["number"] == 2


def test_keys_that_no_rule_leads_to_are_published_too(tmp_path: Path) -> None:
    clock = Clock()
    teaching = _teaching(tmp_path, clock)
    events = _reads([
        read
        for visit in range(12)
        for read in ((visit * 1_000_000, "session:a"), (visit * 1_000_000 + 50_000, "cart:b"))
    ])  # fmt: skip
    clock.now = 31.0
    teaching.hear("0", events)
    assert in_use(tmp_path).followers[b"session:a"] == (b"cart:b",)
    entry = current(tmp_path / FOLDER)
    assert entry is not None
    assert entry["followed"] == len(in_use(tmp_path).followers)
    clock.now = 62.0
    teaching.hear("0", events)
    assert current(tmp_path / FOLDER) == entry, "they are the same"


def test_what_is_published_says_which_version_it_is_added_to(tmp_path: Path) -> None:
    clock = Clock()
    teaching = _teaching(tmp_path, clock)
    establish(tmp_path / FOLDER, Standing(champion=4, champion_digest="d"), artifacts={"d": b"tables"})
    clock.now = 6.0
    teaching.hear("0", _visits("prefs"))
    assert (current(tmp_path / FOLDER) or {})["version"] == 4


def test_habits_are_compared_with_those_of_training(tmp_path: Path) -> None:
    clock = Clock()
    teaching = _teaching(tmp_path, clock)
    establish(tmp_path / FOLDER, Standing(reference={"session:{}": 900, "cart:{}": 100}), artifacts={})
    for window in range(1, 4):
        clock.now = window * 301.0
        teaching.hear("0", _visits("prefs", n=300, start=300 * window))
    told = json.loads((tmp_path / FOLDER / habits.FILE).read_text())
    assert (told["version"], told["drifted"]) == (0, True)
    assert told["moved"][0]["kind"] == "(other)"


def test_the_number_goes_on_after_a_restart(tmp_path: Path) -> None:
    for expected in (1, 2):
        clock = Clock()
        teaching = _teaching(tmp_path, clock)
        clock.now = 6.0
        teaching.hear("0", _visits("prefs"))
        assert (current(tmp_path / FOLDER) or {})["number"] == expected


def test_nothing_is_published_where_nothing_is_known(tmp_path: Path) -> None:
    clock = Clock()
    teaching = _teaching(tmp_path, clock)
    clock.now = 6.0
    teaching.hear("0", _visits("other"))
    assert current(tmp_path / FOLDER) is None


def test_what_a_load_takes_decides_what_is_in_time(tmp_path: Path) -> None:
    clock = Clock()
    teaching = _teaching(tmp_path, clock, load_s=lambda: 0.1)
    clock.now = 6.0
    teaching.hear("0", _visits("prefs", gap_us=50_000))
    assert _rules(tmp_path) == []


def test_sources_that_cannot_be_read_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Sequence[Source] | Exception] = [SOURCES, Unavailable("no database")]

    def sources() -> Sequence[Source]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    clock = Clock()
    teaching = Teaching(tmp_path, sources=sources, clock=clock)
    clock.now = 6.0
    teaching.hear("0", _visits("prefs"))
    assert "no database" in caplog.text
    assert _rules(tmp_path) == ["session:{a} -> prefs:{a}"]


def test_a_full_disk_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from predis.cache.predictor import published

    clock = Clock()
    teaching = _teaching(tmp_path, clock)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(published.os, "fsync", full)
        clock.now = 6.0
        teaching.hear("0", _visits("prefs"))
    assert "No space left" in caplog.text
    clock.now = 12.0
    teaching.hear("0", _visits("prefs", start=60))
    assert _rules(tmp_path) == ["session:{a} -> prefs:{a}"]
