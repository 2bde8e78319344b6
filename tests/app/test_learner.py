from __future__ import annotations

import pytest

from predis.app.learner import _Valkey


@pytest.mark.parametrize(
    "url", ["", "redis+cluster://127.0.0.1:1", "redis://127.0.0.1:1", "unix:///nowhere/valkey.sock"]
)
def test_a_valkey_that_tells_nothing_is_no_error(url: str) -> None:
    valkey = _Valkey(url)
    assert valkey.statistics() is None
    assert valkey.statistics() is None
    valkey.close()
