"""In-process caches: bounded in bytes, quick enough to stand in front of everything.

``S3FIFO`` is the policy to have. Nothing here knows a network, a loop or a thread: whoever shares a cache between threads locks it.
"""

from predis.nearcache.s3fifo import OVERHEAD_BYTES, S3FIFO, Stats

__all__ = ["OVERHEAD_BYTES", "S3FIFO", "Stats"]
