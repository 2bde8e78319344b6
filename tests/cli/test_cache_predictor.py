"""``predis cache predictor``: what people are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from predis.cli import cache_predictor, cache_versions, main

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
        "predictor": {"number": 7, "digest": "d", "followed": 31}, "workers": 2, "hold_back": 0.05, "dropped": {}, "total": NONE_YET, "rules": [],
        "learned": [], "schedules": [], **given,
    }  # fmt: skip


def _managed(version: int = 0, **given: Any) -> dict[str, Any]:
    return {
        "champion": {"version": version, "gain_at_promotion": None, "latest": NONE_YET, "verdict": ""}, "candidate": None,
        "training": None, "problem": "", "habits": None, "decisions": [], "versions": [], **given,
    }  # fmt: skip


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Any:
    def show(answer: dict[str, Any], *flags: str, managed: dict[str, Any] | None = None) -> str:
        class Client:
            def cache_predictor(self) -> dict[str, Any]:
                return answer

            def cache_predictors(self) -> dict[str, Any]:
                return managed or _managed()

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
            rules=[{"rule": LEARNED[0]["rule"], "version": 0, "on": True, **GAINS}],
            total=GAINS,
            dropped={"budget": 12},
        )
    )
    assert "No trained version, refreshed 7 times by the learner: 1 rule, 31 keys that others follow" in text
    assert "at work in 2 workers." in text
    assert "right 92% of the time, 24 ms ahead" in text
    assert "1,000 keys prefetched: 900 read in time, 40 too late, 60 not read" in text
    assert "spares 0.86 misses a key (0.71 to 0.93), against 50 keys held back" in text
    assert "12 budget" in text
    assert "switched off" not in text


def test_a_rule_that_does_not_pay_is_said_to_be_off(shown: Any) -> None:
    text = shown(
        _answer(learned=LEARNED, rules=[{"rule": LEARNED[0]["rule"], "version": 0, "on": False, **GAINS}])
    )
    assert "switched off for now: it does not pay" in text


def test_before_anything_was_prefetched(shown: Any) -> None:
    assert "nothing prefetched yet" in shown(_answer(learned=LEARNED))


def test_keys_read_on_a_schedule_are_told_the_next_due_first(shown: Any) -> None:
    one = {
        "rule": "report:{} every 60 s",
        "period_s": 60.0,
        "tolerance_s": 1.2,
        "last_s": 1.7e9,
        "due_s": 1.7e9 + 60,
    }
    text = shown(_answer(schedules=[{"key": f"report:{at}", **one} for at in range(12)]))
    assert "Read on a schedule, and loaded just before: 12 keys." in text
    assert "report:0: every 60 s ± 1.2, next at " in text
    assert "report:10" not in text
    assert "and 2 keys more (--json)" in text


def test_json_is_the_answer_itself(shown: Any) -> None:
    answer = _answer(learned=LEARNED)
    assert json.loads(shown(answer, "--json")) == {**answer, "managed": _managed()}


TRIAL = {
    "version": 4, "share": 0.5, "since": "2026-11-21T10:00:00.000Z", "champion": GAINS, "candidate": GAINS, "verdict": "not certain yet",
}  # fmt: skip
HABITS = {
    "version": 3, "reads": 9_000, "psi": 0.31, "floor": 0.2, "shifted": True, "drifted": True,
    "moved": [{"kind": "cart:{}", "share": 0.4, "before": 0.1}],
}  # fmt: skip


def test_the_version_its_trial_and_habits_are_told(shown: Any) -> None:
    rules = [
        {"rule": LEARNED[0]["rule"], "version": version, "on": True, **GAINS, "given": given}
        for version, given in ((3, 1_000), (4, 77))
    ]
    text = shown(_answer(learned=LEARNED, rules=rules), managed=_managed(3, candidate=TRIAL, habits=HABITS))
    assert text.startswith("Version 3, refreshed 7 times")
    assert "Version 4 is on trial with 50% of the keys since 2026-11-21T10:00:00: not certain yet." in text
    assert "have drifted (PSI 0.31, 0.2 counts): cart:{} is 40% of the reads, 10% when it was trained" in text
    assert "1,000 keys prefetched" in text, "a rule is told as the champion has it"


class Server:
    """What a server would answer, and what it was asked for."""

    def __init__(self, managed: dict[str, Any]) -> None:
        self.managed = managed
        self.asked: list[Any] = []

    def cache_predictors(self) -> dict[str, Any]:
        return self.managed

    def train_cache_predictor(self) -> dict[str, Any]:
        return {"id": "retrain-1"}

    def promote_cache_predictor(self) -> dict[str, Any]:
        self.asked.append("promote")
        return self.managed

    def roll_back_cache_predictor(self, version: int | None = None) -> dict[str, Any]:
        self.asked.append(version)
        return self.managed


def _said(monkeypatch: pytest.MonkeyPatch, server: Server, *words: str) -> str:
    monkeypatch.setattr(cache_versions, "client", lambda *_, **__: server)
    result = CliRunner().invoke(main, ["cache", "predictor", *words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


VERSION = {
    "version": 3, "state": "in use", "created_at": "2026-11-21T09:00:00.000Z", "digest": "d", "lineage": {}, "decision": None,
    "metrics": {"miss_ratio": 0.31, "lru_miss_ratio": 0.52, "s3fifo_miss_ratio": 0.5, "precision": 0.9, "on_time": 0.97, "loads_to_lru": 1.02},
}  # fmt: skip
DECISION = {
    "at": "2026-11-21T09:30:00.000Z",
    "decision": "promote",
    "version": 3,
    "why": "0.90 misses spared a key",
    "actor": "predictor",
}


def test_versions_with_their_report_and_what_was_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = {
        **VERSION,
        "version": 2,
        "state": "",
        "metrics": {},
        "decision": {**DECISION, "decision": "drop"},
    }
    server = Server(_managed(3, versions=[VERSION, dropped], decisions=[DECISION]))
    text = _said(monkeypatch, server, "versions")
    for told in (
        "in use",
        "(drop)",
        "31.0%",
        "52.0%",
        "1.02",
        "version 3: promote (predictor): 0.90 misses spared",
    ):
        assert told in text
    assert json.loads(_said(monkeypatch, server, "versions", "--json")) == server.managed
    assert "No version has been trained yet" in _said(monkeypatch, Server(_managed()), "versions")


@pytest.mark.parametrize(
    ("training", "said"),
    [
        (
            {"state": "running", "ended_at": None, "step": "train", "trigger": "first"},
            "being trained (first): train",
        ),
        (
            {"state": "failed", "ended_at": 1, "detail": {"error": "too few reads"}},
            "came to nothing: too few reads",
        ),
        (
            {"state": "rejected", "ended_at": 1, "detail": {"decision": "20% read"}},
            "came to nothing: 20% read",
        ),
        ({"state": "promoted", "ended_at": 1, "detail": {}}, ""),
    ],
)
def test_the_last_training_is_told(
    monkeypatch: pytest.MonkeyPatch, training: dict[str, Any], said: str
) -> None:
    text = _said(monkeypatch, Server(_managed(training=training)), "versions")
    assert said in text
    assert ("training" in text) == bool(said) or "being trained" in text


def test_what_the_version_in_use_is_worth_of_late_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    champion = {"version": 3, "gain_at_promotion": 0.9, "latest": {**GAINS, "gain": 0.4}, "verdict": ""}
    text = _said(monkeypatch, Server(_managed(champion=champion)), "versions")
    assert (
        "Of late 94% of the keys it foretold were read, and it spares 0.40 misses a key; it took over with 0.90."
        in text
    )


def test_training_promoting_and_rolling_back(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(_managed(3))
    assert "retrain-1" in _said(monkeypatch, server, "train")
    assert "Version 3 is in use." in _said(monkeypatch, server, "promote")
    _said(monkeypatch, server, "rollback")
    _said(monkeypatch, server, "rollback", "0")
    assert server.asked == ["promote", None, 0]
    assert json.loads(_said(monkeypatch, server, "rollback", "2", "--json")) == server.managed
