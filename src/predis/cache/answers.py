"""The way back: replies of one client's upstream, in the order of its commands, with what the gateway adds or takes away in place.

A client's commands go up one connection of its own, so their replies come in order, and nearly all of them go on as they came. What is
remembered of those is their number. Between them stand ``Turn``s: commands whose reply is looked at, swallowed or given by the gateway.

While no turn waits, ``feed`` counts replies and writes the bytes on as they are. Where one does, the bytes are cut at the ends of replies,
and the turn says what the client gets in place of its own.

A turn that cannot say so yet (a value is being loaded) puts a ``Gap`` there. From then on everything for this client waits behind the gap
until it is filled; nobody else does.

What is kept is bounded. Past ``HOLD_BYTES`` behind a gap neither the upstream nor the client is read any more, but for a reply that a gap
waits for (``Turn.fills``); with ``MOST_TURNS`` turns that wait the client is not. Of a reply longer than ``LONG_REPLY`` the turn is asked
whether its beginning is enough; if so, the rest goes on as it comes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from predis.cache.resp import Replies

HOLD_BYTES = 1 << 20
LONG_REPLY = 1 << 18
# A client that sends all of a long pipeline before it reads is let do so up to here; a turn costs some hundred bytes.
MOST_TURNS = 1 << 17


class Gap:
    """A place in the stream to the client whose bytes are not known yet."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: bytes | None = None


class Turn(ABC):
    """A command whose reply is not simply passed on."""

    __slots__ = ("ahead",)
    local = False  # whether the gateway answers it, so that no reply comes from upstream
    fills = False  # whether its reply is what a gap waits for, so that the upstream has to be read

    def __init__(self) -> None:
        self.ahead = 0  # plain replies that come before it and after the turn before it

    @abstractmethod
    def answer(self, reply: bytes) -> bytes | Gap:
        """What the client gets, given the reply (empty for a local turn)."""

    def passes(self, beginning: bytes) -> bool:
        """Whether the client gets this long reply as it is, given its beginning; asked once. If so ``answer`` is not called."""
        return False


class Swallow(Turn):
    """The reply to a command that the client does not know of."""

    __slots__ = ()

    def answer(self, reply: bytes) -> bytes:
        return b""


class Local(Turn):
    """A reply of the gateway's own."""

    __slots__ = ("_reply",)
    local = True

    def __init__(self, reply: bytes) -> None:
        super().__init__()
        self._reply = reply

    def answer(self, reply: bytes) -> bytes:
        return self._reply


