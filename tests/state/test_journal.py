from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from predis.errors import Conflict, DiskFull
from predis.state import journal
from predis.state.journal import HEADER_BYTES, Batch, JournalReader, JournalWriter, Position, streams

SEGMENT = 1 << 12


def payload(ordinal: int) -> bytes:
    """A record that says which it is and is as long as its ordinal makes it; seldom a multiple of eight."""
    return f"{ordinal}:".encode() + b"x" * (ordinal * 37 % 101)


def read_all(folder: Path, position: Position | None = None) -> Batch:
    """Everything there is, as if it were one batch."""
    reader, position = JournalReader(folder), position or Position()
    payloads, counts, dropped, damaged = [], [], 0, 0
    while True:
        batch = reader.read(position)
        payloads += batch.payloads
        counts += batch.counts
        dropped += batch.dropped
        damaged += batch.damaged
        if batch.position == position:
            assert not batch.more
            return Batch(payloads, counts, position, dropped, damaged)
        position = batch.position


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def refusal(number: int = errno.ENOSPC) -> Callable[..., Any]:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def refuse_disk(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
    monkeypatch.setattr(os, "posix_fallocate", refusal(number))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "serving-0"


@pytest.fixture
def make(folder: Path) -> Iterator[Callable[..., JournalWriter]]:
    """Opens writers on ``folder``; those still open are closed at the end."""
    made: list[JournalWriter] = []

    def open_writer(
        *, segment_bytes: int = SEGMENT, limit_bytes: int = 1 << 24, retry_s: float = 0.0
    ) -> JournalWriter:
        limits = {"segment_bytes": segment_bytes, "limit_bytes": limit_bytes}
        made.append(JournalWriter(folder, **limits, retry_s=retry_s))
        return made[-1]

    yield open_writer
    for writer in made:
        end(writer)


def end(writer: JournalWriter) -> None:
    """Close a writer, if nothing has."""
    if writer._lock >= 0:
        writer.close()
        writer._lock = -1


def kill(writer: JournalWriter) -> None:
    """What a SIGKILL leaves of a writer: its pages, no seal, no lock."""
    if writer._map is not None:
        writer._map.close()
        writer._map = None
        os.close(writer._file)
    os.close(writer._lock)
    writer._lock = -1


Make = Callable[..., JournalWriter]


class TestAppend:
    def test_records_come_back_in_order(self, make: Make, folder: Path) -> None:
        writer = make()
        expected = [payload(ordinal) for ordinal in range(500)]
        assert [writer.append(each) for each in expected] == [True] * 500
        found = read_all(folder)
        assert found.payloads == expected
        assert (found.dropped, found.damaged, found.position.ordinal) == (0, 0, 500)
        assert len(segments(folder)) > 3

    def test_a_record_is_readable_at_once(self, make: Make, folder: Path) -> None:
        writer, reader, position = make(), JournalReader(folder), Position()
        for ordinal in range(200):
            writer.append(payload(ordinal))
            batch = reader.read(position)
            assert batch.payloads == [payload(ordinal)]
            position = batch.position

    def test_a_record_larger_than_a_segment(self, make: Make, folder: Path) -> None:
        writer = make(limit_bytes=3 * SEGMENT)
        large = os.urandom(20 * SEGMENT)
        expected = [b"before", large, b"after"]
        position, found = Position(), []
        for each in expected:
            assert writer.append(each)
            batch = read_all(folder, position)
            found += batch.payloads
            position = batch.position
        assert found == expected

    def test_a_record_larger_than_a_read(self, make: Make, folder: Path) -> None:
        writer = make()
        expected = [b"a" * 10, b"b" * 3_000, b"c" * 200]
        for each in expected:
            writer.append(each)
        position, found = Position(), []
        for _ in expected:
            batch = JournalReader(folder).read(position, max_bytes=64)
            found += batch.payloads
            position = batch.position
        assert found == expected

    def test_a_read_takes_whole_records_only(self, make: Make, folder: Path) -> None:
        writer = make(segment_bytes=1 << 16)
        for ordinal in range(300):
            writer.append(payload(ordinal))
        position, found, reads = Position(), [], 0
        while batch := JournalReader(folder).read(position, max_bytes=256):
            if not batch.payloads:
                break
            found += batch.payloads
            position = batch.position
            reads += 1
        assert found == [payload(ordinal) for ordinal in range(300)]
        assert reads > 10

    def test_the_files_are_their_owner_s(self, make: Make, folder: Path) -> None:
        make().append(b"secret")
        assert segments(folder)[0].stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(DiskFull, match=r"cannot write in .*journal/serving-0"):
        JournalWriter(tmp_path / "journal" / "serving-0")


class TestCounts:
    """A record may hold many requests; whatever is counted is requests."""

    def test_ordinals_are_of_requests(self, make: Make, folder: Path) -> None:
        writer = make()
        for count in (1, 64, 3):
            writer.append(b"x" * count, count)
        found = read_all(folder)
        assert (found.counts, found.position.ordinal) == ([1, 64, 3], 68)
        kill(writer)
        make().append(b"next", 2)
        found = read_all(folder, found.position)
        assert (found.counts, found.dropped, found.position.ordinal) == ([2], 0, 70)

    def test_so_are_losses(self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        writer = make()
        with monkeypatch.context() as patched:
            refuse_disk(patched)
            assert not writer.append(b"lost", 64)
        assert writer.append(b"stored", 10)
        writer.seal()
        writer.append(b"deleted", 5)
        writer.seal()
        deleted = segments(folder)[-1]
        writer.append(b"last", 7)
        deleted.unlink()
        found = read_all(folder)
        assert (found.counts, found.dropped, found.position.ordinal) == ([10, 7], 69, 86)
        assert writer.lost == 64

    def test_a_count_that_is_not_there_yet(self, make: Make, folder: Path) -> None:
        """Where stores are seen in another order, the length may be there and the count not: the checksum tells."""
        writer = make()
        writer.append(b"first", 2)
        writer.append(b"second", 3)
        with segments(folder)[0].open("r+b") as file:
            file.seek(HEADER_BYTES + 24 + 8)
            file.write(bytes(4))
        found = read_all(folder)
        assert (found.payloads, found.damaged) == ([b"first"], 0)
        with segments(folder)[0].open("r+b") as file:
            file.seek(HEADER_BYTES + 24 + 8)
            file.write(struct.pack("<I", 3))
        assert read_all(folder, found.position).counts == [3]


class TestMore:
    """Whether another read would find something."""

    def test_at_the_end_there_is_nothing(self, make: Make, folder: Path) -> None:
        writer = make()
        assert not JournalReader(folder).read(Position()).more
        writer.append(b"first")
        assert not JournalReader(folder).read(Position()).more

    def test_when_the_read_was_cut_short(self, make: Make, folder: Path) -> None:
        writer = make(segment_bytes=1 << 16)
        for ordinal in range(50):
            writer.append(payload(ordinal))
        batch = JournalReader(folder).read(Position(), max_bytes=500)
        assert batch.more
        assert not JournalReader(folder).read(batch.position).more

    def test_when_a_newer_segment_has_begun(self, make: Make, folder: Path) -> None:
        writer = make()
        writer.append(b"first")
        writer.seal()
        writer.append(b"second")
        batch = JournalReader(folder).read(Position())
        assert (batch.payloads, batch.more) == ([b"first"], True)


class TestOneWriter:
    def test_a_second_is_refused(self, make: Make, folder: Path) -> None:
        make().append(b"first")
        with pytest.raises(Conflict, match="serving-0"):
            JournalWriter(folder)
        assert read_all(folder).payloads == [b"first"]

    def test_until_the_first_is_gone(self, make: Make, folder: Path) -> None:
        first = make()
        first.append(b"first")
        end(first)
        make().append(b"second")
        assert read_all(folder).payloads == [b"first", b"second"]

    def test_refusals_leak_no_descriptors(self, make: Make, folder: Path) -> None:
        make()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(Conflict):
                JournalWriter(folder)
        assert len(os.listdir("/proc/self/fd")) == before


class TestSeal:
    def test_sealing_opens_the_way_and_loses_nothing(self, make: Make, folder: Path) -> None:
        writer = make()
        for ordinal in range(5):
            writer.append(payload(ordinal))
            writer.seal()
        assert len(segments(folder)) == 5
        found = read_all(folder)
        assert found.payloads == [payload(ordinal) for ordinal in range(5)]
        assert found.dropped == 0

    def test_sealing_nothing_makes_no_file(self, make: Make, folder: Path) -> None:
        writer = make()
        writer.seal()
        writer.seal()
        assert segments(folder) == []


class TestRestart:
    @pytest.mark.parametrize("ended", [end, kill])
    def test_ordinals_go_on(self, make: Make, folder: Path, ended: Callable[[JournalWriter], None]) -> None:
        position = Position()
        for start in range(0, 300, 50):
            writer = make()
            for ordinal in range(start, start + 50):
                writer.append(payload(ordinal))
            ended(writer)
            batch = read_all(folder, position)
            assert batch.payloads == [payload(ordinal) for ordinal in range(start, start + 50)]
            assert (batch.dropped, batch.damaged, batch.position.ordinal) == (0, 0, start + 50)
            position = batch.position

    def test_a_record_that_the_killed_writer_had_not_counted(self, make: Make, folder: Path) -> None:
        """The kill fell between the record's length and the header's count."""
        writer = make()
        for ordinal in range(3):
            writer.append(payload(ordinal))
        kill(writer)
        with segments(folder)[0].open("r+b") as file:
            file.seek(journal._REQUESTS_AT)
            file.write(struct.pack("<Q", 2))
        first = read_all(folder)
        assert len(first.payloads) == 3
        writer = make()
        writer.append(payload(3))
        writer.seal()
        segment = segments(folder)[-1]
        writer.append(payload(4))
        segment.unlink()
        second = read_all(folder, first.position)
        assert second.payloads == [payload(4)]
        assert second.dropped == 1

    def test_a_writer_that_wrote_nothing_changes_nothing(self, make: Make, folder: Path) -> None:
        writer = make()
        writer.append(b"a")
        end(writer)
        end(make())
        make().append(b"b")
        found = read_all(folder)
        assert (found.payloads, found.position.ordinal, found.dropped) == ([b"a", b"b"], 2, 0)

    def test_a_half_made_segment_is_swept_away(self, make: Make, folder: Path) -> None:
        folder.mkdir()
        (folder / "000000000001.new").write_bytes(b"\0" * 100)
        make().append(b"a")
        assert read_all(folder).payloads == [b"a"]
        assert not list(folder.glob("*.new"))

    @pytest.mark.parametrize("content", [b"", b"PREDISJ1", b"\0" * 63])
    def test_a_segment_without_a_whole_header(self, make: Make, folder: Path, content: bytes) -> None:
        folder.mkdir()
        (folder / "000000000007.seg").write_bytes(content)
        assert read_all(folder).payloads == []
        make().append(b"a")
        assert read_all(folder).payloads == [b"a"]
        assert segments(folder)[-1].name == "000000000008.seg"


class TestDropOldest:
    def test_counts_exactly(self, make: Make, folder: Path) -> None:
        writer = make(limit_bytes=3 * SEGMENT)
        for ordinal in range(1_000):
            assert writer.append(payload(ordinal))
            assert sum(path.stat().st_size for path in segments(folder)) <= 3 * SEGMENT
        found = read_all(folder)
        assert found.dropped > 100
        assert found.payloads == [payload(ordinal) for ordinal in range(found.dropped, 1_000)]
        assert found.position.ordinal == 1_000

    def test_from_the_middle_of_a_segment(self, make: Make, folder: Path) -> None:
        writer = make(limit_bytes=2 * SEGMENT)
        for ordinal in range(10):
            writer.append(payload(ordinal))
        first = read_all(folder)
        for ordinal in range(10, 700):
            writer.append(payload(ordinal))
        second = read_all(folder, first.position)
        assert second.dropped > 0
        assert second.payloads == [payload(ordinal) for ordinal in range(10 + second.dropped, 700)]

    def test_nothing_is_counted_twice(self, make: Make, folder: Path) -> None:
        writer = make(limit_bytes=2 * SEGMENT)
        for ordinal in range(500):
            writer.append(payload(ordinal))
        first = JournalReader(folder).read(Position())
        assert first.dropped > 0
        assert JournalReader(folder).read(Position()) == first
        assert read_all(folder, first.position).dropped == 0

    def test_a_segment_the_reader_deletes_meanwhile(
        self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer = make(limit_bytes=3 * SEGMENT)
        for ordinal in range(200):
            writer.append(payload(ordinal))
        position = read_all(folder).position
        listed = journal._segments

        def listed_then_forgotten(of: Path) -> list[tuple[int, Path]]:
            found = listed(of)
            monkeypatch.setattr(journal, "_segments", listed)
            JournalReader(of).forget(position)
            return found

        writer.seal()
        monkeypatch.setattr(journal, "_segments", listed_then_forgotten)
        assert writer.append(b"next")
        assert read_all(folder, position).payloads == [b"next"]


class TestForget:
    def test_what_was_read_goes(self, make: Make, folder: Path) -> None:
        writer, reader = make(), JournalReader(folder)
        for ordinal in range(300):
            writer.append(payload(ordinal))
        before = len(segments(folder))
        halfway = reader.read(reader.read(Position()).position).position
        reader.forget(halfway)
        assert len(segments(folder)) == before - (halfway.segment - 1)
        assert read_all(folder, halfway).payloads[0] == payload(halfway.ordinal)

    def test_but_never_the_newest(self, make: Make, folder: Path) -> None:
        writer = make()
        for ordinal in range(300):
            writer.append(payload(ordinal))
        end(writer)
        found = read_all(folder)
        JournalReader(folder).forget(found.position)
        JournalReader(folder).forget(Position(10**9))
        assert len(segments(folder)) == 1
        make().append(b"next")
        batch = read_all(folder, found.position)
        assert (batch.payloads, batch.dropped, batch.position.ordinal) == ([b"next"], 0, 301)


class TestTornTail:
    """A segment whose last record's bytes have not all arrived."""

    @staticmethod
    def tear(folder: Path, whole: int, *, length: int = 40) -> None:
        """Write a length with the wrong bytes behind the ``whole`` records of the newest segment."""
        at = HEADER_BYTES
        for ordinal in range(whole):
            at += (12 + len(payload(ordinal)) + 7) & ~7
        with segments(folder)[-1].open("r+b") as file:
            file.seek(at)
            checksum = zlib.crc32(b"the bytes to come", 1)
            file.write(struct.pack("<III", length, checksum, 1) + b"?" * min(length, 100))

    def torn(self, make: Make, folder: Path, *, length: int = 40) -> JournalWriter:
        writer = make()
        for ordinal in range(3):
            writer.append(payload(ordinal))
        self.tear(folder, 3, length=length)
        return writer

    @pytest.mark.parametrize("length", [40, SEGMENT * 2, 2**32 - 1])
    def test_is_not_yet(self, make: Make, folder: Path, length: int) -> None:
        self.torn(make, folder, length=length)
        found = read_all(folder)
        assert found.payloads == [payload(ordinal) for ordinal in range(3)]
        assert (found.damaged, found.dropped) == (0, 0)
        assert read_all(folder, found.position) == Batch([], [], found.position)

    def test_is_read_once_it_is_whole(self, make: Make, folder: Path) -> None:
        writer = self.torn(make, folder)
        position = read_all(folder).position
        writer.append(payload(3))
        assert read_all(folder, position).payloads == [payload(3)]

    def test_is_damaged_once_sealed(self, make: Make, folder: Path) -> None:
        writer = self.torn(make, folder)
        position = read_all(folder).position
        writer.seal()
        found = read_all(folder, position)
        assert (found.payloads, found.damaged, found.dropped) == ([], 1, 0)
        assert read_all(folder, found.position).damaged == 0

    def test_is_damaged_once_another_writer_has_come(self, make: Make, folder: Path) -> None:
        kill(self.torn(make, folder))
        make().append(b"next")
        found = read_all(folder)
        assert found.payloads == [*(payload(ordinal) for ordinal in range(3)), b"next"]
        assert (found.damaged, found.dropped) == (1, 0)

    def test_an_impossible_length_does_not_stop_the_stream(self, make: Make, folder: Path) -> None:
        kill(self.torn(make, folder, length=2**32 - 1))
        make().append(b"next")
        assert read_all(folder).payloads == [*(payload(ordinal) for ordinal in range(3)), b"next"]

    def test_damage_in_the_middle_costs_its_segment_and_is_counted(self, make: Make, folder: Path) -> None:
        writer = make()
        for ordinal in range(10):
            writer.append(payload(ordinal))
        writer.seal()
        for ordinal in range(10, 20):
            writer.append(payload(ordinal))
        self.tear(folder, 0)
        with segments(folder)[0].open("r+b") as file:
            file.seek(HEADER_BYTES + 12)
            file.write(b"?")
        writer.seal()
        writer.append(payload(20))
        found = read_all(folder)
        assert found.payloads == [payload(20)]
        assert (found.damaged, found.dropped, found.position.ordinal) == (2, 20, 21)


class TestFullDisk:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
    def test_an_append_never_raises_and_counts(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        writer = make()
        refuse_disk(monkeypatch, number)
        assert [writer.append(payload(ordinal)) for ordinal in range(5)] == [False] * 5
        assert writer.lost == 5

    def test_a_folder_that_is_gone(self, make: Make, folder: Path) -> None:
        writer = make()
        (folder / "lock").unlink()
        folder.rmdir()
        assert writer.append(b"a") is False
        assert writer.lost == 1

    def test_what_was_lost_the_reader_knows(
        self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer = make()
        assert writer.append(payload(0))
        writer.seal()
        with monkeypatch.context() as patched:
            refuse_disk(patched)
            for ordinal in range(1, 8):
                assert not writer.append(payload(ordinal))
        assert writer.append(payload(8))
        found = read_all(folder, Position(0))
        assert found.payloads[-1] == payload(8)
        assert len(found.payloads) + found.dropped == 9
        assert writer.lost == 7

    def test_the_oldest_makes_room(self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        writer = make()
        for ordinal in range(3):
            writer.append(payload(ordinal))
            writer.seal()
        allocate, room = os.posix_fallocate, SEGMENT * 3

        def scarce(descriptor: int, offset: int, size: int) -> None:
            if sum(path.stat().st_size for path in segments(folder)) + size > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            allocate(descriptor, offset, size)

        monkeypatch.setattr(os, "posix_fallocate", scarce)
        for ordinal in range(3, 10):
            assert writer.append(payload(ordinal))
            writer.seal()
        assert writer.lost == 0
        found = read_all(folder)
        assert (found.payloads, found.dropped) == ([payload(ordinal) for ordinal in range(7, 10)], 7)

    def test_a_disk_for_one_segment_only(
        self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The only segment is emptied, not deleted: its header is what a restarted writer learns its place from."""
        writer = make()
        writer.append(payload(0))
        writer.append(payload(1))
        writer.seal()
        allocate = os.posix_fallocate

        def scarce(descriptor: int, offset: int, size: int) -> None:
            if sum(path.stat().st_size for path in segments(folder)) > HEADER_BYTES:
                raise OSError(errno.ENOSPC, "No space left on device")
            allocate(descriptor, offset, size)

        monkeypatch.setattr(os, "posix_fallocate", scarce)
        assert writer.append(payload(2))
        found = read_all(folder)
        assert (found.payloads, found.dropped) == ([payload(2)], 2)

    def test_a_restart_while_it_lasts_keeps_the_reader_s_place(
        self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer = make()
        for ordinal in range(300):
            writer.append(payload(ordinal))
        position = read_all(folder).position
        with monkeypatch.context() as patched:
            refuse_disk(patched)
            writer.seal()
            for _ in range(20):
                assert not writer.append(b"lost")
            kill(writer)
            writer = make()
            assert not writer.append(b"lost", 5)
            kill(writer)
        make().append(b"next")
        found = read_all(folder, position)
        assert (found.payloads, found.dropped, found.position.ordinal) == ([b"next"], 25, 326)

    def test_nothing_was_ever_stored(self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No segment says how far the stream came; the lock file does."""
        with monkeypatch.context() as patched:
            refuse_disk(patched)
            writer = make()
            assert not writer.append(b"lost", 3)
            kill(writer)
        make().append(b"first")
        found = read_all(folder)
        assert (found.payloads, found.dropped, found.position.ordinal) == ([b"first"], 3, 4)

    def test_a_note_is_no_longer_heard_once_more_was_stored(
        self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer = make()
        with monkeypatch.context() as patched:
            refuse_disk(patched)
            assert not writer.append(b"lost", 3)
        for _ in range(3):
            writer.append(b"stored", 2)
            kill(writer)
            writer = make()
        found = read_all(folder)
        assert (found.payloads, found.dropped, found.position.ordinal) == ([b"stored"] * 3, 3, 9)

    def test_an_empty_lock_file_without_room_for_the_note(
        self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", refusal())
            refuse_disk(patched)
            writer = make()
            assert not writer.append(b"lost")
        assert writer.append(b"stored")
        assert read_all(folder).payloads == [b"stored"]

    def test_it_is_left_alone_for_a_while(
        self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Attempts are system calls, and these are made between the answers of a worker."""
        now = 100.0
        monkeypatch.setattr(journal.time, "monotonic", lambda: now)
        writer = make(retry_s=5.0)
        with monkeypatch.context() as patched:
            refuse_disk(patched)
            assert not writer.append(b"lost")
        now = 104.9
        assert not writer.append(b"lost")
        assert segments(folder) == []
        now = 105.1
        assert writer.append(b"stored")
        found = read_all(folder)
        assert (found.payloads, found.dropped, writer.lost) == ([b"stored"], 2, 2)

    def test_pages_that_cannot_be_made_ahead_cost_nothing_but_time(
        self, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer = make(segment_bytes=1 << 19)
        writer.append(b"first")
        monkeypatch.setattr(os, "pwrite", refusal())
        large = os.urandom(1 << 18)
        assert writer.append(large)
        assert read_all(folder).payloads == [b"first", large]


WRITER = textwrap.dedent(
    """
    import mmap, sys
    from pathlib import Path
    from predis.state.journal import JournalWriter

    folder, acknowledged, start = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    with open(acknowledged, "r+b") as file:
        count = mmap.mmap(file.fileno(), 8)
    writer = JournalWriter(folder, segment_bytes=1 << 14, limit_bytes=1 << 28)
    ordinal = start
    while True:
        writer.append(f"{ordinal}:".encode() + b"x" * (ordinal * 37 % 101), 3)
        ordinal += 1
        count[:] = ordinal.to_bytes(8, "little")
    """
)


class TestKill:
    def test_every_acknowledged_record_survives(self, folder: Path, tmp_path: Path) -> None:
        """SIGKILL in the middle of appends, again and again, with a reader beside the writer all the time."""
        acknowledged = tmp_path / "acknowledged"
        acknowledged.write_bytes(bytes(8))
        reader, position, found = JournalReader(folder), Position(), 0

        def take() -> int:
            nonlocal position, found
            batch = reader.read(position)
            assert batch.payloads == [
                payload(ordinal) for ordinal in range(found, found + len(batch.payloads))
            ]
            assert (batch.dropped, batch.damaged) == (0, 0)
            moved = batch.position != position
            position, found = batch.position, found + len(batch.payloads)
            assert position.ordinal == 3 * found
            if moved:
                reader.forget(position)
            return moved

        for round_ in range(4):
            start = found
            command = [sys.executable, "-c", WRITER, str(folder), str(acknowledged), str(start)]
            with subprocess.Popen(command) as child:
                try:
                    while found < start + 3_000 + 777 * round_:
                        if not take():
                            assert child.poll() is None
                            time.sleep(0.002)
                finally:
                    child.kill()
            promised = int.from_bytes(acknowledged.read_bytes(), "little")
            while take():
                pass
            assert found - promised in (0, 1)
        assert position.segment > 20


class Journal(RuleBasedStateMachine):
    """A writer, a reader and a disk that may be full, against a list of what was appended."""

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name) / "stream"
        self.appended: list[
            bytes | None
        ] = []  # one entry a request: its record where it is the record's first
        self.allocate = os.posix_fallocate
        self.position = Position()
        self.open()

    def open(self) -> None:
        self.writer = JournalWriter(self.folder, segment_bytes=512, limit_bytes=2_048, retry_s=0.0)

    def teardown(self) -> None:
        os.posix_fallocate = self.allocate
        end(self.writer)
        self.temporary.cleanup()

    @rule(records=st.lists(st.tuples(st.integers(1, 700), st.integers(1, 9)), min_size=1, max_size=12))
    def append(self, records: list[tuple[int, int]]) -> None:
        for size, count in records:
            record = f"{len(self.appended)}".encode().ljust(size, b".")
            self.writer.append(record, count)
            self.appended += [record, *[None] * (count - 1)]

    @rule()
    def seal(self) -> None:
        self.writer.seal()

    @rule(ended=st.sampled_from([end, kill]))
    def restart(self, ended: Callable[[JournalWriter], None]) -> None:
        ended(self.writer)
        self.open()

    @rule(full=st.booleans())
    def fill_or_free_the_disk(self, full: bool) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        os.posix_fallocate = refuse if full else self.allocate

    @rule(max_bytes=st.sampled_from([64, 600, 1 << 20]))
    def read(self, max_bytes: int) -> None:
        before = self.position
        batch = JournalReader(self.folder).read(before, max_bytes=max_bytes)
        after = batch.position.ordinal
        assert batch.damaged == 0
        assert before.ordinal + batch.dropped + sum(batch.counts) == after
        read = self.appended[after - sum(batch.counts) : after]
        assert batch.payloads == [record for record in read if record is not None]
        self.position = batch.position

    @rule()
    def forget(self) -> None:
        JournalReader(self.folder).forget(self.position)

    @rule()
    def read_everything(self) -> None:
        """One more record on a disk that is free, and the reader knows of every record what became of it."""
        self.fill_or_free_the_disk(False)
        self.append([(1, 1)])
        while True:
            before = self.position
            self.read(1 << 20)
            if self.position == before:
                break
        assert self.position.ordinal == len(self.appended)

    @invariant()
    def is_bounded(self) -> None:
        # The limit, and at most one record that is larger than a segment.
        assert sum(path.stat().st_size for path in segments(self.folder)) <= 2_048 + 1_024


Journal.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestStateful = Journal.TestCase


def test_a_stream_that_began_anew_is_read_from_its_start(make: Make, folder: Path) -> None:
    """Somebody deleted the journal; the reader's position is of the one that was."""
    writer = make()
    for ordinal in range(300):
        writer.append(payload(ordinal))
    position = read_all(folder).position
    end(writer)
    for path in segments(folder):
        path.unlink()
    make().append(payload(0))
    found = read_all(folder, position)
    assert (found.payloads, found.dropped, found.position.ordinal) == ([payload(0)], 0, 1)


class TestStreams:
    def test_are_the_folders(self, tmp_path: Path) -> None:
        assert streams(tmp_path / "none") == []
        (tmp_path / "serving-1").mkdir()
        (tmp_path / "serving-0").mkdir()
        (tmp_path / "note").write_text("no stream")
        assert streams(tmp_path) == ["serving-0", "serving-1"]

    def test_reading_one_that_is_not_there(self, tmp_path: Path) -> None:
        assert JournalReader(tmp_path / "none").read(Position(3, 64, 5)) == Batch([], [], Position(3, 64, 5))
