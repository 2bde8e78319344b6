"""Opening models that nobody knows yet: in a process of their own.

A model's file is read by its library's C++ code, or is a program itself. In a process of its own it can crash, eat its memory or never
end, and all that registering sees is an error. The process gets the files, limits on memory and time, none of the environment's secrets,
and a socket; over it go one line of JSON per question and answer, and the names of files for what is large: tables in, scores out.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from predis.errors import ModelFailure, PredisError, all_errors
from predis.registry.signature import Field, Signature
from predis.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from predis.state.records import Matrix

_LINE_BYTES = 64 << 20  # of an answer: a signature with its levels
_TAIL_BYTES = 2_000
_TOLD = 400  # characters of what a process said last
# What a process needs of the environment to start; its secrets stay here.
_ENVIRONMENT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
)
_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Inspector:
    """Opens models, each in a process of its own.

    Args:
        timeout_s: how long loading may take, and scoring each table.
        memory_bytes: address space the process may use.
    """

    def __init__(self, *, timeout_s: float, memory_bytes: int) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes

    @classmethod
    def of(cls, settings: Settings) -> Inspector:
        return cls(timeout_s=settings.inspect_timeout_s, memory_bytes=settings.inspect_memory_bytes)

    def __call__(
        self, kind: str, files: Mapping[str, bytes], *, signature: Signature | None, inputs: tuple[Field, ...]
    ) -> Inspected:
        """A model, open until it is closed.

        Raises:
            InvalidInput, ModelFailure, Untrusted, MissingExtra: as loading it does.
            ModelFailure: also when the process crashed or met a limit.
        """
        process = Process(timeout_s=self._timeout_s, memory_bytes=self._memory_bytes)
        try:
            return Inspected(process, files, kind=kind, signature=signature, inputs=inputs)
        except BaseException:
            process.close()
            raise


class Inspected:
    """A model in another process."""

    def __init__(
        self,
        process: Process,
        files: Mapping[str, bytes],
        *,
        kind: str,
        signature: Signature | None,
        inputs: tuple[Field, ...],
    ) -> None:
        self._process = process
        for name, content in files.items():
            path = process.folder / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        answer = process.ask(
            {
                "kind": kind,
                "files": list(files),
                "signature": signature.to_dict() if signature else None,
                "inputs": [field.to_dict() for field in inputs],
            },
            doing=f"loading the {kind} model",
        )
        self.signature = Signature.from_dict(answer)

    def score(self, table: pa.Table) -> Matrix:
        """The watched score of each row, [rows].

        Raises:
            InvalidInput: the table does not fit the signature.
            ModelFailure: the model failed, or its process did.
        """
        self._process.ask({"table": self._handed(table)}, doing=f"scoring {table.num_rows} rows")
        content = self._process.read("scores", limit_bytes=8 * table.num_rows)
        if len(content) != 8 * table.num_rows:
            raise ModelFailure(
                f"the model's process answered {len(content)} bytes of scores for {table.num_rows} rows"
            )
        return np.frombuffer(content)

    def timings(self, table: pa.Table, *, rows: int) -> list[float]:
        """Seconds that predicting each block of ``rows`` rows takes, measured in the model's process.

        Raises:
            InvalidInput: the table does not fit the signature.
            ModelFailure: the model failed, or its process did.
        """
        question = {"table": self._handed(table), "rows": rows}
        answer = self._process.ask(question, doing=f"timing {table.num_rows} rows")
        if not isinstance(answer, list) or not all(
            isinstance(each, float) and 0 <= each < self._process.timeout_s for each in answer
        ):
            raise ModelFailure("the model's process answered something else than how long it took")
        return answer

    @property
    def usable(self) -> bool:
        """Whether the process can be asked again: it may have died, or still be busy with what it was asked before."""
        return not self._process.broken

    def close(self) -> None:
        self._process.close()

    def _handed(self, table: pa.Table) -> str:
        """The name of a file with the table, for the process to read."""
        import pyarrow as pa  # late: a worker's registry has an inspector too

        path = self._process.folder / "table.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return path.name

    def __enter__(self) -> Inspected:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Process:
    """The process of a model: started, asked line by line, ended for certain."""

    def __init__(self, *, timeout_s: float, memory_bytes: int) -> None:
        self.timeout_s = timeout_s
        self.folder = Path(tempfile.mkdtemp(prefix="predis-inspect-"))
        (self.folder / "files").mkdir()
        self._socket, theirs = socket.socketpair()
        self._received = b""
        self._stopped = False
        self.broken = False
        with theirs, (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "predis.serving.inspect_child", str(theirs.fileno()), str(memory_bytes),
                    str(timeout_s),
                ],
                cwd=self.folder,
                env=_environment(self.folder),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # what it starts ends with it
            )  # fmt: skip

    def ask(self, question: Mapping[str, Any], *, doing: str) -> Any:
        """The answer to one question.

        Raises:
            PredisError: of the class the process named.
            ModelFailure: it died or took too long while ``doing`` it.
        """
        try:
            self._socket.settimeout(self.timeout_s)
            self._socket.sendall(json.dumps(question).encode() + b"\n")
            answer = json.loads(self._line())
        except TimeoutError:
            self.broken = True
            raise ModelFailure(
                f"{doing} took longer than {self.timeout_s:g} s (setting inspect_timeout_s)"
            ) from None
        except (OSError, EOFError, ValueError):
            self.broken = True
            raise ModelFailure(f"{doing} {self._end()}") from None
        if not isinstance(answer, dict) or not answer.keys() & {"answer", "error"}:
            raise ModelFailure(f"{doing} ended in an answer that is none")
        if "error" in answer:
            raise all_errors().get(str(answer.get("code")), PredisError)(str(answer["error"]))
        return answer["answer"]

    def read(self, name: str, *, limit_bytes: int) -> bytes:
        """A file the process has written, up to a byte more than it should have; nothing where it is no plain file."""
        with contextlib.suppress(OSError):
            # A link would lead out of the folder, and a pipe would be waited for.
            descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return file.read(limit_bytes + 1)
        return b""

    def close(self) -> None:
        self._stop()
        self._socket.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _line(self) -> bytes:
        deadline = time.monotonic() + self.timeout_s
        while b"\n" not in self._received:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                raise EOFError
            self._received += chunk
            if len(self._received) > _LINE_BYTES:
                raise ValueError("an answer without end")
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _stop(self) -> None:
        """End the process and what it started; once, for its number may soon be another's."""
        if self._stopped:
            return
        self._stopped = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _end(self) -> str:
        """How the process ended, in words."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "ended in an answer that cannot be read"
        finally:
            self._stop()
        if code < 0:
            name = signal.Signals(-code).name
            return f"ended its process by {name}: the file is damaged, made to do harm, or needs more memory than inspect_memory_bytes"
        with (self.folder / "log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            tail = log.read().decode("utf-8", "replace").strip().splitlines()
        return f"ended its process with status {code}: {tail[-1][:_TOLD] if tail else 'it said nothing'}"


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {**kept, **_THREADS, "HOME": str(folder), "TMPDIR": str(folder)}
