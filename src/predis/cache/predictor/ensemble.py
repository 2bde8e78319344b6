"""The predictor: several rules, honest odds, and the courage to act on them.

For each request, in this order:

1. The guesses about this key get their outcome: was it needed, and would a prefetch have been in time? (`guesses`)
2. If it was needed, it is tied to the sources that are just old enough (`followers`, `strides`).
3. The sources that occur with it name candidates: keys that followed it, followed it and the key before it, followed it further back
   among needed keys, or lie at a usual distance. Rules that name the same key are mixed to one chance (`odds`).
4. A candidate that is not resident is asked for where the miss it spares (a lower bound of its chance) is worth more than the load it
   may waste (`purse`) and the slot it takes while it waits (`duel`, `patience`), and watched otherwise. One that is resident and likely
   is kept from leaving.

"Needed" is what the demand policy alone would have missed (`duel`), so nothing here is learned from the predictor's own doing. With
another policy than the `Duel` it is a miss or the first use of a prefetched key.

Learning looks back only: a key's outcome is used after its request was answered. Nothing is random; the same requests give the same
prefetches.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from predis.cache.predictor.duel import Duel
from predis.cache.predictor.followers import Followers, Occurrence, Recent, Source, Stream
from predis.cache.predictor.guesses import Guess, Guesses, Opinion
from predis.cache.predictor.odds import BIAS, Calibration, Mixture, chance_of, logit
from predis.cache.predictor.patience import Patience
from predis.cache.predictor.purse import Purse
from predis.cache.predictor.strides import Strides
from predis.cache.predictor.tuning import Tuning
from predis.cache.simulator.policies.base import Policy
from predis.cache.simulator.prefetchers.base import Prefetcher
from predis.cache.simulator.setup import Key, Setup

FIRST, SECOND, FAR, STRIDE = range(4)  # rules
AGAIN, HELD = 4, 5  # known besides: it was guessed before; this client asked for it itself of late
_REVIEW = 1_024  # requests
_TRUST = 0.75  # weight of the last calibration beside the mixture itself
_RARE = 0.2  # share below which a follower that came once is no candidate
_UNLIKELY = 0.15  # chance below which a candidate is watched only now and then
_LIKELY = 0.4  # chance of a rule alone that counts
_WORTH_KEEPING = 0.2  # gain, for a resident key to be kept
_SPREAD = 2_654_435_761  # Knuth's multiplier, to strew explorations
_SEEN = (0, 1, 2, 3, 3, 4, 4, 4, *[5] * 8, *[6] * 48)  # times seen, in classes
_KEPT = 5_000  # resident keys that are foretold, remembered

Heard = tuple[int, Calibration]


class Ensemble(Prefetcher):
    """Predis's own prefetcher; meant to work with the `Duel`.

    Args:
        setup: capacity and delay.
        tuning: the numbers that decide.
    """

    def __init__(self, setup: Setup, *, tuning: Tuning | None = None) -> None:
        super().__init__(setup)
        self.tuning = tuning = tuning or Tuning()
        self.timed = setup.delay.seconds > 0
        self.wait = setup.delay.wait
        self.purse = Purse(tuning)
        self.guesses = Guesses(
            wait=self.wait, horizon=tuning.horizon, rate=tuning.rate, evidence=tuning.evidence
        )
        self.first = Followers(tuning.sources, fan=tuning.fan, halving=tuning.halving)
        self.second = Followers(tuning.sources, fan=tuning.fan, halving=tuning.halving)
        self.far = Followers(tuning.sources, fan=tuning.far_fan, halving=tuning.halving)
        self.strides = Strides()
        self.patience = [Patience() for _ in range(4)]
        self.mixtures: dict[int, Mixture] = {}
        self.calibrations: list[dict[int, Calibration]] = [{}, {}, {}]
        self._streams: OrderedDict[int, Stream] = OrderedDict()
        self._policy: Policy | None = None
        self._duel: Duel | None = None
        self._i = 0
        self._slot = 0.0  # hits a request that a slot would yield the demand cache
        self._late = self._used = False
        self._wanted: dict[Key, Patience] = {}
        self._under_way: dict[Key, int] = {}  # asked for or kept: since when
        self._foretold: OrderedDict[Key, tuple[int, Patience]] = OrderedDict()

    # What the replay tells

    def attach(self, policy: Policy) -> None:
        self._policy = policy
        if isinstance(policy, Duel):
            self._duel = policy
            policy.keep = self._keep

    def asked(self, key: Key) -> None:
        patience = self._wanted.get(key)
        if patience is not None:
            self._under_way[key] = self._i
            patience.waiting.append((self._i, key))
            self.purse.spent()

    def used(self, key: Key) -> None:
        self._used = True
        self._under_way.pop(key, None)
        self.purse.requested()

    def late(self, key: Key) -> None:
        self._late = True
        self._under_way.pop(key, None)
        self.purse.requested()

    def wasted(self, key: Key) -> None:
        self._under_way.pop(key, None)
        self.purse.wasted()
        self.guesses.wasted(key)

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
        self._i = i
        duel = self._duel
        when = ts if self.timed else float(i)
        needed = duel.needed if duel is not None else not hit or self._used
        if duel.lru_missed if duel is not None else needed:
            self.purse.granted()
        if not hit and not self._late:
            self.purse.spent()
        self._late = self._used = False
        confirmed = self.guesses.requested(key, i, when=when, needed=needed)
        self.guesses.expire(i)
        self._give_up()
        if not i % _REVIEW:
            self._review()
        candidates: dict[Key, list[Heard]] = {}
        stream = self._stream(client)
        self._learn(key, stream, when=when, needed=needed, confirmed=confirmed, candidates=candidates)
        if not candidates:
            return ()
        return self._decide(key, stream, when=when, confirmed=confirmed, candidates=candidates)

    # Learning

    def _learn(
        self,
        key: Key,
        stream: Stream,
        *,
        when: float,
        needed: bool,
        confirmed: bool,
        candidates: dict[Key, list[Heard]],
    ) -> None:
        """Ties a needed key to sources, makes the key itself a source, and hears what follows it."""
        explore = not (self._i * _SPREAD >> 9) % self.tuning.explore
        asked = stream.asked
        old, young = asked.ripen(when - self.wait), asked.young
        if needed:
            self._tie(key, old)
        previous = young[-1] if young else old[-1] if old else None
        first = self.first.seen(key)
        if first.after:
            self._hear(first, FIRST, confirmed=confirmed, explore=explore, candidates=candidates)
        if previous is None or previous.key != key:
            second = None
            if previous is not None:
                second = self.second.seen((previous.key, key))
                if second.after:
                    self._hear(second, SECOND, confirmed=confirmed, explore=explore, candidates=candidates)
            young.append(Occurrence(when, key, first=first, second=second))
        elif young:
            previous.when = when
        if needed:
            self._learn_far(
                key, stream.needed, when=when, confirmed=confirmed, explore=explore, candidates=candidates
            )
        if isinstance(key, int):
            self._stride(key, confirmed, candidates=candidates)
        if self.setup.clients:
            stream.holds(key)

    def _stream(self, client: int) -> Stream:
        """Of this client, or of all where the trace does not tell them apart."""
        streams = self._streams
        found = streams.get(client)
        if found is None:
            found = streams[client] = Stream(
                near=self.tuning.near, far=self.tuning.far, young=self.tuning.horizon
            )
            if len(streams) > self.tuning.clients:
                streams.popitem(last=False)
        else:
            streams.move_to_end(client)
        return found

    def _tie(self, key: Key, old: Iterable[Occurrence]) -> None:
        others = [source for source in old if source.key != key]
        self.first.tie_all([source.first for source in others], key)
        self.second.tie_all([source.second for source in others if source.second is not None], key)
        if isinstance(key, int):
            self.strides.count([source.key for source in others if isinstance(source.key, int)], key)

    def _learn_far(
        self,
        key: Key,
        stream: Recent,
        *,
        when: float,
        confirmed: bool,
        explore: bool,
        candidates: dict[Key, list[Heard]],
    ) -> None:
        old = stream.ripen(when - self.wait)
        self.far.tie_all([source.first for source in old if source.key != key], key)
        entry = self.far.seen(key)
        if entry.after:
            self._hear(entry, FAR, confirmed=confirmed, explore=explore, candidates=candidates)
        stream.young.append(Occurrence(when, key, first=entry, second=None))

    # Guessing

    def _hear(
        self, source: Source, rule: int, *, confirmed: bool, explore: bool, candidates: dict[Key, list[Heard]]
    ) -> None:
        before = source.seen - 1
        if not before:
            return
        calibrations = self.calibrations[rule]
        kind = kind_of(before, 0.0, confirmed=confirmed)
        for key, count in source.after.items():
            share = count / before
            if share < _RARE and count < 2.0:
                continue
            at = kind + (10 if share >= 1.0 else int(share * 10.0))
            calibration = calibrations.get(at)
            if calibration is None:
                calibration = calibrations[at] = Calibration()
            elif calibration.true < _UNLIKELY * calibration.all and not explore:
                continue
            heard = candidates.get(key)
            if heard is None:
                candidates[key] = [(rule, calibration)]
            else:
                heard.append((rule, calibration))

    def _stride(self, key: int, confirmed: bool, *, candidates: dict[Key, list[Heard]]) -> None:
        strides = self.strides
        if not strides.active:
            return
        run = strides.run(key)
        explore = not (self._i * _SPREAD >> 7) % self.tuning.explore
        for distance in strides.active:
            calibration = strides.calibration(distance, run=run, confirmed=confirmed)
            heard = candidates.get(key + distance)
            if heard is not None:
                heard.append((STRIDE, calibration))
            elif explore or calibration.true >= _LIKELY * calibration.all:
                candidates[key + distance] = [(STRIDE, calibration)]

    def _decide(
        self, key: Key, stream: Stream, *, when: float, confirmed: bool, candidates: dict[Key, list[Heard]]
    ) -> Sequence[Key]:
        """Which candidates to ask for now, the likeliest first; the others are watched or, if resident, kept."""
        waiting, policy, i, held = self.guesses.waiting, self._policy, self._i, stream.held
        self._wanted.clear()
        asked: list[tuple[float, Key]] = []
        for candidate, heard in candidates.items():
            if candidate == key:
                continue
            before = waiting.get(candidate)
            if before is not None:
                self._cover(before, heard)
                if before.acted or before.at == i:
                    continue
            opinion = self._opinion(heard, before, held=candidate in held, confirmed=confirmed)
            if policy is not None and candidate in policy:
                if opinion.gain >= _WORTH_KEEPING:
                    self._foretell(candidate, opinion.patience)
                continue
            guess = Guess(i, when, before=before, opinion=opinion)
            if opinion.gain >= 0.0 and self._dares():
                guess.acted = True
                self._wanted[candidate] = opinion.patience
                asked.append((opinion.gain, candidate))
            self.guesses.add(candidate, guess)
        if len(asked) > 1:
            asked.sort(key=lambda one: -one[0])
        return [candidate for _, candidate in asked]

    def _opinion(
        self, heard: Sequence[Heard], before: Guess | None, *, held: bool, confirmed: bool
    ) -> Opinion:
        rules, best, surest = 0, -1.0, 0
        inputs, calibrations = [BIAS], []
        for rule, calibration in heard:
            rules |= 1 << rule
            chance = calibration.true / calibration.all
            inputs.append(logit(chance))
            calibrations.append(calibration)
            if chance > best:
                best, surest = chance, rule
        only_far = rules == 1 << FAR
        if before is not None:
            rules |= 1 << AGAIN
            inputs.append(logit(before.opinion.chance))
        if held:
            rules |= 1 << HELD
        mixture = self.mixtures.get(rules)
        if mixture is None:
            mixture = self.mixtures[rules] = Mixture(len(inputs) - 1)
        odds = mixture.odds(inputs)
        last = mixture.calibration(odds, confirmed)
        chance = last.true / last.all
        if not only_far:
            chance = _TRUST * chance + (1.0 - _TRUST) * chance_of(odds)
        lower = chance - self.tuning.caution * (chance * (1.0 - chance) / last.all) ** 0.5
        wasted = 1.0 - max(chance, last.requested / last.all)
        patience = self.patience[surest]
        gain = lower - self.purse.price * wasted - self._slot * patience.slot_requests
        return Opinion(mixture, inputs, calibrations, last, chance, gain, patience, only_far)

    def _cover(self, before: Guess, heard: Sequence[Heard]) -> None:
        """A far guess is worth less where a nearer rule says the same later and surer: what it wins is then won anyway."""
        if before.covered or before.at == self._i:
            return
        for rule, one in heard:
            if rule != FAR and one.true >= _LIKELY * one.all:
                before.cover()
                return

    def _dares(self) -> bool:
        """Whether there are savings, and a slot for what arrives."""
        if self.purse.off or self.purse.savings <= 0.0:
            return False
        duel = self._duel
        if duel is None:
            return True
        on_the_way = 0 if self.timed else self.setup.delay.requests + 1
        return len(self._under_way) + len(self._wanted) < duel.room + on_the_way

    # Keeping

    def _foretell(self, key: Key, patience: Patience) -> None:
        self._foretold[key] = (self._i, patience)
        if len(self._foretold) > _KEPT:
            self._foretold.popitem(last=False)

    def _keep(self, key: Key) -> bool:
        """Asked by the policy before a key leaves: is it expected?"""
        found = self._foretold.pop(key, None)
        if found is None or found[0] + found[1].requests < self._i:
            return False
        since, patience = found
        self._under_way[key] = since
        patience.waiting.append((since, key))
        return True

    def _give_up(self) -> None:
        """Prefetched keys whose time is over leave next."""
        duel, under_way, i = self._duel, self._under_way, self._i
        for patience in self.patience:
            waiting = patience.waiting
            while waiting and waiting[0][0] + patience.requests < i:
                since, key = waiting.popleft()
                if under_way.get(key) != since:
                    continue
                if duel is not None and key not in duel:  # still on its way
                    under_way[key] = i
                    waiting.append((i, key))
                    continue
                del under_way[key]
                if duel is not None:
                    duel.release(key)

    def _review(self) -> None:
        self.purse.review()
        duel = self._duel
        slot = self._slot = duel.slot * self.tuning.slot_value if duel is not None else 0.0
        delay = 0 if self.timed else self.setup.delay.requests
        for patience in self.patience:
            patience.review(slot, delay=delay, horizon=self.tuning.horizon)


def kind_of(seen: int, share: float, *, confirmed: bool) -> int:
    """Guesses calibrated together: how often the source was seen, which share of that the key followed, and whether the source itself
    had been guessed."""
    return (_SEEN[min(seen, len(_SEEN) - 1)] * 2 + confirmed) * 16 + (
        10 if share >= 1.0 else int(share * 10.0)
    )


def likely_after(
    ensemble: Ensemble, *, least: float = 0.5, most: int = 4
) -> Mapping[Key, tuple[tuple[Key, float], ...]]:
    """What was learned as a table: for each source the keys that follow in time, each with its chance, the likeliest first.

    Args:
        least: chance below which a key is left out. More: fewer, surer.
        most: keys of one source.
    """
    found: dict[Key, dict[Key, float]] = {}
    for rule, table in ((FIRST, ensemble.first), (FAR, ensemble.far)):
        calibrations = ensemble.calibrations[rule]
        for name, source in table.sources.items():
            if not isinstance(name, int | str):
                continue
            for key, count in source.after.items():
                share = count / source.seen
                kinds = [
                    calibrations.get(kind_of(source.seen, share, confirmed=one)) for one in (False, True)
                ]
                chance = _pooled([one for one in kinds if one is not None])
                if chance >= least:
                    chances = found.setdefault(name, {})
                    chances[key] = max(chance, chances.get(key, 0.0))
    return {
        name: tuple(sorted(chances.items(), key=lambda item: -item[1])[:most])
        for name, chances in found.items()
    }


def _pooled(calibrations: Sequence[Calibration]) -> float:
    every = sum([one.all for one in calibrations])
    return sum([one.true for one in calibrations]) / every if every else 0.0
