"""What a kind of source has to be able to do: one interface for SQL, HTTP and Python. All of it runs in threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from predis.cache.sources.pattern import Arguments


class Refused(Exception):
    """The source does not take this write, and would not take it later either."""


class Unfit(Exception):
    """What was asked for is at fault, not the source: this says nothing of its health, and the rest of a batch can do without it."""


@dataclass(frozen=True)
class Change:
    """One write: a deletion where ``deleted``. ``fields`` are those of a JSON object or a hash, bound beside ``value``."""

    arguments: Arguments
    deleted: bool
    value: str | bytes | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bound(self) -> dict[str, Any]:
        """What a statement or a function gets: placeholders before fields, so that a value cannot speak of another key."""
        value = {} if self.value is None else {"value": self.value}
        return {**self.fields, **value, **self.arguments}

    @property
    def what(self) -> str:
        return "deletions" if self.deleted else "values"


class Caller(Protocol):
    """Calls a source. Whatever it raises is the source's failure."""

    def fetch(self, batch: Sequence[Arguments]) -> list[Any]:
        """The values for these arguments, in their order; None where there is none, an exception where there is no telling.

        Raises:
            Unfit: one of them, at least, is none that the source can be asked for.
        """

    def write(self, changes: Sequence[Change]) -> None:
        """Bring these changes to the source, in their order: all of them, or none.

        Raises:
            Refused: one of them can never be.
        """

    def explain(self, arguments: Arguments) -> str:
        """What would be asked, for people."""

    def close(self) -> None: ...
