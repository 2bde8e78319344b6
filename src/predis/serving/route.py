"""A Route: which versions answer an endpoint, with which weight. Immutable, numbered, and the same choice on every worker.

The choice is a pure function of the endpoint and a routing key: the key is hashed to a point in [0, 1), versions take
consecutive stretches of that line in the order the Route lists them. The baseline stands first and the candidate last, so as a
canary grows it only takes over keys from the baseline: a caller who has met the candidate stays with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from predis.clock import iso
from predis.errors import InvalidInput

_SPAN = float(2**64)


@dataclass(frozen=True)
class Route:
    """``weights`` maps versions to shares that sum to 1; a share of 0 means: have it loaded, send it nothing."""

    endpoint: str
    number: int
    weights: Mapping[int, float]
    reason: str = ""
    created_at: int = 0

    def __post_init__(self) -> None:
        shares = self.weights.values()
        if any(not 0 <= share <= 1 for share in shares):
            raise InvalidInput(f"weights are between 0 and 1, got {dict(self.weights)}")
        if self.weights and abs(sum(shares) - 1) > 1e-9:
            raise InvalidInput(f"weights sum to 1, got {dict(self.weights)} = {sum(shares)}")

    def pick(self, key: str) -> int:
        """The version that answers this routing key. ``weights`` must not be empty."""
        return self.at(point(self.endpoint, key)) if len(self.weights) > 1 else next(iter(self.weights))

    def at(self, place: float) -> int:
        edge, last = 0.0, 0
        for version, share in self.weights.items():
            if share == 0:
                continue
            edge += share
            last = version
            if place < edge:
                return version
        return last

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "weights": {str(version): share for version, share in self.weights.items()},
            "reason": self.reason,
            "created_at": iso(self.created_at) if self.created_at else None,
        }


def point(endpoint: str, key: str) -> float:
    """The place of a routing key in [0, 1), different for each endpoint.

    >>> round(point("flight-delay", "customer-7"), 6) == round(point("flight-delay", "customer-7"), 6)
    True
    """
    digest = hashlib.blake2b(f"{endpoint}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / _SPAN
