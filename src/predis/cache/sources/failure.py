"""What a client is told when a source gives no answer."""

from __future__ import annotations

from predis.cache.sources.calling import Unfit


class SourceFailed(Exception):
    """``text`` is the RESP error for the client, without the leading ``-``: ``ERR source users: ...``. It is one line."""

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.split())
        super().__init__(self.text)


def in_words(error: BaseException) -> str:
    """What went wrong. Errors whose kind says nothing that their text does not, our own among them, go without it.

    >>> in_words(ValueError("the answer is no JSON")), in_words(KeyError("name"))
    ('the answer is no JSON', "KeyError: 'name'")
    """
    text = str(error)
    plain = isinstance(error, ValueError | RuntimeError | Unfit) and text
    return text if plain else f"{type(error).__name__}: {text}"
