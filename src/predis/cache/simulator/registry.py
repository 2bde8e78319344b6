"""Policies and prefetchers by name. Each is imported when it is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from predis.cache.simulator.policies.base import Policy
from predis.cache.simulator.prefetchers.base import Prefetcher
from predis.cache.simulator.setup import Setup
from predis.errors import InvalidInput

_HERE = "predis.cache.simulator"

# Name: module and what is called there with the capacity.
POLICIES: Mapping[str, str] = {
    "fifo": f"{_HERE}.policies.fifo:FIFO",
    "lru": f"{_HERE}.policies.lru:LRU",
    "lfu": f"{_HERE}.policies.lfu:LFU",
    "clock": f"{_HERE}.policies.clock:Clock",
    "slru": f"{_HERE}.policies.slru:SLRU",
    "sieve": f"{_HERE}.policies.sieve:SIEVE",
    "s3-fifo": f"{_HERE}.policies.s3fifo:S3FIFO",
    "twoq": f"{_HERE}.policies.twoq:TwoQ",
    "arc": f"{_HERE}.policies.arc:ARC",
    "lirs": f"{_HERE}.policies.lirs:LIRS",
    "w-tinylfu": f"{_HERE}.policies.wtinylfu:WTinyLFU",
    "random": f"{_HERE}.policies.random:Random",
    "predis": "predis.cache.predictor.duel:Duel",
}

# Name: module and what is called there with the `Setup`.
PREFETCHERS: Mapping[str, str] = {
    "none": f"{_HERE}.prefetchers.base:Prefetcher",
    "obl": f"{_HERE}.prefetchers.sequence:OBL",
    "sequence": f"{_HERE}.prefetchers.sequence:Sequence",
    "markov1": f"{_HERE}.prefetchers.markov:bold",
    "markov1-careful": f"{_HERE}.prefetchers.markov:careful",
    "markov1-client": f"{_HERE}.prefetchers.markov:bold_per_client",
    "markov-chain": f"{_HERE}.prefetchers.markov:MarkovChain",
    "mithril": f"{_HERE}.prefetchers.mithril:Mithril",
    "predis": "predis.cache.predictor.ensemble:Ensemble",
}


def policy(name: str, capacity: int) -> Policy:
    """A new policy.

    Raises:
        InvalidInput: there is none of that name.
    """
    made: Policy = _load(name, POLICIES, kind="policy")(capacity)
    return made


def prefetcher(name: str, setup: Setup) -> Prefetcher:
    """A new prefetcher.

    Raises:
        InvalidInput: there is none of that name.
    """
    made: Prefetcher = _load(name, PREFETCHERS, kind="prefetcher")(setup)
    return made


def _load(name: str, known: Mapping[str, str], *, kind: str) -> Callable[..., Any]:
    if name not in known:
        raise InvalidInput(f"there is no {kind} {name!r}; there are {', '.join(known)}")
    module, attribute = known[name].split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found
