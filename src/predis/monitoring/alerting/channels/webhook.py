"""Webhooks: the notice as JSON, signed, so that the receiver knows who sent it, when, and that nothing was changed.

Predis-Signature: t=1700000000,v1=HEX        HEX = HMAC-SHA256(secret, "1700000000." + body)
Idempotency-Key: 5f0c...                     the same at every attempt to deliver the same notice
"""

from __future__ import annotations

import hashlib
import hmac
import re

from predis.clock import NANOSECONDS
from predis.errors import AccessDenied
from predis.monitoring.alerting.channels.wire import Envelope, Field, encode, post_bytes

SIGNATURE, IDEMPOTENCY = "Predis-Signature", "Idempotency-Key"
FIELDS = {
    "url": Field("url", "where to POST", required=True),
    "secret": Field("secret", "what the signature is made with; the receiver has it too", required=True),
}
_HEADER = re.compile(r"t=(\d{1,15}),v1=([0-9a-f]{64})")


def send(envelope: Envelope) -> None:
    """
    Raises:
        NotSent
        Unavailable: the secret is missing.
    """
    body = encode({"key": envelope.key, **envelope.notice})
    second = envelope.clock.time_ns() // NANOSECONDS
    headers = {
        SIGNATURE: sign(envelope.secret("secret"), body, second=second),
        IDEMPOTENCY: envelope.key,
    }
    post_bytes(envelope.config["url"], body, headers=headers)


def sign(secret: str, body: bytes, *, second: int) -> str:
    """The value of the header ``Predis-Signature``. ``second``: when it is sent, in seconds since 1970."""
    digest = hmac.new(secret.encode(), f"{second}.".encode() + body, hashlib.sha256)
    return f"t={second},v1={digest.hexdigest()}"


def verify(secret: str, body: bytes, *, header: str, now_s: float, tolerance_s: float = 300.0) -> None:
    """Let a request pass that was signed with the secret a short while ago: what a receiver does.

    Raises:
        AccessDenied: the signature is missing, wrong, or too old to be anything but a replay.

    >>> verify("s3cret", b"{}", header=sign("s3cret", b"{}", second=100), now_s=101)
    """
    found = _HEADER.fullmatch(header)
    if not found or not hmac.compare_digest(sign(secret, body, second=int(found[1])), header):
        raise AccessDenied(f"the header {SIGNATURE} is missing, or not made with this secret")
    if abs(now_s - int(found[1])) > tolerance_s:
        raise AccessDenied(f"the request was signed more than {tolerance_s:g} s ago")
