"""Models, versions, aliases, signatures, integrity and lineage."""

from typing import TYPE_CHECKING, Any

from predis.registry.model import File, Registration, Version
from predis.registry.signature import Field, Signature

if TYPE_CHECKING:
    from predis.registry.registry import Registry

__all__ = ["Field", "File", "Registration", "Registry", "Signature", "Version"]


def __getattr__(name: str) -> Any:
    if name == "Registry":  # late, so that a process that needs words only does not pay for the database
        from predis.registry.registry import Registry

        return Registry
    raise AttributeError(f"module 'predis.registry' has no attribute {name!r}")
