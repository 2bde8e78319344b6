from __future__ import annotations

import pytest

from predis.errors import InvalidSetting
from predis.monitoring.exporters.naming import tags_of, words_of


def test_words() -> None:
    assert words_of("") == ()
    assert words_of(" a,, b ") == ("a", "b")


def test_tags() -> None:
    assert tags_of("environment = production,team=risk=high") == (
        ("environment", "production"),
        ("team", "risk=high"),
    )


@pytest.mark.parametrize("text", ["production", "=x", "x="])
def test_what_is_no_tag(text: str) -> None:
    with pytest.raises(InvalidSetting, match="export_tags"):
        tags_of(text)
