"""Every command that Valkey says it has, straight and through the gateway: the same bytes.

The arguments are made of Valkey's own description of them (COMMAND DOCS), for keys of every type, and made wrong. scripts/redis-suite
runs redis-py's own tests in the same way; it needs their source, so it is no part of this suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from predis.cache.resp import command
from tests.cache.gateways import Raw, Served, gateway, valkey

# They end the server or make it another's, have replies of another kind (tested in test_differential.py), or try themselves for long.
LEFT_OUT = {
    "SHUTDOWN", "FAILOVER", "REPLICAOF", "SLAVEOF", "MIGRATE", "MONITOR", "SYNC", "PSYNC", "REPLCONF", "DEBUG", "PFSELFTEST", "QUIT",
    "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE", "CLIENT|REPLY", "CLIENT|PAUSE",
    "BGREWRITEAOF", "BGSAVE", "SAVE", "PREDIS",
}  # fmt: skip
# What tells of a process, a clock or chance, where Valkey's own hints do not say so.
OF_ITS_OWN = {
    "TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "OBJECT|IDLETIME", "COMMAND", "COMMAND|DOCS", "COMMAND|INFO", "COMMAND|LIST", "CONFIG|GET",
    "HTTL", "HPTTL", "HEXPIRETIME", "HPEXPIRETIME", "HELLO", "CLIENT|ID", "CLIENT|INFO", "CLIENT|LIST", "ACL|GENPASS", "ACL|LOG", "SCRIPT|SHOW",
    "MEMORY|USAGE", "LATENCY|DOCTOR", "XINFO|CONSUMERS", "LOLWUT", "ROLE", "CLUSTER|MYID", "DUMP",
}  # fmt: skip
CHANGING = {b"HELLO", b"RESET", b"MULTI", b"SELECT", b"AUTH", b"CLIENT"}
SAMPLES = {
    "string": b"s", "integer": b"1", "double": b"0.01", "pattern": b"*", "unix-time": b"4102444800", "key": b"",
}  # fmt: skip
TYPES = [
    ("SET", "1"), ("RPUSH", "1", "2"), ("HSET", "s", "1"), ("SADD", "s", "1"), ("ZADD", "1", "s"), ("XADD", "1-1", "s", "1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Served]]:
    with (
        valkey(tmp_path_factory.mktemp("a")) as straight,
        valkey(tmp_path_factory.mktemp("b")) as behind,
        gateway(behind) as served,
    ):
        yield straight, served


def described(port: int) -> Iterator[tuple[list[bytes], dict[str, Any], bool]]:
    """Each command and subcommand: its words, what COMMAND DOCS says of it, whether two servers answer it alike."""
    docs, rows = told(port, "COMMAND", "DOCS"), told(port, "COMMAND")
    hints = {row[0]: row[7] for row in [*rows, *(sub for row in rows for sub in row[9])]}
    for name, doc in sorted(docs.items()):
        for full, one in doc.get("subcommands", {name: doc}).items():
            tips = hints.get(full, ())
            alike = full.upper() not in OF_ITS_OWN and not any("nondeterministic" in tip for tip in tips)
            if not {full.upper(), name.upper()} & LEFT_OUT:
                yield [word.upper().encode() for word in full.split("|")], one, alike


def told(port: int, *words: str) -> Any:
    """A reply as it is: redis-py makes something else of this command's."""
    connection = redis.Connection(port=port, protocol=3, decode_responses=True)
    try:
        connection.send_command(*words)
        return connection.read_response()
    finally:
        connection.disconnect()


def words_of(arguments: list[dict[str, Any]], key: bytes, *, optional: bool) -> list[bytes]:
    """Arguments as they are described: of alternatives the last, which is seldom a token."""
    found: list[bytes] = []
    for one in arguments:
        flags = one.get("flags", ())
        if "optional" in flags and not optional:
            continue
        token = [one["token"].encode()] if one.get("token") else []
        kind = one["type"]
        if kind == "oneof":
            found += [*token, *words_of(one["arguments"][-1:], key, optional=optional)]
        elif kind == "block":
            found += [*token, *words_of(one["arguments"], key, optional=optional)]
        elif kind == "pure-token":
            found += token
        else:
            found += [*token, key if kind == "key" else SAMPLES.get(kind, b"s")]
    return found


def filled() -> list[bytes]:
    """The commands that make one key of each type, k0 to k5; k6 is none."""
    made = [
        command(name.encode(), b"k%d" % place, *(word.encode() for word in words))
        for place, (name, *words) in enumerate(TYPES)
    ]
    return [command(b"FLUSHALL"), *made]


@pytest.mark.parametrize("protocol", [2, 3])
def test_every_command_is_answered_alike(pair: tuple[int, Served], protocol: int) -> None:
    straight, served = pair
    hello = command(b"HELLO", b"%d" % protocol)
    begin = [hello, *filled()]
    asked = 0
    for words, doc, alike in described(straight):
        clients = [Raw(straight), Raw(served.port)]
        for client in clients:
            client.ask(b"".join(begin), len(begin))
        arguments = doc.get("arguments", [])
        tries = [[], [b"s"], [b"s"] * 2, [b"k0"] * 3, [b"s"] * 12]
        for optional in (False, True):
            tries += [
                words_of(arguments, b"k%d" % place, optional=optional) for place in range(len(TYPES) + 1)
            ]
        # Of commands that change the connection each is tried on one that is as it was.
        after = [command(b"RESET"), hello] if words[0] in CHANGING else []
        sent = [data for tried in tries for data in (command(*words, *tried), *after)]
        found = [client.each(b"".join(sent), len(sent)) for client in clients]
        step = 1 + len(after)
        for place in range(0, len(sent), step):
            got = [replies[place] for replies in found]
            assert got[0] == got[1] if alike else got[0][:1] == got[1][:1], (sent[place], got)
            asked += 1
        for client in clients:
            client.close()
    assert asked > 3_000
