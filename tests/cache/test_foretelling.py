"""A worker's prefetching at work: tables taken on, what it is worth told and added up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from predis.cache.foretelling import FOLDER, Foretelling, SupplyShelves, learned, merged, statuses
from predis.cache.predictor.arms import Named
from predis.cache.predictor.gain import Watched
from predis.cache.predictor.published import publish
from predis.cache.predictor.standing import Standing, establish
from predis.cache.predictor.tables import Tables
from predis.cache.predictor.templates import Learned, Rule, Slot
from predis.cache.sources.source import Source
from predis.clock import ManualClock

SESSIONS = Source.of("sessions", {"pattern": "session:{u}", "kind": "python", "function": "a:b"})
RULE = Rule("session:{}", "prefs:{}", (Slot("copy"),))
TABLES = Tables(rules=(Learned(RULE, 0.9, 0.8, 120.0, 25_000.0),))
NAME = "session:{a} -> prefs:{a}"


class Shelves:
    def __init__(self) -> None:
        self.loaded: list[bytes] = []

    def match(self, key: bytes) -> Source:
        return SESSIONS

    def has_room(self, source: Source) -> bool:
        return True

    async def load(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        self.loaded += keys
        return [b"v" for _ in keys]

    async def present(self, keys: Sequence[bytes]) -> Sequence[bool]:
        return [False for _ in keys]


def _worker(folder: Path, name: str = "0", shelves: Shelves | None = None, **given: Any) -> Foretelling:
    given = {"clock": ManualClock(), "hold_back": 0.0, **given}
    return Foretelling(folder, name, shelves=cast(SupplyShelves, shelves or Shelves()), **given)


def test_a_worker_prefetches_by_what_is_published_and_tells_its_gain(tmp_path: Path) -> None:
    async def run() -> None:
        shelves = Shelves()
        worker = _worker(tmp_path, shelves=shelves)
        worker.prefetcher.read(b"session:7", SESSIONS, hit=False)
        await worker.prefetcher.settled()
        assert shelves.loaded == [], "nothing is published yet"
        digest = publish(tmp_path / FOLDER, TABLES, number=4)
        assert worker.look()
        assert not worker.look()
        worker.prefetcher.read(b"session:7", SESSIONS, hit=False)
        await worker.prefetcher.settled()
        assert shelves.loaded == [b"prefs:7"]
        worker.prefetcher.read(b"prefs:7", SESSIONS, hit=True)
        worker.tell()
        worth = merged(tmp_path)
        assert worth.predictor == {"digest": digest, "number": 4}
        (one,) = worth.rules
        assert (one.rule, one.on, one.tally.used) == (NAME, True, 1)
        assert worth.to_dict()["total"]["precision"] == 1.0
        assert worth.to_dict()["total"]["gain"] is None, "nobody was held back"
        await worker.close()

    asyncio.run(run())


def test_the_tallies_of_all_workers_are_added_up(tmp_path: Path) -> None:
    for name in ("0", "1"):
        worker = _worker(tmp_path, name, hold_back=0.1)
        for i in range(40):
            held = i % 4 == 0
            worker.prefetcher.judge.settle(
                Watched(NAME, "held" if held else "given", 0.0), "miss" if held else "hit", now=0.0
            )
        worker.tell()
    worth = merged(tmp_path)
    (one,) = worth.rules
    assert (worth.workers, worth.hold_back) == (2, 0.1)
    assert (one.tally.given, one.tally.held, one.tally.missed) == (60, 20, 20)
    assert one.tally.gain == 1.0
    assert 0.0 < one.low <= 1.0 <= one.high


def test_workers_that_are_gone_and_files_that_are_none_are_left_out(tmp_path: Path) -> None:
    worker = _worker(tmp_path)
    worker.tell()
    told = tmp_path / FOLDER / "status-0.json"
    document = json.loads(told.read_text())
    told.write_text(json.dumps({**document, "at": document["at"] - 60.0}))
    (tmp_path / FOLDER / "status-1.json").write_text("{")
    assert merged(tmp_path).workers == 0
    assert merged(tmp_path / "nowhere").rules == ()


def test_a_rule_that_was_switched_off_is_shown_with_what_it_was_judged_by(tmp_path: Path) -> None:
    worker = _worker(tmp_path)
    judge = worker.prefetcher.judge
    while judge.is_on(NAME, 0.0):
        judge.settle(Watched(NAME, "given", 0.0), "unread", now=0.0)
    worker.tell()
    (one,) = merged(tmp_path).rules
    assert not one.on
    assert one.tally.given == judge.least


def _establish(
    folder: Path, champion: Tables, candidate: Tables | None = None, *, share: float = 0.5
) -> None:
    tables = {one.digest(): one.dump() for one in (champion, candidate) if one is not None}
    digest = candidate.digest() if candidate else ""
    establish(
        folder / FOLDER,
        Standing(3, champion.digest(), 4 if candidate else 0, digest, share),
        artifacts=tables,
    )


def test_champion_and_candidate_are_counted_apart(tmp_path: Path) -> None:
    async def run() -> None:
        shelves = Shelves()
        worker = _worker(tmp_path, shelves=shelves)
        _establish(tmp_path, TABLES, TABLES)
        assert worker.look()
        for user in range(100):
            worker.prefetcher.read(b"session:%d" % user, SESSIONS, hit=False)
            await worker.prefetcher.settled()
            worker.prefetcher.read(b"prefs:%d" % user, SESSIONS, hit=True)
        worker.tell()
        counted = statuses(tmp_path)["0"]["versions"]
        assert counted["3"]["used"] + counted["4"]["used"] == len(shelves.loaded)
        assert min(counted["3"]["used"], counted["4"]["used"]) > 10
        assert {one.version for one in merged(tmp_path).rules} == {3, 4}
        _establish(tmp_path, TABLES)
        assert worker.look()
        worker.tell()
        assert {one.version for one in merged(tmp_path).rules} == {3}
        assert statuses(tmp_path)["0"]["versions"] == counted, "what versions were worth is not forgotten"
        await worker.close()

    asyncio.run(run())


def test_a_version_that_fails_its_digest_is_gone_on_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        shelves = Shelves()
        worker = _worker(tmp_path, shelves=shelves)
        publish(tmp_path / FOLDER, Tables(followers={b"session:1": (b"cart:1",)}), number=1)
        _establish(tmp_path, TABLES)
        (file,) = (tmp_path / FOLDER).glob("version-*")
        file.write_bytes(b"rubbish")
        assert worker.look()
        assert "left out" in caplog.text
        worker.prefetcher.read(b"session:1", SESSIONS, hit=False)
        await worker.prefetcher.settled()
        assert shelves.loaded == [b"cart:1"], "by the learner's tables alone"
        assert learned(tmp_path) == []
        await worker.close()

    asyncio.run(run())


def test_what_was_learnt_is_read_from_the_tables(tmp_path: Path) -> None:
    assert learned(tmp_path) == []
    publish(tmp_path / FOLDER, TABLES, number=1)
    assert learned(tmp_path) == [
        {"rule": NAME, "confidence": 0.9, "on_time": 0.8, "support": 120, "lead_s": 0.025}
    ]


def test_a_worker_follows_and_tells_while_it_runs(tmp_path: Path) -> None:
    async def run() -> None:
        worker = _worker(tmp_path)
        publish(tmp_path / FOLDER, TABLES, number=1)
        task = asyncio.create_task(worker.run())
        while not (tmp_path / FOLDER / "status-0.json").exists():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(worker.prefetcher.foresight.after(b"session:1", SESSIONS, value=None)) == [
            (Named(0, NAME), b"prefs:1")
        ]

    asyncio.run(run())
