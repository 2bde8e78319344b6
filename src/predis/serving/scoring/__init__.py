"""Batch scoring: the predictions of a version for a whole data set, in constant memory, that can be interrupted at any moment."""

from predis.serving.scoring.batch import Batch, Progress, Summary, score

__all__ = ["Batch", "Progress", "Summary", "score"]
