"""The cache's page in Chromium: with figures, and with none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from predis.cache.foretelling import FOLDER, Foretelling, SupplyShelves
from predis.cache.predictor.arms import Named
from predis.cache.predictor.gain import Tally, Watched
from predis.cache.predictor.published import publish
from predis.cache.predictor.schedules import Schedule, Schedules, write
from predis.cache.predictor.tables import Tables
from predis.cache.predictor.templates import Learned, Rule, Slot
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

PANELS = [
    "what-if",
    "hit-rate",
    "foretold",
    "schedules",
    "predictor",
    "hot-keys",
    "sources",
    "prefixes",
    "big-keys",
]
WIDTHS = [1280, 390]


@pytest.fixture
def installation(database: Database, home: object, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock) as made:
        yield made


def fits(page: Any) -> bool:
    """Whether nothing is wider than the page."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def text_of(page: Any, where: str) -> str:
    return " ".join(page.locator(where).inner_text().split())


def foretell(home: Path) -> None:
    """What a learner and a worker would have written: four rules, of which one is off and one was never tried, and two schedules."""
    folder = home / "cache" / FOLDER
    rules = [Rule("session:{}", f"{name}:{{}}", (Slot("copy"),)) for name in ("prefs", "cart", "<b>late</b>")]
    publish(
        folder,
        Tables(rules=tuple(Learned(rule, 0.99, 0.97, 104.0, 38_000.0) for rule in rules)),
        number=3,
        about={"reads": 25_200, "rules": 3, "followed": 41, "made_at": time.time() - 9},
    )
    worker = Foretelling(
        home / "cache", "0", shelves=cast(SupplyShelves, None), clock=ManualClock(), hold_back=0.05
    )
    judge = worker.prefetcher.judge
    judge.tallies[Named(0, str(rules[0]))] = Tally(given=3_188, used=3_184, late=4, held=152, missed=152)
    judge.tallies["report:{} every 60 s"] = Tally(given=12, used=12)
    off = Watched(Named(0, str(rules[1])), "given", 0.0)
    for _ in range(50):
        judge.settle(off, "unread", now=0.0)
    worker.prefetcher.dropped["budget"] = 12
    worker.tell()
    now = time.time()
    keys = [b"report:daily", b"report:" + b"long" * 20]
    write(
        folder,
        Schedules(
            now,
            tuple(Schedule(key, "report:{} every 60 s", 60.0, 1.2, now - 18, now - 18, True) for key in keys),
        ),
    )


def test_every_panel_is_there_and_nothing_is_wider_than_the_page(installation: Installation) -> None:
    settings = installation.platform.settings
    tell(settings.home)
    foretell(settings.home)
    metrics = Metrics(settings.metrics_folder, "cache-0")
    labels = {"tenant": "default", "source": "users"}
    metrics.counter("predis_source_reads_total", **labels, found="hit").add(90)
    metrics.counter("predis_source_reads_total", **labels, found="miss").add(10)
    metrics.histogram("predis_source_call_seconds", **labels).observe([0.005])
    with served(installation) as root, opened() as (page, problems):
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(f"{root}/?{width}#/cache")
            page.get_by_text("every read is looked at").wait_for()
            page.get_by_text("No version was trained yet").wait_for()
            for name in PANELS:
                assert page.locator(f".panel.{name}").is_visible()
            assert page.locator(".panel.what-if path.course").count() == 4
            assert "users" in text_of(page, ".panel.sources table")
            assert "91" in text_of(page, ".figures >> nth=0")
            page.locator(".panel.what-if .plot").focus()
            page.keyboard.press("Home")
            page.get_by_text("0.25× the memory").wait_for()
            assert fits(page)
        _check_what_is_foretold(page)
        assert not problems
    metrics.close()


def _check_what_is_foretold(page: Any) -> None:
    rows = [" ".join(row.split()) for row in page.locator(".rules li").all_inner_texts()]
    prefs, scheduled, carts, late = (
        next(row for row in rows if name in row) for name in ("prefs", "report", "cart", "<b>late</b>")
    )
    assert "Right 99 % of the time, 38 ms ahead; early enough 97 % of the time" in prefs
    assert "3.19k keys loaded ahead: 3.18k read in time, 4 too late, 0 not read" in prefs
    assert "1.00 misses spared a key; 152 held back" in prefs
    assert "every 60 s on Keys that come back at a steady period" in scheduled
    assert "12 keys loaded ahead: 12 read in time" in scheduled
    assert "off: does not pay" in carts
    assert "not tried yet" in late
    assert "5 % of the keys held back" in text_of(page, ".panel.foretold")
    assert "12 budget" in text_of(page, ".foretold-figures")
    assert "report:daily 60 s ± 1.2 s in" in text_of(page, ".panel.schedules table")


def test_what_is_not_known_yet_says_what_to_do(installation: Installation) -> None:
    home = installation.platform.settings.home
    with served(installation) as root, opened(viewport={"width": 390, "height": 900}) as (page, problems):
        page.goto(f"{root}/#/cache")
        page.get_by_text("Nothing is known of the cache yet").wait_for()
        assert page.get_by_text("redis-cli -p 6380").is_visible()
        tell(home, reads=50)
        page.get_by_text("reads sampled so far").wait_for()
        page.get_by_text("No rule holds yet").wait_for()
        assert page.get_by_text("No key of a source is read at a steady period").is_visible()
        assert page.get_by_text("no gateway worker tells").is_visible()
        assert fits(page)
        assert not problems


def test_a_tenant_is_told_that_the_predictor_is_not_its_own(installation: Installation) -> None:
    tell(installation.platform.settings.home)
    key = installation.platform.keys.create("acme", role="viewer", tenant="acme")
    with served(installation) as root, opened() as (page, problems):
        page.add_init_script(f"sessionStorage.setItem('predis.api-key', '{key}')")
        page.goto(f"{root}/#/cache")
        page.get_by_text("The predictor is of all tenants").wait_for()
        assert page.locator(".panel.hot-keys").is_visible()
        assert not problems
