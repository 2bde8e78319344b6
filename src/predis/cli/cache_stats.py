"""Verbs that tell how the cache does: stats, hot-keys, what-if."""

from __future__ import annotations

from typing import Any

import click

from predis.cli.output import as_json_option, client, console, remote, show_json, table

_BAR = 32
_EIGHTHS = " ▏▎▍▌▋▊▉"
_SILENT = "The learner has told nothing yet: it runs where the cache does, and tells once clients read through the cache's port."


@click.command()
@as_json_option
@remote
def stats(*, as_json: bool, control: str, serving: str, key: str) -> None:
    """Show how the cache does: hit rate, memory, latency by source, who reads, what is large.

    \b
    predis cache stats
    predis cache stats --json
    """
    found = client(control, serving, key=key).cache_insight()
    if as_json:
        show_json(found)
        return
    if found["at"] is None:
        click.echo(_SILENT)
    else:
        _show_whole(found)
        rows = [
            {**row, "key": shown_key(row["key"]), "bytes": size(row["bytes"])}
            for row in found["big_keys"][:10]
        ]
        if rows:
            click.secho("\nLargest values", bold=True)
            table(rows, {"key": "key", "size": "bytes"}, empty="")
    _show_sources(found["sources"])


@click.command("hot-keys")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 50), help="Keys to list.")
@as_json_option
@remote
def hot_keys(*, limit: int, as_json: bool, control: str, serving: str, key: str) -> None:
    """List the keys that are read most, with their share of the reads of about the last ten minutes.

    Where a share has a range, the count of that key began while others were counted in its place.

    \b
    predis cache hot-keys
    predis cache hot-keys --limit 5 --json
    """
    found = client(control, serving, key=key).cache_insight()
    rows = found.get("hot_keys", [])[:limit]
    if as_json:
        show_json(rows)
        return
    shown = [
        {"key": shown_key(row["key"]), "bar": _bar(row["share"] / rows[0]["share"], 16), "share": _range(row)}
        for row in rows
    ]
    table(shown, {"key": "key", "": "bar", "of the reads": "share"}, empty=_SILENT)


@click.command("what-if")
@click.option(
    "--memory",
    default="2x",
    show_default=True,
    help="A multiple of the present memory, or a size: 2x, 512MB.",
)
@click.option(
    "--policy", default="lru", show_default=True, help="What decides who leaves: lru, s3-fifo, twoq or arc."
)
@as_json_option
@remote
def what_if(memory: str, policy: str, *, as_json: bool, control: str, serving: str, key: str) -> None:
    """Say what another memory size or eviction policy would give, from a sample of the reads of about the last hours.

    Curves reach from a quarter of the present memory to four times it. The range is where the answer would lie 19 times of 20 for
    another sample of keys.

    \b
    predis cache what-if --memory 2x
    predis cache what-if --memory 512MB --policy s3-fifo
    predis cache what-if --memory 0.5x --json
    """
    server = client(control, serving, key=key)
    answer = server.cache_what_if(memory, policy)
    if as_json:
        show_json(answer)
        return
    click.secho(answer["words"], bold=True)
    for note in answer["notes"]:
        click.echo(f"note: {note}")
    _plot(server.cache_insight()["curves"], answer["policy"])


def shown_key(key: str) -> str:
    """A key on one line of a terminal, none of its bytes doing anything there."""
    plain = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in key)
    return plain if len(plain) <= 80 else plain[:77] + "..."


def size(count: float) -> str:
    """Bytes as people read them: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _show_whole(found: dict[str, Any]) -> None:
    valkey = found["valkey"]
    if valkey is None:
        click.echo("Valkey does not answer the learner, or is a cluster: no figures of its own.")
    else:
        reads = valkey["keyspace_hits"] + valkey["keyspace_misses"]
        rate = (
            f"{valkey['keyspace_hits'] / reads:.1%} of {reads:,} reads were hits"
            if reads
            else "nothing was read yet"
        )
        limit = f"of {size(valkey['maxmemory'])}" if valkey["maxmemory"] else "without a limit"
        click.secho(f"{rate}.", bold=True)
        click.echo(
            f"{valkey['keys']:,} keys in {size(valkey['used_memory'])} {limit} ({valkey['policy']}); {valkey['evicted_keys']:,} evicted, "
            f"{valkey['expired_keys']:,} expired."
        )
    workers = (
        "1 gateway worker tells" if found["workers"] == 1 else f"{found['workers']} gateway workers tell"
    )
    heard = (
        "all reads are looked at" if found["looking"] else "the workers rest from looking, or nobody reads"
    )
    click.echo(f"{workers} the learner; {heard}; {found['dropped']:,} reads dropped.")
    if found["stale"]:
        click.echo("The learner has written nothing for a while: these figures are old.")
    for name, times in found["gateway"].items():
        if times:
            told = {"upstream_ms": "Valkey answers in", "added_ms": "The gateway adds"}[name]
            click.echo(f"{told} {times['p50']:.3g} ms (p50), {times['p99']:.3g} ms (p99).")
    rows = [
        {
            "prefix": row["prefix"] or "(none)",
            **{name: f"{row[name]:.1%}" for name in ("reads", "bytes", "hit_rate")},
        }
        for row in found["prefixes"][:10]
    ]
    if rows:
        click.secho("\nWho reads, by the first part of the key", bold=True)
        table(
            rows, {"prefix": "prefix", "reads": "reads", "bytes": "bytes", "hit rate": "hit_rate"}, empty=""
        )


def _show_sources(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    click.secho("\nSources", bold=True)
    shown = [
        {
            "source": row["source"],
            "reads": f"{row['reads']:,.0f}",
            "hits": f"{row['hit_rate']:.1%}",
            "latency": f"{row['latency_ms']['p50']:.3g} / {row['latency_ms']['p99']:.3g} ms"
            if row["latency_ms"]
            else None,
        }
        for row in rows
    ]
    table(
        shown,
        {"source": "source", "reads": "reads", "hit rate": "hits", "call p50 / p99": "latency"},
        empty="",
    )


def _plot(curves: dict[str, Any], policy: str) -> None:
    """The curve as bars, one of each size."""
    curve, memory = curves["policies"][policy], curves["present"]["memory_bytes"]
    rows = [
        {
            "memory": f"{scale:g}x",
            "bytes": size(scale * memory),
            "bar": _bar(rate),
            "rate": f"{rate:.1%} ±{100 * half:.1f}",
        }
        for scale, rate, half in zip(curves["scales"], curve["hit_rate"], curve["half_width"], strict=True)
    ]
    table(rows, {"memory": "memory", " ": "bytes", "hit rate": "bar", "": "rate"}, empty="")
    console().print(
        f"From {curves['sampled_reads']:,} reads of {curves['sampled_keys']:,} keys.", style="dim"
    )


def _bar(share: float, width: int = _BAR) -> str:
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _range(row: dict[str, Any]) -> str:
    high, low = 100 * row["share"], 100 * row["share_low"]
    return (
        f"{_two_digits(high)}%" if high - low < 0.05 * high else f"{_two_digits(low)} to {_two_digits(high)}%"
    )


def _two_digits(percent: float) -> str:
    """Two that count, and 100 as such.

    >>> _two_digits(100.0), _two_digits(26.6), _two_digits(0.0123)
    ('100', '27', '0.012')
    """
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
