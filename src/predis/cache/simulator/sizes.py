"""Cache sizes as people write them."""

from __future__ import annotations

import re

from predis.cache.simulator.trace import Trace
from predis.errors import InvalidInput

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def capacity(text: str, trace: Trace, *, in_bytes: bool) -> int:
    """The size meant by ``1%`` (of the trace's distinct keys, or of their bytes), ``5000`` or ``64MiB``; at least 1.

    Raises:
        InvalidInput: it is none of these.
    """
    read = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|[kmg]?(?:ib)?)", text.strip().lower())
    if read is None or read[2] == "ib" or not float(read[1]):
        raise InvalidInput(
            f"a size is a share such as 1%, or a number such as 5000 or 64MiB, above 0, got {text!r}"
        )
    if read[2] == "%":
        whole = trace.footprint if in_bytes else trace.distinct
        return max(1, round(float(read[1]) / 100 * whole))
    return max(1, round(float(read[1]) * _UNITS[read[2]]))
