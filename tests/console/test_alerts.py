"""People take care of alerts on the console: Chromium presses the buttons, the looks are the test's own calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predis.clock import ManualClock
from predis.monitoring.alerting.book import AlertRoute
from predis.monitoring.alerts import Severity
from predis.state import Database
from predis.state.records import Status
from tests import toys
from tests.console.browser import needs_chromium, opened, served
from tests.monitoring.alerting.receivers import Receiver
from tests.monitoring.alerting.worlds import finding
from tests.toys import ENDPOINT, TENANT, Installation, record

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.parametrize("database", ["sqlite"], indirect=True),
]


class Watch:
    """Somebody at the page of alerts of an installation."""

    def __init__(self, installation: Installation, page: Any, *, root: str, hook: Receiver) -> None:
        self.installation = installation
        self.platform = installation.platform
        self.page = page
        self.root = root
        self.hook = hook

    def open(self) -> None:
        self.page.goto(f"{self.root}/#/alerts")
        self.page.get_by_role("heading", name="Alerts", exact=True).wait_for()

    def report(self, *found: Any, times: int = 1) -> None:
        for _ in range(times):
            self.installation.clock.advance(1)
            self.platform.alerts.report(TENANT, ENDPOINT, findings=list(found))
        for _ in range(2):  # of one incident, one notice after the other
            self.platform.desk.look()
            self.platform.desk.deliverer.finish()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def confirm(self, name: str) -> None:
        self.page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()
        self.page.get_by_role("dialog").wait_for(state="detached")

    def see(self, text: str) -> Any:
        found = self.page.get_by_text(text).first
        found.wait_for()
        return found

    def audited(self, action: str) -> dict[str, Any]:
        entries = self.platform.audit.entries(TENANT, limit=50)
        return next(entry for entry in entries if entry["action"] == action)


@pytest.fixture
def watch(database: Database, home: Path, clock: ManualClock) -> Iterator[Watch]:
    with toys.installed(database, home, clock) as installation, Receiver() as hook:
        installation.register("x", data=False)
        installation.create_endpoint(objectives={"availability": 0.99})
        installation.deploy(1)
        secrets = installation.settings.secrets_folder
        secrets.mkdir()
        (secrets / "hook").write_text("5ecret")
        config = {"url": hook.url, "secret": "file:hook"}
        route = AlertRoute(name="ops", channel="webhook", config=config)
        installation.platform.desk.book.add(TENANT, route, actor="ada")
        with served(installation) as root, opened() as (page, problems):
            yield Watch(installation, page, root=root, hook=hook)
            assert not problems


def test_an_incident_from_its_beginning_to_its_end(watch: Watch) -> None:
    watch.open()
    watch.see("No open alert")
    watch.see("No alert has been resolved yet")
    watch.report(finding(), finding(version=2), times=3)
    watch.see("2 critical alerts")
    incidents = watch.page.get_by_role("list", name="Open incidents").locator("> li")
    assert incidents.count() == 1  # two alerts, one incident
    watch.see("which segment lost most")
    watch.see("seen 3 times")
    watch.see("Told: ops (raised, sent)")

    watch.press(f"Acknowledge performance of {ENDPOINT}")
    watch.page.get_by_label("What you are doing").fill("rolling back")
    watch.confirm("Acknowledge")
    watch.see("local takes care")
    assert watch.audited("alert.acknowledge")["detail"]["note"] == "rolling back"
    assert watch.platform.alerts.listed(TENANT)[0]["note"] == "rolling back"

    watch.report(times=3)
    watch.see("local took care")
    watch.see("[RESOLVED]")
    assert [request.json["event"] for request in watch.hook.requests] == [
        "raised",
        "acknowledged",
        "resolved",
    ]


def test_a_silence_with_duration_and_reason(watch: Watch) -> None:
    watch.report(finding(severity=Severity.EMERGENCY))
    watch.open()
    watch.press(f"Silence performance of {ENDPOINT}")
    dialog = watch.page.get_by_role("dialog")
    assert dialog.get_by_label("Emergencies, too").is_checked()
    dialog.get_by_label("For", exact=True).select_option("7200")
    dialog.get_by_label("Reason").fill("load test")
    watch.confirm("Silence")
    watch.see(f"performance of {ENDPOINT}, up to emergency")
    watch.see("silenced")
    (silence,) = watch.platform.desk.silences.listed(TENANT)
    assert (silence["reason"], silence["created_by"]) == ("load test", "local")
    assert watch.audited("silence.add")["detail"]["ends_at"] - watch.installation.clock.time_ns() > 7_100e9

    watch.press(f"End silence {silence['id']}")
    watch.confirm("End it")
    watch.see("No silence.")
    assert watch.audited("silence.end")["target"] == str(silence["id"])


def test_what_the_outbox_holds_and_a_route_that_does_not_take_it(watch: Watch) -> None:
    watch.hook.answer = lambda _request: 503
    watch.report(finding())
    watch.open()
    watch.see("1 notice not taken yet")
    watch.see("1 waiting")
    watch.see("status 503")
    watch.press("Test ops")
    watch.page.get_by_role("dialog").get_by_role("button", name="Send", exact=True).click()
    watch.see("ops did not take it: status 503")
    watch.hook.answer = lambda _request: 200
    watch.confirm("Send")
    assert watch.audited("alert_route.test")["target"] == "ops"
    watch.installation.clock.advance(10)
    watch.report(finding())
    watch.see("nothing waits")


def test_error_budgets(watch: Watch) -> None:
    installation = watch.installation
    for place in range(100):
        status = Status.FAILED if place < 20 else Status.OK
        installation.journal.append(record(f"p{place}", at=installation.clock.time_ns(), status=status))
    installation.beat()
    installation.digest()
    installation.clock.advance(3)
    watch.open()
    watch.see("20 bad of 100")
    watch.see("of the budget left")
    assert watch.page.locator(".burns .pill.bad").first.inner_text().startswith("20")


def test_who_may_only_read_sees_alerts_and_no_routes(watch: Watch) -> None:
    platform = watch.platform
    watch.report(finding())
    key = platform.keys.create("eve", role="viewer")
    watch.page.goto(f"{watch.root}/#/alerts")
    watch.page.get_by_label("Key").fill(key)
    watch.press("Open")
    watch.see("1 critical alert")
    watch.page.get_by_role("region", name="Routes").get_by_text("may not operate").wait_for()
    watch.press(f"Acknowledge performance of {ENDPOINT}")
    watch.page.get_by_role("dialog").get_by_role("button", name="Acknowledge", exact=True).click()
    watch.page.get_by_role("dialog").get_by_text(
        "eve has the role 'viewer', which may not operate"
    ).wait_for()
    assert platform.alerts.listed(TENANT)[0]["acknowledged_at"] is None
