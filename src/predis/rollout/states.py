"""The states of a rollout and the legal moves between them: one table, used by every UPDATE's WHERE, the docs and the tests."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from predis.errors import IllegalTransition


class State(StrEnum):
    """Where a rollout stands."""

    WARMING = "warming"
    RUNNING = "running"
    PROMOTED = "promoted"
    ABORTED = "aborted"
    FAILED = "failed"


STATES: Mapping[str, str] = {
    State.WARMING: "workers load the candidate; it gets no traffic yet",
    State.RUNNING: "the candidate answers its step's share while the gates watch",
    State.PROMOTED: "the candidate answers everything; final",
    State.ABORTED: "the baseline answers everything again; final",
    State.FAILED: "the candidate could not be loaded and never answered; final",
}

TRANSITIONS: Mapping[tuple[str, str], str] = {
    (State.WARMING, State.RUNNING): "every worker has the candidate in memory; the first step begins",
    (State.WARMING, State.PROMOTED): "direct: every worker has the candidate in memory and takes it",
    (State.WARMING, State.ABORTED): "somebody asked for it",
    (State.WARMING, State.FAILED): "a worker could not load the candidate, or loading took too long",
    (State.RUNNING, State.RUNNING): "the gates of a step passed; the next step begins",
    (State.RUNNING, State.PROMOTED): "the gates of the last step passed, or somebody asked for it",
    (State.RUNNING, State.ABORTED): "a gate failed, or somebody asked for it",
}

FINAL = frozenset((State.PROMOTED, State.ABORTED, State.FAILED))


def check(source: str, target: str) -> None:
    """Let a legal move pass.

    Raises:
        IllegalTransition: the table has no such move.
    """
    if (source, target) not in TRANSITIONS:
        raise IllegalTransition(f"a rollout does not go from {source} to {target}")
