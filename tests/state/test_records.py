from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import orjson
import pytest
from hypothesis import example, given

from predis.state import records
from predis.state.records import Arm, Block, BlockEncoder, More, Status, decode, decode_all, encode

names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
moments = st.integers(-(2**63), 2**63 - 1)
small = st.integers(0, 2**32 - 1)
numbers = st.floats(width=64)


@st.composite
def blocks(draw: st.DrawFn, columns: int | None = None, *, shadow: bool | None = None) -> Block:
    status = draw(st.lists(st.sampled_from(Status), min_size=1, max_size=6))
    n = len(status)
    rows = [draw(st.integers(0, 4)) if each is Status.OK else 0 for each in status]
    total, columns = sum(rows), draw(st.integers(0, 5)) if columns is None else columns
    shadow = draw(st.booleans()) if shadow is None else shadow
    texts = draw(st.lists(st.tuples(st.integers(0, total - 1), st.integers(0, 9), names))) if total else []

    def some(values: st.SearchStrategy[Any], count: int) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    return Block(
        tenant=draw(names),
        endpoint=draw(names),
        version=draw(small),
        ids=some(names, n),
        status=np.array(status, np.uint8),
        arms=np.array(some(st.sampled_from(Arm), n), np.uint8),
        rows=np.array(rows, np.uint32),
        received_at=np.array(some(moments, n), np.int64),
        event_at=np.array(some(moments, n), np.int64),
        latency_us=np.array(some(small, n), np.uint32),
        scores=np.array(some(numbers, total), np.float64),
        features=np.array(some(numbers, total * columns), np.float64).reshape(total, columns),
        answers=np.array(some(numbers, total if shadow else 0), np.float64),
        extra=orjson.dumps(texts) if texts else b"",
    )


def same(first: Block, second: Block) -> bool:
    """Every bit of them."""
    for field in fields(Block):
        mine, theirs = getattr(first, field.name), getattr(second, field.name)
        if isinstance(mine, np.ndarray):
            if (mine.shape, mine.dtype, mine.tobytes()) != (theirs.shape, theirs.dtype, theirs.tobytes()):
                return False
        elif (type(mine), mine) != (type(theirs), theirs):
            return False
    return True


def plain(*ids: str, **changes: Any) -> Block:
    """A block of one-row requests with three features."""
    n = len(ids)
    ones = np.ones(n, np.int64)
    block = Block(
        "default", "churn", 3, list(ids), np.zeros(n, np.uint8), np.zeros(n, np.uint8), ones.astype(np.uint32), ones, 2 * ones,
        3 * ones.astype(np.uint32), np.full(n, 0.5), np.tile([1.0, np.nan, -1.0], (n, 1)),
    )  # fmt: skip
    return replace(block, **changes)


PLAIN = plain("a-1", "a-2", extra=b'[[1,2,"neu"]]')


