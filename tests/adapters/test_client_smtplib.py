"""`lmtp_blocking.LMTP`: the names and exceptions of smtplib, a result for every recipient."""

import email.message
import smtplib
from collections.abc import Iterator

import pytest

from lmtp_blocking import LMTP
from lmtp_proto import Extension, Handler, Mail, Message, Recipient, Reply, Session, Settings
from tests.adapters.harness import SAVED, serving
from tests.server._scripted import HANG_UP, Scripted

_SENDER = "sender@example.net"
_MESSAGE = b"Subject: x\r\n\r\ntext\r\n"


class _Mailboxes(Handler):
    """Decides by local parts."""

    def __init__(self) -> None:
        self.delivered: list[tuple[str, bytes]] = []
        self.mails: list[Mail] = []

    def mail(self, session: Session, mail: Mail, /) -> Reply | None:
        self.mails.append(mail)
        if mail.reverse_path is not None and mail.reverse_path.local_part == "spam":
            return Reply(550, "no mail from there", enhanced="5.7.1")
        return None

    def rcpt(self, transaction: object, recipient: Recipient, /) -> Reply | None:
        if recipient.address.local_part.startswith("no"):
            return Reply(550, "no such user", enhanced="5.1.1")
        return None

    def vrfy(self, session: Session, text: str, /) -> Reply | None:
        return Reply(250, f"<{text}>", enhanced="2.1.5")

    def deliver(self, message: Message, recipient: Recipient, /) -> Reply:
        local_part = recipient.address.local_part
        # Each of two equal recipients has a reply of its own.
        again = any(name == local_part for name, _ in self.delivered)
        self.delivered.append((local_part, message.content))
        if local_part == "full" or (local_part == "twice" and again):
            return Reply(452, "mailbox full", enhanced="4.2.2")
        return SAVED


@pytest.fixture
def mailboxes() -> _Mailboxes:
    return _Mailboxes()


@pytest.fixture
def lmtp(mailboxes: _Mailboxes) -> Iterator[LMTP]:
    settings = Settings(
        extensions=frozenset(Extension) - {Extension.STARTTLS, Extension.AUTH},
    )
    with (
        serving("blocking", mailboxes, settings=settings) as server,
        LMTP(server.address, timeout=20) as client,
    ):
        yield client


