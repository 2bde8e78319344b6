"""The compiled predictor: what it says after a read, and what is taken for one."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import orjson
import pytest
import zstandard

from predis.cache.predictor.tables import NOTHING, TABLE_RULE, Tables, scalars_of
from predis.cache.predictor.templates import Learned, Rule, Slot
from predis.cache.sources.pattern import Pattern
from predis.errors import IntegrityFailure

SESSION = SimpleNamespace(matched=Pattern("session:{user}"))
ORDER = SimpleNamespace(matched=Pattern("order:{id}", tenant="acme"))


def _learned(first: str, then: str, *slots: Slot) -> Learned:
    return Learned(Rule(first, then, slots), 0.9, 0.8, 100.0, 12.0)


TABLES = Tables(
    rules=(
        _learned("session:{}", "prefs:{}", Slot("copy")),
        _learned("acme:order:{}", "acme:customer:{}", Slot("value", text="customer")),
        _learned("acme:order:{}", "acme:order:{}", Slot("copy", 0, 1)),
    ),
    followers={b"session:1": (b"news:1", b"\xff\x00")},
)


def test_after_a_read_come_followers_and_what_rules_make() -> None:
    assert list(TABLES.after(b"session:1", SESSION, value=None)) == [
        (TABLE_RULE, b"news:1"),
        (TABLE_RULE, b"\xff\x00"),
        ("session:{a} -> prefs:{a}", b"prefs:1"),
    ]
    assert list(TABLES.after(b"session:never-seen", SESSION, value=None)) == [
        ("session:{a} -> prefs:{a}", b"prefs:never-seen")
    ]
    assert list(NOTHING.after(b"session:1", SESSION, value=None)) == []


def test_a_tenants_rules_make_its_own_keys_and_values_lead_further() -> None:
    key = b"acme:order:7"
    assert [made for _, made in TABLES.after(key, ORDER, value=None)] == [b"acme:order:8"]
    assert [made for _, made in TABLES.after(key, ORDER, value=b'{"customer": 19}')] == [
        b"acme:customer:19",
        b"acme:order:8",
    ]
    assert [made for _, made in TABLES.after(key, ORDER, value=b"\x00 no JSON")] == [b"acme:order:8"]


@pytest.mark.parametrize(
    "value", [b"", b"[1]", b"{", b'{"a": {"b": 1}}', b'{"a": null, "b": true, "c": 1.5}']
)
def test_what_is_no_scalar_is_left_out(value: bytes) -> None:
    assert scalars_of(value) == {}


def test_there_and_back() -> None:
    contents = TABLES.dump()
    assert contents == TABLES.dump()
    assert Tables.load(contents, digest=TABLES.digest()) == TABLES


def test_another_digest_is_refused() -> None:
    contents = bytearray(TABLES.dump())
    contents[-1] ^= 1
    with pytest.raises(IntegrityFailure, match="digest"):
        Tables.load(bytes(contents), digest=TABLES.digest())


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"format": 2, "rules": [], "followers": []},
        {"format": 1, "rules": [{}], "followers": []},
        {"format": 1, "rules": [], "followers": [["zz", []]]},
        {"format": 1, "rules": [], "followers": [[1, []]]},
        {
            "format": 1,
            "rules": [
                {"first": "a:{}", "then": "b:{}", "slots": [["copy", 5, 0, ""]],
                 "confidence": 1, "on_time": 1, "support": 1, "lead": 1}
            ],
            "followers": [],
        },
    ],
)  # fmt: skip
def test_what_has_another_form_is_refused_though_its_digest_is_right(document: object) -> None:
    contents = zstandard.ZstdCompressor().compress(orjson.dumps(document))
    with pytest.raises(IntegrityFailure):
        Tables.load(contents, digest=hashlib.sha256(contents).hexdigest())


def test_what_is_no_artifact_at_all_is_refused() -> None:
    for contents in (b"", b"nothing", zstandard.ZstdCompressor().compress(b"{")):
        with pytest.raises(IntegrityFailure):
            Tables.load(contents, digest=hashlib.sha256(contents).hexdigest())
