"""The 64 features, one by one. docs/explanation/access-features.md is written from this table; a test compares them.

Units: *requests* are reads of the whole stream, *seconds* of its clock. What is not known yet, or needs a clock that is not there,
is NaN. "Recently" means a mean in which the last read weighs 1/8.
"""

from __future__ import annotations

from typing import NamedTuple


class Feature(NamedTuple):
    """One column."""

    name: str
    group: str
    unit: str
    meaning: str


def _rows(group: str, *rows: tuple[str, str, str]) -> list[Feature]:
    return [Feature(name, group, unit, meaning) for name, unit, meaning in rows]


FEATURES: tuple[Feature, ...] = (
    *_rows(
        "Recency",
        ("since_last", "requests", "Since the key was last read."),
        ("since_last_s", "seconds", "Since the key was last read."),
        ("since_second", "requests", "Since the read before that."),
        ("since_second_s", "seconds", "Since the read before that."),
        ("since_third", "requests", "Since the third last read."),
        ("age", "requests", "Since the key's first read that is remembered."),
        ("age_s", "seconds", "Since the key's first read that is remembered."),
    ),
    *_rows(
        "Frequency",
        ("reads", "reads", "Of the key, all that are remembered."),
        ("reads_16", "reads", "Each counted half as much every 16 requests."),
        ("reads_128", "reads", "Each counted half as much every 128 requests."),
        ("reads_1024", "reads", "Each counted half as much every 1,024 requests."),
        ("reads_8192", "reads", "Each counted half as much every 8,192 requests."),
        ("reads_65536", "reads", "Each counted half as much every 65,536 requests."),
        ("reads_1s", "reads", "Each counted half as much every second."),
        ("reads_10s", "reads", "Each counted half as much every 10 seconds."),
        ("reads_60s", "reads", "Each counted half as much every minute."),
        ("reads_600s", "reads", "Each counted half as much every 10 minutes."),
        ("reads_3600s", "reads", "Each counted half as much every hour."),
        ("trend", "ratio", "Rate over the last 1,024 requests to that over the last 8,192; above 1: it becomes more popular."),
    ),
    *_rows(
        "Time between reads",
        ("gap", "requests", "Between the last two reads."),
        ("gap_before", "requests", "Between the two reads before."),
        ("gap_mean", "requests", "Recent mean."),
        ("gap_sd", "requests", "Recent standard deviation."),
        ("gap_cv", "ratio", "Standard deviation over mean: 0 as by a clock, 1 as by chance, more in bursts."),
        ("gap_skew", "none", "Third standardised moment: above 0 where few gaps are very long."),
        ("gap_log_mean", "log2 requests", "Recent mean of the logarithm."),
        ("gap_log_sd", "log2 requests", "Recent standard deviation of the logarithm."),
        ("gap_mean_s", "seconds", "Recent mean."),
        ("gap_cv_s", "ratio", "Standard deviation over mean, of gaps in seconds."),
        ("overdue", "ratio", "Requests since the last read over the mean gap; above 1: later than usual."),
    ),
    *_rows(
        "Periodicity",
        ("regular", "share", "Of recent gaps, those within 10% of the gap before, in requests."),
        ("to_next", "requests", "To the next read that is due, by the last gap that was like the one before; negative: overdue."),
        ("regular_s", "share", "Of recent gaps, those within 10% of the gap before, in seconds."),
        ("period_s", "seconds", "The last gap that was like the one before."),
        ("to_next_s", "seconds", "To the next read by that period; negative: overdue."),
        ("phase_s", "share", "How far into the period it is now, periods that were left out not counted."),
    ),
    *_rows(
        "Burstiness",
        ("burstiness", "-1 to 1", "(sd - mean) / (sd + mean) of gaps: -1 as by a clock, 0 by chance, 1 in bursts (Goh, Barabasi 2008)."),
        ("memory", "-1 to 1", "Correlation of successive gaps: above 0, short ones follow short ones."),
        ("burst", "share", "Of recent gaps, those shorter than 16 requests."),
    ),
    *_rows(
        "Hits and size",
        ("hit_share", "share", "Of the key's recent reads, those that were hits."),
        ("misses_1024", "misses", "Of the key, each counted half as much every 1,024 requests."),
        ("size", "bytes", "Of the value when it was last there."),
        ("size_ratio", "ratio", "That over the stream's recent mean."),
    ),
    *_rows(
        "Template",
        ("template_share", "share", "Of the last requests (half-life 1,024), those of keys of its template."),
        ("template_since", "requests", "Since a key of its template was read."),
        ("template_hits", "share", "Of the template's recent reads, hits; the last weighs 1/64."),
        ("template_new", "share", "Of the template's recent reads, those of keys not remembered."),
        ("template_gap", "log2 requests", "Mean logarithm of the gap between reads of one key of the template."),
    ),
    *_rows(
        "Client",
        ("client_reads", "reads", "Of the client that reads, each counted half as much every 1,024 requests."),
        ("client_since", "requests", "Since this client's last read."),
        ("client_since_s", "seconds", "Since this client's last read."),
        ("client_new", "share", "Of the client's recent reads, those of keys not remembered."),
        ("client_same_template", "share", "Of the client's recent reads, those of the same template as its read before."),
        ("same_reader", "0 or 1", "Whether this client was the last to read the key."),
        ("other_reader", "share", "Of the key's recent reads, those by another client than the read before."),
    ),
    *_rows(
        "Neighbours",
        ("pair_reads", "reads", "How often the key came right after the client's last key."),
        ("pair_after", "share", "Of what came after that last key, this key."),
        ("pair_before", "share", "Of what this key came after, that last key."),
        ("pair_since", "requests", "Since the pair was last seen."),
    ),
    *_rows(
        "Time of day",
        ("hour_sin", "-1 to 1", "Sine of the time of day (UTC)."),
        ("hour_cos", "-1 to 1", "Cosine of the time of day (UTC)."),
        ("hour_usual", "-1 to 1", "How near it is to the times of day at which the key was read; 1: always now."),
    ),
    *_rows(
        "Stream",
        ("stream_new", "share", "Of the last requests (mean over about 1,024), those of keys not remembered."),
        ("stream_hits", "share", "Of the last requests, hits."),
    ),
)  # fmt: skip

NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)


def as_markdown() -> str:
    """The table for people."""
    lines = ["| feature | unit | meaning |", "|---|---|---|"]
    group = ""
    for feature in FEATURES:
        if feature.group != group:
            group = feature.group
            lines.append(f"| **{group}** | | |")
        lines.append(f"| `{feature.name}` | {feature.unit} | {feature.meaning} |")
    return "\n".join(lines) + "\n"
