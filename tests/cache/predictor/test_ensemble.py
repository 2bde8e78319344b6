"""What the ensemble must win, must leave alone, and may waste; on generated streams, exactly repeatable."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from predis.cache.predictor.duel import Duel
from predis.cache.predictor.ensemble import Ensemble
from predis.cache.predictor.tuning import Tuning
from predis.cache.simulator import registry
from predis.cache.simulator.counts import Counts
from predis.cache.simulator.policies.base import Policy
from predis.cache.simulator.policies.lru import LRU
from predis.cache.simulator.replay import replay
from predis.cache.simulator.setup import Delay, Key, Setup
from predis.cache.simulator.trace import Trace
from tests.cache.predictor.streams import chains, loop, popular, runs, treacherous

DELAY = Delay(10)


def run(keys: Sequence[Key], capacity: int, *, tuning: Tuning | None = None) -> tuple[Counts, Ensemble]:
    ensemble = Ensemble(Setup(capacity, DELAY), tuning=tuning)
    counts = replay(Trace(pa.array(keys), name="generated"), Duel(capacity), prefetcher=ensemble)
    return counts, ensemble


def misses(keys: Sequence[Key], policy: Policy) -> int:
    return replay(Trace(pa.array(keys), name="generated"), policy).misses


class TestWins:
    @pytest.mark.parametrize(
        (
            "keys",
            "capacity",
            "at_most",
        ),  # a chain of 40 must miss 11, and each is met once unknown; a run of 32 must miss 12
        [(loop(12_000), 30, 0.04), (chains(20_000), 100, 0.52), (runs(20_000, length=32), 100, 0.6)],
        ids=["loop", "chains", "runs"],
    )
    def test_it_foretells_what_is_due_in_eleven_requests(
        self, keys: Sequence[Key], capacity: int, at_most: float
    ) -> None:
        counts, _ = run(keys, capacity)
        assert misses(keys, LRU(capacity)) > 0.9 * len(keys)
        assert counts.miss_ratio < at_most
        assert (counts.precision or 0.0) > 0.8
        assert (counts.on_time or 0.0) > 0.9

    def test_names_will_do_for_keys(self) -> None:
        keys = [f"item:{key}" for key in loop(6_000, length=200)]
        counts, _ = run(keys, 30)
        assert counts.miss_ratio < 0.15

    def test_it_works_beside_a_policy_that_is_not_its_own(self) -> None:
        keys = loop(6_000, length=200)
        ensemble = Ensemble(Setup(60, DELAY))
        counts = replay(Trace(pa.array(keys), name="generated"), LRU(60), prefetcher=ensemble)
        assert counts.miss_ratio < 0.3

    def test_each_client_is_followed_alone(self) -> None:
        one, other = chains(8_000), [key + 10**10 for key in reversed(chains(8_000))]
        keys = [key for pair in zip(one, other, strict=True) for key in pair]
        trace = Trace(pa.array(keys), name="generated", clients=pa.array([0, 1] * 8_000).to_numpy())
        ensemble = Ensemble(Setup(200, DELAY, clients=True))
        counts = replay(trace, Duel(200), prefetcher=ensemble)
        assert counts.miss_ratio < 0.7


class TestHarm:
    def test_where_nothing_can_be_foretold_nothing_is_asked_for(self) -> None:
        keys = popular(30_000)
        counts, _ = run(keys, 80)
        best = min(misses(keys, registry.policy(name, 80)) for name in ("lru", "s3-fifo", "twoq", "arc"))
        assert counts.misses <= 1.01 * best
        assert counts.asked <= 0.02 * misses(keys, LRU(80))

    def test_betrayal_costs_no_more_than_the_credit(self) -> None:
        honest = 20_000
        before, _ = run(treacherous(honest, honest=honest), 100)
        after, ensemble = run(treacherous(60_000, honest=honest), 100)
        wasted = (after.asked - after.used - after.late) - (before.asked - before.used - before.late)
        assert before.used > 5_000
        assert wasted <= ensemble.tuning.credit
        last, _ = run(treacherous(50_000, honest=honest), 100)
        assert after.asked - last.asked < 100  # it has stopped

    def test_loads_stay_within_the_grant(self) -> None:
        for keys in (chains(15_000), treacherous(20_000, honest=5_000), popular(15_000)):
            counts, ensemble = run(keys, 100)
            allowed = ensemble.tuning.grant * misses(keys, LRU(100)) + ensemble.tuning.credit
            assert counts.loads <= allowed


class TestBounds:
    def test_memory_is_bounded_whatever_the_number_of_keys(self) -> None:
        tuning = Tuning(sources=500, horizon=64, clients=10)
        _, ensemble = run(range(0, 10**7, 500), 50, tuning=tuning)
        for table in (ensemble.first, ensemble.second, ensemble.far):
            assert len(table.sources) <= 500
        assert len(ensemble.guesses.waiting) <= 65 * 64
        assert len(ensemble.strides.active) <= ensemble.strides.most

    def test_many_clients(self) -> None:
        ensemble = Ensemble(Setup(50, DELAY, clients=True), tuning=Tuning(clients=10))
        trace = Trace(pa.array(popular(2_000)), name="generated", clients=pa.array(range(2_000)).to_numpy())
        replay(trace, Duel(50), prefetcher=ensemble)
        assert len(ensemble._streams) <= 10

    @pytest.mark.parametrize("capacity", [1, 2, 5])
    def test_tiny_caches(self, capacity: int) -> None:
        counts, _ = run(loop(2_000, length=50), capacity)
        assert counts.requests == 2_000


def test_the_same_stream_gives_the_same_prefetches() -> None:
    keys = chains(6_000)
    assert run(keys, 60)[0] == run(keys, 60)[0]


def test_golden() -> None:
    """The exact outcome on one stream: whoever changes it should know that he did."""
    counts, _ = run(chains(8_000), 60)
    assert (counts.misses, counts.late, counts.asked, counts.used, counts.wasted) == GOLDEN


GOLDEN = (5565, 0, 3302, 2435, 837)
