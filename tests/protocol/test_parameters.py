"""The parameters of MAIL and RCPT: read, refused, written, and the rules for paths around them."""

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Address,
    Body,
    ByMode,
    CommandParser,
    DeliverBy,
    Extension,
    Handler,
    Limits,
    LocalProtocolError,
    Mail,
    MailParameters,
    Notify,
    OriginalRecipient,
    PathRules,
    Rcpt,
    RcptParameters,
    Recipient,
    Reply,
    Ret,
    RrvsAction,
    Settings,
    Submitter,
    ValidSince,
    split_detail,
)
from lmtp_proto._command import CommandError, encode_command
from lmtp_proto._xtext import (
    decode_fields,
    decode_unitext,
    decode_xtext,
    encode_fields,
    encode_unitext,
    encode_xtext,
)
from tests.protocol.driver import Driver

_ALL = frozenset(Extension)
_PARSER = CommandParser(Limits(), _ALL)
_TIME = datetime(2026, 3, 1, 12, 30, 45, tzinfo=UTC)


def _mail(text: str, parser: CommandParser = _PARSER) -> MailParameters:
    _, command = parser.parse(f"MAIL FROM:<> {text}".encode())
    assert isinstance(command, Mail)
    return command.parameters


def _rcpt(text: str, parser: CommandParser = _PARSER) -> RcptParameters:
    _, command = parser.parse(f"RCPT TO:<a@b> {text}".encode())
    assert isinstance(command, Rcpt)
    return command.recipient.parameters


def _refusal(line: str, parser: CommandParser = _PARSER) -> tuple[int, str]:
    with pytest.raises(CommandError) as caught:
        parser.parse(line.encode())
    return caught.value.reply.code, caught.value.reply.enhanced


