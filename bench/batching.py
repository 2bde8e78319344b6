"""What joining waiting requests brings: an endpoint with batching, and one without, on the same worker. See README.md beside this file.

Short windows of wrk in turns (with, without, without, with, ...); of each pair the ratio of their throughputs, and the median over pairs: a
slow minute of the machine falls on both. The worker is held on core 0 and wrk on core 1, both with priority where that is allowed.

    lightgbm    a few hundred stumps: some 10 us a row
    onnx        a small network: a call costs more than a row
    network     a large network: reading its weights is most of a call, for one row as for many
    python      code that computes for 5 ms a row: joining brings nothing, and must not cost anything
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.serving import boost
from predis.client import Client
from tests import toys
from tests.installation import running, settings_of, wait_for

COLUMNS = 16
WITH, WITHOUT = "with", "without"
TABLE = {
    "inputs": [
        {"name": f.name, "datatype": f.datatype, "shape": [1], "data": [v]}
        for f, v in zip(toys.INPUTS, (0.5, -0.5, "a"), strict=True)
    ]
}
VECTOR = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, COLUMNS], "data": [0.5] * COLUMNS}]}
BURN = """
import time

def predict(inputs):
    until = time.thread_time() + 0.005 * len(inputs["x"])
    while time.thread_time() < until:
        pass
    return inputs["x"] * 0
"""
# Prints what wrk counted; the body is put in.
SCRIPT = """
wrk.method = "POST"
wrk.path = "{path}"
wrk.body = [[{body}]]
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('JSON {{"rps": %.1f, "p50_ms": %.3f, "p99_ms": %.3f, "errors": %d}}\\n', summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Case(NamedTuple):
    """A model, and a request for it."""

    kind: str
    contents: Callable[[], bytes]
    request: Mapping[str, Any]
    signature: Mapping[str, Any] | None = None


def network(*widths: int) -> bytes:
    """A network of dense layers, from ``COLUMNS`` inputs over these widths to one score."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(1)
    nodes, weights, last, width = [], [], "input", COLUMNS
    for layer, wide in enumerate((*widths, 1)):
        matrix = (rng.normal(size=(width, wide)) / np.sqrt(width)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"sum{layer}"]))
        nodes.append(helper.make_node("Sigmoid", [f"sum{layer}"], [f"out{layer}"]))
        last, width = f"out{layer}", wide
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", wide])]
        for name, wide in (("input", COLUMNS), (last, 1))
    ]
    graph = helper.make_graph(nodes, "network", *ends, initializer=weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


CASES: Mapping[str, Case] = {
    "lightgbm": Case("lightgbm", lambda: toys.booster(repeats=18), TABLE, toys.SIGNATURE.to_dict()),
    "onnx": Case("onnx", lambda: network(32), VECTOR),
    "network": Case("onnx", lambda: network(1536, 1536, 1536), VECTOR),
    "python": Case("python", BURN.encode, TABLE, toys.SIGNATURE.to_dict()),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--conns", default="1,16,64")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=1, help="length of one window")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"command": " ".join(["bench/batching.py", *sys.argv[1:]]), "load_average": []}
    with site(arguments.cases.split(",")) as made:
        for name in arguments.cases.split(","):
            found[name] = {}
            for conns in map(int, arguments.conns.split(",")):
                pairs = [
                    made.pair(name, conns, seconds=arguments.seconds, turn=n) for n in range(arguments.pairs)
                ]
                found[name][f"{conns} connections"] = summary(pairs)
                found["load_average"].append(os.getloadavg()[0])
                print(name, conns, json.dumps(summary(pairs)), file=sys.stderr, flush=True)
    print(json.dumps(found, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


class Site:
    """One worker that serves every case twice."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder

    def pair(self, case: str, conns: int, *, seconds: int, turn: int) -> dict[str, dict[str, float]]:
        order = (WITH, WITHOUT) if turn % 2 == 0 else (WITHOUT, WITH)
        return {name: self._window(case, name, conns=conns, seconds=seconds) for name in order}

    def _window(self, case: str, name: str, *, conns: int, seconds: int) -> dict[str, float]:
        script = self._folder / "wrk.lua"
        path = f"/v2/models/{case}-{name}/infer"
        script.write_text(SCRIPT.format(path=path, body=json.dumps(CASES[case].request)))
        first = ["chrt", "-r", "1"] if os.geteuid() == 0 else []
        command = [
            "taskset",
            "-c",
            "1",
            "wrk",
            "-t1",
            f"-c{conns}",
            f"-d{seconds}s",
            "--timeout",
            "10s",
            "-s",
            str(script),
            self._url,
        ]
        shown = subprocess.run([*first, *command], capture_output=True, text=True, check=True).stdout
        found: dict[str, float] = json.loads(shown.rpartition("JSON ")[2])
        return found


@contextmanager
def site(cases: Sequence[str]) -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        settings = settings_of(home, workers=1, allow_code=True, log_level="error")
        with running(settings) as installation:
            for name in cases:
                deploy(installation.client, Path(folder), name)
            worker = installation.supervisor.pids()["serving-0"]
            subprocess.run(
                ["taskset", "-a", "-c", "-p", "0", str(worker)], check=True, stdout=subprocess.DEVNULL
            )
            boost(worker)
            yield Site(f"http://{settings.host}:{settings.http_port}", Path(folder))


def deploy(client: Client, folder: Path, name: str) -> None:
    case = CASES[name]
    file = folder / "model.py"
    file.write_bytes(case.contents())
    client.register(name, file, format=case.kind, signature=case.signature)
    for endpoint, config in ((f"{name}-{WITH}", {}), (f"{name}-{WITHOUT}", {"batching": {"rows": 1}})):
        client.create_endpoint(endpoint, name, config=config)
        rollout = client.deploy(endpoint, 1, strategy="direct")["id"]
        wait_for(lambda rollout=rollout: client.rollout(rollout)["ended_at"])
        wait_for(lambda endpoint=endpoint: client.infer(endpoint, case.request).version)


def summary(pairs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Medians over pairs, and how far the ratios lie apart."""
    ratios = sorted(pair[WITH]["rps"] / pair[WITHOUT]["rps"] for pair in pairs)
    found: dict[str, Any] = {
        "ratio": round(statistics.median(ratios), 3),
        "quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[-1 - len(ratios) // 4], 3)],
        "errors": sum(window["errors"] for pair in pairs for window in pair.values()),
    }
    for name in (WITH, WITHOUT):
        found[name] = {
            key: round(statistics.median(pair[name][key] for pair in pairs), 3)
            for key in ("rps", "p50_ms", "p99_ms")
        }
    return found


if __name__ == "__main__":
    main()
