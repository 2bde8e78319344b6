from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.expressions import MAX_CHARACTERS, MAX_NODES, compile_expression

NAMES = ("x", "y", "z", "header.*", "input.*")


def value(text: str, known: Mapping[str, Any] | None = None) -> Any:
    return compile_expression(text, names=NAMES)((known or {}).get)


class TestValues:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("1 + 2 * 3", 7),
            ("-(2 - 5) / 2", 1.5),
            ("7 // 2 + 7 % 4", 6),
            ("1 < 2 <= 2 != 3", True),
            ("1 < 2 > 3", False),
            ("not 0 and 'a'", "a"),
            ("None or 0 or 'b' or 'c'", "b"),
            ("1 and 0 and 2", 0),
            ("'yes' if 2 > 1 else 'no'", "yes"),
            ("'yes' if None else 'no'", "no"),
            ("2 in [1, 2, 3]", True),
            ("-2 in (1, -2)", True),
            ("'a' not in {'b', 'c'}", True),
            ("None in [None]", True),
            ("'ell' in 'hello'", True),
            ("'x' not in 'hello'", True),
            ("abs(-3) + min(4, 2, 8) + max(1, 5)", 10),
            ("len(upper('aé')) == 2 and lower('AB') == 'ab'", True),
            ("startswith('hello', 'he') and endswith('hello', 'lo')", True),
            ("True == 1", True),
            ("'a' < 'b'", True),
            ("""'it''s' == "its" """, True),
            ("(1 +\n 2)", 3),
        ],
    )
    def test_are_pythons(self, text: str, expected: Any) -> None:
        found = value(text)
        assert (type(found), found) == (type(expected), expected)

    @pytest.mark.parametrize(
        "text",
        [
            "x + 1", "1 - x", "x * 2", "-x", "'a' + 'b'", "'a' * 3", "1 / 0", "1.5 % 0", "1 // 0", "abs(x)",
            "abs('a')", "min(1, x)", "max('a', 'b')", "len(x)", "len(3)", "lower(x)", "upper(4)", "1e308 * 10 // 1 * x",
            f"{'9' * 400} / 0.5",
        ],
    )  # fmt: skip
    def test_arithmetic_that_makes_no_sense_is_none(self, text: str) -> None:
        assert value(text) is None

    @pytest.mark.parametrize(
        "text",
        [
            "x < 3", "x >= 3", "3 > x", "'a' < 1", "1 <= 'a'", "x == 3", "1 == 'a'", "1 < x < 3", "'a' in x", "x in 'a'",
            "1 in 'a'", "startswith(x, 'a')", "endswith('a', 3)", "x in [1, 2]",
        ],
    )  # fmt: skip
    def test_a_comparison_that_makes_no_sense_is_false(self, text: str) -> None:
        assert value(text) is False

    def test_a_name_without_a_value_is_none(self) -> None:
        assert value("x == None and x != 'a' and x not in ['a']") is True


