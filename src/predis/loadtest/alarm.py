"""A timer of microseconds for an event loop. The loop's own timers are rounded to milliseconds, ten times what is to be measured."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_MONOTONIC = 1
_NONBLOCKING = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_ABSOLUTE = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


class Alarm:
    """Calls back once, at a moment of ``time.perf_counter`` (on Linux the monotonic clock). Setting it again moves it.

    Linux has a file that becomes readable at a moment, timerfd; elsewhere the loop's timer does, with its milliseconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop, self._callback = loop, callback
        self._handle: asyncio.TimerHandle | None = None
        self._setting = _Setting()
        self._file = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._file = self._libc.timerfd_create(_MONOTONIC, _NONBLOCKING)
        if self._file >= 0:
            loop.add_reader(self._file, self._due)

    def set(self, moment: float) -> None:
        """Call back at ``moment``, or as soon as possible if it has passed."""
        if self._file < 0:
            self.cancel()
            delay = max(moment - time.perf_counter(), 0.0)
            self._handle = self._loop.call_later(delay, self._callback)
            return
        nanoseconds = max(round(moment * 1e9), 1)  # zero would disarm it
        self._setting.first.seconds, self._setting.first.nanoseconds = divmod(nanoseconds, 1_000_000_000)
        self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(self._setting), None)

    def cancel(self) -> None:
        """Never call back again, unless it is set again."""
        if self._handle is not None:
            self._handle.cancel()
        if self._file >= 0:
            self._setting.first.seconds = self._setting.first.nanoseconds = 0
            self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(self._setting), None)

    def close(self) -> None:
        self.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _due(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # moved meanwhile
            return
        self._callback()
