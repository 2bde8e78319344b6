"""Single flight: while one call's prediction is on its way, others that ask for the same wait for it instead of asking again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

C = TypeVar("C")


class Flights(Generic[C]):
    """Calls by what they wait for. The first to ask leads and does the work; it is not among those who wait.

    >>> flights = Flights()
    >>> [flights.join(b"key", call) for call in ("first", "second", "third")]
    [True, False, False]
    >>> flights.hand_over(b"key")  # the first gave up
    'second'
    >>> list(flights.land(b"key"))  # the second has the answer
    ['third']
    """

    def __init__(self) -> None:
        # None until somebody waits: most are alone.
        self._waiting: dict[bytes, deque[C] | None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, key: bytes, call: C) -> bool:
        """Wait for a key; True where nobody is at work on it, so that this call must lead."""
        if key not in self._waiting:
            self._waiting[key] = None
            return True
        waiting = self._waiting[key]
        if waiting is None:
            self._waiting[key] = deque((call,))
        else:
            waiting.append(call)
        return False

    def land(self, key: bytes) -> Iterable[C]:
        """End a flight; gives those who waited, in the order they came."""
        return self._waiting.pop(key, None) or ()

    def hand_over(self, key: bytes) -> C | None:
        """Make the one who has waited longest the leader, and give it. None: nobody waits, and the flight has ended."""
        waiting = self._waiting.get(key)
        if not waiting:
            self._waiting.pop(key, None)
            return None
        return waiting.popleft()
