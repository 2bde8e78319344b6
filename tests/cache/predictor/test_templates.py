"""Rules between kinds of keys: what is learnt, what is not, what stays bounded."""

from __future__ import annotations

import random

import pytest

from predis.cache.predictor.templates import Parsed, Rule, Slot, TemplateRules, by_shape, compiled, fill


def _learned(rules: TemplateRules, *, confidence: float = 0.5, support: float = 8.0) -> dict[str, float]:
    return {
        str(one.rule): one.on_time for one in rules.learned(min_confidence=confidence, min_support=support)
    }


def test_a_copied_argument_foretells_a_key_that_was_never_seen() -> None:
    rules = TemplateRules()
    for u in range(30):
        rules.read(3 * u, f"session:{u * 11}", client=u)
        rules.read(3 * u + 1, f"cart:{u * 11}:open", client=u)
    (one,) = rules.learned(min_confidence=0.5, min_support=8)
    assert one.rule.key(("31337",)) == "cart:31337:open"
    assert one.confidence == 1.0
    assert one.lead == 1.0


def test_pages_are_counted_on_and_further_where_the_next_would_come_too_late() -> None:
    near, far = TemplateRules(delay=0), TemplateRules(delay=2)
    for i in range(200):
        near.read(i, f"page:{i}", client=1)
        far.read(i, f"page:{i}", client=1)
    assert "page:{a} -> page:{a+1}" in _learned(near)
    assert not {"page:{a} -> page:{a+1}", "page:{a} -> page:{a+2}"} & _learned(far).keys()
    assert _learned(far)["page:{a} -> page:{a+3}"] > 0.9


def test_an_identity_in_the_value_leads_to_its_key() -> None:
    rules, chance = TemplateRules(), random.Random(1)
    for i in range(40):
        customer = str(chance.randrange(10**6))
        rules.read(2 * i, f"order:{i * 1000}", client=3, value={"customer": customer, "total": "12"})
        rules.read(2 * i + 1, f"customer:{customer}", client=3)
    found = {str(one.rule): one for one in rules.learned(min_confidence=0.9, min_support=8)}
    rule = found["order:{a} -> customer:{value.customer}"].rule
    assert rule.needs_value
    assert rule.key(("5",), {"customer": "77"}) == "customer:77"
    assert rule.key(("5",), {}) is None
    assert rule.key(("5",)) is None


def test_a_flood_of_one_kind_does_not_hide_another() -> None:
    rules, chance = TemplateRules(), random.Random(6)
    for hour in range(40):
        rules.read(100 * hour, f"weather:JFK:{hour}", client=1)
        for plane in range(60):
            rules.read(100 * hour + 1 + plane, f"plane:N{chance.randrange(10**6)}", client=1)
    assert list(_learned(rules)) == [
        "weather:JFK:{a} -> weather:JFK:{a+1}",
        "weather:JFK:{a} -> weather:JFK:{a+2}",
        "weather:JFK:{a} -> weather:JFK:{a+3}",
        "weather:JFK:{a} -> weather:JFK:{a+4}",
    ]


def test_clients_are_told_apart() -> None:
    rules, chance = TemplateRules(), random.Random(2)
    clients = [str(chance.randrange(10**9)) for _ in range(16)]
    for i in range(400):
        client = chance.randrange(16)
        rules.read(i, f"{'a' if i % 2 else 'b'}:{clients[client]}{i}", client=client)
    assert not _learned(rules, confidence=0.2)


def test_chance_is_no_rule() -> None:
    rules, chance = TemplateRules(), random.Random(3)
    for i in range(3_000):
        rules.read(i, f"{chance.choice('abc')}:{chance.randrange(100_000)}", client=chance.randrange(4))
    assert _learned(rules, confidence=0.05) == {}


def test_what_is_no_longer_true_fades() -> None:
    rules = TemplateRules(half_life=200)
    for i in range(100):
        rules.read(2 * i, f"session:{i * 7}")
        rules.read(2 * i + 1, f"prefs:{i * 7}")
    assert "session:{a} -> prefs:{a}" in _learned(rules)
    for i in range(1_000):
        rules.read(10_000 + i, f"session:{i * 7 + 3}")
    assert _learned(rules, confidence=0.5, support=0.0) == {}


def test_clients_and_rules_are_bounded() -> None:
    rules, chance = TemplateRules(max_clients=8), random.Random(4)
    rules.max_rules = 64
    for i in range(5_000):
        user = chance.randrange(10**6)
        rules.read(2 * i, f"t{chance.randrange(200)}:{user}", client=i)
        rules.read(2 * i + 1, f"u{chance.randrange(200)}:{user}:{chance.randrange(10**6)}", client=i)
    assert len(rules._clients) <= 8
    assert len(rules._counts) <= 64


def test_strong_rules_outlive_a_flood_of_chance() -> None:
    rules, chance = TemplateRules(), random.Random(5)
    rules.max_rules = 64
    for i in range(3_000):
        rules.read(4 * i, f"session:{i * 13}", client=1)
        rules.read(4 * i + 1, f"prefs:{i * 13}", client=1)
        rules.read(4 * i + 2, f"x:{i * 13}:{chance.randrange(10**9)}", client=1)
    assert "session:{a} -> prefs:{a}" in _learned(rules)


@pytest.mark.parametrize(
    ("key", "parsed"),
    [
        ("user:7", Parsed("user:{}", ("7",))),
        ("v1/users/7/orders", Parsed("{}/users/{}/orders", ("v1", "7"))),
        ("a:b", None),
        ("", None),
        ("braces:{7}", None),
        ("x" * 300 + "1", None),
    ],
)
def test_shapes(key: str, parsed: Parsed | None) -> None:
    assert by_shape(key) == parsed
    if parsed:
        assert fill(parsed.template, parsed.arguments) == key


def test_a_number_that_is_none_gives_no_key() -> None:
    rule = Rule("page:{}", "page:{}", (Slot("copy", 0, 1),))
    assert rule.key(("9",)) == "page:10"
    assert rule.key(("9x",)) is None
    assert rule.key(("007",)) is None


def test_compiled_is_by_the_first_template() -> None:
    rules = TemplateRules()
    for u in range(30):
        for at, name in enumerate(("session", "prefs", "cart")):
            rules.read(3 * u + at, f"{name}:{u * 11}", client=u)
    table = compiled(rules.learned(min_confidence=0.5, min_support=8))
    assert {str(one.rule) for one in table["session:{}"]} == {
        "session:{a} -> prefs:{a}",
        "session:{a} -> cart:{a}",
    }
    assert "cart:{}" not in table
