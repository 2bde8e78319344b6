"""What learned models say of single keys, compiled into a version's followers. Off unless ``cache_predictor_models`` names them.

Neither model is asked while a client waits. A version's tables have one place for each key and know nothing of the moment, so that is what
a model's knowledge must be brought to. The reads that a version is learnt from are cut in two: a model is trained on the older part, and
asked at *every* read of the newer one. What it says there of a pair, a key and one that follows, is averaged over the reads of the first at
which the second was not resident (for what is resident nobody asks); where it says nothing, that is zero. A pair pays where that mean
does: the misses it spares, against the loads it wastes (``worth_it``).

boosting    judges the pairs that tables propose (``proposals``), the 64 features at that moment in hand. Its judgement replaces the plain
            share: pairs that do not pay go, others that do come in. Those it was not asked about stay.
lstm        names keys by itself. Those that pay join the followers of keys that are read often.

``improved_by`` then plays reads that nobody has learnt from, with and without. A model that adds nothing there is left out; of one that
loads too much only the surer pairs are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from predis.cache.predictor import lstm
from predis.cache.predictor.boosting import Confidence, Isotonic, worth_it
from predis.cache.predictor.features.batch import Batch, Shapes
from predis.cache.predictor.features.features import Features
from predis.cache.predictor.features.table import NAMES
from predis.cache.predictor.next_keys import needed_next, windows
from predis.cache.predictor.proposals import COLUMNS, Proposer, outcomes
from predis.cache.predictor.tuning import Tuning
from predis.cache.simulator.policies.lru import LRU
from predis.cache.simulator.setup import Key, Setup
from predis.cache.simulator.trace import Trace
from predis.errors import InvalidInput

_OLDER = 0.7
_MOST = 4  # followers of a key
_FREQUENT = 5  # reads of a key in the newer part, for the network to be heard about it
_LEARNT = 200_000  # candidates that trees learn from, the latest
_EPOCHS, _SHOWN = 4, 100_000  # the network sees each read so often at least, and so many in all
_SURE = 2.0  # standard errors
# Of a wasted load, in misses spared; with the last, seven of ten must be right.
_PRICES = (Tuning().price, 1.0, 1.5, 2.5)

Followers = Mapping[bytes, tuple[bytes, ...]]
AtPrice = Callable[[float], Followers]
"""What pays where a wasted load costs so much, in misses spared."""
Numbers = NDArray[np.int64]
Chances = NDArray[np.float64]
Pairs = Mapping[bytes, Mapping[bytes, float]]


class Played(NamedTuple):
    """What became of reads: which were missed, and all loads of the sources."""

    missed: NDArray[np.bool_]
    loads: int

    def spared(self, other: Played) -> int:
        """Misses that the other has not."""
        return int(self.missed.sum()) - int(other.missed.sum())


class Improved(NamedTuple):
    """Followers, and where they come from.

    Attributes:
        metrics: of each model whether it is used: 1, else 0.
        told: of each model what became of it, in words.
    """

    followers: Followers
    metrics: Mapping[str, float]
    told: Mapping[str, str]


def improved_by(
    models: Iterable[str],
    followers: Followers,
    *,
    past: Past,
    play: Callable[[Followers], Played],
    most_loads: float,
) -> Improved:
    """Followers with what each model adds to those before it.

    Args:
        play: what becomes of reads that are not in ``past``.
        most_loads: that these may take. Where a model takes more, only its surer pairs are used.

    Raises:
        MissingExtra: a model's package is not installed.
    """
    before = play(followers)
    metrics: dict[str, float] = {}
    told: dict[str, str] = {}
    for model in models:
        metrics[model] = 0.0
        try:
            at_price = _BY[model](past, followers)
        except InvalidInput as error:
            told[model] = f"left out, not trained: {error.message}"
            continue
        for price in _PRICES:
            tried = at_price(price)
            after = play(tried)
            if after.loads <= max(before.loads, most_loads):
                break
        change = f"misses {-before.spared(after):+,}, loads {after.loads - before.loads:+,}, of {len(after.missed):,} reads"
        if after.loads > max(before.loads, most_loads):
            told[model] = f"left out, it loads too much: {change}"
        elif adds(before, after):
            followers, before, metrics[model] = tried, after, 1.0
            told[model] = f"used: {change}"
        else:
            told[model] = f"left out, it adds nothing: {change}"
    return Improved(followers, metrics, told)


def adds(before: Played, after: Played) -> bool:
    """Whether the misses spared are worth the loads it takes, by more than chance makes of as many changes."""
    loads = after.loads - before.loads
    changed = int((before.missed != after.missed).sum()) + abs(loads)
    gain = before.spared(after) - Tuning().price * loads
    return bool(gain > _SURE * changed**0.5)


class Past:
    """The reads that models learn from and are asked at, as columns.

    Args:
        setup: capacity of the cache that misses, and how long a load takes.
        template: of a key.

    Attributes:
        keys: by number.
        codes: the number of each read's key.
        missed: whether LRU alone would have missed it.
        ready: the first read that a prefetch asked for then is there for.
        horizon: reads after which a prefetched key has waited in vain.
        cut: reads before this one are learnt from.
    """

    def __init__(self, trace: Trace, *, setup: Setup, template: Callable[[bytes], str]) -> None:
        assert trace.ts is not None
        assert trace.clients is not None
        self.keys = [str(key).encode() for key in trace.keys.dictionary_encode().dictionary.to_pylist()]
        self.codes, self.clients, self.seconds = trace.codes, trace.clients, trace.ts
        self._capacity = setup.capacity
        self.missed = np.array([missed for _, missed, _ in self._reads()])
        self.wait_s = setup.delay.wait
        ready = np.searchsorted(self.seconds, self.seconds + self.wait_s)
        self.ready = np.maximum(ready, np.arange(len(trace)) + 1)
        self.horizon = max(32, min(Tuning().horizon, setup.capacity))
        self.cut = round(len(trace) * _OLDER)
        self._templates = Shapes(template).of(self.keys)

    def __len__(self) -> int:
        return len(self.codes)

    def worth(self, rows: Numbers, keys: Numbers) -> NDArray[np.bool_]:
        """What became of candidates, see ``outcomes``."""
        return outcomes(
            rows, keys, reads=self.codes, missed=self.missed, ready=self.ready, horizon=self.horizon
        )

    def proposed(self) -> tuple[Numbers, Numbers, NDArray[np.float32]]:
        """Candidates of the tables: after which read, which key, and ``COLUMNS``. Of those to learn from the latest, of the others all."""
        proposer = Proposer(self.wait_s)
        rows: list[int] = []
        keys: list[Key] = []
        columns: list[tuple[float, ...]] = []
        reads = zip(self._reads(), self.seconds.tolist(), self.clients.tolist(), strict=True)
        for i, ((key, needed, cache), when, client) in enumerate(reads):
            for one in proposer.read(key, when, client=client, needed=needed):
                if one.key not in cache:
                    rows.append(i)
                    keys.append(one.key)
                    columns.append(one[1:])
        at, key_of = np.array(rows, np.int64), np.array(keys, np.int64)
        inputs = np.array(columns, np.float32).reshape(len(at), len(COLUMNS))
        some = at >= self.cut
        some[np.flatnonzero(at < self.cut - self.horizon)[-_LEARNT:]] = True
        return at[some], key_of[some], inputs[some]

    def features(self, rows: Numbers, keys: Numbers) -> NDArray[np.float32]:
        """The 64 features of each candidate, as if its client read it right after that read."""
        batch = Batch.of_columns(
            self.codes, templates=self._templates[self.codes], clients=self.clients, hits=~self.missed, seconds=self.seconds
        ).with_questions(rows, keys, templates=self._templates[keys])  # fmt: skip
        return Features().answers(batch)

    def absent(self, rows: Numbers, keys: Numbers) -> NDArray[np.bool_]:
        """Which of these keys were not resident after these reads; rows ascending."""
        found = np.zeros(len(rows), bool)
        at = 0
        for i, (_, _, cache) in enumerate(self._reads()):
            while at < len(rows) and rows[at] == i:
                found[at] = int(keys[at]) not in cache
                at += 1
        return found

    def means(self, rows: Numbers, keys: Numbers, *, chances: Chances, least: int = 1) -> Pairs:
        """Of each of these pairs the mean chance over the reads of its first key after the cut at which the second was not resident.

        Args:
            least: such reads; of what has fewer nothing is said.
        """
        said = dict(zip(zip(rows.tolist(), keys.tolist(), strict=True), chances.tolist(), strict=True))
        sums: dict[int, dict[int, list[float]]] = {}
        for key, then in zip(self.codes[rows].tolist(), keys.tolist(), strict=True):
            sums.setdefault(key, {}).setdefault(then, [0.0, 0.0])
        for i, (key, _, cache) in enumerate(self._reads()):
            for then, sum_of in sums.get(key, {}).items() if i >= self.cut else ():
                if then not in cache:
                    sum_of[0] += said.get((i, then), 0.0)
                    sum_of[1] += 1.0
        return {
            self.keys[key]: {self.keys[then]: total / count for then, (total, count) in some.items() if count >= least}
            for key, some in sums.items()
        }  # fmt: skip

    def _reads(self) -> Iterator[tuple[int, bool, LRU]]:
        """Each read's key, whether LRU alone missed it, and what that holds afterwards."""
        cache = LRU(self._capacity)
        for key in self.codes.tolist():
            missed = not cache.request(key)
            if missed:
                cache.admit(key)
            yield key, missed, cache


