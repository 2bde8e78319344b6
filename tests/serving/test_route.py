from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.serving.route import Route, Segment, Split, at, point

KEYS = [f"customer-{i}" for i in range(20_000)]


def shares(weights: dict[int, float], *, endpoint: str = "e") -> dict[int, float]:
    route = Route(endpoint, 1, weights)
    counts = Counter(route.pick(key, route.weights) for key in KEYS)
    return {version: counts[version] / len(KEYS) for version in weights}


@st.composite
def weight_maps(draw: st.DrawFn) -> dict[int, float]:
    parts = draw(st.lists(st.integers(0, 100), min_size=1, max_size=6).filter(any))
    return {number: part / sum(parts) for number, part in enumerate(parts, 1)}


class TestWeights:
    @pytest.mark.parametrize(
        "weights",
        [
            {1: 1.0},
            {1: 0.0, 2: 1.0},
            {1: 0.9, 2: 0.1},
            {1: 1 / 3, 2: 1 / 3, 3: 1 / 3},
            dict.fromkeys(range(10), 0.1),
            {},
        ],
    )
    def test_that_sum_to_one_are_a_route(self, weights: dict[int, float]) -> None:
        assert Route("e", 1, weights).weights == weights

    @pytest.mark.parametrize(
        "weights",
        [
            {1: 0.9},
            {1: 0.5, 2: 0.6},
            {1: 1.5, 2: -0.5},
            {1: 0.0},
            {1: math.nan},
            {1: math.inf},
            {1: -1, 2: 2},
        ],
    )
    def test_that_do_not_are_refused(self, weights: dict[int, float]) -> None:
        with pytest.raises(InvalidInput, match="weights"):
            Route("e", 1, weights)

    def test_to_dict_is_json_with_a_time_only_where_there_is_one(self) -> None:
        nothing = {
            "number": 0, "weights": {}, "segments": [], "shadows": {}, "salt": "", "reason": "", "created_at": None,
        }  # fmt: skip
        assert Route("e", 0, {}).to_dict() == nothing
        segments = (Segment("tenant == 'a'", {4: 1.0}),)
        full = Route("e", 2, {3: 1.0}, "why", 1_700_000_000_000_000_000, segments, {5: 0.5}, "s")
        assert full.to_dict() == {
            "number": 2,
            "weights": {"3": 1.0},
            "segments": [{"when": "tenant == 'a'", "weights": {"4": 1.0}}],
            "shadows": {"5": 0.5},
            "salt": "s",
            "reason": "why",
            "created_at": "2023-11-14T22:13:20Z",
        }


class TestSplit:
    def test_tells_who_answers_and_who_must_be_in_memory(self) -> None:
        segments = (Segment("key == 'a'", {7: 0.0, 1: 1.0}), Segment("key == 'b'", {5: 0.5, 6: 0.5}))
        split = Split({2: 0.0, 1: 1.0}, segments, {9: 1.0, 2: 0.1})
        for each in (split, Route("e", 1, **vars(split))):
            assert each.answering() == (1, 5, 6)
            assert each.versions() == (2, 1, 7, 5, 6, 9)
        assert Split({}).versions() == Split({}).answering() == ()

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"segments": (Segment("key ==", {1: 1.0}),)}, "'key ==' cannot be read"),
            ({"segments": (Segment("label == 1", {1: 1.0}),)}, "there is no 'label'; the names are header"),
            ({"segments": (Segment("key == 'a'", {1: 0.5}),)}, "weights of the segment \"key == 'a'\" sum to 1"),
            ({"segments": (Segment("key == 'a'", {}),)}, "sum to 1"),
            ({"segments": (Segment("key == 'a'", {1: 1.5, 2: -0.5}),)}, "between 0 and 1"),
            ({"shadows": {2: 0.0}}, "above 0 and at most 1"),
            ({"shadows": {2: 1.1}}, "above 0 and at most 1"),
            ({"shadows": {2: math.nan}}, "above 0 and at most 1"),
            ({"shadows": {1: 0.5}}, "version 1 answers requests"),
            ({"shadows": {3: 0.5}, "segments": (Segment("key == 'a'", {3: 1.0}),)}, "version 3 answers requests"),
            ({"salt": "x" * 65}, "at most 64"),
            ({"salt": "a\0b"}, "printable"),
            ({"weights": {}, "shadows": {3: 0.5}}, "need weights"),
            ({"weights": {}, "segments": (Segment("key == 'a'", {3: 1.0}),)}, "need weights"),
        ],
    )  # fmt: skip
    def test_says_what_is_wrong_with_one(self, wrong: dict[str, Any], told: str) -> None:
        for make in (Split, partial(Route, "e", 1)):
            with pytest.raises(InvalidInput) as caught:
                make(**{"weights": {1: 1.0}, **wrong})
            assert told in caught.value.message


