"""The gRPC server of one worker: its port, health, reflection, limits and end. What it answers is ``grpc.py``.

It runs in the worker's event loop, on a port that all workers share. It is imported late, when HTTP is ready, for its library costs a
twentieth of a second and 15 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_reflection.v1alpha import reflection, reflection_pb2

from predis.errors import PortInUse
from predis.serving.grpc import Service
from predis.serving.grpc_messages import POOL, SERVICE
from predis.serving.plane import Plane

_HEALTH_LOOK_S = 0.5
# The shortest time between two pings of an idle client. gRPC's own, five minutes, cuts off clients that keep their connection alive.
_PING_MS = 5_000


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """``grpc.health.v1``: whether this worker takes requests; not while it stops."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._services = ("", SERVICE)
        self.stopping = asyncio.Event()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service!r:.80}")
        return health_pb2.HealthCheckResponse(status=self._status())

    async def List(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        status = health_pb2.HealthCheckResponse(status=self._status())
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(self._services, status))

    async def Watch(self, request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """The status now, and each time it changes."""
        known = request.service in self._services
        told = None
        while True:
            stopping = self.stopping.is_set()
            status = self._status() if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            if stopping:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), _HEALTH_LOOK_S)

    def _status(self) -> Any:
        serving = self._plane.ready() and not self.stopping.is_set()
        return (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )


class GrpcServer:
    """The server of one worker, in its event loop.

    Args:
        max_body_bytes: larger messages are refused, compressed ones by what they unpack to.
        drain_s: how long accepted requests may take after ``stop``.
    """

    def __init__(self, service: Service, health: Health, *, max_body_bytes: int, drain_s: float) -> None:
        self._health = health
        self._drain_s = drain_s
        options = (
            ("grpc.max_receive_message_length", max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS),
            ("grpc.keepalive_permit_without_calls", 1),
        )
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((service.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        for module in (health_pb2, reflection_pb2):
            POOL.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        names = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, POOL)

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which the system chooses where 0 is asked for.

        Raises:
            PortInUse
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            found: int = self._server.add_insecure_port(address)
        except RuntimeError:
            await self._server.stop(None)  # also one that has not begun holds on to the loop
            raise PortInUse(
                f"port {port} on {host} cannot be listened on; free it, or choose another with --grpc-port"
            ) from None
        await self._server.start()
        return found

    async def stop(self) -> None:
        """Take no more requests, and finish those that were accepted."""
        self._health.stopping.set()
        await self._server.stop(self._drain_s)
