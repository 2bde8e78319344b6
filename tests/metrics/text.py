"""Reads Prometheus' text format with its own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Values by name and labels. A series that stands there twice fails."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found
