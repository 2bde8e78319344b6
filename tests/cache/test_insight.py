from __future__ import annotations

from pathlib import Path

import pytest

from predis.cache.insight import Insight, scale_of
from predis.errors import InvalidInput, NotReady
from predis.metrics import Metrics
from tests.cache.told import tell


@pytest.fixture
def insight(tmp_path: Path) -> Insight:
    return Insight(tmp_path / "cache", tmp_path / "metrics")


def test_before_anything_is_known(insight: Insight) -> None:
    shown = insight.shown()
    assert (shown["at"], shown["stale"], shown["sources"]) == (None, True, [])
    with pytest.raises(NotReady, match="0 reads were sampled"):
        insight.what_if()


def test_answers_in_words(insight: Insight, tmp_path: Path) -> None:
    tell(tmp_path)
    answer = insight.what_if("2x", "lru")
    assert answer["words"].startswith("With twice the memory, ")
    assert "fewer misses" in answer["words"]
    assert answer["hit_rate_then"] > answer["hit_rate_now"]
    assert insight.what_if("128MiB")["scale"] == 2.0
    fewer = insight.what_if("0.25x", "S3FIFO")
    assert (fewer["policy"], "a quarter of the memory and S3-FIFO" in fewer["words"]) == ("s3-fifo", True)
    assert "more misses" in fewer["words"]
    assert "about as many" in insight.what_if("1x")["words"]


@pytest.mark.parametrize(
    ("memory", "policy", "said"),
    [
        ("2y", "lru", "a multiple such as 2x"), ("", "lru", "a multiple"), ("-1x", "lru", "a multiple"), ("1.2.3x", "lru", "a multiple"),
        ("100x", "lru", "curves reach from 0.25x to 4x"), ("1KB", "lru", "curves reach"), ("2x", "belady", "no curve of policy"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered(
    insight: Insight, tmp_path: Path, *, memory: str, policy: str, said: str
) -> None:
    tell(tmp_path, reads=1_000)
    with pytest.raises(InvalidInput, match=said):
        insight.what_if(memory, policy)


def test_sizes_and_multiples() -> None:
    assert scale_of("1.5x", 10) == 1.5
    assert scale_of("1 GiB", 1 << 29) == 2.0
    assert scale_of("500", 1_000) == 0.5


def test_a_tenant_sees_its_own_keys(insight: Insight, tmp_path: Path) -> None:
    tell(tmp_path)
    assert {row["prefix"] for row in insight.shown()["prefixes"]} == {"user", "page"}
    shown = insight.shown("page")
    assert {row["prefix"] for row in shown["prefixes"]} == {"page"}
    for kind in ("hot_keys", "big_keys"):
        assert shown[kind]
        assert all(row["key"].startswith("page:") for row in shown[kind])


def test_sources_and_latency_come_from_the_metrics(insight: Insight, tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics", "cache-0")
    labels = {"tenant": "default", "source": "users"}
    for found, count in (("hit", 6), ("stale", 1), ("none", 1), ("miss", 2)):
        metrics.counter("predis_source_reads_total", **labels, found=found).add(count)
    metrics.histogram("predis_source_call_seconds", **labels).observe([0.004] * 99 + [0.9])
    metrics.histogram("predis_gateway_added_seconds").observe([9e-6])
    shown = insight.shown()
    (row,) = shown["sources"]
    assert (row["source"], row["reads"], row["hit_rate"]) == ("users", 10, 0.8)
    assert 2 < row["latency_ms"]["p50"] <= 5
    assert row["latency_ms"]["p99"] <= 5
    assert shown["gateway"]["added_ms"]["p50"] < 0.01
    assert shown["gateway"]["upstream_ms"] is None
    assert insight.shown("other")["sources"] == []
    metrics.close()
