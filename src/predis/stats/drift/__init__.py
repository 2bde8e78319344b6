"""Has something moved? Detectors on counts of fixed bins, on a stream of losses, and the ensemble that judges a whole table.

All have `update` and `drift_detected`, as river's have, and a `verdict` that says why. An alarm asks for an effect, for
significance and for persistence. Counts in bins that were fixed on the reference are all that the batch detectors see: a check
costs microseconds, whatever the number of rows, and windows of several workers merge by addition.
"""

from predis.stats.drift.adwin import AdwinDetector
from predis.stats.drift.binned import (
    BinDetector,
    ChiSquareDetector,
    JensenShannonDetector,
    KsDetector,
    PsiDetector,
    WassersteinDetector,
)
from predis.stats.drift.breaks import Break, find_breaks
from predis.stats.drift.classifier import DomainClassifier, DomainVerdict
from predis.stats.drift.discovery import adjust
from predis.stats.drift.ensemble import Ensemble, EnsembleVerdict, FeatureVerdict, Level
from predis.stats.drift.loss import LossDetector, LossVerdict
from predis.stats.drift.null import LEAST_SEASON, LEAST_WINDOWS
from predis.stats.drift.page_hinkley import PageHinkleyDetector
from predis.stats.drift.psi import Verdict, psi, psi_test

__all__ = [
    "LEAST_SEASON",
    "LEAST_WINDOWS",
    "AdwinDetector",
    "BinDetector",
    "Break",
    "ChiSquareDetector",
    "DomainClassifier",
    "DomainVerdict",
    "Ensemble",
    "EnsembleVerdict",
    "FeatureVerdict",
    "JensenShannonDetector",
    "KsDetector",
    "Level",
    "LossDetector",
    "LossVerdict",
    "PageHinkleyDetector",
    "PsiDetector",
    "Verdict",
    "WassersteinDetector",
    "adjust",
    "find_breaks",
    "psi",
    "psi_test",
]
