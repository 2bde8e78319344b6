"""Reads the journal and keeps the evidence: counters, slots of traffic, drift windows, shadows, predictions that wait for labels.

What is derived from a look's records and the positions after them are committed in one transaction. A crash before the commit
repeats the look, a crash after it does not: every request counts once. Only then are segments deleted.

So that a look costs little, nothing is read from the database that this process wrote there itself: positions and tallies stay in
memory. They are void as soon as a transaction fails, and each transaction first makes sure that nobody else has moved the positions.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from predis.clock import NANOSECONDS
from predis.monitoring.refusals import Refusals
from predis.monitoring.shadows import Shadows, score_count
from predis.monitoring.spans.counting import Spans
from predis.monitoring.spans.segmenting import LevelBook, Segmenter
from predis.monitoring.spans.store import SpanStore
from predis.monitoring.store import MonitoringStore, Row
from predis.monitoring.tally import Tally, by_arm, prediction_rows
from predis.state.engine import Database
from predis.state.journal import Batch, JournalReader, Position, streams
from predis.state.records import Arm, Block, decode_all
from predis.stats import Profile

log = logging.getLogger(__name__)

CONSUMER = "windows:"
_LOOK_BYTES = 2 << 20  # of one transaction: others wait for its end
_TALLIES_IN_MIND = 1_000
Target = tuple[str, str, int]


class ProfileOf(Protocol):
    """Finds the reference profile of a version."""

    def __call__(self, tenant: str, endpoint: str, *, number: int) -> Profile | None: ...


class SegmenterOf(Protocol):
    """Finds how a version's rows are told apart; None where they are not."""

    def __call__(self, tenant: str, endpoint: str, *, number: int) -> Segmenter | None: ...


@dataclass
class _Known:
    """What the database has, as far as this process put it there."""

    positions: dict[str, Position]
    tallies: dict[Target, Tally] = field(default_factory=dict)
    spans: dict[Target, Spans] = field(default_factory=dict)
    books: dict[tuple[str, str], LevelBook] = field(default_factory=dict)


