"""Champion and candidate: who speaks for which keys, and what the learner adds to both."""

from __future__ import annotations

from predis.cache.predictor.arms import Arm, Arms, Named, joined
from predis.cache.predictor.tables import TABLE_RULE, Tables
from predis.cache.predictor.templates import Learned, Rule, Slot
from predis.cache.sources.source import Source

SESSIONS = Source.of("sessions", {"pattern": "session:{u}", "kind": "python", "function": "a:b"})


def _rule(then: str, on_time: float = 0.8) -> Learned:
    return Learned(Rule("session:{}", then, (Slot("copy"),)), 0.9, on_time, 120.0, 25_000.0)


def test_without_a_candidate_the_champion_speaks() -> None:
    arms = Arms(Arm(3, Tables(rules=(_rule("prefs:{}"),))))
    assert arms.after(b"session:7", SESSIONS, value=None) == [
        (Named(3, "session:{a} -> prefs:{a}"), b"prefs:7")
    ]
    assert arms.after(b"other", SESSIONS, value=None) == ()
    assert arms.names == {Named(3, "session:{a} -> prefs:{a}")}


def test_each_key_is_foretold_by_one_of_them() -> None:
    tables = Tables(rules=(_rule("prefs:{}"),))
    arms = Arms(Arm(3, tables), Arm(4, tables), share=0.3)
    said = [arms.after(b"session:%d" % u, SESSIONS, value=None) for u in range(2_000)]
    assert all(len(one) == 1 for one in said)
    share = sum(one[0][0].version == 4 for one in said) / 2_000
    assert 0.25 < share < 0.35
    again = [arms.after(b"session:%d" % u, SESSIONS, value=None) for u in range(2_000)]
    assert again == said
    assert arms.after(b"other", SESSIONS, value=None) == ()


def test_another_candidate_gets_other_keys() -> None:
    tables = Tables(rules=(_rule("prefs:{}"),))
    trials = [Arms(Arm(3, tables), Arm(number, tables), share=0.5) for number in (4, 5)]
    theirs = [
        [arms.after(b"session:%d" % u, SESSIONS, value=None)[0][0].version > 3 for u in range(200)]
        for arms in trials
    ]
    assert theirs[0] != theirs[1]


def test_what_the_learner_found_since_is_added() -> None:
    trained = Tables(
        rules=(_rule("prefs:{}", 0.5), _rule("old:{}", 0.4)), followers={b"a": (b"b",), b"c": (b"d",)}
    )
    online = Tables(rules=(_rule("prefs:{}", 0.9), _rule("cart:{}", 0.7)), followers={b"a": (b"x",)})
    both = joined(trained, online)
    assert [(str(one.rule), one.on_time) for one in both.rules] == [
        ("session:{a} -> prefs:{a}", 0.9),
        ("session:{a} -> cart:{a}", 0.7),
        ("session:{a} -> old:{a}", 0.4),
    ]
    assert both.followers == {b"a": (b"x",), b"c": (b"d",)}
    assert both.names >= {TABLE_RULE}
