"""Which key is where in a cluster: hash slots, and the map of their masters.

Specification: https://valkey.io/topics/cluster-spec/
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from predis.valkeys import Address

SLOTS = 16_384


def slot_of(key: bytes) -> int:
    """The slot of a key: of its hash tag, where it has one (CRC-16/XMODEM).

    >>> slot_of(b"123456789"), slot_of(b"{user1000}.following") == slot_of(b"{user1000}.followers")
    (12739, True)
    """
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) & (SLOTS - 1)


class Node:
    """One server of a cluster; there is one object of each, so that it is found by identity."""

    __slots__ = ("address",)

    def __init__(self, address: Address) -> None:
        self.address = address

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, eq=False, slots=True)
class SlotMap:
    """The master of each slot, None of one that nobody serves; and all masters that serve any, in the order of their addresses."""

    owners: Sequence[Node | None]
    masters: Sequence[Node]

    @classmethod
    def of(cls, owners: Sequence[Node | None]) -> SlotMap:
        found = {owner for owner in owners if owner is not None}
        return cls(owners, sorted(found, key=lambda node: (node.address.host, node.address.port)))

    def moved(self, slot: int, master: Node) -> SlotMap:
        owners = list(self.owners)
        owners[slot] = master
        return SlotMap.of(owners)


def told(
    reply: Iterable[Sequence[Any]], node_at: Callable[[str, int], Node]
) -> tuple[list[Node | None], set[Node]]:
    """The masters by slot, and the replicas, of CLUSTER SLOTS' reply.

    Args:
        node_at: gives the node at a host and port; an empty host is that of whoever was asked.
    """
    owners: list[Node | None] = [None] * SLOTS
    replicas: set[Node] = set()
    for first, last, *servers in reply:
        places = (((host or b"").decode().removeprefix("?"), int(port)) for host, port, *_ in servers)
        master, *others = (node_at(host, port) for host, port in places)
        owners[first : last + 1] = [master] * (last + 1 - first)
        replicas.update(others)
    return owners, replicas


@dataclass(frozen=True)
class Redirect:
    """What MOVED and ASK say."""

    asks: bool
    slot: int
    host: str  # empty: the same as whoever says so
    port: int

    @classmethod
    def of(cls, reply: bytes) -> Redirect | None:
        """
        >>> Redirect.of(b"-MOVED 3999 127.0.0.1:6381\\r\\n")
        Redirect(asks=False, slot=3999, host='127.0.0.1', port=6381)
        >>> Redirect.of(b"-ERR syntax error\\r\\n")
        """
        if not reply.startswith((b"-MOVED ", b"-ASK ")):
            return None
        kind, slot, place = reply.decode().split()
        host, _, port = place.rpartition(":")
        return cls(kind == "-ASK", int(slot), host, int(port))
