"""From the event to the webhook, on a running installation. See README.md beside this file.

    event    the answer of the request with which an endpoint's newest minute breaks its limit: the 50th that is slower than allowed
    webhook  when a receiver on this machine had the signed notice in its hands

Each round is an endpoint of its own, so that each is a new incident. With a further route whose receiver takes every request and never
answers: it must hold up nobody. Moments are those of this machine's clock.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from predis.monitoring.alerting.channels.webhook import verify
from tests import toys
from tests.installation import Installation, running, settings_of, wait_for
from tests.monitoring.alerting.receivers import Receiver, Request

SECRET = "bench-secret"  # noqa: S105 - of the receiver here
PROOF = 50  # requests from which on a minute is judged
ROW = {"x": 0.5, "z": 0.5, "kind": "a"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"command": " ".join(["bench/alerting.py", *sys.argv[1:]])}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        (home / "secrets").mkdir(parents=True)
        (home / "secrets" / "hook").write_text(SECRET)
        # Whatever answers is too slow for this limit.
        settings = settings_of(home, workers=2, log_level="error", latency_limit_ms=0.0)
        with running(settings) as installation:
            installation.deploy_toy(Path(folder))
            found |= measured(installation, arguments.rounds)
    found["load_average"] = os.getloadavg()[0]
    print(json.dumps(found, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def measured(installation: Installation, rounds: int) -> dict[str, Any]:
    arrived: dict[str, float] = {}
    let_go = threading.Event()

    def take(request: Request) -> int:
        now = time.time()
        verify(SECRET, request.body, header=request.headers["predis-signature"], now_s=now)
        arrived.setdefault(request.json["endpoint"], now)
        return 200

    def hang(_request: Request) -> int:
        let_go.wait()
        return 200

    with Receiver(take) as receiver, Receiver(hang) as dead:
        for name, url in (("dead", dead.url), ("ops", receiver.url)):
            installation.client.add_alert_route(
                name, channel="webhook", config={"url": url, "secret": "file:hook"}, per_hour=10_000
            )
        try:
            events = {name: provoke(installation, name) for name in names(installation, rounds)}
            wait_for(lambda: events.keys() <= arrived.keys())
        finally:
            let_go.set()
    latencies = sorted(arrived[name] - events[name] for name in events)
    return {
        "rounds": rounds,
        "event_to_webhook_s": {
            "median": round(statistics.median(latencies), 3),
            "p90": round(latencies[int(0.9 * (len(latencies) - 1))], 3),
            "max": round(latencies[-1], 3),
        },
        "budget_s": 5.0,
        "dead_receiver_beside_it": True,
    }


def names(installation: Installation, rounds: int) -> list[str]:
    """Endpoints that answer, none of them asked yet."""
    made = [f"round-{number}" for number in range(rounds)]
    for name in made:
        installation.client.create_endpoint(name, toys.MODEL)
        installation.finish(installation.client.deploy(name, 1, strategy="direct")["id"])
    return made


def provoke(installation: Installation, endpoint: str) -> float:
    """Ask until the minute is proof; when the last answer came."""
    for _ in range(PROOF):
        installation.client.predict(endpoint, [ROW])
    event = time.time()
    time.sleep(0.5 + random.random())  # rounds begin at another moment of the loops each
    return event


if __name__ == "__main__":
    main()
