"""Simulates canaries: how often a candidate that is no worse is turned back, and how soon a worse one is. See README.md beside this file.

A rule looks after every 100 requests of both sides together, over 60,000 requests, at the same streams as all the others. 500 requests
pass for a minute, for the rules that measure by the minute. Latencies are lognormal with a p99 of 400 ms. What is compared:

- Predis: the gates of `predis.rollout.gates` with the default plan, and with a strict one that tolerates nothing. Computed for all runs at
  once; some runs go through the gates themselves, look by look, and must come to the same look.
- Fixed thresholds: Argo Rollouts as its documentation has it (success rate at least 95 % in windows of 5 minutes, the 4th bad one aborts);
  Flagger (success rate at least 99 %, p99 at most 500 ms, in windows of a minute, the 5th bad one aborts); and Flagger
  with a limit set by somebody who knows both rates, half way between them.
- A z-test at every look, p < 0.05 that the candidate is worse.
- Kayenta's judge: Mann-Whitney at 98 % over the values of each minute, `increase`, beyond a quarter of the Hodges-Lehmann
  estimate; an analysis every 10 minutes over all minutes so far.
- mSPRT: the normal mixture of Johari, Koomen, Pekelis and Walsh (2022) on the difference of both means, at the alpha that
  one of our gates has.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtri

from predis.monitoring.evidence import Side
from predis.rollout.gates import Ledger, verdicts
from predis.rollout.plan import Plan
from predis.stats import RatioTest, latency, score_buckets
from predis.stats._betting import log_factors
from predis.stats.moments import LEAST, mixture_width

Array = NDArray[Any]

RUNS, LOOKS, STEP = 2_000, 600, 100
KAYENTA_RUNS = 1_000
MINUTE = 5  # looks
SHARES = (0.1, 0.5)
RATES = (0.01, 0.03, 0.06)
P99_MS, SIGMA = 400.0, 0.5
AUC, DROP, LABELS, AUC_STEP = 0.75, 0.03, 0.3, 1_000
PLANS = {
    "Predis": Plan(slow_s=P99_MS / 1000),
    "Predis, strict": Plan(slow_s=P99_MS / 1000, error_ratio=1.0, slow_ratio=1.0, auc_abort=0.0),
}
GATES = 4  # of the plan: errors, latency, scores, AUC
ALPHA = PLANS["Predis"].alpha / GATES
NEVER = -1


@dataclass(frozen=True)
class Counts:
    """Bad ones and all, of baseline and candidate, in each look of each run: int64[RUNS, LOOKS]."""

    bad_b: Array
    n_b: Array
    bad_c: Array
    n_c: Array

    def cumulated(self) -> tuple[Array, ...]:
        return tuple(values.cumsum(axis=1) for values in (self.bad_b, self.n_b, self.bad_c, self.n_c))

    def windows(self, looks: int) -> tuple[Array, Array]:
        """Rates of baseline and candidate in windows of so many looks: float64[RUNS, windows]."""
        b, n_b, c, n_c = (
            values.reshape(len(values), -1, looks).sum(axis=2)
            for values in (self.bad_b, self.n_b, self.bad_c, self.n_c)
        )
        return b / n_b, c / n_c


def errors(
    rng: np.random.Generator, rate: Any, share: Any, *, times: float = 1.0, stalls: float = 0.0
) -> Counts:
    """Failed requests, independent of each other; with `stalls`, now and then up to 40 on one side by its share in a look."""
    rates, shares = (np.broadcast_to(np.asarray(value, np.float64), (RUNS, LOOKS)) for value in (rate, share))
    n_c = np.round(STEP * shares).astype(np.int64)
    n_b = STEP - n_c
    bad_b, bad_c = rng.binomial(n_b, rates), rng.binomial(n_c, np.minimum(rates * times, 1.0))
    if stalls:
        on, candidate = rng.random((RUNS, LOOKS)) < stalls, rng.random((RUNS, LOOKS)) < shares
        failed = rng.integers(1, 41, (RUNS, LOOKS))
        bad_c = np.minimum(bad_c + np.where(on & candidate, failed, 0), n_c)
        bad_b = np.minimum(bad_b + np.where(on & ~candidate, failed, 0), n_b)
    return Counts(bad_b, n_b, bad_c, n_c)


def latencies(
    rng: np.random.Generator, share: float, *, times: float = 1.0
) -> tuple[Counts, tuple[Array, Array]]:
    """Answers slower than the baseline's p99 per look, and the p99 of each minute of both sides, in ms."""
    sizes = STEP - round(STEP * share), round(STEP * share)
    slow: tuple[Array, Array] = np.empty((RUNS, LOOKS), np.int64), np.empty((RUNS, LOOKS), np.int64)
    p99: tuple[Array, Array] = np.empty((RUNS, LOOKS // MINUTE)), np.empty((RUNS, LOOKS // MINUTE))
    shifts, limit = (0.0, math.log(times) / SIGMA), float(ndtri(0.99))
    for start in range(0, RUNS, 50):
        part = slice(start, start + 50)
        for side, size in enumerate(sizes):
            z = rng.standard_normal((50, LOOKS, size), dtype=np.float32) + np.float32(shifts[side])
            slow[side][part] = (z > limit).sum(axis=2)
            minutes = z.reshape(50, LOOKS // MINUTE, MINUTE * size)
            rank = math.ceil(0.99 * MINUTE * size) - 1
            top = np.partition(minutes, rank, axis=2)[:, :, rank]
            p99[side][part] = P99_MS * np.exp(SIGMA * (top - limit))
    n_b, n_c = (np.full((RUNS, LOOKS), size) for size in sizes)
    return Counts(slow[0], n_b, slow[1], n_c), p99


def pairs(rng: np.random.Generator, share: float, *, drop: float = 0.0) -> Counts:
    """Pairs lost: each positive label finds a negative neighbour, as there are more of those. A look every 1,000 requests."""
    n_c = rng.binomial(round(AUC_STEP * share), LABELS, (RUNS, LOOKS))
    n_b = rng.binomial(AUC_STEP - round(AUC_STEP * share), LABELS, (RUNS, LOOKS))
    return Counts(rng.binomial(n_b, 1 - AUC), n_b, rng.binomial(n_c, 1 - AUC + drop), n_c)


# Rules. Each gives the look at which a run is turned back, or NEVER: int64[RUNS].


def first(hit: Array, *, every: int = 1) -> Array:
    """The look, counted from 1, of the first True of each row; columns are `every` looks apart."""
    return np.where(hit.any(axis=1), (hit.argmax(axis=1) + 1) * every, NEVER)


def earliest(*found: Array) -> Array:
    stacked = np.where(np.array(found) == NEVER, np.iinfo(np.int64).max, np.array(found)).min(axis=0)
    return np.where(stacked == np.iinfo(np.int64).max, NEVER, stacked)


def ratio_gate(counts: Counts, plan: Plan, *, ratio: float) -> Array:
    """The gates of errors and latency: surely above `ratio` times the baseline's, and surely above the floor."""
    test = RatioTest(ratio)
    share = ratio * counts.n_c / (ratio * counts.n_c + counts.n_b)
    hits = np.zeros((RUNS, LOOKS), bool)
    for start in range(0, RUNS, 200):
        part = slice(start, start + 200)
        factors = log_factors(
            test.tilts, share[part], hits=counts.bad_c[part], others=counts.bad_b[part], cap=test.cap
        )
        wealth = np.logaddexp.reduce(factors.cumsum(axis=1), axis=2) - math.log(test.tilts.size)
        hits[part] = wealth >= -math.log(ALPHA)
    _, n_b, s, n = counts.cumulated()
    p = plan.error_floor
    mixture = gammaln(s + 0.5) + gammaln(n - s + 0.5) - gammaln(n + 1) - math.log(math.pi)
    above = (mixture - s * math.log(p) - (n - s) * math.log1p(-p) >= -math.log(ALPHA)) & (s > p * n)
    return first(hits & above & (np.minimum(n_b, n) >= 50))


def mean_gate(counts: Counts, *, abort: float) -> Array:
    """The AUC gate: the always-valid interval of the difference lies below -abort."""
    lost_b, n_b, lost_c, n_c = (values.astype(np.float64) for values in counts.cumulated())
    m2 = lost_b * (1 - lost_b / n_b), lost_c * (1 - lost_c / n_c)
    both = (m2[0] + m2[1]) / (n_b + n_c - 2)
    own = np.maximum(m2[0] / (n_b - 1), both), np.maximum(m2[1] / (n_c - 1), both)
    time_ = 1 / (own[0] / n_b + own[1] / n_c)
    # mixture_width(time, tuned_at) = sqrt((time + rho) log((time + rho) / (rho alpha^2))) / time, rho in proportion to tuned_at
    rho = 2_000 / (own[0] + own[1]) * unit_rho()
    width = np.sqrt((time_ + rho) * np.log((time_ + rho) / (rho * ALPHA * ALPHA))) / time_
    high = lost_b / n_b - lost_c / n_c + width
    return first((high < -abort) & (np.minimum(n_b, n_c) >= LEAST))


def unit_rho() -> float:
    """rho of a mixture tuned at 1, from its width at a huge time t, where width^2 t = log(t / (rho alpha^2))."""
    t = 1e12
    return float(t / math.exp(mixture_width(t, 1.0, alpha=ALPHA) ** 2 * t) / ALPHA**2)


def z_test(counts: Counts) -> Array:
    """p < 0.05 that the candidate's rate is higher, at each look from 50 requests of each side on."""
    b, n_b, c, n_c = counts.cumulated()
    with np.errstate(divide="ignore", invalid="ignore"):
        p = (b + c) / (n_b + n_c)
        z = (c / n_c - b / n_b) / np.sqrt(p * (1 - p) * (1 / n_b + 1 / n_c))
    return first((z > ndtri(0.95)) & (np.minimum(n_b, n_c) >= 50))


def msprt(counts: Counts, *, tau: float) -> Array:
    """Normal mixture of differences with standard deviation `tau`."""
    b, n_b, c, n_c = counts.cumulated()
    with np.errstate(divide="ignore", invalid="ignore"):
        p = (b + c) / (n_b + n_c)
        v = p * (1 - p) * (1 / n_b + 1 / n_c)
        d = c / n_c - b / n_b
        log_ratio = 0.5 * np.log(v / (v + tau**2)) + tau**2 * d * d / (2 * v * (v + tau**2))
    return first((log_ratio >= -math.log(ALPHA)) & (d > 0) & (np.minimum(n_b, n_c) >= 50))


def threshold(values: Array, limit: float, *, looks: int, tolerated: int) -> Array:
    """Aborts at the measurement with which more than `tolerated` exceeded the limit."""
    return first((values > limit).cumsum(axis=1) > tolerated, every=looks)


def kayenta(baseline: Array, candidate: Array) -> Array:
    """Mann-Whitney of the minutes so far, every 10 minutes: the lower bound of the shift above a quarter of its estimate."""
    minutes, runs = baseline.shape[1], KAYENTA_RUNS
    found = []
    for n in range(10, minutes + 1, 10):
        shifts = (candidate[:runs, :n, None] - baseline[:runs, None, :n]).reshape(runs, -1)
        rank = max(math.floor(n * n / 2 - ndtri(0.99) * math.sqrt(n * n * (2 * n + 1) / 12)), 0)
        ordered = np.partition(shifts, (rank, n * n // 2), axis=1)
        found.append(ordered[:, rank] > 0.25 * np.abs(ordered[:, n * n // 2]))
    return first(np.array(found).T, every=10 * MINUTE)


def of_errors(counts: Counts, *, known: float) -> dict[str, Array]:
    """What every rule says to errors. known: the limit that somebody would set who knows the good and the bad rate."""
    minute, five = counts.windows(MINUTE), counts.windows(5 * MINUTE)
    return {
        **{name: ratio_gate(counts, plan, ratio=plan.error_ratio) for name, plan in PLANS.items()},
        "mSPRT": msprt(counts, tau=0.01),
        "z-test at each look": z_test(counts),
        "Kayenta": kayenta(*minute),
        "Argo Rollouts, 95 %": threshold(five[1], 0.05, looks=5 * MINUTE, tolerated=3),
        "Flagger, 99 %": threshold(minute[1], 0.01, looks=MINUTE, tolerated=4),
        "Flagger, limit half way": threshold(minute[1], known, looks=MINUTE, tolerated=4),
    }


def of_latency(counts: Counts, p99: tuple[Array, Array]) -> dict[str, Array]:
    return {
        **{name: ratio_gate(counts, plan, ratio=plan.slow_ratio) for name, plan in PLANS.items()},
        "mSPRT": msprt(counts, tau=0.01),
        "z-test at each look": z_test(counts),
        "Kayenta": kayenta(*p99),
        "Flagger, 500 ms": threshold(p99[1], 500.0, looks=MINUTE, tolerated=4),
    }


def of_auc(counts: Counts) -> dict[str, Array]:
    return {
        **{name: mean_gate(counts, abort=plan.auc_abort) for name, plan in PLANS.items()},
        "mSPRT": msprt(counts, tau=0.03),
        "z-test at each look": z_test(counts),
    }


def summary(found: Mapping[str, Array], *, step: int = STEP) -> dict[str, Any]:
    """Share of runs turned back, and the median of the requests it took, None where fewer than half were."""
    table = {}
    for name, looks in found.items():
        turned = looks != NEVER
        median = float(np.median(np.where(turned, looks, np.inf))) * step
        table[name] = {
            "turned_back": round(float(turned.mean()), 4),
            "median_requests": int(median) if math.isfinite(median) else None,
        }
    return table


def weather(rng: np.random.Generator) -> dict[str, Any]:
    """Equal candidates on bad days: rates that swing with the hour while the share steps from 10 to 50 %, and stalls."""
    look = np.arange(LOOKS)
    growing = 0.01 + 0.04 / (1 + np.exp(-(look - LOOKS / 2) / 20))
    stepped = np.where(look < LOOKS // 2, 0.1, 0.5)
    days = {
        "errors grow from 1 to 5 % while the share grows from 10 to 50 %": errors(rng, growing, stepped),
        **{f"1 % errors and stalls, {share:.0%}": errors(rng, 0.01, share, stalls=0.02) for share in SHARES},
    }
    return {
        day: summary(
            {
                **{name: ratio_gate(counts, plan, ratio=plan.error_ratio) for name, plan in PLANS.items()},
                "mSPRT": msprt(counts, tau=0.01),
                "z-test at each look": z_test(counts),
                "Kayenta": kayenta(*counts.windows(MINUTE)),
            }
        )
        for day, counts in days.items()
    }


def through_the_gates(rng: np.random.Generator, *, runs: int) -> dict[str, int]:
    """Runs that go through `predis.rollout.gates` itself: how many, and how many came to another look than the fast way."""
    compared = differing = 0
    plan = PLANS["Predis, strict"]
    for share, times, slower in ((0.5, 1.0, 1.0), (0.5, 2.0, 1.3), (0.1, 3.0, 1.0)):
        bad = errors(rng, 0.01, share, times=times)
        slow, _ = latencies(rng, share, times=slower)
        fast = earliest(
            ratio_gate(bad, plan, ratio=1.0), ratio_gate(answered(slow, bad), plan, ratio=plan.slow_ratio)
        )
        for run in range(runs):
            compared += 1
            look = slow_way(rng, plan, bad, slow=answered(slow, bad), run=run)
            differing += int(look != fast[run])
    return {"runs": compared, "differing": differing}


def answered(slow: Counts, bad: Counts) -> Counts:
    """Only answered requests have a latency."""
    n_b, n_c = bad.n_b - bad.bad_b, bad.n_c - bad.bad_c
    return Counts(np.minimum(slow.bad_b, n_b), n_b, np.minimum(slow.bad_c, n_c), n_c)


def slow_way(rng: np.random.Generator, plan: Plan, bad: Counts, *, slow: Counts, run: int) -> int:
    """The look at which the gates turn the run back, with scores of both sides from the same distribution."""
    ledger = Ledger(plan)
    sums = [values[run].cumsum() for values in (bad.bad_b, bad.n_b, bad.bad_c, bad.n_c)]
    slows = [values[run].cumsum() for values in (slow.bad_b, slow.n_b, slow.bad_c, slow.n_c)]
    scores = [np.zeros(score_buckets.BUCKETS, np.int64) for _ in range(2)]
    above = int(latency.EDGES.searchsorted(plan.slow_s)) + 1
    for look in range(LOOKS):
        sides = []
        for side in range(2):
            failed, requests = (int(values[look]) for values in sums[2 * side : 2 * side + 2])
            late, whole = (int(values[look]) for values in slows[2 * side : 2 * side + 2])
            scores[side] = scores[side] + score_buckets.count(
                rng.beta(2, 5, (bad.n_b, bad.n_c)[side][run, look])
            )
            counts = np.zeros(latency.BUCKETS, np.int64)
            counts[[above - 20, above + 1]] = whole - late, late
            sides.append(Side(requests=requests, failed=failed, latency=counts, scores=scores[side]))
        ledger.advance((sides[0], sides[1]), plan=plan, share=None)
        if any(each.verdict == "fail" for each in verdicts(plan, (sides[0], sides[1]), ledger=ledger)):
            return look + 1
    return NEVER


def simulate(*, slow_runs: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """All figures, and for the plot the looks of equal and of doubled error rates at each share."""
    rng = np.random.default_rng(1)
    figures: dict[str, Any] = {"errors": {}, "latency": {}, "auc": {}, "all gates, equal candidate": {}}
    plotted: dict[str, Any] = {}
    for share in SHARES:
        place = f"{share:.0%}"
        equal: dict[str, list[Array]] = {name: [] for name in PLANS}
        for rate in RATES:
            for times in (1.0, 2.0):
                found = of_errors(errors(rng, rate, share, times=times), known=1.5 * rate)
                figures["errors"][f"{place}, {rate:.0%} errors, {times:g} times as many"] = summary(found)
                if rate == RATES[0]:
                    plotted[f"{place} {times:g}"] = found
                    if times == 1.0:
                        keep(equal, found)
        for times in (1.0, 1.3):
            counts, p99 = latencies(rng, share, times=times)
            found = of_latency(counts, p99)
            figures["latency"][f"{place}, {times:g} times as slow"] = summary(found)
            if times == 1.0:
                keep(equal, found)
        for drop in (0.0, DROP):
            found = of_auc(pairs(rng, share, drop=drop))
            figures["auc"][f"{place}, AUC {AUC - drop:.2f}"] = summary(found, step=AUC_STEP)
            if not drop:
                keep(equal, found)
        together = {name: earliest(*parts) for name, parts in equal.items()}
        figures["all gates, equal candidate"][place] = {
            name: table["turned_back"] for name, table in summary(together).items()
        }
    figures["weather, equal candidate"] = weather(rng)
    figures["through the gates themselves"] = through_the_gates(rng, runs=slow_runs)
    return figures, plotted


def keep(equal: dict[str, list[Array]], found: Mapping[str, Array]) -> None:
    for name, parts in equal.items():
        parts.append(found[name])


def plot(plotted: Mapping[str, Mapping[str, Array]], path: Path) -> None:
    """Share of runs turned back against requests: equal candidates above, twice the errors below."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "predis", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(SHARES), figsize=(9, 6), sharex=True, sharey=True, layout="constrained"
    )
    requests = STEP * np.arange(1, LOOKS + 1)
    styles = {
        "Predis": ("#0b6e4f", 2.4, "-"),
        "Predis, strict": ("#0b6e4f", 1.4, "--"),
        "mSPRT": ("#4c72b0", 1.4, "-"),
        "z-test at each look": ("#c44e52", 1.2, "-"),
        "Kayenta": ("#dd8452", 1.2, "-"),
        "Argo Rollouts, 95 %": ("#8c8c8c", 1.2, "-"),
        "Flagger, 99 %": ("#937860", 1.2, "-"),
        "Flagger, limit half way": ("#8172b3", 1.2, "-"),
    }
    for row, times in enumerate(("1", "2")):
        for column, share in enumerate(SHARES):
            axis = axes[row][column]
            for name, looks in plotted[f"{share:.0%} {times}"].items():
                known = looks[looks != NEVER]
                turned = np.searchsorted(np.sort(known), np.arange(1, LOOKS + 1), side="right") / len(looks)
                colour, width, style = styles[name]
                axis.plot(requests, turned, label=name, color=colour, lw=width, ls=style, zorder=1 + width)
            what = "equal candidates: false aborts" if times == "1" else "twice the errors: caught"
            axis.set_title(f"{what}, {share:.0%} of traffic")
            axis.grid(alpha=0.3)
    for axis in axes[0]:
        axis.axhline(0.05, color="black", lw=0.8, ls=":")
    for axis in axes[1]:
        axis.set_xlabel("requests of both sides")
    for axis in axes[:, 0]:
        axis.set_ylabel("share of rollouts turned back")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--plot", type=Path, help="draw them to this SVG file (needs matplotlib)")
    parser.add_argument(
        "--slow-runs", type=int, default=5, help="runs of each kind that go through the gates"
    )
    arguments = parser.parse_args()
    start = time.process_time()
    figures, plotted = simulate(slow_runs=arguments.slow_runs)
    found = {
        "command": " ".join(["bench/rollout.py", *sys.argv[1:]]),
        "runs": RUNS,
        "runs_of_kayenta": KAYENTA_RUNS,
        "requests": LOOKS * STEP,
        "requests_auc": LOOKS * AUC_STEP,
        "look_every": STEP,
        "auc_look_every": AUC_STEP,
        "alpha": PLANS["Predis"].alpha,
        "alpha_of_a_gate": ALPHA,
        "cpu_s": round(time.process_time() - start, 1),
        **figures,
    }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    if arguments.plot:
        plot(plotted, arguments.plot)


if __name__ == "__main__":
    main()
