"""The predictor is managed like any model: trained, registered, tried, promoted, rolled back, and every step is on record.

Who does what
-------------
The *learner* (a process of its own) hears reads. It publishes tables of its own every few seconds (``published``), tells whether clients
still ask as they did (``habits``), and writes the reads themselves to Parquet (``export``).

*Control*, here, decides. It has a version trained when there is none, when habits have drifted, a version has lost its gain, or is old
(``triggers``): as a run of the platform's retraining workflow, in a process with limits (``training``). The run registers what it made as
the next version of the model ``cache-predictor``, the simulator's report as its metrics (``versions``). Then the version is on trial.

The gateway's *workers* foretell by the champion, and for a share of the keys by the candidate (``arms``), always with the learner's newest
tables added; they hold back, and count by version. From their counts ``verdicts`` says when the candidate takes over or is dropped, and
when a champion's gain is gone, so that the version before it returns. Before the first there is version 0: the learner's tables alone. A
rule that does not pay is switched off by each worker at once, in any version; rolling back is for what is wrong as a whole.

What is kept where
------------------
Which version is champion and which candidate is said by the aliases ``champion`` and ``challenger`` in the registry: a crash between any
two steps leaves one of them, and the next look goes on from there. ``standing.json`` is made from them for the workers. Evidence and the
last decisions are in ``steward.json`` (``records``): losing it costs the evidence of a trial, which begins anew. Every decision is in the
audit log, with why.

One installation has one predictor, of the tenant ``default``, as all tenants' keys are behind one gateway.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from predis.access import Audit
from predis.cache.foretelling import FOLDER, figures, statuses
from predis.cache.predictor import habits
from predis.cache.predictor.gain import Tally
from predis.cache.predictor.ledger import Latest
from predis.cache.predictor.records import Records, Trial
from predis.cache.predictor.triggers import Triggers
from predis.cache.predictor.verdicts import Gates, Verdict, of_champion, of_trial
from predis.cache.predictor.versions import CHALLENGER, CHAMPION, MODEL, TENANT, Damaged, Versions
from predis.clock import NANOSECONDS, Clock, iso
from predis.errors import Conflict, PredisError
from predis.metrics import NOTHING, Metrics
from predis.state import Database

log = logging.getLogger(__name__)

ACTOR = "predictor"
_SAVE_S = 30.0
_SHOWN = 10


class Training(Protocol):
    """A training run, as far as it matters here."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def challenger(self) -> int | None: ...
    @property
    def created_at(self) -> int: ...
    @property
    def ended_at(self) -> int | None: ...
    def to_dict(self) -> dict[str, Any]: ...


class Trainings(Protocol):
    """The platform's workflow, as the steward needs it."""

    def begin(self, *, trigger: str, champion: int, actor: str) -> Training:
        """
        Raises:
            Conflict: one is under way.
            MissingExtra: the workflow engine is not installed.
        """

    def newest(self) -> Training | None: ...

    def end(self, run: str, outcome: str, *, why: str) -> None: ...


@dataclass(frozen=True)
class Parts:
    """What a steward works with. ``share``: of the keys, that a candidate is tried with."""

    versions: Versions
    trainings: Trainings
    triggers: Triggers
    share: float = 0.5
    gates: Gates = Gates()


