"""How much of a request the control role reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class Bounded:
    """Refuses a body that is larger than it may be: it is held in memory, and before anybody was asked who they are.

    Args:
        most: bytes.
        streamed: paths whose routes take a body piece by piece, and bound it themselves.
    """

    def __init__(self, app: Any, *, most: int, streamed: Collection[str]) -> None:
        self._app = app
        self._most = most
        self._streamed = frozenset(streamed)

    async def __call__(
        self, scope: Message, receive: Receive, send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "http" and scope["path"] not in self._streamed:
            receive = self._counted(receive)
        await self._app(scope, receive, send)

    def _counted(self, receive: Receive) -> Receive:
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise HTTPException(
                    413, f"the body is larger than {self._most} bytes (setting max_body_bytes)"
                )
            return message

        return counted
