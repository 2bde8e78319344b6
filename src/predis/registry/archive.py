"""A version as one file: what travels between installations, and what can be kept beside them.

An archive is a plain tar file (ustar, nothing compressed), so that ``tar`` opens it and a stream of it can be checked as it comes:

    manifest.json          what the version is: model, number, format, digest, files, signature, metrics, lineage, profile, ...
    files/<SHA-256>        each content once, in the order of the manifest's files

A file is called by the digest of its content: what it must be can be seen without the manifest (``sha256sum files/*``), and no name in
the archive can lead out of the folder that somebody unpacks it in. Times, owners and modes are constants: a version has one archive, byte
for byte. A reader knows from the manifest which bytes must come next, and takes nothing else: no other order, no links, no padding.
"""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from predis.clock import iso
from predis.errors import IntegrityFailure, InvalidInput, TooLarge
from predis.registry.model import FORMATS, File, Version, check_file_name, check_name, digest_of
from predis.registry.provenance import DATA, check_size
from predis.registry.signature import Signature

FORMAT = 1
MEDIA_TYPE = "application/vnd.predis.version"
MANIFEST = "manifest.json"
MAX_FILES = 10_000
MAX_BYTES = 64 << 30
_MAX_MANIFEST_BYTES = 64 << 20
_MAX_FILE_BYTES = 8**11 - 1  # what the eleven octal digits of a ustar header can say
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_CHUNK = 1 << 20
_HEX = frozenset("0123456789abcdef")


