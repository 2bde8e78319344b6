"""``python -m predis``: the same as the ``predis`` command."""

from predis.cli import main

main()
