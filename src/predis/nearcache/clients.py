"""What the synchronous and the asynchronous client share: which commands are looked up, and how T connects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.backoff import NoBackoff

from predis.errors import InvalidInput
from predis.nearcache.commands import READS
from predis.nearcache.kept import MISSING, Answer, Kept
from predis.nearcache.reads import Decoder, argument, own, shape_of
from predis.nearcache.tracking import Tracking

# For connecting and greeting; afterwards the lease is what counts.
CONNECT_S = 5.0

# What redis-py passes on that a read may have without being another one.
_PLAIN_OPTIONS = {"keys"}


class Lookup:
    """One read: its keys as the server writes them, and what is kept of each.

    ``missing`` are the keys of which nothing is kept, each once; ``command`` reads them.
    """

    __slots__ = ("_answers", "_drops", "_kept", "_keys", "_many", "command", "missing")

    def __init__(self, kept: Kept, name: str, *, arguments: Sequence[bytes]) -> None:
        shape = "GET" if name == "MGET" else shape_of((name, *arguments))
        self._kept = kept
        self._many = name == "MGET"
        self._keys = arguments if self._many else arguments[:1]
        self._drops = kept.drops
        self._answers = [kept.find(key, shape) for key in self._keys]
        pairs = zip(self._keys, self._answers, strict=True)
        self.missing = list(dict.fromkeys(key for key, answer in pairs if answer is MISSING))
        self.command: tuple[bytes | str, ...] = (name, *(self.missing if self._many else arguments))
        kept.misses += len(self.missing)

    def filled(self, read: dict[bytes, Answer] | None) -> Answer:
        """What to answer, given what was read of the missing keys; ``MISSING`` where the ordinary way must be taken.

        MGET shows the state of one moment, and so does this: what was kept beforehand was still so when the rest was read, as T
        brings announcements and replies in the order of the server, and nothing was dropped up to now.
        """
        if read is None or (self._many and self._kept.drops != self._drops):
            return MISSING
        pairs = zip(self._keys, self._answers, strict=True)
        answers = [own(read[key] if answer is MISSING else answer) for key, answer in pairs]
        return answers if self._many else answers[0]


def look_up(kept: Kept, command: Sequence[Any], *, options: dict[str, Any]) -> Lookup | None:
    """What memory has for a command; None if it is no read that may be kept, or of a key that may not."""
    name = command[0]
    if name not in READS or name in kept.ignored or len(command) < 2 or not options.keys() <= _PLAIN_OPTIONS:
        return None
    if name == "EXISTS" and len(command) > 2:
        return None  # it counts, and tells nothing of a single key
    try:
        arguments = [argument(part) for part in command[1:]]
    except (TypeError, UnicodeEncodeError):
        return None  # redis-py raises what it raises
    if not all(map(kept.near.keeps, arguments if name == "MGET" else arguments[:1])):
        return None
    return Lookup(kept, name, arguments=arguments)


def make_tracking(kept: Kept, kwargs: dict[str, Any]) -> Tracking:
    """T's protocol for a client with these connection arguments.

    Raises:
        InvalidInput: they ask for what a near cache cannot do.
    """
    encoding = str(kwargs.get("encoding", "utf-8")).lower().replace("_", "-")
    if encoding not in ("utf-8", "utf8"):
        raise InvalidInput(
            f"a near cache needs the encoding utf-8, got {encoding!r}; take redis.from_url for this client"
        )
    decode = bool(kwargs.get("decode_responses", False))
    return Tracking(kept, Decoder(decode=decode, errors=kwargs.get("encoding_errors", "strict")))


def refuse(options: dict[str, Any]) -> None:
    """Raises InvalidInput for options of redis-py that contradict a near cache."""
    if options.get("single_connection_client"):
        raise InvalidInput("a near cache serves a pool of connections; leave single_connection_client out")
    if options.get("cache") or options.get("cache_config"):
        raise InvalidInput("this is a near cache already; leave cache and cache_config out")


def tracked_arguments(kwargs: dict[str, Any], retry: type) -> dict[str, Any]:
    """Arguments for T's connection, from those of the pool: the same server, user and database, in RESP3, tried once."""
    ours = {name: value for name, value in kwargs.items() if not _is_of_the_pool(name)}
    ours.update(protocol=3, retry=retry(NoBackoff(), 0), health_check_interval=0)
    ours.update(socket_timeout=CONNECT_S)
    if "socket_connect_timeout" in kwargs or "path" not in kwargs:
        ours["socket_connect_timeout"] = CONNECT_S
    return ours


def _is_of_the_pool(name: str) -> bool:
    """Of redis-py's own doings between pool and connection: notices of maintenance, which T has no use for."""
    return (
        "maint_notifications" in name
        or name.startswith("orig_")
        or name in ("event_dispatcher", "himport_registry")
    )
