"""What an alert asks of people."""

from __future__ import annotations

from enum import IntEnum

from predis.errors import InvalidInput


class Severity(IntEnum):
    """Moved inputs inform or warn; only consequences are critical; an emergency is an endpoint that does not answer."""

    INFO = 0
    WARNING = 1
    CRITICAL = 2
    EMERGENCY = 3

    @property
    def word(self) -> str:
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Severity:
        """
        Raises:
            InvalidInput: it is none.
        """
        try:
            return cls[word.upper()]
        except KeyError:
            raise InvalidInput(f"a severity is {', '.join(s.word for s in cls)}, got {word!r:.80}") from None