class Steward:
    """Decides which version the gateway uses. ``tick`` every second or two, from one thread; all else from any.

    Args:
        folder: the cache's folder in the home.
    """

    def __init__(
        self, folder: Path, parts: Parts, *, database: Database, clock: Clock, metrics: Metrics = NOTHING
    ) -> None:
        self._cache = folder
        self._folder = folder / FOLDER
        self._parts = parts
        self._versions = parts.versions
        self._database = database
        self._audit = Audit(database, clock)
        self._clock = clock
        self._metrics = metrics
        self._lock = threading.RLock()
        self._records = Records.read(self._folder)
        self._saved_s = clock.monotonic_s()
        self._asked_ns: int | None = None
        self._problem = ""

    # What happens by itself

    def tick(self) -> None:
        """Look at the evidence, do what it demands, and have a version trained where one is due."""
        if not self._cache.exists():
            return  # no gateway has run here
        with self._lock:
            if self._clock.monotonic_s() - self._saved_s >= _SAVE_S:
                self._save()
                self._establish()
            self._weigh(self._records.ledger.take(statuses(self._cache)))
        self._measure()
        self._train_if_due()

    def try_out(self, number: int, *, run: str) -> bool:
        """Put a registered version on trial. Asked again it says the same; False while another is on trial."""
        with self._lock:
            champion, candidate = self._versions.in_use()
            if number in (champion, candidate):
                return True
            if candidate:
                return False
            self._records.trial = Trial(number, run, self._clock.time_ns())
            self._versions.point(CHALLENGER, number, actor=ACTOR)
            why = f"tried with {self._parts.share:.0%} of the keys, beside {_named(champion)}"
            self._decide("trial", number, why=why, actor=ACTOR)
            return True

    # What people ask for

    def train(self, *, actor: str) -> dict[str, Any]:
        """Begin to train a version now; the run.

        Raises:
            Conflict: one is being trained or tried.
            MissingExtra: the workflow engine is not installed.
        """
        champion, _ = self._versions.in_use()
        return self._parts.trainings.begin(trigger="manual", champion=champion, actor=actor).to_dict()

    def promote(self, *, actor: str) -> dict[str, Any]:
        """Let the candidate take over now, whatever its trial has shown.

        Raises:
            Conflict: none is on trial.
        """
        with self._lock:
            _, candidate = self._versions.in_use()
            if not candidate:
                raise Conflict(
                    "no version is on trial; predis cache predictor versions shows those there are"
                )
            self._promote(candidate, why=f"{actor} asked for it", actor=actor)
        return self.shown()

    def rollback(self, number: int | None = None, *, actor: str) -> dict[str, Any]:
        """End a trial, where one is under way; else return to the version before, or to the one named.

        Args:
            number: 0 for the learner's tables alone.

        Raises:
            VersionNotFound: there is none of that number.
            Conflict: it is in use already, or there is nothing to go back from.
        """
        why = f"{actor} asked for it"
        with self._lock:
            champion, candidate = self._versions.in_use()
            if candidate and number is None:
                self._drop(candidate, why=why, actor=actor)
                return self.shown()
            to = self._before(champion) if number is None else number
            if to == champion:
                raise Conflict(f"{_named(to)} is what is in use already")
            if to:
                self._versions.get(to)
            if candidate:
                self._drop(candidate, why=f"{actor} asked for {_named(to)}", actor=actor)
            self._return_to(to, why=why, actor=actor)
        return self.shown()

    # What is shown

    def shown(self) -> dict[str, Any]:
        """Champion, candidate and its trial, the last training, habits, and the last decisions."""
        with self._lock:
            champion, candidate = self._versions.in_use()
            records, latest = self._records, self._records.latest.tally
            trial = records.trial if records.trial and records.trial.version == candidate else None
            verdict = of_champion(latest, before=records.gain, gates=self._parts.gates)
            newest = self._parts.trainings.newest()
            return {
                "champion": {
                    "version": champion,
                    "gain_at_promotion": records.gain,
                    "latest": figures(latest),
                    "verdict": verdict.why if champion else "",
                },
                "candidate": trial and {
                    "version": candidate,
                    "share": self._parts.share,
                    "since": iso(trial.began_ns),
                    "champion": figures(trial.champion),
                    "candidate": figures(trial.candidate),
                    "verdict": self._of_trial(trial).why,
                },
                "training": newest and newest.to_dict(),
                "problem": self._problem,
                "habits": self._habits(),
                "decisions": records.decisions[::-1][:_SHOWN],
            }  # fmt: skip

    def listed(self) -> list[dict[str, Any]]:
        """Every version, newest first, with what was decided of it last."""
        champion, candidate = self._versions.in_use()
        decisions = {one["version"]: one for one in self._records.decisions}
        return [
            {
                "version": version.number,
                "state": {champion: "in use", candidate: "on trial"}.get(version.number, ""),
                "created_at": iso(version.created_at),
                "digest": version.digest,
                "metrics": dict(version.metrics),
                "lineage": dict(version.lineage),
                "decision": decisions.get(version.number),
            }
            for version in self._versions.all()
        ]

    # Evidence

    def _weigh(self, new: Mapping[int, Tally]) -> None:
        """Add what has become of foretold keys, and act where that is certain."""
        champion, candidate = self._versions.in_use()
        records = self._records
        records.latest.add(new.get(champion, Tally()))
        if candidate:
            if records.trial is None or records.trial.version != candidate:  # its evidence was lost
                records.trial = Trial(candidate, "", self._clock.time_ns())
            records.trial.champion.add(new.get(champion, Tally()))
            records.trial.candidate.add(new.get(candidate, Tally()))
            verdict = self._of_trial(records.trial)
            if verdict.do == "promote":
                self._promote(candidate, why=verdict.why, actor=ACTOR)
            elif verdict.do == "drop":
                self._drop(candidate, why=verdict.why, actor=ACTOR)
        elif champion:
            verdict = of_champion(records.latest.tally, before=records.gain, gates=self._parts.gates)
            if verdict.do == "roll back":
                self._return_to(self._before(champion), why=verdict.why, actor=ACTOR)

    def _measure(self) -> None:
        for role, version in zip((CHAMPION, CHALLENGER), self._versions.in_use(), strict=True):
            self._metrics.gauge("predis_predictor_version", role=role).set(version)
        told = self._habits()
        if told is not None and told.get("psi") is not None:
            self._metrics.gauge("predis_predictor_habits_psi").set(told["psi"])

    def _of_trial(self, trial: Trial) -> Verdict:
        age_s = (self._clock.time_ns() - trial.began_ns) / NANOSECONDS
        parts = self._parts
        return of_trial(trial.champion, trial.candidate, share=parts.share, age_s=age_s, gates=parts.gates)

    def _habits(self) -> dict[str, Any] | None:
        """What the learner says of clients' habits, where it is about the version in use."""
        try:
            told = json.loads((self._folder / habits.FILE).read_bytes())
        except (OSError, ValueError):
            return None
        return told if isinstance(told, dict) and told.get("version") == self._versions.in_use()[0] else None

    # Decisions

    def _promote(self, number: int, *, why: str, actor: str) -> None:
        champion, _ = self._versions.in_use()
        records, trial = self._records, self._records.trial
        known = trial is not None and trial.candidate.held and trial.candidate.given
        records.gain = trial.candidate.gain if trial is not None and known else None
        records.history.append(champion)
        records.latest = Latest()
        self._versions.point(CHAMPION, number, actor=actor)
        self._end_trial("promoted", why=why, actor=actor)
        self._decide("promote", number, why=why, actor=actor)

    def _drop(self, number: int, *, why: str, actor: str) -> None:
        self._end_trial("rejected", why=why, actor=actor)
        self._decide("drop", number, why=why, actor=actor)

    def _return_to(self, number: int, *, why: str, actor: str) -> None:
        champion, _ = self._versions.in_use()
        records = self._records
        if number in records.history:
            records.history = records.history[: records.history.index(number)]
        records.latest, records.gain = Latest(), None
        self._versions.point(CHAMPION, number, actor=actor)
        self._decide("roll back", champion, why=f"{why}; back to {_named(number)}", actor=actor)

    def _end_trial(self, outcome: str, *, why: str, actor: str) -> None:
        trial, self._records.trial = self._records.trial, None
        self._versions.point(CHALLENGER, 0, actor=actor)
        if trial is not None and trial.run:
            self._parts.trainings.end(trial.run, outcome, why=why)

    def _decide(self, decision: str, number: int, *, why: str, actor: str) -> None:
        """Write a decision down, and let the workers know."""
        at = iso(self._clock.time_ns())
        self._records.decided({"at": at, "decision": decision, "version": number, "why": why, "actor": actor})
        with self._database.write() as connection:
            self._audit.add(
                connection, TENANT, actor=actor, action=f"predictor.{decision.replace(' ', '_')}",
                target=f"{MODEL}@{number}", detail={"why": why},
            )  # fmt: skip
        self._metrics.counter("predis_predictor_decisions_total", decision=decision).add()
        log.info("predictor version %d: %s: %s", number, decision, why)
        self._save()
        self._establish()

    def _before(self, champion: int) -> int:
        """The version that was in use before and still is there; 0 for none."""
        there = {version.number for version in self._versions.all()} - {champion}
        return next((number for number in reversed(self._records.history) if number in there), 0)

    def _establish(self) -> None:
        """Let the workers use what was decided. A version whose artifact is damaged is left."""
        try:
            self._versions.establish(share=self._parts.share)
        except Damaged as damaged:
            champion, _ = self._versions.in_use()
            if damaged.number == champion:
                self._return_to(self._before(champion), why=f"{damaged}", actor=ACTOR)
            else:
                self._drop(damaged.number, why=f"{damaged}", actor=ACTOR)
        except OSError as error:
            log.warning("the predictor's versions were not written (%s); those in use stay", error.strerror)

    def _save(self) -> None:
        self._saved_s = self._clock.monotonic_s()
        try:
            self._records.write(self._folder)
        except OSError as error:
            log.warning("the predictor's evidence was not written: %s", error.strerror)

    # Training

    def _train_if_due(self) -> None:
        newest = self._parts.trainings.newest()
        if newest is not None and newest.ended_at is None:
            self._take_care_of(newest)
            return
        now = self._clock.time_ns()
        began = [at for at in (self._asked_ns, newest.created_at if newest else None) if at is not None]
        last = max(began, default=None)
        champion, _ = self._versions.in_use()
        trigger = self._parts.triggers.due(now, last, champion=champion, wish=self._wish(last))
        if not trigger:
            return
        self._asked_ns = now
        try:
            self._parts.trainings.begin(trigger=trigger, champion=champion, actor=ACTOR)
            self._problem = ""
        except PredisError as error:
            log.warning("the predictor was not trained: %s", error)
            self._problem = error.message

    def _wish(self, last_ns: int | None) -> str:
        """What asks for a training since the last: habits that have drifted, or a version that has lost its gain."""
        told = self._habits()
        if told is not None and told.get("drifted"):
            return "drift"
        last = self._records.decisions[-1:]
        lost = last and last[0]["decision"] == "roll back" and last[0]["actor"] == ACTOR
        return "gain" if lost and last[0]["at"] > (iso(last_ns or 0) or "") else ""

    def _take_care_of(self, run: Training) -> None:
        """Tie a run to its trial, or end it where that has ended, should a crash have come between."""
        if run.state != "rolling_out" or run.challenger is None:
            return
        with self._lock:
            trial = self._records.trial
            if trial is not None and trial.version == run.challenger:
                trial.run = run.id
                return
            champion, _ = self._versions.in_use()
            outcome = "promoted" if champion == run.challenger else "rejected"
            self._parts.trainings.end(run.id, outcome, why="its trial has ended")


def _named(number: int) -> str:
    return f"version {number}" if number else "what the learner finds by itself"
