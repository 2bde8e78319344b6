"""Page-Hinkley: has the mean of a stream risen?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from predis.errors import InvalidInput


class PageHinkleyDetector:
    """Page's cumulative sum (1954) as Hinkley (1971) and river have it: alarm when the mean of a stream has risen.

    delta: rise of the mean that is tolerated. threshold: cumulated excess that is an alarm; higher is quieter and
    later. min_values: values before the first verdict. forgetting: factor per value by which old excess counts less. The
    thresholds are in the units of the values and of independent values: for losses whose errors cluster, `LossDetector` is the
    quiet one.

    After an alarm it starts anew with the next value. Constant memory, a fraction of a microsecond per value.

    >>> detector = PageHinkleyDetector()
    >>> for at in range(2000):
    ...     detector.update(0.0 if at < 1000 else 1.0)
    ...     if detector.drift_detected:
    ...         print("drift at", at)
    drift at 1051
    """

    def __init__(
        self,
        *,
        delta: float = 0.005,
        threshold: float = 50.0,
        min_values: int = 30,
        forgetting: float = 0.9999,
    ) -> None:
        if not (delta >= 0.0 and threshold > 0.0 and min_values >= 1 and 0.0 < forgetting <= 1.0):
            raise InvalidInput(
                "Page-Hinkley needs delta >= 0, threshold > 0, min_values >= 1 and forgetting in (0, 1]"
            )
        self.delta = delta
        self.threshold = threshold
        self.min_values = min_values
        self.forgetting = forgetting
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self._rows = 0
        self._mean = 0.0
        self._sum = 0.0
        self._lowest = 0.0
        self._detected = False

    def to_dict(self) -> dict[str, Any]:
        """What it remembers, as plain JSON: to go on after a restart."""
        return {
            "rows": self._rows, "mean": self._mean, "sum": self._sum, "lowest": self._lowest, "detected": self._detected,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `to_dict` gave."""
        self._rows, self._detected = int(state["rows"]), bool(state["detected"])
        self._mean, self._sum, self._lowest = (float(state[name]) for name in ("mean", "sum", "lowest"))

    def update(self, value: float) -> None:
        """Add one value. Raises `InvalidInput` unless it is finite."""
        if not math.isfinite(value):
            raise InvalidInput(f"a value must be finite, got {value}; leave out what is not known")
        if self._detected:
            self.reset()
        self._rows += 1
        self._mean += (value - self._mean) / self._rows
        self._sum = self.forgetting * self._sum + value - self._mean - self.delta
        self._lowest = min(self._lowest, self._sum)
        self._detected = self._rows >= self.min_values and self._sum - self._lowest > self.threshold

    @property
    def verdict(self) -> float:
        """The cumulated excess, which `threshold` is compared with."""
        return self._sum - self._lowest

    @property
    def drift_detected(self) -> bool:
        """Whether the newest value gave an alarm."""
        return self._detected