class TestAgainstOurServer:
    def test_every_recipient_has_its_result(self, lmtp: LMTP, mailboxes: _Mailboxes) -> None:
        addresses = ["a@example.org", "nobody@example.org", "full@example.org"]
        for _ in range(2):
            assert lmtp.sendmail(_SENDER, addresses, _MESSAGE) == {
                "a@example.org": (250, b"2.0.0 saved"),
                "nobody@example.org": (550, b"5.1.1 no such user"),
                "full@example.org": (452, b"4.2.2 mailbox full"),
            }
        assert [name for name, _ in mailboxes.delivered] == ["a", "full"] * 2

    def test_duplicates_are_kept_apart(self, lmtp: LMTP) -> None:
        outcome = lmtp.sendmail(_SENDER, ["twice@example.org"] * 2, _MESSAGE)
        assert outcome == {"twice@example.org": (452, b"4.2.2 mailbox full")}
        assert lmtp.results == [
            ("twice@example.org", 250, b"2.0.0 saved"),
            ("twice@example.org", 452, b"4.2.2 mailbox full"),
        ]

    @pytest.mark.parametrize(
        ("given", "sent"),
        [
            (b"a\nb\r\nc\rd", b"a\r\nb\r\nc\r\nd"),
            ("a\nb\n", b"a\r\nb\r\n"),
            (b".\r\n..\r\n", b".\r\n..\r\n"),
            (b"\n.\nMAIL FROM:<x@y>\n", b"\r\n.\r\nMAIL FROM:<x@y>\r\n"),
        ],
    )
    def test_the_content(
        self, lmtp: LMTP, mailboxes: _Mailboxes, given: bytes | str, sent: bytes
    ) -> None:
        assert lmtp.sendmail(_SENDER, "a@example.org", given)["a@example.org"][0] == 250
        assert mailboxes.delivered == [("a", sent)]

    def test_what_is_no_mailbox_is_refused_and_not_sent(self, lmtp: LMTP) -> None:
        odd = "x@example.org>\r\nRCPT TO:<evil@example.org"
        outcome = lmtp.sendmail(_SENDER, ["A <a@example.org>", odd, ""], _MESSAGE)
        assert {address: code for address, (code, _) in outcome.items()} == {
            "A <a@example.org>": 250,
            odd: 501,
            "": 501,
        }

    def test_the_sender_is_refused(self, lmtp: LMTP) -> None:
        with pytest.raises(smtplib.SMTPSenderRefused) as caught:
            lmtp.sendmail("spam@example.net", "a@example.org", _MESSAGE)
        assert caught.value.smtp_code == 550
        assert caught.value.sender == "spam@example.net"
        with pytest.raises(smtplib.SMTPSenderRefused):
            lmtp.sendmail("a b\r\n@example.net", "a@example.org", _MESSAGE)
        assert lmtp.sendmail("<>", "a@example.org", _MESSAGE)["a@example.org"][0] == 250

    @pytest.mark.parametrize("addresses", [["no@example.org", "full@example.org"], ["bad"], []])
    def test_nobody_gets_it(self, lmtp: LMTP, addresses: list[str]) -> None:
        if addresses == ["bad"]:
            addresses = ["no way"]
        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            lmtp.sendmail(_SENDER, addresses, _MESSAGE)
        assert list(caught.value.recipients) == addresses
        assert lmtp.noop()[0] == 250

    def test_options(self, lmtp: LMTP, mailboxes: _Mailboxes) -> None:
        lmtp.sendmail(
            _SENDER, "a@example.org", _MESSAGE, ["body=8bitmime", "RET=HDRS"], ["NOTIFY=NEVER"]
        )
        (mail,) = mailboxes.mails
        assert mail.parameters.size == len(_MESSAGE)
        assert mail.parameters.body is not None
        assert mail.parameters.ret is not None

    @pytest.mark.parametrize("options", [["FOO=BAR"], ["SIZE=x"], ["a\r\nb"], ["AUTH=<>"]])
    def test_options_that_are_none_or_not_offered(self, lmtp: LMTP, options: list[str]) -> None:
        with pytest.raises(smtplib.SMTPNotSupportedError):
            lmtp.sendmail(_SENDER, "a@example.org", _MESSAGE, options)
        assert lmtp.sendmail(_SENDER, "a@example.org", _MESSAGE)["a@example.org"][0] == 250

    def test_send_message(self, lmtp: LMTP, mailboxes: _Mailboxes) -> None:
        message = email.message.EmailMessage()
        message["From"] = "Author <author@example.net>"
        message["Sender"] = _SENDER
        message["To"] = "a@example.org, nobody@example.org"
        message["Bcc"] = "hidden@example.org"
        message.set_content("text\n")
        outcome = lmtp.send_message(message)
        assert {address: code for address, (code, _) in outcome.items()} == {
            "a@example.org": 250,
            "nobody@example.org": 550,
            "hidden@example.org": 250,
        }
        assert str(mailboxes.mails[0].reverse_path) == _SENDER
        content = mailboxes.delivered[0][1]
        assert b"hidden" not in content
        assert content.endswith(b"\r\n\r\ntext\r\n")
        assert message["Bcc"] == "hidden@example.org"

    def test_send_message_beyond_ascii(self, lmtp: LMTP, mailboxes: _Mailboxes) -> None:
        message = email.message.EmailMessage()
        message["Subject"] = "Grüße"
        outcome = lmtp.send_message(message, _SENDER, "jürgen@example.org")
        assert outcome["jürgen@example.org"][0] == 250
        assert "Subject: Grüße\r\n".encode() in mailboxes.delivered[0][1]
        assert mailboxes.mails[0].parameters.smtputf8

    def test_send_message_resent(self, lmtp: LMTP, mailboxes: _Mailboxes) -> None:
        message = email.message.Message()
        message["From"] = "author@example.net"
        message["To"] = "first@example.org"
        message["Resent-Date"] = "Sun, 22 Nov 2026 12:00:00 +0000"
        message["Resent-From"] = _SENDER
        message["Resent-To"] = "a@example.org"
        assert list(lmtp.send_message(message)) == ["a@example.org"]
        message["Resent-Date"] = "Sun, 22 Nov 2026 13:00:00 +0000"
        with pytest.raises(ValueError, match="Resent"):
            lmtp.send_message(message)

    def test_commands(self, lmtp: LMTP) -> None:
        assert not lmtp.has_extn("pipelining")
        assert lmtp.lhlo("client.example.org")[0] == 250
        assert lmtp.has_extn("PIPELINING")
        assert lmtp.esmtp_features["chunking"] == ""
        assert lmtp.ehlo()[0] == 250
        assert lmtp.noop()[0] == 250
        assert lmtp.rset()[0] == 250
        assert lmtp.vrfy("Alice <alice@example.org>") == (250, b"2.1.5 <alice@example.org>")
        with pytest.raises(ValueError, match="control character"):
            lmtp.verify("alice\r\nQUIT")
        assert lmtp.quit()[0] == 221
        with pytest.raises(smtplib.SMTPServerDisconnected):
            lmtp.noop()

    def test_connecting_anew(self, lmtp: LMTP) -> None:
        with pytest.raises(smtplib.SMTPServerDisconnected):
            LMTP().sendmail(_SENDER, "a@example.org", _MESSAGE)
        lmtp.lhlo()
        lmtp.close()
        assert lmtp.esmtp_features == {}


