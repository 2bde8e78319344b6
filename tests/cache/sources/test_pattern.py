from __future__ import annotations

import pytest

from predis.cache.sources.pattern import MAX_KEY_BYTES, Matcher, Pattern, beside, hash_tag
from predis.errors import InvalidInput


class TestPattern:
    @pytest.mark.parametrize(
        ("pattern", "key", "arguments"),
        [
            ("user:{id}", b"user:7", {"id": "7"}),
            ("user:{id}", b"user:7:name", None),
            ("user:{id}", b"user:", None),
            ("user:{id}", b"xuser:7", None),
            ("user:{id}", b"user:7\n", {"id": "7\n"}),
            ("user:{id:int}", b"user:-12", {"id": -12}),
            ("user:{id:int}", b"user:seven", None),
            ("user:{id:int}", b"user:" + b"9" * 19, None),
            ("cart:{user}:{day}", b"cart:7:mon", {"user": "7", "day": "mon"}),
            ("file:{name:path}", b"file:a:b/c", {"name": "a:b/c"}),
            ("a.b:{id}", b"axb:1", None),
            ("{{cart}}:{id}", b"{cart}:1", {"id": "1"}),
            ("u:{{{id}}}:x", b"u:{7}:x", {"id": "7"}),
            ("user:{id}", "user:ä".encode(), {"id": "ä"}),
            ("user:{id}", b"user:\xff", None),
        ],
    )
    def test_arguments(self, pattern: str, key: bytes, arguments: dict[str, object] | None) -> None:
        assert Pattern(pattern).arguments(key) == arguments

    def test_a_tenant_has_its_own_keys(self) -> None:
        assert Pattern("user:{id}", tenant="acme").arguments(b"acme:user:7") == {"id": "7"}
        assert Pattern("user:{id}", tenant="acme").arguments(b"user:7") is None

    @pytest.mark.parametrize(
        "pattern",
        ["", "user", "{id}", "a:{}", "a:{1}", "a:{x:float}", "a:{x}:{x}", "a:{x", "a:x}", "a:{{x}}"],
    )
    def test_refused(self, pattern: str) -> None:
        with pytest.raises(InvalidInput, match="pattern"):
            Pattern(pattern)


class TestMatcher:
    MATCHER = Matcher(
        [
            (Pattern("user:{id}"), "one"),
            (Pattern("user:vip:{id}"), "vip"),
            (Pattern("user:{id}", tenant="acme"), "theirs"),
        ]
    )

    @pytest.mark.parametrize(
        ("key", "found"),
        [
            (b"user:1", "one"),
            (b"user:vip:1", "vip"),
            (b"acme:user:1", "theirs"),
            (b"other:1", None),
            (b"user:1:2", None),
            (b"user:\xff", None),
            (b"user:" + b"x" * MAX_KEY_BYTES, None),
            (b"user:a}b", None),
        ],
    )
    def test_match(self, key: bytes, found: str | None) -> None:
        for _ in range(2):  # the second time it is remembered
            assert self.MATCHER.match(key) == found

    def test_what_is_remembered_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("predis.cache.sources.pattern._REMEMBERED", 10)
        matcher = Matcher([(Pattern("user:{id}"), "one")])
        for i in range(1_000):
            assert matcher.match(b"user:%d" % i) == "one"
        assert len(matcher._known) <= 10
        matcher._known.clear()
        assert matcher.match(b"user:" + bytes(1 << 20)) is None
        assert not matcher._known

    def test_nothing(self) -> None:
        assert Matcher([]).match(b"user:1") is None
        assert not Matcher([]).active


@pytest.mark.parametrize("key", [b"user:1", b"a{b}c", b"{a}", b"{}a", b"a{b", b"{{a}"])
def test_beside_is_in_the_same_slot(key: bytes) -> None:
    if b"}" in key and hash_tag(key) is None:
        return  # is never matched
    assert hash_tag(beside(b"predis:none:", key)) == (hash_tag(key) or key)
