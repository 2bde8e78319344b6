"""Load over gRPC: answers, refusals, time limits, keys, against a server that takes raw messages."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from predis.loadtest import Load, Target
from predis.loadtest.generator import ClosedLoop
from predis.loadtest.recorder import Recorder, Slice

Answer = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Target]:
    server = grpc.aio.server()
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Target(host="127.0.0.1", port=port, requests=(b"one", b"two"), grpc=True, key="pk_1")
    finally:
        await server.stop(None)


def run(answer: Answer, *, connections: int = 2, timeout_s: float = 5.0) -> Slice:
    async def go() -> Slice:
        async with serving(answer) as target:
            loop = ClosedLoop(
                target, Load(connections=connections, duration_s=1, timeout_s=timeout_s), recorder=Recorder()
            )
            await loop.connect()
            begin = time.perf_counter()
            loop._recorder.window(begin, begin + 0.3)
            await loop.run()
            return loop._recorder.cut(1)

    return asyncio.run(go())


def test_answers_are_counted_and_messages_go_out_as_they_are() -> None:
    seen: set[bytes] = set()
    keys: set[object] = set()

    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        seen.add(request)
        keys.add(dict(context.invocation_metadata() or ()).get("authorization"))
        return b""

    found = run(answer)
    assert found.answered > 2
    assert not found.errors
    assert (seen, keys) == ({b"one", b"two"}, {"Bearer pk_1"})


def test_refusals_are_counted_by_code_with_the_servers_words() -> None:
    async def answer(_request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
        raise AssertionError

    found = run(answer)
    assert set(found.errors) == {"gRPC RESOURCE_EXHAUSTED"}
    assert found.samples == {"gRPC RESOURCE_EXHAUSTED": "too much"}


def test_no_answer_in_time_is_an_error() -> None:
    async def answer(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.Event().wait()
        return b""

    found = run(answer, connections=1, timeout_s=0.1)
    assert set(found.errors) == {"timeout"}


def test_nobody_there_is_told() -> None:
    async def go() -> None:
        async with serving(lambda request, context: asyncio.sleep(0, b"")) as target:
            pass
        load = Load(connections=1, duration_s=1, timeout_s=0.2)
        await ClosedLoop(replace(target, port=1), load, recorder=Recorder()).connect()

    with pytest.raises(TimeoutError):
        asyncio.run(go())
