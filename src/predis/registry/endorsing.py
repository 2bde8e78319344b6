"""Endorsements: users' signatures over versions, made with keys that never leave them.

A seal says that this installation registered a version; an endorsement says that somebody stands for it. It is an Ed25519 signature over
the model's name, the format and the digest of the files: not over tenant or number, so that it holds in every installation the version
is moved to. Making and checking one needs no server.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predis.errors import InvalidInput

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


@dataclass(frozen=True)
class Subject:
    """What an endorsement is about: ``digest`` is the version's, over every file by name and content."""

    model: str
    format: str
    digest: str


def make_key() -> tuple[bytes, bytes]:
    """A new key: the private half, and the public one, in PEM."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    public = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def key_id(public_key: str) -> str:
    """By what a key is known: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes.

    Raises:
        InvalidInput: it is not a public Ed25519 key in PEM.
    """
    return _id_of(_public(public_key))


def endorse(private_key: bytes, subject: Subject) -> tuple[str, str]:
    """The id of the key, and its signature over a version in hexadecimal digits.

    Raises:
        InvalidInput: it is not a private Ed25519 key in PEM without a password.
    """
    key = _private(private_key)
    return _id_of(key.public_key()), key.sign(_message(subject)).hex()


def fits(public_key: str, signature: str, *, subject: Subject) -> bool:
    """Whether the holder of the key signed this version."""
    from cryptography.exceptions import InvalidSignature

    try:
        _public(public_key).verify(bytes.fromhex(signature), _message(subject))
    except (InvalidSignature, InvalidInput, ValueError):
        return False
    return True


def _message(subject: Subject) -> bytes:
    return json.dumps(["predis endorsement", subject.model, subject.format, subject.digest]).encode()


def _id_of(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _public(content: str) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(content.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInput(
            "that is not a public Ed25519 key in PEM; `predis model key new FILE` writes one to FILE.pub"
        )
    return key


def _private(content: bytes) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(
            "that is not a private Ed25519 key in PEM without a password; `predis model key new FILE` makes one"
        )
    return key
