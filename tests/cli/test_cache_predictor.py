"""``predis cache predictor``: what people are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from predis.cli import cache_predictor, main

LEARNED = [
    {
        "rule": "session:{a} -> prefs:{a}",
        "confidence": 0.92,
        "on_time": 0.88,
        "support": 1_500,
        "lead_s": 0.024,
    }
]
GAINS = {
    "given": 1_000, "used": 900, "late": 40, "held": 50, "missed": 45, "gain": 0.86, "precision": 0.94, "on_time": 0.957,
    "gain_low": 0.71, "gain_high": 0.93,
}  # fmt: skip
NONE_YET: dict[str, Any] = {
    **dict.fromkeys(("given", "used", "late", "held", "missed"), 0),
    "gain": None, "precision": None, "on_time": None, "gain_low": -1.0, "gain_high": 1.0,
}  # fmt: skip


def _answer(**given: Any) -> dict[str, Any]:
    return {
        "predictor": {"number": 7, "digest": "d"}, "workers": 2, "hold_back": 0.05, "dropped": {}, "total": NONE_YET, "rules": [],
        "learned": [], **given,
    }  # fmt: skip


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Any:
    def show(answer: dict[str, Any], *flags: str) -> str:
        class Client:
            def cache_predictor(self) -> dict[str, Any]:
                return answer

        monkeypatch.setattr(cache_predictor, "client", lambda *_, **__: Client())
        result = CliRunner().invoke(main, ["cache", "predictor", "show", *flags], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    return show


def test_nothing_learnt_says_what_to_do(shown: Any) -> None:
    assert "Nothing has been learnt yet" in shown(_answer(predictor=None))


def test_a_rule_in_words(shown: Any) -> None:
    text = shown(
        _answer(
            learned=LEARNED,
            rules=[{"rule": LEARNED[0]["rule"], "on": True, **GAINS}],
            total=GAINS,
            dropped={"budget": 12},
        )
    )
    assert "Predictor 7: 1 rule, at work in 2 workers." in text
    assert "right 92% of the time, 24 ms ahead" in text
    assert "1,000 keys prefetched: 900 read in time, 40 too late, 60 not read" in text
    assert "spares 0.86 misses a key (0.71 to 0.93), against 50 keys held back" in text
    assert "12 budget" in text
    assert "switched off" not in text


def test_a_rule_that_does_not_pay_is_said_to_be_off(shown: Any) -> None:
    text = shown(_answer(learned=LEARNED, rules=[{"rule": LEARNED[0]["rule"], "on": False, **GAINS}]))
    assert "switched off for now: it does not pay" in text


def test_before_anything_was_prefetched(shown: Any) -> None:
    assert "nothing prefetched yet" in shown(_answer(learned=LEARNED))


def test_json_is_the_answer_itself(shown: Any) -> None:
    answer = _answer(learned=LEARNED)
    assert json.loads(shown(answer, "--json")) == answer