_MAIL_READ = [
    ("SIZE=0", MailParameters(size=0)),
    ("SIZE=1000", MailParameters(size=1000)),
    ("size=00000000000000001000", MailParameters(size=1000)),
    ("SIZE=1 BODY=8BITMIME", MailParameters(size=1, body=Body.EIGHTBITMIME)),
    ("BODY=8BITMIME SIZE=1", MailParameters(size=1, body=Body.EIGHTBITMIME)),
    ("SIZE=1 BODY=7BIT", MailParameters(size=1, body=Body.SEVENBIT)),
    ("body=binarymime", MailParameters(body=Body.BINARYMIME)),
    ("SMTPUTF8", MailParameters(smtputf8=True)),
    ("RET=FULL", MailParameters(ret=Ret.FULL)),
    ("ret=hdrs", MailParameters(ret=Ret.HDRS)),
    ("ENVID=QQ314159", MailParameters(envid="QQ314159")),
    ("ENVID=a+20b+3Dc+2Bd", MailParameters(envid="a b=c+d")),
    ("ENVID=+3d", MailParameters(envid="=")),
    (f"ENVID={'x' * 100}", MailParameters(envid="x" * 100)),
    ("AUTH=<>", MailParameters(auth=Submitter(None))),
    ("AUTH=+3C+3E", MailParameters(auth=Submitter(None))),
    ("AUTH=e+3Dmc2@example.com", MailParameters(auth=Submitter(Address("e=mc2", "example.com")))),
    ('AUTH="a+20b"@c', MailParameters(auth=Submitter(Address("a b", "c")))),
    ("AUTH=+C3+BC@c", MailParameters(auth=Submitter(Address("ü", "c")))),
    ("REQUIRETLS", MailParameters(require_tls=True)),
    ("MT-PRIORITY=-9", MailParameters(mt_priority=-9)),
    ("MT-PRIORITY=0", MailParameters(mt_priority=0)),
    ("mt-priority=9", MailParameters(mt_priority=9)),
    ("BY=120;R", MailParameters(deliver_by=DeliverBy(120, ByMode.RETURN))),
    ("BY=+1;rt", MailParameters(deliver_by=DeliverBy(1, ByMode.RETURN, trace=True))),
    ("BY=-999999999;NT", MailParameters(deliver_by=DeliverBy(-999999999, ByMode.NOTIFY, True))),
    ("BY=0;N", MailParameters(deliver_by=DeliverBy(0, ByMode.NOTIFY))),
    ("HOLDFOR=0", MailParameters(hold=0)),
    ("HOLDFOR=999999999", MailParameters(hold=999_999_999)),
    ("HOLDUNTIL=2026-03-01T12:30:45Z", MailParameters(hold=_TIME)),
    ("HOLDUNTIL=2026-03-01t12:30:45z", MailParameters(hold=_TIME)),
    ("HOLDUNTIL=2026-03-01T14:00:45+01:30", MailParameters(hold=_TIME)),
    ("HOLDUNTIL=2026-03-01T12:30:44.5-00:00", MailParameters(hold=_TIME - timedelta(seconds=0.5))),
    # RFC 3339 5.7: a leap second.
    (
        "HOLDUNTIL=2016-12-31T23:59:60Z",
        MailParameters(hold=datetime(2017, 1, 1, tzinfo=UTC)),
    ),
    (
        "RET=FULL ENVID=x SMTPUTF8 REQUIRETLS",
        MailParameters(ret=Ret.FULL, envid="x", smtputf8=True, require_tls=True),
    ),
]
_RCPT_READ = [
    ("NOTIFY=NEVER", RcptParameters(notify=frozenset({Notify.NEVER}))),
    ("notify=success", RcptParameters(notify=frozenset({Notify.SUCCESS}))),
    (
        "NOTIFY=DELAY,FAILURE,SUCCESS",
        RcptParameters(notify=frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY})),
    ),
    ("ORCPT=rfc822;a@b", RcptParameters(orcpt=OriginalRecipient("rfc822", "a@b"))),
    ("ORCPT=RFC822;a+2Bb+40c", RcptParameters(orcpt=OriginalRecipient("RFC822", "a+b@c"))),
    ("ORCPT=x-a+b;c;d", RcptParameters(orcpt=OriginalRecipient("x-a+b", "c;d"))),
    (f"ORCPT=x;{'y' * 498}", RcptParameters(orcpt=OriginalRecipient("x", "y" * 498))),
    ("ORCPT=utf-8;a@b", RcptParameters(orcpt=OriginalRecipient("utf-8", "a@b"))),
    (r"ORCPT=utf-8;\x{FC}@b", RcptParameters(orcpt=OriginalRecipient("utf-8", "ü@b"))),
    (
        r"ORCPT=UTF-8;\x{65e5}\x{1F600}@b",
        RcptParameters(orcpt=OriginalRecipient("UTF-8", "日😀@b")),
    ),
    (
        r"ORCPT=utf-8;a\x{2B}\x{3D}\x{20}\x{5C}",
        RcptParameters(orcpt=OriginalRecipient("utf-8", "a+= \\")),
    ),
    ("ORCPT=utf-8;ü@b", RcptParameters(orcpt=OriginalRecipient("utf-8", "ü@b"))),
    ("RRVS=2026-03-01T12:30:45Z", RcptParameters(rrvs=ValidSince(_TIME))),
    ("RRVS=2026-03-01T12:30:45Z;C", RcptParameters(rrvs=ValidSince(_TIME, RrvsAction.CONTINUE))),
    ("rrvs=2026-03-01T12:30:45Z;r", RcptParameters(rrvs=ValidSince(_TIME, RrvsAction.REJECT))),
    ("IGNOREQUOTA", RcptParameters(ignore_quota=True)),
    ("XRCPTFORWARD=a+3Db", RcptParameters(forward={"a": "b"})),
    ("XRCPTFORWARD=a+3Db+09c+3D+09d", RcptParameters(forward={"a": "b", "c": "", "d": ""})),
    ("XRCPTFORWARD=a+3Db+3Dc", RcptParameters(forward={"a": "b=c"})),
    (
        "XRCPTFORWARD=a+3D+010+011+01t+01r+01n+C3+BC",
        RcptParameters(forward={"a": "\x00\x01\t\r\nü"}),
    ),
    (
        "IGNOREQUOTA NOTIFY=NEVER",
        RcptParameters(ignore_quota=True, notify=frozenset({Notify.NEVER})),
    ),
]


@pytest.mark.parametrize(("text", "parameters"), _MAIL_READ)
def test_mail(text: str, parameters: MailParameters) -> None:
    assert _mail(text) == parameters


@pytest.mark.parametrize(("text", "parameters"), _RCPT_READ)
def test_rcpt(text: str, parameters: RcptParameters) -> None:
    assert _rcpt(text) == parameters


