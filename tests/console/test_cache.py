"""The cache's page in Chromium: with figures, and with none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from predis.clock import ManualClock
from predis.metrics import Metrics
from predis.state import Database
from tests import toys
from tests.cache.told import tell
from tests.console.browser import needs_chromium, opened, served
from tests.toys import Installation

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.parametrize("database", ["sqlite"], indirect=True),
]

PANELS = ["what-if", "hit-rate", "hot-keys", "sources", "prefixes", "big-keys"]


@pytest.fixture
def installation(database: Database, home: object, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock) as made:
        yield made


@pytest.mark.parametrize("width", [390, 1280])
def test_every_panel_is_there_and_nothing_is_wider_than_the_page(
    installation: Installation, width: int
) -> None:
    settings = installation.platform.settings
    tell(settings.home)
    metrics = Metrics(settings.metrics_folder, "cache-0")
    labels = {"tenant": "default", "source": "users"}
    metrics.counter("predis_source_reads_total", **labels, found="hit").add(90)
    metrics.counter("predis_source_reads_total", **labels, found="miss").add(10)
    metrics.histogram("predis_source_call_seconds", **labels).observe([0.005])
    with (
        served(installation) as root,
        opened(viewport={"width": width, "height": 900}) as (page, problems),
    ):
        page.goto(f"{root}/#/cache")
        page.get_by_text("every read is looked at").wait_for()
        for name in PANELS:
            assert page.locator(f".panel.{name}").is_visible()
        assert page.locator(".panel.what-if path.course").count() == 4
        assert "users" in page.locator(".panel.sources table").inner_text()
        assert "91" in page.locator(".figures").inner_text()
        page.locator(".panel.what-if .plot").focus()
        page.keyboard.press("Home")
        page.get_by_text("0.25× the memory").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not problems
    metrics.close()


def test_an_empty_page_says_what_to_do(installation: Installation) -> None:
    with served(installation) as root, opened() as (page, problems):
        page.goto(f"{root}/#/cache")
        page.get_by_text("Nothing is known of the cache yet").wait_for()
        assert page.get_by_text("redis-cli -p 6380").is_visible()
        assert not problems


def test_few_reads_make_no_curve(installation: Installation) -> None:
    tell(installation.platform.settings.home, reads=50)
    with served(installation) as root, opened() as (page, problems):
        page.goto(f"{root}/#/cache")
        page.get_by_text("reads sampled so far").wait_for()
        assert not problems
