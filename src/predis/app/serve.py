"""Sockets and the HTTP server that the roles answer on."""

from __future__ import annotations

import errno
import socket
from typing import Any

from predis.errors import PortInUse, SetupError
from predis.settings import Settings


def run_serving(settings: Settings, index: int) -> None:
    """Be a serving worker until told to stop.

    Raises:
        PortInUse
    """
    from predis.app.worker import ServingWorker

    server_socket = listen(settings.host, settings.http_port, shared=True)
    worker = ServingWorker(settings, index)
    worker.start()
    try:
        _serve(worker.app, server_socket, settings=settings, lifespan="off")
    finally:
        worker.stop()


def run_control(settings: Settings) -> None:
    """Be the control role until told to stop.

    Raises:
        PortInUse
    """
    from predis.app.control import Platform, control_app

    server_socket = listen(settings.host, settings.control_port, shared=False)
    _serve(control_app(Platform(settings)), server_socket, settings=settings, lifespan="on")


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
    """A listening socket; ``shared`` lets several workers have the same port and the kernel spread connections over them.

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
    made.listen(2048)
    made.setblocking(False)
    return made


def _serve(app: Any, server_socket: socket.socket, *, settings: Settings, lifespan: Any) -> None:
    """uvicorn on a socket of ours: it stops accepting on SIGTERM, lets requests finish within ``drain_s``, then returns."""
    import uvicorn

    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan=lifespan,
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
            f"port {port} on {host} is in use by another program; stop it, or choose another with --http-port / --control-port"
        )
    return SetupError(f"cannot listen on {host} port {port}: {error.strerror}")