_DATES = [
    *("2026-03-01", "2026-03-01T12:30Z", "2026-03-01T12:30:45", "20260301T123045Z"),
    *(
        "2026-02-30T12:30:45Z",
        "2026-13-01T12:30:45Z",
        "0000-01-01T00:00:00Z",
        "2026-03-01T25:00:00Z",
    ),
    *("2026-03-01T12:60:00Z", "2026-03-01T12:30:61Z", "2026-03-01T12:30:45+24:00", "x", ";", ""),
    *("2026-03-01T12:30:45+0100", "2026-03-01T12:30:45+01", "2026-03-01_12:30:45Z"),
    *("2026-03-01T12:30:45.Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"),
    *("9999-12-31T23:59:60Z", "２０２６-03-01T12:30:45Z", "2026-W09-7T12:30:45Z"),
]
_NO_XTEXT = ["+", "+4", "+4g", "a+", "+zz", "ü", "+\u0663\u0663"]
_MAIL_BAD = [
    *("SIZE", "SIZE=", "SIZE=a", "SIZE=-1", "SIZE=+1", "SIZE=1.0", f"SIZE={'0' * 21}", "SIZE=0x1"),
    *("SIZE=\u0663", "SIZE=1\u0663", "SIZE=²"),
    *("BODY", "BODY=", "BODY=9BIT", "BODY=8BIT", "BODY=8B\u0131TM\u0131ME"),
    *("SMTPUTF8=", "SMTPUTF8=x", "REQUIRETLS=1"),
    *("RET", "RET=", "RET=HDR", "RET=FULL,HDRS", "RET=HDR\u017f"),
    *("ENVID", "ENVID=", "ENVID=+0D", "ENVID=+09", "ENVID=+7F", "ENVID=+C3+BC", "ENVID=+00"),
    *(f"ENVID={'x' * 101}", f"ENVID={'+20' * 34}", *(f"ENVID={text}" for text in _NO_XTEXT)),
    *("AUTH", "AUTH=", "AUTH=<a@b>", "AUTH=a@", "AUTH=@b", "AUTH=a+20b@c", "AUTH=a@b+0D+0A"),
    *("AUTH=+FF@b", f"AUTH={'a' * 499}@b", *(f"AUTH={text}" for text in _NO_XTEXT)),
    *(
        f"MT-PRIORITY={value}"
        for value in ("", "10", "-10", "+1", "x", "-0", "01", "1.0", "\u0663")
    ),
    "MT-PRIORITY",
    *(f"BY={value}" for value in ("", "1", "1;", ";R", "1;X", "1;RX", "1;RTT", "0;R", "-1;R")),
    *(
        f"BY={value}"
        for value in ("1234567890;N", "1;T", "--1;N", "1 ;N", "1;N;T", "\u0663;N", "+;N")
    ),
    *(f"HOLDFOR={value}" for value in ("", "-1", "+1", "1234567890", "x", "1s", "\u0663")),
    *(f"HOLDUNTIL={value}" for value in _DATES),
    "HOLDFOR=1 HOLDUNTIL=2026-03-01T12:30:45Z",
    "HOLDUNTIL=2026-03-01T12:30:45Z HOLDFOR=1",
    # RFC 5321 4.1.1.11, 4.1.2.
    *("SIZE=1 SIZE=1", "RET=FULL ret=FULL", "SMTPUTF8 SMTPUTF8", "ENVID=a ENVID=b"),
    *("=", "=x", "-X", "X_Y", "SIZE==1", "ENVID=a=b", "ü", "SIZE=1  RET=FULL"),
]
_RCPT_BAD = [
    *("NOTIFY", "NOTIFY=", "NOTIFY=ALWAYS", "NOTIFY=NEVER,SUCCESS", "NOTIFY=SUCCESS,NEVER"),
    *(
        "NOTIFY=,",
        "NOTIFY=SUCCESS,",
        "NOTIFY=,DELAY",
        "NOTIFY=SUCCE\u017f\u017f",
        "NOTIFY=DELAY;FAILURE",
    ),
    *("ORCPT", "ORCPT=", "ORCPT=a@b", "ORCPT=;a@b", "ORCPT=rfc822;", "ORCPT=rfc 822;a"),
    *("ORCPT=rfc.822;a", "ORCPT=rfc@822;a", "ORCPT=ü;a", f"ORCPT=x;{'y' * 499}"),
    *(f"ORCPT=rfc822;{text}" for text in (*_NO_XTEXT, "+0D+0A", "+00", "+C3+BC", "ü@b")),
    *(
        f"ORCPT=utf-8;{text}"
        for text in ("", "a+40b", "+", "\\", "\\x", "\\x{}", "\\x{zz}", "\\x{41")
    ),
    *(
        f"ORCPT=utf-8;\\x{{{text}}}"
        for text in ("41", "0D", "7F", "85", "00", "D800", "DFFF", "110000")
    ),
    *(
        f"ORCPT=utf-8;{text}"
        for text in ("\\x{10FFFFF}", "\\X{FC}", "\\u{FC}", "\\x{\u0663\u0663}")
    ),
    "RRVS",
    *(f"RRVS={value}" for value in _DATES),
    *(f"RRVS=2026-03-01T12:30:45Z{value}" for value in (";", ";X", ";CR", ";C;R", ",C", "C")),
    *("IGNOREQUOTA=1", "IGNOREQUOTA=", "IGNOREQUOTA ignorequota"),
    *("XRCPTFORWARD", "XRCPTFORWARD=", "XRCPTFORWARD=+3Db", "XRCPTFORWARD=a+3Db+09"),
    *("XRCPTFORWARD=+09a", "XRCPTFORWARD=a+01", "XRCPTFORWARD=a+01x", "XRCPTFORWARD=a+FF"),
    *(f"XRCPTFORWARD={text}" for text in _NO_XTEXT),
]


