"""The tracked connection, without its socket: what is sent, what comes back, and why nothing out of date is ever kept.

One connection T of the process asks for every read that may be kept, in RESP3 and with CLIENT TRACKING ON. All else, writes above
all, goes the ordinary way, over redis-py's own connections. The server remembers for T which keys T has read and announces on T
when one of them changes, for whatever reason: a write, an expiry, an eviction, FLUSHALL (a null for the keys), or that it wants to
forget what T read (``tracking-table-max-keys``).

**What is promised.** Once a write has been confirmed to its writer, and anybody has then had a PING answered on T (``barrier``, or
any heartbeat), nobody is given anything older than that write from memory. Writes of this process need no PING: once redis-py has
returned from one, or raised, its old value is gone.

**Why it holds.** Say that W is a write of k, and that an answer v of before W is kept or on its way.

1. The server executes one command at a time. T's read of k came before W, or v would be of after W. So when W is executed, T is in
   the tracking table for k, and the announcement enters T's output *before* the writer's reply enters the writer's. (With BCAST it
   does so at the end of the event loop's round, still before any reply of that round is sent.) A PING that T sends after the
   writer has its reply is executed later still, so its PONG is behind the announcement.
2. The announcement is handled, by the one thread or task that reads T, before the PONG is; it drops k.
3. v is kept either before that, and then it is dropped; or after, and then its reservation, made before the read was sent, is gone
   with it, and v is not kept. This does not rely on v's reply being ahead of the announcement: a gateway may hold replies back
   and let announcements pass.
4. Nothing keeps v but a read on T. So nothing brings v back later.

The race that other clients lose (the reply of a read is on its way on one connection, the invalidation overtakes it on another) is
decided by 3 for any order of arrival.

**Writes of this process** run on other connections, and their announcement may still be on its way when they return. So the client
drops every key that the command names, after its reply: what is kept goes; what is being read loses its reservation; and any read
sent later is executed after the write. NOLOOP would change nothing, as T never writes; and the announcement of the own write comes
before the reply of a read that follows it, so it takes nothing new away.

**Time to live.** Each read is preceded by PTTL, and is kept no longer than that, counted from the moment of *sending*, which is
never too long. Should the limit change between the two commands, the announcement of that change takes the reservation. An answer
of a key that PTTL says does not exist is kept only if it looks so: a gateway may have loaded the value meanwhile, by a write
that is not tracked for this read. (Fields of hashes with limits of their own are announced when the server removes them, which it
does some time after they end.)

**Silence.** A connection that is cut, a server that hangs and a process that was stopped all look alike: nothing comes. So entries
are served only within a lease: ``max_stale_s`` from the moment at which the last command *that was answered* had been sent. Every
reply renews it; while there is none to come, a PING is sent three times in that span. When replies come again and the connection
is still the same one, all announcements of meanwhile have come before them, and service goes on with what is kept. When the
connection is lost, everything is dropped before anything else is done: what it would have announced will never come.

**Prefetched values.** A Predis gateway that was told ``PREDIS NEAR ON`` may read a key on T by itself, tracked like any read of T, and
push ``predis-prefetch key value``. It is handled like the reply of a read that was reserved and sent at this moment: T asks for PTTL,
and keeps the value when that is answered and the reservation still holds. That round trip is not only for the time limit: a write of
this process that was confirmed before the push was handled has its announcement ahead of that PTTL's reply.

**What one cannot have.** The server announces nothing for SWAPDB (one by this process is noticed), and tells no databases apart:
a write in another one takes the key of the same name with it, which costs a miss.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import hiredis

from predis.errors import Unavailable
from predis.nearcache.kept import Answer, Kept, Reservation, Shape
from predis.nearcache.reads import Decoder, own, pack, shape_of, tells_nothing

_PING = pack("PING")
_BEATS = 3  # within ``max_stale_s``
# A server that has not answered for this many ``max_stale_s`` is given up, and connected to anew.
_GIVEN_UP = 5
_MOST_OUTSTANDING = 10_000
_NO_TTL, _NO_KEY = -1, -2

Take = Callable[[Any], None]


class Flight:
    """One read under way on T: a GET, an HGETALL, an MGET of several keys.

    Args:
        command: its arguments; the keys in it are those of ``keys``, in their order.
        done: is called once, by whoever reads T, when ``answers`` is set: for each key its answer; None where there is none, as
            the connection was lost or the server refused.
    """

    __slots__ = ("answers", "command", "done", "keys", "reservations", "shape", "ttls_ms")

    def __init__(
        self, command: Sequence[bytes | str], keys: Sequence[bytes], *, done: Callable[[], None]
    ) -> None:
        self.command = command
        self.keys = keys
        self.shape: Shape = "GET" if command[0] == "MGET" else shape_of(command)
        self.done = done
        self.answers: list[Answer] | None = None
        self.reservations: list[Reservation] = []
        self.ttls_ms: list[Any] = []


class _Offer(NamedTuple):
    """A prefetched value that waits for the PTTL of its key."""

    key: bytes
    answer: Answer
    reservation: Reservation


class Tracking:
    """The protocol of T.

    What tells bytes to send is for one caller at a time, who also sends them before the next is called, so that replies come in the
    order of ``_outstanding``; and so is ``lost``. ``feed`` is for the one who reads the socket, beside the others.
    """

    def __init__(self, kept: Kept, decoder: Decoder) -> None:
        self.kept = kept
        self._decoder = decoder
        self.forget()

    def forget(self) -> None:
        """Begin anew, with nothing sent; what was sent before is nobody's concern."""
        self.gateway = False
        self._reader = hiredis.Reader()
        # For each command that was sent and not answered: when, and what takes its reply. A prefix of it can only be taken away.
        self._outstanding: deque[tuple[float, Take]] = deque()
        self._last_sent_at = -math.inf
        # Prefetched values that wait for their PTTL to be sent.
        self._offers: deque[_Offer] = deque()

    # What to send.

    def greet(self) -> bytes:
        """The first bytes to send on a new connection that speaks RESP3."""
        near = self.kept.near
        tracking = ["CLIENT", "TRACKING", "ON"]
        if near.broadcast:
            tracking.append("BCAST")
            for prefix in near.beginnings:
                tracking += ["PREFIX", prefix]  # type: ignore[list-item]  # pack takes both
        self._expect(self._take_tracking)
        self._expect(self._take_gateway)
        self._expect(self._take_greeting)
        return pack(*tracking) + pack("PREDIS", "NEAR", "ON") + _PING

    def send(self, flight: Flight) -> bytes | None:
        """Reserve the keys of a read and tell what to send for it; None where T is too far behind to take it."""
        now = self.kept.clock()
        if len(self._outstanding) > _MOST_OUTSTANDING or self._waits(now) > self.kept.near.patience_s:
            return None
        flight.reservations = self.kept.reserve(flight.keys)
        for _ in flight.keys:
            self._expect(flight.ttls_ms.append)
        self._expect(lambda reply: self._take_read(flight, now, reply=reply))
        return b"".join([pack("PTTL", key) for key in flight.keys]) + pack(*flight.command)

    def ping(self, taken: Callable[[], None]) -> bytes:
        """What to send so that ``taken`` is called once every announcement of before has been handled, or T is lost."""

        def take(reply: Any) -> None:
            self._take_pong(reply)
            taken()

        self._expect(take)
        return _PING

    def beat(self) -> tuple[bytes, float]:
        """What to send now so that the lease goes on, and in how many seconds to ask again.

        Raises:
            Unavailable: the server has been silent for so long that the connection is to be given up.
        """
        now = self.kept.clock()
        pause = self.kept.near.max_stale_s / _BEATS
        waits = self._waits(now)
        if waits > self.kept.near.max_stale_s * _GIVEN_UP:
            raise Unavailable(f"the server has not answered on the tracked connection for {waits:.1f} s")
        if now - self._last_sent_at < pause:
            return b"", self._last_sent_at + pause - now
        self._expect(self._take_pong)
        return _PING, pause

    @property
    def has_offers(self) -> bool:
        """Whether ``follow_up`` has something to send, because of what ``feed`` was given."""
        return bool(self._offers)

    def follow_up(self) -> bytes:
        """Ask for the limits of the values that were prefetched."""
        asked = []
        while self._offers:
            offer = self._offers.popleft()
            self._expect(partial(self._take_prefetched, offer=offer, sent_at=self.kept.clock()))
            asked.append(pack("PTTL", offer.key))
        return b"".join(asked)

    def _expect(self, take: Take) -> None:
        self._last_sent_at = self.kept.clock()
        self._outstanding.append((self._last_sent_at, take))

    def _waits(self, now: float) -> float:
        """Seconds since the oldest unanswered command was sent."""
        try:
            return now - self._outstanding[0][0]
        except IndexError:
            return 0.0

    # What comes back.

    def feed(self, data: bytes) -> None:
        """Handle what the server sent.

        Raises:
            Unavailable: the server does not track, or does not let this user ask for it.
            hiredis.ProtocolError: it does not speak RESP3.
        """
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, hiredis.PushNotification):
                self._take_push(reply)
                continue
            if not self._outstanding:
                raise hiredis.ProtocolError("a reply to nothing that was asked")
            sent_at, take = self._outstanding.popleft()
            take(reply)
            if not isinstance(reply, hiredis.ReplyError):
                self.kept.renew(sent_at)

    def lost(self) -> None:
        """The connection is gone: drop all that is kept, then tell all who wait."""
        self.kept.close()
        self.gateway = False
        gone = hiredis.ReplyError("the tracked connection was lost")
        while self._outstanding:
            self._outstanding.popleft()[1](gone)
        self._offers.clear()
        self._reader = hiredis.Reader()

    def _take_tracking(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            raise Unavailable(f"the server refuses CLIENT TRACKING: {reply}")

    def _take_gateway(self, reply: Any) -> None:
        self.gateway = not isinstance(reply, hiredis.ReplyError)

    def _take_greeting(self, _reply: Any) -> None:
        self.kept.open()

    def _take_pong(self, _reply: Any) -> None:
        """Its being there is all that matters."""

    def _take_read(self, flight: Flight, sent_at: float, *, reply: Any) -> None:
        taken = 0
        try:
            if not isinstance(reply, hiredis.ReplyError):
                answers = []
                for taken, raw in enumerate(reply if flight.command[0] == "MGET" else [reply], start=1):
                    answers.append(own(self._keep(flight, taken - 1, raw=raw, sent_at=sent_at)))
                flight.answers = answers
        except UnicodeDecodeError:
            taken -= 1  # the ordinary way raises it where it belongs
        finally:
            for key, reservation in zip(flight.keys[taken:], flight.reservations[taken:], strict=True):
                self.kept.release(key, reservation)
            flight.done()

    def _keep(self, flight: Flight, i: int, *, raw: Any, sent_at: float) -> Answer:
        """Keep the answer for the i-th key of a read, if it may be kept, and return it either way."""
        answer = self._decoder.answer(flight.shape, raw)
        key, reservation = flight.keys[i], flight.reservations[i]
        expires_at = self._expires_at(flight.ttls_ms[i], raw, sent_at=sent_at)
        if raw is None and flight.command[0] == "MGET" and flight.ttls_ms[i] != _NO_KEY:
            expires_at = -math.inf  # nil may stand for another type, of which GET says more
        self.kept.keep(key, reservation, shape=flight.shape, answer=answer, expires_at=expires_at)
        return answer

    @staticmethod
    def _expires_at(ttl_ms: Any, raw: Any, *, sent_at: float) -> float:
        """When an answer is out of date by the server's word for its key; the past, where it cannot be told."""
        if ttl_ms == _NO_TTL or (ttl_ms == _NO_KEY and tells_nothing(raw)):
            return math.inf
        if isinstance(ttl_ms, int) and ttl_ms > 0:
            return sent_at + ttl_ms / 1000
        return -math.inf

    def _take_push(self, push: list[Any]) -> None:
        match push:
            case [b"invalidate", None]:
                self.kept.clear()
            case [b"invalidate", [*keys]]:
                self.kept.drop(keys)
            case [b"predis-prefetch", bytes(key), bytes(value)] if self.kept.near.keeps(key):
                self._take_prefetch(key, value)

    def _take_prefetch(self, key: bytes, value: bytes) -> None:
        if len(self._outstanding) + len(self._offers) > _MOST_OUTSTANDING:
            return
        with suppress(UnicodeDecodeError):
            answer = self._decoder.answer("GET", value)
            self._offers.append(_Offer(key, answer, self.kept.reserve([key])[0]))

    def _take_prefetched(self, ttl_ms: Any, *, offer: _Offer, sent_at: float) -> None:
        expires_at = self._expires_at(ttl_ms, offer.answer, sent_at=sent_at)
        self.kept.prefetched += self.kept.keep(
            offer.key, offer.reservation, shape="GET", answer=offer.answer, expires_at=expires_at
        )
