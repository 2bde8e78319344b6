"""What an endpoint's configuration says to the data plane.

    {"batching": {"rows": 64, "ms": 5}, "capture": true, "cache": {...}, "loaded": true}

Everything is optional; what is not said is as the settings have it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from predis.errors import InvalidInput
from predis.serving.cache import CacheConfig

_BATCHING = ("rows", "ms")


@dataclass(frozen=True)
class ServingConfig:
    """One endpoint's serving.

    ``batch_rows`` and ``batch_s`` bound what waiting requests are joined to (None: as the settings say; 1 row: never join).
    ``loaded`` is False while an operator has taken the endpoint out of memory.
    """

    batch_rows: int | None = None
    batch_s: float | None = None
    capture: bool = True
    cache: CacheConfig | None = None
    loaded: bool = True

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ServingConfig:
        """
        Raises:
            InvalidInput: a part of it cannot be used; the message names it.
        """
        batching = config.get("batching", {})
        if not isinstance(batching, Mapping) or not set(batching) <= set(_BATCHING):
            raise InvalidInput(f"batching has the keys {', '.join(_BATCHING)}, got {reprlib.repr(batching)}")
        rows, milliseconds = batching.get("rows"), batching.get("ms")
        if rows is not None and (type(rows) is not int or rows < 1):
            raise InvalidInput(f"batching.rows is a whole number from 1 on, got {reprlib.repr(rows)}")
        if milliseconds is not None and (
            type(milliseconds) not in (int, float) or not 0 <= milliseconds <= 60_000
        ):
            raise InvalidInput(f"batching.ms is 0 to 60000 milliseconds, got {reprlib.repr(milliseconds)}")
        cache = config.get("cache")
        return cls(
            rows,
            None if milliseconds is None else milliseconds / 1000,
            _flag(config, "capture"),
            None if cache is None else CacheConfig.from_dict(cache),
            _flag(config, "loaded"),
        )


def check_serving(config: Mapping[str, Any], endpoint: str) -> None:
    """Refuse a configuration that the data plane cannot use.

    Raises:
        InvalidInput
    """
    try:
        ServingConfig.from_dict(config)
    except InvalidInput as error:
        raise InvalidInput(f"endpoint {endpoint!r}: {error.message}") from None


def _flag(config: Mapping[str, Any], name: str) -> bool:
    found = config.get(name, True)
    if type(found) is not bool:
        raise InvalidInput(f"{name} is true or false, got {reprlib.repr(found)}")
    return found
