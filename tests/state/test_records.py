from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from predis.state import records
from predis.state.records import PredictionRecord, Status, decode, encode, target_bytes

names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
moments = st.integers(-(2**63), 2**63 - 1)
numbers = st.floats(width=64)


@st.composite
def prediction_records(draw: st.DrawFn) -> PredictionRecord:
    rows, columns = draw(st.integers(0, 5)), draw(st.integers(0, 6))
    scores = draw(st.lists(numbers, min_size=rows, max_size=rows))
    features = draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
    return PredictionRecord(
        tenant=draw(names),
        endpoint=draw(names),
        version=draw(st.integers(0, 2**32 - 1)),
        id=draw(st.text(st.characters(codec="utf-8"), max_size=80)),
        status=draw(st.sampled_from(Status)),
        received_at=draw(moments),
        event_at=draw(moments),
        latency_us=draw(st.integers(0, 2**32 - 1)),
        scores=np.array(scores, np.float64),
        features=np.array(features, np.float64).reshape(rows, columns),
        extra=draw(st.binary(max_size=50)),
    )


def encoded(record: PredictionRecord, **changes: Any) -> bytes:
    return encode(
        (
            target_bytes(record.tenant, record.endpoint),
            record.id.encode(),
            record.version,
            changes.get("status", record.status),
        ),
        (record.received_at, record.event_at, changes.get("latency_us", record.latency_us)),
        scores=record.scores,
        features=record.features,
        extra=record.extra,
    )


PLAIN = PredictionRecord(
    "default", "churn", 3, "a-1", Status.OK, 1, 2, 3, np.array([0.5]), np.array([[1.0, np.nan, -1.0]]), b"[]"
)


class TestRoundTrip:
    @given(prediction_records())
    def test_nothing_changes(self, record: PredictionRecord) -> None:
        found = decode(encoded(record))
        for name in PredictionRecord.__slots__:
            mine, theirs = getattr(record, name), getattr(found, name)
            if isinstance(mine, np.ndarray):
                assert (theirs.shape, theirs.dtype) == (mine.shape, np.float64)
                assert theirs.tobytes() == mine.tobytes()
            else:
                assert (type(theirs), theirs) == (type(mine), mine)

    def test_the_arrays_are_views(self) -> None:
        found = decode(encoded(PLAIN))
        assert not found.features.flags.writeable
        assert not found.features.flags.owndata

    def test_a_matrix_in_another_order_of_memory(self) -> None:
        matrix = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        payload = encode(
            (target_bytes("t", "e"), b"id", 1, Status.OK), (0, 0, 0), scores=np.zeros(2), features=matrix
        )
        assert decode(payload).features.tolist() == matrix.tolist()

    @pytest.mark.parametrize(("given_us", "kept"), [(-5, 0), (2**32, 2**32 - 1), (10**15, 2**32 - 1)])
    def test_a_latency_beyond_its_field_is_the_nearest_that_fits(self, given_us: int, kept: int) -> None:
        assert decode(encoded(PLAIN, latency_us=given_us)).latency_us == kept

    @pytest.mark.parametrize("status", [Status.REJECTED, Status.FAILED])
    def test_of_a_failure_there_is_nothing_to_store(self, status: Status) -> None:
        payload = encode(
            (target_bytes("t", "e"), b"id", 1, status),
            (0, 0, 0),
            scores=np.empty(0),
            features=np.empty((0, 0)),
        )
        found = decode(payload)
        assert (found.status, found.scores.shape, found.features.shape) == (status, (0,), (0, 0))


class TestGarbage:
    """Whatever the bytes are, ``decode`` answers a record or raises ValueError, nothing else."""

    @staticmethod
    def try_decode(payload: bytes) -> None:
        try:
            found = decode(payload)
        except ValueError:
            return
        assert found.scores.shape == found.features.shape[:1]

    @given(st.binary(max_size=200))
    @example(b"")
    def test_any_bytes(self, payload: bytes) -> None:
        self.try_decode(payload)

    @given(prediction_records(), st.data())
    def test_a_record_with_some_bytes_changed(self, record: PredictionRecord, data: st.DataObject) -> None:
        payload = bytearray(encoded(record))
        for _ in range(data.draw(st.integers(1, 4))):
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
        self.try_decode(bytes(payload))

    @given(prediction_records(), st.data())
    def test_a_record_cut_short_is_none(self, record: PredictionRecord, data: st.DataObject) -> None:
        payload = encoded(record)
        with pytest.raises(ValueError, match=r".+"):
            decode(payload[: data.draw(st.integers(0, len(payload) - 1))])

    @given(prediction_records(), st.binary(min_size=1, max_size=20))
    def test_a_record_with_more_behind_it_is_none(self, record: PredictionRecord, more: bytes) -> None:
        with pytest.raises(ValueError, match="not a prediction record"):
            decode(encoded(record) + more)

    def test_another_kind_of_record(self) -> None:
        payload = encoded(PLAIN)
        with pytest.raises(ValueError, match="of this format"):
            decode(b"\2" + payload[1:])

    def test_a_status_there_is_not(self) -> None:
        with pytest.raises(ValueError, match="77"):
            decode(encoded(PLAIN, status=77))

    def test_sizes_that_no_memory_holds(self) -> None:
        payload = bytearray(encoded(PLAIN))
        records._FIXED.pack_into(payload, 0, 1, 0, 3, 3, 1, 2, 3, 2**32 - 1, 2**16 - 1, 13, 2)
        with pytest.raises(ValueError, match="buffer"):
            decode(bytes(payload))
