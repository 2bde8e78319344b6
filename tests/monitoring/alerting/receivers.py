"""Real receivers on this machine: HTTP servers that demand what the real services demand, and a mail server."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Request], int]


class Receiver:
    """``answer`` says with which status each request is answered; ``more`` are headers of every answer."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.requests: list[Request] = []
        self.answer: Answer = answer or (lambda _request: 200)
        self.more: dict[str, str] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                try:
                    status, said = receiver.answer(request), b"{}"
                except AssertionError as error:
                    status, said = 400, str(error).encode()
                receiver.requests.append(request)
                with contextlib.suppress(OSError):  # who asked may have been killed, or have lost patience
                    self.send_response(status)
                    for name, value in {**receiver.more, "content-length": str(len(said))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(said)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_error: Any) -> None:
        self.close()


def demand(condition: object, what: str) -> None:
    """As a service does: what is wrong is answered with 400."""
    if not condition:
        raise AssertionError(what)


class PagerDuty:
    """The Events API v2: what it demands of an event, and the incidents that come of them."""

    def __init__(self, routing_key: str) -> None:
        self._key = routing_key
        self.incidents: dict[str, str] = {}

    def __call__(self, request: Request) -> int:
        event = request.json
        demand(request.path == "/v2/enqueue", "path")
        demand(request.headers["content-type"] == "application/json", "content-type")
        demand(event["routing_key"] == self._key and len(self._key) == 32, "routing_key")
        demand(event["event_action"] in ("trigger", "acknowledge", "resolve"), "event_action")
        demand(0 < len(event["dedup_key"]) <= 255, "dedup_key")
        if event["event_action"] == "trigger":
            payload = event["payload"]
            demand(0 < len(payload["summary"]) <= 1024, "summary")
            demand(payload["source"], "source")
            demand(payload["severity"] in ("critical", "error", "warning", "info"), "severity")
            datetime.datetime.fromisoformat(payload["timestamp"])
            demand(isinstance(payload["custom_details"], dict), "custom_details")
        state = {"trigger": "triggered", "acknowledge": "acknowledged", "resolve": "resolved"}
        self.incidents[event["dedup_key"]] = state[event["event_action"]]
        return 202


class Opsgenie:
    """The Alert API: create, acknowledge and close by alias."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.alerts: dict[str, str] = {}

    def __call__(self, request: Request) -> int:
        if request.headers["authorization"] != f"GenieKey {self._key}":
            return 401
        parts, document = urlsplit(request.path), request.json
        if parts.path == "/v2/alerts":
            demand(0 < len(document["message"]) <= 130, "message")
            demand(0 < len(document["alias"]) <= 512, "alias")
            demand(document["priority"] in ("P1", "P2", "P3", "P4", "P5"), "priority")
            demand(len(document["description"]) <= 15_000, "description")
            demand(all(len(tag) <= 50 for tag in document["tags"]) and len(document["tags"]) <= 20, "tags")
            demand(all(isinstance(v, str) for v in document["details"].values()), "details")
            self.alerts[document["alias"]] = "open"
            return 202
        _, version, what, alias, verb = parts.path.split("/")
        demand((version, what) == ("v2", "alerts"), "path")
        demand(parse_qs(parts.query) == {"identifierType": ["alias"]}, "identifierType")
        demand(len(document["user"]) <= 100 and len(document["source"]) <= 100, "user")
        self.alerts[alias] = {"acknowledge": "acknowledged", "close": "closed"}[verb]
        return 202


def slack(request: Request) -> int:
    """An incoming webhook of Slack."""
    document = request.json
    demand(request.path == "/services/T0/B0/secret", "no_service")
    demand(document["text"], "no_text")
    demand(len(document["blocks"]) <= 50, "invalid_blocks")
    header, section = document["blocks"]
    demand(header["type"] == "header" and header["text"]["type"] == "plain_text", "invalid_blocks")
    demand(0 < len(header["text"]["text"]) <= 150, "invalid_blocks")
    demand(section["type"] == "section" and 0 < len(section["text"]["text"]) <= 3_000, "invalid_blocks")
    return 200


def teams(request: Request) -> int:
    """A workflow of Teams that posts cards."""
    document = request.json
    demand(document["type"] == "message", "type")
    (attachment,) = document["attachments"]
    demand(attachment["contentType"] == "application/vnd.microsoft.card.adaptive", "contentType")
    card = attachment["content"]
    demand((card["type"], card["version"]) == ("AdaptiveCard", "1.4"), "card")
    demand(all(part["type"] in ("TextBlock", "FactSet") for part in card["body"]), "body")
    demand(all(fact["title"] and fact["value"] for fact in card["body"][2]["facts"]), "facts")
    return 202


class Mails:
    """A mailbox: a handler of aiosmtpd's. ``refusal``: with what every mail is refused."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.refusal = ""

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.refusal:
            return self.refusal
        message = BytesParser(policy=default).parsebytes(envelope.content)
        assert isinstance(message, EmailMessage)
        self.mails.append((envelope.rcpt_tos, message))
        return "250 OK"


class _Controller(Controller):
    """On a port that the system chooses, which the original does not find out."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@dataclass(frozen=True)
class MailServer:
    box: Mails
    port: int


@contextlib.contextmanager
def mail_server(folder: Path, *, user: str, password: str) -> Iterator[MailServer]:
    """One that demands STARTTLS and a login. Its certificate is in ``folder / "cert.pem"``."""
    box = Mails()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder))

    def login(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        right = isinstance(given, LoginPassword) and given == LoginPassword(user.encode(), password.encode())
        return AuthResult(success=right, handled=False)

    controller = _Controller(
        box, hostname="127.0.0.1", port=0, tls_context=context, require_starttls=True, auth_required=True, authenticator=login,
        auth_require_tls=True,
    )  # fmt: skip
    controller.start()
    try:
        yield MailServer(box, controller.port)
    finally:
        controller.stop()


def certificate(folder: Path) -> tuple[Path, Path]:
    """Files of a certificate for localhost that signs itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert, secret
