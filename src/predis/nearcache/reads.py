"""Reads on the wire: how they are written, and what redis-py would answer.

The tracked connection speaks RESP3 and returns bytes whatever the client speaks, so ``Decoder`` makes of a reply what redis-py makes
of it, for RESP2 and RESP3 alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from predis.nearcache.kept import Shape

# What redis-py makes of their replies, where it is not the reply.
_MADE: dict[str, Callable[[Any], Any]] = {"HEXISTS": bool, "SMEMBERS": set}

_MUTABLE = (list, dict, set)

# What reads of a key that does not exist are answered with.
_NOTHING = (None, 0, b"", b"none")


def argument(value: Any) -> bytes:
    """An argument as redis-py sends it.

    Raises:
        TypeError: redis-py would refuse it, which it shall do itself.
        UnicodeEncodeError: so too.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value).encode()
    raise TypeError(f"redis-py sends no {type(value).__name__}")


def shape_of(command: Sequence[bytes | str]) -> Shape:
    """Which read of its key a command is: ("HGET", b"user:1", b"name") -> ("HGET", b"name")."""
    return str(command[0]) if len(command) == 2 else (command[0], *command[2:])


def pack(*command: bytes | str) -> bytes:
    """A command in RESP.

    >>> pack("GET", b"a")
    b'*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\na\\r\\n'
    """
    parts = [b"*%d\r\n" % len(command)]
    for part in command:
        part = part.encode() if isinstance(part, str) else part
        parts.append(b"$%d\r\n%b\r\n" % (len(part), part))
    return b"".join(parts)


def own(answer: Any) -> Any:
    """An answer for the caller to do with as they like: what is kept must not change."""
    return answer.copy() if isinstance(answer, _MUTABLE) else answer


def tells_nothing(reply: Any) -> bool:
    """Whether a reply may be that of a key that does not exist."""
    if isinstance(reply, list):
        return all(part in _NOTHING for part in reply)
    return not reply or reply in _NOTHING


class Decoder:
    """Makes redis-py's answers of RESP3 replies.

    Args:
        decode: whether the client returns strings (``decode_responses``).
        errors: how its strings are decoded, as in ``bytes.decode``.
    """

    def __init__(self, *, decode: bool, errors: str = "strict") -> None:
        self._decode = decode
        self._errors = errors

    def answer(self, shape: Shape, reply: Any) -> Any:
        """Raises UnicodeDecodeError as redis-py does."""
        made = _MADE.get(shape if isinstance(shape, str) else str(shape[0]))
        plain = self._text(reply) if self._decode else reply
        return plain if made is None else made(plain)

    def _text(self, reply: Any) -> Any:
        if isinstance(reply, bytes):
            return reply.decode("utf-8", self._errors)
        if isinstance(reply, list):
            return [self._text(part) for part in reply]
        if isinstance(reply, dict):
            return {self._text(name): self._text(value) for name, value in reply.items()}
        return reply
