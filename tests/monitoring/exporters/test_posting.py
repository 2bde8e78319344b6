from __future__ import annotations

import pytest

from predis.errors import InvalidInput, InvalidSetting, Unavailable
from predis.monitoring.exporters.posting import Poster
from tests.installation import free_ports
from tests.monitoring.exporters.given import Receiver

SECRET = "s3cr3t-key"


def poster(url: str) -> Poster:
    return Poster(url, headers={"api-key": SECRET}, timeout_s=5)


def test_it_posts(receiver: Receiver) -> None:
    receiver.replies = [(200, b"thanks")]
    assert poster(receiver.url + "/").post("/v1/x", b"body" * 100) == b"thanks"
    ((path, headers, body),) = receiver.seen
    assert (path, body, headers["api-key"]) == ("/v1/x", b"body" * 100, SECRET)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, InvalidInput), (403, Unavailable), (307, Unavailable), (429, Unavailable), (503, Unavailable)],
)
def test_verdicts(receiver: Receiver, status: int, expected: type[Exception]) -> None:
    receiver.replies = [(status, b"because")]
    with pytest.raises(expected, match=f"answered {status} to /v1/x: because") as told:
        poster(receiver.url).post("/v1/x", b"")
    assert SECRET not in str(told.value)
    assert len(receiver.seen) == 1  # the key went nowhere else


def test_nobody_there() -> None:
    (port,) = free_ports(1)
    with pytest.raises(Unavailable, match=r"127.0.0.1 does not answer /v1/x: .*refused"):
        poster(f"http://127.0.0.1:{port}").post("/v1/x", b"")


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "https://ann:secret@host"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidSetting, match="URL must be like") as told:
        poster(url)
    assert "secret" not in str(told.value)
