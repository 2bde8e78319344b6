"""Lines in a process that forks: the child shares the parent's socket, and has none of its threads and tasks."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    def after_fork(self) -> None:
        """Called in the child, before anything else runs there: begin anew, with nothing kept."""


_all: weakref.WeakSet[Forked] = weakref.WeakSet()


def in_children(line: Forked) -> None:
    """Have a line begin anew in every child of this process, for as long as somebody holds it."""
    _all.add(line)


def _after_fork() -> None:
    for line in list(_all):
        line.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
