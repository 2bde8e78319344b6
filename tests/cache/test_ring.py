"""The ring between a worker and the learner, with two real processes and with kills.

What the stress may see, and what it must not: see ``TestStress``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from predis.cache.ring import KEY_BYTES, SLOT_BYTES, Flag, Looking, Producer, place_of
from predis.cache.ring_reader import Consumer, keys_of
from predis.errors import Conflict, IntegrityFailure, InvalidInput

HEADER = 4096

WRITER = """
import sys
from pathlib import Path
from predis.cache.ring import Producer, place_of
ring = Producer(Path(sys.argv[1]), int(sys.argv[2]))
first, count = int(sys.argv[3]), int(sys.argv[4])
written = 0
for number in range(first, first + count):
    key = b"%d:" % number * (1 + number % 20)
    written += ring.put(key, number, client=number, flags=number & 1, place=place_of(key))
print(written, ring.dropped)
"""


def put(ring: Producer, number: int) -> bool:
    key = b"%d:" % number * (1 + number % 20)
    return ring.put(key, number, client=number, flags=number & 1, place=place_of(key))


def check_whole(events: np.ndarray) -> list[int]:
    """The numbers of the events; every field must be of one and the same."""
    for event, key in zip(events, keys_of(events), strict=True):
        number = int(event["size"])
        wanted = b"%d:" % number * (1 + number % 20)
        assert (key, event["length"], event["client"]) == (wanted[:KEY_BYTES], len(wanted), number)
        assert (event["flags"], event["place"]) == (number & 1, place_of(wanted))
    return [int(size) for size in events["size"]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0.ring"


def writer(path: Path, *, slots: int, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(slots), str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


class TestOne:
    def test_what_is_put_is_read_in_order(self, path: Path) -> None:
        producer = Producer(path, 16)
        consumer = Consumer(path)
        assert [put(producer, number) for number in range(10)] == [True] * 10
        assert consumer.lag == 10
        assert check_whole(consumer.read()) == list(range(10))
        assert (consumer.lag, len(consumer.read())) == (0, 0)

    def test_a_full_ring_drops_and_counts(self, path: Path) -> None:
        producer = Producer(path, 16)
        consumer = Consumer(path)
        assert [put(producer, number) for number in range(20)] == [True] * 16 + [False] * 4
        assert (producer.dropped, consumer.dropped) == (4, 4)
        assert check_whole(consumer.read()) == list(range(16))
        assert put(producer, 20)
        assert check_whole(consumer.read()) == [20]

    def test_round_the_end_and_by_parts(self, path: Path) -> None:
        producer = Producer(path, 8)
        consumer = Consumer(path)
        seen = []
        for number in range(100):
            assert put(producer, number)
            if number % 5 == 4:
                seen += check_whole(consumer.read(3))
                seen += check_whole(consumer.read())
        assert seen == list(range(100))

    def test_keys_beyond_the_limit_are_cut_and_say_so(self, path: Path) -> None:
        producer = Producer(path, 8)
        consumer = Consumer(path)
        key = b"\0" * 40 + b"k" * 200 + b"\0"
        producer.put(key, 1 << 40, client=1, flags=Flag.HIT, place=place_of(key))
        (event,) = events = consumer.read()
        assert keys_of(events) == [key[:KEY_BYTES]]
        assert (event["length"], event["size"]) == (241, (1 << 32) - 1)
        producer.put(b"k\0", 0, client=1, flags=0, place=0)
        assert keys_of(consumer.read()) == [b"k\0"]

    def test_a_torn_slot_is_not_returned_and_holds_up_what_follows(self, path: Path) -> None:
        producer = Producer(path, 8)
        consumer = Consumer(path)
        for number in range(3):
            put(producer, number)
        with path.open("r+b") as file:
            file.seek(HEADER + SLOT_BYTES + 40)
            file.write(b"torn")
        assert check_whole(consumer.read()) == [0]
        for _ in range(64):
            assert len(consumer.read()) == 0
        assert len(consumer.read()) == 0  # now it is given up
        assert (check_whole(consumer.read()), consumer.damaged) == ([2], 1)

    def test_what_the_two_tell_each_other(self, path: Path) -> None:
        producer = Producer(path, 8)
        consumer = Consumer(path)
        assert (producer.wanted, producer.heard_us, consumer.looking) == (0, 0, Looking.RESTING)
        consumer.want(7)
        consumer.read()
        producer.tell(looked=3, threshold=5, looking=Looking.AT_IT)
        producer.tell(looked=4, threshold=6, looking=Looking.AT_IT)
        assert (producer.wanted, producer.heard_us > 0) == (7, True)
        assert (consumer.looked, consumer.threshold, consumer.looking, consumer.beat_us > 0) == (
            7,
            6,
            Looking.AT_IT,
            True,
        )


class TestFiles:
    def test_one_producer_at_a_time(self, path: Path) -> None:
        first = Producer(path, 8)
        with pytest.raises(Conflict, match="another process writes"):
            Producer(path, 8)
        first.close()
        Producer(path, 8).close()

    def test_both_go_on_where_they_stopped(self, path: Path) -> None:
        producer, consumer = Producer(path, 8), None
        for number in range(5):
            put(producer, number)
        consumer = Consumer(path)
        assert check_whole(consumer.read(2)) == [0, 1]
        producer.close()
        consumer.close()
        producer, consumer = Producer(path, 8), Consumer(path)
        put(producer, 5)
        assert check_whole(consumer.read()) == [2, 3, 4, 5]

    @pytest.mark.parametrize("content", [b"", b"no ring", bytes(HEADER + 8 * SLOT_BYTES)])
    def test_what_is_no_ring_is_replaced_by_who_writes_and_refused_to_who_reads(
        self, path: Path, content: bytes
    ) -> None:
        path.write_bytes(content)
        with pytest.raises(IntegrityFailure, match="no ring"):
            Consumer(path)
        put(Producer(path, 8), 1)
        assert check_whole(Consumer(path).read()) == [1]

    def test_another_size_is_another_file(self, path: Path) -> None:
        producer = Producer(path, 8)
        put(producer, 1)
        consumer = Consumer(path)
        producer.close()
        assert not consumer.replaced
        producer = Producer(path, 16)
        assert consumer.replaced
        assert check_whole(consumer.read()) == [1]
        path.unlink()
        assert consumer.replaced

    @pytest.mark.parametrize("slots", [0, 1, 7, -8])
    def test_slots_are_a_power_of_two(self, path: Path, slots: int) -> None:
        with pytest.raises(InvalidInput, match="power of two"):
            Producer(path, slots)

    def test_a_header_that_makes_no_sense_is_got_over(self, path: Path) -> None:
        producer = Producer(path, 8)
        consumer = Consumer(path)
        put(producer, 1)
        with path.open("r+b") as file:
            file.seek(16 * 8)
            file.write((1 << 40).to_bytes(8, "little"))
        assert (len(consumer.read()), consumer.damaged) == (0, 1)
        put(producer, 2)


class TestStress:
    """Two processes, a small ring, no waiting.

    Allowed: an event is read once, or dropped and counted; the reader sees any number of the newest events not yet.
    Forbidden: an event of mixed fields, out of order, twice, or neither read nor counted.
    """

    @pytest.mark.parametrize("slots", [2, 64, 4096])
    def test_a_writer_and_a_reader_at_full_speed(self, path: Path, slots: int) -> None:
        Producer(path, slots).close()
        consumer = Consumer(path)
        process = writer(path, slots=slots, first=0, count=60_000)
        seen: list[int] = []
        while process.poll() is None:
            seen += check_whole(consumer.read())
        seen += check_whole(consumer.read())
        written, dropped = map(int, process.communicate()[0].split())
        assert (len(seen), written + dropped) == (written, 60_000)
        assert seen == sorted(set(seen))
        assert (consumer.dropped, consumer.damaged) == (dropped, 0)

    def test_writers_killed_again_and_again(self, path: Path) -> None:
        Producer(path, 256).close()
        consumer = Consumer(path)
        seen: list[int] = []
        for turn in range(4):
            process = writer(path, slots=256, first=turn * 10_000_000, count=10_000_000)
            wanted = len(seen) + 2_000
            while len(seen) < wanted:
                assert process.poll() is None
                seen += check_whole(consumer.read())
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            seen += check_whole(consumer.read())
        assert seen == sorted(set(seen))
        assert {number // 10_000_000 for number in seen} == {0, 1, 2, 3}
        assert (consumer.lag, consumer.damaged) == (0, 0)

    def test_readers_killed_again_and_again(self, path: Path) -> None:
        producer = Producer(path, 1024)
        reader = """
