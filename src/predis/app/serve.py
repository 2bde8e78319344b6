"""The roles as processes: their sockets, the servers on them, and how they stop.

Serving answers with our own HTTP server, in one event loop with whatever else listens there; control is a FastAPI application and
answers with uvicorn.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from predis.errors import PortInUse, SetupError
from predis.metrics import Metrics
from predis.settings import ALERTS, Settings, section

if TYPE_CHECKING:
    from predis.app.worker import ServingWorker
    from predis.serving.grpc_server import GrpcServer
    from predis.serving.http import HttpLimits

log = logging.getLogger(__name__)

_BACKLOG = 2_048
_OTHER_FILES = 256


def run_serving(settings: Settings, index: int) -> None:
    """Be a serving worker until told to stop.

    Raises:
        PortInUse
    """
    # Workers are the parallelism. OpenMP reads this when the first model library is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import uvloop

    from predis.app.worker import ServingWorker

    if (
        settings.grpc_port
    ):  # gRPC takes it itself, later; whether it is to be had is seen before anything is started
        bind(settings.host, settings.grpc_port, shared=True).close()
    # It listens only when the Routes are read: until then the kernel gives new connections to other workers.
    bound = bind(settings.host, settings.http_port, shared=True)
    allow_files(settings.max_connections + _OTHER_FILES)
    worker = ServingWorker(settings, index)
    worker.start()
    gc.freeze()  # what is here by now stays; looking through it for garbage again and again would stall requests
    try:
        uvloop.run(_run(worker, [bound], settings=settings))
    finally:
        ended = worker.stop()
    if not ended:
        log.warning("a model's code still runs; it is left behind")
        logging.shutdown()
        os._exit(0)  # the interpreter's own end may hang or crash on a thread in a library's code


async def _run(worker: ServingWorker, sockets: Sequence[socket.socket], *, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish within ``drain_s`` what was accepted."""
    from predis.serving.http import HttpServer

    stop = stop_signal()
    connections = worker.metrics.gauge("predis_connections")
    server = HttpServer(worker.rest.handle, _http_limits(settings), on_connections=connections.set)
    await server.start(sockets)
    try:
        grpc = await _start_grpc(worker, settings) if settings.grpc_port else None
    except Exception:
        await server.drain(0.0)  # a loop with a server in it does not close
        raise
    tidying = asyncio.create_task(worker.tidy())
    await stop.wait()
    ending = (server.drain(settings.drain_s), *([grpc.stop()] if grpc else []))
    aborted, *_ = await asyncio.gather(*ending)
    tidying.cancel()
    await asyncio.gather(tidying, return_exceptions=True)
    if aborted:
        log.warning("%d requests were not finished within %g s and were aborted", aborted, settings.drain_s)


async def _start_grpc(worker: ServingWorker, settings: Settings) -> GrpcServer:
    """gRPC beside HTTP, which answers already: the import takes a twentieth of a second, in a thread.

    Raises:
        PortInUse
    """
    await asyncio.to_thread(import_module, "predis.serving.grpc_server")
    from predis.serving.grpc import Service
    from predis.serving.grpc_server import GrpcServer, Health

    service = Service(
        worker.plane,
        worker.keys,
        limits=worker.limits,
        repository=worker.repository,
        observing=worker.observing,
    )
    health = Health(worker.plane)
    server = GrpcServer(service, health, max_body_bytes=settings.max_body_bytes, drain_s=settings.drain_s)
    await server.start(settings.host, settings.grpc_port)
    gc.freeze()
    return server


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set, however many come. It outlives the loop, so that a late one does not cut the end short."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal(_number: int, _frame: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def _http_limits(settings: Settings) -> HttpLimits:
    from predis.serving.http import HttpLimits

    return HttpLimits(
        body_bytes=settings.max_body_bytes,
        header_bytes=settings.max_header_bytes,
        keep_alive_s=settings.keep_alive_s,
        read_timeout_s=settings.read_timeout_s,
        max_connections=settings.max_connections,
        held_bytes=settings.max_held_bytes,
    )


def raise_files(count: int) -> int:
    """Raise this process's limit of open files to ``count``, as far as it may. How many of them may be open then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return count
    allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


def allow_files(count: int) -> None:
    """Raise this process's limit of open files to ``count``, as far as it may, and say so where that is less."""
    if (allowed := raise_files(count)) < count:
        log.info(
            "only %d files may be open here, fewer than the most connections need (%d); raise `ulimit -n`",
            allowed,
            count,
        )


def run_control(settings: Settings) -> None:
    """Be the control role until told to stop.

    Raises:
        PortInUse
        InvalidSetting: a route of alerts that ``predis.toml`` declares cannot be used.
    """
    from predis.app.control import control_app
    from predis.app.platform import Platform
    from predis.monitoring.alerting.declared import declared_routes

    where, found = section(ALERTS)
    routes = declared_routes(found, source=where)
    server_socket = listen(settings.host, settings.control_port, shared=False)
    metrics = Metrics(settings.metrics_folder, "control")
    platform = Platform(settings, metrics=metrics, alert_routes=routes)
    _serve(control_app(platform), server_socket, settings=settings)


def check_port(host: str, port: int) -> None:
    """See that nobody listens on the port. Without SO_REUSEPORT, so that another Predis does not pass unnoticed.

    Raises:
        PortInUse
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _bind_error(error, host, port=port) from None


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """A listening socket.

    Raises:
        PortInUse
    """
    made = bind(host, port, shared=shared)
    made.listen(_BACKLOG)
    return made


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket with that address, not listening yet.

    ``shared`` lets several workers have the same port; the kernel spreads connections over those that listen.

    Raises:
        PortInUse
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise _bind_error(error, host, port=port) from None
    made.setblocking(False)
    return made


def _serve(app: Any, server_socket: socket.socket, *, settings: Settings) -> None:
    """uvicorn on a socket of ours: it stops accepting on SIGTERM, lets requests finish within ``drain_s``, then returns."""
    import uvicorn

    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        timeout_keep_alive=75,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[server_socket])


def _bind_error(error: OSError, host: str, *, port: int) -> SetupError:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"port {port} on {host} is in use by another program; stop it, or choose another "
            "(--control-port, --http-port, --grpc-port, --cache-port)"
        )
    return SetupError(f"cannot listen on {host} port {port}: {error.strerror}")
