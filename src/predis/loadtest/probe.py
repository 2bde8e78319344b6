"""One request before the test, so that a thousand do not fail for the same reason."""

from __future__ import annotations

import asyncio
import json
import time

from predis.errors import InvalidRequest, Unreachable
from predis.loadtest.connection import Connection
from predis.loadtest.generator import Generator, reason_of
from predis.loadtest.load import Load, Target
from predis.loadtest.recorder import Recorder


class _Probe(Generator):
    """Sends one request and keeps what came back."""

    def __init__(self, target: Target, *, timeout_s: float) -> None:
        load = Load(connections=1, duration_s=0, timeout_s=timeout_s)
        super().__init__(target, load, recorder=Recorder())
        self.answer: asyncio.Future[tuple[str, bytes]] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        for connection in self._connections:
            connection.send(next(self._requests), time.perf_counter())

    def answered(self, connection: Connection, error: str, *, body: bytes) -> None:
        self.answer.set_result((error, body))

    def broken(self, connection: Connection, reason: str) -> None:
        self._connections.discard(connection)
        if not self.answer.done():
            self.answer.set_result((reason, b""))


def check(target: Target, *, timeout_s: float = 10.0) -> None:
    """Ask the first of the target's requests.

    Raises:
        Unreachable: no connection, or no answer in time.
        InvalidRequest: the answer is an error; the message has the server's own.
    """
    error, body = asyncio.run(_ask(target, timeout_s))
    if error:
        said = body.decode("utf-8", "replace")
        try:
            said = json.loads(said)["error"]
        except (ValueError, LookupError, TypeError):
            said = said[:300]
        raise InvalidRequest(
            f"the server does not answer the test's requests: {error}" + (f": {said}" if said else "")
        )


async def _ask(target: Target, timeout_s: float) -> tuple[str, bytes]:
    probe = _Probe(target, timeout_s=timeout_s)
    address = f"{target.host}:{target.port}"
    try:
        await probe.connect()
        probe.begin()
        return await asyncio.wait_for(probe.answer, timeout_s)
    except TimeoutError:
        raise Unreachable(f"no answer from {address} within {timeout_s:g} s") from None
    except OSError as error:
        raise Unreachable(f"no connection to {address}: {reason_of(error)}") from None
    finally:
        probe.finish()