@pytest.mark.parametrize("text", _MAIL_BAD)
def test_mail_refuses(text: str) -> None:
    assert _refusal(f"MAIL FROM:<> {text}") == (501, "5.5.4")


@pytest.mark.parametrize("text", _RCPT_BAD)
def test_rcpt_refuses(text: str) -> None:
    assert _refusal(f"RCPT TO:<a@b> {text}") == (501, "5.5.4")


_NEEDS = [
    *(
        ("MAIL FROM:<>", "SIZE=1", Extension.SIZE),
        ("MAIL FROM:<>", "BODY=7BIT", Extension.EIGHTBITMIME),
    ),
    *(
        ("MAIL FROM:<>", "SMTPUTF8", Extension.SMTPUTF8),
        ("MAIL FROM:<>", "RET=FULL", Extension.DSN),
    ),
    *(("MAIL FROM:<>", "ENVID=a", Extension.DSN), ("MAIL FROM:<>", "AUTH=<>", Extension.AUTH)),
    ("MAIL FROM:<>", "REQUIRETLS", Extension.REQUIRETLS),
    ("MAIL FROM:<>", "MT-PRIORITY=1", Extension.MT_PRIORITY),
    ("MAIL FROM:<>", "BY=1;R", Extension.DELIVERBY),
    ("MAIL FROM:<>", "HOLDFOR=1", Extension.FUTURERELEASE),
    ("MAIL FROM:<>", "HOLDUNTIL=2026-03-01T12:30:45Z", Extension.FUTURERELEASE),
    *(
        ("RCPT TO:<a@b>", "NOTIFY=NEVER", Extension.DSN),
        ("RCPT TO:<a@b>", "ORCPT=x;y", Extension.DSN),
    ),
    ("RCPT TO:<a@b>", "RRVS=2026-03-01T12:30:45Z", Extension.RRVS),
    ("RCPT TO:<a@b>", "IGNOREQUOTA", Extension.IGNOREQUOTA),
    ("RCPT TO:<a@b>", "XRCPTFORWARD=a", Extension.XRCPTFORWARD),
]


@pytest.mark.parametrize(("command", "text", "extension"), _NEEDS)
def test_each_needs_its_extension(command: str, text: str, extension: Extension) -> None:
    # RFC 6531 3.1: SMTPUTF8 goes with 8BITMIME.
    alone = CommandParser(Limits(), frozenset({extension, Extension.EIGHTBITMIME}))
    alone.parse(f"{command} {text}".encode())
    without = CommandParser(Limits(), _ALL - {extension})
    assert _refusal(f"{command} {text}", without) == (555, "5.5.4")
    # Whatever the value: what is not known has no syntax.
    assert _refusal(f"{command} {text.partition('=')[0]}=?", without) == (555, "5.5.4")


@pytest.mark.parametrize("text", ["SIZE=1 BODY=8BITMIME", "BODY=8BITMIME SIZE=1"])
@pytest.mark.parametrize("extension", [Extension.SIZE, Extension.EIGHTBITMIME])
def test_two_need_both(text: str, extension: Extension) -> None:
    parser = CommandParser(Limits(), STANDARD_EXTENSIONS - {extension})
    assert _refusal(f"MAIL FROM:<> {text}", parser) == (555, "5.5.4")


def test_mail_and_rcpt_have_their_own() -> None:
    for command, text, _ in _NEEDS:
        other = "RCPT TO:<a@b>" if command.startswith("MAIL") else "MAIL FROM:<>"
        assert _refusal(f"{other} {text}") == (555, "5.5.4")


@pytest.mark.parametrize("extension", [Extension.BINARYMIME, Extension.CHUNKING])
def test_binary_needs_chunking(extension: Extension) -> None:
    # RFC 3030 3.
    parser = CommandParser(Limits(), _ALL - {extension})
    assert _refusal("MAIL FROM:<> BODY=BINARYMIME", parser) == (501, "5.5.4")
    assert _mail("BODY=7BIT", parser).body is Body.SEVENBIT


@pytest.mark.parametrize("more", ["", " BODY=8BITMIME", " BODY=7BIT", " RET=FULL"])
def test_the_limit_of_size(more: str) -> None:
    # RFC 1870 6.1.
    parser = CommandParser(Limits(message_size=100), _ALL)
    assert _mail(f"SIZE=100{more}", parser).size == 100
    for size in ("101", "9" * 20):
        assert _refusal(f"MAIL FROM:<> SIZE={size}{more}", parser) == (552, "5.3.4")


