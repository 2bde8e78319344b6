"""What is known of a rollout now: from the workers' reports, and from what monitoring has counted."""

from __future__ import annotations

from predis.clock import NANOSECONDS
from predis.expressions import compile_expression
from predis.monitoring.evidence import EvidenceReader, Mark
from predis.rollout.decision import Evidence
from predis.rollout.gates import Ledger
from predis.rollout.plan import COMPARING, REWARD_NAMES, Plan
from predis.rollout.states import State
from predis.rollout.store import Rollout
from predis.serving.follower import alive
from predis.serving.store import ServingStore
from predis.state.records import Arm

# Requests of the step before are still being taken in for so long after a step began; their shares are those of then.
_SETTLED_NS = 2 * NANOSECONDS
# Workers that died longer ago are no reason to turn a candidate back.
_CRASHES_NS = 60 * NANOSECONDS


class Gatherer:
    """Puts the evidence of a rollout together, and gives the ledger what is new."""

    def __init__(self, reader: EvidenceReader, workers: ServingStore) -> None:
        self._reader = reader
        self._store = workers

    def gather(
        self, rollout: Rollout, plan: Plan, *, ledger: Ledger, frozen: str, now: int
    ) -> tuple[Evidence, bool]:
        """The evidence, and whether the ledger has taken in anything new."""
        applied, problem, crashes = self._workers(rollout, now)
        if rollout.baseline is None or rollout.began_at is None:
            return Evidence(applied=applied, problem=problem, frozen=frozen), False
        name, versions = (rollout.tenant, rollout.endpoint), (rollout.baseline, rollout.candidate)
        mark = Mark(**rollout.marks)
        reward = compile_expression(plan.reward, names=REWARD_NAMES) if plan.reward else None
        sides = self._reader.sides(*name, versions=versions, arm=_arm(plan), mark=mark, reward=reward)
        since = now - round(plan.burst_s * NANOSECONDS)
        recent = [
            self._reader.recent(*name, version=version, since=max(since, rollout.step_at))
            for version in versions
        ]
        settled = applied and rollout.state == State.RUNNING and now - rollout.step_at > _SETTLED_NS
        expected = rollout.share if settled and plan.strategy in COMPARING else None
        is_new = ledger.advance(sides, plan=plan, share=expected)
        shadow = None
        if plan.strategy == "shadow":
            shadow = self._reader.shadow(*name, version=rollout.candidate, mark=mark)
        found = Evidence(
            applied=applied, problem=problem, crashes=crashes, frozen=frozen, sides=sides, recent=(recent[0], recent[1]),
            shadow=shadow, ledger=ledger,
        )  # fmt: skip
        return found, is_new

    def _workers(self, rollout: Rollout, now: int) -> tuple[bool, str, int]:
        """Whether every living worker serves the rollout's Route, what one that cannot says, and how many died lately."""
        name = f"{rollout.tenant}/{rollout.endpoint}"
        workers = self._store.workers()
        living = [worker for worker in workers if alive(worker, now)]
        since = max(rollout.began_at or now, now - _CRASHES_NS)
        crashes = sum(worker.seen_at >= since and not alive(worker, now) for worker in workers)
        for worker in living:
            problem = worker.problems.get(name)
            if problem and problem["route"] == rollout.route:
                return False, problem["message"], crashes
        applied = bool(living) and all(worker.applied.get(name, -1) >= rollout.route for worker in living)
        return applied, "", crashes


def _arm(plan: Plan) -> Arm | None:
    """Which requests count: those whose version was drawn by chance, the copies, or all."""
    if plan.strategy == "shadow":
        return Arm.SHADOW
    return Arm.COMPARED if plan.strategy in COMPARING else None
