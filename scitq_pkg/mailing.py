"""One mail by SMTP: by TLS with everybody but this machine's own mail server, and a password by TLS alone."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate

from .address import is_loopback
from .errors import InvalidRequest, Unreachable

WAIT_SECONDS = 20.0  # for a connection, and for each answer
MOST_CHARACTERS = 254
_TLS_PORT = 465  # where TLS begins at once; elsewhere by STARTTLS
_ADDRESS = re.compile(r"[^\s@<>{}()\[\],;:\\\"\x00-\x1f\x7f]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class MailServer:
    """Where mail is given to, and by whom."""

    host: str
    port: int
    sender: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)


def check_recipient(address: str) -> None:
    """Raises InvalidRequest for what is no single plain address."""
    if len(address) > MOST_CHARACTERS or not _ADDRESS.fullmatch(address) or not address.isascii():
        raise InvalidRequest(f"{address!r:.80} is no mail address such as ann@example.org")


def send(server: MailServer, recipient: str, subject: str, text: str, key: str) -> None:
    """Give a mail to the server. Sent again with the same `key` it is the same mail (`Message-ID`). Raises Unreachable."""
    import smtplib  # only who sends needs it

    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = server.sender, recipient, _one_line(subject)
    mail["Date"], mail["Message-ID"] = formatdate(), f"<{key}@{server.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text)
    try:
        with _connected(server) as connection:
            if server.user is not None:
                connection.login(server.user, server.password or "")
            connection.send_message(mail)
    except smtplib.SMTPResponseException as error:  # before its parent, which knows no code
        raise Unreachable(f"{server.host} answers {error.smtp_code}: {_told(error.smtp_error)}") from None
    except smtplib.SMTPRecipientsRefused as error:
        code, told = next(iter(error.recipients.values()))
        raise Unreachable(f"{server.host} refuses the recipient: {code} {_told(told)}") from None
    except (OSError, smtplib.SMTPException) as error:
        raise Unreachable(f"{server.host} cannot be asked: {getattr(error, 'strerror', None) or _one_line(str(error))}") from None


def _connected(server: MailServer):
    import smtplib
    import ssl

    if server.port == _TLS_PORT:
        return smtplib.SMTP_SSL(server.host, server.port, timeout=WAIT_SECONDS, context=ssl.create_default_context())
    connection = smtplib.SMTP(server.host, server.port, timeout=WAIT_SECONDS)
    try:
        _secure(connection, server)
    except BaseException:
        connection.close()
        raise
    return connection


def _secure(connection, server: MailServer) -> None:
    """TLS from here on, where it is offered. Raises Unreachable where it is not and a password would be sent."""
    import ssl

    connection.ehlo_or_helo_if_needed()
    if is_loopback(server.host):
        return
    if connection.has_extn("starttls"):
        connection.starttls(context=ssl.create_default_context())
        connection.ehlo()
    elif server.user is not None:
        raise Unreachable(f"{server.host} offers no TLS, and a password is not sent without: give another server, or no user")


def _told(answer: bytes | str) -> str:
    return _one_line(answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
