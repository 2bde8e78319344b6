"""What HTTP alone costs: the CPU of a server process for one small request that is answered with a constant.

Our server beside uvicorn (raw ASGI, uvloop, httptools), in turns, under wrk. Processor time is told, not requests per second: on a
machine that does other work as well it is the steadier of the two. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvloop

from predis.serving.http import HttpLimits, HttpServer, Request

ANSWER = (
    b'{"model_name":"m","outputs":[{"name":"predict","shape":[1,1],"datatype":"FP32","data":[0.123456]}]}'
)
CLIENTS = {
    # name: (servers to measure, what the client sends beside Host and Content-Length)
    "plain": (("ours", "ours on asyncio", "uvicorn"), ""),
    "library": (("ours", "uvicorn"), '["User-Agent"]="x/1", ["Accept"]="*/*", ["Accept-Encoding"]="gzip"'),
    "traced": (("ours", "uvicorn"), '["traceparent"]=string.format("00-%032x-%016x-01", n, n)'),
}
SCRIPT = """
local bodies, n = {}, 0
for i = 1, 64 do
  local row = {}
  for j = 1, 22 do row[j] = string.format("%%.4f", math.random() * 1000) end
  bodies[i] = '{"inputs":[{"name":"x","shape":[1,22],"datatype":"FP64","data":[' .. table.concat(row, ",") .. ']}]}'
end
request = function()
  n = n + 1
  return wrk.format("POST", "/v2/models/m/infer", {%s}, bodies[n %% 64 + 1])
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    text = json.dumps(
        {"command": " ".join(["bench/http_share.py", *sys.argv[1:]]), **measure(arguments)}, indent=2
    )
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of CPU microseconds a request, by client and server."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    started = {name: start(name) for name in CLIENTS["plain"][0]}
    try:
        for _round in range(arguments.rounds):
            for client, (servers, headers) in CLIENTS.items():
                for server in servers:
                    process, port = started[server]
                    before = cpu_s(process.pid)
                    requests = load(port, headers, arguments=arguments)
                    spent = [
                        (after - was) / requests * 1e6
                        for was, after in zip(before, cpu_s(process.pid), strict=True)
                    ]
                    found.setdefault((client, server), []).append((spent[0], spent[1]))
    finally:
        for process, _port in started.values():
            process.terminate()
            process.wait()
    return {
        f"{client} client, {server}": {
            "user_us": round(statistics.median(user for user, _ in values), 1),
            "kernel_us": round(statistics.median(kernel for _, kernel in values), 1),
        }
        for (client, server), values in sorted(found.items())
    }


def start(server: str) -> tuple[subprocess.Popen[str], int]:
    command = ["taskset", "-c", "0", sys.executable, __file__, "--serve", server]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def load(port: int, headers: str, *, arguments: argparse.Namespace) -> int:
    """Put load on a server; how many requests it answered."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % headers)
        script.flush()
        command = [
            "taskset",
            "-c",
            "1",
            "wrk",
            "-t1",
            f"-c{arguments.connections}",
            f"-d{arguments.seconds}s",
        ]
        command += ["-s", script.name, f"http://127.0.0.1:{port}"]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in told, told
    counted = re.search(r"(\d+) requests in", told)
    assert counted, told
    return int(counted[1])


def cpu_s(process: int) -> tuple[float, float]:
    """Seconds in user space and in the kernel that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def serve(server: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    if server == "uvicorn":
        import uvicorn

        config = uvicorn.Config(
            app, loop="uvloop", http="httptools", access_log=False, lifespan="off", log_level="error"
        )
        uvicorn.Server(config).run(sockets=[listening])
    else:
        run = asyncio.run if server == "ours on asyncio" else uvloop.run
        run(ours(listening))


async def ours(listening: socket.socket) -> None:
    def handle(request: Request) -> None:
        request.reply(200, ANSWER)

    await HttpServer(handle, HttpLimits()).start([listening])
    await asyncio.Event().wait()


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """The same as ``handle``, in ASGI."""
    message = await receive()
    while message.get("more_body"):
        message = await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


if __name__ == "__main__":
    main()
