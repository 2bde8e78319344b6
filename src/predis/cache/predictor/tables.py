"""What a predictor has learnt, compiled: the artifact that the learner writes and the gateway looks things up in.

Two tables. *Rules* say which template follows which (``templates``), and so speak of keys that nobody has seen. *Followers* say of single
keys which keys follow. A gateway worker asks both after each read; that is a dictionary look-up each, and for the few keys that have a
rule the making of a text.

As a file it is JSON under Zstandard, so whoever doubts it can read it; it holds no code. ``load`` takes nothing whose digest is not the one
asked for, and nothing that is not of the form it must have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
import zstandard

from predis.cache.predictor.templates import Learned, Rule, Scalars, Slot, compiled
from predis.errors import IntegrityFailure

_FORMAT = 1
MOST_BYTES = 256 << 20  # of an artifact, unpacked
TABLE_RULE = "keys seen together"
"""The rule that stands for the table of followers where gains are counted."""


class Pattern(Protocol):
    """What is needed of a source's pattern."""

    template: str

    def texts(self, key: bytes) -> tuple[str, ...] | None: ...


class Matched(Protocol):
    """A source, as far as its keys go."""

    @property
    def matched(self) -> Any: ...


@dataclass(frozen=True)
class Tables:
    """A compiled predictor.

    >>> rule = Rule("session:{}", "prefs:{}", (Slot("copy"),))
    >>> tables = Tables(rules=(Learned(rule, 0.9, 0.8, 120.0, 5.0),), followers={b"home": (b"news",)})
    >>> Tables.load(tables.dump(), digest=tables.digest()) == tables
    True
    """

    rules: tuple[Learned, ...] = ()
    followers: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_template", compiled(self.rules))
        object.__setattr__(self, "_names", {one.rule: str(one.rule) for one in self.rules})

    @property
    def names(self) -> frozenset[str]:
        """The rules that it speaks for."""
        names: Iterable[str] = self._names.values()  # type: ignore[attr-defined]
        return frozenset([*names, TABLE_RULE] if self.followers else names)

    def after(self, key: bytes, source: Matched, *, value: bytes | None) -> Sequence[tuple[str, bytes]]:
        """Keys expected soon after this one was read, each with the rule that says so, the surest first."""
        followers = self.followers.get(key)
        pattern: Pattern = source.matched
        rules: tuple[Learned, ...] | None = self._by_template.get(pattern.template)  # type: ignore[attr-defined]
        if followers is None and rules is None:  # as it is for most keys
            return ()
        found = [(TABLE_RULE, follower) for follower in followers or ()]
        if rules is not None:
            found.extend(self._made(pattern.texts(key), rules, value=value))
        return found

    def _made(
        self, texts: tuple[str, ...] | None, rules: Iterable[Learned], *, value: bytes | None
    ) -> Iterable[tuple[str, bytes]]:
        if texts is None:
            return
        scalars: Scalars | None = None
        for one in rules:
            if one.rule.needs_value:
                if value is None:
                    continue
                scalars = scalars_of(value) if scalars is None else scalars
            made = one.rule.key(texts, scalars)
            if made is not None:
                yield self._names[one.rule], made.encode()  # type: ignore[attr-defined]

    def dump(self) -> bytes:
        """The artifact. The same tables give the same bytes."""
        document = {
            "format": _FORMAT,
            "rules": [_rule_document(one) for one in self.rules],
            "followers": [
                [key.hex(), [follower.hex() for follower in followers]]
                for key, followers in sorted(self.followers.items())
            ],
        }
        return zstandard.ZstdCompressor(level=6).compress(orjson.dumps(document))

    def digest(self) -> str:
        """SHA-256 of the artifact, in hexadecimal."""
        return hashlib.sha256(self.dump()).hexdigest()

    @classmethod
    def load(cls, contents: bytes, *, digest: str) -> Tables:
        """The tables of an artifact.

        Raises:
            IntegrityFailure: it is not the one with this digest, or no artifact of this form.
        """
        found = hashlib.sha256(contents).hexdigest()
        if found != digest:
            raise IntegrityFailure(
                f"the predictor's tables have the digest {found[:12]}, not {digest[:12]}; train anew: predis cache predictor train"
            )
        try:
            if zstandard.frame_content_size(contents) > MOST_BYTES:
                raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
            unpacked = zstandard.ZstdDecompressor().decompress(contents, max_output_size=MOST_BYTES)
            document = orjson.loads(unpacked)
            if document["format"] != _FORMAT:
                raise ValueError(f"format {document['format']!r}")
            return cls(
                rules=tuple(_rule_of(entry) for entry in document["rules"]),
                followers={
                    bytes.fromhex(key): tuple(bytes.fromhex(follower) for follower in followers)
                    for key, followers in document["followers"]
                },
            )
        except (zstandard.ZstdError, ValueError, KeyError, TypeError, IndexError) as error:
            raise IntegrityFailure(
                f"the predictor's tables are none ({error}); train anew: predis cache predictor train"
            ) from error


NOTHING = Tables()
"""Foretells nothing: what a gateway has before anything was learnt."""


def scalars_of(value: bytes) -> Scalars:
    """The scalar fields of a JSON object, as text; of one level only. Empty where it is none.

    >>> scalars_of(b'{"customer": 19, "name": "x", "lines": [1], "paid": true}')
    {'customer': '19', 'name': 'x'}
    """
    if not value.startswith(b"{"):
        return {}
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    return {
        name: str(scalar)
        for name, scalar in document.items()
        if isinstance(scalar, str | int) and not isinstance(scalar, bool) and scalar != ""
    }


def _rule_document(one: Learned) -> dict[str, Any]:
    return {
        "first": one.rule.first,
        "then": one.rule.then,
        "slots": [list(slot) for slot in one.rule.slots],
        "confidence": one.confidence,
        "on_time": one.on_time,
        "support": one.support,
        "lead": one.lead,
    }


def _rule_of(document: Mapping[str, Any]) -> Learned:
    slots = tuple(Slot(*slot) for slot in document["slots"])
    rule = Rule(document["first"], document["then"], slots)
    places = rule.first.count("{}")
    if rule.then.count("{}") != len(slots) or any(
        slot.source not in ("copy", "value", "same") or not 0 <= slot.at < max(places, 1) for slot in slots
    ):
        raise ValueError(f"a rule of {rule.first!r} that cannot be followed")
    numbers = [float(document[name]) for name in ("confidence", "on_time", "support", "lead")]
    return Learned(rule, *numbers)
