"""Verbs of trust: keys that sign versions, signing, and the demand that versions are signed: ``predis model key|sign|policy``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import click

from predis.cli.move import named
from predis.cli.output import as_json_option, client, remote, show_json, table
from predis.client import files_of
from predis.errors import AlreadyExists, InvalidInput, SetupError

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def endorsement_of(key: Path, path: Path, *, model: str, format: str) -> dict[str, str]:
    """The signature, by the id of its key, over a version made of a file or folder here: the server has no say in what is signed."""
    return _signed(key, model=model, format=format, digest=digest_of_files(files_of(path)))


def digest_of_files(files: Mapping[str, Path]) -> str:
    """The digest that a version of these files has."""
    from predis.registry.model import File, digest_of

    made = []
    for name, path in files.items():
        with path.open("rb") as content:
            made.append(File(name, hashlib.file_digest(content, "sha256").hexdigest(), path.stat().st_size))
    return digest_of(tuple(made))


def _signed(key: Path, *, model: str, format: str, digest: str) -> dict[str, str]:
    from predis.registry.endorsing import Subject, endorse

    return dict([endorse(key.read_bytes(), Subject(model, format, digest))])


@click.group()
def key() -> None:
    """Keys that sign versions. API keys are another thing: `predis key`.

    \b
    predis model key new ann.key
    predis model key trust Ann ann.key.pub
    """


@key.command("new")
@click.argument("file", type=click.Path(path_type=Path))
def new_key(file: Path) -> None:
    """Make a key: the private half in FILE, which never leaves this machine, the public one in FILE.pub.

    \b
    predis model key new ann.key
    """
    from predis.registry.endorsing import key_id, make_key

    private, public = make_key()
    other = file.with_name(f"{file.name}.pub")
    try:
        for path, content, mode in ((file, private, 0o600), (other, public, 0o644)):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as sink:
                sink.write(content)
    except FileExistsError as error:
        raise AlreadyExists(f"{error.filename} is there already; a key is never written over") from None
    except OSError as error:
        raise SetupError(f"{error.filename} cannot be written: {error.strerror}") from None
    click.echo(f"Key {key_id(public.decode())} made. Have it trusted: predis model key trust NAME {other}")


@key.command("trust")
@click.argument("name")
@click.argument("file", type=_FILE)
@remote
def trust_key(name: str, file: Path, *, control: str, serving: str, key: str) -> None:
    """Trust signatures by the public key in FILE, of a person or pipeline called NAME. For administrators.

    \b
    predis model key trust Ann ann.key.pub
    """
    made = client(control, serving, key=key).trust_key(name, file.read_text("utf-8", "replace"))
    click.echo(f"Key {made['id']} of {name} is trusted.")


@key.command("list")
@as_json_option
@remote
def list_keys(as_json: bool, *, control: str, serving: str, key: str) -> None:
    """List the keys that are trusted, and those that were."""
    rows = client(control, serving, key=key).trusted_keys()
    columns = {
        "key": "id",
        "of": "name",
        "trusted since": "added_at",
        "by": "added_by",
        "revoked": "revoked_at",
    }
    empty = "No key is trusted yet. Make one: predis model key new FILE"
    show_json(rows) if as_json else table(rows, columns, empty=empty)


@key.command("revoke")
@click.argument("key_id")
@remote
def revoke_key(key_id: str, *, control: str, serving: str, key: str) -> None:
    """Trust key KEY_ID no more, for good. Versions that only it signed count as unsigned.

    \b
    predis model key revoke 9f86d081884c7d65
    """
    client(control, serving, key=key).revoke_trusted_key(key_id)
    click.echo(f"Key {key_id} is not trusted any more.")


@click.command()
@click.argument("version", metavar="NAME@VERSION")
@click.option(
    "--with",
    "private_key",
    type=_FILE,
    required=True,
    help="Private key, as `predis model key new` makes it.",
)
@click.option(
    "--file",
    type=click.Path(exists=True, path_type=Path),
    help="The files as you know them: sign only if the registered version is made of exactly these.",
)
@remote
def sign(version: str, *, private_key: Path, file: Path | None, control: str, serving: str, key: str) -> None:
    """Sign a version that is registered: say that you stand for it.

    The signature is made here. Without --file it is over the digest that the server names.

    \b
    predis model sign churn@3 --with ann.key --file model.txt
    """
    name, number = named(version)
    server = client(control, serving, key=key)
    found = server.version(name, number)
    if file is not None and digest_of_files(files_of(file)) != found["digest"]:
        raise InvalidInput(
            f"{name}@{found['version']} is not made of {file}: its digest is {found['digest'][:12]}; nothing was signed"
        )
    given = _signed(private_key, model=name, format=found["format"], digest=found["digest"])
    server.sign(name, found["version"], endorsements=given)
    click.echo(f"{name}@{found['version']} is signed with key {next(iter(given))}.")


@click.command()
@click.option(
    "--require-signatures/--no-require-signatures",
    "demand",
    default=None,
    help="Refuse to register, deploy and load versions that no trusted key has signed; or no more.",
)
@as_json_option
@remote
def policy(demand: bool | None, as_json: bool, *, control: str, serving: str, key: str) -> None:
    """Show what versions must be, or change it (administrators).

    \b
    predis model policy --require-signatures
    """
    server = client(control, serving, key=key)
    found = server.trust_policy() if demand is None else server.require_signatures(demand)
    if as_json:
        show_json(found)
        return
    click.echo("Signatures are required." if found["require_signatures"] else "Signatures are not required.")
