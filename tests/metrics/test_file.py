from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predis.errors import Conflict, IntegrityFailure
from predis.metrics import file
from predis.metrics.file import FIRST_BYTES, HEADER_BYTES, Process, Reading, SeriesFile, Slot

ME = Process(os.getpid(), 7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "serving-0.bin"


def read(path: Path) -> dict[bytes, list[float]]:
    with Reading(path) as reading:
        return dict(reading.series())


def test_what_is_written_can_be_read_at_once(path: Path) -> None:
    written = SeriesFile(path, ME)
    first, second = written.add(b"first", 1).cells(), written.add(b"second", 18).cells()
    first[0] = 1.5
    second[17] = 2.0
    assert read(path) == {b"first": [1.5], b"second": [0.0] * 17 + [2.0]}


def test_numbers_are_aligned_whatever_the_key(path: Path) -> None:
    written = SeriesFile(path, ME)
    for length in range(1, 80):
        written.add(b"k" * length, 3).cells()[2] = length
    assert read(path) == {b"k" * length: [0.0, 0.0, length] for length in range(1, 80)}


def test_the_file_grows_and_references_stay_good(path: Path) -> None:
    written = SeriesFile(path, ME)
    cells = []
    while path.stat().st_size < 8 * FIRST_BYTES:
        cells.append(written.add(f"series {len(cells)} ".encode() * 7, 30).cells())
    for number, numbers in enumerate(cells):
        numbers[29] += number
    expected = {f"series {n} ".encode() * 7: [0.0] * 29 + [n] for n in range(len(cells))}
    assert read(path) == expected
    written.close()
    again = SeriesFile(path, ME)
    assert {slot.key: list(slot.cells()) for slot in again.slots if slot.live} == expected
    # What was too small at the end of each part is a place that can be filled.
    ends = [slot for slot in again.slots if not slot.live]
    assert ends
    ends[0].fill(b"x", 1)
    assert read(path)[b"x"] == [0.0]


def test_a_freed_place_is_read_by_nobody_and_filled_anew(path: Path) -> None:
    written = SeriesFile(path, ME)
    slot = written.add(b"old", 2)
    slot.cells()[1] = 9.0
    slot.free()
    slot.free()
    assert read(path) == {}
    slot.fill(b"newer", 1)
    assert read(path) == {b"newer": [0.0]}


def test_what_a_kill_left_half_made_is_not_there(path: Path) -> None:
    """The slot is filled and the header does not count it yet."""
    written = SeriesFile(path, ME)
    written.add(b"whole", 1).cells()[0] = 1.0
    used = written._header[1]
    written._slot(used, 64).fill(b"half", 1)
    written.close()
    again = SeriesFile(path, ME)
    assert read(path) == {b"whole": [1.0]}
    again.add(b"next", 1).cells()[0] = 2.0
    assert read(path) == {b"whole": [1.0], b"next": [2.0]}


def test_a_place_that_is_filled_while_it_is_read_is_skipped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = SeriesFile(path, ME)
    slot = written.add(b"key", 1)
    checksum = file.zlib.crc32
    monkeypatch.setattr(file.zlib, "crc32", lambda data: (slot.free(), checksum(data))[1])
    assert read(path) == {}


def test_one_process_writes_a_file(path: Path) -> None:
    written = SeriesFile(path, ME)
    with pytest.raises(Conflict):
        SeriesFile(path, ME)
    written.close()
    SeriesFile(path, ME).close()


def test_readers_know_who_writes_and_whether_they_still_do(path: Path) -> None:
    written = SeriesFile(path, ME)
    for alive in (True, False):
        with Reading(path) as reading:
            assert reading.alive is alive
            assert reading.process == ME
        written.close() if alive else None


def test_a_killed_process_is_not_alive(path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from predis.metrics.file import *;"
        "SeriesFile(Path(sys.argv[1]), Process(os.getpid(), 0)).add(b'k', 1).cells()[0] = 4.0; os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    with Reading(path) as reading:
        assert not reading.alive
        assert dict(reading.series()) == {b"k": [4.0]}
    SeriesFile(path, ME).close()


def test_a_reader_that_comes_before_the_file_has_grown_sees_what_it_mapped(path: Path) -> None:
    written = SeriesFile(path, ME)
    written.add(b"first", 1)
    with Reading(path) as reading:
        for number in range(2_000):
            written.add(b"%d" % number, 20)
        assert dict(reading.series()) == {b"first": [0.0]}


def _truncated(content: bytes) -> bytes:
    return content[: FIRST_BYTES // 2]


def _foreign(content: bytes) -> bytes:
    return b"SQLite format 3\0" + content[16:]


def _counted_too_far(content: bytes) -> bytes:
    return content[:8] + struct.pack("=Q", len(content) + 64) + content[16:]


def _empty_slot(content: bytes) -> bytes:
    return content[:HEADER_BYTES] + bytes(4) + content[HEADER_BYTES + 4 :]


def _another_key(content: bytes) -> bytes:
    return content.replace(b"key", b"yek")


def _endless_key(content: bytes) -> bytes:
    return content[: HEADER_BYTES + 12] + b"\xff\xff\xff\xff" + content[HEADER_BYTES + 16 :]


@pytest.mark.parametrize(
    "damage",
    [
        _truncated,
        _foreign,
        _counted_too_far,
        _empty_slot,
        _another_key,
        _endless_key,
        lambda _: b"",
        lambda _: b"x",
    ],
)
def test_a_damaged_file_is_not_gone_on_with(path: Path, damage: Callable[[bytes], bytes]) -> None:
    written = SeriesFile(path, ME)
    written.add(b"key", 1)
    written.close()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityFailure):
        SeriesFile(path, ME)
    with contextlib.suppress(IntegrityFailure):
        assert read(path) in ({}, {b"key": [0.0]})


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_whatever_stands_in_a_file_reading_it_ends(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    path = tmp_path / "fuzz.bin"
    path.unlink(missing_ok=True)
    written = SeriesFile(path, ME)
    keys = [b"series %d" % number for number in range(8)]
    for key in keys:
        written.add(key, 2).cells()[0] = 1.0
    written.close()
    content = bytearray(path.read_bytes())
    for at, value in changes:
        content[at] = value
    path.write_bytes(content)
    with contextlib.suppress(IntegrityFailure):
        assert read(path).keys() <= set(keys)
        SeriesFile(path, ME).close()


def test_disk_is_allocated_before_it_is_mapped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    written = SeriesFile(path, ME)
    kept = written.add(b"kept", 1)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        for number in range(10_000):
            written.add(b"%d" % number, 20)
    kept.cells()[0] = 3.0
    assert read(path)[b"kept"] == [3.0]
    with pytest.raises(OSError, match="No space"):
        SeriesFile(path.with_name("other.bin"), ME)
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    # All of it is on the disk: no page of the mapping is a hole.
    assert path.stat().st_blocks * 512 >= path.stat().st_size


def test_places_are_as_small_as_they_can_be() -> None:
    assert file.slot_bytes(b"k" * 32, 1) == 64
    assert file.slot_bytes(b"k" * 33, 1) == 128
    part = memoryview(bytearray(64))
    slot = Slot(part, 64)
    slot.fill(b"k" * 32, 1)
    assert (slot.key, list(slot.cells())) == (b"k" * 32, [0.0])
