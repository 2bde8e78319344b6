from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import pytest

from predis.registry.model import File, Version
from predis.registry.signature import Field, Signature
from predis.serving.route import Route, Segment
from predis.serving.snapshot import Remembered, Snapshot
from predis.serving.store import Endpoint

SIGNATURE = Signature(
    (Field("n", "FP64", nullable=True), Field("k", "BYTES", levels=("a", "é"))),
    (Field("p", "FP32", (-1, 2)),),
    "p",
)
VERSION = Version(
    "default",
    "m",
    3,
    "onnx",
    "d" * 64,
    (File("model.onnx", "e" * 64, 7),),
    SIGNATURE,
    {"auc": 0.75},
    {"by": ["x"]},
    11,
    "ada",
)
ENDPOINT = Endpoint("default", "e", "m", 4, {"a": [None, 1.5]}, 12)
# Its order is not that of the numbers, and means something.
ROUTE = Route(
    "e",
    4,
    {3: 0.75, 2: 0.25, 1: 0.0},
    segments=(Segment("key == 'é'", {2: 1.0}),),
    shadows={4: 0.5},
    salt="s",
)
ITEMS = [
    Remembered(ENDPOINT, ROUTE, (VERSION,)),
    Remembered(Endpoint("other", "empty", "m", 0, {}, 0), Route("empty", 0, {}), ()),
]
KEYS = {"f" * 64: ["default", "ada", "client"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "not-made-yet" / "routes.json"


def test_comes_back_as_it_was(path: Path) -> None:
    Snapshot(path).save(ITEMS, KEYS)
    remembered, keys = Snapshot(path).load()
    assert (remembered, keys) == (ITEMS, KEYS)
    assert list(remembered[0].route.weights) == [3, 2, 1]


def test_leaves_the_profile_out(path: Path) -> None:
    """It may be large, and serving does not use it."""
    with_profile = Version(**{**vars(VERSION), "profile": {"bins": [1] * 1000}})
    Snapshot(path).save([Remembered(ENDPOINT, ROUTE, (with_profile,))], {})
    assert Snapshot(path).load()[0] == ITEMS[:1]


def test_replaces_what_was_there_and_leaves_nothing_lying_about(path: Path) -> None:
    Snapshot(path).save(ITEMS, KEYS)
    Snapshot(path).save([], {})
    assert Snapshot(path).load() == ([], {})
    assert [p.name for p in path.parent.iterdir()] == ["routes.json"]


def test_only_its_owner_may_read_it(path: Path) -> None:
    Snapshot(path).save(ITEMS, KEYS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_file_is_nothing_and_no_matter(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Snapshot(path).load() == ([], None)
    assert caplog.records == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b'{"endpoints": []}',
        b'{"endpoints": [{}], "keys": {}}',
        b'{"endpoints": [7], "keys": {}}',
        b'{"endpoints": {"a": 1}, "keys": {}}',
        b"\xff\xfe",
    ],
)
def test_a_file_that_is_not_whole_is_nothing(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert Snapshot(path).load() == ([], None)
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(
    "change", ["weights", "versions", "endpoint", "number", "segments", "shadows", "salt"]
)
def test_so_is_one_of_another_release(path: Path, change: str, caplog: pytest.LogCaptureFixture) -> None:
    Snapshot(path).save(ITEMS, KEYS)
    document = json.loads(path.read_text())
    document["endpoints"][0][change] = [{"a": 1}]
    if change == "number":
        del document["endpoints"][0]["number"]
    path.write_text(json.dumps(document))
    assert Snapshot(path).load() == ([], None)


def test_a_disk_that_takes_nothing_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        Snapshot(path).save(ITEMS, KEYS)
    assert "could not be kept" in caplog.text
