"""Learned models in a version: what they judge and name, when they are used, and what is said of them."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predis.app.predictor_training import PlatformTrainings, train
from predis.cache.predictor import learned, training
from predis.cache.predictor.learned import (
    AtPrice,
    Followers,
    Past,
    Played,
    adds,
    by_boosting,
    by_lstm,
    improved_by,
)
from predis.cache.predictor.recorded import gather
from predis.cache.simulator.setup import Delay, Setup
from predis.cache.simulator.trace import Trace
from predis.errors import MissingExtra
from predis.retraining.training import TrainJob

PATTERNS = [("banner:{i}", "default"), ("ad:{i}", "default")]
Reads = list[tuple[int, int, str]]  # microseconds, client, key


def banners(visits: int, *, shares: tuple[float, ...], of: int = 200) -> Reads:
    """Banners, each followed 15 ms later by the first, the second ... of its ads with these shares, or by none."""
    chance = random.Random(3)
    reads: Reads = []
    for visit in range(visits):
        us, client = 1_700_000_000_000_000 + visit * 40_000, chance.randrange(20)
        banner = chance.randrange(of)
        reads.append((us, client, f"banner:{banner}"))
        ad = chance.choices(range(len(shares) + 1), [*shares, 1.0 - sum(shares)])[0]
        if ad < len(shares):
            reads.append((us + 15_000, client, f"ad:{banner}{ad}"))
    return reads


def table_of(reads: Reads, folder: Path, *, models: tuple[str, ...]) -> pa.Table:
    when, clients, keys = zip(*reads, strict=True)
    table = pa.table({
        "key": pa.array(keys, pa.large_string()), "ts": pa.array(when, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        "client": pa.array(clients, pa.int64()), "whole": pa.array([True] * len(reads)),
    })  # fmt: skip
    pq.write_table(table, folder / "accesses-1.parquet")
    return gather(folder, PATTERNS, delay_s=0.005, models=models)


def past_of(reads: Reads, *, capacity: int) -> Past:
    when, clients, keys = zip(*reads, strict=True)
    seconds = (np.array(when) - when[0]) / 1e6
    trace = Trace(pa.array(keys, pa.large_string()), ts=seconds, clients=np.array(clients))
    setup = Setup(capacity, Delay(seconds=0.005), clients=True, clock=True)
    return Past(trace, setup=setup, template=lambda key: key.partition(b":")[0].decode())


def played(missed: str, *, loads: int) -> Played:
    return Played(np.array([one == "x" for one in missed]), loads)


def often(banner: bytes) -> bytes:
    return b"ad:" + banner.removeprefix(b"banner:") + b"0"


SELDOM = {b"banner:%d" % i: (b"ad:%d1" % i,) for i in range(20)}


@pytest.fixture(scope="module")
def past() -> Past:
    return past_of(banners(4_000, shares=(0.7, 0.25), of=40), capacity=12)


@pytest.fixture(scope="module")
def judged(past: Past) -> AtPrice:
    return by_boosting(past, {**SELDOM, b"nobody's": (b"key",)})


def test_trees_judge_the_pairs_of_the_tables_anew(past: Past, judged: AtPrice) -> None:
    found = judged(0.7)
    assert sum(found[key] == (often(key),) for key in past.keys if key.startswith(b"banner:")) > 30
    assert sum(ad in found[key] for key, (ad,) in SELDOM.items()) < 5, "they do not pay"
    assert found[b"nobody's"] == (b"key",), "of what nobody reads nothing is known"


def test_the_network_adds_keys_that_it_names_itself() -> None:
    past = past_of(banners(2_500, shares=(0.8, 0.1), of=30), capacity=9)
    found = by_lstm(past, {b"banner:7": (b"mine",), b"nobody's": (b"key",)})(0.7)
    assert found.pop(b"nobody's") == (b"key",)
    assert found[b"banner:7"][0] == b"mine"
    right = [then[-1] == often(key) for key, then in found.items()]
    assert sum(right) > 20
    assert sum(right) > 0.9 * len(right)


def test_a_model_adds_where_misses_spared_are_worth_the_loads_and_no_accident() -> None:
    before = played("x" * 20, loads=20)
    assert adds(before, played("." * 9 + "x" * 11, loads=20))
    assert not adds(before, played("." * 3 + "x" * 17, loads=20)), "too few to be sure"
    assert not adds(before, played("." * 9 + "x" * 11, loads=26)), "too dear"
    assert adds(before, played("x" * 20, loads=5)), "as good for less"
    assert not adds(before, played("x" * 20, loads=19)), "hardly less"
    assert not adds(before, before)


def test_where_loads_are_too_many_only_surer_pairs_are_used(
    past: Past, judged: AtPrice, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(learned._BY, "boosting", lambda past, followers: judged)
    shown: list[int] = []

    def play(followers: Followers) -> Played:
        pairs = sum(map(len, followers.values()))
        shown.append(pairs)
        return Played(np.arange(300) >= 2 * pairs, loads=pairs)

    found = improved_by(("boosting",), {}, past=past, play=play, most_loads=40)
    assert shown[0] == 0
    assert shown[1:] == sorted(shown[1:], reverse=True), "at a higher price less pays"
    assert 30 < shown[-1] <= 40 < shown[1]
    assert found.told["boosting"].startswith("used: ")
    assert sum(map(len, found.followers.values())) == shown[-1]
    found = improved_by(("boosting",), {}, past=past, play=play, most_loads=0)
    assert found.told["boosting"].startswith("left out, it loads too much: ")
    assert found.followers == {}


def test_too_few_reads_leave_a_model_out() -> None:
    past = past_of(banners(200, shares=(0.8,)), capacity=40)
    same = played("xx..", loads=2)
    found = improved_by(("boosting", "lstm"), {b"a": (b"b",)}, past=past, play=lambda _: same, most_loads=9)
    assert found.followers == {b"a": (b"b",)}
    assert found.metrics == {"boosting": 0.0, "lstm": 0.0}
    for model in ("boosting", "lstm"):
        assert found.told[model].startswith("left out, not trained: ")
        assert "too few to learn from" in found.told[model]


def test_a_version_is_made_with_what_adds(tmp_path: Path) -> None:
    # With so few keys each is read soon after any other, which the tables take for more than it is.
    trained = training.train(table_of(banners(4_000, shares=(0.95,), of=60), tmp_path, models=("boosting",)))
    assert trained.lineage["models"]["boosting"].startswith("used: misses ")
    metrics = trained.metrics
    assert metrics["boosting"] == 1.0
    assert metrics["loads_to_lru"] < metrics["loads_to_lru_tables_alone"] - 0.05
    assert metrics["miss_ratio"] < metrics["miss_ratio_tables_alone"] + 0.02


def test_a_version_is_made_of_tables_alone_where_a_model_adds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "_SHOWN", 10_000)
    trained = training.train(table_of(banners(2_000, shares=(0.95,)), tmp_path, models=("lstm",)))
    metrics = trained.metrics
    assert metrics["miss_ratio"] == metrics["miss_ratio_tables_alone"]
    assert metrics["loads_to_lru"] == metrics["loads_to_lru_tables_alone"]
    assert metrics["lstm"] == 0.0
    assert trained.lineage["models"]["lstm"].startswith("left out, it adds nothing: ")
    assert "boosting" not in metrics


def test_without_models_nothing_is_said_of_them(tmp_path: Path) -> None:
    trained = training.train(table_of(banners(1_500, shares=(0.95,)), tmp_path, models=()))
    assert trained.lineage["models"] == {}
    assert not any("alone" in name for name in trained.metrics)


@pytest.mark.parametrize(
    ("model", "package", "extra"),
    [("boosting", "lightgbm", "lightgbm"), ("lstm", "torch", "torch"), ("lstm", "onnxruntime", "onnx")],
)
def test_a_missing_package_is_told_before_a_run_and_by_one(
    model: str, package: str, extra: str, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    nothing_begins: Any = None
    with pytest.raises(MissingExtra, match=rf"{model}, which needs .*{package}.*predis\[{extra}\]"):
        PlatformTrainings(nothing_begins, models=(model,)).begin(trigger="manual", champion=0, actor="me")
    table = table_of(banners(1_500, shares=(0.8,)), tmp_path, models=(model,))
    with pytest.raises(MissingExtra, match=package):
        train(TrainJob(table, "", tmp_path))
