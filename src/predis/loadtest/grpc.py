"""A place for one gRPC call at a time, with the message as it was prepared: nothing is encoded or decoded while measuring."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from predis.loadtest.connection import Driver
from predis.loadtest.load import Target

_METHOD = "/inference.GRPCInferenceService/ModelInfer"


class GrpcConnection:
    """A channel of its own: without that, all would share one HTTP/2 connection, and so one worker behind it."""

    __slots__ = (
        "_call",
        "_channel",
        "_driver",
        "_metadata",
        "_task",
        "busy",
        "closing",
        "started",
    )

    def __init__(self, driver: Driver, channel: Any, *, key: str) -> None:
        self._driver, self._channel = driver, channel
        self._call = channel.unary_unary(_METHOD)
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self._task: asyncio.Task[None] | None = None
        self.busy = self.closing = False
        self.started = 0.0

    @classmethod
    async def open(cls, driver: Driver, target: Target, *, timeout_s: float) -> None:
        """Open a channel and hand it to the driver.

        Raises:
            OSError: the server does not answer.
        """
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
        host = f"[{target.host}]" if ":" in target.host else target.host
        address = f"{host}:{target.port}"
        channel = (
            grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(), options=options)
            if target.tls
            else grpc.aio.insecure_channel(address, options=options)
        )
        try:
            await asyncio.wait_for(channel.channel_ready(), timeout_s)
        except TimeoutError:
            await channel.close()
            raise
        driver.opened(cls(driver, channel, key=target.key))

    def send(self, request: bytes, started: float) -> None:
        self.busy, self.started = True, started
        self._task = asyncio.get_running_loop().create_task(self._ask(request))

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            self._task = asyncio.get_running_loop().create_task(self._close())

    async def _ask(self, request: bytes) -> None:
        try:
            await self._call(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            kind, details = f"gRPC {error.code().name}", (error.details() or "").encode()
        except asyncio.CancelledError:
            return
        else:
            kind, details = "", b""
        if self.busy:  # else it has timed out
            self.busy = False
            self._driver.answered(self, kind, body=details)

    async def _close(self) -> None:
        await self._channel.close()
        self._driver.broken(self, "connection closed")
