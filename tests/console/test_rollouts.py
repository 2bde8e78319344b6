"""People move rollouts on the console: Chromium presses the buttons, the loops are the test's own calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predis.clock import ManualClock
from predis.rollout.freezes import Window
from predis.rollout.store import Rollout
from predis.state import Database
from tests import toys
from tests.console.browser import needs_chromium, opened, served
from tests.toys import ENDPOINT, MODEL, TENANT, Installation

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.parametrize("database", ["sqlite"], indirect=True),
]


class Desk:
    """Somebody at the console of an installation."""

    def __init__(self, installation: Installation, page: Any, root: str) -> None:
        self.installation = installation
        self.page = page
        self.root = root

    def look(self, place: str) -> None:
        self.page.goto(f"{self.root}/{place}")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def confirm(self, name: str) -> None:
        self.page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()

    def ask(self, wish: str, *, seen: str) -> None:
        """Press, confirm, and see it asked; then the loop looks, and the page shows the new state."""
        self.press(wish)
        self.confirm(wish)
        self.page.get_by_text(f"local asks to {wish.lower()}").wait_for()
        self.tick()
        self.page.locator(".rollout-head .pill", has_text=seen).wait_for()

    def tick(self) -> None:
        self.installation.clock.advance(0.5)
        self.installation.beat()
        self.installation.platform.rollouts.tick()

    def start(self, **plan: Any) -> Rollout:
        rollout = self.installation.start(2, **plan)
        self.tick()
        self.look(f"#/rollouts/{rollout.id}")
        return rollout

    def audit(self, action: str) -> dict[str, Any]:
        entries = self.installation.platform.audit.entries(TENANT, limit=50)
        return next(entry for entry in entries if entry["action"] == action)


@pytest.fixture
def desk(database: Database, home: Path, clock: ManualClock) -> Iterator[Desk]:
    with toys.installed(database, home, clock) as installation:
        installation.register("x")
        installation.register("z")
        installation.create_endpoint()
        installation.deploy(1)
        with served(installation) as root, opened() as (page, problems):
            yield Desk(installation, page, root)
            assert not problems


def test_pause_resume_abort(desk: Desk) -> None:
    desk.start(steps=[0.1, 0.5])
    desk.page.get_by_text("v2 answers 10\u00a0% of requests, v1 the rest.").wait_for()
    desk.ask("Pause", seen="paused")
    assert not desk.page.get_by_role("button", name="Pause", exact=True).count()
    desk.ask("Resume", seen="running")
    desk.ask("Abort", seen="aborted")
    desk.page.get_by_text("Turned back: v1 answers every request.").wait_for()
    assert not desk.page.locator(".rollout-head button").count()
    assert desk.installation.route() == {1: 1.0}


def test_a_yes_with_a_note(desk: Desk) -> None:
    rollout = desk.start(approve=["start"])
    desk.page.get_by_text("It waits for a person's yes.").wait_for()
    desk.press("Approve")
    desk.page.get_by_label("Note").fill("looked at the backtest")
    desk.confirm("Approve")
    desk.page.get_by_text("local asks to approve").wait_for()
    desk.tick()
    desk.page.locator(".rollout-head .pill", has_text="running").wait_for()
    assert desk.audit("rollout.approve")["detail"] == {
        "rollout": rollout.id,
        "note": "looked at the backtest",
    }


def test_a_freeze_refuses_a_promotion_until_it_is_overridden(desk: Desk) -> None:
    desk.start()
    desk.installation.platform.rollouts.freezes.add(
        TENANT, Window(starts_at=1, reason="quarter end"), actor="ops"
    )
    desk.press("Promote")
    desk.confirm("Promote")
    alert = desk.page.get_by_role("dialog").get_by_role("alert")
    alert.get_by_text("frozen until the freeze is removed: quarter end").wait_for()
    assert desk.installation.route() == {1: 0.9, 2: 0.1}
    desk.page.get_by_label("Override the freeze").check()
    desk.confirm("Promote")
    desk.page.get_by_role("dialog").wait_for(state="detached")
    desk.tick()
    desk.page.get_by_text("v2 answers every request.").first.wait_for()


def test_freezes_come_and_go(desk: Desk) -> None:
    desk.look("#/rollouts")
    desk.page.get_by_text("No freeze window.").wait_for()
    desk.press("Add a freeze")
    desk.page.get_by_role("textbox", name="Each week").fill("fri 16:00")
    desk.confirm("Add")
    desk.page.get_by_role("dialog").get_by_text("a weekly freeze is written as").wait_for()
    desk.page.get_by_role("textbox", name="Each week").fill("fri 16:00-mon 06:00")
    desk.page.get_by_label("Reason").fill("weekend")
    desk.confirm("Add")
    desk.page.get_by_text("every week fri 16:00-mon 06:00").wait_for()
    desk.press("Remove freeze 1")
    desk.confirm("Remove")
    desk.page.get_by_text("No freeze window.").wait_for()


def test_deploy(desk: Desk) -> None:
    desk.look("#/")
    desk.press("Deploy a version")
    dialog = desk.page.get_by_role("dialog")
    dialog.get_by_role("combobox", name="Version").select_option("2")
    dialog.get_by_role("textbox", name="Steps").fill("10, nothing")
    desk.confirm("Start the rollout")
    dialog.get_by_text('"nothing" is not a number').wait_for()
    dialog.get_by_role("textbox", name="Steps").fill("5, 20%")
    dialog.get_by_label("Only requests where").fill("header.x_country == 'CH'")
    dialog.get_by_label("before its first traffic").check()
    desk.confirm("Start the rollout")
    desk.page.get_by_role("article", name="Rollout 2").wait_for()
    rollout = desk.installation.platform.rollouts.get(TENANT, 2)
    assert (rollout.candidate, rollout.plan["steps"], rollout.plan["where"], rollout.plan["approve"]) == (
        2, [0.05, 0.2], "header.x_country == 'CH'", ["start"],
    )  # fmt: skip


def test_the_list_shows_what_moves(desk: Desk) -> None:
    rollout = desk.start()
    desk.look("#/rollouts")
    table = desk.page.get_by_role("region", name="Table of rollouts")
    table.get_by_role("link", name=str(rollout.id), exact=True).wait_for()
    assert table.locator("tbody tr").count() == 1
    desk.page.get_by_role("radio", name="All").check(force=True)  # its label lies over it
    table.locator("tbody tr").nth(1).wait_for()


def test_two_versions_compared(desk: Desk) -> None:
    desk.look(f"#/models/{MODEL}")
    desk.page.get_by_label("Compare v1").check()
    desk.page.get_by_label("Compare v2").check()
    difference = desk.page.get_by_role("region", name="Difference")
    difference.get_by_role("row", name="auc").get_by_text("worse").first.wait_for()
    assert desk.page.url.endswith(f"#/models/{MODEL}/1/2")
    history = desk.page.get_by_role("region", name="Alias history")
    history.get_by_text("champion").wait_for()


def test_a_key_that_may_only_read(desk: Desk) -> None:
    rollout = desk.start()
    key = desk.installation.platform.keys.create("eve", role="viewer")
    desk.look(f"#/rollouts/{rollout.id}")
    desk.page.reload()
    desk.page.get_by_label("Key").fill(key)
    desk.press("Open")
    desk.press("Abort")
    desk.confirm("Abort")
    desk.page.get_by_role("dialog").get_by_text("eve has the role 'viewer', which may not operate").wait_for()
    assert desk.installation.platform.rollouts.get(TENANT, rollout.id).wish == ""


def test_nothing_there(desk: Desk) -> None:
    desk.look("#/rollouts/99")
    desk.page.get_by_text("There is no rollout 99").wait_for()
    desk.look("#/models/nothing")
    desk.page.get_by_text("No such model").wait_for()
    desk.look(f"#/endpoint-{ENDPOINT}")
    desk.page.get_by_role("heading", name=ENDPOINT).wait_for()
