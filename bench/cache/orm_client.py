"""A client of ``orm``, in a process of its own: one job a line in, one result a line out, both JSON.

A job says where to read (``port``), which keys, how many at once (``page``) and how long the application thinks between two reads. With
``postgres`` the client is its own cache-aside: what the cache lacks it queries, and sets.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import psycopg
import redis

TTL_S = 600
QUERY = "WITH pause AS MATERIALIZED (SELECT pg_sleep({pause})) SELECT id, body FROM objects, pause WHERE id {which}"


class Client:
    """Connections are kept from one job to the next."""

    def __init__(self) -> None:
        self._caches: dict[int, redis.Redis] = {}
        self._database: psycopg.Connection | None = None
        self.queries = 0

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Milliseconds of each read, and how many queries were made here."""
        cache = self._caches.setdefault(job["port"], redis.Redis(port=job["port"]))
        aside = bool(job["postgres"])
        if aside and self._database is None:
            self._database = psycopg.connect(job["postgres"], autocommit=True)
        cache.ping()
        self.queries = 0
        took = []
        numbers, page = job["keys"], job["page"]
        for at in range(0, len(numbers), page):
            keys = [f"object:{number}" for number in numbers[at : at + page]]
            begun = time.perf_counter()
            found = cache.mget(keys) if page > 1 else [cache.get(keys[0])]
            missing = [key for key, value in zip(keys, found, strict=True) if value is None]
            if missing and aside:
                self._query(cache, missing, pause_s=job["pause_s"])
            elif missing:
                raise SystemExit(f"the gateway found nothing for {missing}")
            took.append((time.perf_counter() - begun) * 1e3)
            if job["think_s"]:
                time.sleep(job["think_s"])
        return {"took_ms": took, "queries": self.queries}

    def _query(self, cache: redis.Redis, missing: list[str], *, pause_s: float) -> None:
        assert self._database is not None
        self.queries += 1
        ids = [int(key.partition(":")[2]) for key in missing]
        statement = QUERY.format(pause=pause_s, which="= ANY(%s)")
        rows = self._database.execute(statement, (ids,)).fetchall()
        with cache.pipeline(transaction=False) as pipeline:
            for number, body in rows:
                pipeline.set(f"object:{number}", json.dumps({"id": number, "body": body}), ex=TTL_S)
            pipeline.execute()


def main() -> None:
    client = Client()
    for line in sys.stdin:
        print(json.dumps(client.do(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
