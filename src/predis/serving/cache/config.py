"""What an endpoint's configuration says of its prediction cache.

{"cache": {"store": "memory", "ttl_s": 60, "max_bytes": 67108864}}
{"cache": {"store": "valkey", "ttl_s": 60}}
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from predis.errors import InvalidInput

STORES = ("memory", "valkey")
_LONGEST_S = 31 * 86_400
_LEAST_BYTES, _MOST_BYTES = 64 << 10, 1 << 40


@dataclass(frozen=True)
class CacheConfig:
    """Where an endpoint's predictions are kept, and for how long.

    Args:
        store: ``memory`` (of each worker) or ``valkey`` (shared by all, at the setting ``valkey_url``).
        ttl_s: seconds after which a prediction is made anew.
        max_bytes: memory that each worker may use for this endpoint. Valkey has its own limit, ``maxmemory``.
    """

    store: str = "memory"
    ttl_s: float = 60.0
    max_bytes: int = 64 << 20

    @classmethod
    def from_dict(cls, document: Any) -> CacheConfig:
        """
        Raises:
            InvalidInput: something in it cannot be used; the message names it.
        """
        if not isinstance(document, Mapping):
            raise InvalidInput(
                f'cache is an object such as {{"store": "memory"}}, or null for none, got {reprlib.repr(document)}'
            )
        unknown = sorted(map(str, set(document) - {"store", "ttl_s", "max_bytes"}))
        if unknown:
            raise InvalidInput(f"cache has no key {unknown[0]!r:.40}; its keys are store, ttl_s, max_bytes")
        store = document.get("store", cls.store)
        if store not in STORES:
            raise InvalidInput(f"cache.store is {' or '.join(STORES)}, got {reprlib.repr(store)}")
        if store != "memory" and "max_bytes" in document:
            raise InvalidInput(
                "cache.max_bytes is for the store 'memory'; Valkey is bounded by its own setting maxmemory"
            )
        ttl_s = document.get("ttl_s", cls.ttl_s)
        if type(ttl_s) not in (int, float) or not 0.001 <= ttl_s <= _LONGEST_S:
            raise InvalidInput(f"cache.ttl_s is 0.001 to {_LONGEST_S} seconds, got {reprlib.repr(ttl_s)}")
        max_bytes = document.get("max_bytes", cls.max_bytes)
        if type(max_bytes) is not int or not _LEAST_BYTES <= max_bytes <= _MOST_BYTES:
            raise InvalidInput(
                f"cache.max_bytes is a whole number from {_LEAST_BYTES} to {_MOST_BYTES}, got {reprlib.repr(max_bytes)}"
            )
        return cls(store, float(ttl_s), max_bytes)
