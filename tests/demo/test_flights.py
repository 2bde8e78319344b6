"""Flights: rows that say only what was known, when their labels became known, and a model that can be repeated."""

from __future__ import annotations

import numpy as np
import pytest

from predis.demo import flights
from predis.errors import MissingExtra
from predis.stats import auc

pd = pytest.importorskip("pandas")
pytest.importorskip("lightgbm")


@pytest.fixture(scope="module")
def frame():
    try:
        return flights.load()
    except MissingExtra as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def january(frame):
    return frame[frame["scheduled"] < "2013-02-01"]


@pytest.fixture(scope="module")
def model(january):
    return flights.fit(january, flights.levels(january))


def test_every_flight_that_landed_is_there_once_in_the_order_of_departure(frame):
    assert len(frame) == 327_346
    assert list(frame.columns) == [*flights.FEATURES, *flights.LOOKUPS, "scheduled", "landed", "late"]
    assert frame["scheduled"].is_monotonic_increasing
    assert frame["scheduled"].dtype == frame["landed"].dtype == np.dtype("datetime64[ns]")


def test_late_is_more_than_fifteen_minutes_after_the_scheduled_arrival(frame):
    arrival = frame["scheduled"] + pd.to_timedelta(frame["block_minutes"], unit="min")
    delay = (frame["landed"] - arrival).dt.total_seconds() / 60
    assert frame["late"].dtype == np.int8
    assert ((delay > flights.LATE_MINUTES) == (frame["late"] == 1)).all()
    assert frame["late"].mean() == pytest.approx(0.2371, abs=1e-4)


def test_no_flight_lands_before_it_could(frame):
    flown = (frame["landed"] - frame["scheduled"]).dt.total_seconds() / 60
    assert flown.min() > 0
    assert frame["block_minutes"].between(50, 700).all()
    speed = frame["distance"] / frame["block_minutes"] * 60  # miles an hour, gate to gate
    assert speed.between(60, 600).all()


@pytest.mark.parametrize(
    ("dest", "scheduled", "minutes"),
    [
        ("IAH", "2013-01-01 05:15", 244),  # 05:15 to 08:19 in Houston, an hour behind
        ("HNL", "2013-01-01 09:00", 690),  # 09:00 to 15:30 in Honolulu, five hours behind in winter
    ],
)
def test_block_minutes_of_flights_in_the_data(frame, dest, scheduled, minutes):
    flight = frame[(frame["dest"] == dest) & (frame["scheduled"] == scheduled)].iloc[0]
    assert flight["block_minutes"] == minutes


@pytest.mark.parametrize(
    ("dest", "left_utc", "left", "reached", "minutes"),
    [
        ("BOS", "2013-01-05 15:00", "10:00", 1105, 65),  # the same clock
        ("LAX", "2013-01-05 15:00", "10:00", 1300, 360),  # three hours behind in winter
        ("LAX", "2013-07-05 14:00", "10:00", 1300, 360),  # and in summer
        ("PHX", "2013-01-05 15:00", "10:00", 1300, 300),  # two hours behind in winter
        ("PHX", "2013-07-05 14:00", "10:00", 1300, 360),  # three in summer: its clock stays
        ("SJU", "2013-01-05 15:00", "10:00", 1500, 240),  # not listed: an hour ahead in winter
        ("SJU", "2013-07-05 14:00", "10:00", 1500, 300),  # the same clock in summer
        ("SJU", "2013-01-06 04:59", "23:59", 459, 240),  # past midnight
        ("BOS", "2013-01-06 03:00", "22:55", 2400, 65),  # at midnight, as the source writes it
        ("LAX", "2013-01-06 02:00", "21:00", 15, 375),  # past midnight, and past midnight UTC before that
    ],
)
def test_block_minutes_count_the_hours_between_two_clocks(dest, left_utc, left, reached, minutes):
    hour, minute = map(int, left.split(":"))
    flight = {
        "dest": [dest],
        "hour": [hour],
        "minute": [minute],
        "time_hour": pd.to_datetime([left_utc], utc=True),
        "sched_arr_time": [reached],
    }
    airports = pd.DataFrame({
        "faa": ["BOS", "LAX", "PHX"], "tz": [-5, -8, -7], "dst": ["A", "A", "N"],
    })  # fmt: skip
    assert flights._block_minutes(pd.DataFrame(flight), airports).tolist() == [minutes]


