"""The process that runs a train function: ``python -m predis.retraining.trainer JOB.json``.

It limits its own memory, gives way to serving, and ends when the control process that started it is gone (its standard input closes),
so that a killed control leaves no trainer behind to race with the one that the resumed run starts.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from predis.retraining.training import TrainedModel, TrainJob

NICENESS = 5


def main() -> None:
    """Run the job named on the command line; the result, or the error, is a JSON file beside it."""
    path = Path(sys.argv[1])
    job = json.loads(path.read_text())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.nice(NICENESS)
    limit = int(job["memory_bytes"])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    result = _run(job)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result))
    partial.replace(path.with_suffix(".result"))


def _run(job: dict[str, Any]) -> dict[str, Any]:
    output = Path(job["output"])
    try:
        module, _, function = job["train"].partition(":")
        train = getattr(importlib.import_module(module), function)
        trained = train(TrainJob(pq.read_table(job["table"]), job["label"], output))
        if not isinstance(trained, TrainedModel) or not (output / trained.file).is_file():
            return {
                "error": f"{job['train']} must return a TrainedModel whose file lies in the job's output folder"
            }
        made: dict[str, Any] = json.loads(json.dumps({**asdict(trained), "notes": dict(trained.notes)}))
        return made
    except MemoryError:
        return {
            "error": f"{job['train']} needed more than {job['memory_bytes']} bytes (setting train_memory_bytes)"
        }
    except Exception as error:
        return {"error": f"{job['train']} failed: {type(error).__name__}: {error}"}


def _die_with_parent() -> None:
    # Not through sys.stdin: a thread that waits in it makes the interpreter abort instead of ending.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
