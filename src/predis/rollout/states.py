"""The states of a rollout, the legal moves between them and what people may ask for: one table each, used by every UPDATE's WHERE, by
the docs and by the tests."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from predis.errors import IllegalTransition


class State(StrEnum):
    """Where a rollout stands."""

    WARMING = "warming"
    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    HOLDING = "holding"
    PROMOTED = "promoted"
    CONCLUDED = "concluded"
    ABORTED = "aborted"
    FAILED = "failed"


STATES: Mapping[str, str] = {
    State.WARMING: "workers load the candidate; it gets no traffic yet",
    State.WAITING: "a person must say yes before it goes on; shares stay as they are, and gates still turn it back",
    State.RUNNING: "the candidate answers its share, or shadows, while the gates watch",
    State.PAUSED: "somebody stopped it where it was; shares stay as they are, and gates still turn it back",
    State.HOLDING: "blue-green: the candidate answers everything; the baseline stays in memory for an instant return",
    State.PROMOTED: "the candidate answers everything; final",
    State.CONCLUDED: "the comparison ended with its verdict, and the baseline stays; final",
    State.ABORTED: "the baseline answers everything again; final",
    State.FAILED: "the candidate could not be loaded and never answered; final",
}

TRANSITIONS: Mapping[tuple[str, str], str] = {
    (
        State.WARMING,
        State.WAITING,
    ): "every worker has the candidate; the plan wants a yes before its first traffic",
    (State.WARMING, State.RUNNING): "every worker has the candidate in memory; the first step begins",
    (State.WARMING, State.HOLDING): "blue-green: every worker has the candidate in memory and takes it",
    (State.WARMING, State.PROMOTED): "direct: every worker has the candidate in memory and takes it",
    (State.WARMING, State.ABORTED): "somebody asked for it",
    (State.WARMING, State.FAILED): "a worker could not load the candidate, or loading took too long",
    (State.WAITING, State.RUNNING): "somebody said yes; the next step begins",
    (State.WAITING, State.HOLDING): "blue-green: somebody said yes",
    (State.WAITING, State.PROMOTED): "somebody said yes to the last step, or asked for it",
    (State.WAITING, State.ABORTED): "somebody said no, a gate failed, or the candidate failed hard",
    (State.RUNNING, State.RUNNING): "the next step begins, or a bandit moves its share",
    (State.RUNNING, State.WAITING): "a step ended, and the plan wants a yes before the next",
    (State.RUNNING, State.PAUSED): "somebody asked for it",
    (
        State.RUNNING,
        State.PROMOTED,
    ): "the last step's gates passed, the candidate won, or somebody asked for it",
    (State.RUNNING, State.CONCLUDED): "A/B, bandit, shadow: the verdict is in, or time is up",
    (State.RUNNING, State.ABORTED): "a gate failed, the candidate failed hard, or somebody asked for it",
    (State.PAUSED, State.RUNNING): "somebody asked to go on",
    (State.PAUSED, State.PROMOTED): "somebody asked for it",
    (State.PAUSED, State.ABORTED): "a gate failed, the candidate failed hard, or somebody asked for it",
    (
        State.HOLDING,
        State.PROMOTED,
    ): "the candidate held for as long as the plan wants, or somebody asked for it",
    (
        State.HOLDING,
        State.ABORTED,
    ): "the candidate failed hard, or somebody asked for it; the baseline was still in memory",
}

FINAL = frozenset((State.PROMOTED, State.CONCLUDED, State.ABORTED, State.FAILED))

# What people may ask for, and in which states.
WISHES: Mapping[str, frozenset[str]] = {
    "promote": frozenset((State.WARMING, State.WAITING, State.RUNNING, State.PAUSED, State.HOLDING)),
    "abort": frozenset((State.WARMING, State.WAITING, State.RUNNING, State.PAUSED, State.HOLDING)),
    "pause": frozenset((State.RUNNING,)),
    "resume": frozenset((State.PAUSED,)),
    "approve": frozenset((State.WAITING,)),
    "reject": frozenset((State.WAITING,)),
}


def check(source: str, target: str) -> None:
    """Let a legal move pass.

    Raises:
        IllegalTransition: the table has no such move.
    """
    if (source, target) not in TRANSITIONS:
        raise IllegalTransition(f"a rollout does not go from {source} to {target}")


def check_wish(wish: str, state: str) -> None:
    """Let a wish pass that a rollout in this state can grant.

    Raises:
        IllegalTransition: it cannot.
    """
    if state in FINAL:
        raise IllegalTransition(f"the rollout has ended ({state}); there is nothing to {wish}")
    if state not in WISHES[wish]:
        wanted = " or ".join(sorted(WISHES[wish]))
        raise IllegalTransition(f"a rollout that is {state} cannot {wish}; it would have to be {wanted}")
