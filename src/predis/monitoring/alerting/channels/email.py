"""Mail by SMTP, with STARTTLS or TLS and with a login where they are asked for.

A mail has the delivery's key in its Message-ID, so that a repeat is told from another; mails of one incident stand in one thread.
"""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate

from predis.clock import NANOSECONDS
from predis.monitoring.alerting.channels.wire import TIMEOUT_S, Envelope, Field, NotSent

FIELDS = {
    "host": Field("text", "the mail server", required=True),
    "port": Field("number", "its port; 587 where not given, 465 with tls"),
    "from": Field("text", "the sender's address", required=True),
    "to": Field("texts", "addresses of those who are told", required=True),
    "security": Field(
        "text",
        "starttls (where not given), tls, or none, for a server on this machine",
        choices=("starttls", "tls", "none"),
    ),
    "user": Field("text", "whom to log in as; nobody where not given"),
    "password": Field("secret", "where the user's password is found"),
}
_DOMAIN = "alerts.predis"


def send(envelope: Envelope) -> None:
    """
    Raises:
        NotSent
        Unavailable: the secret is missing.
    """
    password = envelope.secret("password") if "user" in envelope.config else ""
    message = _message(envelope)
    try:
        with _connected(envelope) as server:
            if password:
                server.login(envelope.config["user"], password)
            refused = server.send_message(message)
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else ""
        raise NotSent(f"the mail server answered {error.smtp_code}: {said[:200]}") from None
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(f"the mail server did not take it: {type(error).__name__}: {error}"[:300]) from None
    if refused:  # the others have it; a repeat would tell them twice
        raise NotSent(f"the mail server refused {', '.join(refused)}"[:300], hopeless=True)


def _connected(envelope: Envelope) -> smtplib.SMTP:
    config = envelope.config
    security = config.get("security", "starttls")
    context = ssl.create_default_context()
    if security == "tls":
        return smtplib.SMTP_SSL(
            config["host"], int(config.get("port", 465)), timeout=TIMEOUT_S, context=context
        )
    server = smtplib.SMTP(config["host"], int(config.get("port", 587)), timeout=TIMEOUT_S)
    try:
        if security != "none":
            server.starttls(context=context)
    except BaseException:
        server.close()
        raise
    return server


def _message(envelope: Envelope) -> EmailMessage:
    notice, config = envelope.notice, envelope.config
    message = EmailMessage()
    message["From"] = config["from"]
    message["To"] = ", ".join(config["to"] if isinstance(config["to"], list) else [config["to"]])
    message["Subject"] = notice["title"]
    message["Date"] = formatdate(envelope.clock.time_ns() // NANOSECONDS)
    message["Message-ID"] = f"<{envelope.key}@{_DOMAIN}>"
    message["References"] = f"<{envelope.incident}@{_DOMAIN}>"
    message["X-Predis-Incident"] = envelope.incident
    message["Auto-Submitted"] = "auto-generated"
    lines = [notice["message"], "", f"What it means: {notice['meaning']}.", f"Look at: {notice['look_at']}."]
    lines += [f"Look with: {notice['command']}", f"Since: {notice['opened_at']}"]
    if notice["acknowledged_by"]:
        lines.append(f"Acknowledged by {notice['acknowledged_by']}. {notice['note']}")
    for alert in notice["alerts"][1:]:
        lines.append(f"Also: {alert['message']}")
    message.set_content("\n".join(lines) + "\n")
    return message
