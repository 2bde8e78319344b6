"""Scores a data set in small batches and ends itself with SIGKILL at a moment that is asked for.

python killed.py SOURCE TARGET MOMENT
"""

from __future__ import annotations

import os
import signal
import sys

from predis.serving.scoring import Progress, result, score, scorer
from tests.serving.scoring.toy import batch


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(Progress):
    """Counts batches down; ``assembling`` and ``written`` are moments too."""

    def __init__(self, moment: str) -> None:
        self.moment = moment
        self.batches = int(moment) if moment.isdecimal() else -1

    def advance(self, rows: int) -> None:
        self.batches -= 1
        if self.batches == 0:
            die()

    def assembling(self) -> None:
        if self.moment == "assembling":
            die()
        if self.moment == "half-written":
            groups = result._groups

            def first_two(*args: object) -> object:
                for number, group in enumerate(groups(*args)):  # type: ignore[arg-type]
                    if number == 2:
                        die()
                    yield group

            result._groups = first_two  # type: ignore[assignment]
        if self.moment == "written":
            from predis.serving.scoring.workspace import Workspace

            Workspace.remove = lambda _self: die()  # type: ignore[method-assign]


if __name__ == "__main__":
    scorer._BATCH_ROWS = 50  # type: ignore[misc]
    scorer._PART_ROWS = 100  # type: ignore[misc]
    result._GROUP_ROWS = 300  # type: ignore[misc]
    source, target, moment = sys.argv[1:]
    score(batch(source, target), Deadly(moment))
