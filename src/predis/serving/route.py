"""A Route: which versions answer an endpoint, with which weight, and which are shadows. Immutable, numbered, and the same choice on every
worker.

The choice is a pure function of the endpoint, the Route's salt and a routing key: the key is hashed to a point in [0, 1), versions take
consecutive stretches of that line in the order the Route lists them. The baseline stands first and the candidate last, so as a
canary grows it only takes over keys from the baseline: a caller who has met the candidate stays with it. The salt belongs to a
rollout, so that each draws anew who meets its candidate.

Segments split requests by what they say of themselves: the first whose condition holds gives the weights. A shadow gets copies of a share
of the requests that were answered, and answers nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from predis.clock import iso
from predis.errors import InvalidInput
from predis.expressions import compile_expression

# What a segment's condition may read. A header's name has an underscore for each dash.
SEGMENT_NAMES = ("header.*", "input.*", "key", "parameter.*", "tenant")
MAX_SALT = 64
_SPAN = float(2**64)
Weights = Mapping[int, float]


@dataclass(frozen=True)
class Segment:
    """Requests for which ``when`` holds, an expression over ``SEGMENT_NAMES``, and how the versions share them."""

    when: str
    weights: Weights


@dataclass(frozen=True)
class Split:
    """How an endpoint's requests are split: what of a Route its makers choose.

    Args:
        weights: versions and their shares, which sum to 1; a share of 0 means: have it loaded, send it nothing. Empty: nobody answers.
        segments: looked at in this order, before ``weights``.
        shadows: versions that answer nobody, and which share of the answered requests is copied to each.
        salt: draws anew which keys meet which version.

    Raises:
        InvalidInput
    """

    weights: Weights
    segments: tuple[Segment, ...] = ()
    shadows: Weights = field(default_factory=dict)
    salt: str = ""

    def __post_init__(self) -> None:
        if self.weights:
            check_weights(self.weights, "weights")
        elif self.segments or self.shadows:
            raise InvalidInput("segments and shadows need weights: versions that answer all other requests")
        for segment in self.segments:
            compile_expression(segment.when, names=SEGMENT_NAMES)
            check_weights(segment.weights, f"weights of the segment {segment.when!r}")
        answering = self.answering()
        for version, share in self.shadows.items():
            if not 0 < share <= 1:
                raise InvalidInput(
                    f"the share of a shadow is above 0 and at most 1, got {share} of {version}"
                )
            if version in answering:
                raise InvalidInput(f"version {version} answers requests, so it cannot be a shadow as well")
        if len(self.salt) > MAX_SALT or not self.salt.isprintable():
            raise InvalidInput(f"a salt has at most {MAX_SALT} printable characters, got {self.salt[:80]!r}")

    def answering(self) -> tuple[int, ...]:
        """Versions that a request may be answered by, in the order of the weights."""
        shares = (self.weights, *(segment.weights for segment in self.segments))
        return tuple(dict.fromkeys(version for each in shares for version in each if each[version] > 0))

    def versions(self) -> tuple[int, ...]:
        """Versions that must be in memory."""
        shares = (self.weights, *(segment.weights for segment in self.segments), self.shadows)
        return tuple(dict.fromkeys(version for each in shares for version in each))


@dataclass(frozen=True)
class Route:
    """A ``Split`` that an endpoint has, or had, as its ``number``-th. The parts are those of ``Split``.

    Raises:
        InvalidInput
    """

    endpoint: str
    number: int
    weights: Weights
    reason: str = ""
    created_at: int = 0
    segments: tuple[Segment, ...] = ()
    shadows: Weights = field(default_factory=dict)
    salt: str = ""

    def __post_init__(self) -> None:
        _ = self.split  # checks them

    @cached_property
    def split(self) -> Split:
        return Split(self.weights, self.segments, self.shadows, self.salt)

    def answering(self) -> tuple[int, ...]:
        """Versions that a request may be answered by, in the order of the weights."""
        return self.split.answering()

    def versions(self) -> tuple[int, ...]:
        """Versions that must be in memory."""
        return self.split.versions()

    def pick(self, key: str, weights: Weights) -> int:
        """The version that answers this routing key, of the weights that apply to its request."""
        return at(weights, point(self.endpoint, key, salt=self.salt))

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "weights": _named(self.weights),
            "segments": [{"when": each.when, "weights": _named(each.weights)} for each in self.segments],
            "shadows": _named(self.shadows),
            "salt": self.salt,
            "reason": self.reason,
            "created_at": iso(self.created_at) if self.created_at else None,
        }


def check_weights(weights: Weights, what: str) -> None:
    """Refuse shares that are none, or do not sum to 1.

    Raises:
        InvalidInput
    """
    shares = weights.values()
    if any(not 0 <= share <= 1 for share in shares):
        raise InvalidInput(f"{what} are between 0 and 1, got {dict(weights)}")
    if abs(sum(shares) - 1) > 1e-9:
        raise InvalidInput(f"{what} sum to 1, got {dict(weights)} = {sum(shares)}")


def at(weights: Weights, place: float) -> int:
    """The version whose stretch of [0, 1) holds this place."""
    edge, last = 0.0, 0
    for version, share in weights.items():
        if share == 0:
            continue
        edge += share
        last = version
        if place < edge:
            return version
    return last


def point(endpoint: str, key: str, *, salt: str = "") -> float:
    """The place of a routing key in [0, 1), different for each endpoint and salt.

    >>> point("flight-delay", "customer-7") == point("flight-delay", "customer-7")
    True
    >>> point("flight-delay", "customer-7") == point("flight-delay", "customer-7", salt="rollout 8")
    False
    """
    text = f"{endpoint}\0{salt}\0{key}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / _SPAN


def _named(weights: Weights) -> dict[str, float]:
    return {str(version): share for version, share in weights.items()}
