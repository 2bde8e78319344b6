"""In-process caches: bounded in bytes, quick enough to stand in front of everything.

``S3FIFO`` is the policy to have. It knows no network, no loop and no thread: whoever shares one between threads locks it.

``connect`` and ``connect_async`` give a client of redis-py that answers reads from the memory of its process, and is told by the
server when they are no longer right (``tracking`` says why that is so).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from predis.errors import MissingExtra
from predis.nearcache.near import Near, NearStats
from predis.nearcache.s3fifo import OVERHEAD_BYTES, S3FIFO, Stats

if TYPE_CHECKING:
    from predis.nearcache.aio import AsyncNearRedis
    from predis.nearcache.sync import NearRedis

__all__ = ["OVERHEAD_BYTES", "S3FIFO", "Near", "NearStats", "Stats", "connect", "connect_async"]


def connect(url: str, **options: Any) -> NearRedis:
    """A ``redis.Redis`` whose reads are answered from memory where that is safe.

    It is shared between threads as redis-py's is. Nothing is connected before it is used.

    Args:
        url: as for ``redis.Redis.from_url``: a Valkey or Redis of version 6 or later, or a Predis gateway.
        options: those of ``Near`` (``max_bytes``, ``prefixes``, ``max_stale_s`` ...), and any of ``redis.Redis.from_url``.

    Returns:
        A ``NearRedis``, a subclass of ``redis.Redis``; its ``near`` has ``stats``, ``barrier``, ``wait`` and ``clear``.

    Raises:
        InvalidInput: an option is out of its range, or one of redis-py's contradicts a near cache.
        MissingExtra: redis or hiredis is not installed.
    """
    try:
        from predis.nearcache import sync
    except ImportError as missing:
        raise MissingExtra.of(missing.name or "redis", "cache") from missing
    return sync.connect(url, **options)


def connect_async(url: str, **options: Any) -> AsyncNearRedis:
    """A ``redis.asyncio.Redis`` whose reads are answered from memory where that is safe; see ``connect``.

    It belongs to the event loop in which it is first used.
    """
    try:
        from predis.nearcache import aio
    except ImportError as missing:
        raise MissingExtra.of(missing.name or "redis", "cache") from missing
    return aio.connect(url, **options)
