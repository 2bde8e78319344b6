"""MULTI ... EXEC over a cluster: a transaction is of one slot, and so at one node.

Its node is that of its first key. MULTI comes before that: where the commands that follow are at hand the key is looked for in them, else
MULTI goes to the client's home, and to the right node, with what was queued, as soon as a key is there. A command of another slot is not
queued; Valkey is given one that it does not know instead, so that the transaction cannot be executed.

Where the slot has moved, Valkey refuses to queue, or to execute: nothing was done, so all of it is sent again to the new node. That would
lose what WATCH watches; so with WATCH it is as if somebody had written the key: EXEC gets a null, and clients begin again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from predis.cache.cluster.asks import CROSS_SLOT, Ask
from predis.cache.cluster.slots import Redirect, slot_of
from predis.cache.resp import Command, command, error, null

if TYPE_CHECKING:
    from predis.cache.cluster.slots import Node
    from predis.cache.cluster.transport import ClusterTransport
    from predis.cache.commands import Described

_QUEUED = b"+QUEUED\r\n"
_DISCARD = command(b"DISCARD")
_UNKNOWN = command(
    b"PREDIS", b"REFUSE"
)  # no Valkey knows it: it marks a transaction as one that cannot be executed


class Watch:
    """What WATCH watches. ``node``: where, once that is known."""

    __slots__ = ("node", "slot")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.node: Node | None = None


class Transaction:
    """What was sent since MULTI."""

    __slots__ = ("asks", "broken", "ended", "moved", "node", "slot", "watched")

    def __init__(self, slot: int, *, watched: bool) -> None:
        self.slot = slot  # -1: no key yet
        self.watched = watched
        self.asks: list[Ask] = []
        self.node: Node | None = None  # where it was sent
        self.ended = False  # EXEC or DISCARD was sent
        self.moved = False  # it is to be sent again
        self.broken = False  # as ``watched``: EXEC gets a null

    def takes(self, ask: Ask, reply: bytes, *, protocol: int) -> bytes | None:
        """What the client gets; None: nothing yet, it is sent again."""
        if self.moved:
            return None
        redirect = Redirect.of(reply)
        if self.watched:
            executes = self.ended and ask is self.asks[-1]
            if redirect is not None:
                self.broken = True
                return null_array(protocol) if executes else _QUEUED
            return (
                null_array(protocol)
                if executes and self.broken and reply.startswith(b"-EXECABORT")
                else reply
            )
        if redirect is not None:
            self.moved = True
            return None
        return reply

    def send_again(self, flow: ClusterTransport, asking: Node | None) -> None:
        """Send all of it once more, to where its slot is now."""
        before, node = self.node, asking or flow.node_of(self.slot)
        if before is not None and not self.ended and flow.has(before):
            flow.swallow_at(before, _DISCARD)
        self.moved, self.node = False, node
        for ask in self.asks:
            ask.asking, asking = asking, None
            if ask.reply is None:
                flow.send_to(node, ask)
            else:
                flow.swallow_at(node, ask.raw, asking=ask.asking is not None)

    def pin(self, flow: ClusterTransport, slot: int) -> None:
        """Its first key is there: have it at the right node."""
        self.slot = slot
        node = flow.node_of(slot)
        if self.node is None or node is self.node:
            return
        flow.swallow_at(self.node, _DISCARD)
        for ask in self.asks:
            flow.swallow_at(node, ask.raw)
        self.node = node


def null_array(protocol: int) -> bytes:
    """What EXEC answers where a watched key was written."""
    return null(3) if protocol == 3 else b"*-1\r\n"


def begin(flow: ClusterTransport, sent: Command) -> None:
    """MULTI."""
    watch = flow.watch
    slot = watch.slot if watch is not None else _first_slot(flow)
    transaction = Transaction(slot, watched=watch is not None)
    flow.transaction = transaction
    # Where WATCH was, even if its slot is said to be elsewhere by now: only that node knows whether the key was written.
    transaction.node = watch.node if watch is not None else None
    asking = transaction.node is not None and transaction.node is not flow.node_of(slot)
    _add(flow, sent[1], asking=asking, to=transaction)


def end(flow: ClusterTransport, sent: Command) -> None:
    """EXEC, DISCARD."""
    transaction = flow.transaction
    if transaction is None:
        flow.ask(sent[1])
        return
    transaction.ended = True
    flow.transaction = flow.watch = None
    _add(flow, sent[1], to=transaction)


def queue(flow: ClusterTransport, sent: Command, *, described: Described | None) -> None:
    """Any command inside."""
    args, raw = sent
    transaction = flow.transaction
    assert transaction is not None
    slots = {slot_of(key) for key in described.keys(args)} if described is not None else set()
    if len(slots) == 1:
        (slot,) = slots
        if transaction.slot < 0:
            transaction.pin(flow, slot)
        elif slot != transaction.slot:
            _add(flow, _UNKNOWN, instead=CROSS_SLOT, to=transaction)
            return
    _add(flow, raw, to=transaction)


def refuse(flow: ClusterTransport, sent: Command, *, described: Described | None) -> None:
    """A command inside that is of all nodes, or of the connection."""
    transaction = flow.transaction
    assert transaction is not None
    name = sent[0][0][:32].decode("ascii", "replace")
    text = error(f"ERR {name} cannot be part of a transaction over a cluster")
    _add(flow, _UNKNOWN, instead=text, to=transaction)


def watch(flow: ClusterTransport, sent: Command, *, described: Described) -> None:
    """WATCH: of one slot, until EXEC."""
    slots = {slot_of(key) for key in described.keys(sent[0])}
    if flow.watch is not None and slots and slots != {flow.watch.slot}:
        flow.reply(CROSS_SLOT)
        return
    ask = flow.ask(sent[1], min(slots, default=-1))
    if len(slots) == 1:
        flow.watch = ask.watch = flow.watch or Watch(ask.slot)


def unwatch(flow: ClusterTransport, sent: Command) -> None:
    flow.ask(sent[1], flow.watch.slot if flow.watch is not None else -1)
    flow.watch = None


def _add(
    flow: ClusterTransport, raw: bytes, *, to: Transaction, instead: bytes = b"", asking: bool = False
) -> None:
    ask = Ask(raw, to.slot)
    ask.instead = instead
    ask.transaction = to
    to.asks.append(ask)
    if to.node is None:
        to.node = flow.node_of(to.slot)
    ask.asking = to.node if asking else None
    flow.expect(ask)
    flow.send_to(to.node, ask)


def _first_slot(flow: ClusterTransport) -> int:
    """Of the commands at hand."""
    for args, _ in flow.held:
        if args[0].upper() in (b"EXEC", b"DISCARD", b"RESET"):
            break
        described = flow.rules.of(args).described
        if described is not None and (keys := described.keys(args)):
            return slot_of(keys[0])
    return -1
