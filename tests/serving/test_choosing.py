from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from predis.access import Caller
from predis.errors import InvalidRequest
from predis.serving.choosing import Chooser
from predis.serving.plane import Call
from predis.serving.protocol import InferRequest
from predis.serving.route import Segment
from predis.state.records import Arm
from tests.serving.helpers import applied, tensor

TWO = {1: 0.5, 2: 0.5}


def asked(
    key: str = "",
    *,
    headers: Mapping[Any, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    rows: list[dict[str, Any]] | None = None,
    tenant: str = "default",
) -> Call:
    request = InferRequest(dict(inputs or {}), "id", dict(parameters or {}), rows=rows)
    if key:
        request.parameters["routing_key"] = key
    found = Call(Caller(tenant, "ada", "client"), "e", request=request)
    found.headers = headers or {}
    return found


def chooser(weights: Mapping[int, float], *segments: Segment, salt: str = "") -> Chooser:
    found = applied(weights, segments=segments, salt=salt)
    return Chooser(found.route, found.versions)


def chosen(found: Chooser, call: Call) -> tuple[int, int]:
    return found.choose(call).number, call.arm


class TestWithoutSegments:
    def test_one_that_has_all_is_the_only_one(self) -> None:
        found = chooser({1: 0.0, 2: 1.0})
        assert found.only is not None
        assert found.only.number == 2
        assert chosen(found, asked("k")) == (2, Arm.ORDINARY)

    def test_between_several_the_key_draws_and_the_call_is_compared(self) -> None:
        found = chooser(TWO)
        assert found.only is None
        counts = Counter(chosen(found, asked(f"k{n}")) for n in range(2_000))
        assert set(counts) == {(1, Arm.COMPARED), (2, Arm.COMPARED)}
        assert 800 < counts[1, Arm.COMPARED] < 1_200

    def test_without_a_key_the_id_draws(self) -> None:
        found = chooser(TWO)
        calls = [asked() for _ in range(200)]
        for number, call in enumerate(calls):
            call.request.id = f"r{number}"
        assert {found.choose(call).number for call in calls} == {1, 2}
        assert [found.choose(call).number for call in calls] == [found.choose(call).number for call in calls]

    def test_a_key_meets_the_same_version_wherever_it_asks_until_the_salt_is_another(self) -> None:
        keys = [f"k{n}" for n in range(200)]
        first, same, other = (
            [found.choose(asked(key)).number for key in keys]
            for found in (chooser(TWO, salt="a"), chooser(TWO, salt="a"), chooser(TWO, salt="b"))
        )
        assert first == same
        assert 60 < sum(mine != theirs for mine, theirs in zip(first, other, strict=True)) < 140

    @pytest.mark.parametrize("weights", [{1: 1.0}, TWO])
    def test_a_key_that_is_no_text_is_refused(self, weights: Mapping[int, float]) -> None:
        with pytest.raises(InvalidRequest, match="routing_key must be text"):
            chooser(weights).choose(asked(parameters={"routing_key": 7}))


class TestSegments:
    def test_the_first_that_holds_decides(self) -> None:
        found = chooser(
            {1: 1.0},
            Segment("key == 'b'", {3: 1.0}),
            Segment("key in ['a', 'b']", {2: 1.0}),
            Segment("key == 'c'", TWO),
        )
        assert found.only is None
        assert chosen(found, asked("a")) == (2, Arm.ORDINARY)
        assert chosen(found, asked("b")) == (3, Arm.ORDINARY)
        assert chosen(found, asked("c"))[1] == Arm.COMPARED
        assert chosen(found, asked("d")) == (1, Arm.ORDINARY)
        assert chosen(found, asked()) == (1, Arm.ORDINARY)

    @pytest.mark.parametrize(
        ("when", "call"),
        [
            ("header.x_country == 'DE'", asked(headers={b"x-country": b"DE"})),
            ("header.X_Country == 'DE'", asked(headers={"x-country": "DE"})),
            ("header.x_name == 'ä'", asked(headers={b"x-name": "ä".encode()})),
            ("'mobile' in lower(header.user_agent)", asked(headers={b"user-agent": b"A Mobile one"})),
            ("header.x_none == None", asked(headers={b"x-other": b"a"})),
            ("parameter.tier == 'gold'", asked(parameters={"tier": "gold"})),
            ("parameter.age >= 18", asked(parameters={"age": 18})),
            ("parameter.list == None", asked(parameters={"list": [1]})),
            ("input.carrier == 'AA'", asked(inputs={"carrier": tensor("carrier", "BYTES", ["AA", "BB"])})),
            (
                "input.carrier == 'AA'",
                asked(inputs={"carrier": tensor("carrier", "BYTES", [["AA"], ["BB"]])}),
            ),
            ("input.x == 2.5", asked(inputs={"x": tensor("x", "FP64", np.array([2.5, 1]))})),
            ("input.x == 2", asked(inputs={"x": tensor("x", "INT64", np.array([[2, 3]]))})),
            ("input.b == True", asked(inputs={"b": tensor("b", "BOOL", np.array([True]))})),
            ("input.t == 'ö'", asked(inputs={"t": tensor("t", "BYTES", np.array(["ö".encode()], object))})),
            ("input.x == 4 and input.y == None", asked(rows=[{"x": 4}, {"x": 5}])),
            ("input.x == None", asked(inputs={"x": tensor("x", "FP64", [])})),
            ("input.x == None", asked(inputs={"x": tensor("x", "FP64", np.empty(0))})),
            ("input.x == None", asked(inputs={"x": tensor("x", "FP64", {"a": 1})})),
            ("input.x == None", asked(inputs={"x": {"name": "x"}})),
            ("input.x == None", asked()),
            ("input['dep time'] == 9", asked(inputs={"dep time": tensor("dep time", "INT64", [9])})),
            ("key == 'k'", asked("k")),
            ("key == None", asked()),
            ("tenant == 'acme'", asked(tenant="acme")),
        ],
    )
    def test_read_what_a_request_says_of_itself(self, when: str, call: Call) -> None:
        assert chooser({1: 1.0}, Segment(when, {2: 1.0})).choose(call).number == 2
        assert chooser({1: 1.0}, Segment(f"not ({when})", {2: 1.0})).choose(call).number == 1
