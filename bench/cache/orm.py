"""Reads of a slow table: by plain cache-aside, through the gateway, and through the gateway with prefetching.

    python -m bench.cache.orm --out bench/results/2026-11-21-cache-orm.json

A PostgreSQL table whose every query takes 5 ms more, and clients that replay an ORM's reads (the trace ``orm_busy``; each client a stretch
of it, in order), thinking 2 ms between two reads. The cache holds 2 % of the trace's keys, the least recently used go first.

    aside      redis-py GET straight to Valkey; what is missing is queried by the client, and SET
    gateway    redis-py GET through the gateway, which loads what is missing; all that is foretold is held back
    foretold   the same through a gateway that prefetches what the learner's tables foretell

``replay``: one key a read, with thinking. ``pages``: ten keys a read, none. ``burst``: every client reads the same cold keys at the same
moment. Each round begins with an empty cache, is counted from when that is full, and has a stretch of the trace of its own; the ways read
it one after the other, in turns.

What is foretold was learnt from the reads before all rounds, 400,000 of them: by the learner's own code, but fed straight to it, with the
times they would have had, as hearing them live takes a quarter of an hour. It learns nothing during the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow.parquet as pq
import redis

from bench.cache.orm_client import QUERY, TTL_S
from predis.cache.foretelling import FOLDER, merged, statuses
from predis.cache.predictor import published
from predis.cache.predictor.learning import TableLearner
from predis.cache.ring import KEY_BYTES, Flag
from predis.cache.ring_reader import EVENT
from predis.cache.sources.declarations import Declarations
from predis.cache.sources.source import Source
from predis.clock import SystemClock
from predis.metrics.exposition import exposition
from predis.state import Database
from tests.cache.gateways import answers, valkey, wait_until
from tests.conftest import PostgresServer, migrate
from tests.installation import free_ports

TRACE = Path(__file__).parents[3] / "shared" / "traces" / "orm_busy.parquet"
PAUSE_S, THINK_S = 0.005, 0.002
PAGE, BURST = 10, 100
HELD = 1_200  # objects in the cache: 2 % of the trace's keys, 1 % for each client
WARM = 0.4  # of a round's reads, the first, are not counted: the cache is empty
BODY = 4_096  # bytes of an object, so that clients' buffers are small beside them
WAYS = ("aside", "gateway", "foretold")
_STILL_S = 0.3  # many times as long as a query takes
_HIT_S = 0.0005  # a read that hits, about


class Clients:
    """Processes that stay, each with connections of its own."""

    def __init__(self, count: int, stack: ExitStack) -> None:
        words = [sys.executable, "-m", "bench.cache.orm_client"]
        self._made = [
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        for one in self._made:
            stack.callback(one.wait)
            stack.callback(one.kill)

    def do(self, job: dict[str, Any], shares: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """Have each read its share, all at once."""
        for one, keys in zip(self._made, shares, strict=True):
            assert one.stdin is not None
            print(json.dumps({**job, "keys": list(keys)}), file=one.stdin, flush=True)
        told = [one.stdout.readline() for one in self._made if one.stdout is not None]
        return [json.loads(line) for line in told]  # of one that ended: no JSON, and it has said why


class Rig:
    """PostgreSQL, Valkey, and two gateways in front of them, one of which prefetches."""

    def __init__(self, home: Path, keys: Sequence[int], stack: ExitStack) -> None:
        self._stack = stack
        self.folder, self._metrics = home / "cache", home / "metrics"
        migrate(f"sqlite:///{home}/state.sqlite")
        postgres = PostgresServer(home / "pg")
        stack.callback(postgres.stop)
        self.postgres = filled(postgres.create(), keys)
        self.valkey = stack.enter_context(valkey(home / "valkey", "--maxmemory-policy", "allkeys-lru"))
        self.source = declare(home, self.postgres)
        environment = {
            **os.environ,
            "PREDIS_HOME": str(home),
            "PREDIS_VALKEY_URL": f"redis://127.0.0.1:{self.valkey}",
            "PREDIS_LOG_LEVEL": "warning",
        }
        gateway, foretold = free_ports(2)
        self.ports = {"aside": self.valkey, "gateway": gateway, "foretold": foretold}
        self._gateway(0, foretold, environment)
        self._gateway(1, gateway, environment, "--cache-hold-back", "1")
        wait_until(lambda: answers(gateway) and answers(foretold))
        self._straight = redis.Redis(port=self.valkey)
        self._limit()

    def clear(self) -> None:
        self._straight.flushall()

    def loads(self) -> int:
        """Queries that the gateways have made, by their own count, once that stands still."""
        before, found = -1, self._calls()
        while found != before:
            time.sleep(_STILL_S)
            before, found = found, self._calls()
        return found

    def told(self) -> None:
        """Wait until each gateway has told of its prefetching once more."""
        begun = time.time()
        wait_until(lambda: min(one["at"] for one in statuses(self.folder).values()) > begun)

    def _calls(self) -> int:
        lines = exposition(self._metrics).decode().splitlines()
        counts = [line for line in lines if line.startswith("predis_source_calls_total{")]
        return round(sum(float(line.rpartition(" ")[2]) for line in counts))

    def _gateway(self, index: int, port: int, environment: dict[str, str], *flags: str) -> None:
        words = ["cache", "--index", str(index), "--cache-port", str(port), "--cache-observe", "0", *flags]
        process = subprocess.Popen([sys.executable, "-m", "predis", "run", *words], env=environment)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)

    def _limit(self) -> None:
        """Let Valkey hold so many objects beside what it needs itself."""
        before = self._straight.info("memory")["used_memory"]
        for number in range(HELD):
            self._straight.set(f"object:-{number}", stored(number), ex=TTL_S)
        after = self._straight.info("memory")["used_memory"]
        self._straight.config_set("maxmemory", int(after + 0.1 * (after - before)))
        self._straight.flushall()


def body_of(number: int) -> str:
    return (f"body of {number}, " * (BODY // 8))[:BODY]


def stored(number: int) -> str:
    return json.dumps({"id": number, "body": body_of(number)})


def filled(url: str, keys: Sequence[int]) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE ids (id BIGINT)")
        with connection.cursor().copy("COPY ids FROM STDIN") as copy:
            for key in set(keys):
                copy.write_row((key,))
        connection.execute(
            "CREATE TABLE objects AS SELECT id,"  # noqa: S608 - numbers of ours
            f" left(repeat('body of ' || id || ', ', {BODY // 8}), {BODY}) AS body FROM ids"
        )
        connection.execute("ALTER TABLE objects ADD PRIMARY KEY (id)")
        connection.execute("ANALYZE objects")
    return url


def declare(home: Path, url: str) -> Source:
    database = Database(f"sqlite:///{home}/state.sqlite")
    document = {
        "pattern": "object:{id:int}", "kind": "sql", "url": url, "ttl_s": TTL_S, "jitter": 0.1, "concurrency": 8,
        "statement": QUERY.format(pause=PAUSE_S, which="IN :id"),
    }  # fmt: skip
    source = Source.of("objects", document)
    Declarations(database, SystemClock()).add(source, actor="bench")
    database.close()
    return source


def shares(workload: str, keys: Sequence[int], clients: int) -> list[Sequence[int]]:
    """What each client reads."""
    if workload == "burst":
        return [list(dict.fromkeys(keys))[:BURST]] * clients
    each = len(keys) // clients
    return [keys[i * each : (i + 1) * each] for i in range(clients)]


def read(
    rig: Rig, clients: Clients, way: str, *, workload: str, parts: list[Sequence[int]]
) -> dict[str, Any]:
    """One way's turn."""
    rig.clear()
    before = rig.loads()
    job = {
        "port": rig.ports[way], "postgres": rig.postgres if way == "aside" else "", "pause_s": PAUSE_S,
        "think_s": THINK_S if workload == "replay" else 0.0, "page": PAGE if workload == "pages" else 1,
    }  # fmt: skip
    begun = time.perf_counter()
    found = clients.do(job, parts)
    wall_s = time.perf_counter() - begun
    warm = WARM if workload == "replay" else 0.0
    took = np.array([ms for one in found for ms in one["took_ms"][int(warm * len(one["took_ms"])) :]])
    queries = sum(one["queries"] for one in found) if way == "aside" else rig.loads() - before
    return {
        "way": way, "workload": workload, "reads": len(took), "queries": queries, "wall_s": round(wall_s, 2),
        "mean_ms": round(float(took.mean()), 4), "slow_share": round(float((took >= PAUSE_S * 1e3).mean()), 4),
        **{f"p{q}_ms": round(float(np.percentile(took, q)), 4) for q in (50, 95, 99)},
    }  # fmt: skip


