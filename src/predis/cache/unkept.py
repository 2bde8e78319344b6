"""Answers to reads whose value a source has and Valkey could not take: it is full, or read-only.

A GET is answered with what was loaded in any case. Of other commands those that most read hashes are answered here as Valkey would;
the rest get an error that says why, not the answer of a key that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence

from predis.cache.resp import array, bulk, error, null
from predis.cache.sources.encoding import Payload


def answer(command: Sequence[bytes], value: Payload, *, source: str, protocol: int) -> bytes:
    """The reply, as RESP, to a command that reads one key of this value.

    >>> answer([b"HMGET", b"user:1", b"age", b"x"], {b"age": b"3"}, source="users", protocol=3)
    b'*2\\r\\n$1\\r\\n3\\r\\n_\\r\\n'
    """
    name = command[0].upper()
    if isinstance(value, dict):
        if name == b"HGET" and len(command) == 3:
            return _field(value, command[2], protocol=protocol)
        if name == b"HMGET":
            return array([_field(value, field, protocol=protocol) for field in command[2:]])
        if name == b"HGETALL":
            words = b"".join(bulk(word) for pair in value.items() for word in pair)
            head = b"%%%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % (2 * len(value))
            return head + words
    shown = name[:32].decode("ascii", "replace")
    return error(
        f"ERR source {source}: Valkey has no room for the value, and {shown} is answered by Valkey alone"
    )


def _field(value: dict[bytes, bytes], name: bytes, *, protocol: int) -> bytes:
    return bulk(value[name]) if name in value else null(protocol)
