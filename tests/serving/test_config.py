from __future__ import annotations

from typing import Any

import pytest

from predis.errors import InvalidInput
from predis.serving.cache import CacheConfig
from predis.serving.config import ServingConfig, check_serving


def test_nothing_said_is_as_the_settings_have_it() -> None:
    assert ServingConfig.from_dict({}) == ServingConfig(None, None, True, None, True)


def test_what_others_read_is_left_alone() -> None:
    """Monitors and retraining keep theirs in the same configuration."""
    assert ServingConfig.from_dict({"monitor": 7, "retraining": None}) == ServingConfig()


@pytest.mark.parametrize(
    ("batching", "rows", "seconds"),
    [
        ({}, None, None),
        ({"rows": 1}, 1, None),
        ({"ms": 5}, None, 0.005),
        ({"rows": 64, "ms": 0}, 64, 0.0),
        ({"rows": None, "ms": None}, None, None),
        ({"ms": 60_000}, None, 60.0),
        ({"ms": 0.5}, None, 0.0005),
    ],
)
def test_batching(batching: Any, rows: int | None, seconds: float | None) -> None:
    found = ServingConfig.from_dict({"batching": batching})
    assert (found.batch_rows, found.batch_s) == (rows, seconds)


@pytest.mark.parametrize(
    ("batching", "says"),
    [
        (None, "batching has the keys rows, ms, got None"),
        (7, "batching has the keys"),
        ([], "batching has the keys"),
        ({"wait": 1}, "batching has the keys"),
        ({"rows": 0}, r"batching\.rows is a whole number from 1 on, got 0"),
        ({"rows": 1.0}, r"batching\.rows"),
        ({"rows": True}, r"batching\.rows"),
        ({"rows": "1"}, r"batching\.rows"),
        ({"ms": -1}, r"batching\.ms is 0 to 60000 milliseconds, got -1"),
        ({"ms": 60_001}, r"batching\.ms"),
        ({"ms": float("nan")}, r"batching\.ms"),
        ({"ms": "5"}, r"batching\.ms"),
        ({"ms": True}, r"batching\.ms"),
    ],
)
def test_batching_that_cannot_be_used(batching: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        ServingConfig.from_dict({"batching": batching})


@pytest.mark.parametrize("name", ["capture", "loaded"])
def test_flags(name: str) -> None:
    for value in (True, False):
        assert getattr(ServingConfig.from_dict({name: value}), name) is value
    for wrong in (None, 0, 1, "true", []):
        with pytest.raises(InvalidInput, match=f"{name} is true or false, got"):
            ServingConfig.from_dict({name: wrong})


def test_the_cache() -> None:
    assert ServingConfig.from_dict({"cache": None}).cache is None
    assert ServingConfig.from_dict({"cache": {"ttl_s": 5}}).cache == CacheConfig("memory", 5.0)
    with pytest.raises(InvalidInput, match="cache"):
        ServingConfig.from_dict({"cache": {"ttl": 5}})


def test_messages_stay_short() -> None:
    for config in ({"batching": "x" * 9000}, {"batching": {"rows": [1] * 9000}}, {"capture": "x" * 9000}):
        with pytest.raises(InvalidInput) as caught:
            ServingConfig.from_dict(config)
        assert len(str(caught.value)) < 200


def test_a_check_names_the_endpoint() -> None:
    check_serving({"batching": {"rows": 3}, "monitor": 1}, "e")
    with pytest.raises(InvalidInput, match=r"endpoint 'e': batching\.rows is a whole number"):
        check_serving({"batching": {"rows": 0}}, "e")
