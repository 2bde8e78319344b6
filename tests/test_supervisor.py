from __future__ import annotations

from predis.supervisor import Child


def test_who_ran_well_is_started_again_at_once_and_who_did_not_later_each_time() -> None:
    child = Child("cache-0", ["cache", "0"], started_at=0.0)
    assert child.ended(60.0) == 0.0
    pauses = []
    for _ in range(8):
        child.started_at = 100.0
        pauses.append(child.ended(101.0))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert child.due_at == 106.0
    child.started_at = 200.0
    assert child.ended(260.0) == 0.0
