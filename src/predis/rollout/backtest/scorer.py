"""A model that goes on: rows it fails on are found, counted and left out, and its process is started anew where it died."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pyarrow as pa

from predis.clock import Clock
from predis.errors import ModelFailure, PredisError
from predis.registry.evaluation import Scored
from predis.state.records import Matrix

MOST_SPLITS = 200
HOPELESS = 20


class Scorer:
    """Scores tables with a version, whatever it does on some of their rows.

    A batch that fails is halved until the rows at fault stand alone. After ``MOST_SPLITS`` halvings what fails is left unscored as it is:
    where hundreds of rows fail the answer is known.

    Args:
        open: opens the version in a process of its own.
        fresh_s: seconds of scoring after which it is opened anew; a process has a limit on its time.
        beat: called before each question to the model; may raise, to end it all.

    Raises (on making one): what opening the version raises.
    """

    def __init__(
        self,
        open: Callable[[], AbstractContextManager[Scored]],
        *,
        clock: Clock,
        fresh_s: float,
        beat: Callable[[], None],
    ) -> None:
        self._open = open
        self._clock = clock
        self._fresh_s = fresh_s
        self._beat = beat
        self._splits = 0
        self._used_s = 0.0
        self.scored = 0
        self.failed = 0
        self.unscored = 0
        self.not_finite = 0
        self.first_error = ""
        self._start()

    def score(self, table: pa.Table) -> Matrix:
        """The score of each row, [rows]; NaN where there is none, or none that is a finite number.

        Raises:
            ModelFailure: it has failed on every one of the first ``HOPELESS`` rows that it was tried on alone.
        """
        found = np.full(table.num_rows, np.nan)
        pieces = [(0, table.num_rows)]
        while pieces:
            at, size = pieces.pop()
            try:
                found[at : at + size] = self._ask(table.slice(at, size))
                self.scored += size
            except PredisError as error:
                self.first_error = self.first_error or error.message
                if size == 1:
                    self._fail()
                elif self._splits < MOST_SPLITS:
                    self._splits += 1
                    half = size // 2
                    pieces += [(at + half, size - half), (at, half)]
                else:
                    self.unscored += size
        bad = np.isinf(found)
        self.not_finite += int(bad.sum())
        found[bad] = np.nan
        return found

    def timings(self, table: pa.Table, *, rows: int) -> list[float]:
        """Seconds that predicting each block of ``rows`` rows takes, within the model's process."""
        self._renew()
        return self._model.timings(table, rows=rows)

    def close(self) -> None:
        self._context.__exit__(None, None, None)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _fail(self) -> None:
        self.failed += 1
        if self.failed >= HOPELESS and not self.scored:
            raise ModelFailure(f"the model fails on every row that was tried: {self.first_error}")

    def _ask(self, table: pa.Table) -> Matrix:
        self._beat()
        self._renew()
        started = self._clock.monotonic_s()
        scores = np.asarray(self._model.score(table), np.float64)
        self._used_s += self._clock.monotonic_s() - started
        self.not_finite += int(np.isnan(scores).sum())
        return scores

    def _renew(self) -> None:
        if not self._model.usable or self._used_s > self._fresh_s:
            self.close()
            self._start()

    def _start(self) -> None:
        self._context = self._open()
        self._model = self._context.__enter__()
        self._used_s = 0.0
