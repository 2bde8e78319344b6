"""A version of the predictor is trained: recorded reads in, tables and the simulator's report out.

The older three quarters of the reads are learnt from: rules between kinds of keys as the learner learns them, and of single keys what the
ensemble of the simulator has found to be likely enough, in time (``likely_after``). The newest quarter is then replayed against LRU,
S3-FIFO, and LRU with these very tables prefetching: what they would have done with reads they have not seen is the version's metrics. The
cache of the replay holds a tenth of the keys; a load takes as long as the gateway's do.

Only stretches in which every read of a client is there are used, of keys that a source has. Values are not recorded, so rules that look
into a value are the learner's alone.

Where the setting ``cache_predictor_models`` names models, the followers are theirs as well, as far as that adds anything (``learned``).

What else is needed, the sources' patterns, how long a load takes and which models, comes with the table of reads (``recorded``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predis.cache.predictor.duel import Duel
from predis.cache.predictor.ensemble import Ensemble, likely_after
from predis.cache.predictor.learned import Followers, Improved, Past, Played, improved_by
from predis.cache.predictor.learning import CONFIDENCE, HORIZON_US, SUPPORT
from predis.cache.predictor.recorded import LEAST_ROWS, brief
from predis.cache.predictor.tables import Tables
from predis.cache.predictor.templates import Parsed, TemplateRules
from predis.cache.predictor.versions import MOST_LOADS
from predis.cache.simulator.counts import Counts
from predis.cache.simulator.policies.lru import LRU
from predis.cache.simulator.policies.s3fifo import S3FIFO
from predis.cache.simulator.prefetchers.base import Prefetcher
from predis.cache.simulator.replay import replay
from predis.cache.simulator.setup import Delay, Key, Setup
from predis.cache.simulator.trace import Trace
from predis.cache.sources.pattern import Matcher, Pattern
from predis.errors import InvalidInput

_LEARNT = 0.75
_CAPACITY = 0.1
_LEAST_SLOTS = 16
_CHANCE = 0.5
_FOLLOWED = 100_000


class Known(NamedTuple):
    """A kind of keys that can be loaded: what ``Tables.after`` asks a source for."""

    matched: Pattern


class Trained(NamedTuple):
    """Tables, the simulator's report on them, and where they come from."""

    tables: Tables
    metrics: dict[str, float]
    lineage: dict[str, Any]


def train(table: pa.Table) -> Trained:
    """Tables from what ``recorded.gather`` made.

    Raises:
        InvalidInput: it is no such table, or holds too few reads of keys that a source has.
        MissingExtra: a model is wanted whose package is not installed.
    """
    given = brief(table)
    patterns = [Pattern(text, tenant=tenant) for text, tenant in given.patterns]
    matcher = Matcher([(pattern, Known(pattern)) for pattern in patterns])
    trace = _trace(table, matcher)
    learnt = round(len(trace) * _LEARNT)
    older, newest = _part(trace, stop=learnt), _part(trace, start=learnt)
    setup = Setup(_slots(newest), Delay(seconds=given.delay_s), clients=True, clock=True)
    tables, kinds = _learn(older, matcher, setup=setup)
    metrics, told = report(newest, tables, matcher=matcher, setup=setup), {}
    if given.models:
        improved = _improved(tables, given.models, parts=(older, newest), matcher=matcher, setup=setup)
        tables = replace(tables, followers=_unsaid(improved.followers.items(), tables, matcher=matcher))
        alone = {f"{name}_tables_alone": metrics[name] for name in ("miss_ratio", "loads_to_lru")}
        metrics = {**report(newest, tables, matcher=matcher, setup=setup), **alone, **improved.metrics}
        told = dict(improved.told)
    lineage = {
        "reads": len(trace),
        "learnt_from": len(older),
        "from": str(table["ts"][0].as_py()),
        "to": str(table["ts"][-1].as_py()),
        "sources": sorted(pattern.text for pattern in patterns),
        "kinds": dict(kinds),
        "delay_s": given.delay_s,
        "cache_keys": setup.capacity,
        "models": told,
    }
    return Trained(tables, metrics, lineage)


def report(trace: Trace, tables: Tables, *, matcher: Matcher[Known], setup: Setup) -> dict[str, float]:
    """What the tables would have done with a trace, beside LRU and S3-FIFO."""
    lru, s3fifo = replay(trace, LRU(setup.capacity)), replay(trace, S3FIFO(setup.capacity))
    ours = replay(trace, LRU(setup.capacity), prefetcher=ByTables(setup, tables, matcher=matcher))
    least = max(lru.misses, 1)
    found = {
        "miss_ratio": ours.miss_ratio,
        "lru_miss_ratio": lru.miss_ratio,
        "s3fifo_miss_ratio": s3fifo.miss_ratio,
        "coverage": 1.0 - ours.misses / least,
        "loads_to_lru": ours.loads / least,
        **_of_prefetches(ours),
        "rules": float(len(tables.rules)),
        "followed_keys": float(len(tables.followers)),
    }
    return {name: round(value, 4) for name, value in found.items()}


