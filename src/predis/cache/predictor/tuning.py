"""Every number that decides something in the ensemble, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """One configuration for all traces.

    The values were chosen by hand, on the traces that have a goal and those that must not be harmed, most of the sweeps on nasa_http,
    lirs_sprite and lirs_multi2: on these the figures flatter. lirs_ps and tencent_ns2706 were looked at now and then; lirs_zigzag and
    lirs_2_pools never, until the numbers stood (docs/explanation/predictive-cache.md).

    Attributes:
        price: of a wasted load, in misses spared; the least, it rises where loads or precision are not as wanted. More: fewer, surer
            prefetches.
        caution: standard errors that a chance is taken below its estimate. More: rules must prove themselves longer.
        precision: wanted share of prefetches that are requested; the price rises while it is missed. More: fewer prefetches.
        grant: loads that each miss of LRU allows. More: more coverage where rules are unsure, more load on the backend.
        credit: loads that may be saved up, which is also all that a sudden change of habits can waste.
        near: sources just old enough for a prefetch to be on time that a needed key is tied to. More: follows order less strictly.
        far: like it, of the requests that were needed themselves, further back. More: long look-ahead in mixed streams, and slower.
        fan: most followers kept for a source, ``far_fan`` for those of the far table.
        sources: most sources in each table; the one seen least recently is forgotten. 10 million keys need no more memory than these.
        halving: occurrences of a source after which its counts are halved. More: steadier; less: forgets sooner.
        horizon: requests after which a guess has failed, and the longest that a prefetched key is kept unused.
        slot_value: how dear a slot is that a prefetched key takes, in what it would yield the demand cache. More: fewer prefetches
            that wait long.
        rate: of learning in the mixing of rules. More: adapts sooner, wavers more.
        evidence: outcomes after which a calibration is halved. More: steadier; less: follows change.
        explore: every how many requests also unlikely candidates are watched (without a load), so that a rule can come back.
        clients: most clients whose recent reads are remembered.
    """

    price: float = 0.7
    caution: float = 0.5
    precision: float = 0.72
    grant: float = 1.085
    credit: float = 512.0
    near: int = 4
    far: int = 8
    fan: int = 4
    far_fan: int = 6
    sources: int = 200_000
    halving: int = 32
    horizon: int = 512
    slot_value: float = 2.0
    rate: float = 0.02
    evidence: float = 255.0
    explore: int = 8
    clients: int = 20_000
