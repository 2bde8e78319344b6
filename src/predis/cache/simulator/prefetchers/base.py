"""The interface of every prefetcher."""

from __future__ import annotations

from collections.abc import Iterable

from predis.cache.simulator.policies.base import Policy
from predis.cache.simulator.setup import Key, Setup


class Prefetcher:
    """Sees every request in order and names keys to ask for now. This one never names any: the baseline.

    The replay leaves out what is resident or under way already, and counts the rest as loads of the backend. Each of these has
    exactly one outcome, told when it is known: ``used`` (it was resident when first requested), ``late`` (it was requested while
    under way) or ``wasted`` (it left unused). What is still unused at the end has none.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def attach(self, policy: Policy) -> None:
        """Called once before the first request with the policy it works with, for pairs that share what they know."""

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
        """One request, after it was answered; learns only from this and earlier ones.

        Args:
            i: its index, from 0.
            key: as in the trace.
            client: who asked; 0 where the trace tells none apart.
            hit: whether it was resident.
            ts: seconds by the trace's clock, which never goes back; NaN where it has none.

        Returns:
            Keys to ask for now, the most wanted first.
        """
        return ()

    def asked(self, key: Key) -> None:
        """A key that ``observe`` named is under way now."""

    def used(self, key: Key) -> None:
        """A prefetched key was requested for the first time, and was resident: on time."""

    def late(self, key: Key) -> None:
        """A key was requested while its prefetch was under way: a miss, though without a load of its own."""

    def wasted(self, key: Key) -> None:
        """A prefetched key left the cache before anyone asked for it."""
