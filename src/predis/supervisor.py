"""Processes: ``up`` starts the roles and keeps them running; ``serve`` and ``control`` are what a role's process does.

A crashed role is started again: at once where it ran well for ten seconds, else after a pause that doubles up to five; the others go on.
A child whose supervisor dies ends by itself: its standard input, held open by the supervisor, closes. Stopping is SIGTERM to all, a
few seconds to finish what was accepted, then SIGKILL.

A child is ``python -m predis.supervisor ROLE INDEX`` and imports what its role needs: the command line's own imports would be a third
of a second of each start.
"""

from __future__ import annotations

import fcntl
import gc
import ipaddress
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib import import_module

from predis import telemetry
from predis.app.cache import cache_missing, run_cache, run_learner, run_valkey
from predis.app.serve import check_port, run_control, run_serving
from predis.errors import HomeInUse, InvalidInput, PredisError, SetupError, UnsafeBind
from predis.settings import ENV_PREFIX, Settings, load

log = logging.getLogger(__name__)

ROLES = {
    "serving": "predictions (Open Inference Protocol V2)",
    "control": "API, console, monitors, rollouts, retraining",
    "valkey": "the embedded Valkey: data of the cache",
    "cache": "the cache gateway (Redis protocol)",
    "learner": "what-if curves, hot keys and predictions from the cache's reads",
}
# What takes a role longest to import.
_HEAVY = {"serving": "predis.app.worker", "control": "predis.app.control", "cache": "predis.cache.gateway"}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GOOD_S = 0.1, 5.0, 10.0
_LOOK_S = 0.05
# Beyond what a role may take to finish accepted requests: to write and close what it has open.
_CLOSE_S = 2.0


