"""What one journal record says about inference requests that one version answered together, as bytes: a *block*.

Written by serving, read by monitoring, which must not know each other; so the format lives here, below both. Features are a
float64 matrix (levels of categorical features as their codes, -1 for a level the signature does not know, NaN for missing):
one memory copy, no object per value. What does not fit a float (the text of an unknown level) goes to ``extra`` as JSON.

Layout, little-endian; n requests, r rows of them all, c columns, a answers (r or 0). Whatever is an array of more than bytes starts at a
multiple of eight:

    kind(u8) zero(u8) target_bytes(u16) version(u32) n(u32) r(u32) c(u32) id_bytes(u32) extra_bytes(u32) a(u32)
    received_at(i64[n]) event_at(i64[n]) latency_us(u32[n]) rows(u32[n]) scores(f64[r]) features(f64[r, c]) answers(f64[a])
    status(u8[n]) arms(u8[n]) target ids extra

The target is tenant and endpoint, the ids are texts; a NUL stands between one and the next.

The writer's side costs a few memory copies whatever n is: the numbers go through one ``struct``, which beats ``array`` and numpy on lists
of any length, and the arrays are joined as the buffers they are. The reader's side puts the blocks of one version together before it makes
an array of anything, so that its cost hangs on the number of versions and not of blocks.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Numbers = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]

REASON = -1  # the column in ``extra`` that says why a request was refused
_KIND = 3
_CONSTANT = struct.Struct("<BBHI")
_HEAD = struct.Struct("<BBHIIIIIII")
_LATENCY_MAX = 2**32 - 1
_PAYLOAD_MAX = 2**31
_NO_SCORES: Matrix = np.empty(0)
_NO_FEATURES: Matrix = np.empty((0, 0))


class Status(IntEnum):
    """How a request ended, as far as its version is concerned."""

    OK = 0
    REJECTED = 1  # the request was at fault
    FAILED = 2  # the model or the server was at fault


class Arm(IntEnum):
    """How a request came to its version: what keeps the evidence of a rollout apart from other traffic."""

    ORDINARY = 0  # no part of a comparison
    COMPARED = 1  # the version was drawn by chance, between two or more that could have been
    SHADOW = 2  # a copy of a request that another version answered; nobody got this answer


@dataclass(frozen=True, slots=True)
class Block:
    """Requests answered (or not) by one version.

    ``rows`` are those of each request, 0 unless its status is OK; they stand in ``scores`` and ``features`` one request after the other.
    ``features`` has no columns where they were not captured. Moments are nanoseconds, the latency microseconds. ``extra`` is JSON
    [[row, column, text], ...] of texts outside the levels, with rows of the block; of column ``REASON``: why a request was refused.
    ``answers`` belong to shadow copies: the scores that the client got for the same rows from the version that answered; there are as many
    as ``scores``, or none.
    """

    tenant: str
    endpoint: str
    version: int
    ids: list[str]
    status: NDArray[np.uint8]
    arms: NDArray[np.uint8]
    rows: NDArray[np.uint32]
    received_at: NDArray[np.int64]
    event_at: NDArray[np.int64]
    latency_us: NDArray[np.uint32]
    scores: Matrix
    features: Matrix
    answers: Matrix = field(default_factory=lambda: _NO_SCORES)
    extra: bytes = b""

    def unseen(self) -> dict[int, dict[int, str]]:
        """Texts that are no level of their column, by column and row."""
        found: dict[int, dict[int, str]] = defaultdict(dict)
        for row, column, text in orjson.loads(self.extra) if self.extra else ():
            if column != REASON:
                found[column][row] = text
        return found


class More(NamedTuple):
    """What most blocks do without.

    ``arms`` is the ``Arm`` of each request (empty: all ordinary), ``answers`` and ``extra`` are as in ``Block``.
    """

    arms: bytes = b""
    answers: Matrix = _NO_SCORES
    extra: bytes = b""


_NO_MORE = More()


class BlockEncoder:
    """Makes the payloads of one version of an endpoint."""

    def __init__(self, tenant: str, endpoint: str, *, version: int) -> None:
        self._target = f"{tenant}\0{endpoint}".encode()
        self._constant = _CONSTANT.pack(_KIND, 0, len(self._target), version)

    def encode(
        self,
        ids: Sequence[str],
        status: Sequence[int],
        *,
        numbers: Numbers,
        scores: Matrix,
        features: Matrix,
        more: More = _NO_MORE,
    ) -> bytes:
        """The payload of requests that this version answered together.

        Args:
            ids: printable texts, one per request.
            status: ``Status`` of each; ``bytes(n)`` says that all is well.
            numbers: rows, moment received, moment of the event (nanoseconds) and latency (microseconds) of each.
            scores, features: [sum of rows] and [sum of rows, columns], C-contiguous float64; no columns: not captured.
        """
        arms, answers, extra = more
        rows, received_at, event_at, latency_us = numbers
        n = len(ids)
        texts = "\0".join(ids).encode()
        sizes = (n, len(scores), features.shape[1], len(texts), len(extra), len(answers))
        try:
            fixed = _numbers(n).pack(self._constant, *sizes, *received_at, *event_at, *latency_us, *rows)
        except struct.error:  # so seldom that it would be a waste to look at every latency beforehand
            latency_us = [min(max(each, 0), _LATENCY_MAX) for each in latency_us]
            fixed = _numbers(n).pack(self._constant, *sizes, *received_at, *event_at, *latency_us, *rows)
        marks = (bytes(status), arms or bytes(n), self._target, texts, extra)
        parts: tuple[Any, ...] = (fixed, scores, features, answers, *marks)
        return b"".join(parts)

    def refused(
        self,
        name: str,
        status: Status,
        *,
        received_at: int,
        event_at: int,
        latency_us: int,
        more: More = _NO_MORE,
    ) -> bytes:
        """The payload of one request that got no answer. ``more`` may have a ``reason`` as its extra."""
        numbers = ((0,), (received_at,), (event_at,), (latency_us,))
        return self.encode(
            (name,),
            (status,),
            numbers=numbers,
            scores=_NO_SCORES,
            features=_NO_FEATURES,
            more=more,
        )


def reason(why: str) -> bytes:
    """What goes to ``extra`` where a request was refused; nothing without a reason."""
    return orjson.dumps([[0, REASON, why]]) if why else b""


def encode(block: Block) -> bytes:
    """The payload of a block, where nothing is in a hurry."""
    encoder = BlockEncoder(block.tenant, block.endpoint, version=block.version)
    return encoder.encode(
        block.ids,
        block.status.tolist(),
        numbers=(
            block.rows.tolist(),
            block.received_at.tolist(),
            block.event_at.tolist(),
            block.latency_us.tolist(),
        ),
        scores=np.ascontiguousarray(block.scores),
        features=np.ascontiguousarray(block.features),
        more=More(block.arms.tobytes(), np.ascontiguousarray(block.answers), block.extra),
    )


def decode(payload: bytes) -> Block:
    """The block in a payload. Its arrays are read-only.

    Raises:
        ValueError: the payload is not a block of this format.
    """
    blocks, unreadable = decode_all([payload])
    if unreadable:
        raise ValueError("not a block of prediction records of this format")
    return blocks[0]


def decode_all(payloads: Sequence[bytes]) -> tuple[list[Block], list[int]]:
    """The blocks in payloads, put together, and which payloads (by their place) are none.

    Blocks of the same version with the same number of columns become one, with their requests in the order of the payloads; those with
    answers beside those without.
    """
    groups: dict[tuple[bytes, int, int, bool], _Group] = defaultdict(lambda: ([], []))
    unreadable = []
    for place, payload in enumerate(payloads):
        layout = _layout_of(payload[: _HEAD.size])
        if layout is None or layout.size != len(payload):
            unreadable.append(place)
            continue
        fields = layout.cut(payload)
        places, cut = groups[fields[_TARGET], layout.version, layout.columns, layout.has_answers]
        places.append(place)
        cut += fields
    blocks = []
    for (_target, version, columns, _has_answers), (places, cut) in groups.items():
        block = _merged(cut, version=version, columns=columns)
        if (
            block is None
        ):  # one of them contradicts itself, which takes another program that writes such files
            each = [cut[at : at + _FIELDS] for at in range(0, len(cut), _FIELDS)]
            fit = [_merged(one, version=version, columns=columns) is not None for one in each]
            unreadable += [place for place, good in zip(places, fit, strict=True) if not good]
            cut = [part for one, good in zip(each, fit, strict=True) if good for part in one]
            block = _merged(cut, version=version, columns=columns) if cut else None
        if block is not None:
            blocks.append(block)
    return blocks, sorted(unreadable)


# Places of payloads, and their fields, one payload's after the other's: a tuple for each would keep the garbage collector busy.
_Group = tuple[list[int], list[bytes]]
_FIELDS = 12
_TARGET = 9


class _Layout(NamedTuple):
    """What a head says of its payload: its size, whose it is but for the names, and how to cut it into fields."""

    size: int
    version: int
    columns: int
    has_answers: bool
    cut: Callable[[bytes], tuple[bytes, ...]]


@lru_cache(maxsize=4096)
def _layout_of(head: bytes) -> _Layout | None:
    """Few different heads make up a journal, so each is looked at once. None: it is no head of this format."""
    try:
        kind, _zero, target, version, n, rows, columns, ids, extra, answers = _HEAD.unpack(head)
    except struct.error:
        return None
    numbers = 8 * n, 8 * n, 4 * n, 4 * n, 8 * rows, 8 * rows * columns, 8 * answers, n, n
    size = _HEAD.size + sum(numbers) + target + ids + extra
    if kind != _KIND or n == 0 or answers not in (0, rows) or size > _PAYLOAD_MAX:
        return None
    cut = "".join(f"{each}s" for each in (*numbers, target, ids, extra))
    return _Layout(size, version, columns, answers > 0, struct.Struct(f"{_HEAD.size}x{cut}").unpack)


def _merged(fields: Sequence[bytes], *, version: int, columns: int) -> Block | None:
    """The payloads of one version as one block; None where something in them contradicts itself."""
    (
        received_at, event_at, latency_us, rows, scores, features, answers,
        status, arms, targets, ids, extra,
    ) = (fields[at::_FIELDS] for at in range(_FIELDS))  # fmt: skip
    outputs = np.frombuffer(b"".join(scores), "<f8")
    try:
        tenant, endpoint = targets[0].decode().split("\0")
        block = Block(
            tenant=tenant,
            endpoint=endpoint,
            version=version,
            ids=b"\0".join(ids).decode().split("\0"),
            status=np.frombuffer(b"".join(status), np.uint8),
            arms=np.frombuffer(b"".join(arms), np.uint8),
            rows=np.frombuffer(b"".join(rows), "<u4"),
            received_at=np.frombuffer(b"".join(received_at), "<i8"),
            event_at=np.frombuffer(b"".join(event_at), "<i8"),
            latency_us=np.frombuffer(b"".join(latency_us), "<u4"),
            scores=outputs,
            features=np.frombuffer(b"".join(features), "<f8").reshape(len(outputs), columns),
            answers=np.frombuffer(b"".join(answers), "<f8"),
            extra=_joined_extra(extra, scores) if any(extra) else b"",
        )
    except (ValueError, TypeError):  # texts that are none
        return None
    answered = block.status == Status.OK
    fits = (
        len(block.ids) == len(block.status)
        and block.status.max() <= max(Status)
        and block.arms.max() <= max(Arm)
        and block.rows.sum() == block.rows.sum(where=answered) == len(block.scores)
    )
    return block if fits else None


def _joined_extra(extra: Sequence[bytes], scores: Sequence[bytes]) -> bytes:
    """The extra of several blocks, with rows of them all; ``scores`` tell how many rows each has.

    Raises:
        ValueError, TypeError: one is not what ``Block`` says.
    """
    texts = []
    first = 0
    for each, numbers in zip(extra, scores, strict=True):
        rows = len(numbers) // 8
        for row, column, text in orjson.loads(each) if each else ():
            if column == REASON:  # of a request that has no row
                texts.append([0, column, text])
                continue
            if not 0 <= row < rows:
                raise ValueError(f"a text of row {row}, where there are {rows}")
            texts.append([first + row, column, text])
        first += rows
    return orjson.dumps(texts) if texts else b""


@lru_cache(maxsize=4096)
def _numbers(n: int) -> struct.Struct:
    """Head and numbers of ``n`` requests."""
    return struct.Struct(f"<8s6I{n}q{n}q{n}I{n}I")
