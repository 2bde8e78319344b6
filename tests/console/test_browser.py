"""The console in a real browser, on a real installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import toys
from tests.console.browser import needs_chromium, opened
from tests.installation import Installation, running, settings_of, wait_for

pytestmark = pytest.mark.slow


@needs_chromium
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_console_shows_what_happens(home: Path, tmp_path: Path) -> None:
    settings = settings_of(home, label_window_rows=200, window_rows=200)
    with running(settings) as installation, opened() as (page, problems):
        page.goto(installation.control)
        page.get_by_text("No endpoint yet").wait_for()

        installation.deploy_toy(tmp_path)
        _traffic(installation)
        page.get_by_role("heading", name=toys.ENDPOINT).wait_for()
        page.get_by_text("Performance on matured labels").wait_for()
        page.get_by_text("Drift").first.wait_for()
        page.get_by_text("serving-0").wait_for()
        assert not problems


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
