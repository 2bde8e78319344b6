from __future__ import annotations

import subprocess
import sys

from predis.app.home import prepare
from predis.settings import Settings


def test_a_worker_starts_without_what_only_others_need(settings: Settings) -> None:
    """Each of these costs a worker tens of megabytes, or a good part of its start."""
    prepare(settings)
    program = (
        "import sys\nfrom predis import settings\nfrom predis.app.worker import ServingWorker\n"
        "worker = ServingWorker(settings.load({'home': sys.argv[1]}, environ={}), 0)\nworker.start()\n"
        "heavy = ('alembic', 'cryptography', 'fastapi', 'lightgbm', 'onnxruntime', 'pandas', 'pyarrow', 'scipy', 'sklearn', 'uvicorn')\n"
        "print([name for name in heavy if name in sys.modules])\nworker.stop()"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, settings.home], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]", found.stderr
