from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import IntegrityFailure, InvalidInput, NotFound, PredisError, TooLarge
from predis.registry import Field, File, Signature, Version, archive
from predis.registry.archive import MANIFEST, Incoming, Outgoing, arrived
from predis.registry.model import digest_of
from predis.registry.signature import PROBABILITY
from predis.state import ArtifactStore

SIGNATURE = Signature(
    (Field("x", "FP64", nullable=True), Field("kind", "BYTES", levels=("a", "b"))),
    (PROBABILITY,),
    "probability",
)
CONTENTS = {
    "model.txt": b"tree\n" * 300,
    "notes/empty.txt": b"",
    "übersicht.md": b"# three\n",
    "z": b"# three\n",
}


@pytest.fixture
def here(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "here"))


@pytest.fixture
def there(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "there"))


def version_of(contents: dict[str, bytes] = CONTENTS, **changes: Any) -> Version:
    files = tuple(
        File(name, hashlib.sha256(content).hexdigest(), len(content))
        for name, content in sorted(contents.items())
    )
    found = Version(
        tenant="acme", model="churn", number=7, format="lightgbm", digest=digest_of(files), files=files,
        signature=SIGNATURE, metrics={"auc": 0.75, "rows": 400.0},
        lineage={"commit": "abc"}, created_at=1_700_000_000 * 10**9, created_by="alice",
    )  # fmt: skip
    return replace(found, **changes)


def packed(store: ArtifactStore, contents: dict[str, bytes] = CONTENTS, **changes: Any) -> bytes:
    for content in contents.values():
        store.put(content)
    outgoing = Outgoing(version_of(contents, **changes), store)
    found = b"".join(outgoing)
    assert len(found) == outgoing.size_bytes
    return found


def tar(*members: tuple[str, bytes], **more: Any) -> bytes:
    """An archive made by somebody else."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for attribute, value in more.items():
                setattr(member, attribute, value)
            made.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def document(packed: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(members(packed)[MANIFEST])
    return found


def members(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as found:
        return {member.name: found.extractfile(member).read() for member in found}  # type: ignore[union-attr]


class Trickle(io.BytesIO):
    """A body that comes in small pieces, and counts."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 100))


def test_there_and_back(here: ArtifactStore, there: ArtifactStore) -> None:
    incoming = Incoming(Trickle(packed(here)))
    incoming.store(there)
    assert incoming.manifest.version == version_of(tenant="", created_at=0)
    assert incoming.manifest.created_at == "2023-11-14T22:13:20Z"
    for content in CONTENTS.values():
        assert there.read(hashlib.sha256(content).hexdigest()) == content


def test_tar_opens_it_and_files_are_called_by_their_digests(here: ArtifactStore) -> None:
    found = members(packed(here))
    assert next(iter(found)) == MANIFEST
    assert len(found) == 4  # two of the four files are the same
    for name, content in list(found.items())[1:]:
        assert name == f"files/{hashlib.sha256(content).hexdigest()}"
    assert [file["name"] for file in json.loads(found[MANIFEST])["files"]] == sorted(CONTENTS)


def test_a_version_has_one_archive(here: ArtifactStore) -> None:
    again = packed(here, lineage={"b": 1, "a": 2})
    assert again == packed(here, lineage={"a": 2, "b": 1})
    assert again != packed(here, lineage={"a": 1, "b": 2})


def test_where_it_came_from_stays_known(here: ArtifactStore) -> None:
    once = arrived(Incoming(io.BytesIO(packed(here))).manifest, tenant="t", model="other")
    assert (once.tenant, once.model, once.number) == ("t", "other", 0)
    assert once.lineage == {
        "commit": "abc",
        "origin": {
            "model": "churn",
            "version": 7,
            "created_at": "2023-11-14T22:13:20Z",
            "created_by": "alice",
        },
    }
    twice = packed(here, lineage=once.lineage, number=1, model="other")
    assert arrived(Incoming(io.BytesIO(twice)).manifest, tenant="t", model="x").lineage == once.lineage


def test_a_large_file_in_little_memory(tmp_path: Path, here: ArtifactStore, there: ArtifactStore) -> None:
    whole = tmp_path / "large.predis"
    contents = {"model.onnx": bytes(64 << 20)}
    version = version_of(contents)
    here.put(contents.pop("model.onnx"))
    tracemalloc.start()
    try:
        with whole.open("wb") as file:
            file.writelines(Outgoing(version, here))
        with whole.open("rb") as file:
            Incoming(file).store(there)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert there.exists(version.files[0].digest)


