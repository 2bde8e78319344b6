"""Predis beside its peers, by the shared harness: the same model, rows and load; windows in turns; ratios of one run.

Needs the harness's folder and the environments its ``setup.sh`` made (``--peers-dir``), wrk and taskset. Predis runs as users run it:
``predis up`` with one worker; the worker is held on core 0 as every peer is, control and supervisor on core 1 beside wrk. Rounds
alternate between Predis and the peers, so that a slow minute of the machine falls on all.

    predis-lightgbm, predis-onnx     everything on: capture, monitoring, metrics
    predis-onnx-off                  the same with PREDIS_CAPTURE=false: what capture and monitoring cost
    predis-onnx-one                  batching off (rows 1): what joining waiting requests brings
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from predis.client import Client
from tests.installation import free_ports, wait_for

PEERS = "uvicorn_raw,triton_py-dynbatch,fastapi"
BARE = "uvicorn_raw"
# Name of a line: format of the model, environment, configuration of the endpoint.
LINES: dict[str, tuple[str, Mapping[str, str], Mapping[str, Any]]] = {
    "predis-lightgbm": ("lightgbm", {}, {}),
    "predis-onnx": ("onnx", {}, {}),
    "predis-onnx-off": ("onnx", {"PREDIS_CAPTURE": "false"}, {}),
    "predis-onnx-one": ("onnx", {}, {"batching": {"rows": 1}}),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--harness", type=Path, required=True, help="folder of the shared harness, with bench.py"
    )
    parser.add_argument(
        "--peers-dir", type=Path, required=True, help="where its setup.sh put environments and model"
    )
    parser.add_argument("--peers", default=PEERS)
    parser.add_argument("--lines", default=",".join(LINES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--conns", default="1:1,16:1,64:1,4:256")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs.json"
        harness = Harness(arguments, runs)
        lines = {name: LINES[name] for name in arguments.lines.split(",")}
        for _ in range(arguments.rounds):
            harness.peers()
            for name, line in lines.items():
                with installation(Path(folder) / name, line, model=arguments.peers_dir / "model") as (
                    url,
                    worker,
                ):
                    harness.predis(name, url, worker)
        found = json.loads(runs.read_text())
    summary = summarised(found["runs"])
    summary["memory_mb"] = {r["peer"]: r.get("rss_mb") for r in found["runs"]}
    document = {"command": " ".join(["bench/serving.py", *sys.argv[1:]]), "summary": summary, **found}
    print(json.dumps(summary, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")


class Harness:
    """Calls the shared harness, which appends each window to one file."""

    def __init__(self, arguments: argparse.Namespace, runs: Path) -> None:
        self._arguments = arguments
        model = arguments.peers_dir / "model"
        self._command = [
            str(arguments.peers_dir / "maker" / "bin" / "python"), str(arguments.harness / "bench.py"), "--model", str(model),
            "--venvs", str(arguments.peers_dir), "--out", str(runs), "--reps", "1", "--secs", str(arguments.seconds), "--warm", "1",
            "--conns", arguments.conns, "--prio",
        ]  # fmt: skip

    def peers(self) -> None:
        if self._arguments.peers:
            self._run("--peers", self._arguments.peers)

    def predis(self, name: str, url: str, worker: int) -> None:
        self._run("--url", f"{name}={url}", "--pid", str(worker))

    def _run(self, *more: str) -> None:
        shown = subprocess.run([*self._command, *more], capture_output=True, text=True, check=False)
        if shown.returncode:
            raise SystemExit(f"the harness failed:\n{shown.stdout[-2000:]}\n{shown.stderr[-2000:]}")
        print("\n".join(line for line in shown.stdout.splitlines() if line.startswith("{")), flush=True)


@contextmanager
def installation(
    home: Path, line: tuple[str, Mapping[str, str], Mapping[str, Any]], *, model: Path
) -> Iterator[tuple[str, int]]:
    """``predis up`` with the benchmark's model behind endpoint ``m``: its infer URL, and the worker's pid."""
    kind, environment, config = line
    control, http, grpc = free_ports(3)
    process = subprocess.Popen(
        ["taskset", "-c", "1", sys.executable, "-m", "predis", "up", "--home", str(home), "--workers", "1", "--control-port",
         str(control), "--http-port", str(http), "--grpc-port", str(grpc), "--log-level", "error"],
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        client = Client(f"http://127.0.0.1:{control}", f"http://127.0.0.1:{http}", retry_s=30)
        client.models()
        wait_for(client.ready)
        if not client.models():
            file = model / ("model.txt" if kind == "lightgbm" else "model.onnx")
            signature = None if kind == "onnx" else wide_signature(model)
            client.register("m", file, format=kind, signature=signature)
            client.create_endpoint("m", "m", config=dict(config))
            rollout = client.deploy("m", 1, strategy="direct")["id"]
            wait_for(lambda: client.rollout(rollout)["ended_at"])
        worker = client.overview()["system"]["workers"][0]["pid"]
        subprocess.run(["taskset", "-a", "-c", "-p", "0", str(worker)], check=True, stdout=subprocess.DEVNULL)
        boost(worker)
        yield f"http://127.0.0.1:{http}/v2/models/m/infer", worker
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def wide_signature(model: Path) -> dict[str, Any]:
    """One tensor of all features, as the harness sends it."""
    features = json.loads((model / "meta.json").read_text())["features"]
    return {
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, features]}],
        "outputs": [{"name": "probability", "datatype": "FP64"}],
    }


def boost(pid: int) -> None:
    """Give the worker the priority that the harness gives the peers it starts."""
    try:
        Path(f"/proc/{pid}/autogroup").write_text("-15")
    except OSError:
        print("could not raise the worker's priority; run as root for that", file=sys.stderr)


def summarised(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians by line and load, and each line's throughput against the bare server's."""
    found: dict[str, Any] = {}
    for conns, rows in sorted({(r["conns"], r["rows"]) for r in runs}, key=lambda k: (k[1], k[0])):
        here = [r for r in runs if (r["conns"], r["rows"]) == (conns, rows)]
        table = {}
        for name in sorted({r["peer"] for r in here}):
            own = [r for r in here if r["peer"] == name]
            table[name] = {
                "rps": statistics.median(r["rps"] for r in own),
                "rows_per_s": statistics.median(r["rps"] for r in own) * rows,
                "p50_ms": statistics.median(r["p50"] for r in own) / 1000,
                "p99_ms": statistics.median(r["p99"] for r in own) / 1000,
                "errors": sum(r["errors"] for r in own),
                "windows": len(own),
            }
        if BARE in table:
            for line in table.values():
                line["of_bare"] = round(line["rps"] / table[BARE]["rps"], 3)
        found[f"{conns} connections, {rows} rows"] = table
    return found


if __name__ == "__main__":
    main()
