"""Which keys are whose: patterns such as ``user:{id}``, and one quick look-up over all of them.

A placeholder ``{name}`` stands for one or more bytes without a colon, ``{name:int}`` for a whole number, ``{name:path}`` for anything.
All else stands for itself; ``{{`` and ``}}`` are braces (of hash tags). A tenant's patterns are of its own keys: ``acme:`` goes before
them; the tenant ``default`` has no prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from predis.access import DEFAULT_TENANT
from predis.errors import InvalidInput

Arguments = Mapping[str, str | int]
T = TypeVar("T")

MAX_KEY_BYTES = 1_024
_REMEMBERED = 65_536
_TYPES = {"": r"[^:]+", "int": r"-?[0-9]{1,18}", "path": r".+"}
_PIECES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?")


class Pattern:
    """One pattern, compiled.

    >>> Pattern("cart:{user:int}:{day}").arguments(b"cart:7:mon")
    {'user': 7, 'day': 'mon'}
    >>> Pattern("user:{id}", tenant="acme").arguments(b"user:7") is None
    True

    Raises:
        InvalidInput: it cannot be one.
    """

    template: str
    """A whole key, the tenant's prefix included, with ``{}`` in place of each placeholder."""

    def __init__(self, text: str, *, tenant: str = DEFAULT_TENANT) -> None:
        self.text = text
        self._kinds: dict[str, str] = {}
        own = "" if tenant == DEFAULT_TENANT else f"{tenant}:"
        parts = [re.escape(own)]
        blank = [own]
        self.prefix = own
        at = 0
        literal_so_far = True
        for found in _PIECES.finditer(text):
            between = text[at : found.start()] + {"{{": "{", "}}": "}"}.get(found[0], "")
            at = found.end()
            parts.append(re.escape(between))
            blank.append(between)
            self.prefix += between if literal_so_far else ""
            if found[0] not in ("{{", "}}"):
                literal_so_far = False
                blank.append("{}")
                parts.append(self._placeholder(found[1]))
        parts.append(re.escape(text[at:]))
        self.template = "".join([*blank, text[at:]])
        if literal_so_far:
            raise InvalidInput(f"pattern {text!r} has no placeholder; write it as in user:{{id}}")
        if not self.prefix:
            raise InvalidInput(
                f"pattern {text!r} begins with a placeholder, so that every key would have to be looked at"
            )
        self.expression = "".join(parts)
        self._matcher = re.compile(self.expression.encode(), re.DOTALL)

    @property
    def names(self) -> tuple[str, ...]:
        """Its placeholders, in order."""
        return tuple(self._kinds)

    def texts(self, key: bytes) -> tuple[str, ...] | None:
        """What the placeholders stand for in a key, in order, as it is written there; None where it is not of this pattern, or not UTF-8.

        >>> Pattern("cart:{user:int}:{day}").texts(b"cart:007:mon")
        ('007', 'mon')
        """
        found = self._matcher.fullmatch(key)
        if found is None:
            return None
        try:
            return tuple(value.decode() for value in found.groups())
        except UnicodeDecodeError:
            return None

    def arguments(self, key: bytes) -> dict[str, str | int] | None:
        """What the placeholders stand for in a key; None where the key is not of this pattern, or is not UTF-8."""
        texts = self.texts(key)
        if texts is None:
            return None
        return {
            name: int(text) if kind == "int" else text
            for (name, kind), text in zip(self._kinds.items(), texts, strict=True)
        }

    def _placeholder(self, inside: str | None) -> str:
        found = _NAME.fullmatch(inside or "")
        if found is None or (found[2] or "") not in _TYPES:
            raise InvalidInput(
                f"pattern {self.text!r}: a placeholder is {{name}}, {{name:int}} or {{name:path}}, and braces are {{{{ and }}}}"
            )
        if found[1] in self._kinds:
            raise InvalidInput(f"pattern {self.text!r} has the placeholder {found[1]!r} twice")
        self._kinds[found[1]] = found[2] or ""
        return f"(?P<{found[1]}>{_TYPES[found[2] or '']})"


class Matcher(Generic[T]):
    """Finds the one thing whose pattern a key is of. Of several, that with the longest literal beginning; of equals, the first.

    A key that begins like no pattern costs one comparison, one that was seen lately a dictionary look-up. What is remembered is
    bounded: when it is full, it begins anew; and no key of more than ``MAX_KEY_BYTES`` is anybody's.
    """

    def __init__(self, found: Iterable[tuple[Pattern, T]]) -> None:
        self._entries = sorted(found, key=lambda entry: -len(entry[0].prefix))
        self._prefixes = tuple({pattern.prefix.encode() for pattern, _ in self._entries})
        self._expression = re.compile(
            b"|".join(b"(%b)" % _unnamed(pattern.expression) for pattern, _ in self._entries) or rb"(?!)",
            re.DOTALL,
        )
        self._known: dict[bytes, T | None] = {}
        self.active = bool(self._entries)

    def match(self, key: bytes) -> T | None:
        """The thing, or None."""
        if not key.startswith(self._prefixes) or len(key) > MAX_KEY_BYTES:
            return None
        try:
            return self._known[key]
        except KeyError:
            return self._look(key)

    def _look(self, key: bytes) -> T | None:
        found = self._expression.fullmatch(key)
        thing = None
        if found is not None and found.lastindex is not None and _has_a_slot(key):
            pattern, candidate = self._entries[found.lastindex - 1]
            thing = candidate if pattern.arguments(key) is not None else None
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key] = thing
        return thing


def hash_tag(key: bytes) -> bytes | None:
    """The part of a key that alone decides its cluster slot; None where the whole key does."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    return key[start + 1 : end] if start >= 0 and end > start + 1 else None


def beside(prefix: bytes, key: bytes) -> bytes:
    """The name of a key that is kept beside another: in the same slot of a cluster."""
    return prefix + key if hash_tag(key) is not None else b"%b{%b}" % (prefix, key)


def _has_a_slot(key: bytes) -> bool:
    """Whether ``beside`` can name its slot: not for the rare key that has a closing brace and no hash tag."""
    return b"}" not in key or hash_tag(key) is not None


def _unnamed(expression: str) -> bytes:
    return re.sub(r"\(\?P<\w+>", "(?:", expression).encode()
