"""What the tests against a real server share: waiting, and what is told of both clients at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from predis import nearcache

PATIENCE_S = 30.0
# For tests that are not about time, on machines that are busy.
CALM = {"patience_s": PATIENCE_S, "max_stale_s": PATIENCE_S}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.002)


class Blocking:
    """The asynchronous client in a thread of its own, called as one calls the synchronous one."""

    def __init__(self, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._client = nearcache.connect_async(url, **options)
        self.near = self
        self.clear = self._client.near.clear

    def _wait(self, story: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(story, self._loop).result(2 * PATIENCE_S)

    def __getattr__(self, name: str) -> Any:
        async def called(*args: Any, **options: Any) -> Any:
            return await getattr(self._client, name)(*args, **options)

        return lambda *args, **options: self._wait(called(*args, **options))

    @property
    def stats(self) -> Any:
        return self._client.near.stats

    def wait(self, timeout_s: float = PATIENCE_S) -> bool:
        return self._wait(self._client.near.wait(timeout_s))

    def barrier(self, timeout_s: float = PATIENCE_S) -> bool:
        return self._wait(self._client.near.barrier(timeout_s))

    def transact(self, *commands: tuple) -> list:
        async def story() -> list:
            async with self._client.pipeline() as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return await pipe.execute()

        return self._wait(story())

    def watched(self, key: str, *commands: tuple) -> list:
        async def story() -> list:
            async with self._client.pipeline() as pipe:
                await pipe.watch(key)
                return [await pipe.execute_command(*command) for command in commands]

        return self._wait(story())

    def alone(self, *commands: tuple) -> list:
        async def story() -> list:
            async with self._client.client() as single:
                return [await single.execute_command(*command) for command in commands]

        return self._wait(story())

    def close(self) -> None:
        self._wait(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Direct:
    """The synchronous client, with the same stories."""

    def __init__(self, url: str, **options: Any) -> None:
        self._client = nearcache.connect(url, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def transact(self, *commands: tuple) -> list:
        with self._client.pipeline() as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return pipe.execute()

    def watched(self, key: str, *commands: tuple) -> list:
        with self._client.pipeline() as pipe:
            pipe.watch(key)
            return [pipe.execute_command(*command) for command in commands]

    def alone(self, *commands: tuple) -> list:
        with self._client.client() as single:
            return [single.execute_command(*command) for command in commands]