class TestRoundTrip:
    @given(blocks())
    def test_nothing_changes(self, block: Block) -> None:
        assert same(decode(encode(block)), block)

    def test_the_arrays_are_read_only(self) -> None:
        found = decode(encode(PLAIN))
        assert not any(
            getattr(found, field.name).flags.writeable
            for field in fields(Block)
            if isinstance(getattr(found, field.name), np.ndarray)
        )

    def test_arrays_start_where_the_processor_likes_it(self) -> None:
        payload = encode(PLAIN)
        assert payload.index(PLAIN.received_at.tobytes()) % 8 == 0
        assert payload.index(PLAIN.scores.tobytes()) % 8 == 0
        assert payload.index(PLAIN.features.tobytes()) % 8 == 0
        copies = plain("a", "b", "c", answers=np.array([0.25, 0.75, 2.5]))
        assert encode(copies).index(copies.answers.tobytes()) % 8 == 0

    def test_ids_of_any_alphabet(self) -> None:
        ids = ["ä" * 128, "日本語", "x" * 128, "🦉"]
        assert decode(encode(plain(*ids))).ids == ids

    @pytest.mark.parametrize(("given_us", "kept"), [(-5, 0), (2**32, 2**32 - 1), (10**15, 2**32 - 1)])
    def test_a_latency_beyond_its_field_is_the_nearest_that_fits(self, given_us: int, kept: int) -> None:
        payload = BlockEncoder("t", "e", version=1).encode(
            ["a", "b"],
            bytes(2),
            numbers=([1, 1], [5, 6], [7, 8], [12, given_us]),
            scores=np.zeros(2),
            features=np.zeros((2, 1)),
        )
        assert decode(payload).latency_us.tolist() == [12, kept]

    @pytest.mark.parametrize("status", [Status.REJECTED, Status.FAILED])
    def test_of_a_refusal_there_is_nothing_to_store(self, status: Status) -> None:
        encoder = BlockEncoder("t", "e", version=7)
        found = decode(encoder.refused("name", status, received_at=1, event_at=2, latency_us=3))
        assert (found.tenant, found.endpoint, found.version, found.ids) == ("t", "e", 7, ["name"])
        assert (found.status.tolist(), found.rows.tolist()) == ([status], [0])
        assert (found.received_at.tolist(), found.event_at.tolist(), found.latency_us.tolist()) == (
            [1], [2], [3],
        )  # fmt: skip
        assert (found.scores.shape, found.features.shape) == ((0,), (0, 0))

    def test_requests_are_ordinary_unless_said_otherwise(self) -> None:
        encoder = BlockEncoder("t", "e", version=7)
        numbers = ([1, 1], [5, 6], [7, 8], [9, 9])
        scores, features = np.zeros(2), np.zeros((2, 1))
        found = decode(
            encoder.encode(["a", "b"], bytes(2), numbers=numbers, scores=scores, features=features)
        )
        assert (found.arms.tolist(), found.answers.shape) == ([Arm.ORDINARY] * 2, (0,))
        more = More(bytes((Arm.COMPARED, Arm.SHADOW)), np.ones(2))
        found = decode(
            encoder.encode(["a", "b"], bytes(2), numbers=numbers, scores=scores, features=features, more=more)
        )
        assert (found.arms.tolist(), found.answers.tolist()) == ([Arm.COMPARED, Arm.SHADOW], [1.0, 1.0])
        payload = encoder.refused(
            "n", Status.FAILED, received_at=1, event_at=2, latency_us=3, more=More(bytes((Arm.SHADOW,)))
        )
        assert decode(payload).arms.tolist() == [Arm.SHADOW]

    def test_features_that_were_not_captured(self) -> None:
        found = decode(encode(plain("a", "b", features=np.empty((2, 0)))))
        assert (found.scores.tolist(), found.features.shape) == ([0.5, 0.5], (2, 0))


