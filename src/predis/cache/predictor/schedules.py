"""Keys that are read on a schedule, as the learner tells them to the gateway's workers.

They are a file of their own beside the tables, as they change with every read: its first line is the SHA-256 of the rest, which is JSON. It
is replaced whole, at most once a second, and never synced: what a crash of the machine takes of it is known again after a few seconds. A
file that does not fit its digest, or is not of the form it must have, is refused, and the worker goes on with what it has.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from predis.errors import IntegrityFailure

FILE = "schedules.json"
MOST = 512
"""Schedules of one installation."""
_FORMAT = 1
_MOST_BYTES = 4 << 20
PATIENCE = 3.5
"""Periods without a read after which a schedule has ended."""
_UNSEEN_S = 3_600.0  # the sample rests for half an hour at most


class Schedule(NamedTuple):
    """A key that is read at a steady period. Moments are seconds since 1970.

    Attributes:
        rule: what it is judged under, such as ``report:{} every 60 s``.
        tolerance_s: how much earlier or later than due it is read.
        anchor_s: when a read was due.
        last_s: when the last read was.
        hit: whether that found the value in Valkey.

    >>> schedule = Schedule(b"report", "report every 60 s", period_s=60.0, tolerance_s=1.0, anchor_s=1000.0, last_s=1000.2, hit=False)
    >>> schedule.due_s(1030.0), schedule.due_s(1060.5), schedule.due_s(1061.5)
    (1060.0, 1060.0, 1120.0)
    """

    key: bytes
    rule: str
    period_s: float
    tolerance_s: float
    anchor_s: float
    last_s: float
    hit: bool

    def due_s(self, now_s: float) -> float:
        """The next moment it is due, or the one that may still be kept."""
        periods = math.ceil((now_s - self.tolerance_s - self.anchor_s) / self.period_s)
        return self.anchor_s + max(periods, 1) * self.period_s

    def is_over(self, now_s: float) -> bool:
        """Whether it was not read for so long that it surely ended."""
        return now_s - self.last_s > PATIENCE * self.period_s + _UNSEEN_S


class Schedules(NamedTuple):
    """What was told: ``seen_s`` is until when reads are known of."""

    seen_s: float
    schedules: tuple[Schedule, ...]


def write(folder: Path, told: Schedules) -> None:
    """Tell workers.

    Raises:
        OSError: the disk does not take it; what was told before stays.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    document = orjson.dumps(
        {
            "format": _FORMAT,
            "seen_s": told.seen_s,
            "schedules": [
                [one.key.hex(), one.rule, one.period_s, one.tolerance_s, one.anchor_s, one.last_s, one.hit]
                for one in told.schedules
            ],
        }
    )
    half = folder / f".{FILE}.{os.getpid()}"
    try:
        half.write_bytes(hashlib.sha256(document).hexdigest().encode() + b"\n" + document)
        half.replace(folder / FILE)
    finally:
        half.unlink(missing_ok=True)


def read(folder: Path) -> Schedules:
    """What was told last; nothing where there is no file.

    Raises:
        IntegrityFailure: it is not what its digest says, or of no such form.
    """
    try:
        with (folder / FILE).open("rb") as file:
            contents = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return Schedules(0.0, ())
    except OSError as error:
        raise IntegrityFailure(f"the schedules cannot be read: {error.strerror}") from error
    digest, _, document = contents.partition(b"\n")
    if len(contents) > _MOST_BYTES or hashlib.sha256(document).hexdigest().encode() != digest:
        raise IntegrityFailure("the schedules are not what their digest says; the learner writes them anew")
    try:
        return _schedules_of(orjson.loads(document))
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityFailure(f"the schedules are none ({error}); the learner writes them anew") from error


def _schedules_of(document: Any) -> Schedules:
    if document["format"] != _FORMAT:
        raise ValueError(f"format {document['format']!r}")
    rows: Sequence[Any] = document["schedules"]
    if len(rows) > MOST:
        raise ValueError(f"{len(rows)} are too many")
    return Schedules(float(document["seen_s"]), tuple(_schedule_of(*row) for row in rows))


def _schedule_of(key: str, rule: str, *numbers: float) -> Schedule:
    period, tolerance, anchor, last, hit = numbers
    if not (0 <= tolerance < period and math.isfinite(anchor + last)):
        raise ValueError(f"no such schedule as {rule!r}")
    return Schedule(bytes.fromhex(key), rule, period, tolerance, anchor, last, bool(hit))
