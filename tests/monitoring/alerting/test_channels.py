"""Each channel against a real receiver on this machine that demands what the real service demands."""

from __future__ import annotations

import hashlib
import hmac
import socket
from pathlib import Path
from typing import Any

import pytest

from predis.clock import ManualClock
from predis.errors import AccessDenied, InvalidInput
from predis.monitoring.alerting.channels import CHANNELS, Envelope
from predis.monitoring.alerting.channels.webhook import sign, verify
from predis.monitoring.alerting.channels.wire import NotSent
from predis.monitoring.alerting.notices import EVENTS, Notice, incident_notice, summary_notice
from predis.monitoring.alerting.notices import test_notice as tried_notice
from tests.monitoring.alerting import receivers
from tests.monitoring.alerting.receivers import Opsgenie, PagerDuty, Receiver, mail_server

SECRET = "s" * 32
KEY = "c0ffee" * 5
AT = 1_700_000_000_000_000_000


def alert(**other: Any) -> dict[str, Any]:
    return {
        "id": 7, "tenant": "default", "endpoint": "churn", "version": 3, "kind": "performance", "severity": "critical",
        "state": "open", "message": "AUC fell <to> 0.61 & stays\u2028there " + "x" * 3_000, "evidence": {"auc": 0.61},
        "command": "predis monitor churn", "incident": "abc", "opened_at": AT, "event_at": AT, "ended_at": None,
        "acknowledged_at": None, "acknowledged_by": "", "note": "", **other,
    }  # fmt: skip


def notices() -> list[Notice]:
    """One of each event, in the order they may come."""
    known = alert(acknowledged_at=AT, acknowledged_by="ada", note="on it")
    made = [
        incident_notice("raised", [alert(), alert(id=8, version=4)], at=AT, escalated=True),
        incident_notice("worsened", [alert(severity="emergency")], at=AT, escalated=False),
        incident_notice("acknowledged", [known], at=AT, escalated=False),
        incident_notice("resolved", [alert(state="resolved", ended_at=AT)], at=AT, escalated=False),
    ]
    folded = [{"notice": notice} for notice in made] * 20
    made += [
        summary_notice(folded, tenant="default", key="sum", at=AT),
        tried_notice("ops", tenant="default", key="try", at=AT),
    ]
    assert [notice["event"] for notice in made] == list(EVENTS)
    return made


def send(
    channel: str, notice: Notice, *, config: dict[str, Any], secret: str = SECRET, key: str = KEY
) -> None:
    CHANNELS[channel].check(config, "a route")
    CHANNELS[channel].send(Envelope(notice, key, config, lambda _field: secret, ManualClock()))


class TestWebhook:
    def test_signed_and_with_a_key(self, receiver: Receiver) -> None:
        for notice in notices():
            send("webhook", notice, config={"url": f"{receiver.url}/hook", "secret": "file:hook"})
        first = receiver.requests[0]
        assert first.headers["idempotency-key"] == KEY
        digest = hmac.new(SECRET.encode(), b"1700000000." + first.body, hashlib.sha256).hexdigest()
        assert first.headers["predis-signature"] == f"t=1700000000,v1={digest}"
        assert (first.json["key"], first.json["incident"], first.json["escalated"]) == (KEY, "abc", True)
        assert [a["version"] for a in first.json["alerts"]] == [3, 4]
        assert first.json["look_at"]
        assert [request.json["event"] for request in receiver.requests] == list(EVENTS)

    def test_what_a_receiver_verifies(self) -> None:
        body, header = b'{"a":1}', sign(SECRET, b'{"a":1}', second=1_000)
        verify(SECRET, body, header=header, now_s=1_200)
        for secret, content, given, now in (
            ("other", body, header, 1_000),
            (SECRET, b'{"a":2}', header, 1_000),
            (SECRET, body, header.replace("t=1000", "t=1001"), 1_001),
            (SECRET, body, "", 1_000),
            (SECRET, body, header, 1_301),
        ):
            with pytest.raises(AccessDenied):
                verify(secret, content, header=given, now_s=now)


def test_pagerduty(receiver: Receiver) -> None:
    service = PagerDuty(SECRET)
    receiver.answer = service
    config = {"routing_key": "file:pd", "url": f"{receiver.url}/v2/enqueue"}
    states = []
    for notice in notices()[:4]:
        send("pagerduty", notice, config=config)
        states.append(service.incidents["predis-abc"])
    assert states == ["triggered", "triggered", "acknowledged", "resolved"]
    for notice in notices()[4:]:
        send("pagerduty", notice, config=config)
    assert set(service.incidents) == {"predis-abc", "predis-sum", "predis-try"}
    severities = [r.json["payload"]["severity"] for r in receiver.requests if "payload" in r.json]
    assert severities == ["error", "critical", "critical", "info"]


def test_opsgenie(receiver: Receiver) -> None:
    service = Opsgenie(SECRET)
    receiver.answer = service
    states = []
    for notice in notices()[:4]:
        send("opsgenie", notice, config={"api_key": "file:og", "url": receiver.url})
        states.append(service.alerts["predis-abc"])
    assert states == ["open", "open", "acknowledged", "closed"]
    for notice in notices()[4:]:
        send("opsgenie", notice, config={"api_key": "file:og", "url": receiver.url})
    with pytest.raises(NotSent, match="status 401"):
        send("opsgenie", notices()[0], config={"api_key": "file:og", "url": receiver.url}, secret="wrong")


