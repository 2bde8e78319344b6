"""The group of verbs about the cache."""

from __future__ import annotations

import click

from predis.cli import cache_predictor, cache_sources, cache_stats, cache_versions, simulate


@click.group()
def cache() -> None:
    """The cache in front of slow data: how it does, and what would do better."""


for command in (
    cache_sources.source,
    cache_predictor.predictor,
    cache_stats.stats,
    cache_stats.hot_keys,
    cache_stats.what_if,
    simulate.simulate,
):
    cache.add_command(command)
for command in (
    cache_versions.versions,
    cache_versions.train,
    cache_versions.promote,
    cache_versions.rollback,
):
    cache_predictor.predictor.add_command(command)
