"""Sending over HTTP: one POST, one verdict."""

from __future__ import annotations

import gzip
import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from predis.errors import InvalidInput, InvalidSetting, Unavailable
from predis.monitoring.alerting.channels.wire import HOPELESS

_SHOWN_BYTES = 200


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the key in the headers is for the host that was named, not for where it points."""

    def redirect_request(self, *_arguments: object) -> None:
        return None


class Poster:
    """Posts to one host.

    Args:
        url: base URL, http or https.
        headers: sent with each request; keys stand here, and in no message.
        timeout_s: for connecting, and for each wait on the connection.

    Raises:
        InvalidSetting: no such URL.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str], timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise InvalidSetting(
                f"an exporter's URL must be like https://HOST[:PORT], without a password, got {parts.scheme}://{parts.hostname}"
            )
        self._url = url.rstrip("/")
        self._host = parts.hostname
        self._headers = dict(headers)
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(_Stay)

    def post(self, path: str, body: bytes, *, content_type: str = "application/json") -> bytes:
        """Post a body, compressed; what was answered.

        Raises:
            Unavailable: no answer, or one that says to come back later.
            InvalidInput: it was refused.
        """
        request = urllib.request.Request(  # noqa: S310 the scheme was checked
            self._url + path,
            data=gzip.compress(body, 3),
            headers={**self._headers, "Content-Type": content_type, "Content-Encoding": "gzip"},
            method="POST",
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(_SHOWN_BYTES).decode("utf-8", "replace")
            message = f"{self._host} answered {error.code} to {path}: {said or error.reason}"
            if error.code in HOPELESS:  # of others, such as a key that is wrong, it may be put right
                raise InvalidInput(message) from None
            raise Unavailable(message) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(f"{self._host} does not answer {path}: {reason}") from None
