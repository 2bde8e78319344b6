"""What a version is registered with from here: parameters as typed, and the state of the code in this folder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from typing import Any

from predis.errors import InvalidInput

_GIT_S = 10.0


def parameters_of(given: Iterable[str]) -> dict[str, Any]:
    """Parameters given as NAME=VALUE. Numbers, true and false are such; everything else is text.

    >>> parameters_of(["max_depth=6", "eta=.1", "booster=gbtree", "seeded=true"])
    {'max_depth': 6, 'eta': 0.1, 'booster': 'gbtree', 'seeded': True}

    Raises:
        InvalidInput: there is no ``=``, or a name stands twice.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(f"a parameter is given as NAME=VALUE, got {text!r}")
        if name in found:
            raise InvalidInput(f"parameter {name!r} is given twice")
        found[name] = _value(value)
    return found


def git_revision() -> str:
    """The commit this folder is at, and whether it was changed since; empty outside of a git work tree."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return ""
    return f"{commit} (dirty)" if _git("status", "--porcelain") else commit


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = float(text)  # .1 and 1. are not JSON
        except ValueError:
            return text
    return value if isinstance(value, bool | int | float) else text


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=_GIT_S, check=False)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