def test_a_unix_socket(mailboxes: _Mailboxes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "lmtp"
    with serving("blocking", mailboxes, f"unix:{path}"), LMTP(str(path)) as lmtp:
        assert lmtp.sendmail(_SENDER, "a@example.org", _MESSAGE)["a@example.org"][0] == 250


def test_nobody_listens() -> None:
    with pytest.raises(OSError, match="cannot connect"):
        LMTP("/nowhere")


_TO = ["a@example.org", "b@example.org"]
_OK = b"250 2.0.0 saved\r\n"


class TestAgainstAScript:
    @pytest.mark.parametrize(
        ("script", "final", "expected"),
        [
            ({"MAIL": HANG_UP}, b"", smtplib.SMTPServerDisconnected),
            ({"MAIL": b"nonsense\r\n"}, b"", smtplib.SMTPServerDisconnected),
            ({"MAIL": b"421 4.3.2 bye\r\n"}, b"", smtplib.SMTPServerDisconnected),
            ({"DATA": b"451 4.3.0 later\r\n"}, b"", smtplib.SMTPDataError),
            ({"LHLO": b"500 5.5.1 SMTP only\r\n"}, b"", smtplib.SMTPHeloError),
            ({}, b"552 5.2.2 full\r\n" * 2, smtplib.SMTPRecipientsRefused),
            ({}, HANG_UP, smtplib.SMTPServerDisconnected),
        ],
    )
    def test_exceptions(
        self, script: dict[str, bytes], final: bytes, expected: type[smtplib.SMTPException]
    ) -> None:
        with (
            Scripted(script, final=final) as server,
            LMTP(server.address, timeout=20) as lmtp,
            pytest.raises(expected) as caught,
        ):
            lmtp.sendmail(_SENDER, _TO, _MESSAGE)
        assert caught.type is expected

    def test_the_greeting_refuses(self) -> None:
        with (
            Scripted({"": b"554 5.3.2 closed\r\n"}) as server,
            pytest.raises(smtplib.SMTPConnectError),
        ):
            LMTP(server.address)

    @pytest.mark.parametrize("rest", [b"", b"nonsense\r\n", b"421 4.3.2 bye\r\n"])
    def test_what_is_known_is_kept_when_the_rest_is_lost(self, rest: bytes) -> None:
        # The connection is closed behind the replies.
        with (
            Scripted({"QUIT": HANG_UP}, final=_OK + rest) as server,
            LMTP(server.address, timeout=0.5) as lmtp,
        ):
            outcome = lmtp.sendmail(_SENDER, _TO, _MESSAGE)
            assert outcome["a@example.org"] == (250, b"2.0.0 saved")
            assert 400 <= outcome["b@example.org"][0] < 500
            if rest.startswith(b"421"):
                assert outcome["b@example.org"] == (421, b"4.3.2 bye")
            with pytest.raises(smtplib.SMTPServerDisconnected):
                lmtp.sendmail(_SENDER, _TO, _MESSAGE)

    def test_the_limits_that_a_server_offers_are_kept(self) -> None:
        script = {"LHLO": b"250-host\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=1 RCPTMAX=1\r\n"}
        with Scripted(script, final=_OK) as server, LMTP(server.address) as lmtp:
            outcome = lmtp.sendmail(_SENDER, _TO, _MESSAGE)
            assert [code for code, _ in outcome.values()] == [250, 452]
            with pytest.raises(smtplib.SMTPSenderRefused) as caught:
                lmtp.sendmail(_SENDER, _TO, _MESSAGE)
            assert caught.value.smtp_code == 451
            assert lmtp.quit()[0] == 221

    def test_texts_of_many_lines(self) -> None:
        final = b"250-2.0.0 one\r\n250 2.0.0 two\r\n250 \xc3\xbc\r\n"
        with Scripted(final=final) as server, LMTP(server.address) as lmtp:
            assert lmtp.sendmail(_SENDER, _TO, _MESSAGE) == {
                "a@example.org": (250, b"2.0.0 one\n2.0.0 two"),
                "b@example.org": (250, "ü".encode()),
            }
