"""What one can choose about a near cache, and what it tells of itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from predis.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Near:
    """How a near cache behaves.

    Args:
        max_bytes: memory that its entries may take, with what Python needs for each.
        prefixes: beginnings of the keys that may be kept; none: every key.
        broadcast: have the server announce every write to a key with one of the prefixes (``CLIENT TRACKING ON BCAST``) instead
            of remembering which keys were read here. It saves the server's memory and costs an announcement for each such write.
        max_value_bytes: values larger than this are not kept.
        local_ttl_s: the longest that anything is kept, whatever the server says.
        max_stale_s: how long entries are served after the last moment of which it is certain that every invalidation has
            arrived. Raising it bridges longer silence of the network; lowering it ends service from memory sooner when the
            server hangs or the network is cut, and costs more heartbeats (three within this time, while nothing else is said).
        patience_s: how long a read waits for its turn on the tracked connection; then it goes the ordinary way and is not kept.

    Raises:
        InvalidInput: one of them is out of its range.
    """

    max_bytes: int = 64 << 20
    prefixes: Sequence[str | bytes] = ()
    broadcast: bool = False
    max_value_bytes: int = 256 << 10
    local_ttl_s: float = math.inf
    max_stale_s: float = 1.0
    patience_s: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.prefixes, str | bytes):
            raise InvalidInput(
                f"prefixes is a list of beginnings of keys, got {self.prefixes!r}; write [{self.prefixes!r}]"
            )
        encoded = tuple(prefix.encode() if isinstance(prefix, str) else prefix for prefix in self.prefixes)
        object.__setattr__(self, "prefixes", encoded)
        for name in ("max_bytes", "max_value_bytes", "local_ttl_s", "max_stale_s", "patience_s"):
            if not getattr(self, name) > 0:
                raise InvalidInput(f"{name} must be above 0, got {getattr(self, name)}")

    @property
    def beginnings(self) -> tuple[bytes, ...]:
        """The prefixes as the server writes them."""
        return self.prefixes  # type: ignore[return-value]  # what __post_init__ made of them

    def keeps(self, key: bytes) -> bool:
        """Whether a key may be kept at all."""
        return len(key) <= MAX_KEY_BYTES and (not self.prefixes or key.startswith(self.beginnings))


# Longer keys are not kept, so that the arguments of a write, which may be values of any size, need not all be looked up.
MAX_KEY_BYTES = 1024

_OURS = {field.name for field in fields(Near)}


def split(options: dict[str, Any]) -> tuple[Near, dict[str, Any]]:
    """The near cache's own options, and those for redis-py."""
    ours = {name: value for name, value in options.items() if name in _OURS}
    return Near(**ours), {name: value for name, value in options.items() if name not in _OURS}


@dataclass(frozen=True, slots=True)
class NearStats:
    """What a near cache has done since it was made, and what is in it now.

    ``hits`` were answered from memory, ``misses`` were not; with many threads a few of either may go uncounted. ``invalidations``
    are keys that the server or a write of this process took out, ``losses`` the times that everything was dropped because the
    tracked connection was lost. ``coherent`` tells whether it serves now.
    """

    hits: int
    misses: int
    invalidations: int
    evictions: int
    expirations: int
    prefetched: int
    losses: int
    bytes: int
    entries: int
    coherent: bool
    gateway: bool