class TestCount:
    PARSER = CommandParser(Limits(parameters=3), _ALL)

    def test_as_many_as_the_limit(self) -> None:
        assert _mail("SIZE=1 BODY=7BIT RET=FULL", self.PARSER).ret is not None
        self.PARSER.parse(b"RCPT TO:<a@b> NOTIFY=NEVER IGNOREQUOTA ORCPT=x;y")

    @pytest.mark.parametrize(
        "line",
        [
            "MAIL FROM:<> SIZE=1 BODY=7BIT RET=FULL ENVID=x",
            "RCPT TO:<a@b> NOTIFY=NEVER IGNOREQUOTA ORCPT=x;y XRCPTFORWARD=a",
            # It is the number that counts, not what they are.
            "MAIL FROM:<> A B C D",
            "RCPT TO:<a@b> A A A A",
        ],
    )
    def test_one_more(self, line: str) -> None:
        # RFC 5321 4.1.1.11.
        assert _refusal(line, self.PARSER) == (555, "5.5.4")
        with pytest.raises(ValueError, match="more than 3 parameters"):
            self.PARSER.parse(line.encode())

    def test_all_that_there_are_by_default(self) -> None:
        assert Limits().parameters >= len(_NEEDS)


class TestSmtputf8:
    """RFC 6531 3.3 to 3.5."""

    @pytest.mark.parametrize(
        ("path", "address"),
        [
            ("ü@b", Address("ü", "b")),
            ("a@bücher.example", Address("a", "bücher.example")),
            ('"ü ü"@b', Address("ü ü", "b")),
            ("日本@例え.jp", Address("日本", "例え.jp")),
            ("@ü.example:a@b", Address("a", "b")),
        ],
    )
    def test_paths(self, path: str, address: Address) -> None:
        _, mail = _PARSER.parse(f"MAIL FROM:<{path}> SIZE=1 SMTPUTF8".encode())
        assert isinstance(mail, Mail)
        assert mail.reverse_path == address
        _, rcpt = _PARSER.parse(f"RCPT TO:<{path}>".encode())
        assert isinstance(rcpt, Rcpt)
        assert rcpt.recipient.address == address
        assert _refusal(f"MAIL FROM:<{path}>") == (550, "5.6.7")
        assert _refusal(f"MAIL FROM:<{path}> SIZE=1 BODY=8BITMIME") == (550, "5.6.7")
        off = CommandParser(Limits(), _ALL - {Extension.SMTPUTF8})
        assert _refusal(f"MAIL FROM:<{path}>", off) == (550, "5.6.7")
        assert _refusal(f"MAIL FROM:<{path}> SMTPUTF8", off) == (555, "5.5.4")
        assert _refusal(f"RCPT TO:<{path}>", off) == (553, "5.6.7")

    def test_only_in_a_transaction_that_asked_for_it(self) -> None:
        driver = Driver(Handler(), Settings(extensions=_ALL - {Extension.STARTTLS}))
        driver.receive(b"LHLO c\r\nMAIL FROM:<a@b>\r\n")
        driver.writes.clear()
        driver.receive(
            "RCPT TO:<ü@b>\r\nRCPT TO:<a@b> ORCPT=utf-8;ü@b\r\nRCPT TO:<a@b>\r\nRSET\r\n"
            "MAIL FROM:<ü@b> SMTPUTF8\r\nRCPT TO:<ü@b> ORCPT=utf-8;ü@b\r\nRCPT TO:<a@b>\r\n"
            "RSET\r\nMAIL FROM:<>\r\nRCPT TO:<ü@b>\r\n".encode()
        )
        codes = [line[:3] for line in driver.output.splitlines()]
        assert codes == [b"553", b"553", *[b"250"] * 7, b"553"]

    def test_an_original_recipient_beyond_ascii_needs_it(self) -> None:
        off = CommandParser(Limits(), _ALL - {Extension.SMTPUTF8})
        assert _refusal("RCPT TO:<a@b> ORCPT=utf-8;ü@b", off) == (553, "5.6.7")
        assert _rcpt(r"ORCPT=utf-8;\x{FC}@b", off).orcpt == OriginalRecipient("utf-8", "ü@b")

    def test_labels_are_as_long_as_dns_has_them(self) -> None:
        # RFC 5890 2.3.2.1: "ü" 57 times is an A-label of 63 octets.
        fits = "ü" * 57
        assert len(f"xn--{fits.encode('punycode').decode()}") == 63
        assert Address("a", f"{fits}.example").domain == f"{fits}.example"
        for label in ("ü" * 58, "ü" * 300, "日" * 40 + "本" * 20):
            with pytest.raises(ValueError, match="is longer than"):
                Address("a", f"{label}.example")

    def test_domains_are_as_long_as_dns_has_them(self) -> None:
        # Three times 63 octets and a dot.
        front = f"{'ü' * 57}." * 3
        assert Address("a", front + "b" * 63).domain
        with pytest.raises(ValueError, match="longer than 255"):
            Address("a", front + "b" * 62 + ".c")

    @pytest.mark.parametrize("stop", ["\u3002", "\uff0e", "\uff61"])
    def test_other_full_stops_are_none(self, stop: str) -> None:
        assert _refusal(f"MAIL FROM:<a@b{stop}c> SMTPUTF8") == (501, "5.1.7")