def teach(folder: Path, keys: Sequence[int], source: Source) -> dict[str, Any]:
    """What the learner makes of reads of one client, and publishes: with the times and the misses that they would have had."""
    learner = TableLearner(lambda key: source if key.startswith(b"object:") else None, delay_s=1.5 * PAUSE_S)
    held: OrderedDict[int, None] = OrderedDict()
    now_us = 0
    for at in range(0, len(keys), 10_000):
        part = keys[at : at + 10_000]
        events = np.zeros(len(part), EVENT)
        for event, number in zip(events, part, strict=True):
            hit = number in held
            held[number] = None
            held.move_to_end(number)
            if len(held) > HELD:
                held.popitem(last=False)
            key = f"object:{number}".encode()
            event["us"], event["length"], event["client"] = now_us, len(key), 1
            event["key"], event["flags"] = key.ljust(KEY_BYTES, b"\0"), Flag.WHOLE | (Flag.HIT if hit else 0)
            now_us += round(1e6 * (THINK_S + (_HIT_S if hit else 1.2 * PAUSE_S)))
        learner.take("taught", events)
    tables = learner.compile()
    about = {"reads": learner.reads, "rules": len(tables.rules), "followed": len(tables.followers)}
    published.publish(folder, tables, number=1, about=about)
    return about


