"""Texts of the settings that say what is exported, and as whose."""

from __future__ import annotations

from predis.errors import InvalidSetting
from predis.monitoring.exporters.batch import Tags


def words_of(text: str) -> tuple[str, ...]:
    """What stands between commas.

    >>> words_of("otlp, statsd,")
    ('otlp', 'statsd')
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def tags_of(text: str) -> Tags:
    """Tags given as ``NAME=VALUE``, separated by commas.

    >>> tags_of("environment=production, team=risk")
    (('environment', 'production'), ('team', 'risk'))

    Raises:
        InvalidSetting: one has no name or no value.
    """
    found = []
    for word in words_of(text):
        name, _, value = word.partition("=")
        if not name.strip() or not value.strip():
            raise InvalidSetting(f"export_tags must be like environment=production,team=risk, got {word!r}")
        found.append((name.strip(), value.strip()))
    return tuple(found)
