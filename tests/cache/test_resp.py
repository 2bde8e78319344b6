"""The protocol: the same whatever pieces the bytes come in, Valkey's words where it is broken, and no memory for promises."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from predis.cache.resp import (
    MAX_LINE,
    ProtocolBroken,
    Replies,
    Requests,
    array,
    bulk,
    command,
    error,
    items,
    split_inline,
)

words = st.lists(st.binary(max_size=40), min_size=1, max_size=5)
leaves = st.one_of(
    st.binary(max_size=50).map(bulk),
    st.sampled_from(
        [
            b"$-1\r\n",
            b"*-1\r\n",
            b"_\r\n",
            b"#t\r\n",
            b":12\r\n",
            b",1.5\r\n",
            b"(123456789\r\n",
            b"+OK\r\n",
            b"-ERR no\r\n",
        ]
    ),
    st.binary(max_size=30).map(lambda text: b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text)),
)
replies = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(array),
        st.lists(inner, max_size=4).map(lambda values: array(values, kind=b"~")),
        st.lists(st.tuples(inner, inner), max_size=3).map(
            lambda pairs: b"%%%d\r\n" % len(pairs) + b"".join(a + b for a, b in pairs)
        ),
        st.tuples(inner, inner, inner).map(lambda three: b"|1\r\n" + b"".join(three)),
    ),
    max_leaves=12,
)
pushes = st.lists(leaves, max_size=3).map(lambda values: array(values, kind=b">"))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@settings(deadline=None, max_examples=100)
@given(st.lists(words, max_size=6), st.lists(st.integers(0, 1000), max_size=8))
def test_commands_are_the_same_in_any_pieces(commands: list[list[bytes]], cuts: list[int]) -> None:
    data = b"".join(command(*args) for args in commands)
    requests, found = Requests(), []
    for piece in pieces(data, cuts):
        found += requests.feed(piece)
    assert [args for args, _ in found] == commands
    assert b"".join(raw for _, raw in found) == data
    assert requests.held == 0


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(replies, pushes), max_size=6), st.lists(st.integers(0, 1000), max_size=8))
def test_replies_end_at_the_same_places_in_any_pieces(sent: list[bytes], cuts: list[int]) -> None:
    data = b"".join(sent)
    framer, ends, before = Replies(), [], 0
    for piece in pieces(data, cuts):
        ends += [(before + (~end if end < 0 else end), end < 0) for end in framer.feed(piece)]
        before += len(piece)
    wanted, at = [], 0
    for reply in sent:
        at += len(reply)
        wanted.append((at, reply.startswith(b">")))
    assert ends == wanted


@settings(deadline=None, max_examples=100)
@given(words, words, st.integers(1, 30), st.lists(st.integers(0, 1000), max_size=8))
def test_a_command_that_is_let_go_ends_where_it_ends(
    first: list[bytes], second: list[bytes], at: int, cuts: list[int]
) -> None:
    whole = command(*first)
    at = min(at, len(whole) - 1)
    requests = Requests()
    assert requests.feed(whole[:at]) == []
    assume(requests.head)
    gone = requests.let_go()
    found = []
    for piece in pieces(whole[at:] + command(*second), cuts):
        if requests.passing:
            end = requests.rest(piece)
            gone += piece[:end]
            piece = piece[end:]
        found += requests.feed(piece)
    assert gone == whole
    assert [args for args, _ in found] == [second]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_no_bytes_of_a_client_crash_the_parser(data: list[bytes]) -> None:
    requests = Requests()
    for piece in data:
        requests.feed(piece)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text("*$%>|~+-:_#,(=!?0123456789\r\nab", max_size=40), max_size=6))
def test_no_bytes_of_a_server_crash_the_framer(data: list[str]) -> None:
    framer = Replies()
    try:
        for piece in data:
            framer.feed(piece.encode())
    except ProtocolBroken:
        pass


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*99999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n:3\r\n", "expected '$', got ':'"),
        (b"*1\r\n$-5\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$+3\r\nabc\r\n", "invalid bulk length"),
        (b"*" + b"1" * (MAX_LINE + 1), "too big mbulk count string"),
        (b"x" * (MAX_LINE + 1), "too big inline request"),
        (b'set "a\r\n', "unbalanced quotes in request"),
        (b'set "a\\\r\n', "unbalanced quotes in request"),
        (b"*1\r*", "invalid CRLF in request"),
    ],
)
def test_a_broken_protocol_is_told_in_valkeys_words(data: bytes, text: str) -> None:
    requests = Requests()
    before = requests.feed(command(b"PING") + data)
    assert [args for args, _ in before] == [[b"PING"]]
    assert requests.broken is not None
    assert requests.broken.reply == error(f"ERR Protocol error: {text}")
    assert requests.feed(command(b"PING")) == []


def test_a_promise_of_512_megabytes_costs_nothing() -> None:
    requests = Requests()
    requests.feed(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\nbegin")
    assert requests.held < 100


def test_a_long_command_is_not_copied_with_each_of_its_pieces() -> None:
    args = [b"RPUSH", b"list", *[b"x" * 10] * 2_000]
    whole, requests, found = command(*args), Requests(), []
    for at in range(0, len(whole), 50):
        found += requests.feed(whole[at : at + 50])
        assert len(requests._data) <= 100
        assert requests.held == (0 if found else at + 50)
    assert found == [(args, whole)]


def test_a_stranger_may_send_little() -> None:
    requests = Requests()
    requests.stranger = True
    requests.feed(b"*11\r\n")
    assert requests.broken is not None
    assert "unauthenticated" in requests.broken.text


def test_inline_commands_are_split_as_valkey_does() -> None:
    assert split_inline(b"set  a 'b c' \"d\\x41\\n\"") == [b"set", b"a", b"b c", b"dA\n"]
    assert split_inline(b"a'b\\'\"'\"c'\" '' \v\fd\v") == [b"ab'\"c'", b"", b"d\v"]
    assert Requests().feed(b"\r\nPING\r\nGET a\n")[1][0] == [b"GET", b"a"]


def test_the_elements_of_an_array() -> None:
    assert items(array([bulk(b"a"), b"$-1\r\n"])) == [b"$1\r\na\r\n", b"$-1\r\n"]
