"""First in, first out."""

from __future__ import annotations

from predis.cache.simulator.policies.evicting import OneQueue


class FIFO(OneQueue):
    """Lets go what was loaded first, asked for or not: a hit costs nothing."""
