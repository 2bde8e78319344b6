"""When a version takes over and when it goes, on outcomes of known worth."""

from __future__ import annotations

import random

import pytest

from predis.cache.predictor.gain import Tally
from predis.cache.predictor.verdicts import Gates, of_champion, of_trial, spared

GATES = Gates()


def _tally(foretold: int, *, gain: float = 0.9, read: float = 1.0, hold_back: float = 0.1) -> Tally:
    """Outcomes of keys of which a share is read; ``gain`` of them would have missed."""
    held = round(foretold * hold_back)
    given = foretold - held
    return Tally(given=given, used=round(given * read), held=held, missed=round(held * gain))


def _do(champion: Tally, candidate: Tally, *, share: float = 0.5, age_s: float = 60.0) -> str:
    return of_trial(champion, candidate, share=share, age_s=age_s, gates=GATES).do


def test_as_good_as_the_champion_is_promoted_once_that_is_certain() -> None:
    assert _do(_tally(300), _tally(300)) == "wait"
    assert _do(_tally(8_000), _tally(8_000)) == "promote"


def test_the_first_version_has_nothing_to_beat() -> None:
    assert _do(Tally(), _tally(1_000)) == "promote"


def test_one_that_foretells_little_is_worth_little_however_surely() -> None:
    assert _do(_tally(20_000, gain=0.8), _tally(2_000, gain=0.95)) == "drop"


def test_shares_are_taken_into_account() -> None:
    assert _do(_tally(36_000), _tally(4_000), share=0.1) == "promote"


def test_one_whose_keys_are_there_anyway_is_dropped() -> None:
    assert _do(_tally(1_000), _tally(5_000, gain=0.0)) == "drop"


def test_one_whose_keys_nobody_reads_is_dropped() -> None:
    verdict = of_trial(Tally(), _tally(1_000, gain=0.3, read=0.3), share=0.5, age_s=1.0, gates=GATES)
    assert verdict.do == "drop"
    assert "30%" in verdict.why


def test_too_little_evidence_waits_and_then_ends() -> None:
    assert _do(_tally(8_000), _tally(100)) == "wait"
    assert _do(_tally(8_000), _tally(100), age_s=8 * 86_400.0) == "drop"


def test_what_is_never_certain_ends() -> None:
    assert _do(_tally(2_000, gain=0.5), _tally(2_000, gain=0.5)) == "wait"
    assert _do(_tally(2_000, gain=0.5), _tally(2_000, gain=0.5), age_s=8 * 86_400.0) == "drop"


@pytest.mark.parametrize(
    ("recent", "before", "expected"),
    [
        (_tally(100), 0.9, "wait"),
        (_tally(5_000), 0.9, "wait"),
        (_tally(5_000, gain=0.0), 0.9, "roll back"),
        (_tally(20_000, gain=0.3), 0.9, "roll back"),
        (_tally(20_000, gain=0.3), None, "wait"),
        (_tally(20_000, gain=0.3), 0.4, "wait"),
    ],
)
def test_a_champion_goes_when_its_gain_is_gone(recent: Tally, before: float | None, expected: str) -> None:
    assert of_champion(recent, before=before, gates=GATES).do == expected


def test_what_is_spared_is_of_all_keys() -> None:
    whole, half = spared(_tally(1_000), 1.0), spared(_tally(1_000), 0.5)
    assert half.point == 2 * whole.point
    assert half.low <= half.point <= half.high


def test_a_worse_candidate_is_hardly_ever_promoted_though_one_looks_always() -> None:
    """Gain 0.9 against 0.5, looked at after every 50 outcomes, 40 times over."""
    wrong = 0
    for seed in range(40):
        chance = random.Random(seed)
        arms = [Tally(), Tally()]
        for outcome in range(3_000):
            for tally, gain in zip(arms, (0.9, 0.5), strict=True):
                if chance.random() < 0.1:
                    tally.count("held", "miss" if chance.random() < gain else "unread")
                else:
                    tally.count("given", "hit")
            if outcome % 50 == 0 and _do(*arms) == "promote":
                wrong += 1
                break
    assert wrong <= 2
