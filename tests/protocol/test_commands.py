"""Command lines: every octet string is a command or an error with its reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Address,
    Bdat,
    Body,
    Command,
    CommandParser,
    Data,
    Extension,
    Help,
    Lhlo,
    Limits,
    Mail,
    MailParameters,
    Noop,
    Quit,
    Rcpt,
    Recipient,
    Reply,
    Rset,
    StartTls,
    Verb,
    Vrfy,
)
from lmtp_proto._command import CommandError, encode_command

_PARSER = CommandParser(Limits(), STANDARD_EXTENSIONS | {Extension.STARTTLS, Extension.BINARYMIME})
_A = Address("a", "b")


def _refusal(line: bytes) -> CommandError:
    with pytest.raises(CommandError) as caught:
        _PARSER.parse(line)
    return caught.value


@pytest.mark.parametrize(
    ("line", "verb", "command"),
    [
        (b"LHLO x", Verb.LHLO, Lhlo(domain="x")),
        (b"lhlo x.example y", Verb.LHLO, Lhlo(domain="x.example y")),
        (b"LHLO [IPv6:::1]", Verb.LHLO, Lhlo(domain="[IPv6:::1]")),
        ("LHLO bücher".encode(), Verb.LHLO, Lhlo(domain="bücher")),
        (b"MAIL FROM:<>", Verb.MAIL, Mail(reverse_path=None)),
        (b"mail from:<a@b>", Verb.MAIL, Mail(reverse_path=_A)),
        (b"MAIL FROM:<a@b> \t ", Verb.MAIL, Mail(reverse_path=_A)),
        (
            b"MAIL FROM:<a@b> SIZE=0",
            Verb.MAIL,
            Mail(reverse_path=_A, parameters=MailParameters(size=0)),
        ),
        (
            b"MAIL FROM:<a@b> size=00000000000000000010 body=7bit",
            Verb.MAIL,
            Mail(reverse_path=_A, parameters=MailParameters(size=10, body=Body.SEVENBIT)),
        ),
        (
            b"MAIL FROM:<> BODY=8BITMIME",
            Verb.MAIL,
            Mail(reverse_path=None, parameters=MailParameters(body=Body.EIGHTBITMIME)),
        ),
        (b"DATA", Verb.DATA, Data()),
        (b"DATA ", Verb.DATA, Data()),
        (b"BDAT 0", Verb.BDAT, Bdat(size=0)),
        (b"BDAT 007", Verb.BDAT, Bdat(size=7)),
        (b"BDAT 12 LAST", Verb.BDAT_LAST, Bdat(size=12, last=True)),
        (b"bdat 12 last ", Verb.BDAT_LAST, Bdat(size=12, last=True)),
        (b"BDAT 99999999999999999999", Verb.BDAT, Bdat(size=99999999999999999999)),
        (b"RSET", Verb.RSET, Rset()),
        (b"NOOP", Verb.NOOP, Noop()),
        (b"NOOP a b  c", Verb.NOOP, Noop(text="a b  c")),
        (b"VRFY a b", Verb.VRFY, Vrfy(text="a b")),
        ("VRFY ü".encode(), Verb.VRFY, Vrfy(text="ü")),
        (b"HELP", Verb.HELP, Help()),
        (b"HELP MAIL", Verb.HELP, Help(text="MAIL")),
        (b"QUIT", Verb.QUIT, Quit()),
        (b"STARTTLS", Verb.STARTTLS, StartTls()),
    ],
)
def test_reads(line: bytes, verb: Verb, command: Command) -> None:
    assert _PARSER.parse(line) == (verb, command)


def test_each_rcpt_is_a_recipient_of_its_own() -> None:
    verb, first = _PARSER.parse(b"RCPT TO:<a@b>")
    _, second = _PARSER.parse(b"RCPT TO:<a@b>")
    assert verb is Verb.RCPT
    assert isinstance(first, Rcpt)
    assert isinstance(second, Rcpt)
    assert first.recipient.address == second.recipient.address == _A
    assert first.recipient != second.recipient
    assert str(first.recipient) == "a@b"


@pytest.mark.parametrize(
    ("line", "code", "enhanced"),
    [
        (b"", 500, "5.5.2"),
        (b" ", 500, "5.5.2"),
        (b" NOOP", 500, "5.5.2"),
        (b"\tNOOP", 500, "5.5.2"),
        (b"NOOP\ta", 500, "5.5.2"),
        (b"NOOP  a", 500, "5.5.2"),
        (b"NOOP\x00", 500, "5.5.2"),
        (b"GET\xff", 500, "5.5.2"),
        (b"NOOP\r", 500, "5.5.2"),
        (b"NOOP\x7f", 500, "5.5.2"),
        (b"NOOP \xc2\x85", 501, "5.5.2"),
        (b"NOOP \xff", 501, "5.5.2"),
        (b"NOOP \xc3", 501, "5.5.2"),
        (b"NOOP \xc0\x80", 501, "5.5.2"),
        (b"NOOP \xed\xa0\x80", 501, "5.5.2"),
        (b"NOOP \xf5\x80\x80\x80", 501, "5.5.2"),
        (b"N00P", 500, "5.5.2"),
        (b"NO-OP", 500, "5.5.2"),
        (b"X" * 32, 500, "5.5.1"),
        (b"X" * 33, 500, "5.5.2"),
        (b"XYZ", 500, "5.5.1"),
        (b"HELO x", 500, "5.5.1"),
        (b"ehlo x", 500, "5.5.1"),
        (b"EXPN x", 502, "5.5.1"),
        (b"SEND FROM:<a@b>", 502, "5.5.1"),
        (b"SOML FROM:<a@b>", 502, "5.5.1"),
        (b"SAML FROM:<a@b>", 502, "5.5.1"),
        (b"TURN", 502, "5.5.1"),
        (b"AUTH PLAIN", 502, "5.5.1"),
        (b"LHLO", 501, "5.5.4"),
        (b"LHLO ", 501, "5.5.4"),
        (b"VRFY", 501, "5.5.4"),
        (b"DATA x", 501, "5.5.4"),
        (b"RSET x", 501, "5.5.4"),
        (b"QUIT x", 501, "5.5.4"),
        (b"STARTTLS x", 501, "5.5.4"),
        (b"MAIL", 501, "5.5.4"),
        (b"MAIL <a@b>", 501, "5.5.4"),
        (b"RCPT TO:<>", 501, "5.1.3"),
        (b"BDAT", 501, "5.5.4"),
        (b"BDAT x", 501, "5.5.4"),
        (b"BDAT -1", 501, "5.5.4"),
        (b"BDAT 1.0", 501, "5.5.4"),
        (b"BDAT 100000000000000000000", 501, "5.5.4"),
        ("BDAT \u0663".encode(), 501, "5.5.4"),
        (b"MAIL FROM:<a@b> SIZE=268435457", 552, "5.3.4"),
        ("MAIL FROM:<> SIZE=\u0663".encode(), 501, "5.5.4"),
        (b"MAIL FROM:<a@b> X-Y=1", 555, "5.5.4"),
        (b"MAIL FROM:<a@b> X Y", 555, "5.5.4"),
        (b"MAIL FROM:<a@b> X X", 501, "5.5.4"),
        (b"MAIL FROM:<a@b> SIZE=1 size=2", 501, "5.5.4"),
        (b"MAIL FROM:<a@b> BODY=9BIT", 501, "5.5.4"),
        (b"RCPT TO:<a@b> SIZE=1", 555, "5.5.4"),
        (b"RCPT TO:<a@b> BODY=7BIT", 555, "5.5.4"),
    ],
)
def test_refuses(line: bytes, code: int, enhanced: str) -> None:
    error = _refusal(line)
    assert (error.reply.code, error.reply.enhanced) == (code, enhanced)
    assert error.skip == 0
    assert not error.fatal


@pytest.mark.parametrize(
    "line", ["MA\u0131L FROM:<a@b>", "R\u017fET", "HEL\ufb00", "DATA\u0131", "QU\u0131T"]
)
def test_only_ascii_letters_fold(line: str) -> None:
    # RFC 5321 2.4.
    assert _refusal(line.encode()).reply.code == 500


def test_a_marker_folds_in_ascii_alone() -> None:
    error = _refusal("BDAT 5 LA\u017fT".encode())
    assert (error.reply.code, error.skip) == (501, 5)


def test_a_value_folds_in_ascii_alone() -> None:
    assert _refusal("MAIL FROM:<> BODY=8B\u0131TM\u0131ME".encode()).reply.code == 501


@pytest.mark.parametrize("line", [b"BDAT 5 FIRST", b"BDAT 5  LAST", b"BDAT 5 LAST LAST"])
def test_the_octets_of_a_chunk_with_a_bad_marker_are_known(line: bytes) -> None:
    assert _refusal(line).skip == 5


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1",
        b"GET /\x01 HTTP/1.1",
        b"POST\x00/",
        b"post /x",
        b"Host: x",
        b"PRI * HTTP/2.0",
        b"CONNECT x:25 HTTP/1.1",
        b"OPTIONS * RTSP/1.0",
    ],
)
def test_other_protocols_are_fatal(line: bytes) -> None:
    error = _refusal(line)
    assert error.fatal
    assert error.reply.code == 500


def _parse(line: bytes) -> tuple[Verb, Command] | Reply:
    """The command, or the reply of the error."""
    try:
        return _PARSER.parse(line)
    except CommandError as error:
        return error.reply


@given(st.binary(max_size=120))
def test_any_octets(line: bytes) -> None:
    parsed = _parse(line)
    if isinstance(parsed, Reply):
        assert 500 <= parsed.code <= 599
    else:
        verb, command = parsed
        assert verb.value.startswith(type(command).__name__.upper())


_WORDS = st.sampled_from(
    [
        *("LHLO", "MAIL FROM:", "RCPT TO:", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "HELP", "QUIT"),
        *("STARTTLS", "<", ">", "<a@b>", "<>", " ", "  ", "@", '"', "\\", "SIZE=", "BODY=", "1"),
        *("LAST", "9" * 20, "[", "]", "IPv6:", "::1", ":", ",", ".", "=", "\t", "\x00", "\r"),
        *("ü", "\u2028"),
    ]
)


@given(st.lists(_WORDS, max_size=12).map("".join))
def test_any_mixture_of_what_commands_are_made_of(text: str) -> None:
    parsed = _parse(text.encode())
    assert not isinstance(parsed, Reply) or 500 <= parsed.code <= 599


_TEXT = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)
_ADDRESSES = st.builds(
    Address,
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    st.just("example.org"),
)
_COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(Lhlo, domain=_TEXT),
    st.builds(
        Mail,
        reverse_path=_ADDRESSES | st.none(),
        parameters=st.builds(
            MailParameters,
            size=st.integers(0, 268435456) | st.none(),
            body=st.sampled_from(Body) | st.none(),
        ),
    ),
    st.builds(Bdat, size=st.integers(0, 10**20 - 1), last=st.booleans()),
    st.builds(Noop, text=_TEXT | st.just("")),
    st.builds(Vrfy, text=_TEXT),
    st.builds(Help, text=_TEXT | st.just("")),
    st.sampled_from([Data(), Rset(), Quit(), StartTls()]),
)


@given(_COMMANDS)
def test_what_is_written_is_read(command: Command) -> None:
    line = encode_command(command)
    assert line.endswith(b"\r\n")
    assert _PARSER.parse(line[:-2])[1] == command


@given(_ADDRESSES)
def test_rcpt_that_is_written_is_read(address: Address) -> None:
    line = encode_command(Rcpt(recipient=Recipient(address=address)))
    _, command = _PARSER.parse(line[:-2])
    assert isinstance(command, Rcpt)
    assert command.recipient.address == address


@pytest.mark.parametrize(
    ("offered", "needed"),
    [
        (Extension.BINARYMIME, Extension.CHUNKING),
        (Extension.SMTPUTF8, Extension.EIGHTBITMIME),
    ],
)
def test_what_needs_another_extension_is_nothing_without_it(
    offered: Extension, needed: Extension
) -> None:
    # RFC 3030 3, RFC 6531 3.1.
    assert CommandParser(Limits(), frozenset({offered})).extensions == frozenset()
    both = frozenset({offered, needed})
    assert CommandParser(Limits(), both).extensions == both
