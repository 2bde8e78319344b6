"""The demo's slow data: weather and planes in a database of their own, read through the cache as an application would.

The replay asks for the weather of a flight's origin in its hour, ``weather:JFK:377016``, and for its plane, ``plane:N14228``. What the
cache lacks it loads from SQLite, which stands for whatever database a company has; what this process has read lately, the near cache
answers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from predis.demo import flights as data
from predis.errors import Unreachable

if TYPE_CHECKING:
    import pandas as pd

    from predis.nearcache.sync import NearRedis

FILE = "slow.sqlite"
FLOWN = 2013
Values = Mapping[str, float | None]


def sources(path: Path) -> dict[str, dict[str, Any]]:
    """The two sources, by name, as ``Client.add_cache_source`` takes them."""
    url = f"sqlite:///{path}"
    weather = ", ".join(data.WEATHER)
    return {
        "weather": {
            "kind": "sql",
            "pattern": "weather:{origin}:{hour:int}",
            "url": url,
            "statement": f"SELECT {weather} FROM weather WHERE origin = :origin AND hour = :hour",  # noqa: S608 - names of ours
        },
        "planes": {
            "kind": "sql",
            "pattern": "plane:{tailnum}",
            "url": url,
            "statement": "SELECT tailnum, year, seats FROM planes WHERE tailnum IN :tailnum",
        },
    }


def write(path: Path) -> None:
    """The tables, from the package's files. Takes half a second."""
    weather, planes = data.slow_tables()
    with closing(sqlite3.connect(path)) as database, database:
        names = ", ".join(data.WEATHER)
        database.execute(
            f"CREATE TABLE weather (origin TEXT, hour INTEGER, {names}, PRIMARY KEY (origin, hour))"
        )
        database.execute("CREATE TABLE planes (tailnum TEXT PRIMARY KEY, year INTEGER, seats INTEGER)")
        marks = ", ".join("?" * (2 + len(data.WEATHER)))
        database.executemany(f"INSERT INTO weather VALUES ({marks})", _rows(weather))  # noqa: S608 - marks only
        database.executemany("INSERT INTO planes VALUES (?, ?, ?)", _rows(planes))


class Lookups:
    """Features of flights, read through the cache.

    Args:
        flights: as ``flights.load`` returns them.
    """

    def __init__(self, cache: NearRedis, flights: pd.DataFrame) -> None:
        self._cache = cache
        self._weather = [
            f"weather:{origin}:{hour}".encode()
            for origin, hour in zip(flights["origin"], flights["hour"], strict=True)
        ]
        self._planes = [
            f"plane:{tailnum}".encode() if tailnum else None
            for tailnum in flights["tailnum"].fillna("").tolist()
        ]

    def features(self, places: Sequence[int]) -> list[dict[str, float | None]]:
        """``WEATHER``, ``plane_age`` and ``seats`` of each of these flights; None where nobody knows.

        Raises:
            Unreachable: the cache does not answer.
        """
        from redis import RedisError

        wanted = {key: None for place in places for key in (self._weather[place], self._planes[place]) if key}
        try:
            found = dict(zip(wanted, self._cache.mget(list(wanted)), strict=True))
        except RedisError as error:
            raise Unreachable(f"the cache does not answer: {error}") from error
        return [self._features(place, found) for place in places]

    def _features(self, place: int, found: Mapping[bytes, bytes | str | None]) -> dict[str, float | None]:
        weather = _read(found[self._weather[place]])
        key = self._planes[place]
        plane = _read(found[key]) if key else {}
        built = plane.get("year")
        return {
            **{name: weather.get(name) for name in data.WEATHER},
            "plane_age": None if built is None else FLOWN - built,
            "seats": plane.get("seats"),
        }


def _read(value: bytes | str | None) -> Values:
    found: Values = orjson.loads(value) if value else {}
    return found


def _rows(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Rows as SQLite takes them: numpy's numbers as Python's, NaN as NULL."""
    columns = [
        [
            None if value != value else value for value in table[name].astype(object).tolist()
        ]  # NaN is not itself
        for name in table.columns
    ]
    return list(zip(*columns, strict=True))