class Ingest:
    """One look at a time: ``look`` reads what is new in every stream.

    Args:
        profile: (tenant, endpoint, version) to its reference profile, or None.
        window_rows: predictions in one drift window.
        span_s: length of a window by time.
        segmenter: the same to what tells its rows apart.
    """

    def __init__(
        self,
        database: Database,
        journal: Path,
        *,
        profile: ProfileOf,
        window_rows: int,
        span_s: float = 3_600.0,
        segmenter: SegmenterOf | None = None,
    ) -> None:
        self._database = database
        self._journal = journal
        self._store = MonitoringStore(database)
        self._span_store = SpanStore(database)
        self._span = round(span_s * NANOSECONDS)
        self._segmenter = segmenter
        self._shadows = Shadows(self._store)
        self._profile = profile
        self._window_rows = window_rows
        self.refusals = Refusals()
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._behind = False

    def look(self) -> int:
        """Requests taken in: what is new, up to some megabytes. Whoever comes while another looks waits: a record is taken once."""
        with self._lock:
            taken = None
            while taken is None:
                taken = self._look()
            return taken

    def catch_up(self) -> int:
        """Look until there was nothing more; requests taken in. What has come meanwhile is left for the next, larger look."""
        total = self.look()
        while self._behind:
            total += self.look()
        return total

    def _look(self) -> int | None:
        """One look; None where another process moved the positions meanwhile, so that nothing was taken."""
        known = self._known or _Known(self._positions())
        batches = self._read(known.positions)
        self._behind = any(batch.more for batch in batches.values())
        self._known = None if batches else known
        if not batches:
            return 0
        with self._database.write() as connection:
            self._store.take_turn(connection)
            if self._store.positions(connection, CONSUMER) != known.positions:
                return None
            self._take(connection, known, batches=batches)
        known.positions |= {stream: batch.position for stream, batch in batches.items()}
        if len(known.tallies) > _TALLIES_IN_MIND:
            known.tallies.clear()
            known.spans.clear()
            known.books.clear()
        self._known = known
        return sum(sum(batch.counts) for batch in batches.values())

    def _positions(self) -> dict[str, Position]:
        with self._database.read() as connection:
            return self._store.positions(connection, CONSUMER)

    def _read(self, positions: Mapping[str, Position]) -> dict[str, Batch]:
        """What is new in each stream that has something new."""
        names = streams(self._journal)
        found = {}
        for stream in names:
            before = positions.get(stream, Position())
            batch = JournalReader(self._journal / stream).read(before, max_bytes=_LOOK_BYTES // len(names))
            if batch.position != before:
                found[stream] = batch
        return found

    def _take(self, connection: Any, known: _Known, *, batches: Mapping[str, Batch]) -> None:
        blocks, unreadable = decode_all([p for batch in batches.values() for p in batch.payloads])
        tallies: dict[Target, Tally] = {}
        copies: list[tuple[Tally, list[Row]]] = []
        # By version, as feedback does: two transactions that want the same rows do not wait for each other in a ring.
        for block in sorted(blocks, key=_target):
            target = _target(block)
            self.refusals.note(block)
            if target not in known.tallies:
                known.tallies[target] = self._recall(connection, target)
            tallies[target] = known.tallies[target]
            for part in by_arm(block):
                if part.arms[0] == Arm.SHADOW:
                    copies.append(
                        (tallies[target], self._count_copies(connection, part, tally=tallies[target]))
                    )
                else:
                    cells = self._count_spans(connection, part, known=known)
                    self._count(connection, part, tally=tallies[target], cells=cells)
        self._save(connection, list(tallies.values()))
        self._save_spans(connection, known, targets=tallies)
        for tally, new in copies:
            self._shadows.meet_labels(connection, tally.key, copies=new)
        lost = _requests_in(batches, unreadable)
        for stream, batch in batches.items():
            damaged = batch.damaged + lost[stream]
            if batch.dropped or damaged:
                log.warning("%s: %d requests were dropped, %d damaged", stream, batch.dropped, damaged)
            self._store.move(
                connection, CONSUMER + stream, position=batch.position, dropped=batch.dropped, damaged=damaged
            )

    def _recall(self, connection: Any, target: Target) -> Tally:
        """A version's tally as the database has it."""
        key: dict[str, Any] = dict(zip(("tenant", "endpoint", "version"), target, strict=True))
        store = self._store
        return Tally(
            key, counters=store.counters(connection, key), window=store.open_window(connection, key),
            differences=store.differences(connection, key),
        )  # fmt: skip

    def _count_spans(self, connection: Any, block: Block, *, known: _Known) -> NDArray[np.uint16]:
        """Count a block in its windows by time; the numbers of its rows' levels."""
        target = _target(block)
        tenant, endpoint, number = target
        key = {"tenant": tenant, "endpoint": endpoint, "version": number}
        spans = known.spans.setdefault(target, Spans(key, length=self._span))
        if starts := spans.unknown(block):
            spans.recall(starts, self._span_store.windows(connection, key, starts=starts))
        cells, refused = np.empty((len(block.scores), 0), np.uint16), list[int]()
        segmenter = self._segmenter(tenant, endpoint, number=number) if self._segmenter else None
        if segmenter is not None:
            book = known.books.get((tenant, endpoint))
            if book is None:
                rows = self._span_store.levels(connection, tenant, endpoint=endpoint)
                book = known.books[tenant, endpoint] = LevelBook(rows)
            cells = segmenter.cells(block, book)
            refused = segmenter.refused(book) if not block.rows.all() else [0] * cells.shape[1]
        spans.count(block, cells, refused=refused, profile=self._profile(tenant, endpoint, number=number))
        return cells

    def _save_spans(self, connection: Any, known: _Known, *, targets: Iterable[Target]) -> None:
        """Write the windows by time that changed, and levels that are new."""
        levels = [
            {"tenant": tenant, "endpoint": endpoint, **level}
            for (tenant, endpoint), book in known.books.items()
            for level in book.new()
        ]
        if levels:
            self._span_store.add_levels(connection, levels)
        rows = [row for target in targets if target in known.spans for row in known.spans[target].changed()]
        if rows:
            self._span_store.put_windows(connection, rows)

    def _count(self, connection: Any, block: Block, *, tally: Tally, cells: NDArray[np.uint16]) -> None:
        new = repeated = 0
        key = {**tally.key, "arm": int(block.arms[0])}
        for scores, rows in prediction_rows(block, cells).items():
            added = self._store.add_predictions(connection, key, rows=rows)
            new += scores * added
            repeated += scores * (len(rows) - added)
        if starts := tally.unknown_slots(block):
            tally.recall(starts, self._store.slots(connection, tally.key, starts=starts))
        tally.count(block, new=new, repeated=repeated)
        profile = self._profile(block.tenant, block.endpoint, number=block.version)
        if profile is not None:
            tally.fill_windows(block, profile, size=self._window_rows)

    def _count_copies(self, connection: Any, block: Block, *, tally: Tally) -> list[Row]:
        """Those that are new."""
        new, repeated = self._shadows.add(connection, tally.key, block=block)
        tally.count(block, new=score_count(new), repeated=repeated)
        tally.compare(block)
        return new

    def _save(self, connection: Any, tallies: list[Tally]) -> None:
        """Write what changed, a statement for each table."""
        if not tallies:
            return
        self._store.put_counters(connection, [row for tally in tallies for row in tally.changed_counters()])
        if slots := [row for tally in tallies for row in tally.changed_slots()]:
            self._store.put_slots(connection, slots)
        if windows := [row for tally in tallies for row in tally.changed_windows()]:
            self._store.put_windows(connection, windows)
        if differences := [row for tally in tallies for row in tally.changed_differences()]:
            self._store.put_differences(connection, differences)


def _target(block: Block) -> Target:
    return block.tenant, block.endpoint, block.version


def _requests_in(batches: Mapping[str, Batch], places: list[int]) -> Counter[str]:
    """Requests in the payloads at these places of all batches, by stream."""
    owners = [(stream, count) for stream, batch in batches.items() for count in batch.counts]
    found: Counter[str] = Counter()
    for stream, count in (owners[place] for place in places):
        found[stream] += count
    return found
