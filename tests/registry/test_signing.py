from __future__ import annotations

import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from predis.errors import AccessDenied, SetupError, Untrusted
from predis.registry.model import CODE_FORMATS, FORMATS, SEALED_FORMATS, Version
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.registry.signing import Seals

VERSION = Version(
    "default", "m", 3, "sklearn", "a" * 64, (), Signature((Field("x", "FP64"),), (PROBABILITY,), "probability"), {}, {}, 0, "test",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def sealed(folder: Path, version: Version = VERSION) -> Version:
    return replace(version, seal=Seals(folder).seal(version))


class TestSeals:
    @pytest.mark.parametrize("format", sorted(SEALED_FORMATS))
    def test_fit_the_version_they_were_made_for(self, folder: Path, format: str) -> None:
        version = sealed(folder, replace(VERSION, format=format))
        assert len(version.seal) == 128
        Seals(folder).check(version)  # by another process, say

    @pytest.mark.parametrize("format", sorted(FORMATS.keys() - SEALED_FORMATS))
    def test_are_not_needed_for_data(self, folder: Path, format: str) -> None:
        version = replace(VERSION, format=format)
        assert Seals(folder).seal(version) == ""
        Seals(folder).check(version)
        assert not folder.exists()

    @pytest.mark.parametrize(
        "change",
        [{"digest": "b" * 64}, {"format": "python"}, {"model": "other"}, {"tenant": "other"}],
        ids=str,
    )
    def test_fit_no_other(self, folder: Path, change: dict[str, str]) -> None:
        with pytest.raises(Untrusted, match="not sealed by this installation's key"):
            Seals(folder).check(replace(sealed(folder), **change))  # type: ignore[arg-type]

    def test_say_nothing_of_what_does_not_run(self, folder: Path) -> None:
        Seals(folder).check(replace(sealed(folder), number=7, metrics={"auc": 0.5}, profile={}))

    @pytest.mark.parametrize("seal", ["", "00", "no digits", "f" * 128, "f" * 127, "é"])
    def test_cannot_be_made_up(self, folder: Path, seal: str) -> None:
        sealed(folder)
        with pytest.raises(Untrusted, match=r"m@3 \(sklearn\) is a program"):
            Seals(folder).check(replace(VERSION, seal=seal))

    def test_of_another_installation(self, folder: Path, tmp_path: Path) -> None:
        sealed(folder)
        with pytest.raises(Untrusted, match="register it again"):
            Seals(folder).check(sealed(tmp_path / "elsewhere"))


class TestKeys:
    def test_are_made_once_and_kept_from_others(self, folder: Path) -> None:
        first, second = sealed(folder), sealed(folder)
        assert first.seal == second.seal
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert modes == {"registry.key": 0o600, "registry.pub": 0o644}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        load_pem_public_key((folder / "registry.pub").read_bytes())

    def test_the_public_one_is_enough_to_check(self, folder: Path) -> None:
        version = sealed(folder)
        (folder / "registry.key").unlink()
        Seals(folder).check(version)

    def test_the_public_one_is_made_again(self, folder: Path) -> None:
        version = sealed(folder)
        (folder / "registry.pub").unlink()
        with pytest.raises(Untrusted, match=r"key .*registry\.pub that would prove .* cannot be read"):
            Seals(folder).check(version)
        sealed(folder)
        Seals(folder).check(version)

    def test_damaged(self, folder: Path) -> None:
        version = sealed(folder)
        for name in ("registry.key", "registry.pub"):
            (folder / name).write_bytes(b"nothing")
        with pytest.raises(SetupError, match="can be neither read nor made"):
            sealed(folder)
        with pytest.raises(Untrusted):
            Seals(folder).check(version)

    def test_in_a_folder_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(SetupError, match="can be neither read nor made"):
            sealed(tmp_path / "file" / "keys")

    def test_made_by_several_processes_at_once_are_one(self, folder: Path) -> None:
        program = (
            "import sys; from dataclasses import replace; from pathlib import Path\n"
            "from tests.registry.test_signing import VERSION, sealed\n"
            "sys.stdin.read(); print(sealed(Path(sys.argv[1])).seal)"
        )
        root = Path(__file__).parents[2]
        started = [
            subprocess.Popen([sys.executable, "-c", program, folder], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]  # fmt: skip
        for process in started:
            assert process.stdin is not None
            process.stdin.close()  # now they go
        for process in started:
            with process as ended:
                assert ended.stdout is not None
                assert ended.stdout.read().strip() == sealed(folder).seal
        assert {path.name for path in folder.iterdir()} == {"registry.key", "registry.pub"}


class TestCode:
    def test_is_not_allowed_unless_it_is(self, folder: Path) -> None:
        with pytest.raises(AccessDenied, match="allow_code"):
            Seals(folder).check_allowed("python")
        Seals(folder, allow_code=True).check_allowed("python")

    @pytest.mark.parametrize("format", sorted(FORMATS.keys() - CODE_FORMATS))
    def test_other_formats_always_are(self, folder: Path, format: str) -> None:
        Seals(folder).check_allowed(format)
