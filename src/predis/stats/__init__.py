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
from predis.stats.drift import Ensemble, EnsembleVerdict, Level, PsiDetector, Verdict, adjust, psi, psi_test
from predis.stats.estimates import Calibration, calibrate, expected_binary
from predis.stats.latency import LatencyHistogram
from predis.stats.moments import Moments, difference_interval
from predis.stats.paired import LossComparison, compare_losses, row_losses
from predis.stats.performance import Task, confusion_measures, performance, top_scores
from predis.stats.profile import Profile, block_slices, build_profile, count_blocks
from predis.stats.profile_counter import ProfileCounter
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
    "Calibration",
    "Ensemble",
    "EnsembleVerdict",
    "LatencyHistogram",
    "Level",
    "LossComparison",
    "Moments",
    "Profile",
    "ProfileCounter",
    "PsiDetector",
    "RatioTest",
    "SplitTest",
    "Task",
    "Verdict",
    "adjust",
    "auc",
    "binary_scores",
    "block_slices",
    "brier",
    "build_profile",
    "calibrate",
    "categorical_bins",
    "compare_auc",
    "compare_losses",
    "confusion_measures",
    "count_blocks",
    "delong_covariance",
    "difference_interval",
    "distribution_distance",
    "expected_binary",
    "gini",
    "ks",
    "latency",
    "log_loss",
    "numeric_bins",
    "performance",
    "proportion_interval",
    "psi",
    "psi_test",
    "quantile_interval",
    "rate_difference_interval",
    "row_losses",
    "score_buckets",
    "stratified_difference",
    "thompson_share",
    "top_scores",
]
