"""A version from recorded reads: what it knows, what is reported of it, what cannot be trained on."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predis.cache.predictor.recorded import brief, gather
from predis.cache.predictor.tables import Tables
from predis.cache.predictor.training import Trained, train
from predis.errors import InvalidInput

PATTERNS = [
    ("session:{u}", "default"),
    ("prefs:{u}", "default"),
    ("banner:{i}", "default"),
    ("ad:{i}", "default"),
]


def record(folder: Path, *, visits: int = 3_000, whole: bool = True, seed: int = 5) -> None:
    """Sessions with their preferences, and four hundred banners, each with an ad of its own; keys that no source has; values are never seen."""
    chance = random.Random(seed)
    ads = [(f"banner:{i}", f"ad:{chance.randrange(10**6)}") for i in range(400)]
    rows: list[tuple[int, int, str]] = []
    us = 1_700_000_000_000_000
    for _ in range(visits):
        us += 40_000
        client, user = chance.randrange(20), chance.randrange(10**7)
        rows += [
            (us, client, f"session:{user}"),
            (us + 15_000, client, f"prefs:{user}"),
            (us, 99, f"lock:{user}"),
        ]
        banner, ad = chance.choice(ads)
        rows += [(us + 20_000, client, banner), (us + 35_000, client, ad)]
    rows.sort()
    when, clients, keys = zip(*rows, strict=True)
    table = pa.table({
        "key": pa.array(keys, pa.large_string()), "ts": pa.array(when, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        "client": pa.array(clients, pa.int64()), "whole": pa.array([whole] * len(rows)),
    })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"accesses-{seed}.parquet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("recorded")
    record(folder)
    return train(gather(folder, PATTERNS, delay_s=0.005))


def test_it_knows_rules_and_single_keys(trained: Trained) -> None:
    assert [str(one.rule) for one in trained.tables.rules] == ["session:{a} -> prefs:{a}"]
    assert len(trained.tables.followers) > 20
    assert not any(key.startswith(b"session:") for key in trained.tables.followers), "what rules say"
    assert Tables.load(trained.tables.dump(), digest=trained.tables.digest()) == trained.tables


def test_the_report_is_of_reads_it_has_not_seen(trained: Trained) -> None:
    metrics = trained.metrics
    assert metrics["miss_ratio"] < 0.75 * metrics["lru_miss_ratio"]
    assert metrics["precision"] > 0.95
    assert metrics["on_time"] > 0.95
    assert metrics["loads_to_lru"] < 1.02
    assert metrics["rules"] == 1.0


def test_the_lineage_says_where_it_comes_from(trained: Trained) -> None:
    lineage = trained.lineage
    assert (lineage["reads"], lineage["learnt_from"]) == (12_000, 9_000)
    assert lineage["sources"] == sorted(text for text, _ in PATTERNS)
    assert set(lineage["kinds"]) == {"session:{}", "prefs:{}", "banner:{}", "ad:{}"}
    assert lineage["from"] < lineage["to"]


def test_the_newest_reads_are_taken(tmp_path: Path) -> None:
    record(tmp_path, visits=1_000, seed=1)
    table = gather(tmp_path, PATTERNS, delay_s=0.0, most=3_000)
    assert table.num_rows == 3_000
    assert brief(table).patterns == tuple(PATTERNS)
    assert brief(table).delay_s > 0, "no load takes no time"


def test_too_few_reads_cannot_be_trained_on(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="0 reads are recorded"):
        gather(tmp_path, PATTERNS, delay_s=0.005)
    record(tmp_path, whole=False)
    with pytest.raises(InvalidInput, match="0 reads are recorded"):
        gather(tmp_path, PATTERNS, delay_s=0.005)
    record(tmp_path)
    with pytest.raises(InvalidInput, match="of keys that a source has"):
        train(gather(tmp_path, [("user:{id}", "default")], delay_s=0.005))


def test_a_table_of_something_else_is_refused() -> None:
    with pytest.raises(InvalidInput, match="of which sources"):
        train(pa.table({"key": ["a"]}))
