"""Pure mathematics: scores, comparisons, bins, drift, sequential tests, latency histograms.

Nothing here reads a file, a clock or a random number; every function is a function of its arguments. Arrays
come in as float64 and are never changed. What cannot be computed for lack of data is NaN or "undecided";
what makes no sense raises `predis.errors.InvalidInput`.
"""

from predis.stats import latency, score_buckets
from predis.stats.bandit import thompson_share
from predis.stats.bins import Bins, categorical_bins, numeric_bins
from predis.stats.delong import AucComparison, compare_auc, delong_covariance
from predis.stats.distributions import distribution_distance, quantile_interval
from predis.stats.drift import PsiDetector, PsiVerdict, adjust, psi, psi_test
from predis.stats.latency import LatencyHistogram
from predis.stats.moments import Moments, difference_interval
from predis.stats.profile import Profile, build_profile
from predis.stats.ratio_test import RatioTest
from predis.stats.scores import BinaryScores, auc, binary_scores, brier, gini, ks, log_loss
from predis.stats.sequential import (
    AucPairs,
    proportion_interval,
    rate_difference_interval,
)
from predis.stats.split_test import SplitTest
from predis.stats.strata import stratified_difference

__all__ = [
    "AucComparison",
    "AucPairs",
    "BinaryScores",
    "Bins",
    "LatencyHistogram",
    "Moments",
    "Profile",
    "PsiDetector",
    "PsiVerdict",
    "RatioTest",
    "SplitTest",
    "adjust",
    "auc",
    "binary_scores",
    "brier",
    "build_profile",
    "categorical_bins",
    "compare_auc",
    "delong_covariance",
    "difference_interval",
    "distribution_distance",
    "gini",
    "ks",
    "latency",
    "log_loss",
    "numeric_bins",
    "proportion_interval",
    "psi",
    "psi_test",
    "quantile_interval",
    "rate_difference_interval",
    "score_buckets",
    "stratified_difference",
    "thompson_share",
]
