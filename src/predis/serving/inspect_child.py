"""The process a model is inspected in: ``python -m predis.serving.inspect_child SOCKET MEMORY_BYTES TIMEOUT_S``.

It is started by ``inspection`` and answers its questions: one line of JSON each way, the first to load the model, the others to score
a table with it.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from predis.errors import ModelFailure, PredisError
from predis.registry.signature import Field, Signature
from predis.serving import runtimes

if TYPE_CHECKING:
    import pyarrow as pa

    from predis.state.records import Matrix

_BLOCK_ROWS = 8_192


class Loaded:
    """A model in this process, and how tables are scored with it."""

    usable = True

    def __init__(
        self, kind: str, files: Mapping[str, bytes], *, signature: Signature | None, inputs: tuple[Field, ...]
    ) -> None:
        self._runtime = runtimes.load(kind, files, signature=signature, inputs=inputs)
        self.signature = self._runtime.signature

    def score(self, table: pa.Table) -> Matrix:
        """The watched score of each row, [rows]; predicted in blocks, for the memory's sake."""
        from predis.serving.tables import inputs_of

        scores = np.empty(table.num_rows)
        for at in range(0, table.num_rows, _BLOCK_ROWS):
            block = table.slice(at, _BLOCK_ROWS)
            inputs = inputs_of(block, self.signature, takes=self._runtime.takes, strict=False)
            outputs = runtimes.run(self._runtime, inputs)
            scores[at : at + inputs.rows] = runtimes.scores_of(self.signature, outputs)
        return scores

    def timings(self, table: pa.Table, *, rows: int) -> list[float]:
        """Seconds that predicting each block of ``rows`` rows takes; what makes a table into inputs is not counted."""
        from predis.serving.tables import inputs_of

        taken = []
        for at in range(0, table.num_rows, rows):
            inputs = inputs_of(table.slice(at, rows), self.signature, takes=self._runtime.takes, strict=False)
            started = time.perf_counter()
            runtimes.run(self._runtime, inputs)
            taken.append(time.perf_counter() - started)
        return taken

    def close(self) -> None:
        self._runtime.close()

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def main() -> None:
    """Answer until the other end is gone."""
    questions = socket.socket(fileno=int(sys.argv[1]))
    _limit(memory_bytes=int(sys.argv[2]))
    loaded: Loaded | None = None
    with questions.makefile("rb") as lines:
        for line in lines:
            question = json.loads(line)
            _limit_cpu(4 * float(sys.argv[3]))
            try:
                if loaded is None:
                    loaded = _load(question)
                    answer: Any = loaded.signature.to_dict()
                else:
                    answer = _score(loaded, question)
                reply = {"answer": answer}
            except PredisError as error:
                reply = {"error": error.message, "code": error.code}
            except MemoryError:
                short = ModelFailure(
                    "the model needs more memory than a model may (setting inspect_memory_bytes)"
                )
                reply = {"error": short.message, "code": short.code}
            questions.sendall(json.dumps(reply).encode() + b"\n")


def _limit(*, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_cpu(more_s: float) -> None:
    """So much time from here on, for the question that has come: it ends the process for certain even where nobody is left to end it.

    The hard limit stays, for it could not be raised again for the next question.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit, (_, hard) = (
        int(used.ru_utime + used.ru_stime + more_s) + 1,
        resource.getrlimit(resource.RLIMIT_CPU),
    )
    resource.setrlimit(
        resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )


def _load(question: Mapping[str, Any]) -> Loaded:
    files = {name: (Path("files") / name).read_bytes() for name in question["files"]}
    signature = question["signature"]
    return Loaded(
        question["kind"],
        files,
        signature=Signature.from_dict(signature) if signature else None,
        inputs=tuple(Field.from_dict(field) for field in question["inputs"]),
    )


def _score(loaded: Loaded, question: Mapping[str, Any]) -> int | list[float]:
    """Write the table's scores to the file ``scores``; the answer is how many. Or, if ``rows`` are named, how long blocks of them take."""
    import pyarrow as pa

    with pa.memory_map(question["table"]) as source:
        table = pa.ipc.open_file(source).read_all()
        if "rows" in question:
            return loaded.timings(table, rows=question["rows"])
        scores = loaded.score(table)
    scores.tofile("scores")
    return len(scores)


if __name__ == "__main__":
    main()
