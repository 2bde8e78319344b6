"""What was learned, compiled and kept."""

from __future__ import annotations

import pyarrow as pa
import pytest

from predis.cache.predictor import saved
from predis.cache.predictor.duel import Duel
from predis.cache.predictor.ensemble import Ensemble
from predis.cache.simulator.replay import replay
from predis.cache.simulator.setup import Delay, Setup
from predis.cache.simulator.trace import Trace
from predis.errors import IntegrityFailure
from tests.cache.predictor.streams import chains, loop, runs


def learned(keys: list[int] | list[str]) -> Ensemble:
    ensemble = Ensemble(Setup(60, Delay(10)))
    replay(Trace(pa.array(keys), name="generated"), Duel(60), prefetcher=ensemble)
    return ensemble


def test_a_loop_compiles_to_what_comes_eleven_later() -> None:
    keys = loop(2_500, length=100)
    table = saved.compiled(learned(keys))
    right = sum(any(after == keys[i + 11] for after, _ in table.get(keys[i], ())) for i in range(100))
    assert right > 90
    assert all(
        len(after) <= 4 and all(0.5 <= chance <= 1.0 for _, chance in after) for after in table.values()
    )


@pytest.mark.parametrize(
    "keys",
    [chains(2_500, number=20), runs(3_000), [f"k:{key}" for key in loop(2_000, length=200)]],
    ids=["chains", "runs", "names"],
)
def test_saved_and_restored_is_the_same(keys: list[int] | list[str]) -> None:
    contents = saved.dump(learned(keys))
    again = Ensemble(Setup(60, Delay(10)))
    saved.restore(again, contents, expected=saved.digest(contents))
    assert saved.dump(again) == contents


def test_the_restored_one_needs_not_learn_again() -> None:
    keys = loop(800, length=100)
    contents = saved.dump(learned(loop(4_000, length=100)))
    ensemble = Ensemble(Setup(60, Delay(10)))
    saved.restore(ensemble, contents, expected=saved.digest(contents))
    trace = Trace(pa.array(keys), name="generated")
    fresh = replay(trace, Duel(60), prefetcher=Ensemble(Setup(60, Delay(10))))
    assert replay(trace, Duel(60), prefetcher=ensemble).misses < 0.5 * fresh.misses


def test_a_damaged_one_is_refused_and_changes_nothing() -> None:
    contents = saved.dump(learned(chains(1_000, number=10)))
    ensemble = Ensemble(Setup(60, Delay(10)))
    for wrong in (contents[:-1] + b"x", b"", b"nonsense"):
        with pytest.raises(IntegrityFailure):
            saved.restore(ensemble, wrong, expected=saved.digest(contents))
        with pytest.raises(IntegrityFailure):
            saved.restore(ensemble, wrong, expected=saved.digest(wrong))
    assert not ensemble.first.sources
    assert not ensemble.mixtures
