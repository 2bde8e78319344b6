"""What each baseline asks for."""

from __future__ import annotations

import pickle

import pytest

from predis.cache.simulator import registry
from predis.cache.simulator.policies.lru import LRU
from predis.cache.simulator.prefetchers.base import Prefetcher
from predis.cache.simulator.prefetchers.mithril import Mithril
from predis.cache.simulator.replay import replay
from predis.cache.simulator.setup import Delay, Key, Setup
from predis.errors import InvalidInput
from tests.cache.simulator.streams import mixed, trace_of

BASELINES = [name for name in registry.PREFETCHERS if name not in ("none", "predis")]

# Misses on mixed(20_000) with LRU, 100 objects, a delay of 10 requests, and prefetches.
GOLDEN = {
    "obl": (18188, 18085), "sequence": (17328, 5406), "markov1": (17164, 8732), "markov1-careful": (17169, 8709), "markov1-client": (17160, 5609), "markov-chain": (17197, 9090), "mithril": (17161, 474),
}  # fmt: skip


def asked(prefetcher: Prefetcher, keys: list[Key], *, clients: list[int] | None = None) -> list[list[Key]]:
    who = clients or [0] * len(keys)
    return [
        list(prefetcher.observe(i, key, client=client, hit=False, ts=float(i)))
        for i, (key, client) in enumerate(zip(keys, who, strict=True))
    ]


def made(name: str) -> Prefetcher:
    return registry.prefetcher(name, Setup(100, clients=True))


@pytest.mark.parametrize("name", BASELINES)
def test_misses_and_prefetches(name: str) -> None:
    setup = Setup(100, Delay(10), clients=True)
    counts = replay(trace_of(mixed(20_000), clients=3), LRU(100), prefetcher=registry.prefetcher(name, setup))
    assert (counts.misses, counts.asked) == GOLDEN[name]


def test_obl_asks_for_the_next_number() -> None:
    assert asked(made("obl"), [5, "user:5"]) == [[6], []]


def test_sequence_waits_for_a_second_number() -> None:
    keys: list[Key] = [5, 900, 6, "x", 7]
    assert asked(made("sequence"), keys) == [[], [], [7, 8, 9, 10], [], [8, 9, 10, 11]]


def test_sequence_forgets() -> None:
    keys: list[Key] = [5, *range(1000, 1200, 3), 6]
    assert asked(made("sequence"), keys)[-1] == []


def test_markov_needs_to_see_a_pair_twice() -> None:
    assert asked(made("markov1"), [1, 2, 1, 2, 1]) == [[], [], [], [], [2]]


def test_markov_knows_how_sure_it_is() -> None:
    keys: list[Key] = [1, 2, 1, 2, 1, 3, 1, 3, 1]  # after 1 as often 2 as 3
    assert sorted(map(str, asked(made("markov1"), keys)[-1])) == ["2", "3"]
    assert asked(made("markov1-careful"), keys)[-1] == []


def test_markov_by_client_sees_through_others() -> None:
    keys: list[Key] = [1, 50, 2, 60, 1, 70, 2, 80, 1]
    clients = [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert asked(made("markov1-client"), keys, clients=clients)[-1] == [2]
    assert asked(made("markov1"), keys, clients=clients)[-1] == []


def test_a_chain_goes_on() -> None:
    keys: list[Key] = [*range(10)] * 3
    assert asked(made("markov-chain"), keys)[-10] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert asked(made("markov-chain"), [1, 2, 1, 2, 1, 2, 1])[-1] == [2]  # and not round and round


def test_mithril_finds_what_is_missed_together() -> None:
    prefetcher = Mithril(Setup(100))
    pairs: list[Key] = [key for first in range(2_000) for key in (first, first + 10**6)]
    asked(prefetcher, pairs * 3)
    followers = list(prefetcher.observe(0, 7, client=0, hit=True, ts=0.0))
    assert followers
    assert all(isinstance(key, int) and (key % 10**6) - 7 < 52 for key in followers)


@pytest.mark.parametrize("name", BASELINES)
def test_memory_is_bounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, constant in (
        ("markov", "_MOST_KEYS"), ("mithril", "_MOST_KEYS"), ("mithril", "_RECORDED"),
    ):  # fmt: skip
        monkeypatch.setattr(f"predis.cache.simulator.prefetchers.{module}.{constant}", 500)
    prefetcher = made(name)
    asked(prefetcher, list(range(10_000)))
    asked(prefetcher, list(range(10_000)))
    assert len(pickle.dumps(prefetcher)) < 150_000


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(InvalidInput, match="no prefetcher 'oracle'; there are none, obl"):
        made("oracle")
