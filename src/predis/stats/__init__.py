"""Pure mathematics: scores, comparisons, bins, drift, sequential tests, latency histograms.

Nothing here reads a file, a clock or a random number; every function is a function of its arguments. Arrays
come in as float64 and are never changed. What cannot be computed for lack of data is NaN or "undecided";
what makes no sense raises `predis.errors.InvalidInput`.
"""

from predis.stats import latency
from predis.stats.bins import Bins, categorical_bins, numeric_bins
from predis.stats.delong import AucComparison, compare_auc, delong_covariance
from predis.stats.drift import PsiDetector, PsiVerdict, adjust, psi, psi_test
from predis.stats.latency import LatencyHistogram
from predis.stats.profile import Profile, build_profile
from predis.stats.scores import BinaryScores, auc, binary_scores, brier, gini, ks, log_loss
from predis.stats.sequential import (
    AucGate,
    AucPairs,
    RateComparison,
    compare_auc_streams,
    compare_rates,
    proportion_interval,
)

__all__ = [
    "AucComparison",
    "AucGate",
    "AucPairs",
    "BinaryScores",
    "Bins",
    "LatencyHistogram",
    "Profile",
    "PsiDetector",
    "PsiVerdict",
    "RateComparison",
    "adjust",
    "auc",
    "binary_scores",
    "brier",
    "build_profile",
    "categorical_bins",
    "compare_auc",
    "compare_auc_streams",
    "compare_rates",
    "delong_covariance",
    "gini",
    "ks",
    "latency",
    "log_loss",
    "numeric_bins",
    "proportion_interval",
    "psi",
    "psi_test",
]
