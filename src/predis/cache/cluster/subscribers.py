"""Pub/sub over a cluster.

Channels and patterns are subscribed to at the client's home: a cluster passes what is published to all its nodes. Sharded channels have a
slot, and are subscribed to at its node.

In RESP3 all that subscribing brings are pushes, and the client may go on as before. Only how often Valkey answers such a command is not
known: behind it goes a PING with a word of ours, whose reply ends it.

In RESP2 what comes from then on answers nothing that could be counted: it is passed on as it comes, in whole frames. Valkey takes nothing
but (un)subscribing, PING, QUIT and RESET meanwhile. When something else is sent, it is asked first (by such a PING, after which all
confirmations are there) whether anything is subscribed to still; if not, all is as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from predis.cache.cluster.asks import Ask
from predis.cache.cluster.slots import Node, Redirect, slot_of
from predis.cache.resp import Command, bulk, command, items

if TYPE_CHECKING:
    from predis.cache.cluster.transport import ClusterTransport

_SHARDED = (b"SSUBSCRIBE", b"SUNSUBSCRIBE")
COMMANDS = (b"SUBSCRIBE", b"PSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE", *_SHARDED)
_AT_HOME = frozenset((*COMMANDS[:4], b"PING", b"QUIT", b"RESET"))
_WORD = b"predis:until-here"
_UNTIL = command(b"PING", _WORD)
_NOT_NOW = b"-ERR Can't execute '%b': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n"
_HERE = frozenset((bulk(_WORD), b"*2\r\n" + bulk(b"pong") + bulk(_WORD)))


def subscribe(flow: ClusterTransport, sent: Command) -> None:
    """SUBSCRIBE and the like."""
    if flow.protocol == 3:
        flow.ask_until(sent[1], _slot(sent), mark=_UNTIL, marks=_HERE)
        return
    flow.subscriber = Subscriber(flow)
    flow.subscriber.sends(sent)


def listen(flow: ClusterTransport, sent: Command) -> None:
    """MONITOR and the like: of the home node, to the end."""
    flow.subscriber = Subscriber(flow, for_good=True)
    flow.post(sent[1])


class Subscriber:
    """What a client subscribes to, in RESP2.

    Args:
        for_good: it will not end.
    """

    def __init__(self, flow: ClusterTransport, *, for_good: bool = False) -> None:
        self._flow = flow
        self._for_good = for_good
        self._counts: dict[tuple[Node, bool], int] = {}  # subscriptions by node, and whether sharded
        self._asked = 0  # PINGs of ours under way
        self._still = False  # it was found to subscribe still
        self._sharded: dict[int, bytes] = {}  # the last command of each slot, as long as it was sent but once

    def sends(self, sent: Command) -> None:
        """The client sends something."""
        name, flow = sent[0][0].upper(), self._flow
        if self._for_good or name in _AT_HOME:
            flow.post(sent[1])
        elif name in _SHARDED:
            self._sharded[_slot(sent)] = sent[1]
            flow.post(sent[1], _slot(sent))
        elif self._still:
            self._still = False
            flow.deliver(_NOT_NOW % name.lower()[:128])
        else:
            flow.hold_again(sent)
            self._asked = flow.post_all(_UNTIL)
            flow.barrier = Ask(b"")

    def sends_again(self, moved: bytes) -> bool:
        """Send a command once more whose slot has moved, as a node says; whether there is one."""
        redirect = Redirect.of(moved)
        raw = self._sharded.pop(redirect.slot, b"") if redirect is not None else b""
        if redirect is not None and raw:
            self._flow.post(raw, redirect.slot)
        return bool(raw)

    def heard(self, node: Node, frame: bytes) -> None:
        """Something came that answers nothing that was counted."""
        flow = self._flow
        if self._asked and frame in _HERE:
            self._asked -= 1
            if not self._asked:
                self._found_out()
            return
        if frame == b"+RESET\r\n":
            flow.forget()
            flow.subscriber = None
        elif frame.startswith(b"*3\r\n"):
            self._count(node, frame)
        flow.deliver(frame)

    def _count(self, node: Node, frame: bytes) -> None:
        kind, _, count = items(frame)
        what = kind[kind.find(b"\n") + 1 : -2]
        if what.upper() in COMMANDS and count.startswith(b":"):
            self._counts[node, what.startswith(b"s") and what != b"subscribe"] = int(count[1:-2])

    def _found_out(self) -> None:
        """All confirmations are there."""
        flow = self._flow
        self._still = any(self._counts.values())
        if not self._still:
            flow.subscriber = None
        assert flow.barrier is not None
        flow.barrier.reply = b""
        flow.settle()


def _slot(sent: Command) -> int:
    """Where it is sent: that of a sharded channel."""
    args = sent[0]
    return slot_of(args[1]) if len(args) > 1 and args[0].upper() in _SHARDED else -1
