"""What was asked of a cluster and has no answer yet: one command at one node, or one that is put together from several."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from predis.cache.resp import array, error, items

if TYPE_CHECKING:
    from predis.cache.cluster.slots import Node
    from predis.cache.cluster.transactions import Transaction, Watch

Merge = Callable[[Sequence[bytes]], bytes]


class Ask:
    """A command at a node, and its reply once it is there.

    ``slot``: of its keys, which decides the node; -1: it has none. What most commands never have is kept in the class: there is one of
    these for every command.
    """

    reply: bytes | None = None
    told = False  # the client has what it gets
    after = b""  # pushes that came after its reply
    kept = 0  # bytes of its reply that wait for their turn
    at: Node | None = None  # the one node it is meant for, whoever has which slot
    ahead = b""  # a command whose reply nobody sees, which must go just ahead of it
    asking: Node | None = None  # an ASK's: only for the next time it is sent
    instead = b""  # what the client gets, whatever the reply
    until: Collection[bytes] = ()  # replies that end it; those before are what the client gets
    begun = b""
    parent: Several | None = None
    transaction: Transaction | None = None
    watch: Watch | None = None  # what it begins
    tries = 0
    deadline = 0.0

    def __init__(self, raw: bytes, slot: int = -1, *, silent: bool = False) -> None:
        self.raw = raw
        self.slot = slot
        self.silent = silent  # the client does not get the reply

    @property
    def whole(self) -> Ask | Several:
        return self.parent or self

    def answer(self, reply: bytes) -> None:
        self.reply = self.instead or reply
        if self.parent is not None:
            self.parent.part_answered()


class Several:
    """A command that is several at the nodes, and how its reply is made of theirs."""

    __slots__ = ("_left", "_merge", "after", "kept", "parts", "reply", "silent", "told")

    def __init__(self, parts: Sequence[Ask], merge: Merge, *, silent: bool) -> None:
        self.parts = parts
        self.silent = silent
        self.reply: bytes | None = None
        self.told = False
        self.after = b""
        self.kept = 0
        self._merge = merge
        self._left = len(parts)
        for part in parts:
            part.parent = self

    def part_answered(self) -> None:
        self._left -= 1
        if not self._left:
            self.reply = self._merge([part.reply or b"" for part in self.parts])


def failed(replies: Sequence[bytes]) -> bytes | None:
    """The first error among them."""
    return next((reply for reply in replies if reply.startswith(b"-")), None)


def first(replies: Sequence[bytes]) -> bytes:
    """What all agree on, or the first error."""
    return failed(replies) or replies[0]


def any_of(replies: Sequence[bytes]) -> bytes:
    """What those who could be reached agree on."""
    return first([reply for reply in replies if not reply.startswith(b"-LOADING ")] or replies)


def total(replies: Sequence[bytes]) -> bytes:
    return failed(replies) or b":%d\r\n" % sum(int(reply[1:-2]) for reply in replies)


def least(replies: Sequence[bytes]) -> bytes:
    return failed(replies) or min(replies, key=lambda reply: int(reply[1:-2]))


def joined(replies: Sequence[bytes]) -> bytes:
    """One array of all arrays' elements."""
    return failed(replies) or array([part for reply in replies for part in items(reply)])


def least_each(replies: Sequence[bytes]) -> bytes:
    """An array of numbers: of each, the least that any has."""
    if (wrong := failed(replies)) is not None:
        return wrong
    return array([least(column) for column in zip(*map(items, replies), strict=True)])


def placed(places: Sequence[Sequence[int]]) -> Merge:
    """One array of several, whose elements go to these places."""

    def merge(replies: Sequence[bytes]) -> bytes:
        if (wrong := failed(replies)) is not None:
            return wrong
        parts = [b""] * sum(map(len, places))
        for where, reply in zip(places, replies, strict=True):
            for place, part in zip(where, items(reply), strict=True):
                parts[place] = part
        return array(parts)

    return merge


CROSS_SLOT = error("CROSSSLOT Keys in request don't hash to the same slot")
NOT_SERVED = error("CLUSTERDOWN Hash slot not served")
NOT_AGREED = error("TRYAGAIN the nodes of the cluster do not agree who has the slot")
