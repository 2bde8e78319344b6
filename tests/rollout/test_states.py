"""The table of legal moves."""

from __future__ import annotations

import itertools

import pytest

from predis.errors import IllegalTransition
from predis.rollout.states import FINAL, STATES, TRANSITIONS, WISHES, State, check, check_wish


@pytest.mark.parametrize(("source", "target"), list(itertools.product(State, State)))
def test_only_moves_of_the_table_pass(source: State, target: State) -> None:
    if (source, target) in TRANSITIONS:
        check(source, target)
    else:
        with pytest.raises(IllegalTransition, match=f"from {source} to {target}"):
            check(source, target)


def test_final_states_are_those_without_a_way_out() -> None:
    assert {state for state in State if not any(source == state for source, _ in TRANSITIONS)} == FINAL


def test_every_state_can_be_reached() -> None:
    reached = {State.WARMING}
    for _ in State:
        reached |= {State(target) for source, target in TRANSITIONS if source in reached}
    assert reached == set(State)


def test_a_candidate_that_answered_can_not_have_failed() -> None:
    """``failed`` says that the candidate never answered anybody."""
    assert {source for source, target in TRANSITIONS if target == State.FAILED} == {State.WARMING}


def test_every_state_and_move_is_explained() -> None:
    assert set(STATES) == set(State)
    assert all(STATES.values())
    assert all(TRANSITIONS.values())


@pytest.mark.parametrize("strange", ["", "resting", "PROMOTED"])
def test_unknown_states(strange: str) -> None:
    with pytest.raises(IllegalTransition):
        check(strange, State.RUNNING)
    with pytest.raises(IllegalTransition):
        check(State.RUNNING, strange)


def test_wishes_are_granted_in_states_that_could_and_in_no_others() -> None:
    for wish, allowed in WISHES.items():
        assert not allowed & FINAL
        for state in State:
            if state in allowed:
                check_wish(wish, state)
            else:
                with pytest.raises(
                    IllegalTransition, match="has ended" if state in FINAL else f"cannot {wish}"
                ):
                    check_wish(wish, state)