class TestNames:
    def test_are_looked_up_by_their_dotted_form(self) -> None:
        text = "header.x_country == 'DE' and input['dep time'] > 3 and input.a.b != y"
        found = compile_expression(text, names=NAMES)
        assert found.names == {"header.x_country", "input.dep time", "input.a.b", "y"}
        assert found.holds({"header.x_country": "DE", "input.dep time": 4, "input.a.b": 1, "y": 2}.get)

    def test_no_more_of_them_are_looked_up_than_decide(self) -> None:
        asked: list[str] = []

        def get(name: str) -> int:
            asked.append(name)
            return 1

        assert not compile_expression("x == 2 and y or 3 < x < z", names=NAMES).holds(get)
        assert asked == ["x", "x"]

    @pytest.mark.parametrize(
        "text", ["header", "header.", "w", "xx", "headers.a", "x.y", "input['']", "__import__"]
    )
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(InvalidInput):
            compile_expression(text, names=NAMES)

    @pytest.mark.parametrize(
        ("given", "seen"),
        [
            (np.float64(1.5), 1.5),
            (np.int64(3), 3),
            (np.float32(0.5), 0.5),
            (b"bytes", None),
            ([1], None),
            ({"a": 1}, None),
            (object(), None),
            (1j, None),
            ("a" * 5_000, "a" * 4_096),
        ],
    )
    def test_their_values_are_numbers_texts_truth_values_or_none(self, given: Any, seen: Any) -> None:
        found = value("x", {"x": given})
        assert (type(found), found) == (type(seen), seen)

    def test_of_numpy_cause_no_warnings(self) -> None:
        assert value("x / y", {"x": np.float64(1), "y": np.float64(0)}) is None

    def test_may_be_found_in_whatever_it_is_called_with(self) -> None:
        asked: list[str] = []

        def read(name: str) -> Any:
            asked.append(name)
            return lambda row: row[len(name) - 1]

        expression = compile_expression("x + 1 == 3 or x == 'a'", names=["x"], read=read)
        assert [expression.holds(row) for row in ([2], [3], ["a"], [None])] == [True, False, True, False]
        assert asked == ["x", "x"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "empty"),
            ("  \n ", "empty"),
            ("x +", "cannot be read"),
            ("x = 3", "cannot be read"),
            ("x\0", "cannot be read"),
            ("x; y", "cannot be read"),
            ("\ud800", "cannot be read"),
            ("(" * 300, "cannot be read"),
            ("x + w", "at character 5: there is no 'w'; the names are header.*, input.*, x, y, z"),
            ("'é' == w", "at character 8: there is no 'w'"),
            ("x ** 2", "at character 1: 'x ** 2' has an operation that is not taken"),
            ("x << 2", "not taken"),
            ("+x", "'-' and 'not' are"),
            ("~x", "'-' and 'not' are"),
            ("x is None", "compare with == or !="),
            ("eval('1')", "'eval' is no function; the functions are abs, min"),
            ("x.lower()", "'x.lower' is no function"),
            ("min(1)", "min takes at least 2 values"),
            ("abs(1, 2)", "abs takes 1 value"),
            ("startswith('a')", "startswith takes 2 values"),
            ("len(s='a')", "len takes 1 value"),
            ("max(*x)", "max takes at least 2"),
            ("max(1, *x)", "none of the things"),
            ("lambda: 1", "none of the things"),
            ("[x for x in y]", "none of the things"),
            ("f'{x}'", "none of the things"),
            ("(x := 1)", "none of the things"),
            ("[1, 2]", "none of the things"),
            ("x in [y]", "no number, text"),
            ("x in [-'a']", "no number, text"),
            ("b'a'", "no number, text"),
            ("1j", "no number, text"),
            ("...", "no number, text"),
            ("input[0]", "is no name"),
            ("input[x]", "is no name"),
            ("(1).real", "is no name"),
        ],
    )
    def test_say_what_and_where(self, text: str, told: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            compile_expression(text, names=NAMES)
        assert told in caught.value.message

    def test_of_what_is_too_long(self) -> None:
        assert (
            value("x" + " " * (MAX_CHARACTERS - 2) + " ", {"x": 4}) == 4
        )  # the blanks around it do not count
        with pytest.raises(InvalidInput, match="at most 500 characters"):
            compile_expression("x+" * 250 + "x", names=NAMES)
        assert value("+".join("1" * (MAX_NODES // 2))) == MAX_NODES // 2
        with pytest.raises(InvalidInput, match="at most 100 parts"):
            compile_expression("+".join("1" * (MAX_NODES // 2 + 1)), names=NAMES)

    def test_nothing_is_told_of_odd_escapes(self) -> None:
        assert value(r"'\d' == x", {"x": r"\d"}) is True
        assert value("1if 1else 2") == 1


# -- whatever is asked, it gives a plain value or is refused -------------------------------------------------------------------

_leaves = st.sampled_from(
    ["x", "y", "z", "header.a", "input['b c']", "0", "1", "2.5", "-1", "1e308", "'a'", "''", "True", "None"]
)
_binary = st.sampled_from(
    ["+", "-", "*", "/", "//", "%", "<", "<=", ">", ">=", "==", "!=", "and", "or", "in", "not in"]
)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, _binary, inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda part: f"(not {part})"),
        inner.map(lambda part: f"(-{part})"),
        st.tuples(inner, inner, inner).map(lambda p: f"({p[0]} if {p[1]} else {p[2]})"),
        st.tuples(inner, inner, inner).map(lambda p: f"({p[0]} < {p[1]} != {p[2]})"),
        inner.map(lambda part: f"({part} in [1, 'a', None, -2.5])"),
        st.tuples(st.sampled_from(["abs", "len", "lower", "upper"]), inner).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(st.sampled_from(["min", "max", "startswith", "endswith"]), inner, inner).map(
            lambda p: f"{p[0]}({p[1]}, {p[2]})"
        ),
    )


expressions = st.recursive(_leaves, _larger, max_leaves=12).filter(lambda text: len(text) <= MAX_CHARACTERS)
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.floats().map(np.float64),
    st.just(math.inf),
)
PLAIN = (int, float, bool, str, type(None))


@given(expressions, st.fixed_dictionaries(dict.fromkeys(("x", "y", "z", "header.a", "input.b c"), anything)))
def test_evaluating_never_fails(text: str, known: dict[str, Any]) -> None:
    try:
        expression = compile_expression(text, names=NAMES)
    except InvalidInput:
        assert "parts" in text or len(text) > 100  # only of its size
        return
    assert type(expression(known.get)) in PLAIN
    assert type(expression.holds(known.get)) is bool


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        expression = compile_expression(text, names=NAMES)
    except InvalidInput:
        return
    assert type(expression(lambda _name: 1)) in PLAIN
