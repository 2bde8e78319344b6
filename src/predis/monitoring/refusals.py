"""Requests that were refused because their inputs do not fit the model: an input that vanished, or changed its type.

Such a request never becomes a row, so no window sees it. What serving told its client is kept for a minute, and where most requests of an
endpoint are refused, that is a break of its data, named in serving's words.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from predis.clock import NANOSECONDS
from predis.monitoring.alerts import Finding, Severity
from predis.state.records import REASON, Block, Status

_SHARE = 0.5  # of the requests of a minute
_CLOSING = 0.4
_LEAST_REQUESTS = 50
_KEPT = 1_000  # refusals of an endpoint
_MINUTE = 60 * NANOSECONDS


class Refusals:
    """Why the newest requests of each endpoint were refused; of this process's life only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], deque[tuple[int, str]]] = {}

    def note(self, block: Block) -> None:
        """Keep the reasons in a block, if it has any."""
        if not block.extra or not (block.status == Status.REJECTED).any():
            return
        reasons = [text for _, column, text in orjson.loads(block.extra) if column == REASON]
        at = int(block.received_at.max())
        with self._lock:
            known = self._known.setdefault((block.tenant, block.endpoint), deque(maxlen=_KEPT))
            known.extend((at, text) for text in reasons)

    def most_frequent(self, tenant: str, endpoint: str, *, since: int) -> tuple[str, int]:
        """The reason that was given most since a moment, and how often; "" and 0 without any."""
        with self._lock:
            counts = Counter(text for at, text in self._known.get((tenant, endpoint), ()) if at >= since)
        return counts.most_common(1)[0] if counts else ("", 0)


def check_refused(
    tenant: str, endpoint: str, *, slots: Sequence[Mapping[str, Any]], refusals: Refusals
) -> Finding | None:
    """Whether most requests of the newest minute (``slots``) were refused. Fewer than 50 requests prove nothing."""
    requests = sum(slot["requests"] for slot in slots)
    rejected = sum(slot["rejected"] for slot in slots)
    if requests < _LEAST_REQUESTS or rejected <= _CLOSING * requests:
        return None
    newest = max(slot["start"] for slot in slots)
    reason, count = refusals.most_frequent(tenant, endpoint, since=newest - _MINUTE)
    said = f", most often: {reason}" if reason else ""
    return Finding(
        tenant=tenant,
        endpoint=endpoint,
        kind="data_break",
        severity=Severity.CRITICAL,
        message=f"{rejected} of {requests} requests in the last minute were refused, since their inputs do not fit the model{said}",
        command=f"predis monitor {endpoint}",
        event_at=newest,
        evidence={"rejected": rejected, "requests": requests, "reason": reason, "reason_count": count},
        holds=rejected <= _SHARE * requests,
    )