class TestPathRules:
    """Dovecot's workarounds, each alone."""

    @pytest.mark.parametrize(
        ("rules", "lines"),
        [
            (
                PathRules(whitespace_before_path=True),
                [
                    ("FROM: <a@b>", Address("a", "b")),
                    ("FROM:   <a@b> SIZE=1", Address("a", "b")),
                    ("FROM: <>", None),
                ],
            ),
            (
                PathRules(mailbox_for_path=True),
                [
                    ("FROM:a@b", Address("a", "b")),
                    ("FROM:a@b SIZE=1", Address("a", "b")),
                    ('FROM:"a b>"@c SIZE=1', Address("a b>", "c")),
                    ("FROM:<a@b>", Address("a", "b")),
                    ("FROM:<>", None),
                ],
            ),
            (
                PathRules(missing_domain=True),
                [
                    ("FROM:<a>", Address("a", "")),
                    ('FROM:<"a b"> SIZE=1', Address("a b", "")),
                    ("FROM:<+foo>", Address("+foo", "")),
                ],
            ),
            (
                PathRules(whitespace_before_path=True, mailbox_for_path=True, missing_domain=True),
                [("FROM:  a", Address("a", "")), ("FROM: a SIZE=1", Address("a", ""))],
            ),
        ],
    )
    def test_taken(self, rules: PathRules, lines: list[tuple[str, Address | None]]) -> None:
        parser = CommandParser(Limits(), STANDARD_EXTENSIONS, rules)
        for line, address in lines:
            _, mail = parser.parse(f"MAIL {line}".encode())
            assert isinstance(mail, Mail)
            assert mail.reverse_path == address
            assert mail.parameters.size == (1 if "SIZE" in line else None)
            if address is not None:
                path = line.removeprefix("FROM:").removesuffix(" SIZE=1")
                _, rcpt = parser.parse(f"RCPT TO:{path}".encode())
                assert isinstance(rcpt, Rcpt)
                assert rcpt.recipient.address == address

    @pytest.mark.parametrize(
        ("rules", "paths"),
        [
            (PathRules(), [" <a@b>", "a@b", "<a>", " a", ""]),
            (PathRules(whitespace_before_path=True), [" a@b", "a@b", " <a>", " ", "", " x"]),
            (
                PathRules(mailbox_for_path=True),
                [" <a@b>", " a@b", "a", "", '"a', "a@", "a@b>", "<a@b", "a b@c", "a@b\\", "@x:a@b"],
            ),
            (PathRules(missing_domain=True), ["a", " <a>", "<a@>", "<@>", "<.>", "<a", '<">']),
        ],
    )
    def test_refused(self, rules: PathRules, paths: list[str]) -> None:
        parser = CommandParser(Limits(), STANDARD_EXTENSIONS, rules)
        for path in paths:
            assert _refusal(f"MAIL FROM:{path}", parser)[0] == 501, path
            assert _refusal(f"RCPT TO:{path}", parser)[0] == 501, path

    def test_the_null_path_is_no_recipient(self) -> None:
        rules = PathRules(whitespace_before_path=True, mailbox_for_path=True, missing_domain=True)
        parser = CommandParser(Limits(), STANDARD_EXTENSIONS, rules)
        for path in ("<>", " <>", "", " "):
            assert _refusal(f"RCPT TO:{path}", parser)[0] == 501


@pytest.mark.parametrize(
    ("local_part", "delimiters", "split"),
    [
        ("user", "+", ("user", None, "")),
        ("user+box", "+", ("user", "box", "+")),
        ("user+", "+", ("user", "", "+")),
        ("user+a+b", "+", ("user", "a+b", "+")),
        ("user-a+b", "+-", ("user", "a+b", "-")),
        ("user+a-b", "+-", ("user", "a-b", "+")),
        ("+foo", "+", ("+foo", None, "")),
        ("+foo+bar", "+", ("+foo+bar", None, "")),
        ("-foo+bar", "+-", ("-foo+bar", None, "")),
        ("+", "+", ("+", None, "")),
        ("", "+", ("", None, "")),
        ("user+box", "", ("user+box", None, "")),
        ("user+box", "-", ("user+box", None, "")),
        ("a b+ü", "+", ("a b", "ü", "+")),
    ],
)
def test_split_detail(local_part: str, delimiters: str, split: tuple[str, str | None, str]) -> None:
    assert split_detail(local_part, delimiters) == split


@given(st.text("ab+-_"), st.text("+-", max_size=3))
def test_split_detail_loses_nothing(local_part: str, delimiters: str) -> None:
    user, detail, delimiter = split_detail(local_part, delimiters)
    assert user + delimiter + (detail or "") == local_part
    assert (detail is None) == (delimiter == "")
    if detail is not None:
        assert user
        assert not set(user) & set(delimiters)


