"""What the Valkey behind the gateway says of its commands: which read, which write, and where their keys are.

The table is Valkey's own (COMMAND), so that a command which only its version or one of its modules has is known too. Where keys
are follows its key specifications: https://valkey.io/topics/key-specs/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Keys:
    """One specification: where keys begin, and how many there are.

    ``keyword``: they begin after it, looked for from ``start`` on. ``count_at``: the place of their number, from where they begin, and
    ``first`` of the first; without it they end at ``last``: counted from where they begin or, where negative, from the command's end.
    """

    start: int
    keyword: bytes = b""
    last: int = 0
    step: int = 1
    limit: int = 0
    count_at: int | None = None
    first: int = 0

    def of(self, args: Sequence[bytes]) -> Sequence[bytes]:
        """The keys in a command; none where it is not as it should be, which Valkey will say."""
        begin = self._begin(args)
        if begin <= 0 or begin >= len(args):
            return ()
        if self.count_at is not None:
            try:
                count = int(args[begin + self.count_at])
            except (ValueError, IndexError):
                return ()
            begin += self.first
            return args[begin : begin + count * self.step : self.step] if count > 0 else ()
        end = begin + self.last if self.last >= 0 else len(args) + self.last
        if self.limit >= 2:
            end = begin + (len(args) - begin) // self.limit + self.last
        return args[begin : end + 1 : self.step]

    def known(self, head: Sequence[bytes]) -> bool:
        """Whether the keys are the same whatever arguments follow these."""
        if self.keyword or self.start < 0 or len(head) <= self.start:
            return False
        if self.count_at is None:
            return self.last >= 0 and self.limit < 2 and len(head) > self.start + self.last
        try:
            count = int(head[self.start + self.count_at])
        except (ValueError, IndexError):
            return False
        return len(head) >= self.start + self.first + count * self.step

    def _begin(self, args: Sequence[bytes]) -> int:
        if not self.keyword:
            return self.start
        places = range(self.start, len(args)) if self.start >= 0 else range(len(args) + self.start, 0, -1)
        return next((place + 1 for place in places if args[place].upper() == self.keyword), 0)


@dataclass(frozen=True, slots=True)
class Described:
    """One command."""

    name: bytes
    reads: bool
    blocks: bool
    specs: tuple[Keys, ...]

    def known(self, head: Sequence[bytes]) -> bool:
        """Whether ``keys`` of these first arguments are those of the whole command."""
        return all(spec.known(head) for spec in self.specs)

    def keys(self, args: Sequence[bytes]) -> Sequence[bytes]:
        if len(self.specs) == 1:
            return self.specs[0].of(args)
        return [key for spec in self.specs for key in spec.of(args)]


def described(reply: Iterable[Sequence[Any]]) -> dict[bytes, Described]:
    """The commands that have keys, by name in capitals, from COMMAND's reply (RESP2)."""
    found = {}
    for row in reply:
        name, flags = bytes(row[0]).upper(), {_text(flag) for flag in row[2]}
        specs = tuple(filter(None, map(_keys, row[8] if len(row) > 8 else ())))
        if not specs and int(row[3]) > 0:  # of a module, or of an old server
            last = int(row[4])
            specs = (Keys(int(row[3]), last=last - int(row[3]) if last >= 0 else last, step=int(row[5])),)
        if specs:
            found[name] = Described(name, b"readonly" in flags, b"blocking" in flags, specs)
    return found


def _keys(spec: Sequence[Any]) -> Keys | None:
    said = _pairs(spec)
    begin, find = _pairs(said[b"begin_search"]), _pairs(said[b"find_keys"])
    where, what = _pairs(begin[b"spec"]), _pairs(find[b"spec"])
    if begin[b"type"] == b"index":
        start, keyword = int(where[b"index"]), b""
    elif begin[b"type"] == b"keyword":
        start, keyword = int(where[b"startfrom"]), bytes(where[b"keyword"]).upper()
    else:
        return None
    if find[b"type"] == b"range":
        limit, step = int(what[b"limit"]), int(what[b"keystep"])
        return Keys(start, keyword, last=int(what[b"lastkey"]), step=step, limit=limit)
    if find[b"type"] == b"keynum":
        first, step = int(what[b"firstkey"]), int(what[b"keystep"])
        return Keys(start, keyword, step=step, count_at=int(what[b"keynumidx"]), first=first)
    return None


def _pairs(flat: Sequence[Any]) -> Mapping[bytes, Any]:
    """A map as RESP2 sends it."""
    return {_text(name): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _text(word: Any) -> bytes:
    """A status may come as bytes or, from some parsers, as text."""
    return word.encode() if isinstance(word, str) else bytes(word)
