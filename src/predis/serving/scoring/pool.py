"""Scoring on this machine: in this process, or in several."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import Any

from predis.errors import PredisError, Unavailable
from predis.serving.scoring.scorer import Job, Scorer
from predis.serving.scoring.spans import Span

_LEAVING_S = 5.0


def score_here(job: Job, spans: Sequence[Span]) -> Iterator[int]:
    """Score the spans one after the other; yields rows as they are done."""
    with closing(Scorer(job)) as scorer:
        for span in spans:
            yield from scorer.score(span)


def score_in_processes(job: Job, spans: Sequence[Span], *, workers: int) -> Iterator[int]:
    """Score the spans in several processes, each of which gets its next one when it is done with the last; yields rows as they are done.

    Raises:
        Unavailable: a process ended on its own.
    """
    context = multiprocessing.get_context("spawn")
    waiting = iter(spans)
    processes: list[Any] = []
    pipes: list[Any] = []
    try:
        for _ in range(min(workers, len(spans))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, job), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
            ours.send(next(waiting))
        busy = list(pipes)
        while busy:
            ready: list[Any] = wait(busy)
            for pipe in ready:
                rows = _heard(pipe)
                if rows is not None:
                    yield rows
                elif (span := next(waiting, None)) is not None:
                    pipe.send(span)
                else:
                    busy.remove(pipe)
                    pipe.close()
        for process in processes:
            process.join(_LEAVING_S)
    finally:
        for process in processes:
            process.terminate()
            process.join()
        for pipe in pipes:
            pipe.close()


def _heard(pipe: Any) -> int | None:
    """Rows that a process has scored, or None where it is done with its span. Its error is raised here."""
    try:
        found: int | PredisError | None = pipe.recv()
    except (EOFError, ConnectionError):
        raise Unavailable(
            "a scoring process ended on its own; if the system ended it for want of memory, give fewer --workers. Run again to go on"
        ) from None
    if isinstance(found, PredisError):
        raise found
    return found


def _work(pipe: Pipe, job: Job) -> None:
    """A process: spans in, rows out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    try:
        with closing(Scorer(job)) as scorer:
            while True:
                for rows in scorer.score(pipe.recv()):
                    pipe.send(rows)
                pipe.send(None)
    except PredisError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):  # the parent is done with us, or is gone
        pass
