"""Keeps web pages elsewhere from asking an installation without keys.

Without keys everybody who reaches the port on loopback may predict; a browser reaches it too, on behalf of any page. What a page
sends would be kept as evidence about the model. So the Host must be a loopback name (against DNS rebinding), and a request with an
Origin must come from that host. Programs send no Origin and are not concerned.
"""

from __future__ import annotations

from predis.access import LOOPBACK, Keys
from predis.errors import AccessDenied
from predis.serving.http import Request

_KEPT = 64


class Guard:
    """Refuses such requests, at the price of a look-up."""

    def __init__(self, keys: Keys, *, insecure: bool) -> None:
        self._keys = keys
        self._insecure = insecure
        self._good: set[str] = set()

    def check(self, request: Request) -> None:
        """
        Raises:
            AccessDenied
        """
        origin = request.headers.get(b"origin")
        host = request.header(b"host")
        if (
            origin is not None
            and str(origin, "latin-1").partition("://")[2] != host
            and not self._keys.exist()
        ):
            raise AccessDenied(
                f"a page of {str(origin, 'latin-1')[:200]} may not ask here; there are no API keys"
            )
        if self._insecure or host in self._good:
            return
        name = host if host.startswith("[") and host.endswith("]") else host.rpartition(":")[0] or host
        name = name.lower()
        if name not in LOOPBACK and not self._keys.exist():
            raise AccessDenied(f"host {host[:200]!r} is not a loopback name, and there are no API keys")
        if len(self._good) < _KEPT and name in LOOPBACK:
            self._good.add(host)
