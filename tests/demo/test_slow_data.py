"""Features looked up are those of the table the model was trained on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest

from predis.cache.sources.source import Source
from predis.demo import flights, slow_data
from predis.errors import MissingExtra, Unreachable

pd = pytest.importorskip("pandas")
redis = pytest.importorskip("redis")


class Cache:
    """Loads keys as the gateway does: by the sources' own statements."""

    def __init__(self, path: Path) -> None:
        self._sources = [Source.of(name, document) for name, document in slow_data.sources(path).items()]
        self._database = sqlite3.connect(path)
        self._database.row_factory = sqlite3.Row
        self.asked = 0

    def mget(self, keys: list[bytes]) -> list[bytes | None]:
        self.asked += len(keys)
        return [self._get(key) for key in keys]

    def _get(self, key: bytes) -> bytes | None:
        for source in self._sources:
            arguments = source.matched.arguments(key)
            if arguments is not None:
                statement = source.statement.replace("IN :tailnum", "= :tailnum")
                row = self._database.execute(statement, arguments).fetchone()
                return orjson.dumps(dict(row)) if row else None
        raise AssertionError(key)

    def close(self) -> None:
        self._database.close()


@pytest.fixture(scope="module")
def frame() -> Any:
    try:
        return flights.load()
    except MissingExtra as missing:
        pytest.skip(str(missing))


def test_what_is_looked_up_is_what_the_table_has(frame: Any, tmp_path: Path) -> None:
    path = tmp_path / slow_data.FILE
    slow_data.write(path)
    some = frame.sample(5_000, random_state=1).reset_index(drop=True)
    with closing(Cache(path)) as cache:
        found = slow_data.Lookups(cast(Any, cache), some).features(range(len(some)))
    looked_up = pd.DataFrame(found).astype("float64")
    assert list(looked_up.columns) == [*flights.WEATHER, "plane_age", "seats"]
    for name in looked_up.columns:
        np.testing.assert_allclose(looked_up[name], some[name].astype("float64"), err_msg=name)
    assert looked_up.notna().mean().min() > 0.7, "most are known"


def test_a_key_is_asked_for_once_a_call(frame: Any, tmp_path: Path) -> None:
    path = tmp_path / slow_data.FILE
    slow_data.write(path)
    some = frame.head(32)
    with closing(Cache(path)) as cache:
        slow_data.Lookups(cast(Any, cache), some).features(range(32))
        hours = len(set(zip(some["origin"], some["hour"], strict=True)))
        assert cache.asked == hours + some["tailnum"].nunique()


def test_a_cache_that_does_not_answer_is_said_so(frame: Any) -> None:
    class Gone:
        def mget(self, keys: list[bytes]) -> list[bytes]:
            raise redis.ConnectionError("refused")

    with pytest.raises(Unreachable, match="cache"):
        slow_data.Lookups(cast(Any, Gone()), frame.head(3)).features([0])