def measure(given: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="predis-orm-")))
    sizes = [given.taught, *[given.requests] * given.rounds]
    keys = pq.read_table(TRACE).column("key").to_numpy()[: sum(sizes)].tolist()
    starts = np.cumsum([0, *sizes])
    stretches = [keys[a:b] for a, b in itertools.pairwise(starts)]
    rig, clients = Rig(home, keys, stack), Clients(given.clients, stack)
    rows = []
    for number, stretch in enumerate(stretches[1:]):
        if number == 0:  # what needs no tables
            rows += [
                read(rig, clients, way, workload=workload, parts=shares(workload, stretch, given.clients))
                for workload in ("pages", "burst")
                for way in ("aside", "gateway")
            ]
            tables = teach(rig.folder / FOLDER, stretches[0], rig.source)
            for _ in range(2):  # between two words lies a look at the tables
                rig.told()
        order = [WAYS[(number + i) % len(WAYS)] for i in range(len(WAYS))]
        for way in order:
            rows.append(
                read(rig, clients, way, workload="replay", parts=shares("replay", stretch, given.clients))
            )
            print(rows[-1], flush=True)
    rig.told()
    worth = merged(rig.folder).to_dict()
    rules = sorted(worth["rules"], key=lambda one: -one["given"])[:8]
    return {
        "unique_keys": len(set(keys)), "tables": tables, "worth": {**worth, "rules": rules}, "rounds": rows,
    }  # fmt: skip


def medians(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    figures = ("mean_ms", "p50_ms", "p95_ms", "p99_ms", "slow_share", "queries")
    return {
        f"{workload}, {way}": {
            figure: round(
                statistics.median(
                    row[figure] for row in rows if (row["workload"], row["way"]) == (workload, way)
                ),
                4,
            )
            for figure in figures
        }
        for workload, way in dict.fromkeys((row["workload"], row["way"]) for row in rows)
    }


def gains(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of each pair of ways the median over rounds of the second's figure as a share of the first's: below 1 is better."""
    by_way = {way: [row for row in rows if row["workload"] == "replay" and row["way"] == way] for way in WAYS}
    return {
        f"{figure}, {after} over {before}": round(
            statistics.median(
                b[figure] / a[figure] for a, b in zip(by_way[before], by_way[after], strict=True)
            ),
            4,
        )
        for figure in ("mean_ms", "p95_ms", "slow_share")
        for before, after in (("aside", "gateway"), ("gateway", "foretold"), ("aside", "foretold"))
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=6_000, help="Reads of one round.")
    parser.add_argument("--taught", type=int, default=400_000, help="Reads that the learner is taught on.")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    load = os.getloadavg()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started ends
    with ExitStack() as stack:
        found = measure(given, stack)
    document = {
        "what": __doc__.partition("\n")[0] if __doc__ else "",
        "command": "python -m bench.cache.orm " + " ".join(sys.argv[1:]),
        "cores": os.cpu_count(), "load_average": {"before": load, "after": os.getloadavg()},
        "medians": medians(found["rounds"]), "shares": gains(found["rounds"]), **found,
    }  # fmt: skip
    if given.out:
        given.out.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps({name: document[name] for name in ("tables", "worth", "medians", "shares")}, indent=2))


if __name__ == "__main__":
    main()
