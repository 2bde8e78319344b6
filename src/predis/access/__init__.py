"""Tenants, API keys, roles and the audit log. Every remote action passes here."""

from predis.access.audit import Audit
from predis.access.keys import DEFAULT_TENANT, LOCAL, LOOPBACK, Caller, Keys

__all__ = ["DEFAULT_TENANT", "LOCAL", "LOOPBACK", "Audit", "Caller", "Keys"]
