"""Models, versions, aliases, signatures, integrity and lineage."""

from predis.registry.model import File, Registration, Version
from predis.registry.registry import Registry
from predis.registry.signature import Field, Signature

__all__ = ["Field", "File", "Registration", "Registry", "Signature", "Version"]