class TestDamaged:
    def test_a_damaged_file_cuts_the_archive_short(self, here: ArtifactStore) -> None:
        whole = packed(here)
        damaged = here.local_path(version_of().files[0].digest)
        assert damaged is not None
        damaged.write_bytes(b"x" * 1_500)
        sent = io.BytesIO()
        with pytest.raises(IntegrityFailure, match="changed or damaged"):
            for chunk in Outgoing(version_of(), here):
                sent.write(chunk)
        assert sent.tell() < len(whole)

    def test_a_file_that_is_gone(self, here: ArtifactStore) -> None:
        packed(here)
        here.delete(version_of().files[0].digest)
        with pytest.raises(NotFound, match="deleted by hand"):
            list(Outgoing(version_of(), here))

    def test_cut_anywhere(self, here: ArtifactStore, there: ArtifactStore) -> None:
        whole = packed(here)
        for length in {*range(0, len(whole), 97), len(whole) - 1}:
            with pytest.raises(IntegrityFailure, match="cut short"):
                Incoming(io.BytesIO(whole[:length])).store(there)

    @given(place=st.integers(0, 10_000), value=st.integers(1, 255))
    def test_a_changed_byte_is_seen(
        self, tmp_path_factory: pytest.TempPathFactory, place: int, value: int
    ) -> None:
        folder = tmp_path_factory.mktemp("changed")
        store = ArtifactStore(str(folder))
        whole = bytearray(packed(store))
        whole[place % len(whole)] ^= value
        try:
            incoming = Incoming(io.BytesIO(whole))
            incoming.store(ArtifactStore(str(folder / "there")))
        except PredisError:
            return
        # What the digests do not cover (metrics, lineage) may read otherwise; the files may not, nor what they are.
        assert incoming.manifest.version.digest == version_of().digest

    def test_more_after_the_end(self, here: ArtifactStore, there: ArtifactStore) -> None:
        with pytest.raises(IntegrityFailure, match="goes on"):
            Incoming(io.BytesIO(packed(here) + b"\0")).store(there)

    def test_a_file_of_other_content(self, here: ArtifactStore, there: ArtifactStore) -> None:
        whole = packed(here)
        with pytest.raises(IntegrityFailure, match="changed or damaged"):
            Incoming(io.BytesIO(whole.replace(b"# three", b"# four!"))).store(there)
        changed = hashlib.sha256(b"# four!\n").hexdigest()
        assert not there.exists(changed)

    def test_files_in_another_order(self, here: ArtifactStore, there: ArtifactStore) -> None:
        found = members(packed(here))
        other = tar(*[(MANIFEST, found.pop(MANIFEST)), *reversed(found.items())])
        with pytest.raises(IntegrityFailure, match="should go on with"):
            Incoming(io.BytesIO(other)).store(there)


class TestRefused:
    @pytest.mark.parametrize(
        "content", [b"PK\x03\x04" + bytes(600), b"{}" * 600, bytes(2_000), b"\x1f\x8b" + b"x" * 600]
    )
    def test_what_is_no_archive(self, content: bytes) -> None:
        with pytest.raises(InvalidInput, match="not the archive"):
            Incoming(io.BytesIO(content))

    def test_a_tar_of_something_else(self) -> None:
        with pytest.raises(InvalidInput, match="begin with its manifest"):
            Incoming(io.BytesIO(tar(("../../etc/passwd", b"x"))))

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.XHDTYPE]
    )
    def test_links_and_the_like(self, kind: bytes) -> None:
        with pytest.raises(InvalidInput, match="plain files only"):
            Incoming(io.BytesIO(tar((MANIFEST, b""), type=kind)))

    def test_a_manifest_of_many_gigabytes_is_not_read(self) -> None:
        head = tarfile.TarInfo(MANIFEST)
        head.size = 8**11 - 1
        with pytest.raises(InvalidInput, match="begin with its manifest"):
            Incoming(io.BytesIO(head.tobuf(tarfile.USTAR_FORMAT)))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"archive": 2}, "format 2, this release reads 1"),
            ({"archive": None}, "does not say which format"),
            ({"model": "../x"}, "name is 1 to 128"),
            ({"format": "keras"}, "is none of"),
            ({"digest": "0" * 64}, "does not fit the version's digest"),
            ({"files": []}, "1 to 10000 files"),
            ({"signature": {}}, "list of inputs"),
            ({"metrics": {"auc": "high"}}, "finite numbers"),
            ({"metrics": {"auc": True}}, "finite numbers"),
            ({"profile": {"bins": 3}}, "not a profile"),
            ({"lineage": []}, "an object for 'lineage'"),
            ({"version": -1}, "whole number"),
            ({"created_by": 3}, "a text for"),
            ({"endorsements": []}, "an object for"),
            ({"endorsements": {"k": 3}}, "a text for"),
            ({"files": [3]}, "list of objects"),
        ],
    )
    def test_manifests(self, here: ArtifactStore, changes: dict[str, Any], message: str) -> None:
        changed = {**document(packed(here)), **changes}
        with pytest.raises((InvalidInput, IntegrityFailure), match=message):
            Incoming(io.BytesIO(tar((MANIFEST, json.dumps(changed).encode()))))

    @pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"[]", b"3"])
    def test_manifests_that_are_none(self, content: bytes) -> None:
        with pytest.raises(InvalidInput, match="manifest"):
            Incoming(io.BytesIO(tar((MANIFEST, content))))

    @pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "a\\b", "", "x" * 256, "a\nb"])
    def test_names_that_leave_their_folder(self, here: ArtifactStore, name: str) -> None:
        with pytest.raises(InvalidInput, match="a file's name"):
            Incoming(io.BytesIO(packed(here, {name: b"x"})))

    def test_names_twice_sizes_and_digests(self, here: ArtifactStore) -> None:
        sound = document(packed(here))
        first = sound["files"][0]
        for entry, message in (
            (first, "different names"),
            ({**first, "name": "übz", "size_bytes": 3}, "two sizes"),
            ({**first, "name": "a"}, "order of their names"),
            ({**first, "name": "übz", "digest": "A" * 64}, "64 hexadecimal"),
            ({**first, "name": "übz", "size_bytes": 1 << 60}, "whole number"),
        ):
            changed = {**sound, "files": [*sound["files"], entry]}
            with pytest.raises(InvalidInput, match=message):
                Incoming(io.BytesIO(tar((MANIFEST, json.dumps(changed).encode()))))

    def test_more_than_an_archive_may_hold(
        self, here: ArtifactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = packed(here)
        monkeypatch.setattr(archive, "MAX_BYTES", 1_000)
        with pytest.raises(TooLarge, match="at most 1000 bytes"):
            Incoming(io.BytesIO(whole))


def test_a_file_that_no_header_can_say_the_size_of(here: ArtifactStore) -> None:
    large = File("model.onnx", "0" * 64, 8**11)
    with pytest.raises(TooLarge, match="at most"):
        Outgoing(version_of(files=(large,)), here)