class Source(Protocol):
    """Where an archive's bytes come from: a file, the body of a request."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


class Contents(Protocol):
    """The artifact store, as far as an archive is concerned."""

    def chunks(self, digest: str) -> Iterator[bytes]: ...

    def put_chunks(self, chunks: Iterable[bytes], *, digest: str) -> Any: ...


@dataclass(frozen=True)
class Manifest:
    """What an archive says of its version. ``version`` has the model and number it had where it was exported, and no tenant.

    ``endorsements`` are users' signatures over it, by the ids of their keys: whether they are trusted is for the reader to know.
    """

    version: Version
    created_at: str
    endorsements: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """As JSON; equal manifests are equal bytes, whatever order a database keeps objects in."""
        version = self.version
        document = {
            "archive": FORMAT,
            "model": version.model,
            "version": version.number,
            "format": version.format,
            "digest": version.digest,
            "files": [vars(file) for file in version.files],
            "signature": version.signature.to_dict(),
            "metrics": dict(version.metrics),
            "lineage": dict(version.lineage),
            "profile": version.profile,
            "created_at": self.created_at,
            "created_by": version.created_by,
            "endorsements": dict(self.endorsements),
        }
        return json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """
        Raises:
            InvalidInput: it is no manifest, of another format than this release knows, or says what cannot be.
            IntegrityFailure: its digest is not that of its files.
        """
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            raise InvalidInput("the archive's manifest is not JSON") from None
        if not isinstance(document, Mapping) or type(document.get("archive")) is not int:
            raise InvalidInput("the archive's manifest does not say which format it is of")
        if document["archive"] != FORMAT:
            raise InvalidInput(
                f"the archive is of the format {document['archive']}, this release reads {FORMAT}; export it with the same release"
            )
        endorsements = _mapping(document, "endorsements")
        return cls(
            _version(document),
            _text(document, "created_at"),
            {key: _text(endorsements, key) for key in endorsements},
        )


class Outgoing:
    """An archive to be written: its size is known, its bytes come as they are read.

    Iterating raises ``IntegrityFailure`` or ``NotFound`` in the middle where a file is damaged or gone: what was written then is
    cut short, which no reader takes for an archive.
    """

    def __init__(self, version: Version, contents: Contents) -> None:
        self._contents = contents
        endorsements = {one.key: one.signature for one in version.endorsements}
        self._manifest = Manifest(version, iso(version.created_at) or "", endorsements).to_bytes()
        self._members = _members(version.files)
        largest = max(self._members.values())
        if largest > _MAX_FILE_BYTES:
            raise TooLarge(
                f"an archive's files have at most {_MAX_FILE_BYTES} bytes, one of this version's has {largest}"
            )
        sizes = (len(self._manifest), *self._members.values())
        self.size_bytes = sum(_BLOCK + size + len(_padding(size)) for size in sizes) + len(_END)

    def __iter__(self) -> Iterator[bytes]:
        yield _header(MANIFEST, len(self._manifest))
        yield self._manifest + _padding(len(self._manifest))
        for digest, size in self._members.items():
            yield _header(f"files/{digest}", size)
            yield from self._contents.chunks(digest)
            yield _padding(size)
        yield _END


class Incoming:
    """An archive on its way in: the manifest is read at once, the files when they are stored.

    Raises:
        InvalidInput: it is not an archive of a version that this release reads.
        IntegrityFailure: it is cut short, or not what it says.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._read = 0
        name, size = self._next_header()
        if name != MANIFEST or size > _MAX_MANIFEST_BYTES:
            raise InvalidInput("this is not the archive of a version: it does not begin with its manifest")
        self.manifest = Manifest.from_bytes(b"".join(self._content(size)))

    def store(self, contents: Contents) -> None:
        """Store every file under its digest. What was stored when one turns out to be wrong is a file that no version names.

        Raises:
            IntegrityFailure: a file is not what the manifest says, or the archive ends before or after its end.
        """
        for digest, size in _members(self.manifest.version.files).items():
            if self._next_header() != (f"files/{digest}", size):
                raise IntegrityFailure(
                    f"the archive should go on with the file {digest[:12]}… of {size} bytes, and does not"
                )
            contents.put_chunks(self._content(size), digest=digest)
        if self._exactly(len(_END)) != _END or self._source.read(1):
            raise IntegrityFailure("the archive goes on after its last file")

    def _next_header(self) -> tuple[str, int]:
        """The name and size of the next file."""
        try:
            found = tarfile.TarInfo.frombuf(self._exactly(_BLOCK), "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):
            raise InvalidInput(
                "this is not the archive of a version: it is no tar file, or damaged"
            ) from None
        if not found.isreg() or found.size < 0:
            raise InvalidInput(f"an archive holds plain files only, and {found.name[:80]!r} is none")
        return found.name, found.size

    def _content(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            chunk = self._exactly(min(left, _CHUNK))
            left -= len(chunk)
            yield chunk
        if self._exactly(len(_padding(size))).strip(b"\0"):
            raise IntegrityFailure("the archive holds something between its files")

    def _exactly(self, size: int) -> bytes:
        parts, left = [], size
        while left:
            part = self._source.read(left)
            if not part:
                raise IntegrityFailure(
                    f"the archive is cut short: it ends after {self._read} bytes; export it again"
                )
            self._read += len(part)
            left -= len(part)
            parts.append(part)
        return b"".join(parts)


def _members(files: tuple[File, ...]) -> dict[str, int]:
    """Size by digest, each content once, in the order of the files."""
    return {file.digest: file.size_bytes for file in files}


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _version(document: Mapping[str, Any]) -> Version:
    """The version a manifest tells of; everything in it is somebody's word until it is checked here."""
    if document.get("format") not in FORMATS:
        raise InvalidInput(f"format {document.get('format')!r:.80} is none of {', '.join(FORMATS)}")
    found = Version(
        tenant="",
        model=check_name(document.get("model"), "model"),
        number=_count(document, "version"),
        format=_text(document, "format"),
        digest=_text(document, "digest"),
        files=tuple(_file(entry) for entry in _list(document, "files")),
        signature=Signature.from_dict(document.get("signature")),
        metrics=_metrics(document.get("metrics")),
        lineage=_lineage(document),
        created_at=0,
        created_by=_text(document, "created_by"),
        profile=_profile(document.get("profile")),
    )
    _check_files(found)
    return found


def _check_files(version: Version) -> None:
    names = [file.name for file in version.files]
    if not 0 < len(names) <= MAX_FILES or len(set(names)) != len(names):
        raise InvalidInput(f"a version has 1 to {MAX_FILES} files of different names, got {len(names)}")
    if names != sorted(names):
        raise InvalidInput("the archive's manifest must list the files in the order of their names")
    sizes: dict[str, int] = {}
    for file in version.files:
        if sizes.setdefault(file.digest, file.size_bytes) != file.size_bytes:
            raise InvalidInput(f"the archive's manifest gives {file.name!r} two sizes")
    if sum(sizes.values()) > MAX_BYTES:
        raise TooLarge(f"an archive holds at most {MAX_BYTES} bytes")
    if digest_of(version.files) != version.digest:
        raise IntegrityFailure("the archive's list of files does not fit the version's digest")


def _file(entry: Mapping[str, Any]) -> File:
    name, digest = _text(entry, "name"), _text(entry, "digest")
    check_file_name(name)
    if len(digest) != 64 or not set(digest) <= _HEX:
        raise InvalidInput(f"a digest is 64 hexadecimal digits, got {digest[:80]!r}")
    return File(name, digest, _count(entry, "size_bytes"))


def _metrics(found: Any) -> dict[str, float]:
    if not isinstance(found, Mapping) or not all(
        type(value) in (int, float) and math.isfinite(value) for value in found.values()
    ):
        raise InvalidInput("the archive's metrics must be finite numbers by name")
    return {name: float(value) for name, value in found.items()}


def _lineage(document: Mapping[str, Any]) -> Mapping[str, Any]:
    found = _mapping(document, "lineage")
    check_size(found)
    return found


def _profile(found: Any) -> Mapping[str, Any] | None:
    if found is None:
        return None
    from predis.stats import Profile  # late: a worker's registry needs no statistics
    from predis.stats.estimates import Calibration

    document = found if isinstance(found, Mapping) else {}
    profile = Profile.from_dict(document).to_dict()
    if "calibration" in document:
        curve = document["calibration"]
        profile["calibration"] = None if curve is None else Calibration.from_dict(curve).to_dict()
    return profile


def _text(document: Mapping[str, Any], name: str) -> str:
    found = document.get(name)
    if not isinstance(found, str) or len(found) > 1_000:
        raise InvalidInput(f"the archive's manifest needs a text for {name!r}")
    return found


def _count(document: Mapping[str, Any], name: str) -> int:
    found = document.get(name)
    if type(found) is not int or not 0 <= found <= _MAX_FILE_BYTES:
        raise InvalidInput(f"the archive's manifest needs a whole number for {name!r}, got {found!r:.80}")
    return found


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name)
    if not isinstance(found, Mapping):
        raise InvalidInput(f"the archive's manifest needs an object for {name!r}")
    return found


def _list(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(entry, Mapping) for entry in found):
        raise InvalidInput(f"the archive's manifest needs a list of objects for {name!r}")
    return found


def arrived(manifest: Manifest, *, tenant: str, model: str) -> Version:
    """The version as this installation would have it. Where it came from is in its lineage, as ``origin``: there too is what has a
    meaning in that installation only, its parent and the data sets it was registered with.
    """
    version = manifest.version
    there = {name: version.lineage[name] for name in (*DATA, "parent") if name in version.lineage}
    origin = {
        "model": version.model, "version": version.number, "created_at": manifest.created_at, "created_by": version.created_by,
        **there,
    }  # fmt: skip
    lineage = {name: value for name, value in version.lineage.items() if name not in there}
    # One that travels on keeps where it was first registered.
    return replace(version, tenant=tenant, model=model, number=0, lineage={"origin": origin, **lineage})
