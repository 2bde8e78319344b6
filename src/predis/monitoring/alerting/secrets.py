"""Secrets of routes: named by where they are found, read when they are needed, never stored, listed or logged.

A route is made by an administrator of a tenant, who is not always whoever runs the machine. So a name reaches only what was put there
for alerts: environment variables that begin with ``PREDIS_ALERT_``, for the tenant ``default`` alone, and files in one folder, of
which each other tenant has a part of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from predis.access.keys import DEFAULT_TENANT
from predis.errors import InvalidInput, Unavailable

PREFIX = "PREDIS_ALERT_"
_NAME = re.compile(r"(env):([A-Z][A-Z0-9_]*)|(file):([A-Za-z0-9][\w.-]*)")
_LONGEST_BYTES = 4_096


def check_reference(text: str, where: str) -> None:
    """
    Raises:
        InvalidInput: it is not the name of a secret. The message does not repeat it: it may be the secret itself.
    """
    found = _NAME.fullmatch(text)
    if not found or (found[1] and not found[2].startswith(PREFIX)):
        raise InvalidInput(
            f"{where} is a secret: name where it is found, as env:{PREFIX}NAME or file:NAME (a file in the folder alert_secrets)"
        )


class Secrets:
    """Reads secrets.

    Args:
        folder: where files of secrets are; those of a tenant other than ``default`` in a folder of its name there.
    """

    def __init__(self, folder: Path, *, environ: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._environ = os.environ if environ is None else environ

    def read(self, reference: str, *, tenant: str) -> str:
        """
        Raises:
            Unavailable: it is not there now; it may be put there.
        """
        kind, _, name = reference.partition(":")
        if kind == "env":
            value = self._environ.get(name, "") if tenant == DEFAULT_TENANT else ""
            where = f"the environment variable {name} of the control process"
            if tenant != DEFAULT_TENANT:
                where = "a file: only the tenant 'default' reads environment variables"
        else:
            folder = self._folder if tenant == DEFAULT_TENANT else self._folder / tenant
            value, where = _content(folder / name), f"the file {name} in the folder alert_secrets"
        if not value.strip():
            raise Unavailable(f"a secret is missing: put it into {where}")
        return value.strip()


def _content(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_LONGEST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
