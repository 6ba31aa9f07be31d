"""Paths of MAIL and RCPT: what is taken and what it means, what is refused (RFC 5321 4.1.2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import Address, CommandParser, Limits, Mail, PathError, Rcpt, parse_mailbox
from lmtp_proto._command import CommandError

_PARSER = CommandParser(Limits(), frozenset())


def _path(text: str) -> Address | None:
    """The reverse-path that MAIL reads from the path `text`. Raises CommandError."""
    _, command = _PARSER.parse(f"MAIL FROM:{text}".encode())
    assert isinstance(command, Mail)
    return command.reverse_path


_TAKEN = [
    ("<a@b>", "a", "b", "a@b"),
    ("<A.b@Example.ORG>", "A.b", "Example.ORG", "A.b@Example.ORG"),
    ("<john.q.public@example.org>", "john.q.public", "example.org", "john.q.public@example.org"),
    ("<o'hara@example.org>", "o'hara", "example.org", "o'hara@example.org"),
    ("<user+detail@example.org>", "user+detail", "example.org", "user+detail@example.org"),
    ("<+@example.org>", "+", "example.org", "+@example.org"),
    ("<!#$%&'*+-/=?^_`{|}~@b>", "!#$%&'*+-/=?^_`{|}~", "b", "!#$%&'*+-/=?^_`{|}~@b"),
    # Quoted strings are resolved and come back only where they are needed.
    ('<"alice"@b>', "alice", "b", "alice@b"),
    (r'<"al\ice"@b>', "alice", "b", "alice@b"),
    ('<"john smith <x>@y"@b>', "john smith <x>@y", "b", '"john smith <x>@y"@b'),
    (r'<"a\"b\\c"@b>', 'a"b\\c', "b", r'"a\"b\\c"@b'),
    ('<"a>b"@b>', "a>b", "b", '"a>b"@b'),
    ('<"a,b;c:d"@b>', "a,b;c:d", "b", '"a,b;c:d"@b'),
    ('<" "@b>', " ", "b", '" "@b'),
    ('<".a"@b>', ".a", "b", '".a"@b'),
    ('<"a."@b>', "a.", "b", '"a."@b'),
    ('<"a..b"@b>', "a..b", "b", '"a..b"@b'),
    ('<"a@b"@c>', "a@b", "c", '"a@b"@c'),
    ('<""@b>', "", "b", '""@b'),
    (r'<"\""@b>', '"', "b", r'"\""@b'),
    (r'<"\\"@b>', "\\", "b", r'"\\"@b'),
    # Source routes are read over.
    ("<@a,@b:c@d>", "c", "d", "c@d"),
    ("<@a.example:c@d>", "c", "d", "c@d"),
    ("<@[192.0.2.1]:c@d>", "c", "d", "c@d"),
    ('<@a:"x@y:z"@d>', "x@y:z", "d", '"x@y:z"@d'),
    # Literals keep their brackets.
    ("<a@[192.0.2.1]>", "a", "[192.0.2.1]", "a@[192.0.2.1]"),
    ("<a@[255.255.255.255]>", "a", "[255.255.255.255]", "a@[255.255.255.255]"),
    ("<a@[IPv6:2001:db8::1]>", "a", "[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"),
    ("<a@[ipv6:::1]>", "a", "[ipv6:::1]", "a@[ipv6:::1]"),
    ("<a@[IPv6:::ffff:192.0.2.1]>", "a", "[IPv6:::ffff:192.0.2.1]", "a@[IPv6:::ffff:192.0.2.1]"),
    ("<a@[x-tag:content]>", "a", "[x-tag:content]", "a@[x-tag:content]"),
    # Domains.
    ("<a@b-c.d>", "a", "b-c.d", "a@b-c.d"),
    ("<a@1.2.3>", "a", "1.2.3", "a@1.2.3"),
    ("<a@xn--bcher-kva.example>", "a", "xn--bcher-kva.example", "a@xn--bcher-kva.example"),
]


@pytest.mark.parametrize(("text", "local_part", "domain", "again"), _TAKEN)
def test_taken(text: str, local_part: str, domain: str, again: str) -> None:
    address = _path(text)
    assert address == Address(local_part, domain)
    assert str(address) == again
    assert _path(f"<{again}>") == address


def test_the_null_path() -> None:
    assert _path("<>") is None


@pytest.mark.parametrize("name", ["Postmaster", "postmaster", "POSTMASTER", '"postmaster"'])
def test_postmaster_needs_no_domain(name: str) -> None:
    # RFC 5321 4.1.1.3.
    _, command = _PARSER.parse(f"RCPT TO:<{name}>".encode())
    assert isinstance(command, Rcpt)
    assert command.recipient.address.local_part.lower() == "postmaster"
    assert command.recipient.address.domain == ""


_REFUSED = [
    *("", "a@b", "<a@b", "a@b>", "<<a@b>", "<a@b>>", "<a@b>x", "<a@b >", "< a@b>", " <a@b>"),
    *("<.a@b>", "<a.@b>", "<a..b@b>", "<.@b>", "<a@b@c>", "<a b@c>", "<a(c)@b>", "<a,b@c>"),
    *("<a;b@c>", "<a:b@c>", "<a[b@c>", "<a\\b@c>", "<@b>", "<@>", "<a@>", "<.>"),
    *('<"a@b>', '<a"@b>', '<"a"b@c>', '<a"b"@c>', '<"a"."b"@c>', '<"a""b"@c>', '<"a\\"@b>'),
    *('<"a"@>', '<"a" @b>', '<"a">@b', '<">', '<"'),
    *("<@a>", "<@a:>", "<@:a@b>", "<@a,b:c@d>", "<@a,:c@d>", "<@a@b:c@d>", "<@a b:c@d>", "<@a,>"),
    *("<a@.b>", "<a@b..c>", "<a@b.>", "<a@-b>", "<a@b->", "<a@b-.c>", "<a@b_c>", "<a@b c>"),
    *("<a@b/c>", "<a@b,c>", "<a@(b)>", '<a@"b">', "<a@b\\c>"),
    *("<a@[]>", "<a@[192.0.2.1>", "<a@192.0.2.1]>", "<a@[192.0.2.1]x>", "<a@[256.1.1.1]>"),
    *("<a@[1.2.3]>", "<a@[1.2.3.4.5]>", "<a@[ 1.2.3.4]>", "<a@[1.2.3.4]>]", "<a@[[1.2.3.4]]>"),
    *("<a@[IPv6:zz]>", "<a@[IPv6:]>", "<a@[IPv6:1:2]>", "<a@[IPv6:1.2.3.4]>", "<a@[::1]>"),
    *("<a@[IPv6:fe80::1%eth0]>", "<a@[tag:]>", "<a@[:x]>", "<a@[-:x]>", "<a@[x y:z]>"),
    *("<a@" + "b" * 64 + ">", "<a@" + "b." * 127 + "bb>", "<@" + "b" * 64 + ":a@b>"),
    # RFC 5321 4.1.2: only Postmaster goes without a domain.
    *("<a>", '<"">', '<"a b">', "<@x:a>"),
]


@pytest.mark.parametrize("text", _REFUSED)
@pytest.mark.parametrize("command", ["MAIL FROM:", "RCPT TO:"])
def test_refused(command: str, text: str) -> None:
    with pytest.raises(CommandError) as caught:
        _PARSER.parse(f"{command}{text}".encode())
    reply = caught.value.reply
    assert reply.code == 501
    assert reply.enhanced in ("5.1.7" if command == "MAIL FROM:" else "5.1.3", "5.5.4")


@pytest.mark.parametrize("octet", [*range(32), 127])
def test_control_octets_are_refused_quoted_or_not(octet: int) -> None:
    for path in (b"<a%cb@c>", b'<"a%cb"@c>', b'<"a\\%cb"@c>', b"<a@b%cc>", b"<a@[x:%cy]>"):
        with pytest.raises(CommandError) as caught:
            _PARSER.parse(b"RCPT TO:" + path % octet)
        assert caught.value.reply.code // 100 == 5


@pytest.mark.parametrize(
    "path", ["<ü@b>", "<a@bücher.example>", '<"ü"@b>', "<a@[x:ü]>", "<@ü:a@b>", "<日本@例え.jp>"]
)
def test_beyond_ascii_needs_an_extension(path: str) -> None:
    # RFC 6531 3.5.
    with pytest.raises(CommandError) as caught:
        _PARSER.parse(f"MAIL FROM:{path}".encode())
    assert caught.value.reply.code in (501, 550)


@pytest.mark.parametrize("length", [64, 65, 1000, 3000])
def test_local_parts_have_no_limit_of_their_own(length: int) -> None:
    # RFC 5321 4.5.3.1.1.
    assert _path(f"<{'a' * length}@b>") == Address("a" * length, "b")


def test_lengths_that_are_taken() -> None:
    assert _path(f"<a@{'b' * 63}.c>") is not None
    # 255 octets.
    assert _path(f"<a@{'b.' * 127}c>") is not None


@pytest.mark.parametrize(
    "text",
    [
        '<"' + "\\a" * 2000 + "@b>",
        '<"' + '\\"' * 2000,
        "<" + "a." * 2000 + "@b>",
        "<" + "a" * 4000 + "!",
        "<@" + "a," * 2000 + ">",
        "<a@" + "b-" * 120 + ">",
        "<a@[" + "a-" * 2000 + "]>",
        "<a@[" + "1." * 2000 + "]>",
        "<a@[IPv6:" + "1:" * 2000 + "]>",
        "<" * 4000,
        '"' * 4000,
    ],
)
def test_long_nonsense_is_refused(text: str) -> None:
    # A pattern that backtracks would run into the time limit of the tests.
    for _ in range(100):
        with pytest.raises(CommandError):
            _path(text)


_LOCAL = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80)
_LABEL = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?", fullmatch=True)
_DOMAINS = st.lists(_LABEL, min_size=1, max_size=5).map(".".join) | st.sampled_from(
    ["[192.0.2.1]", "[IPv6:2001:db8::1]"]
)


@given(_LOCAL, _DOMAINS)
def test_round_trip(local_part: str, domain: str) -> None:
    address = Address(local_part, domain)
    assert _path(f"<{address}>") == address
    assert parse_mailbox(str(address)) == address


@given(_LOCAL, _LOCAL, _DOMAINS)
def test_what_differs_is_written_differently(one: str, other: str, domain: str) -> None:
    assert (str(Address(one, domain)) == str(Address(other, domain))) == (one == other)


@given(st.text(st.sampled_from('<>@.,:;"\\[]() ab1-ü\x00\r\n'), max_size=30))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_mailbox(text)
    except PathError:
        return
    assert parse_mailbox(str(address)) == address


@pytest.mark.parametrize(
    ("local_part", "domain"),
    [
        ("a\r\nb", "c"),
        ("a", "c>\r\nRSET"),
        ("a", "b\x00"),
        ("a\x7f", "b"),
        ("a", "b c"),
        ("a", ".b"),
    ],
)
def test_what_no_path_could_carry_is_no_address(local_part: str, domain: str) -> None:
    with pytest.raises(PathError):
        Address(local_part, domain)
