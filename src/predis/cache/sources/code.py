"""Sources that are Python functions."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from predis.cache.sources.calling import Change, Refused
from predis.cache.sources.pattern import Arguments
from predis.cache.sources.source import Source
from predis.errors import InvalidInput


class CodeCaller:
    """Calls ``module:function`` with a list of objects of arguments. Threads of the gateway call it: it must be thread-safe.

    An exception in the place of a value is that key's failure; one that is raised is the failure of all.

    Raises:
        InvalidInput: there is no such function.
    """

    def __init__(self, source: Source) -> None:
        self._fetch = _function(source.function)
        self._upsert = _function(source.upsert) if source.upsert else None
        self._delete = _function(source.delete) if source.delete else None
        self._name = source.function

    def fetch(self, batch: Sequence[Arguments]) -> list[Any]:
        found = self._fetch([dict(arguments) for arguments in batch])
        if not isinstance(found, list | tuple):
            raise TypeError(f"{self._name} gave {type(found).__name__}, not a list of values")
        if len(found) != len(batch):
            raise ValueError(f"{self._name} gave {len(found)} values for {len(batch)} keys")
        return list(found)

    def write(self, changes: Sequence[Change]) -> None:
        for change in changes:
            function = self._delete if change.deleted else self._upsert
            if function is None:
                raise Refused(f"the source has no function for {change.what}")
            try:
                function(change.bound)
            except (ValueError, TypeError, LookupError) as error:
                raise Refused(f"{type(error).__name__}: {error}") from error

    def explain(self, arguments: Arguments) -> str:
        return f"{self._name}([{dict(arguments)!r}])"

    def close(self) -> None:
        pass


def _function(named: str) -> Callable[[Any], Any]:
    module, _, name = named.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a user's module raises when it is imported
        raise InvalidInput(f"{named} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise InvalidInput(f"{named} is no function")
    return found  # type: ignore[no-any-return]