class TestPick:
    @given(weight_maps(), st.text())
    def test_is_the_same_every_time_and_never_a_version_of_weight_zero(
        self, weights: dict[int, float], key: str
    ) -> None:
        chosen = Route("e", 1, weights).pick(key, weights)
        assert chosen == Route("e", 9, dict(weights), "another number, same weights").pick(key, dict(weights))
        assert weights[chosen] > 0

    def test_does_not_depend_on_the_process(self) -> None:
        """Every replica agrees without talking; these are positions any other implementation must find."""
        assert [round(point("flight-delay", key), 6) for key in ("", "a", "customer-7", "é")] == [
            0.880345,
            0.937682,
            0.191178,
            0.710477,
        ]

    @pytest.mark.parametrize(
        "weights",
        [
            {1: 0.5, 2: 0.5},
            {1: 0.99, 2: 0.01},
            {1: 0.7, 2: 0.2, 3: 0.1},
            {1: 0.0, 2: 0.75, 3: 0.25},
            {1: 1.0, 2: 0.0},
        ],
    )
    def test_shares_of_many_keys_are_near_the_weights(self, weights: dict[int, float]) -> None:
        found = shares(weights)
        for version, weight in weights.items():
            spread = math.sqrt(weight * (1 - weight) / len(KEYS))
            assert abs(found[version] - weight) <= 4.5 * spread

    def test_a_growing_canary_only_takes_over_keys(self) -> None:
        held: set[str] = set()
        for share in (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0):
            route = Route("e", 1, {1: 1 - share, 2: share})
            now = {key for key in KEYS if route.pick(key, route.weights) == 2}
            assert held <= now
            held = now
        assert len(held) == len(KEYS)

    @given(weight_maps(), st.floats(0, 1), st.floats(0, 1), st.text())
    def test_so_does_one_beside_other_versions(
        self, others: dict[int, float], first: float, second: float, key: str
    ) -> None:
        low, high = sorted((first, second))
        small, large = (
            Route("e", 1, {**{n: w * (1 - share) for n, w in others.items()}, 99: share})
            for share in (low, high)
        )
        if small.pick(key, small.weights) == 99:
            assert large.pick(key, large.weights) == 99

    def test_the_ends_of_the_line(self) -> None:
        route = Route("e", 1, {1: 0.25, 2: 0.75, 3: 0.0})
        assert [
            at(route.weights, place) for place in (0.0, math.nextafter(0.25, 0), 0.25, math.nextafter(1, 0))
        ] == [
            1,
            1,
            2,
            2,
        ]
        # The last eleven bits of a hash are lost in a float, so the point may be 1.0; rounding may end the line a bit early.
        assert at(route.weights, 1.0) == 2
        assert at(dict.fromkeys(range(1, 11), 0.1), 1.0) == 10


class TestPoint:
    @given(st.text(), st.text())
    def test_is_in_the_unit_interval(self, endpoint: str, key: str) -> None:
        assert 0 <= point(endpoint, key) <= 1

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("a", "b"),
            ("flight-delay-production-a", "flight-delay-production-b"),
            ("x" * 127 + "a", "x" * 127 + "b"),
        ],
    )
    def test_endpoints_choose_independently(self, one: str, other: str) -> None:
        """Who meets a canary on one endpoint must not be who meets it on every other."""
        canary = {1: 0.5, 2: 0.5}
        first, second = Route(one, 1, canary), Route(other, 1, canary)
        both = sum(first.pick(key, canary) == 2 and second.pick(key, canary) == 2 for key in KEYS) / len(KEYS)
        assert abs(both - 0.25) < 0.02

    def test_so_does_every_salt(self) -> None:
        canary = {1: 0.5, 2: 0.5}
        first, second = (Route("e", 1, canary, salt=salt) for salt in ("rollout 1", "rollout 2"))
        both = sum(first.pick(key, canary) == 2 and second.pick(key, canary) == 2 for key in KEYS) / len(KEYS)
        assert abs(both - 0.25) < 0.02

    def test_endpoint_and_key_do_not_run_into_each_other(self) -> None:
        assert (
            len({point("ab", "c"), point("a", "bc"), point("a", "c", salt="b"), point("a", "", salt="bc")})
            == 4
        )
