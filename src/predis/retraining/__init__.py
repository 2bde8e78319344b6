"""Renewing a model: why, on what, by whose function, and whether the new one is really better."""

from predis.retraining.training import TrainedModel, TrainJob

__all__ = ["TrainJob", "TrainedModel"]
