"""ADWIN, which is river's; the package `river` is an extra."""

from __future__ import annotations

import math
from typing import Any

from predis.errors import InvalidInput


class AdwinDetector:
    """Adaptive windowing (Bifet and Gavalda 2007) as river implements it, behind this package's interface.

    delta: rate of false alarms for independent bounded values. That guarantee is void where errors cluster, as they do in
    most real streams: `LossDetector` is the quiet one. Alarms of a falling mean are not given: a loss that falls asks nothing of
    anybody.

    Raises `InvalidInput` where river is not installed.
    """

    def __init__(self, *, delta: float = 0.002) -> None:
        try:
            import river.drift
        except ImportError as error:
            raise InvalidInput(
                'ADWIN is that of the package river: install "predis[river]", or use LossDetector'
            ) from error
        self.delta = delta
        made: Any = river.drift.ADWIN
        self._adwin = made(delta=delta)
        self._detected = False

    def reset(self) -> None:
        """Forget all values."""
        self.__init__(delta=self.delta)  # type: ignore[misc]  # river's detector has no reset

    def update(self, value: float) -> None:
        """Add one value. Raises `InvalidInput` unless it is finite."""
        if not math.isfinite(value):
            raise InvalidInput(f"a value must be finite, got {value}; leave out what is not known")
        before = float(self._adwin.estimation)
        self._adwin.update(value)
        self._detected = bool(self._adwin.drift_detected) and float(self._adwin.estimation) > before

    @property
    def verdict(self) -> float:
        """The mean of the window that it holds to be of one kind."""
        return float(self._adwin.estimation)

    @property
    def drift_detected(self) -> bool:
        """Whether the newest value gave an alarm."""
        return self._detected