class ByTables(Prefetcher):
    """Asks for what compiled tables say, as the gateway would.

    Attributes:
        missed: whether each read so far was.
    """

    def __init__(self, setup: Setup, tables: Tables, *, matcher: Matcher[Known]) -> None:
        super().__init__(setup)
        self.missed: list[bool] = []
        self._tables = tables
        self._match = matcher.match

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Sequence[Key]:
        self.missed.append(not hit)
        name = str(key).encode()
        source = self._match(name)
        if source is None:
            return ()
        return [then.decode() for _, then in self._tables.after(name, source, value=None)]


def _learn(trace: Trace, matcher: Matcher[Known], *, setup: Setup) -> tuple[Tables, Counter[str]]:
    """Tables of what a trace shows, and how many reads of each kind it has."""
    rules = TemplateRules(delay=round(setup.delay.seconds * 1e6), horizon=HORIZON_US)
    kinds: Counter[str] = Counter()
    for block in trace.blocks():
        for key, client, ts in zip(block.keys, block.clients, block.ts, strict=True):
            parsed = _parsed(str(key), matcher)
            if parsed is not None:
                kinds[parsed.template] += 1
                rules.read(round(ts * 1e6), str(key), client=client, parsed=parsed)
    by_rules = Tables(rules=tuple(rules.learned(min_confidence=CONFIDENCE, min_support=SUPPORT)))
    capacity = _slots(trace)
    ensemble = Ensemble(replace(setup, capacity=capacity))
    replay(trace, Duel(capacity), prefetcher=ensemble)
    return replace(by_rules, followers=_unsaid(_followers(ensemble), by_rules, matcher=matcher)), kinds


def _improved(
    tables: Tables,
    models: Sequence[str],
    *,
    parts: tuple[Trace, Trace],
    matcher: Matcher[Known],
    setup: Setup,
) -> Improved:
    """Followers with what learned models add to them."""
    older, newest = parts

    def play(followers: Followers) -> Played:
        prefetcher = ByTables(setup, replace(tables, followers=followers), matcher=matcher)
        counts = replay(newest, LRU(setup.capacity), prefetcher=prefetcher)
        return Played(np.array(prefetcher.missed), counts.loads)

    def template(key: bytes) -> str:
        source = matcher.match(key)
        return "" if source is None else source.matched.template

    past = Past(older, setup=replace(setup, capacity=_slots(older)), template=template)
    most = MOST_LOADS * replay(newest, LRU(setup.capacity)).misses
    return improved_by(models, tables.followers, past=past, play=play, most_loads=most)


def _followers(ensemble: Ensemble) -> Iterator[tuple[bytes, tuple[bytes, ...]]]:
    """What the ensemble says of single keys, those first that occurred last."""
    for name, likely in reversed(list(likely_after(ensemble, least=_CHANCE).items())):
        yield str(name).encode(), tuple(str(one).encode() for one, _ in likely)


def _unsaid(
    followers: Iterable[tuple[bytes, tuple[bytes, ...]]], tables: Tables, *, matcher: Matcher[Known]
) -> dict[bytes, tuple[bytes, ...]]:
    """Of followers those that no rule of the tables names; of too many keys the first."""
    rules = replace(tables, followers={})
    found: dict[bytes, tuple[bytes, ...]] = {}
    for key, likely in followers:
        source = matcher.match(key)
        if source is None:
            continue
        said = {then for _, then in rules.after(key, source, value=None)}
        rest = tuple(then for then in likely if then not in said)
        if rest:
            found[key] = rest
        if len(found) >= _FOLLOWED:
            break
    return found


def _trace(table: pa.Table, matcher: Matcher[Known]) -> Trace:
    """The reads of keys that a source has."""
    keys = table["key"].combine_chunks().cast(pa.large_string())
    ours = pa.array([matcher.match(key.encode()) is not None for key in keys.to_pylist()], pa.bool_())
    table = table.filter(ours)
    if table.num_rows < LEAST_ROWS:
        raise InvalidInput(
            f"{table.num_rows:,} of the recorded reads are of keys that a source has, at least {LEAST_ROWS:,} are needed"
        )
    microseconds = np.asarray(table["ts"].combine_chunks().cast(pa.int64()), np.int64)
    return Trace(
        keys.filter(ours),
        name="accesses",
        ts=(microseconds - microseconds[0]) / 1e6,
        clients=np.asarray(pc.cast(table["client"].combine_chunks(), pa.int64()), np.int64),
    )


def _part(trace: Trace, *, start: int = 0, stop: int | None = None) -> Trace:
    assert trace.ts is not None
    assert trace.clients is not None
    stop = len(trace) if stop is None else stop
    keys = trace.keys.slice(start, stop - start)
    return Trace(keys, name=trace.name, ts=trace.ts[start:stop], clients=trace.clients[start:stop])


def _slots(trace: Trace) -> int:
    return max(_LEAST_SLOTS, round(trace.distinct * _CAPACITY))


def _parsed(key: str, matcher: Matcher[Known]) -> Parsed | None:
    found = matcher.match(key.encode())
    texts = None if found is None else found.matched.texts(key.encode())
    return None if found is None or texts is None else Parsed(found.matched.template, texts)


def _of_prefetches(counts: Counts) -> dict[str, float]:
    """Shares that are only known where something was asked for."""
    known = {"precision": counts.precision, "on_time": counts.on_time}
    return {
        "prefetches": float(counts.asked),
        **{name: value for name, value in known.items() if value is not None},
    }
