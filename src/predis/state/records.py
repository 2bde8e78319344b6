"""What one journal record says about one inference request, as bytes.

Written by serving, read by monitoring, which must not know each other; so the format lives here, below both. Features are a
float64 matrix (levels of categorical features as their codes, -1 for a level the signature does not know, NaN for missing):
one memory copy, no object per value. What does not fit a float (the text of an unknown level) goes to ``extra`` as JSON.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_FIXED = struct.Struct("<BBHIqqIIIHI")
_LATENCY_MAX = 2**32 - 1


class Status(IntEnum):
    """How a request ended, as far as its version is concerned."""

    OK = 0
    REJECTED = 1  # the request was at fault
    FAILED = 2  # the model or the server was at fault


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """One request answered (or not) by one version.

    ``features`` is [rows, columns] and ``scores`` [rows]; both are empty unless the status is OK. Moments are nanoseconds,
    the latency microseconds.
    """

    tenant: str
    endpoint: str
    version: int
    id: str
    status: Status
    received_at: int
    event_at: int
    latency_us: int
    scores: Matrix
    features: Matrix
    extra: bytes = b""


def encode(
    head: tuple[bytes, bytes, int, int],
    times: tuple[int, int, int],
    *,
    scores: Matrix,
    features: Matrix,
    extra: bytes = b"",
) -> bytes:
    """The payload of one record.

    Args:
        head: ``target_bytes(tenant, endpoint)`` (made once per endpoint), the prediction's id, version and status.
        times: received and event moment in nanoseconds, latency in microseconds.
        scores, features: [rows] and [rows, columns], C-contiguous float64.
        extra: JSON of texts outside the levels.
    """
    target, record_id, version, status = head
    received_at, event_at, latency_us = times
    rows, columns = features.shape
    fixed = _FIXED.pack(
        1, status, len(record_id), version, received_at, event_at, min(max(latency_us, 0), _LATENCY_MAX), rows, columns,
        len(target), len(extra),
    )  # fmt: skip
    return b"".join((fixed, target, record_id, scores.tobytes(), features.tobytes(), extra))


def target_bytes(tenant: str, endpoint: str) -> bytes:
    return f"{tenant}\0{endpoint}".encode()


def decode(payload: bytes) -> PredictionRecord:
    """The record in a payload. The arrays are read-only views of it.

    Raises:
        ValueError: the payload is not a record of this format.
    """
    try:
        fields = _FIXED.unpack_from(payload)
        (
            kind,
            status,
            id_length,
            version,
            received_at,
            event_at,
            latency_us,
            rows,
            columns,
            target_length,
            extra_length,
        ) = fields
        at = _FIXED.size
        tenant, endpoint = payload[at : at + target_length].decode().split("\0")
        at += target_length
        record_id = payload[at : at + id_length].decode()
        at += id_length
        scores = np.frombuffer(payload, np.float64, rows, at)
        at += rows * 8
        features = np.frombuffer(payload, np.float64, rows * columns, at).reshape(rows, columns)
        at += rows * columns * 8
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"not a prediction record: {error}") from error
    if kind != 1 or at + extra_length != len(payload):
        raise ValueError("not a prediction record of this format")
    return PredictionRecord(
        tenant,
        endpoint,
        version,
        record_id,
        Status(status),
        received_at,
        event_at,
        latency_us,
        scores,
        features,
        payload[at:],
    )
