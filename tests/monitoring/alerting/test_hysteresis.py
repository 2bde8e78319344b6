"""The state machine of an alert: its table by example, and what holds of every history."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from predis.monitoring.alerting.hysteresis import Change, Patience, Sight, Standing, step
from predis.monitoring.alerting.severity import Severity

SIGHTS = st.one_of(st.none(), st.builds(Sight, st.sampled_from(Severity), st.booleans()))
PATIENCES = st.builds(Patience, st.integers(1, 4), st.integers(1, 4))


def changes(*sights: Sight | None, patience: Patience) -> list[Change]:
    standing, found = Standing(), []
    for sight in sights:
        standing, change = step(standing, sight, patience=patience)
        found.append(change)
    return found


def test_it_takes_looks_in_a_row_to_open() -> None:
    bad = Sight(Severity.CRITICAL)
    found = changes(bad, bad, None, bad, bad, bad, patience=Patience(opening=3))
    assert found == [Change.NOTHING] * 5 + [Change.OPENED]


def test_it_eases_to_the_worst_that_was_seen_meanwhile() -> None:
    sights = [Sight(Severity.CRITICAL), Sight(Severity.INFO), Sight(Severity.WARNING), None]
    standing = Standing()
    for sight in sights:
        standing, change = step(standing, sight, patience=Patience(closing=3))
    assert (change, standing) == (Change.EASED, Standing(Severity.WARNING))


@given(st.lists(SIGHTS, max_size=60), PATIENCES)
def test_every_history(sights: list[Sight | None], patience: Patience) -> None:
    """Opened and resolved take turns; each has its looks behind it; the severity told is never below what is seen."""
    standing, is_open = Standing(), False
    for at, sight in enumerate(sights):
        before = standing
        standing, change = step(standing, sight, patience=patience)
        assert (standing.severity is not None) == (
            change in (Change.OPENED, Change.WORSENED, Change.EASED)
            or (is_open and change is not Change.RESOLVED)
        )
        if change is Change.OPENED:
            behind = sights[at + 1 - patience.opening : at + 1]
            assert not is_open
            assert len(behind) == patience.opening
            assert all(s is not None and not s.holds for s in behind)
        if change is Change.RESOLVED:
            assert is_open
            assert sights[at + 1 - patience.closing : at + 1] == [None] * patience.closing
        if change is Change.WORSENED:
            assert before.severity is not None
            assert standing.severity is not None
            assert before.severity < standing.severity
        if change is Change.EASED:
            assert before.severity is not None
            assert standing.severity is not None
            assert before.severity > standing.severity
            assert not any(
                s is not None and (s.holds or s.severity >= before.severity)
                for s in sights[at + 1 - patience.closing : at + 1]
            )
        is_open = standing.severity is not None
        if is_open and sight is not None and not sight.holds:
            assert standing.severity is not None
            assert standing.severity >= sight.severity


@given(st.lists(SIGHTS, max_size=60), PATIENCES)
def test_flapping_is_bounded(sights: list[Sight | None], patience: Patience) -> None:
    """However it flaps: no more openings than the looks that one takes allow."""
    found = changes(*sights, patience=patience)
    cycle = patience.opening + patience.closing
    assert found.count(Change.OPENED) <= (len(sights) + patience.closing) // cycle + 1
    assert found.count(Change.OPENED) - found.count(Change.RESOLVED) in (0, 1)