def by_boosting(past: Past, followers: Followers) -> AtPrice:
    """Followers as trees judge them.

    Raises:
        InvalidInput: there are too few candidates to learn from.
        MissingExtra: LightGBM is not installed.
    """
    rows, keys, told = past.proposed()
    inputs = np.column_stack([past.features(rows, keys), told])
    older, newer = rows < past.cut, rows >= past.cut
    worth = past.worth(rows[older], keys[older])
    confidence = Confidence.fit(inputs[older], worth, columns=[*NAMES, *COLUMNS])
    judged = past.means(rows[newer], keys[newer], chances=confidence.chances(inputs[newer]))

    def at_price(price: float) -> Followers:
        found = {}
        for key in [*judged, *(key for key in followers if key not in judged)]:
            chances = judged.get(key, {})
            rest = (then for then in followers.get(key, ()) if then not in chances)
            found[key] = (*_paying(chances, price=price), *rest)[:_MOST]
        return {key: some for key, some in found.items() if some}

    return at_price


def by_lstm(past: Past, followers: Followers) -> AtPrice:
    """Followers, and those that a network names besides.

    Raises:
        InvalidInput: there are too few reads to learn from.
        MissingExtra: PyTorch or ONNX Runtime is not installed.
    """
    older = slice(past.cut)
    targets = needed_next(
        past.codes[older], past.clients[older], needed=past.missed[older], ready=past.ready[older], horizon=past.horizon
    )  # fmt: skip
    inputs = windows(past.codes, past.clients)
    network = lstm.fit(inputs[older], targets, epochs=max(_EPOCHS, _SHOWN // max(past.cut, 1)))
    named, scores = network.ask(inputs[past.cut :])
    rows = np.repeat(np.arange(past.cut, len(past)), named.shape[1])
    keys, raw = named.ravel(), scores.ravel().astype(np.float64)
    some = (keys >= 0) & past.absent(rows, keys)
    rows, keys, raw = rows[some], keys[some], raw[some]
    known = rows < len(past) - past.horizon
    chances = Isotonic.fit(raw[known], past.worth(rows[known], keys[known]))(raw)
    judged = past.means(rows, keys, chances=chances, least=_FREQUENT)

    def at_price(price: float) -> Followers:
        found = dict(followers)
        for key, likely in judged.items():
            had = followers.get(key, ())
            named = (then for then in _paying(likely, price=price) if then not in had)
            found[key] = (*had, *named)[:_MOST]
        return {key: some for key, some in found.items() if some}

    return at_price


def _paying(chances: Mapping[bytes, float], *, price: float) -> list[bytes]:
    """Those that pay, the likeliest first."""
    ranked = sorted(chances.items(), key=lambda item: (-item[1], item[0]))
    pays = worth_it(np.array([chance for _, chance in ranked]), price=price)
    return [key for (key, _), good in zip(ranked, pays.tolist(), strict=True) if good]


_BY: dict[str, Callable[[Past, Followers], AtPrice]] = {"boosting": by_boosting, "lstm": by_lstm}
