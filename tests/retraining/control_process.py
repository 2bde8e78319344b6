"""A control role of its own process, for the test that kills it: it takes up the run it is named and brings it to its end.

control_process.py HOME STATE_URL RUN
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from predis import settings
from predis.app.platform import Platform
from predis.serving.store import Worker


def main() -> None:
    home, url, run_id = sys.argv[1:]
    platform = Platform(settings.load({"home": Path(home), "state_url": url}, environ={}))
    platform.retrainings.resume()
    while platform.retrainings.get("default", run_id).ended_at is None:
        now = platform.clock.time_ns()
        endpoints = platform.endpoints.store.endpoints()
        applied = {f"{endpoint.tenant}/{endpoint.name}": endpoint.route for endpoint in endpoints}
        platform.endpoints.store.beat(Worker("serving-0", 1, now, now, applied, {}))
        platform.rollouts.tick()
        platform.retrainings.tick()
        time.sleep(0.02)
    platform.close()


if __name__ == "__main__":
    main()
