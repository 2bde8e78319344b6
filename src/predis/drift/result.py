"""What a comparison found, for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """How much a finding asks for. Moved inputs warn at the most; only broken data is critical."""

    OK = 0
    INFO = 1
    WARNING = 2
    CRITICAL = 3

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class FeatureDrift:
    """One column.

    role: feature or target. finding: break, drift, away, stable, or skipped. message: the finding in plain words. psi to
    wasserstein: distances of all current rows from the reference, NaN where nothing could be compared. threshold: PSI that
    would have been significant in a window. p_value: the smallest of the windows', adjusted for the number of features. history: PSI
    of each window. labels, reference, current: bins and the shares of rows in them.
    """

    name: str
    role: str
    kind: str
    severity: Severity
    finding: str
    message: str
    psi: float = math.nan
    jensen_shannon: float = math.nan
    kolmogorov_smirnov: float = math.nan
    wasserstein: float = math.nan
    threshold: float = math.nan
    p_value: float = math.nan
    seasonal: bool = False
    history: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    reference: tuple[float, ...] = ()
    current: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        found: dict[str, Any] = {}
        for key, value in asdict(self).items():
            if isinstance(value, tuple):
                found[key] = list(value)
            else:
                found[key] = None if isinstance(value, float) and math.isnan(value) else value
        return {**found, "severity": self.severity.word}


@dataclass(frozen=True)
class Comparison:
    """All columns of two tables, what matters first.

    windows: parts of the current table that were judged one after the other. notes: what to know when reading this. domain_auc: how well
    a model tells rows of the two tables apart (.5: not at all), and the interval of that.
    """

    reference_rows: int
    current_rows: int
    windows: int
    features: tuple[FeatureDrift, ...]
    notes: tuple[str, ...] = ()
    domain_auc: tuple[float, float, float] | None = None

    @property
    def severity(self) -> Severity:
        """The highest of the columns'."""
        return max((feature.severity for feature in self.features), default=Severity.OK)

    @property
    def verdicts(self) -> Mapping[str, str]:
        """Each column's finding: break, drift, away, stable or skipped."""
        return {feature.name: feature.finding for feature in self.features}

    @property
    def summary(self) -> str:
        """The whole in a sentence or two."""
        names = {
            what: [f.name for f in self.features if f.finding == what] for what in ("break", "drift", "away")
        }
        said = []
        if names["break"]:
            said.append(f"Broken data in {_some(names['break'])}.")
        if names["drift"]:
            said.append(f"Drift in {_some(names['drift'])}.")
        if names["away"]:
            said.append(
                f"{_some(names['away'])}: away from the reference, but no further than it varies by itself."
            )
        return " ".join(said) or "Nothing has moved."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "severity": self.severity.word,
            "summary": self.summary,
            "reference_rows": self.reference_rows,
            "current_rows": self.current_rows,
            "windows": self.windows,
            "domain_auc": None if self.domain_auc is None else list(self.domain_auc),
            "notes": list(self.notes),
            "features": [feature.to_dict() for feature in self.features],
        }

    def html(self) -> str:
        """A page that needs nothing else: no script, no other file."""
        from predis.drift.page import page

        return page(self)

    def _repr_html_(self) -> str:
        from predis.drift.page import body

        return body(self)

    def __str__(self) -> str:
        lines = [self.summary]
        lines += [
            f"  {f.severity.word:8} {f.name}: {f.message}" for f in self.features if f.severity > Severity.OK
        ]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def _some(names: list[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"