class Answers:
    """One client's way back.

    Args:
        write: takes bytes for the client.
        hold: called with whether too much waits behind a gap, and whether the upstream has to be read all the same.
        crowd: called with whether the client is to be left unread, because too many of its commands wait.
    """

    __slots__ = (
        "_begun",
        "_crowd",
        "_crowded",
        "_filling",
        "_hold",
        "_judged",
        "_replies",
        "_turns",
        "_waiting",
        "_waiting_bytes",
        "_write",
        "piped",
        "plain",
    )

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        hold: Callable[[bool, bool], None],
        crowd: Callable[[bool], None],
    ) -> None:
        self._write = write
        self._hold = hold
        self._crowd = crowd
        self._crowded = False
        self._replies = Replies()
        self._turns: deque[Turn] | None = (
            None  # made when there is a first one: most connections never have any
        )
        self._begun: list[bytes] = []  # of the first turn's reply, what has come
        self._judged = False  # whether the turn was asked of it
        self._waiting: deque[bytes | Gap] | None = None
        self._waiting_bytes = 0
        self._filling = 0  # turns that wait whose replies are to fill gaps
        self.plain = 0  # replies still to come after the last turn, to be passed on
        self.piped = False  # replies answer no commands any more: bytes are passed on as they come

    @property
    def quiet(self) -> bool:
        """Whether every command has had its reply."""
        return not (self.plain > 0 or self._turns or self._waiting)

    def expect(self, turn: Turn) -> None:
        """A command was sent, or is answered here, after all before it."""
        if self._turns is None:
            self._turns = deque()
        turn.ahead, self.plain = max(self.plain, 0), 0
        self._turns.append(turn)
        if len(self._turns) >= MOST_TURNS and not self._crowded:
            self._crowded = True
            self._crowd(True)
        if turn.fills:
            self._filling += 1
            self._look_at_waiting()
        self._settle()

    def feed(self, data: bytes) -> None:
        """Bytes came from upstream.

        Raises:
            ProtocolBroken: they are no replies.
        """
        if self.piped:
            self.send(data)
            return
        replies = self._replies
        ends = replies.feed(data)
        if self._turns:
            self._cut(data, ends)
            return
        self.plain -= len(ends) - replies.pushes
        self.send(data)

    def send(self, data: bytes) -> None:
        """Bytes for the client, after all before them."""
        if self._waiting is None:
            self._write(data)
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._look_at_waiting()

    def fill(self, gap: Gap, value: bytes) -> None:
        """What stands in the gap is known now; what waited behind it goes on."""
        gap.value = value
        waiting = self._waiting
        if waiting is None:
            return
        self._waiting_bytes += len(value)
        ready: list[bytes] = []
        while waiting:
            first = waiting[0]
            known = first.value if isinstance(first, Gap) else first
            if known is None:
                break
            ready.append(known)
            self._waiting_bytes -= len(known)
            waiting.popleft()
        if not waiting:
            self._waiting = None
        self._look_at_waiting()
        if ready:
            self._write(b"".join(ready))

    def _look_at_waiting(self) -> None:
        self._hold(self._waiting_bytes > HOLD_BYTES, self._filling > 0)

    def _cut(self, data: bytes, ends: list[int]) -> None:
        """Pass on what is plain and give each turn its reply."""
        turns = self._turns
        assert turns is not None
        kept = start = 0  # from ``kept`` to ``start`` all is plain and not passed on yet
        for end in ends:
            first = turns[0] if turns else None
            if end < 0:  # a push: it answers nothing
                end = ~end
            elif first is None:
                self.plain -= 1
            elif first.ahead:
                first.ahead -= 1
                if first.local and not first.ahead:
                    self.send(data[kept:end])
                    kept = end
                    self._settle()
            else:
                if kept < start:
                    self.send(data[kept:start])
                self._begun.append(data[start:end])
                reply = b"".join(self._begun)
                self._begun.clear()
                self._judged = False
                turn = turns.popleft()
                self._filling -= turn.fills
                self._put(turn.answer(reply))
                self._settle()
                kept = end
                if self.piped:
                    break
            start = end
        if (
            turns
            and not turns[0].ahead
            and not self._replies.in_push
            and not self.piped
            and start < len(data)
        ):
            self._begun.append(data[start:])
            data = data[:start]
        if kept < len(data):
            self.send(data[kept:])
        if self._begun and not self._judged and sum(map(len, self._begun)) > LONG_REPLY:
            self._judge()
        if self._crowded and len(turns) < MOST_TURNS // 2:
            self._crowded = False
            self._crowd(False)

    def _judge(self) -> None:
        """Ask the first turn whether its reply may go on before it is whole. From then on it is a plain one."""
        turns = self._turns
        assert turns
        self._judged = True
        beginning = b"".join(self._begun)
        if not turns[0].passes(beginning):
            self._begun = [beginning]
            return
        turns.popleft()
        if turns:
            turns[0].ahead += 1
        else:
            self.plain += 1
        self._begun.clear()
        self._judged = False
        self.send(beginning)

    def _settle(self) -> None:
        """Answer the local turns that nothing is ahead of."""
        turns = self._turns
        while turns and turns[0].local and not turns[0].ahead:
            self._put(turns.popleft().answer(b""))

    def _put(self, answer: bytes | Gap) -> None:
        if isinstance(answer, bytes):
            if answer:
                self.send(answer)
        else:
            if self._waiting is None:
                self._waiting = deque()
            self._waiting.append(answer)