def test_slack(receiver: Receiver) -> None:
    receiver.answer = receivers.slack
    for notice in notices():
        send("slack", notice, config={"url": "file:slack"}, secret=f"{receiver.url}/services/T0/B0/secret")
    text = receiver.requests[0].json["blocks"][1]["text"]["text"]
    assert "AUC fell &lt;to&gt; 0.61 &amp; stays" in text
    assert receiver.requests[0].json["text"] == "[CRITICAL] churn v3: performance and 1 more"


def test_teams(receiver: Receiver) -> None:
    receiver.answer = receivers.teams
    for notice in notices():
        send("teams", notice, config={"url": "file:teams"}, secret=receiver.url)
    assert len(receiver.requests) == len(EVENTS)


def test_email(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "host": "localhost", "from": "predis@example.org", "to": ["a@example.org", "b@example.org"], "user": "predis",
        "password": "file:mail",
    }  # fmt: skip
    with mail_server(tmp_path, user="predis", password=SECRET) as server:
        given = {**config, "host": "127.0.0.1", "port": server.port}
        with pytest.raises(NotSent, match="CERTIFICATE_VERIFY_FAILED"):
            send("email", notices()[0], config=given)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        for notice in notices():
            send("email", notice, config=given)
        to, mail = server.box.mails[0]
        assert to == ["a@example.org", "b@example.org"]
        assert mail["subject"] == "[CRITICAL] churn v3: performance and 1 more"
        assert mail["message-id"] == f"<{KEY}@alerts.predis>"
        assert len({m["references"] for _, m in server.box.mails[:4]}) == 1
        text = mail.get_content()
        assert "Look with: predis monitor churn" in text
        assert "Acknowledged by ada. on it" in server.box.mails[2][1].get_content()
        with pytest.raises(NotSent, match="535") as failed:
            send("email", notices()[0], config=given, secret="wrong")
        assert "wrong" not in str(failed.value)
        with pytest.raises(NotSent, match="AUTH extension not supported"):  # without STARTTLS
            send("email", notices()[0], config={**given, "security": "none"})
        server.box.refusal = "451 come back later"
        with pytest.raises(NotSent, match="451: come back later") as failed:
            send("email", notices()[0], config=given)
        assert not failed.value.hopeless


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("status", "hopeless"),
        [(400, True), (422, True), (401, False), (404, False), (429, False), (503, False)],
    )
    def test_which_refusal_is_final(self, receiver: Receiver, status: int, hopeless: bool) -> None:
        receiver.answer = lambda _request: status
        receiver.more = {"retry-after": "7"}
        with pytest.raises(NotSent, match=f"status {status}") as found:
            send("webhook", notices()[0], config={"url": receiver.url, "secret": "file:hook"})
        assert (found.value.hopeless, found.value.retry_after_s) == (hopeless, 7.0)

    def test_redirects_are_not_followed(self, receiver: Receiver) -> None:
        receiver.answer = lambda request: 307 if request.path == "/" else 200
        receiver.more = {"location": f"{receiver.url}/elsewhere"}
        with pytest.raises(NotSent, match="redirects are not followed"):
            send("webhook", notices()[0], config={"url": f"{receiver.url}/", "secret": "file:hook"})
        assert [request.path for request in receiver.requests] == ["/"]

    def test_nobody_there_and_the_url_is_not_told(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/services/T0/B0/secret"
            with pytest.raises(NotSent, match="no answer: ConnectionRefusedError") as found:
                send("slack", notices()[0], config={"url": "file:slack"}, secret=url)
        assert "T0" not in str(found.value)


@pytest.mark.parametrize(
    ("channel", "config", "told"),
    [
        ("webhook", {"url": "http://h/"}, "needs secret"),
        ("webhook", {"url": "ftp://h/", "secret": "file:s"}, "url is no http or https URL"),
        ("webhook", {"url": "http://me:pw@h/", "secret": "file:s"}, "must not hold a password"),
        ("webhook", {"url": "http://h/", "secret": "hunter2"}, "secret is a secret: name where it is found"),
        ("webhook", {"url": "http://h/", "secret": "env:HOME"}, "env:PREDIS_ALERT_NAME"),
        ("webhook", {"url": "http://h/", "secret": "file:../key"}, "name where it is found"),
        ("webhook", {"url": "http://h/", "secret": "file:s", "user": "x"}, "has the fields url, secret"),
        ("slack", {"url": "https://hooks.slack.com/services/T/B/x"}, "url is a secret"),
        ("email", {"host": "h", "from": "a", "to": []}, "to is a printable text"),
        ("email", {"host": "h\n", "from": "a", "to": "b"}, "host is a printable text"),
        ("email", {"host": "h", "from": "a", "to": "b", "port": -1}, "port is a number above 0"),
        ("email", {"host": "h", "from": "a", "to": "b", "security": "ssl3"}, "security is one of"),
    ],
)
def test_what_cannot_be_a_configuration(channel: str, config: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as found:
        CHANNELS[channel].check(config, "a route")
    assert "hunter2" not in str(found.value)
