"""Versions from MLflow, and to it: over MLflow's REST API, without MLflow itself."""

from predis.registry.mlflow.exchange import export_version, import_version
from predis.registry.mlflow.tracking import Tracking

__all__ = ["Tracking", "export_version", "import_version"]
