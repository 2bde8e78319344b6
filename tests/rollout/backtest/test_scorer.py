"""Scoring that goes on, with models in processes of their own that die, hang up and are started anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from predis.clock import ManualClock
from predis.errors import ModelFailure
from predis.registry import Field, Signature
from predis.registry.signature import PROBABILITY
from predis.rollout.backtest import scorer
from predis.rollout.backtest.scorer import Scorer
from predis.rollout.backtest.speed import measure
from predis.serving.inspection import Inspected, Inspector

SIGNATURE = Signature((Field("x", "FP64"),), (PROBABILITY,), "probability")
_CODE = """
import os, signal
import numpy as np

def predict(inputs):
    x = np.asarray(inputs["x"], float)
    if (x == 7).any():
        os.kill(os.getpid(), signal.SIGSEGV)
    if (x == 8).any():
        raise ValueError("eights are beyond me")
    return {"probability": x / 100}
"""


def opener(opened: list[Inspected]) -> Callable[[], Inspected]:
    inspector = Inspector(timeout_s=30.0, memory_bytes=8 << 30)

    def open_model() -> Inspected:
        model = inspector("python", {"model.py": _CODE.encode()}, signature=SIGNATURE, inputs=())
        opened.append(model)
        return model

    return open_model


def table(*values: float) -> pa.Table:
    return pa.table({"x": pa.array(values, pa.float64())})


def test_rows_that_kill_the_model_s_process_are_found_and_left_out() -> None:
    opened: list[Inspected] = []
    with Scorer(opener(opened), clock=ManualClock(), fresh_s=60, beat=lambda: None) as model:
        found = model.score(table(1, 2, 7, 3, 4, 5, 8, 6))
        assert np.allclose(found, [0.01, 0.02, np.nan, 0.03, 0.04, 0.05, np.nan, 0.06], equal_nan=True)
        assert (model.scored, model.failed, model.unscored) == (6, 2, 0)
        assert "SIGSEGV" in model.first_error
        assert len(opened) > 1
        before = len(opened)
        model.score(table(8))  # an error is no death
        assert len(opened) == before
    assert not Path(opened[-1]._process.folder).exists()


def test_a_process_is_used_for_a_while_only() -> None:
    opened: list[Inspected] = []
    clock = ManualClock()
    with Scorer(opener(opened), clock=clock, fresh_s=60, beat=lambda: clock.advance(0)) as model:
        model._used_s = 61
        assert model.score(table(1)).tolist() == [0.01]
    assert len(opened) == 2


def test_after_many_halvings_the_rest_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "MOST_SPLITS", 3)
    with Scorer(opener([]), clock=ManualClock(), fresh_s=60, beat=lambda: None) as model:
        found = model.score(table(8, 1, 2, 3, 8, 4, 5, 6))
        assert model.failed + model.unscored + model.scored == 8
        assert model.unscored > 0
        assert np.isfinite(found).sum() == model.scored


def test_a_model_that_fails_on_everything_ends_it() -> None:
    with Scorer(opener([]), clock=ManualClock(), fresh_s=60, beat=lambda: None) as model:
        with pytest.raises(ModelFailure, match=r"fails on every row that was tried: .*eights are beyond me"):
            model.score(table(*[8] * 100))
        assert model.failed == scorer.HOPELESS


def test_speed_is_measured_where_the_model_is() -> None:
    opened: list[Inspected] = []
    with Scorer(opener(opened), clock=ManualClock(), fresh_s=60, beat=lambda: None) as model:
        found = measure(model, None, table=table(*[1.0] * 70))
        assert [(each["rows"], each["ratio"]) for each in found] == [(1, None), (64, None)]
        assert all(0 < each["candidate"]["p50_ms"] <= each["candidate"]["p99_ms"] for each in found)
        both = measure(model, model, table=table(1.0))
        assert both[0]["ratio"] > 0
