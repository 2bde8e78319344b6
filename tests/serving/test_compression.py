from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidRequest, TooLarge
from predis.serving.compression import compressed, decompressed

MOST = 10_000
BODY = b'{"inputs":[]}' * 100
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}
each_encoding = pytest.mark.parametrize("encoding", PACKERS)


def streamed_zstd(content: bytes) -> bytes:
    """A frame that does not say what it unpacks to."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(content) + packer.flush()


class TestDecompressed:
    @each_encoding
    def test_gives_what_was_packed(self, encoding: str) -> None:
        for name in (encoding, encoding.upper(), f" {encoding} "):
            assert decompressed(PACKERS[encoding](BODY), name, most=MOST) == BODY
        assert decompressed(PACKERS[encoding](b""), encoding, most=MOST) == b""

    @pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
    def test_what_is_not_packed(self, encoding: str) -> None:
        assert decompressed(BODY, encoding, most=1) == BODY

    @each_encoding
    def test_up_to_the_limit_and_not_beyond(self, encoding: str) -> None:
        assert decompressed(PACKERS[encoding](b"a" * MOST), encoding, most=MOST) == b"a" * MOST
        for size in (MOST + 1, 50 * MOST):
            with pytest.raises(TooLarge, match=f"more than {MOST} bytes .setting max_body_bytes"):
                decompressed(PACKERS[encoding](b"a" * size), encoding, most=MOST)

    def test_a_zstd_frame_of_unknown_size(self) -> None:
        assert decompressed(streamed_zstd(BODY), "zstd", most=MOST) == BODY
        with pytest.raises(TooLarge):
            decompressed(streamed_zstd(b"a" * (MOST + 1)), "zstd", most=MOST)

    @each_encoding
    def test_a_bomb_is_let_go_in_time(self, encoding: str) -> None:
        """100 MB in some kilobytes; no more than the limit is ever unpacked."""
        bomb = PACKERS[encoding](bytes(100 << 20))
        tracemalloc.start()
        try:
            with pytest.raises(TooLarge):
                decompressed(bomb, encoding, most=1 << 20)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()

    @each_encoding
    @pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 40, BODY])
    def test_what_is_not_of_it(self, encoding: str, content: bytes) -> None:
        with pytest.raises(InvalidRequest, match=f"the body is not {encoding}"):
            decompressed(content, encoding, most=MOST)

    @each_encoding
    def test_what_is_cut_short_or_goes_on(self, encoding: str) -> None:
        packed = PACKERS[encoding](BODY)
        for content in (packed[:-1], packed[: len(packed) // 2], packed[:3]):
            with pytest.raises(InvalidRequest):
                decompressed(content, encoding, most=MOST)
        with pytest.raises(InvalidRequest, match="something follows it"):
            decompressed(packed + b"more", encoding, most=MOST)

    def test_a_zstd_frame_of_unknown_size_cut_short(self) -> None:
        packed = streamed_zstd(BODY)
        for content in (packed[:-1], packed[: len(packed) // 2]):
            with pytest.raises(InvalidRequest, match="ends too early"):
                decompressed(content, "zstd", most=MOST)

    def test_a_zstd_frame_that_wants_too_much_memory(self) -> None:
        parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        packed = packer.compress(BODY * 10) + packer.flush()
        with pytest.raises(InvalidRequest, match="the body is not zstd"):
            decompressed(packed, "zstd", most=1 << 20)

    @pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "compress", "x" * 5000, "é"])
    def test_an_encoding_that_is_not_known(self, encoding: str) -> None:
        with pytest.raises(InvalidRequest, match="is none of gzip, deflate, zstd") as caught:
            decompressed(BODY, encoding, most=MOST)
        assert len(str(caught.value)) < 200

    @given(st.binary(max_size=80), st.sampled_from(list(PACKERS)), st.booleans())
    def test_any_bytes(self, content: bytes, encoding: str, packed: bool) -> None:
        if packed:
            assert decompressed(PACKERS[encoding](content), encoding, most=MOST) == content
            return
        with pytest.raises((InvalidRequest, TooLarge)):
            decompressed(content, encoding, most=20)


class TestCompressed:
    LONG = b'{"outputs":[]}' * 100

    def answer(self, accepted: str, body: bytes = LONG) -> tuple[bytes, bytes]:
        headers: list[tuple[bytes, bytes]] = []
        packed = compressed(body, accepted, headers=headers)
        return packed, dict(headers).get(b"content-encoding", b"")

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
    def test_in_what_is_accepted(self, encoding: str) -> None:
        packed, named = self.answer(encoding)
        assert named == encoding.encode()
        assert len(packed) < len(self.LONG)
        assert decompressed(packed, encoding, most=MOST) == self.LONG

    @pytest.mark.parametrize(
        ("accepted", "chosen"),
        [
            ("br, gzip", b"gzip"),
            ("deflate, gzip", b"deflate"),
            ("GZIP", b"gzip"),
            ("gzip;q=0, zstd", b"zstd"),
            ("gzip; q=0.000", b""),
            ("gzip;q=0.5", b"gzip"),
            ("gzip;q=1.0", b"gzip"),
            ("", b""),
            ("br", b""),
            ("identity", b""),
            (",;=,", b""),
        ],
    )
    def test_the_first_that_is_known(self, accepted: str, chosen: bytes) -> None:
        packed, named = self.answer(accepted)
        assert named == chosen
        assert chosen or packed == self.LONG

    def test_small_answers_stay_as_they_are(self) -> None:
        assert self.answer("gzip", b"a" * 255) == (b"a" * 255, b"")
        assert self.answer("gzip", b"a" * 256)[1] == b"gzip"

    def test_the_same_answer_is_packed_to_the_same_bytes(self) -> None:
        assert self.answer("gzip") == self.answer("gzip")