class TestEncodings:
    """xtext, unitext and tab-escaping."""

    _VALUE = re.compile(r"[!-<>-~]*")

    @given(st.binary())
    def test_xtext(self, octets: bytes) -> None:
        text = encode_xtext(octets)
        assert self._VALUE.fullmatch(text)
        assert decode_xtext(text) == octets

    @given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
    def test_unitext(self, text: str) -> None:
        encoded = encode_unitext(text)
        assert self._VALUE.fullmatch(encoded)
        assert "+" not in encoded
        assert decode_unitext(encoded) == text

    @given(
        st.dictionaries(
            st.text(st.characters(exclude_characters="=", codec="utf-8"), min_size=1),
            st.text(st.characters(codec="utf-8")),
            min_size=1,
        )
    )
    def test_fields(self, fields: dict[str, str]) -> None:
        text = encode_fields(fields)
        assert self._VALUE.fullmatch(text)
        assert decode_fields(text) == fields

    @pytest.mark.parametrize("decode", [decode_xtext, decode_unitext, decode_fields])
    @given(text=st.text() | st.text("+0123456789ABCDEFabcdefx\\{}\x01\t=ü", max_size=12))
    def test_any_text_is_a_value_or_refused(self, decode: object, text: str) -> None:
        assert callable(decode)
        try:
            decode(text)
        except ValueError:
            pass

    def test_what_is_documented(self) -> None:
        # RFC 3461 4 and 5.2: capitals in hexchar.
        assert encode_xtext(b"a+b=c d\x00\xff") == "a+2Bb+3Dc+20d+00+FF"
        assert encode_unitext("ü+=\\ 日😀") == r"\x{FC}\x{2B}\x{3D}\x{5C}\x{20}\x{65E5}\x{1F600}"
        assert encode_fields({"a": "b\tc", "d": "\x01"}) == "a+3Db+01tc+09d+3D+011"


_TIMES = st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)
)
_PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=33)
_MAIL_PARAMETERS = st.builds(
    MailParameters,
    size=st.none() | st.integers(0, Limits().message_size),
    body=st.none() | st.sampled_from(Body),
    smtputf8=st.booleans(),
    ret=st.none() | st.sampled_from(Ret),
    envid=st.none() | _PRINTABLE,
    auth=st.none()
    | st.builds(Submitter, st.none() | st.builds(Address, _PRINTABLE, st.just("example.org"))),
    require_tls=st.booleans(),
    mt_priority=st.none() | st.integers(-9, 9),
    deliver_by=st.none()
    | st.builds(
        DeliverBy, st.integers(-999_999_999, 999_999_999), st.just(ByMode.NOTIFY), st.booleans()
    )
    | st.builds(DeliverBy, st.integers(1, 999_999_999), st.sampled_from(ByMode), st.booleans()),
    hold=st.none() | st.integers(0, 999_999_999) | _TIMES,
)
_RCPT_PARAMETERS = st.builds(
    RcptParameters,
    notify=st.none()
    | st.just(frozenset({Notify.NEVER}))
    | st.frozensets(st.sampled_from([Notify.SUCCESS, Notify.FAILURE, Notify.DELAY]), min_size=1),
    orcpt=st.none()
    | st.builds(OriginalRecipient, st.sampled_from(["rfc822", "X400", "x-a+b"]), _PRINTABLE)
    | st.builds(
        OriginalRecipient,
        st.sampled_from(["utf-8", "UTF-8"]),
        st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40),
    ),
    rrvs=st.none() | st.builds(ValidSince, _TIMES, st.none() | st.sampled_from(RrvsAction)),
    ignore_quota=st.booleans(),
    forward=st.none()
    | st.dictionaries(
        st.text(st.characters(exclude_characters="=", codec="utf-8"), min_size=1),
        st.text(st.characters(codec="utf-8")),
        min_size=1,
        max_size=3,
    ),
)


def test_parameters_that_say_nothing() -> None:
    recipient = Recipient(address=Address("a", "b"), parameters=RcptParameters())
    assert encode_command(Rcpt(recipient=recipient)) == b"RCPT TO:<a@b>\r\n"
    assert encode_command(Mail(reverse_path=None, parameters=MailParameters())) == (
        b"MAIL FROM:<>\r\n"
    )


@given(_MAIL_PARAMETERS)
def test_what_is_written_of_mail_is_read(parameters: MailParameters) -> None:
    line = encode_command(Mail(reverse_path=None, parameters=parameters))
    assert line.isascii()
    _, command = _PARSER.parse(line[:-2])
    assert command == Mail(reverse_path=None, parameters=parameters)


