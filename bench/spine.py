"""Measures the spine: starting, stopping, one-row requests, capture, ingest. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent))

from predis.client import Client
from predis.demo import flights as data
from predis.demo.story import LABEL, TRAIN_UNTIL, _signature, _table
from predis.demo.training import train
from predis.retraining import TrainJob
from tests.installation import free_ports, wait_for

WINDOW_S = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "command": " ".join(["bench/spine.py", *sys.argv[1:]]),
            **measure(Path(folder), arguments.rounds),
        }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    frame = data.load()
    before = frame[frame["scheduled"] < TRAIN_UNTIL]
    (folder / "out").mkdir()
    train(TrainJob(_table(before), LABEL, folder / "out"))
    control, http, bare = free_ports(3)
    found: dict[str, Any] = {"start_to_ready_s": [], "ctrl_c_to_end_s": [], "one_row": []}
    for _ in range(rounds):
        process, seconds = up(folder / f"home-{len(found['start_to_ready_s'])}", control, http)
        found["start_to_ready_s"].append(seconds)
        found["ctrl_c_to_end_s"].append(end(process))
    process, _ = up(folder / "home", control, http)
    try:
        deploy(folder, before, Client(f"http://127.0.0.1:{control}", f"http://127.0.0.1:{http}"))
        script = lua(folder, frame)
        yardstick = start_bare(folder, before, bare)
        try:
            for _ in range(rounds):
                for connections in (1, 16, 64):
                    found["one_row"].append({
                        "connections": connections,
                        "predis": wrk(script, f"http://127.0.0.1:{http}/v2/models/flights/infer", connections),
                        "bare": wrk(script, f"http://127.0.0.1:{bare}/", connections),
                    })  # fmt: skip
        finally:
            yardstick.terminate()
            yardstick.wait()
        worker = next(w for w in Client(f"http://127.0.0.1:{control}").overview()["system"]["workers"])
        found["worker_rss_mb"] = rss_mb(worker["pid"])
        wait_for(lambda: settled(control), patience_s=120)
        found["counted"] = Client(f"http://127.0.0.1:{control}").overview()["system"]["journal"]
    finally:
        end(process)
    found["median"] = {
        f"{c}_connections": {
            side: statistics.median(r[side]["per_second"] for r in found["one_row"] if r["connections"] == c)
            for side in ("predis", "bare")
        }
        for c in (1, 16, 64)
    }
    return found


def up(home: Path, control: int, http: int) -> tuple[subprocess.Popen[bytes], float]:
    """``predis up`` with one worker on core 0, and the seconds until it answers."""
    started = time.perf_counter()
    process = subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, "-m", "predis", "up", "--home", str(home), "--workers", "1",
         "--control-port", str(control), "--http-port", str(http), "--log-level", "error"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    client = Client(f"http://127.0.0.1:{control}", f"http://127.0.0.1:{http}", retry_s=30)
    client.models()
    wait_for(client.ready)
    return process, round(time.perf_counter() - started, 2)


def end(process: subprocess.Popen[bytes]) -> float:
    asked = time.perf_counter()
    process.send_signal(signal.SIGINT)
    process.wait()
    return round(time.perf_counter() - asked, 2)


def deploy(folder: Path, before: Any, client: Client) -> None:
    reference = folder / "reference.parquet"
    pq.write_table(_table(before), reference)
    client.register(
        "flights",
        folder / "out" / "model.txt",
        format="lightgbm",
        label=LABEL,
        signature=_signature(before),
        reference=reference,
    )
    client.create_endpoint("flights", "flights")
    rollout = client.deploy("flights", 1, strategy="direct")["id"]
    wait_for(lambda: client.rollout(rollout)["ended_at"])


def lua(folder: Path, frame: Any) -> Path:
    """wrk's script: 64 different flights in turn."""
    rows = frame[frame["scheduled"] >= TRAIN_UNTIL].dropna().head(64)
    bodies = []
    for _, row in rows.iterrows():
        inputs = [
            {
                "name": n,
                "datatype": "BYTES" if n in data.CATEGORICALS else "FP64",
                "shape": [1],
                "data": [row[n]],
            }
            for n in data.FEATURES
        ]
        bodies.append("[[" + json.dumps({"inputs": inputs}) + "]]")
    script = folder / "post.lua"
    script.write_text(
        'wrk.method = "POST"\nlocal bodies = {' + ",\n".join(bodies) + "}\nlocal i = 0\n"
        "request = function() i = i % #bodies + 1; return wrk.format(nil, nil, nil, bodies[i]) end\n"
    )
    return script


def start_bare(folder: Path, before: Any, port: int) -> subprocess.Popen[bytes]:
    levels = {
        name: {level: float(code) for code, level in enumerate(known)}
        for name, known in data.levels(before).items()
    }
    (folder / "levels.json").write_text(json.dumps(levels))
    environment = {
        **os.environ,
        "MODEL": str(folder / "out" / "model.txt"),
        "LEVELS": str(folder / "levels.json"),
    }
    command = [
        "taskset",
        "-c",
        "0",
        sys.executable,
        "-m",
        "uvicorn",
        "bare_app:app",
        "--app-dir",
        str(Path(__file__).parent),
    ]
    options = [
        "--port",
        str(port),
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--no-access-log",
        "--log-level",
        "error",
        "--lifespan",
        "off",
    ]
    process = subprocess.Popen([*command, *options], env=environment)
    time.sleep(2)
    return process


def wrk(script: Path, url: str, connections: int) -> dict[str, float]:
    shown = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{WINDOW_S}s", "--latency", "-s", str(script), url],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if "Non-2xx" in shown:
        raise SystemExit(f"{url} refused requests:\n{shown}")
    return {
        "per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", shown)[1]),  # type: ignore[index]
        "p50_ms": milliseconds(re.search(r"50%\s+([\d.]+\w+)", shown)[1]),  # type: ignore[index]
        "p99_ms": milliseconds(re.search(r"99%\s+([\d.]+\w+)", shown)[1]),  # type: ignore[index]
    }


def milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def settled(control: int) -> bool:
    """Whether control has read everything: two looks a second apart count the same."""
    client = Client(f"http://127.0.0.1:{control}")
    first = client.overview()["system"]["journal"]["records"]
    time.sleep(1)
    return bool(client.overview()["system"]["journal"]["records"] == first)


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024, 1)  # type: ignore[index]


if __name__ == "__main__":
    main()
