"""What another memory size or policy would give, from a sample of the reads: reuse distances and miniature simulations."""

from predis.cache.what_if.curves import SCALES, Curves, Present
from predis.cache.what_if.miniature import Miniatures
from predis.cache.what_if.shards import Shards

__all__ = ["SCALES", "Curves", "Miniatures", "Present", "Shards"]
