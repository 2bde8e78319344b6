"""What a client is told when a source gives no answer."""


class SourceFailed(Exception):
    """``text`` is the RESP error for the client, without the leading ``-``: ``ERR source users: ...``. It is one line."""

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.split())
        super().__init__(self.text)
