"""The page: whole, alone, and safe from what a server says."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest

from predis.loadtest import Histogram, Load, Point, Result, report


def result(rate: float | None, *, count: int = 5_000, **more: object) -> Result:
    latencies = np.random.default_rng(1).lognormal(-6, 0.5, count)
    points = [Point(second, count // 3, 0, 0.001, 0.01) for second in range(3)]
    load = Load(connections=8, duration_s=3, rate=rate)
    return Result(load, answered=count, latency=Histogram(latencies), points=points, **more)  # type: ignore[arg-type]


def plots(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page)]


def test_a_page_has_figures_and_a_line_per_load() -> None:
    page = report.html(
        "Load test of churn",
        [result(1_000, count=3_000), result(1_600), result(None, count=3_000)],
        about="JSON",
    )
    assert "Load test of churn" in page
    assert "1,000/s" in page
    assert "1,600/s ◆" in page
    percentile, time = plots(page)
    assert [len(plot.findall("path")) for plot in (percentile, time)] == [3, 3]
    assert {"p50", "p99", "p99.9"} <= {text.text for text in percentile.findall("text")}


def test_it_needs_nothing_from_elsewhere() -> None:
    page = report.html("t", [result(1_000)], about="s")
    assert not re.search(r"<script|<link|https?://|url\(|@import", page)


def test_a_percentile_that_too_few_requests_tell_is_not_drawn() -> None:
    assert "p99.9" not in {
        text.text for text in plots(report.html("t", [result(10, count=50)], about="s"))[0].findall("text")
    }


def test_what_a_server_says_is_text() -> None:
    told = result(10, errors=Counter({"HTTP 400": 3}), samples={"HTTP 400": "<script>alert(1)</script>"})
    page = report.html("<b>", [told], about="&")
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<title>&lt;b&gt;</title>" in page


def test_nothing_answered_is_said() -> None:
    page = report.html("t", [Result(Load(connections=1, duration_s=1))], about="s")
    assert "No request was answered." in page
    assert "The test was shorter than a second." in page


def test_doubts_stand_above_the_figures() -> None:
    page = report.html("t", [result(10, waited=5)], about="s")
    assert page.index("5 requests were due while") < page.index("Figures")


@pytest.mark.parametrize("seconds", [1e-9, 0.5, 3, 10_000])
def test_any_latency_can_be_drawn(seconds: float) -> None:
    shown = Result(Load(connections=1, duration_s=1), answered=3, latency=Histogram([seconds] * 3))
    assert plots(report.html("t", [shown], about="s"))