def test_loading_twice_gives_the_same(frame):
    pd.testing.assert_frame_equal(frame, flights.load())


def test_without_the_data_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(flights, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"predis\[demo\]"):
        flights.load()


def few(**columns):
    rows = len(next(iter(columns.values())))
    values = {
        name: ["a"] * rows if name in flights.CATEGORICALS else [1.0] * rows for name in flights.FEATURES
    }
    return pd.DataFrame({**values, **columns})


def test_levels_are_sorted_and_leave_out_what_is_missing():
    assert flights.levels(few(carrier=["b", None, "a", "b"]))["carrier"] == ("a", "b")


def test_encoding_follows_the_levels_given():
    levels = {"carrier": ("a", "b"), "origin": ("a",), "dest": ("a",)}
    encoded = flights.encode(few(carrier=["b", "a", "c", None], temp=[3.0, np.nan, 0.0, -1.0]), levels)
    assert encoded.shape == (4, len(flights.FEATURES))
    assert encoded.dtype == np.float64
    np.testing.assert_array_equal(encoded[:, flights.FEATURES.index("carrier")], [1, 0, -1, np.nan])
    np.testing.assert_array_equal(encoded[:, flights.FEATURES.index("temp")], [3, np.nan, 0, -1])


def test_encoding_does_not_change_the_frame(january):
    before = january.head(100).copy()
    flights.encode(january.head(100), flights.levels(january))
    pd.testing.assert_frame_equal(january.head(100), before)


def test_holdout_cuts_in_time(january):
    earlier, newest = flights.holdout(january, days=7)
    assert len(earlier) + len(newest) == len(january)
    assert earlier["scheduled"].max() < newest["scheduled"].min()
    assert newest["scheduled"].max() - newest["scheduled"].min() < pd.Timedelta(days=7)


def test_no_feature_tells_the_label(january):
    encoded = flights.encode(january, flights.levels(january))
    for place, name in enumerate(flights.FEATURES):
        known = ~np.isnan(encoded[:, place])
        found = auc(encoded[known, place], january["late"].to_numpy()[known])
        assert 0.35 < found < 0.65, name


def test_the_model_knows_something_of_the_next_weeks(frame, january, model):
    february = frame[frame["scheduled"].between("2013-02-01", "2013-02-15")]
    scores = flights.score(model, february, levels=flights.levels(january))
    assert ((scores > 0) & (scores < 1)).all()
    assert 0.6 < auc(scores, february["late"].to_numpy()) < 0.85


def test_the_same_rows_give_the_same_model_whatever_the_threads(january, model):
    again = flights.fit(january, flights.levels(january), threads=2)
    assert trees(again) == trees(model)


def trees(model):
    return model.model_to_string().split("\nparameters:")[0]


def test_an_unseen_level_scores_as_a_missing_one(january, model):
    levels = flights.levels(january)
    unseen = january.head(500).assign(dest="XXX")
    missing = january.head(500).assign(dest=None)
    np.testing.assert_array_equal(
        flights.score(model, unseen, levels=levels), flights.score(model, missing, levels=levels)
    )
    raw = model.predict(flights.encode(unseen, levels), num_threads=1)
    np.testing.assert_array_equal(raw, flights.score(model, unseen, levels=levels))


def test_a_saved_model_scores_the_same(january, model, tmp_path):
    import lightgbm

    model.save_model(tmp_path / "model.txt")
    loaded = lightgbm.Booster(model_file=str(tmp_path / "model.txt"))
    levels = flights.levels(january)
    np.testing.assert_array_equal(
        flights.score(loaded, january.head(500), levels=levels),
        flights.score(model, january.head(500), levels=levels),
    )
