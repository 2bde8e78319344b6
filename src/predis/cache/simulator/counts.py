"""What one run counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Of one policy with one prefetcher on one trace.

    Attributes:
        missed_bytes: sum of the sizes of what was missed; the misses again where sizes do not count.
        late: misses whose prefetch was under way; they load nothing of their own.
        asked: prefetches, each one load of the backend.
        used: prefetched keys that were resident when first requested.
        wasted: prefetched keys that left unused. What is still unused at the end is none of these.
        evicted: keys that left.
    """

    requests: int = 0
    misses: int = 0
    missed_bytes: int = 0
    late: int = 0
    asked: int = 0
    used: int = 0
    wasted: int = 0
    evicted: int = 0

    @property
    def loads(self) -> int:
        """Loads of the backend."""
        return self.misses - self.late + self.asked

    @property
    def miss_ratio(self) -> float:
        return self.misses / self.requests

    @property
    def precision(self) -> float | None:
        """Share of the prefetches whose key was then requested, on time or late."""
        return (self.used + self.late) / self.asked if self.asked else None

    @property
    def on_time(self) -> float | None:
        """Share of the right prefetches that were there when needed."""
        right = self.used + self.late
        return self.used / right if right else None
