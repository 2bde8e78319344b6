"""What a Valkey user that the gateway makes may do, by the tenant and role of the API key that was shown."""

from __future__ import annotations

from collections.abc import Sequence

from predis.access import DEFAULT_TENANT, Caller

# Somebody whom Valkey itself let in.
GUEST = Caller(DEFAULT_TENANT, "a user of Valkey", "client")
_VIEWER = (
    "-@all",
    "+@read",
    "+@connection",
    "+@pubsub",
    "+@transaction",
    "-publish",
    "-spublish",
    "-@admin",
    "-@dangerous",
)
_WRITER = ("+@all", "-@admin", "-@dangerous")
# Of the commands that show or touch the keys of everybody: those for who may see all keys, and those that nobody else gets.
_OF_ALL = ("+info", "+keys", "+sort", "+sort_ro")
_OF_ALL_WRITTEN = ("+flushdb", "+flushall", "+restore")
_NOT_OF_ONE = (
    "-scan",
    "-randomkey",
    "-dbsize",
    "-pubsub",
    "-function",
    "-script|flush",
    "-script|kill",
    "-swapdb",
    "-client|list",
)


def user_of(caller: Caller) -> bytes:
    """The user's name."""
    return f"predis:{caller.tenant}:{'viewer' if caller.role == 'viewer' else 'writer'}".encode()


def rules_of(caller: Caller, *, patterns: Sequence[bytes]) -> list[bytes | str]:
    """The rules of ACL SETUSER, beside the password.

    Args:
        patterns: of keys that are needed beside the tenant's own.
    """
    of_all, reads = caller.tenant == DEFAULT_TENANT, caller.role == "viewer"
    mine = caller.tenant.encode()
    places = [b"~*", b"&*"] if of_all else [b"~%b:*" % mine, b"&%b:*" % mine, *patterns]
    allowed = [*(_VIEWER if reads else _WRITER), *(_OF_ALL if of_all else _NOT_OF_ONE)]
    return [*places, *allowed, *(_OF_ALL_WRITTEN if of_all and not reads else ())]
