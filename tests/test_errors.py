from __future__ import annotations

import pickle
import re

import pytest

from predis import errors
from predis.errors import PredisError, all_errors


def classes() -> list[type[PredisError]]:
    return [
        found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, PredisError)
    ]


def drawn() -> dict[str, str]:
    """The tree in the module's docstring: each class and its parent."""
    parents: dict[str, str] = {}
    branch = ["PredisError"]
    for indent, name in re.findall(r"^([ │]*)[├└]── (\w+)", str(errors.__doc__), re.MULTILINE):
        depth = len(indent) // 4
        branch[depth:] = [name]
        parents[name] = branch[depth - 1] if depth > 0 else "PredisError"
    return parents


def test_the_drawing_is_the_tree() -> None:
    assert drawn() == {c.__name__: c.__bases__[0].__name__ for c in classes() if c is not PredisError}


def test_codes_are_unique_and_for_programs() -> None:
    codes = [cls.code for cls in classes()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_every_code_leads_to_its_class() -> None:
    assert set(all_errors().values()) == set(classes())
    assert all(cls.code == code for code, cls in all_errors().items())


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_a_message_is_one_line_and_survives_pickling(cls: type[PredisError]) -> None:
    error = pickle.loads(pickle.dumps(cls("the file\n    is not\there")))
    assert type(error) is cls
    assert str(error) == error.message == "the file is not here"


def test_what_else_stands_in_args_is_not_for_people() -> None:
    error = errors.Unreachable("no answer")
    error.args = ("no answer", "unsent")
    assert str(error) == "no answer"


def test_a_missing_extra_says_how_to_install_it() -> None:
    error = errors.MissingExtra.of("lightgbm", "lightgbm")
    assert "pip install 'predis[lightgbm]'" in error.message


@pytest.mark.parametrize(
    ("cls", "standard"), [(errors.InvalidInput, ValueError), (errors.NotFound, LookupError)]
)
def test_what_python_has_a_word_for_is_that_too(cls: type[PredisError], standard: type[Exception]) -> None:
    assert issubclass(cls, standard)
