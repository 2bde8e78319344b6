from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
import redis
from click.testing import CliRunner

from predis.app.home import prepare
from predis.app.learner import _export, _Valkey
from predis.cache.accesses import ALL
from predis.cache.learner import INSIGHT, RINGS
from predis.cache.predictor.export import AccessExport, exported
from predis.cache.ring import Flag, Looking, Producer, place_of
from predis.cli.simulate import simulate
from predis.metrics import NOTHING
from predis.settings import Settings, load
from tests.cache.clusters import cluster
from tests.cache.told import events, zipf

PROGRAM = """
import sys
from predis.app.learner import run_learner
from predis.settings import load
run_learner(load({"home": sys.argv[1], "cache_export_bytes": 30_000}, environ={}))
"""


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis+cluster://127.0.0.1:1",
        "redis+sentinel://127.0.0.1:1/m",
        "valkey://127.0.0.1:1",
        "redis://127.0.0.1:1",
        "unix:///nowhere/valkey.sock",
    ],
)
def test_a_valkey_that_tells_nothing_is_no_error(url: str) -> None:
    valkey = _Valkey(url)
    assert valkey.statistics() is None
    assert valkey.statistics() is None
    valkey.close()


def test_no_files_are_written_where_none_are_wanted(home: Path) -> None:
    assert _export(load({"home": home, "cache_export_bytes": 0}, environ={}), NOTHING) is None
    assert not (home / "cache").exists()


@pytest.mark.slow
def test_what_was_read_is_exported_within_the_limit(settings: Settings) -> None:
    """The role as it runs: from a gateway worker's ring to files that the simulator and DuckDB read; old ones make room."""
    prepare(settings)
    folder = settings.home / "cache"
    with AccessExport(folder / "accesses") as before:
        before.take("0", events(zipf(8_000, 4_000), flags=Flag.HIT))
    (old,) = exported(folder / "accesses")
    assert old.stat().st_size > 20_000
    ring = Producer(folder / RINGS / "0.ring", 1 << 14)
    keys = zipf(8_000, 4_000, seed=2)
    for key in keys:
        ring.put(key, 100, client=1, flags=Flag.WHOLE | Flag.SPATIAL, place=place_of(key))
    ring.tell(looked=len(keys), threshold=ALL, looking=Looking.AT_IT)
    learner = subprocess.Popen([sys.executable, "-c", PROGRAM, settings.home])
    try:
        _wait_until_read(learner, folder / INSIGHT)
        learner.send_signal(signal.SIGTERM)
        assert learner.wait(120) == 0
    finally:
        learner.kill()
        learner.wait()
        ring.close()
    (file,) = exported(folder / "accesses")
    assert file != old
    found = CliRunner().invoke(simulate, [str(file), "--size", "1%", "--policy", "s3-fifo", "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.output)["trace"]["requests"] == len(keys)
    with duckdb.connect() as connection:
        told = connection.execute(
            "select count(*), count(distinct key), bool_and(whole) from read_parquet(?)", [str(file)]
        )
        assert told.fetchall() == [(len(keys), len(set(keys)), True)]


def _wait_until_read(learner: subprocess.Popen[bytes], insight: Path) -> None:
    """Rings are emptied before each insight is written."""
    until = time.monotonic() + 120
    while not insight.exists():
        assert learner.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_the_masters_of_a_cluster_are_asked_together(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        keys = [nodes.key_at(place) for place in range(3)]
        for port, key in zip(nodes.masters, keys, strict=True):
            with redis.Redis(port=port) as node:
                node.set(key, b"of " + key)
        valkey = _Valkey(nodes.url)
        assert valkey.values([*keys, b"other"]) == [*(b"of " + key for key in keys), None]
        said = valkey.statistics()
        assert said is not None
        assert said["keys"] == 3
        valkey.close()
