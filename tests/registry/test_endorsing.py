from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from predis.errors import InvalidInput
from predis.registry.endorsing import Subject, endorse, fits, key_id, make_key

SUBJECT = Subject("churn", "onnx", "ab" * 32)


def test_the_holder_of_the_key_signed_it() -> None:
    private, public = make_key()
    key, signature = endorse(private, SUBJECT)
    assert key == key_id(public.decode())
    assert fits(public.decode(), signature, subject=SUBJECT)


def test_the_id_is_of_the_key_not_of_its_wrapping() -> None:
    _private, public = make_key()
    raw = load_pem_public_key(public).public_bytes(forms.Encoding.Raw, forms.PublicFormat.Raw)
    assert key_id(public.decode() + "\n") == hashlib.sha256(raw).hexdigest()[:16]


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"format": "sklearn"}, {"digest": "cd" * 32}], ids=str
)
def test_it_is_about_nothing_else(change: dict[str, str]) -> None:
    private, public = make_key()
    _key, signature = endorse(private, SUBJECT)
    assert not fits(public.decode(), signature, subject=replace(SUBJECT, **change))


def test_another_key_did_not() -> None:
    (private, _), (_, public) = make_key(), make_key()
    assert not fits(public.decode(), endorse(private, SUBJECT)[1], subject=SUBJECT)


@pytest.mark.parametrize("signature", ["", "xyz", "00" * 64, "ab" * 63, "é"])
def test_what_is_no_signature(signature: str) -> None:
    _private, public = make_key()
    assert not fits(public.decode(), signature, subject=SUBJECT)
    assert not fits("no key", signature, subject=SUBJECT)


def test_keys_that_are_none() -> None:
    private, public = make_key()
    other = generate_private_key(SECP256R1())
    theirs = other.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    locked = other.private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.BestAvailableEncryption(b"secret")
    )
    for content in ("", "nonsense", private.decode(), theirs.decode()):
        with pytest.raises(InvalidInput, match="not a public Ed25519 key"):
            key_id(content)
    for secret in (b"", b"nonsense", public, locked):
        with pytest.raises(InvalidInput, match="not a private Ed25519 key"):
            endorse(secret, SUBJECT)
