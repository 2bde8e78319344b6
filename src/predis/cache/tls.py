"""TLS of the cache port: the gateway ends it, the embedded Valkey knows none."""

from __future__ import annotations

import ssl

from predis.errors import InvalidSetting
from predis.settings import Settings


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What the settings say; None without a certificate.

    Raises:
        InvalidSetting: a file cannot be used.
    """
    if not settings.cache_tls_cert:
        if settings.cache_tls_key or settings.cache_tls_client_ca:
            raise InvalidSetting(
                "cache_tls_key and cache_tls_client_ca need cache_tls_cert, the file of the certificate"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.cache_tls_cert, settings.cache_tls_key or None)
        if settings.cache_tls_client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(settings.cache_tls_client_ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidSetting(
            f"the certificate {settings.cache_tls_cert} of the cache port, its key or its authorities cannot be used: {error}"
        ) from None
    return context
