"""One client's connections to a cluster, as if they were one to one Valkey.

Whoever uses a connection to Valkey writes commands to a transport and is given replies, in order. This is such a transport. Behind it is
a connection (``Branch``) to each node that this client needed so far, with all that the client said of itself (AUTH, HELLO, CLIENT ...).

Order
-----
A command goes to its node at once, whatever others are still to answer, so a pipeline is as fast as the slowest node's share of it. What
was asked stands in one queue, ``_order``, and replies leave in that order. Commands of one slot are executed in the order they were
sent; of different nodes, at the same time. A command after which others must wait (one that blocks, or changes the connection) is the
``barrier``. A push stays behind the reply that came before it from the same node, else an invalidation might overtake the value.

Redirection
-----------
A command that is answered MOVED or ASK is ``astray``. From then on nothing new is sent until all that was sent has its answer; then what
is astray is sent again, in order, to where it belongs. Before the map of slots is exchanged for a newer one, too, all must be answered:
so two commands of one slot are never under way at two nodes. A node that cannot be reached is treated likewise, for ``patience_s``.

Loss
----
A connection that breaks, or a node that is no master any more, is the end of all of this client's connections, as with one Valkey.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from predis.cache.cluster.asks import NOT_AGREED, NOT_SERVED, Ask, Merge, Several, failed
from predis.cache.cluster.branch import ASKING, Branch
from predis.cache.cluster.slots import Node, Redirect, SlotMap
from predis.cache.cluster.transactions import Transaction, Watch
from predis.cache.resp import Command, Requests, error
from predis.errors import Unreachable

if TYPE_CHECKING:
    from predis.cache.cluster.rules import Rules
    from predis.cache.cluster.subscribers import Subscriber

CONNECT_S = 1.0
_AGAIN_S = 0.05  # before a node that was not reached, or that sends away again and again, is tried once more
_TRIES = 16
_HELD_BYTES = 1 << 20  # of commands that wait to be sent, and of replies that wait for their turn
_MOST_COMMAND = 1 << 30  # bytes of one that is not whole yet, as Valkey's client-query-buffer-limit


class Nodes(Protocol):
    """What is known of the cluster, by all clients of a gateway."""

    slots: SlotMap
    rules: Rules

    def node_at(self, host: str, port: int, *, beside: Node | None = None) -> Node: ...

    def moved(self, slot: int, master: Node) -> None:
        """A node said that a slot has moved."""

    def look_soon(self) -> None:
        """Something is not as the map says."""

    async def open(self, branch: Branch) -> None:
        """Connect it.

        Raises:
            OSError
        """

    def greeting(self, said: Sequence[bytes]) -> list[bytes]:
        """What a connection begins with."""


class ClusterTransport(asyncio.Transport):
    """The transport.

    Args:
        protocol: is given the replies; ``begin`` does not tell it of the connection, whoever made this does.
        patience_s: how long a node may not be reachable before its commands are answered with an error.
    """

    def __init__(self, nodes: Nodes, protocol: asyncio.Protocol, *, patience_s: float) -> None:
        super().__init__()
        self._nodes = nodes
        self._protocol = protocol
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._requests = Requests()
        self._branches: dict[Node, Branch] = {}
        self._openings: set[asyncio.Task[None]] = set()
        self._order: deque[Ask | Several] = deque()
        self._astray: list[Ask] = []
        self._mending: asyncio.TimerHandle | None = None
        self._closer: asyncio.TimerHandle | None = None
        self._streamed: Ask | None = None  # whose reply is being passed on as it comes
        self._held_bytes = self._kept_bytes = 0
        self._paused = self._slow = self._full = self._eof = self._closing = self._ended = False
        self.rules = nodes.rules
        self.slots = nodes.slots
        self.home: Node = random.choice(self.slots.masters)
        self.under_way = 0  # commands that were sent and have no answer
        self.held: deque[Command] = deque()
        self.touched: set[Branch] = set()
        self.high_water = _HELD_BYTES
        self.barrier: Ask | Several | None = None
        self.transaction: Transaction | None = None
        self.blocked: Ask | None = None  # the last command that may wait for something to happen
        self.watch: Watch | None = None
        self.said: dict[bytes, bytes] = {}  # what every connection of this client is told first
        self.ahead = b""  # goes just ahead of the next command: CLIENT CACHING
        self.protocol = 2  # of RESP
        self.muted = self.skip = False  # CLIENT REPLY
        self.subscriber: Subscriber | None = None

    async def begin(self) -> None:
        """Connect to the first node.

        Raises:
            OSError: it does not answer, or refuses.
        """
        branch = self._branch(self.home, connect=False)
        try:
            await self._nodes.open(branch)
            await branch.ready
        except BaseException:
            branch.abandon()
            raise

    # For whoever uses it: a transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closing():
            return
        commands = self._requests.feed(bytes(data))
        self.held.extend(commands)
        self._held_bytes += sum(len(raw) for _, raw in commands)
        if self._requests.broken is not None or self._requests.held > _MOST_COMMAND:
            self.lose()
            return
        self._proceed()
        self.look_at_slow()

    def pause_reading(self) -> None:
        self._paused = True
        self._look_at_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self._look_at_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high_water = high or self.high_water

    def get_write_buffer_size(self) -> int:
        return self._held_bytes + sum(branch.unsent for branch in self._branches.values())

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Nothing more will be asked: the end is when all is answered, or waits for a command that blocks."""
        self._eof = True
        self._loop.call_soon(self.settle)

    def is_closing(self) -> bool:
        return self._ended or self._closing

    def close(self) -> None:
        """The end is when all that was asked is done, or when that takes too long; nobody is told of replies any more."""
        if self.is_closing():
            return
        self._closing = self._eof = True
        self.resume_reading()
        if self._is_over():
            self.lose()
        else:
            self._closer = self._loop.call_later(self._patience_s, self.lose)

    def abort(self) -> None:
        branches = [branch.transport for branch in self._branches.values() if branch.transport is not None]
        self.lose()
        for transport in branches:
            transport.abort()

    # For branches

    def take(self, branch: Branch, ask: Ask, *, reply: bytes) -> None:
        """A reply has come."""
        if ask.until and reply not in ask.until:
            ask.begun += reply
            branch.waiting.appendleft(ask)
            return
        self.under_way -= 1
        if ask.until:
            reply, ask.begun = ask.begun, b""
        if self._streamed is ask:
            self._streamed = None
            self.deliver(reply)
            ask.reply = b""
            return
        transaction = ask.transaction
        if reply.startswith((b"-MOVED ", b"-ASK ")) and not ask.told:
            reply = self._learn(branch, ask, reply=reply)
        if transaction is not None:
            taken = transaction.takes(ask, reply, protocol=self.protocol)
            if taken is None:
                self._astray.append(ask)
                return
            reply = taken
        elif reply.startswith((b"-MOVED ", b"-ASK ")) and not ask.told:
            self._astray.append(ask)
            return
        elif ask.watch is not None:
            ask.watch.node = branch.node
        self._answer(ask, reply)

    def pushed(self, branch: Branch, push: bytes) -> None:
        """Something came that answers nothing: it goes on behind what came before it from the same node."""
        last = branch.last.whole if branch.last is not None else None
        behind = last if last is not None and not last.told else self._streamed
        if behind is not None:
            behind.after += push
        else:
            self.deliver(push)

    def unasked(self, branch: Branch, frame: bytes) -> None:
        """What subscribers get in RESP2 answers nothing either."""
        if self.subscriber is None:
            self.lose()
            return
        if frame.startswith(b"-MOVED "):
            self._learn(branch, Ask(b""), reply=frame)
            self.slots = self._nodes.slots
            if self.subscriber.sends_again(frame):
                self._flush()
                return
            frame = NOT_AGREED
        self.subscriber.heard(branch.node, frame)

    def stream(self, ask: Ask, parts: Sequence[bytes]) -> bool:
        """Pass on the beginning of a reply, if it is this one's turn."""
        if self._streamed is not ask:
            plain = not (ask.silent or ask.instead or ask.until or ask.parent or ask.transaction)
            if not plain or parts[0].startswith(b"-") or not self._order or self._order[0] is not ask:
                return False
            self._streamed = ask
        self.deliver(b"".join(parts))
        return True

    def settle(self) -> None:
        """Pass on the replies whose turn it is, and go on with what waited for them."""
        if self._has_ended():
            return
        order, ready = self._order, []
        while order and (reply := order[0].reply) is not None:
            first = order.popleft()
            first.told = True
            self._kept_bytes -= first.kept
            if not first.silent:
                ready.append(reply)
            if first.after:
                ready.append(first.after)
        if ready:
            self.deliver(b"".join(ready))
        if self._has_ended():  # by whoever was given them
            return
        if self._full:
            self._full = self._kept_bytes > _HELD_BYTES
            self._look_at_reading()
        if self._astray:
            self._mend_when_calm()
        elif self.held:
            self._proceed()
            self.look_at_slow()
        if self._eof and self._is_over():
            self.lose()

    def lost(self, branch: Branch) -> None:
        """A connection broke."""
        if self._branches.get(branch.node) is branch:
            self._nodes.look_soon()
            self.lose()

    def leave_if(self, replicas: Collection[Node]) -> None:
        """These are replicas now: the end, where there is a connection to one."""
        if any(node in replicas for node in self._branches):
            self.lose()

    def lose(self) -> None:
        """It is over: close all, and say so."""
        if self._ended:
            return
        self._ended = True
        for task in self._openings:
            task.cancel()
        for timer in (self._mending, self._closer):
            if timer is not None:
                timer.cancel()
        for branch in self._branches.values():
            branch.abandon()
        self._branches.clear()
        self._loop.call_soon(self._protocol.connection_lost, None)

    def look_at_slow(self) -> None:
        """Whoever writes is told when a node takes nothing, or too much waits to be sent."""
        slow = self._held_bytes > _HELD_BYTES or any(branch.slow for branch in self._branches.values())
        if slow != self._slow:
            self._slow = slow
            self._protocol.pause_writing() if slow else self._protocol.resume_writing()

    # For rules

    def ask(self, raw: bytes, slot: int = -1) -> Ask:
        """Send a command to the node of a slot, or home."""
        ask = Ask(raw, slot)
        if self.ahead:
            ask.ahead = self.ahead
        self.expect(ask)
        self._send(ask)
        return ask

    def ask_until(self, raw: bytes, slot: int, *, mark: bytes, marks: Collection[bytes]) -> None:
        """Send a command that has no replies or several, and behind it one whose reply is known, which ends them."""
        ask = self.ask(raw + mark, slot)
        ask.until = marks
        self.barrier = ask

    def ask_several(self, parts: Sequence[Ask], merge: Merge) -> Several:
        several = Several(parts, merge, silent=False)
        for part in parts:
            part.ahead = self.ahead
        self.expect(several)
        for part in parts:
            self._send(part)
        return several

    def ask_all(self, raw: bytes, merge: Merge, *, open_only: bool = False) -> Several:
        """Send a command to every master, or to every node that this client has a connection to; home is the first."""
        nodes = list(self._branches) if open_only else [*self.slots.masters]
        nodes.sort(key=lambda node: node is not self.home)
        return self.ask_several([self.at(node, raw) for node in nodes or [self.home]], merge)

    def at(self, node: Node, raw: bytes) -> Ask:
        ask = Ask(raw)
        ask.at = node
        return ask

    def tell_all(self, raw: bytes, granted: Merge) -> None:
        """Say something of the connection on all of them; ``granted`` is called where it is.

        Where only some grant it, they are of two minds about who this is, and the end is near.
        """

        def merge(replies: Sequence[bytes]) -> bytes:
            wrong = failed(replies)
            if wrong is None:
                return granted(replies)
            if any(not reply.startswith(b"-") for reply in replies):
                self._loop.call_soon(self.lose)
            return wrong

        self.barrier = self.ask_all(raw, merge, open_only=True)

    def reply(self, reply: bytes) -> None:
        """Answer a command here."""
        ask = Ask(b"")
        self.expect(ask)
        ask.reply = reply
        self._loop.call_soon(self.settle)

    def expect(self, ask: Ask | Several) -> None:
        """The next reply is to be this one's."""
        ask.silent, self.skip = self.muted or self.skip, False
        self.ahead = b""
        self._order.append(ask)

    def send_to(self, node: Node, ask: Ask) -> None:
        (self._branches.get(node) or self._branch(node)).send(ask)

    def swallow_at(self, node: Node, raw: bytes, *, asking: bool = False) -> None:
        """Send a command whose reply nobody sees."""
        branch = self._branches.get(node) or self._branch(node)
        if asking:
            branch.swallow(ASKING)
        branch.swallow(raw)

    def post(self, raw: bytes, slot: int = -1) -> None:
        """Send bytes whose replies, if any, answer nothing that is counted."""
        node = self.node_of(slot)
        (self._branches.get(node) or self._branch(node)).post(raw)

    def post_all(self, raw: bytes) -> int:
        """Send bytes to every node that there is a connection to; how many those are."""
        for branch in self._branches.values():
            branch.post(raw)
        return len(self._branches)

    def hold_again(self, sent: Command) -> None:
        """Put a command back: it is not its time yet."""
        self.held.appendleft(sent)
        self._held_bytes += len(sent[1])

    def has(self, node: Node) -> bool:
        """Whether there is a connection to a node."""
        return node in self._branches

    def node_of(self, slot: int) -> Node:
        return (self.slots.owners[slot] if slot >= 0 else None) or self.home

    def deliver(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)

    def forget(self) -> None:
        """Be as new: one connection, and nothing said on it."""
        self.said.clear()
        for node in [node for node in self._branches if node is not self.home]:
            branch = self._branches.pop(node)
            self.under_way -= len(branch.waiting)
            branch.waiting.clear()  # or it is counted again where the branch was not connected yet
            branch.abandon()
        self.transaction, self.watch, self.ahead = None, None, b""
        self.muted = self.skip = False
        self.protocol = 2

    # What happens inside

    def _proceed(self) -> None:
        """Send what may be sent."""
        held = self.held
        while held and self._may_send():
            sent = held[0]
            if self.subscriber is not None:
                held.popleft()
                self._held_bytes -= len(sent[1])
                self.subscriber.sends(sent)
                continue
            rule = self.rules.of(sent[0])
            if rule.alone and self._order:
                break
            held.popleft()
            self._held_bytes -= len(sent[1])
            if self.transaction is not None and rule.in_multi is not None:
                rule.in_multi(self, sent, described=rule.described)
            else:
                rule.send(self, sent)
        self._flush()

    def _flush(self) -> None:
        touched, self.touched = self.touched, set()
        for branch in touched:
            branch.flush()

    def _may_send(self) -> bool:
        if self._astray or self._ended:
            return False
        if self.barrier is not None:
            if self.barrier.reply is None:
                return False
            self.barrier = None
        if self.slots is not self._nodes.slots:
            if self._order or self.transaction is not None:
                return not self._order
            self.slots = self._nodes.slots
        return True

    def _send(self, ask: Ask) -> None:
        node = ask.asking or ask.at
        if node is None:
            node = self.slots.owners[ask.slot] if ask.slot >= 0 else self.home
        if node is None:
            self._nodes.look_soon()
            ask.answer(NOT_SERVED)
            self._loop.call_soon(self.settle)
            return
        self.send_to(node, ask)

    def _answer(self, ask: Ask, reply: bytes) -> None:
        ask.answer(reply)
        whole = ask.whole
        if not whole.told and self._order[0] is not whole:
            whole.kept += len(reply)
            self._kept_bytes += len(reply)
            if self._kept_bytes > _HELD_BYTES and not self._full:
                self._full = True
                self._look_at_reading()

    def _learn(self, branch: Branch, ask: Ask, *, reply: bytes) -> bytes:
        """What a redirection says. Where there is no end of them it becomes an error that clients may try again after."""
        redirect = Redirect.of(reply)
        assert redirect is not None
        node = self._nodes.node_at(redirect.host, redirect.port, beside=branch.node)
        ask.tries += 1
        if redirect.asks:
            ask.asking = node
        else:
            self._nodes.moved(redirect.slot, node)
        return reply if ask.tries < _TRIES else NOT_AGREED

    def _mend_when_calm(self) -> None:
        """Send again what is astray, once nothing is under way; but for what blocks, which is the last and may take for ever."""
        blocks = self.blocked is not None and self.blocked.reply is None and self.blocked not in self._astray
        if self.under_way > blocks or self._mending is not None:
            return
        tries = max(ask.tries for ask in self._astray)
        pause = 0.0 if tries <= 2 else _AGAIN_S
        self._mending = self._loop.call_later(pause, self._mend)

    def _mend(self) -> None:
        self._mending = None
        astray, self._astray = self._astray, []
        self.slots = self._nodes.slots
        done: set[Transaction] = set()
        for ask in astray:
            transaction = ask.transaction
            if transaction is None:
                self._send(ask)
            elif transaction not in done:
                done.add(transaction)
                asking = next((one.asking for one in transaction.asks if one.asking is not None), None)
                transaction.send_again(self, asking)
        self._proceed()
        self.settle()

    def _branch(self, node: Node, *, connect: bool = True) -> Branch:
        branch = Branch(self, node, greeting=self._nodes.greeting([*self.said.values()]))
        branch.read(leave=self._paused)
        self._branches[node] = branch
        if connect:
            task = self._loop.create_task(self._open(branch))
            self._openings.add(task)
            task.add_done_callback(self._openings.discard)
        return branch

    async def _open(self, branch: Branch) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._nodes.open(branch)
                await branch.ready
        except (OSError, TimeoutError, Unreachable) as failure:
            if not self._ended:
                self._not_reached(branch, failure)
            return
        branch.flush()

    def _not_reached(self, branch: Branch, failure: Exception) -> None:
        """What waits for a node is sent again, to whichever is its node then, until patience is over."""
        refused, unknown = branch.transport is not None, self.subscriber is not None  # what waits for it
        if refused or unknown:
            self.lose()
            return
        if self._branches.get(branch.node) is branch:
            del self._branches[branch.node]
        self._nodes.look_soon()
        now = self._loop.time()
        for ask in branch.waiting:
            self.under_way -= 1
            if ask.told:  # nobody sees its reply
                continue
            ask.deadline = ask.deadline or now + self._patience_s
            if now < ask.deadline:
                ask.tries = max(ask.tries, 3)
                if ask.transaction is not None:
                    ask.transaction.moved = True
                self._astray.append(ask)
            else:
                ask.answer(
                    error(
                        f"LOADING Valkey at {branch.node} does not answer: {failure or 'no connection in time'}"
                    )
                )
        branch.waiting.clear()
        if branch.node is self.home:
            self.home = random.choice(self._nodes.slots.masters)
        self.settle()

    def _look_at_reading(self) -> None:
        """Nobody is read while the client takes nothing; those whose turn it is not, while too much waits."""
        full = self._full
        first: Any = self._order[0] if full and self._order else None
        wanted = {id(part) for part in getattr(first, "parts", (first,))}
        for branch in self._branches.values():
            needed = not full or any(id(ask) in wanted for ask in branch.waiting)
            branch.read(leave=self._paused or not needed)

    def _has_ended(self) -> bool:
        return self._ended

    def _is_over(self) -> bool:
        """Whether nothing more is to be answered to a client that sends no more. For what blocks Valkey would not wait."""
        if self._order:
            return self._order[0] is self.blocked
        return not self.held
