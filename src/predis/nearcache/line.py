"""The tracked connection of the synchronous client: a socket, and a thread that reads it.

The thread only reads, beats and connects anew. Whoever wants something read sends it from their own thread and waits for a lock
that the reading thread releases, so reads of many threads travel together. No thread runs before the first read, and none
survives a fork: the child starts its own, with nothing kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import hiredis
from redis.exceptions import RedisError

from predis.errors import PredisError
from predis.nearcache.clients import Lookup
from predis.nearcache.forks import in_children
from predis.nearcache.kept import Answer
from predis.nearcache.tracking import Flight, Tracking

logger = logging.getLogger("predis.nearcache")

_READ_BYTES = 1 << 16
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
# The server reads what it is sent, so a full buffer empties soon, or something is wrong with it.
_LONGEST_SEND_S = 1.0
_LONGEST_STOP_S = 2.0  # the thread may be in the middle of connecting; then it ends by itself
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_FAILURES = (OSError, RedisError, PredisError, hiredis.HiredisError)


class Line:
    """T and its thread.

    Args:
        tracking: T's protocol.
        connect: gives a connection of redis-py that is connected, speaks RESP3 and has nothing outstanding.
    """

    def __init__(self, tracking: Tracking, *, connect: Callable[[], Any]) -> None:
        self._kept = tracking.kept
        self._tracking = tracking
        self._connect = connect
        self._over = False
        self._forget()
        in_children(self)

    def _forget(self) -> None:
        """The state before any thread."""
        self._sending = threading.Lock()
        self._tracking.forget()
        self._socket: Any = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()  # wakes the thread where it pauses
        self._settled = threading.Condition()
        self._complaint = ""
        self._greeted = False  # whether this connection has served

    def after_fork(self) -> None:
        """In the child: neither the thread nor the locks of the parent are here. Its socket is, and only this copy is closed."""
        inherited = self._socket
        self._kept.forget_threads()
        self._forget()
        if inherited is not None:
            os.close(inherited.detach())

    @property
    def gateway(self) -> bool:
        return self._tracking.gateway

    # For the threads of the application.

    def ask(self, lookup: Lookup) -> dict[bytes, Answer] | None:
        """Read on T what is missing; None where the ordinary way must be taken."""
        waiting = threading.Lock()
        waiting.acquire()
        flight = Flight(lookup.command, lookup.missing, done=waiting.release)
        with self._sending:
            if self._socket is None:
                self._start()
                return None
            packed = self._tracking.send(flight)
            if packed is None or not self._send(packed):
                return None
        # Should it come later than that, it is kept all the same.
        waiting.acquire(timeout=self._kept.near.patience_s)
        return None if flight.answers is None else dict(zip(lookup.missing, flight.answers, strict=True))

    def barrier(self, timeout_s: float) -> bool:
        """Wait until every announcement of before this call has been handled; tells whether that is so now."""
        passed = threading.Event()
        with self._sending:
            if self._socket is None:
                return True  # nothing is kept
            if not self._send(self._tracking.ping(passed.set)):
                return True
        return passed.wait(timeout_s)

    def wait(self, timeout_s: float) -> bool:
        """Connect if that was not tried yet, wait until tracking is on, and tell whether it is."""
        with self._sending:
            self._start()
        with self._settled:
            self._settled.wait_for(lambda: self._greeted, timeout_s)
        return self._kept.coherent or (self.barrier(timeout_s) and self._kept.coherent)

    def stop(self) -> None:
        """End the thread and the connection. Nothing is kept or served from then on."""
        self._over = True
        self._stopped.set()
        with self._sending:
            if self._socket is not None:
                _shut(self._socket)
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LONGEST_STOP_S)

    def abandon(self) -> None:
        """End the thread of a client that was forgotten without ``close``.

        It takes no lock and waits for nobody: garbage is collected in any thread, amid anything, also in this one's own.
        """
        self._over = True
        if (sock := self._socket) is not None:
            _shut(sock)

    def _start(self) -> None:
        if self._thread is None and not self._over:
            self._thread = threading.Thread(target=self._run, name="predis-near-cache", daemon=True)
            self._thread.start()

    def _send(self, data: bytes) -> bool:
        """Send all of it; where that fails the reading thread is told, and False returned. Holds ``_sending``."""
        view = memoryview(data)
        until = time.monotonic() + _LONGEST_SEND_S
        try:
            while view:
                try:
                    view = view[self._socket.send(view) :]
                except _WOULD_BLOCK:
                    if time.monotonic() > until:
                        raise TimeoutError("the tracked connection takes nothing") from None
                    select.select([], [self._socket], [], 0.05)
        except OSError:
            _shut(self._socket)
            return False
        return True

    # The reading thread.

    def _run(self) -> None:
        pause = _SHORTEST_PAUSE_S
        while not self._over:
            try:
                self._serve()
            except _FAILURES as failure:
                self._complain(str(failure) or type(failure).__name__)
            pause = _SHORTEST_PAUSE_S if self._lose() else min(2 * pause, _LONGEST_PAUSE_S)
            self._stopped.wait(pause)

    def _serve(self) -> None:
        connection = self._connect()
        try:
            sock = connection._sock
            sock.setblocking(False)
            with self._sending:
                if self._over:
                    return
                self._socket = sock
                self._send(self._tracking.greet())
            self._read(sock)
        finally:
            connection.disconnect()

    def _read(self, sock: Any) -> None:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        while not self._over:
            with self._sending:
                beat, pause_s = self._tracking.beat()
                if beat:
                    self._send(beat)
            if not poll.poll(pause_s * 1000):
                continue
            while data := self._receive(sock):
                self._tracking.feed(data)
                self._follow_up()
                if len(data) < _READ_BYTES and not isinstance(sock, ssl.SSLSocket):
                    break

    def _receive(self, sock: Any) -> bytes:
        """What there is; nothing where there is nothing yet. Raises OSError when the other side is gone."""
        try:
            if isinstance(sock, ssl.SSLSocket):
                with self._sending:  # OpenSSL's connections are for one thread at a time
                    data = sock.recv(_READ_BYTES)
            else:
                data = sock.recv(_READ_BYTES)
        except _WOULD_BLOCK:
            return b""
        if not data:
            raise ConnectionResetError("the server closed the tracked connection")
        return bytes(data)

    def _follow_up(self) -> None:
        if self._tracking.has_offers:
            with self._sending:
                self._send(self._tracking.follow_up())
        if not self._greeted and self._kept.coherent:
            self._greeted = True
            self._complaint = ""
            with self._settled:
                self._settled.notify_all()

    def _lose(self) -> bool:
        """Drop everything and tell whoever waits; tells whether there had been a connection that tracked."""
        self._kept.close()  # before waiting for anybody
        with self._sending:
            self._socket = None
            self._tracking.lost()
            was, self._greeted = self._greeted, False
        return was

    def _complain(self, what: str) -> None:
        """Say once why there is no tracking; a server that is away for an hour is one line, not 3,600."""
        if what != self._complaint and not self._over:
            self._complaint = what
            logger.warning("the near cache serves nothing until tracking is back: %s", what)


def _shut(sock: Any) -> None:
    """Wake whoever reads it: they find it closed."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
