"""The rows of rollouts: at most one is active, and a change that meets another state raises."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from predis.errors import IllegalTransition, RolloutInProgress
from predis.rollout.plan import Plan
from predis.rollout.states import FINAL, State
from predis.rollout.store import Rollout, RolloutStore
from predis.state import Database
from predis.state.schema import rollouts
from tests.toys import ENDPOINT, MODEL, TENANT


def row(**other: Any) -> dict[str, Any]:
    return {
        "tenant": TENANT, "endpoint": ENDPOINT, "model": MODEL, "baseline": 1, "candidate": 2, "state": State.WARMING, "step": 0,
        "share": 0.0, "plan": Plan().to_dict(), "base": {}, "marks": {}, "ledger": {}, "looks": 0, "route": 1, "verdicts": [], "moves": [],
        "reason": "", "wish": "", "wish_by": "", "overrides_freeze": False, "created_at": 1, "began_at": None, "step_at": 1,
        "ended_at": None, "created_by": "ada", **other,
    }  # fmt: skip


def add(database: Database, **other: Any) -> Rollout:
    store = RolloutStore(database)
    with database.write() as connection:
        number = store.add(connection, row(**other))
    found = store.rollout(other.get("tenant", TENANT), number)
    assert found is not None
    return found


def move(database: Database, rollout: Rollout, target: str, **values: Any) -> None:
    with database.write() as connection:
        RolloutStore(database).move(connection, rollout, target=target, values=values)


def read(database: Database, rollout: Rollout) -> Rollout:
    found = RolloutStore(database).rollout(rollout.tenant, rollout.id)
    assert found is not None
    return found


class TestOneAtATime:
    def test_the_second_is_refused_and_says_why(self, database: Database) -> None:
        first = add(database)
        with pytest.raises(RolloutInProgress, match=f"in rollout {first.id} to version 2, started by ada"):
            add(database, candidate=3)
        assert [r.id for r in RolloutStore(database).active()] == [first.id]

    def test_by_the_database_too(self, database: Database) -> None:
        """For the control that looked before the other one wrote."""
        add(database)
        with pytest.raises(sa.exc.IntegrityError), database.write() as connection:
            connection.execute(rollouts.insert().values(**row()))
        with database.write() as connection:
            connection.execute(rollouts.insert().values(**row(ended_at=5)))

    def test_endpoints_and_tenants_are_apart(self, database: Database) -> None:
        add(database)
        add(database, endpoint="other")
        add(database, tenant="elsewhere")
        assert len(RolloutStore(database).active()) == 3

    def test_the_next_may_start_when_it_has_ended(self, database: Database) -> None:
        for ended_at in range(1, 4):
            move(database, add(database), State.ABORTED, ended_at=ended_at)
        assert RolloutStore(database).active() == []
        assert len(RolloutStore(database).rollouts(TENANT)) == 3

    def test_many_at_once(self, database: Database) -> None:
        start, outcomes = threading.Barrier(5), []

        def try_one() -> None:
            start.wait()
            try:
                outcomes.append(add(database).id)
            except RolloutInProgress:
                outcomes.append(0)

        threads = [threading.Thread(target=try_one) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(bool(outcome) for outcome in outcomes) == [False] * 4 + [True]


class TestMove:
    def test_changes_the_row(self, database: Database) -> None:
        rollout = add(database)
        move(database, rollout, State.RUNNING, step=0, route=7, step_at=9)
        found = read(database, rollout)
        assert (found.state, found.route, found.step_at, found.ended_at) == (State.RUNNING, 7, 9, None)

    @pytest.mark.parametrize("target", [State.WARMING, "strange"])
    def test_not_in_the_table(self, database: Database, target: str) -> None:
        rollout = add(database)
        with pytest.raises(IllegalTransition):
            move(database, rollout, target)
        assert read(database, rollout) == rollout

    def test_whoever_comes_second_changes_nothing(self, database: Database) -> None:
        rollout = add(database)
        move(database, rollout, State.RUNNING, step=0)
        with pytest.raises(IllegalTransition, match="no longer warming"):
            move(database, rollout, State.FAILED, ended_at=9)
        running = read(database, rollout)
        move(database, running, State.RUNNING, step=1)
        with pytest.raises(IllegalTransition, match="at step 0"):
            move(database, running, State.PROMOTED, ended_at=9)
        assert read(database, rollout).step == 1

    @pytest.mark.parametrize("final", sorted(FINAL))
    def test_a_final_state_stays(self, database: Database, final: str) -> None:
        before = State.RUNNING if final == State.CONCLUDED else State.WARMING
        store, rollout = RolloutStore(database), add(database, state=before)
        move(database, rollout, final, ended_at=9, reason="so it is")
        ended = read(database, rollout)
        for target in State:
            with pytest.raises(IllegalTransition):
                move(database, ended, target)
        with pytest.raises(IllegalTransition):
            move(database, rollout, State.RUNNING)
        with pytest.raises(IllegalTransition, match="no longer"), database.write() as connection:
            store.wish(connection, rollout, wish="abort", by="ada")
        with pytest.raises(IllegalTransition, match="looked at meanwhile"):
            store.note(rollout, reason="no", verdicts=[{"gate": "auc"}], ledger={})
        assert read(database, rollout) == ended


def test_notes_and_wishes(database: Database) -> None:
    store, rollout = RolloutStore(database), add(database)
    store.note(rollout, reason="waiting", verdicts=[{"gate": "auc", "low": -1.0}], ledger={"seen": [1]})
    with database.write() as connection:
        store.wish(connection, rollout, wish="promote", by="ada")
    found = read(database, rollout)
    assert (found.reason, found.verdicts) == ("waiting", [{"gate": "auc", "low": -1.0}])
    assert (found.wish, found.wish_by, found.ledger, found.looks) == ("promote", "ada", {"seen": [1]}, 1)
    with pytest.raises(
        IllegalTransition, match="looked at meanwhile"
    ):  # the same evidence does not count twice
        store.note(rollout, reason="waiting", verdicts=[], ledger={"seen": [2]})
    move(database, found, State.PROMOTED, ended_at=9)
    assert read(database, rollout).wish == ""


def test_listed_newest_first(database: Database) -> None:
    store = RolloutStore(database)
    made = [add(database, ended_at=1, endpoint=name).id for name in ("a", "b", "a")]
    add(database, tenant="elsewhere")
    assert [r.id for r in store.rollouts(TENANT)] == made[::-1]
    assert [r.id for r in store.rollouts(TENANT, endpoint="a")] == [made[2], made[0]]
    assert [r.id for r in store.rollouts(TENANT, limit=1)] == [made[2]]
    assert store.rollout("elsewhere", made[0]) is None
    assert store.rollout(TENANT, 10**6) is None


@pytest.mark.parametrize(
    ("state", "step", "weight"),
    [(State.WARMING, 0, 0.0), (State.RUNNING, 1, 0.5), (State.PROMOTED, 1, 1.0), (State.ABORTED, 1, 0.0)],
)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_as_a_document(database: Database, state: str, step: int, weight: float) -> None:
    shown = add(database, state=state, step=step, share=weight, ended_at=1_700_000_000_000_000_000).to_dict()
    assert (shown["weight"], shown["steps"], shown["strategy"]) == (weight, [0.1, 0.5], "canary")
    assert (shown["ended_at"], shown["ended_at_ns"]) == ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000)
    assert "marks" not in shown
    assert "tenant" not in shown
