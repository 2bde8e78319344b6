"""The interface of every demand policy.

A policy knows keys and sizes, never values. The replay asks ``request`` once for each request; after a miss it calls ``admit``,
since the loaded key is there now. A prefetch that arrives is ``admit_prefetched``: most policies take it as any other load. A
policy may refuse a load on demand: the key is then not resident afterwards, and may be among those that left. It does not refuse
a prefetch, which was paid for: who does not want it does not ask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from predis.cache.simulator.setup import Key
from predis.errors import InvalidInput


class Policy(ABC):
    """Keeps keys of a total size of at most ``capacity``: objects where every size is 1, else bytes.

    Args:
        capacity: at least 1.

    Raises:
        InvalidInput: no room for anything.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise InvalidInput(f"a cache holds at least one object, got a capacity of {capacity}")
        self.capacity = capacity

    @abstractmethod
    def __contains__(self, key: object) -> bool:
        """Whether a key is resident; counts as no access."""

    @abstractmethod
    def __len__(self) -> int:
        """Resident keys."""

    @property
    @abstractmethod
    def used(self) -> int:
        """Sum of the resident sizes, never above ``capacity``."""

    @abstractmethod
    def request(self, key: Key) -> bool:
        """One request: touches the key and returns True where it is resident. Admits nothing."""

    @abstractmethod
    def admit(self, key: Key, size: int = 1) -> Sequence[Key]:
        """Keep what was just loaded after a miss; returns the keys that left for it. What is larger than the cache is not kept."""

    def admit_prefetched(self, key: Key, size: int = 1) -> Sequence[Key]:
        """Keep a prefetch that arrived, which nobody has asked for yet; returns the keys that left for it."""
        return self.admit(key, size)
