"""Predis takes trained models to production and keeps them good there."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]

if TYPE_CHECKING:
    from predis.client import Client


def __getattr__(name: str) -> Any:
    if name == "Client":  # late, so that roles do not pay for what only applications use
        from predis.client import Client

        return Client
    raise AttributeError(f"module 'predis' has no attribute {name!r}")
