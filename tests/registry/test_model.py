from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from predis.errors import InvalidInput
from predis.registry.model import (
    CODE_FORMATS,
    FORMATS,
    SEALED_FORMATS,
    File,
    Version,
    check_file_name,
    check_name,
    digest_of,
)
from predis.registry.signature import PROBABILITY, Field, Signature

A, B = File("a.txt", "0" * 64, 3), File("b.txt", "1" * 64, 4)


class TestCheckName:
    @pytest.mark.parametrize("name", ["a", "7", "flight-delay", "a.b_c-d", "x" * 128, "a--b"])
    def test_names(self, name: str) -> None:
        assert check_name(name, "model") == name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "-a",
            "a-",
            ".",
            "..",
            "a/b",
            "a b",
            "Ab",
            "ä",
            "a\n",
            "a\0",
            "x" * 129,
            "a%2e",
            "²",
            None,
            3,
            b"a",
        ],
    )
    def test_what_cannot_be_one(self, name: object) -> None:
        with pytest.raises(InvalidInput, match="endpoint's name is 1 to 128"):
            check_name(name, "endpoint")


class TestFileName:
    @pytest.mark.parametrize(
        "name", ["model.txt", "lib/words.py", "a b", "ü", ".hidden", "a..b", "...", "x" * 255, "a:b"]
    )
    def test_what_can_be_one(self, name: str) -> None:
        check_file_name(name)

    @pytest.mark.parametrize(
        "name",
        ["", "x" * 256, "a\0b", "a\nb", "/etc/passwd", "../x", "a/../b", "a/..", "..", ".", "./a", "a//b", "a/", "\\\\host\\x", "..\\x", "a\u202eb"],
        ids=repr,
    )  # fmt: skip
    def test_what_cannot_be_one(self, name: str) -> None:
        with pytest.raises(InvalidInput, match="a file's name"):
            check_file_name(name)


class TestFormats:
    def test_code_is_sealed(self) -> None:
        assert CODE_FORMATS < SEALED_FORMATS < FORMATS.keys()


class TestDigest:
    def test_covers_names_and_contents_in_any_order(self) -> None:
        expected = hashlib.sha256(f"a.txt\0{A.digest}\nb.txt\0{B.digest}\n".encode()).hexdigest()
        assert digest_of((A, B)) == digest_of((B, A)) == expected

    def test_changes_with_either(self) -> None:
        others = [(A,), (A, A), (File("c.txt", A.digest, 3), B), (File("a.txt", B.digest, 3), B), ()]
        assert len({digest_of(files) for files in [(A, B), *others]}) == 6


class TestVersion:
    VERSION = Version(
        "default", "churn", 3, "onnx", digest_of((A, B)), (A, B), Signature((Field("x", "FP64"),), (PROBABILITY,), "probability"),
        {"auc": 0.75}, {"label": "y"}, 1_700_000_000_000_000_000, "alice",
    )  # fmt: skip

    def test_size(self) -> None:
        assert self.VERSION.size_bytes == 7

    def test_as_json(self) -> None:
        document = json.loads(json.dumps(self.VERSION.to_dict()))
        assert (document["model"], document["version"]) == ("churn", 3)
        assert document["created_at"] == "2023-11-14T22:13:20Z"
        assert document["files"][0] == {"name": "a.txt", "digest": A.digest, "size_bytes": 3}
        assert document["has_profile"] is False
        assert "tenant" not in document

    def test_its_profile_is_no_part_of_its_text(self) -> None:
        assert "profile" not in repr(self.VERSION)

    def test_tells_whether_it_is_sealed(self) -> None:
        assert self.VERSION.to_dict()["sealed"] is False
        assert replace(self.VERSION, seal="00").to_dict()["sealed"] is True