class TestTogether:
    """Blocks of one version are put together; which payloads are none is told."""

    @given(st.lists(blocks(columns=2, shadow=False), min_size=1, max_size=5))
    def test_one_after_the_other(self, parts: list[Block]) -> None:
        parts = [replace(part, tenant="t", endpoint="e", version=1) for part in parts]
        (found,), unreadable = decode_all([encode(part) for part in parts])
        assert unreadable == []
        assert found.ids == [name for part in parts for name in part.ids]
        for name in ("status", "arms", "rows", "received_at", "event_at", "latency_us", "scores", "features"):
            expected = np.concatenate([getattr(part, name) for part in parts])
            assert getattr(found, name).tobytes() == expected.tobytes()
        texts = []
        first = 0
        for part in parts:
            texts += [[first + row, *rest] for row, *rest in orjson.loads(part.extra or b"[]")]
            first += len(part.scores)
        assert orjson.loads(found.extra or b"[]") == texts

    def test_what_is_of_another_version_or_width_stays_apart(self) -> None:
        parts = [
            plain("a"), plain("b", version=4), plain("c", tenant="other"), plain("d", endpoint="other"),
            plain("e", features=np.empty((1, 0))), plain("f"),
        ]  # fmt: skip
        found, unreadable = decode_all([encode(part) for part in parts])
        assert unreadable == []
        assert [block.ids for block in found] == [["a", "f"], ["b"], ["c"], ["d"], ["e"]]

    @given(st.lists(blocks(columns=1), min_size=1, max_size=6))
    def test_copies_keep_their_answers(self, parts: list[Block]) -> None:
        parts = [replace(part, tenant="t", endpoint="e", version=1) for part in parts]
        found, unreadable = decode_all([encode(part) for part in parts])
        assert unreadable == []
        for block, copied in ((b, len(b.answers) > 0) for b in found):
            mine = [part for part in parts if (len(part.answers) > 0) is copied]
            assert block.ids == [name for part in mine for name in part.ids]
            assert block.answers.tobytes() == b"".join(part.answers.tobytes() for part in mine)
            assert len(block.answers) == (len(block.scores) if copied else 0)

    def test_nothing(self) -> None:
        assert decode_all([]) == ([], [])

    def test_names_that_only_look_alike_when_joined(self) -> None:
        found, _ = decode_all(
            [encode(plain("a", tenant="xy", endpoint="z")), encode(plain("b", tenant="x", endpoint="yz"))]
        )
        assert [(block.tenant, block.endpoint) for block in found] == [("xy", "z"), ("x", "yz")]

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_garbage_costs_only_itself(self, place: int) -> None:
        payloads = [encode(plain(name)) for name in "ab"]
        payloads.insert(place, b"garbage")
        (found,), unreadable = decode_all(payloads)
        assert (found.ids, unreadable) == (["a", "b"], [place])

    @pytest.mark.parametrize(
        "liar",
        [
            plain("x", rows=np.array([2], np.uint32)),
            plain("x", status=np.array([Status.FAILED], np.uint8)),
            plain("x", status=np.array([77], np.uint8)),
            plain("x", arms=np.array([3], np.uint8)),
            plain("x\0y"),
            plain("x", extra=b"garbage"),
            plain("x", extra=b"[[1]]"),
            plain("x", extra=b'[[1, 0, "a row there is not"]]'),
            plain("x", extra=b'[["0", 0, "a"]]'),
            plain("x", extra=b"7"),
        ],
    )
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_so_does_a_payload_that_contradicts_itself(self, liar: Block, place: int) -> None:
        payloads = [encode(plain("a")), encode(plain("b", extra=b'[[0,1,"t"]]'))]
        payloads.insert(place, encode(liar))
        (found,), unreadable = decode_all(payloads)
        assert (found.ids, orjson.loads(found.extra), unreadable) == (["a", "b"], [[1, 1, "t"]], [place])
        assert decode_all([encode(liar)]) == ([], [0])


class TestGarbage:
    """Whatever the bytes are, ``decode`` answers a block or raises ValueError, nothing else."""

    @staticmethod
    def try_decode(payload: bytes) -> None:
        try:
            found = decode(payload)
        except ValueError:
            return
        assert len(found.ids) == len(found.status) == len(found.rows)
        assert found.rows.sum() == len(found.scores) == len(found.features)

    @given(st.binary(max_size=200))
    @example(b"")
    def test_any_bytes(self, payload: bytes) -> None:
        self.try_decode(payload)

    @given(blocks(), st.data())
    def test_a_block_with_some_bytes_changed(self, block: Block, data: st.DataObject) -> None:
        payload = bytearray(encode(block))
        for _ in range(data.draw(st.integers(1, 4))):
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
        self.try_decode(bytes(payload))

    @given(blocks(), st.data())
    def test_a_block_cut_short_is_none(self, block: Block, data: st.DataObject) -> None:
        payload = encode(block)
        with pytest.raises(ValueError, match="of this format"):
            decode(payload[: data.draw(st.integers(0, len(payload) - 1))])

    @given(blocks(), st.binary(min_size=1, max_size=20))
    def test_a_block_with_more_behind_it_is_none(self, block: Block, more: bytes) -> None:
        with pytest.raises(ValueError, match="of this format"):
            decode(encode(block) + more)

    def test_another_kind_of_record(self) -> None:
        with pytest.raises(ValueError, match="of this format"):
            decode(b"\1" + encode(PLAIN)[1:])

    def test_answers_to_some_of_the_rows(self) -> None:
        with pytest.raises(ValueError, match="of this format"):
            decode(encode(plain("a", "b", answers=np.array([0.5]))))

    def test_sizes_that_no_memory_holds(self) -> None:
        payload = bytearray(encode(PLAIN))
        largest = [2**32 - 1] * 6
        records._HEAD.pack_into(payload, 0, 3, 0, 13, 3, *largest)
        with pytest.raises(ValueError, match="of this format"):
            decode(bytes(payload))
