"""Whose signatures a tenant trusts, and whether it demands them."""

from predis.registry.trust.trust import Trust

__all__ = ["Trust"]
