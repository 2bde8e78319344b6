"""The console in a real browser, on a real installation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import toys
from tests.installation import Installation, running, settings_of, wait_for

pytestmark = pytest.mark.slow
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_console_shows_what_happens(home: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    settings = settings_of(home, label_window_rows=200, window_rows=200)
    with running(settings) as installation, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        try:
            page = browser.new_page()
            problems: list[str] = []
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on(
                "console", lambda message: problems.append(message.text) if message.type == "error" else None
            )
            page.goto(installation.control)
            page.get_by_text("No endpoint yet").wait_for()

            installation.deploy_toy(tmp_path)
            _traffic(installation)
            page.get_by_role("heading", name=toys.ENDPOINT).wait_for()
            page.get_by_text("Performance on matured labels").wait_for()
            page.get_by_text("Drift").first.wait_for()
            page.get_by_text("serving-0").wait_for()
            assert not problems
        finally:
            browser.close()


def _traffic(installation: Installation) -> None:
    """More than one window of labelled predictions."""
    client = installation.client
    rows = toys.table(450, seed=5).to_pylist()
    labels = [row.pop(toys.LABEL) for row in rows]
    answers = [client.predict(toys.ENDPOINT, row) for row in rows]
    client.feedback(
        toys.ENDPOINT,
        [{"id": answer.id, "label": int(label)} for answer, label in zip(answers, labels, strict=True)],
    )
    wait_for(lambda: installation.counted()["versions"][0]["performance"])
