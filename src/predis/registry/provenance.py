"""Where a version comes from: its lineage, as it is checked and stored.

DATA       digests of the tables it was registered with, and the name of their label
parameters what it was trained with, by name
revision   which state of which code trained it
parent     the version it goes back to, of the same model
retraining the run that made it (written by retraining itself)
Everything else in a lineage is the user's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from predis.errors import InvalidInput

if TYPE_CHECKING:
    from predis.registry.model import Registration

DATA = ("reference", "holdout", "training")
_OWN = (*DATA, "label", "parameters", "revision", "parent")
_LINEAGE_BYTES = 64 << 10
_PARAMETERS = 256
_NAME, _TEXT = 128, 1_024  # characters
_REVISION = 256


def lineage_of(wanted: Registration) -> dict[str, Any]:
    """What is stored of a registration's provenance; only what was given.

    Raises:
        InvalidInput: something is too large, is not JSON, or stands in the user's own lineage under a name that has a meaning.
    """
    clash = sorted(wanted.lineage.keys() & set(_OWN))
    if clash:
        raise InvalidInput(
            f"{clash[0]!r} has a meaning of its own and cannot stand in the lineage; give it as {clash[0]}"
        )
    check_parameters(wanted.parameters)
    if len(wanted.revision) > _REVISION or not wanted.revision.isprintable():
        raise InvalidInput(
            f"a revision is at most {_REVISION} printable characters, got {wanted.revision[:80]!r}"
        )
    own = {name: getattr(wanted, name) for name in _OWN if getattr(wanted, name)}
    if "parameters" in own:
        own["parameters"] = dict(wanted.parameters)
    lineage = {**wanted.lineage, **own}
    check_size(lineage)
    return lineage


def check_size(lineage: Mapping[str, Any]) -> None:
    """
    Raises:
        InvalidInput: it is too large, or not JSON.
    """
    try:
        size = len(json.dumps(lineage, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the lineage is not JSON: {error}") from error
    if size > _LINEAGE_BYTES:
        raise InvalidInput(f"a lineage has at most {_LINEAGE_BYTES} bytes of JSON, got {size}")


def digests_of(lineage: Mapping[str, Any]) -> set[str]:
    """The artifacts that a lineage names."""
    return {str(lineage[name]) for name in DATA if lineage.get(name)}


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """
    Raises:
        InvalidInput: there are too many, or one is no plain number, text or truth value, or too long.
    """
    if len(parameters) > _PARAMETERS:
        raise InvalidInput(f"at most {_PARAMETERS} parameters, got {len(parameters)}")
    for name, value in parameters.items():
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _NAME:
            raise InvalidInput(
                f"a parameter's name is 1 to {_NAME} printable characters, got {str(name)[:80]!r}"
            )
        plain = isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))
        if not plain or len(str(value)) > _TEXT:
            raise InvalidInput(
                f"parameter {name!r} must be a finite number, true, false or a text of at most {_TEXT} characters"
            )
