"""One client of the gateway: its commands go up a connection of its own, its replies come back through ``Answers``.

Why one upstream connection each: order, transactions, blocking commands, pub/sub, scripts, CLIENT TRACKING, SELECT and the RESP version
are then Valkey's own business, and the gateway cannot get them wrong. It is opened with the first command, so a connection that waits
costs little.

Hot path: ``data_received`` cuts commands, each is looked up by name in ``gateway.verbs`` and nearly always found to be nothing
special: it is counted, and its bytes go up with those of the whole read in one write. Replies are counted and go down as they come.

What is special (``verbs``): commands that change what replies answer (MULTI, SUBSCRIBE, CLIENT REPLY ...), those that the gateway
answers, and reads and writes of keys that a source has. A verb that must be settled before the next command is looked at makes the
session ``wait``; what the client sends in the meantime is kept, and it is not read any more.

Back-pressure: who does not take is not sent to, and who sends it to them is not read. So beside what the two kernels hold there is at
most about one read of the loop in each direction, a command or reply that has to be whole, and what waits behind a ``Gap``. A command
must be whole only where a source has its keys or they cannot be told before; above ``MOST_HELD`` it is refused.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from predis.cache.answers import Answers, Gap, Local, Swallow, Turn
from predis.cache.resp import Command, ProtocolBroken, Requests, command, error
from predis.cache.upstream import Link
from predis.cache.verbs import blocks
from predis.cache.watching import Looks, Prefetched, Reads
from predis.errors import Unavailable

if TYPE_CHECKING:
    from predis.access import Caller
    from predis.cache.accesses import Observe
    from predis.cache.gateway import Gateway

log = logging.getLogger(__name__)

TIMED_EVERY = 256  # commands of a worker: one in so many is timed
# Commands longer than this go up as they come, unless the gateway must see them whole; those longer than that do not.
HOLD_COMMAND, MOST_HELD = 64 << 10, 32 << 20
# What the client has not taken yet before Valkey is left unread.
_HIGH_WATER = 1 << 18
# Why the client is not read: something must be settled first, Valkey takes nothing, there is no connection to it yet, too many commands
# wait, too much waits behind a gap.
_WAITS, _UPSTREAM_SLOW, _CONNECTING, _CROWDED, _BEHIND = 1, 2, 4, 8, 16
# Why Valkey is not read: the client takes nothing, too much waits behind a gap.
_CLIENT_SLOW, _HELD = 1, 2
_SKIP, _PING = command(b"CLIENT", b"REPLY", b"SKIP"), command(b"PING")
# How long a client that did not take its replies has for the last ones when Valkey has closed.
LINGER_S = 2.0
# How long a subscriber may take nothing while there is something for it, as in Valkey's default client-output-buffer-limit. Valkey
# cuts it too, at that limit; but behind a full buffer that cannot be seen here. The same for a client that has been sent no more
# because it takes nothing, and is not read because it has asked too much.
STALLED_S = 60.0
# How long Valkey may take nothing of what a client sent that has gone.
ABANDONED_S = 60.0
_TOO_LONG = error(
    f"ERR Predis has to see this command whole, because of keys that sources may have, and takes {MOST_HELD >> 20} MB of such a command"
)


class Session(asyncio.Protocol):
    """A client's connection."""

    __slots__ = (
        "_backlog",
        "_connecting",
        "_counts",
        "_eof",
        "_gone",
        "_left",
        "_link",
        "_out",
        "_paused",
        "_postponed",
        "_requests",
        "_stalled",
        "_timed",
        "_waits",
        "answers",
        "caller",
        "database",
        "ending",
        "gateway",
        "in_multi",
        "key",
        "multi_database",
        "multi_keys",
        "muted",
        "near",
        "number",
        "observe",
        "odd",
        "piped",
        "protocol",
        "skip",
        "transport",
        "unsettled",
        "verbs",
    )  # fmt: skip

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._counts = gateway.counts
        self._timed: tuple[float, float] | None = None  # when the one command that is out came, and went up
        self.transport: asyncio.Transport
        self.answers = Answers(self._write, hold=self._hold, crowd=self._crowd)
        self._requests = Requests()
        self._link: Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._out: list[bytes] = []  # for Valkey, of this turn of the loop or until there is a connection
        self._backlog: deque[Command] | None = None  # commands that came while the session waits
        self._waits = 0  # how many things must be settled before the next command is looked at
        self._postponed = False  # the next command waits for reads to be settled
        self._paused = 0
        self._left = 0
        self._eof = False
        self._gone = False  # the client's connection is closed
        self._stalled: asyncio.TimerHandle | None = None
        self.ending = False  # nothing more is taken of the client; it is closed when all is answered
        # What makes that a command has no reply of its own; ``odd`` where any of it is so.
        self.odd = False
        self.muted = False  # CLIENT REPLY OFF
        self.skip = False  # CLIENT REPLY SKIP was the last command
        self.piped = False  # replies are passed on without looking: SUBSCRIBE, MONITOR
        self.in_multi = False
        self.multi_database: int | None = None  # that the transaction selects
        self.multi_keys: list[bytes] | None = None  # with a source, that the transaction writes
        self.protocol = 2
        self.database = gateway.database
        self.unsettled = 0  # reads that may have to be sent again
        self.verbs = gateway.verbs
        self.number = 0  # which connection of its worker this is
        self.observe: Observe | None = None
        self.near = False  # PREDIS NEAR ON: it takes what was prefetched
        self.caller: Caller | None = None  # who it is, where that matters
        self.key = b""  # the API key it showed

    # The client's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(_HIGH_WATER)
        self.ending = not self.gateway.came(self)

    def data_received(self, data: bytes) -> None:
        if self.ending:
            return
        counts, requests = self._counts, self._requests
        if counts.commands >= counts.timed_at:
            self._time(data)
            return
        counts.received += len(data)
        if requests.passing:
            end = requests.rest(data)
            self._out.append(data[:end])
            data = data[end:]
        commands = requests.feed(data)
        counts.commands += len(commands)
        if self._backlog is not None:
            self._backlog.extend(commands)
        else:
            self._run(commands)
        if requests.unfinished:
            self._look_at_rest()
        if self._out:
            self.flush()

    def pause_writing(self) -> None:
        self._leave_upstream(_CLIENT_SLOW, True)
        self._stalled = asyncio.get_running_loop().call_later(STALLED_S, self._stall)

    def resume_writing(self) -> None:
        self._leave_upstream(_CLIENT_SLOW, False)
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def eof_received(self) -> bool:
        """The client sends no more. Valkey is told the same way, and closes when it has answered, as it would have."""
        self._eof = True
        link = self._link
        if link is None or link.transport is None:
            return self._connecting is not None
        if not link.transport.can_write_eof():
            return False
        link.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ending = self._gone = True
        if self._stalled is not None:
            self._stalled.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is None:
            self.gateway.went(self)
        else:
            self._link.leave(ABANDONED_S)

    # Valkey's side

    def replied(self, data: bytes) -> None:
        """Bytes came from Valkey."""
        if self._timed is not None:
            self._time_reply(data)
            return
        self._counts.sent += len(data)
        try:
            self.answers.feed(data)
        except ProtocolBroken as broken:
            log.error("Valkey sent what is no reply (%s); its client is disconnected", broken.text)
            self.gateway.counts.broken.add()
            self.transport.abort()
        if self.ending:
            self.end()

    def upstream_lost(self) -> None:
        """Valkey closed the connection. Redis clients take that from us as from it: they connect anew, and send again what they may."""
        self._link = None
        if self._gone:
            self.gateway.went(self)
            return
        if not (self.answers.quiet or self.ending):
            self.gateway.counts.lost.add()
        self.ending = True
        if not self.transport.is_closing():
            self.transport.close()
            if self._left & _CLIENT_SLOW:  # it may never take what is left for it
                asyncio.get_running_loop().call_later(LINGER_S, self.transport.abort)

    def upstream_slow(self, slow: bool) -> None:
        self._leave_client(_UPSTREAM_SLOW, slow)

    # For verbs

    def forward(self, raw: bytes) -> None:
        """Send a command up; its reply goes to the client."""
        if not self.odd or self._is_answered():
            self.answers.plain += 1
        self._out.append(raw)

    def forward_for(self, raw: bytes, turn: Turn) -> None:
        """Send a command up whose reply ``turn`` takes."""
        if not self.odd or self._is_answered():
            self.answers.expect(turn)
        self._out.append(raw)

    def reply(self, reply: bytes) -> None:
        """Answer a command here, after the replies to those before it."""
        if self.skip and not self.muted:
            self._out.append(_PING)  # in its place; or Valkey would skip the reply to the command after it
        if not self.odd or self._is_answered():
            self.answers.expect(Local(reply))
        elif self.piped:
            self.answers.send(reply)

    def pipe(self, raw: bytes) -> None:
        """Send a command up after which what comes down answers no commands any more."""
        self.forward_for(raw, _Piping(self.answers))
        self.piped = self.odd = True

    def mute(self, muted: bool) -> None:
        self.muted = muted
        self.odd = muted or self.skip or self.piped

    def skip_next(self) -> None:
        self.skip = self.odd = True

    def forward_ahead(self, ahead: bytes | None) -> None:
        """Send up a command that the client does not know of, where there is one."""
        if ahead is None:
            return
        self._out.append(ahead)
        if not self.odd:
            self.answers.expect(Swallow())
        elif self.skip and not self.muted:  # it took the place of the command that is not to be answered
            self._out.append(_SKIP)

    def send_again(self, raw: bytes, turn: Turn) -> None:
        """Send up a command now, amid whatever else; its reply goes to ``turn``."""
        if self._link is None:
            return
        self.answers.expect(turn)
        self._out.append(raw)
        self.flush()

    def push(self, key: bytes) -> None:
        """Give a near cache a value before it asks for it: as a read of its own connection, so that Valkey tracks it."""
        busy = self._left or self._waits or self._requests.passing
        calm = not (busy or self.odd or self.in_multi or self.ending or self.database)
        if self.near and calm and self.protocol == 3 and self._link is not None:
            self.send_again(command(b"GET", key), Prefetched(key))

    def fill(self, gap: Gap, value: bytes) -> None:
        """The bytes of a gap are known."""
        self.answers.fill(gap, value)
        if self.ending:
            self.end()

    def settled(self) -> None:
        """A read will not be sent again any more."""
        self.unsettled -= 1
        if not self.unsettled and self._postponed:
            self._postponed = False
            self.proceed()

    def admitted(self, caller: Caller | None, key: bytes = b"") -> None:
        """The client is somebody else from now on; None: nobody."""
        self.caller, self.key = caller, key
        self.gateway.changed(self)

    def limit(self, stranger: bool) -> None:
        """Take no more of the client than of one who has not shown who it is, or as much as of anybody."""
        self._requests.stranger = stranger

    def wait(self) -> None:
        """Look at no further command until ``proceed`` is called as often as this."""
        self._waits += 1

    def proceed(self) -> None:
        """What ``wait`` was called for is settled. The next commands are looked at soon, not here: this may be amid replies."""
        self._waits -= 1
        if not self._waits:
            asyncio.get_running_loop().call_soon(self._resume)

    def end(self) -> None:
        """Take nothing more of the client, and close when all that it asked is answered."""
        self.ending = True
        if self.answers.quiet and not self._out and self._backlog is None:
            self.transport.close()

    def abort(self) -> None:
        """Close both connections, whatever is under way."""
        self.transport.abort()
        if self._link is not None and self._link.transport is not None:
            self._link.transport.abort()

    # What happens inside

    def _time(self, data: bytes) -> None:
        """Take bytes of the client; where they are one command, and the only one under way, time it."""
        counts = self._counts
        counts.timed_at = counts.commands + TIMED_EVERY
        calm, before, came_at = (
            self.answers.quiet and self._link is not None,
            counts.commands,
            time.perf_counter(),
        )
        self.data_received(data)
        if calm and counts.commands == before + 1 and not (self.answers.quiet or self.odd or blocks(data)):
            self._timed = came_at, time.perf_counter()

    def _time_reply(self, data: bytes) -> None:
        assert self._timed is not None
        (came_at, up_at), self._timed, down_at = self._timed, None, time.perf_counter()
        self.replied(data)
        if self.answers.quiet:  # else it is not its reply, not all of it, or a value is loaded first
            self._counts.upstream.observe((down_at - up_at,))
            self._counts.added.observe((up_at - came_at + time.perf_counter() - down_at,))

    def _run(self, commands: Iterable[Command]) -> None:
        verbs, answers, out = self.verbs, self.answers, self._out
        left = iter(commands)
        for sent in left:
            verb = verbs[sent[0][0]]
            if verb is not None:
                again = self.unsettled and not isinstance(verb, Reads)
                if again:
                    self._postponed = True
                    self.wait()
                else:
                    verb(self, sent)
                    verbs = self.verbs  # the client may be another now
                if self._waits:
                    self._backlog = deque(left)
                    if again:
                        self._backlog.appendleft(sent)
                    self._leave_client(_WAITS, True)
                    return
            elif self.odd:
                self.forward(sent[1])
            else:
                answers.plain += 1
                out.append(sent[1])

    def _resume(self) -> None:
        """Look at the commands that were kept."""
        backlog = self._backlog
        if self._waits or backlog is None or self.transport.is_closing():
            return
        self._backlog = None
        self._run(backlog)
        if self._backlog is None and not self.ending:
            self._leave_client(_WAITS, False)
            self._look_at_rest()
        if self._out:
            self.flush()
        if self.ending:
            self.end()

    def _look_at_rest(self) -> None:
        """After the whole commands: an end of the protocol, or a command that is long in coming."""
        requests = self._requests
        if self._backlog is not None:
            return
        if requests.broken is not None:
            self.odd = False
            self.reply(requests.broken.reply)
            self.end()
        elif requests.held > HOLD_COMMAND and not requests.passing:
            self._look_at_long()

    def _look_at_long(self) -> None:
        """Let a command that is long in coming go up as it comes, where what has come of it says that it may."""
        requests, head = self._requests, self._requests.head
        verb = self.verbs[head[0]] if head else None  # no command has so long a name
        if verb is not None and not (isinstance(verb, Looks) and verb.knows(self, head)):
            if requests.held > MOST_HELD:
                self.odd = False
                self.reply(_TOO_LONG)
                self.end()
        elif self.unsettled:  # what is sent again would come amid it
            self._postponed = True
            self.wait()
            self._backlog = deque()
            self._leave_client(_WAITS, True)
        elif verb is None or isinstance(verb, Reads):
            self.forward(requests.let_go())
        else:
            verb(self, (head, requests.let_go()))

    def flush(self) -> None:
        """Send up what is there, in one write."""
        link, out = self._link, self._out
        if not out:
            return
        if link is None:
            if self._connecting is None and not self.transport.is_closing():
                self._leave_client(_CONNECTING, True)
                self._connecting = asyncio.get_running_loop().create_task(self._connect())
            return
        assert link.transport is not None
        link.transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    async def _connect(self) -> None:
        try:
            link = await self.gateway.upstream.connect(self)
        except Unavailable as failed:
            log.warning("%s", failed.message)
            self.gateway.counts.unreachable.add()
            self._out.clear()
            # LOADING: Redis clients take it for a server that will be there soon, and try again.
            self._write(error(f"LOADING {failed.message}"))
            self.transport.close()
            return
        finally:
            self._connecting = None
        self._link = link
        assert link.transport is not None
        if self._left:
            link.transport.pause_reading()
        self.flush()
        self._leave_client(_CONNECTING, False)
        if self._eof and link.transport.can_write_eof():
            link.transport.write_eof()

    def _is_answered(self) -> bool:
        """Whether Valkey answers the command that is sent now with a reply that can be told from others."""
        skipped, self.skip = self.skip, False
        self.odd = self.muted or self.piped
        return not (skipped or self.odd)

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def _hold(self, much: bool, needed: bool) -> None:
        self._leave_client(_BEHIND, much)
        self._leave_upstream(_HELD, much and not needed)

    def _crowd(self, crowded: bool) -> None:
        self._leave_client(_CROWDED, crowded)

    def _stall(self) -> None:
        """The client has taken nothing for long."""
        if self.piped or self._paused & _CROWDED:
            log.warning("a client that takes nothing of what was sent to it is cut off")
            self.transport.abort()
        else:
            self._stalled = asyncio.get_running_loop().call_later(STALLED_S, self._stall)

    def _leave_client(self, reason: int, leave: bool) -> None:
        """Read the client no more, or again, as far as this reason goes."""
        before = self._paused
        self._paused = before | reason if leave else before & ~reason
        if self.transport.is_closing() or bool(before) == bool(self._paused):
            return
        self.transport.pause_reading() if leave else self.transport.resume_reading()

    def _leave_upstream(self, reason: int, leave: bool) -> None:
        before = self._left
        self._left = before | reason if leave else before & ~reason
        link = self._link
        if link is None or link.transport is None or link.transport.is_closing():
            return
        if bool(before) != bool(self._left):
            link.transport.pause_reading() if leave else link.transport.resume_reading()


class _Piping(Turn):
    """The first reply of a connection whose replies answer no commands from then on."""

    __slots__ = ("_answers",)

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def answer(self, reply: bytes) -> bytes:
        self._answers.piped = True
        return reply
