"""Compressed bodies: gzip, deflate and zstd, in and out. What unpacks to more than a body may have is refused while it is unpacked."""

from __future__ import annotations

import gzip
import zlib

import zstandard

from predis.errors import InvalidRequest, TooLarge

_LEAST_BYTES = 256  # a smaller answer does not get shorter
_NOT_WHOLE = "it ends too early, or something follows it"
_REPEATED = 1  # a block that is one byte, so many times
_MOST_BLOCKS = 4_096  # and one for 64 bytes more: many more tiny ones are made to keep a reader busy
_GZIP, _ZLIB = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS


def decompressed(body: bytes, encoding: str, *, most: int) -> bytes:
    """The body behind its Content-Encoding.

    Raises:
        InvalidRequest: an encoding that is none of gzip, deflate, zstd and identity, or bytes that are not of it.
        TooLarge: it unpacks to more than ``most`` bytes.
    """
    name = encoding.strip().lower()
    if name in ("identity", ""):
        return body
    try:
        if name in ("gzip", "x-gzip"):
            return _inflated(body, _GZIP, most=most)
        if name == "deflate":
            return _inflated(body, _ZLIB, most=most)
        if name == "zstd":
            return _unpacked_zstd(body, most)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise InvalidRequest(f"the body is not {name}: {error}") from None
    raise InvalidRequest(f"Content-Encoding {encoding[:40]!r} is none of gzip, deflate, zstd")


def compressed(body: bytes, accepted: str, *, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The body in the first encoding of Accept-Encoding that is known here; the headers get its name."""
    if len(body) < _LEAST_BYTES:
        return body
    for part in accepted.lower().split(","):
        name, _, quality = part.partition(";")
        if quality.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            continue
        name = name.strip()
        if name == "gzip":
            packed = gzip.compress(body, 1, mtime=0)
        elif name == "deflate":
            packed = zlib.compress(body, 1)
        elif name == "zstd":
            packed = zstandard.compress(body, 1)
        else:
            continue
        headers.append((b"content-encoding", name.encode()))
        return packed
    return body


def _inflated(body: bytes, kind: int, *, most: int) -> bytes:
    unpacker = zlib.decompressobj(kind)
    found = unpacker.decompress(body, most + 1)
    if len(found) > most:
        raise _too_large(most)
    if not unpacker.eof or unpacker.unused_data:
        raise EOFError(_NOT_WHOLE)
    return found


def _unpacked_zstd(body: bytes, most: int) -> bytes:
    if _frame_end(body) != len(body):  # the reader would give what is there, and say nothing
        raise EOFError(_NOT_WHOLE)
    # A frame may ask for a window of any size; that of the format's recommended maximum is what is granted.
    reader = zstandard.ZstdDecompressor(max_window_size=8 << 20).stream_reader(body)
    found = reader.read(most + 1)
    if len(found) > most:
        raise _too_large(most)
    return found


def _frame_end(body: bytes) -> int:
    """Where the zstd frame ends that the body begins with, by the lengths that its blocks say (RFC 8878, 3.1.1)."""
    at, checksum = zstandard.frame_header_size(body), zstandard.get_frame_parameters(body).has_checksum
    for _block in range(_MOST_BLOCKS + len(body) // 64):
        block = int.from_bytes(body[at : at + 3], "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        at += 3 + (1 if kind == _REPEATED else size)
        if at > len(body):
            break
        if last:
            return at + 4 * checksum
    raise EOFError(_NOT_WHOLE)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body unpacks to more than {most} bytes (setting max_body_bytes)")