@given(_RCPT_PARAMETERS)
def test_what_is_written_of_rcpt_is_read(parameters: RcptParameters) -> None:
    recipient = Recipient(address=Address("a", "b"), parameters=parameters)
    line = encode_command(Rcpt(recipient=recipient))
    assert line.isascii()
    _, command = _PARSER.parse(line[:-2])
    assert isinstance(command, Rcpt)
    assert command.recipient.parameters == parameters


@pytest.mark.parametrize(
    "parameters",
    [
        *(MailParameters(size=-1), MailParameters(size=10**20), MailParameters(envid="")),
        *(
            MailParameters(envid="a\r\nRSET"),
            MailParameters(envid="ü"),
            MailParameters(envid="\ud800"),
        ),
        *(MailParameters(envid="x" * 101), MailParameters(mt_priority=10)),
        *(MailParameters(mt_priority=-10), MailParameters(hold=-1), MailParameters(hold=10**9)),
        MailParameters(auth=Submitter(Address("a" * 500, "b"))),
        MailParameters(deliver_by=DeliverBy(0, ByMode.RETURN)),
        MailParameters(deliver_by=DeliverBy(10**9, ByMode.NOTIFY)),
        # A time without its offset says nothing.
        MailParameters(hold=datetime(2026, 3, 1)),
        MailParameters(hold=datetime(2026, 3, 1, tzinfo=timezone(timedelta(seconds=1)))),
    ],
)
def test_mail_that_cannot_be_written(parameters: MailParameters) -> None:
    with pytest.raises(LocalProtocolError, match="MAIL"):
        encode_command(Mail(reverse_path=None, parameters=parameters))


@pytest.mark.parametrize(
    "parameters",
    [
        RcptParameters(notify=frozenset()),
        RcptParameters(notify=frozenset({Notify.NEVER, Notify.DELAY})),
        RcptParameters(orcpt=OriginalRecipient("", "a@b")),
        RcptParameters(orcpt=OriginalRecipient("rfc822", "")),
        RcptParameters(orcpt=OriginalRecipient("rfc822", "ü@b")),
        RcptParameters(orcpt=OriginalRecipient("rfc822", "a\r\nRSET")),
        RcptParameters(orcpt=OriginalRecipient("utf-8", "a\r\nRSET")),
        RcptParameters(orcpt=OriginalRecipient("utf-8", "\ud800")),
        RcptParameters(orcpt=OriginalRecipient("a;b", "c")),
        RcptParameters(orcpt=OriginalRecipient("a\r\nRSET", "c")),
        RcptParameters(orcpt=OriginalRecipient("x", "y" * 499)),
        RcptParameters(rrvs=ValidSince(datetime(2026, 3, 1))),
        *(RcptParameters(forward={}), RcptParameters(forward={"": "x"})),
        *(RcptParameters(forward={"a=b": "c"}), RcptParameters(forward={"a": "\ud800"})),
    ],
)
def test_rcpt_that_cannot_be_written(parameters: RcptParameters) -> None:
    recipient = Recipient(address=Address("a", "b"), parameters=parameters)
    with pytest.raises(LocalProtocolError, match="RCPT"):
        encode_command(Rcpt(recipient=recipient))


_PIECES = st.sampled_from(
    [
        *("SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH", "REQUIRETLS", "MT-PRIORITY", "BY"),
        *("HOLDFOR", "HOLDUNTIL", "NOTIFY", "ORCPT", "RRVS", "IGNOREQUOTA", "XRCPTFORWARD", "X"),
        *("=", " ", ";", ",", "+", "-", "<>", "1", "0", "99999999999", "NEVER", "SUCCESS", "FULL"),
        *("BINARYMIME", "utf-8;", "rfc822;", "\\x{", "}", "FC", "D800", "+3D", "+09", "+01", "+FF"),
        *("2026-03-01T12:30:", "45", "60", "Z", "9999-12-31T23:59:60Z", ".5", "+23:59", "R", "NT"),
        *("a@b", "ü", "\u0663", "\u017f", "\u2028"),
    ]
)


@pytest.mark.parametrize("command", ["MAIL FROM:<>", "RCPT TO:<a@b>"])
@given(text=st.lists(_PIECES, max_size=10).map("".join))
def test_any_parameters_are_read_or_refused(command: str, text: str) -> None:
    try:
        _, parsed = _PARSER.parse(f"{command} {text}".encode())
    except CommandError as error:
        reply: Reply = error.reply
        assert reply.code in (500, 501, 552, 553, 555)
    else:
        # What is read can be written, and says the same.
        assert isinstance(parsed, Mail | Rcpt)
        _, again = _PARSER.parse(encode_command(parsed)[:-2])
        if isinstance(parsed, Mail):
            assert again == parsed
        else:
            assert isinstance(again, Rcpt)
            assert again.recipient.parameters == parsed.recipient.parameters
