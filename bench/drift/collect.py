"""Puts what the drift bench wrote as CSV into bench/results: a row per data set and tool. ``collect.py FILE.csv --command "..."``."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "results" / "2026-11-21-drift.json"
KEPT = (
    "section", "dataset", "tool", "version", "setting", "drift_at", "delay_rows", "false_alarms", "rows_before", "fa_per_10k",
    "alarms_after", "batches_after",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--command", required=True, help="how the file was made")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="results; what other benches wrote there is kept"
    )
    arguments = parser.parse_args()
    with arguments.file.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if not row["note"].startswith("FAILED")]
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    found["detection"] = {
        "command": arguments.command,
        "rows": [{name: number(row[name]) for name in KEPT if row[name]} for row in rows],
    }
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")


def number(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    main()
