"""The package as a whole: its examples, its names, and what importing it costs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

from predis import stats

MODULES = sorted(module.name for module in pkgutil.walk_packages(stats.__path__, "predis.stats."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_most_modules_have_examples() -> None:
    found = sum(doctest.testmod(importlib.import_module(name)).attempted > 0 for name in MODULES)
    assert found >= 6


def test_public_names_exist() -> None:
    assert stats.__all__ == sorted(stats.__all__)
    for name in stats.__all__:
        assert getattr(stats, name) is not None


def test_importing_loads_nothing_slow() -> None:
    script = (
        "import sys, predis.stats; print([m for m in sys.modules if m.split('.')[0] in ('scipy', 'pandas')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
