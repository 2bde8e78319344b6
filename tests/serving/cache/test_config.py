"""An endpoint's cache configuration."""

from __future__ import annotations

from typing import Any

import pytest

from predis.errors import InvalidInput
from predis.serving.cache import CacheConfig


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, CacheConfig("memory", 60.0, 64 << 20)),
        ({"store": "valkey"}, CacheConfig("valkey", 60.0, 64 << 20)),
        ({"ttl_s": 0.5, "max_bytes": 1 << 20}, CacheConfig("memory", 0.5, 1 << 20)),
        ({"store": "valkey", "ttl_s": 3600}, CacheConfig("valkey", 3600.0)),
    ],
)
def test_what_is_not_said_has_its_default(document: dict[str, Any], expected: CacheConfig) -> None:
    assert CacheConfig.from_dict(document) == expected


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (True, "cache is an object"),
        ("memory", "cache is an object"),
        ([], "cache is an object"),
        ({"store": "redis"}, "cache.store"),
        ({"store": None}, "cache.store"),
        ({"store": ["memory"]}, "cache.store"),
        ({"ttl": 5}, "no key 'ttl'"),
        ({1: 5}, "no key '1'"),
        ({"ttl_s": 0}, "cache.ttl_s"),
        ({"ttl_s": -1}, "cache.ttl_s"),
        ({"ttl_s": float("nan")}, "cache.ttl_s"),
        ({"ttl_s": float("inf")}, "cache.ttl_s"),
        ({"ttl_s": True}, "cache.ttl_s"),
        ({"ttl_s": "60"}, "cache.ttl_s"),
        ({"ttl_s": 10**400}, "cache.ttl_s"),
        ({"max_bytes": 1}, "cache.max_bytes"),
        ({"max_bytes": 1e6}, "cache.max_bytes"),
        ({"max_bytes": 2**70}, "cache.max_bytes"),
        ({"max_bytes": None}, "cache.max_bytes"),
        ({"store": "valkey", "max_bytes": 1 << 20}, "maxmemory"),
    ],
)
def test_what_cannot_be_used_is_named(document: Any, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        CacheConfig.from_dict(document)