@dataclass
class Child:
    """One process the supervisor keeps running."""

    name: str
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    pause_s: float = 0.0
    due_at: float = 0.0
    starts: int = field(default=0)

    def ended(self, now: float) -> float:
        """Its process is over: how many seconds until the next one. 0 where it ran well, else twice as many as the last time."""
        if now - self.started_at >= _GOOD_S:
            self.pause_s = 0.0
        pause = self.pause_s
        self.process, self.due_at = None, now + pause
        self.pause_s = min(max(2 * pause, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        return pause


class Supervisor:
    """Starts the roles of one home and keeps them running until ``stop``.

    Raises (from ``start``):
        HomeInUse, PortInUse, HomeNotWritable, UnsafeBind
    """

    def __init__(self, settings: Settings, *, on_restart: Callable[[str, int], None] | None = None) -> None:
        self._settings = settings
        self._on_restart = on_restart
        self._children = [Child("control", ["control"])]
        self._children += [Child(f"serving-{i}", ["serving", str(i)]) for i in range(settings.workers)]
        self._children += cache_children(settings)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)
        self._lock: int | None = None

    def start(self) -> None:
        """Claim the home and its ports, bring the database up to date, start every role."""
        from predis.app.home import prepare

        prepare(self._settings)
        self._lock = claim_home(self._settings)
        try:
            check_bind(self._settings)
            ports = [self._settings.control_port, self._settings.http_port, self._settings.grpc_port]
            if not cache_missing(self._settings):
                ports.append(self._settings.cache_port)
            for port in filter(None, ports):
                check_port(self._settings.host, port)
        except SetupError:
            os.close(self._lock)
            raise
        for child in self._children:
            self._spawn(child)
        self._thread.start()

    def stop(self) -> None:
        """End every role: politely, then not."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        running = [
            child.process for child in self._children if child.process and child.process.poll() is None
        ]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self._settings.drain_s + _CLOSE_S
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in self._children:
            if child.process and child.process.stdin and not child.process.stdin.closed:
                child.process.stdin.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def stop_soon(self) -> None:
        """Ask for the end; ``wait`` returns, and whoever waits calls ``stop``."""
        self._stop.set()

    def stopping(self) -> bool:
        return self._stop.is_set()

    def wait(self, poll_s: float = 0.1) -> None:
        """Stay until the end is asked for."""
        while not self._stop.wait(poll_s):
            pass

    def pids(self) -> dict[str, int]:
        """Process ids of the roles that run now."""
        return {c.name: c.process.pid for c in self._children if c.process and c.process.poll() is None}

    def _keep(self) -> None:
        while not self._stop.wait(_LOOK_S):
            now = time.monotonic()
            for child in self._children:
                if child.process is not None and child.process.poll() is not None:
                    self._bury(child, now)
                if child.process is None and now >= child.due_at:
                    self._spawn(child)

    def _bury(self, child: Child, now: float) -> None:
        process = child.process
        assert process is not None
        pause = child.ended(now)
        log.warning(
            "%s ended with status %s; starting it again in %.1f s", child.name, process.returncode, pause
        )
        if self._on_restart:
            self._on_restart(child.name, process.returncode)
        if process.stdin:
            process.stdin.close()

    def _spawn(self, child: Child) -> None:
        child.process = subprocess.Popen(
            [sys.executable, "-m", "predis.supervisor", *child.arguments],
            stdin=subprocess.PIPE,
            env={**os.environ, **environment(self._settings), "PREDIS_SUPERVISED": "1"},
            start_new_session=True,  # Ctrl-C reaches the supervisor only, which ends its children in order
        )
        child.started_at = time.monotonic()
        child.starts += 1


def cache_children(settings: Settings) -> list[Child]:
    """The roles of the cache, where this installation can have them."""
    if missing := cache_missing(settings):
        if settings.cache_port:
            log.info("no cache gateway: %s", missing)
        return []
    workers = [Child(f"cache-{i}", ["cache", str(i)]) for i in range(settings.cache_workers)]
    valkey = [] if settings.valkey_url else [Child("valkey", ["valkey"])]
    return [*valkey, *workers, Child("learner", ["learner"])]


def environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, for a child to find."""
    return {ENV_PREFIX + f.name.upper(): str(getattr(settings, f.name)) for f in fields(settings)}


def claim_home(settings: Settings) -> int:
    """Take the home's lock; the descriptor holds it.

    Raises:
        HomeInUse: another supervisor has it.
    """
    path = settings.home / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise HomeInUse(
            f"{settings.home} is in use by another predis up (process {holder}); stop it, or name another home with --home"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def check_bind(settings: Settings) -> None:
    """Refuse to listen beyond loopback without keys.

    Raises:
        UnsafeBind
    """
    if settings.insecure or _is_loopback(settings.host):
        return
    from predis.access import Keys
    from predis.clock import SystemClock
    from predis.state import Database

    database = Database(settings.database_url)
    try:
        if Keys(database, SystemClock()).exist():
            return
    finally:
        database.close()
    raise UnsafeBind(
        f"listening on {settings.host} would let anybody in: make an API key first (predis key create NAME --role admin), or say --insecure"
    )


def run_role(settings: Settings, role: str, *, index: int = 0) -> None:
    """Be one role until told to stop.

    Raises:
        InvalidInput: no such role.
        SetupError: it cannot start here.
    """
    if role not in ROLES:
        raise InvalidInput(f"there is no role {role!r}; the roles are {', '.join(ROLES)}")
    name = f"{role}-{index}" if role in ("serving", "cache") else role
    telemetry.configure(name, style=settings.log_format, level=settings.log_level)
    if os.environ.get("PREDIS_SUPERVISED"):
        threading.Thread(target=_end_with_supervisor, args=(settings.drain_s,), daemon=True).start()
    else:
        from predis.app.home import prepare

        prepare(settings)
        check_bind(settings)
    gc.disable()  # imports make no garbage; to look for it again and again is a tenth of a start
    import_module(_HEAVY.get(role, "predis"))
    gc.enable()
    runs: dict[str, Callable[[], None]] = {
        "serving": lambda: run_serving(settings, index),
        "control": lambda: run_control(settings),
        "valkey": lambda: run_valkey(settings),
        "cache": lambda: run_cache(settings, index),
        "learner": lambda: run_learner(settings),
    }
    runs[role]()


def _end_with_supervisor(drain_s: float) -> None:
    """Wait for standard input to close, which is when the supervisor is gone, and end as if asked to."""
    while True:
        try:
            if not os.read(0, 1):
                break
        except OSError:
            break
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(drain_s + _CLOSE_S)
    os._exit(1)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main(role: str, index: str = "0") -> None:
    """Be a child."""
    try:
        run_role(load(), role, index=int(index))
    except PredisError as error:
        sys.exit(f"predis: {error.message} [{error.code}]")


if __name__ == "__main__":
    main(*sys.argv[1:])