import sys, time
from pathlib import Path
from predis.cache.ring_reader import Consumer
ring = Consumer(Path(sys.argv[1]))
while True:
    for size in ring.read()["size"].tolist():
        print(size)
    sys.stdout.flush()
"""
        seen: list[int] = []
        number = 0
        for _ in range(3):
            process = subprocess.Popen(
                [sys.executable, "-c", reader, str(path)], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            before = producer.heard_us
            while producer.heard_us == before:
                time.sleep(0)
            for _ in range(3_000):
                put(producer, number)
                number += 1
            seen.append(int(process.stdout.readline()))
            os.kill(process.pid, signal.SIGKILL)
            seen += [int(line) for line in process.stdout.read().splitlines()[:-1]]
            process.wait()
            process.stdout.close()
        seen += check_whole(Consumer(path).read())
        assert seen == sorted(
            set(seen)
        )  # never twice, never out of order; what the killed had in hand is lost with them


def test_places_are_spread_evenly_whatever_keys_look_like() -> None:
    for shape in ("user:%d", "session:%08d", "%d", "a:very:long:prefix:of:a:key:%06d:suffix"):
        counts = np.bincount(
            [place_of((shape % number).encode()) >> 26 for number in range(64_000)], minlength=64
        )
        assert abs(counts / 1000 - 1).max() < 0.2  # 6 standard deviations of an even spread
