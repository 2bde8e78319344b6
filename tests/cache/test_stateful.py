"""Two clients do what they like, straight and through the gateway: whatever the sequence, the same bytes (Hypothesis)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from predis.cache.resp import command
from tests.cache.gateways import Raw, Served, gateway, valkey

_NUMBER = re.compile(rb"\$2\r\nid\r\n:[0-9]+")  # of a connection, as HELLO tells it
who = st.integers(0, 1)
keys = st.sampled_from([b"a", b"b", b"{a}c"])
values = st.one_of(
    st.binary(max_size=40), st.builds(lambda: b"x" * 70_000), st.sampled_from([b"1", b"-5", b"\r\n$3\r\n"])
)


def simple(key: bytes, other: bytes, value: bytes) -> list[tuple[bytes, ...]]:
    """Commands whose replies depend on what was done before alone."""
    return [
        (b"SET", key, value), (b"GET", key), (b"getset", key, value), (b"MGET", key, other), (b"DEL", key, other), (b"INCR", key),
        (b"APPEND", key, value), (b"RPUSH", key, value), (b"LPOP", key), (b"LRANGE", key, b"0", b"-1"), (b"HSET", key, value, b"1"),
        (b"HGETALL", key), (b"ZADD", key, b"1", value), (b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"), (b"RENAME", key, other),
        (b"TYPE", key), (b"ECHO", value), (b"SELECT", b"1"), (b"SELECT", b"0"), (b"SELECT", b"x"), (b"CLIENT", b"SETNAME", b"me"),
        (b"CLIENT", b"GETNAME"), (b"EVAL", b"return redis.call('GET', KEYS[1])", b"1", key), (b"WATCH", key), (b"UNWATCH",), (b"MULTI",),
        (b"EXEC",), (b"DISCARD",), (b"BLPOP", key, b"0.001"), (b"NOSUCH", value), (b"PING", value), (b"HELLO", b"2"), (b"HELLO", b"3"),
        (b"RESET",), (b"PUBLISH", key, value), (b"HELLO", b"9"), (b"GET",),
    ]  # fmt: skip


commands = st.builds(
    lambda place, key, other, value: command(*simple(key, other, value)[place]),
    st.integers(0, len(simple(b"", b"", b"")) - 1), keys, keys, values,
)  # fmt: skip


def machine_of(straight: int, served: int) -> type[RuleBasedStateMachine]:
    class Sequences(RuleBasedStateMachine):
        """Each of two clients twice: once straight, once through."""

        def __init__(self) -> None:
            super().__init__()
            self.sides = [[Raw(port), Raw(port)] for port in (straight, served)]

        @initialize()
        def empty(self) -> None:
            self.both(0, command(b"FLUSHALL"), 1)

        def both(self, which: int, data: bytes, count: int) -> None:
            got = [_NUMBER.sub(b"", side[which].ask(data, count)) for side in self.sides]
            assert got[0] == got[1], data

        @rule(which=who, sent=st.lists(commands, min_size=1, max_size=8), cut=st.floats(0, 1))
        def pipeline(self, which: int, sent: list[bytes], cut: float) -> None:
            data = b"".join(sent)
            place = int(cut * len(data))
            for side in self.sides:
                side[which].send(data[:place])
            self.both(which, data[place:], len(sent))

        @rule(which=who, key=keys, value=values)
        def transaction_that_another_disturbs(self, which: int, key: bytes, value: bytes) -> None:
            self.both(which, command(b"RESET") + command(b"WATCH", key) + command(b"GET", key), 3)
            self.both(1 - which, command(b"RESET") + command(b"SET", key, value), 2)
            self.both(which, command(b"MULTI") + command(b"SET", key, b"mine") + command(b"EXEC"), 3)

        @rule(which=who, key=keys, value=values)
        def wait_for_another(self, which: int, key: bytes, value: bytes) -> None:
            self.both(1 - which, command(b"RESET") + command(b"DEL", key), 2)
            self.both(which, command(b"RESET"), 1)
            for side in self.sides:
                side[which].send(command(b"BLPOP", key, b"0") + command(b"ECHO", b"after"))
                while b" cmd=blpop" not in side[1 - which].ask(command(b"CLIENT", b"LIST")):
                    pass
            self.both(1 - which, command(b"RPUSH", key, value), 1)
            for side in self.sides:
                assert side[which].replies(2).endswith(b"$5\r\nafter\r\n")

        @rule(which=who, key=keys, sent=commands)
        def without_replies(self, which: int, key: bytes, sent: bytes) -> None:
            self.both(which, command(b"RESET"), 1)
            off, on = command(b"CLIENT", b"REPLY", b"OFF"), command(b"CLIENT", b"REPLY", b"ON")
            skip = command(b"CLIENT", b"REPLY", b"SKIP")
            quiet = command(b"INCR", key) + command(b"GET", key)
            self.both(which, skip + command(b"GET", key) + command(b"GET", key), 1)
            self.both(which, off + quiet + on + command(b"GET", key), 2)

        @rule(which=who, key=keys, value=values)
        def told_of_a_change(self, which: int, key: bytes, value: bytes) -> None:
            """CLIENT TRACKING: the invalidation comes before the reply to what is asked after the change."""
            hello = command(b"RESET") + command(b"HELLO", b"3") + command(b"CLIENT", b"TRACKING", b"ON")
            for side in self.sides:
                side[which].ask(hello, 3)
            self.both(which, command(b"DEL", key) + command(b"GET", key), 2)
            self.both(1 - which, command(b"RESET") + command(b"SET", key, value), 2)
            got = []
            for side in self.sides:
                said = side[which].ask(command(b"PING"))
                got.append(said)
                assert b"invalidate" in said
            assert got[0] == got[1]
            self.both(which, command(b"RESET"), 1)

        def teardown(self) -> None:
            for side in self.sides:
                for client in side:
                    client.close()

    return Sequences


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Served]]:
    with (
        valkey(tmp_path_factory.mktemp("a")) as straight,
        valkey(tmp_path_factory.mktemp("b")) as behind,
        gateway(behind) as served,
    ):
        yield straight, served


def test_any_sequence_of_two_clients(pair: tuple[int, Served]) -> None:
    straight, served = pair
    run_state_machine_as_test(
        machine_of(straight, served.port),
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
