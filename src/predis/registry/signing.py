"""Seals: this installation's signature over versions whose files are programs.

A pickle, a TorchScript file or a ``model.py`` runs when it is loaded. Such a version is loaded only if the registry of this installation
sealed it when it was registered: an Ed25519 signature over whose it is, what it is and the digest of its files. Whoever can write to the
database or to the artifact store, but not read the private key, can then neither bring in a program nor pass one off as another.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predis.errors import AccessDenied, SetupError, Untrusted
from predis.registry.model import CODE_FORMATS, SEALED_FORMATS, Version

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PRIVATE, _PUBLIC = "registry.key", "registry.pub"


class Seals:
    """Seals versions and checks seals.

    Args:
        folder: where the keys lie; made with the first version that needs one. The private key is readable by its owner only. A process
            that loads versions needs the public one.
        allow_code: whether versions may be registered whose files are anybody's code.
    """

    def __init__(self, folder: Path, *, allow_code: bool = False) -> None:
        self._folder = folder
        self._allow_code = allow_code

    def check_allowed(self, format: str) -> None:
        """
        Raises:
            AccessDenied: versions of this format run code of whoever registers them, and this installation does not allow that.
        """
        if format in CODE_FORMATS and not self._allow_code:
            raise AccessDenied(
                f"a version of the format {format!r} is code that would run here as the server; "
                "allow it with the setting allow_code (PREDIS_ALLOW_CODE=true), or export the model to ONNX or skops"
            )

    def seal(self, version: Version) -> str:
        """The seal a version needs, in hexadecimal digits; empty where its format needs none.

        Raises:
            SetupError: the key cannot be read or made.
        """
        if version.format not in SEALED_FORMATS:
            return ""
        return self._private_key().sign(_message(version)).hex()

    def check(self, version: Version) -> None:
        """Whether a version may be loaded, as far as its seal goes.

        Raises:
            Untrusted: its format needs a seal, and it has none, or not this installation's.
        """
        if version.format not in SEALED_FORMATS:
            return
        from cryptography.exceptions import InvalidSignature

        name = f"{version.model}@{version.number}"
        try:
            self._public_key(name).verify(bytes.fromhex(version.seal), _message(version))
        except (InvalidSignature, ValueError):
            raise Untrusted(
                f"{name} ({version.format}) is a program, and not sealed by this installation's key: it was not registered here, or its "
                "record was changed; register it again"
            ) from None

    def _public_key(self, name: str) -> Any:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        path = self._folder / _PUBLIC
        try:
            return load_pem_public_key(path.read_bytes())
        except OSError as error:
            raise Untrusted(
                f"{name} is a program, and the key {path} that would prove where it comes from cannot be read ({error.strerror}); "
                "copy it from the home of the control role"
            ) from None

    def _private_key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        path = self._folder / _PRIVATE
        try:
            if not path.exists():
                self._make_key()
            key = load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(key, Ed25519PrivateKey):
                raise ValueError("it is no Ed25519 key")
            if not (self._folder / _PUBLIC).exists():
                self._publish(key)
        except (OSError, ValueError) as error:
            raise SetupError(f"the registry's key {path} can be neither read nor made: {error}") from None
        return key

    def _make_key(self) -> None:
        """It is linked in place whole: of processes that make one at once, one wins, and no crash leaves half a key."""
        from cryptography.hazmat.primitives import serialization as forms
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = Ed25519PrivateKey.generate()
        content = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
        partial = self._partial(content, mode=0o600)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(partial, self._folder / _PRIVATE)
        finally:
            partial.unlink()

    def _publish(self, key: Ed25519PrivateKey) -> None:
        from cryptography.hazmat.primitives import serialization as forms

        content = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
        self._partial(content, mode=0o644).replace(self._folder / _PUBLIC)

    def _partial(self, content: bytes, *, mode: int) -> Path:
        path = self._folder / f".{secrets.token_hex(8)}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return path


def _message(version: Version) -> bytes:
    return json.dumps(
        ["predis version", version.tenant, version.model, version.format, version.digest]
    ).encode()
