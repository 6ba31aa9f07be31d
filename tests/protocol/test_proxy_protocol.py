"""The PROXY protocol: headers of both versions, whole and in pieces, and what is none."""

import itertools
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import (
    LocalProtocolError,
    ProxyEndpoint,
    ProxyHeader,
    ProxyHeaderReader,
    ProxyProtocolError,
    ProxySsl,
    ProxyTlv,
    ProxyUnixEndpoint,
    RemoteProtocolError,
    encode_proxy_header,
    encode_proxy_line,
)

_SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")


def _read(data: bytes) -> tuple[ProxyHeader | None, bytes]:
    reader = ProxyHeaderReader()
    return reader.feed(data), reader.rest


def _binary(command: int, family: int, block: bytes) -> bytes:
    return _SIGNATURE + bytes((command, family)) + len(block).to_bytes(2, "big") + block


_V4 = bytes((192, 168, 0, 1, 192, 168, 0, 11)) + (56324).to_bytes(2, "big") + b"\x01\xbb"
_V4_HEADER = ProxyHeader(
    source=ProxyEndpoint(host="192.168.0.1", port=56324),
    destination=ProxyEndpoint(host="192.168.0.11", port=443),
)


def _with_tlvs(*tlvs: tuple[int, bytes]) -> bytes:
    block = b"".join(bytes((kind,)) + len(v).to_bytes(2, "big") + v for kind, v in tlvs)
    return _binary(0x21, 0x11, _V4 + block)


_LONGEST = b":".join([b"ffff"] * 8)
_LINES = [
    # Section 2.1.
    (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", _V4_HEADER),
    (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ProxyHeader(
            source=ProxyEndpoint(host="255.255.255.255", port=65535),
            destination=ProxyEndpoint(host="255.255.255.255", port=65535),
        ),
    ),
    (
        b"PROXY TCP6 %b %b 65535 65535\r\n" % (_LONGEST, _LONGEST),
        ProxyHeader(
            source=ProxyEndpoint(host=_LONGEST.decode(), port=65535),
            destination=ProxyEndpoint(host=_LONGEST.decode(), port=65535),
        ),
    ),
    (
        b"PROXY TCP6 2001:DB8:0::1 ::ffff:192.0.2.1 0 24\r\n",
        ProxyHeader(
            source=ProxyEndpoint(host="2001:db8::1", port=0),
            # How it is spelt depends on the version of Python.
            destination=ProxyEndpoint(host=str(IPv6Address("::ffff:192.0.2.1")), port=24),
        ),
    ),
    (b"PROXY UNKNOWN\r\n", ProxyHeader()),
    (
        b"PROXY UNKNOWN %b %b 65535 65535\r\n" % (_LONGEST, _LONGEST),
        ProxyHeader(),
    ),
    (b"PROXY UNKNOWN \xff what ever\r\n", ProxyHeader()),
]
_BINARIES = [
    (_binary(0x21, 0x11, _V4), _V4_HEADER),
    (
        _binary(0x21, 0x21, bytes(15) + b"\x01" + b"\x20\x01\x0d\xb8" + bytes(12) + b"\0\1\0\2"),
        ProxyHeader(
            source=ProxyEndpoint(host="::1", port=1),
            destination=ProxyEndpoint(host="2001:db8::", port=2),
        ),
    ),
    (
        _binary(0x21, 0x31, b"/run/a".ljust(108, b"\0") + b"\0name".ljust(108, b"\0")),
        ProxyHeader(
            source=ProxyUnixEndpoint(path=b"/run/a"),
            destination=ProxyUnixEndpoint(path=b"\0name"),
        ),
    ),
    (
        _binary(0x21, 0x31, b"a\0b".ljust(108, b"\0") + b"x" * 108),
        ProxyHeader(
            source=ProxyUnixEndpoint(path=b"a"), destination=ProxyUnixEndpoint(path=b"x" * 108)
        ),
    ),
    # LOCAL: the rest is discarded unread.
    (_binary(0x20, 0x00, b""), ProxyHeader(local=True)),
    (_binary(0x20, 0x11, _V4), ProxyHeader(local=True)),
    (_binary(0x20, 0xFF, b"whatever"), ProxyHeader(local=True)),
    # UNSPEC, and datagrams, which are taken for it.
    (_binary(0x21, 0x00, b""), ProxyHeader()),
    (_binary(0x21, 0x00, b"whatever"), ProxyHeader()),
    (_binary(0x21, 0x12, _V4), ProxyHeader()),
    (_binary(0x21, 0x10, _V4), ProxyHeader()),
    (_binary(0x21, 0x00, bytes(65535)), ProxyHeader()),
]
_TLVS = [
    ([(1, b"h2")], replace(_V4_HEADER, alpn=b"h2")),
    ([(2, "bücher.example".encode())], replace(_V4_HEADER, authority="bücher.example")),
    ([(4, b""), (4, bytes(9))], _V4_HEADER),
    ([(5, b"x" * 128)], replace(_V4_HEADER, unique_id=b"x" * 128)),
    ([(0x30, b"blue")], replace(_V4_HEADER, netns="blue")),
    (
        [(0xE0, b""), (0xEA, b"one"), (0xEA, b"two")],
        replace(
            _V4_HEADER,
            tlvs=(
                ProxyTlv(type=0xE0, value=b""),
                ProxyTlv(type=0xEA, value=b"one"),
                ProxyTlv(type=0xEA, value=b"two"),
            ),
        ),
    ),
    ([(0x20, bytes(5))], replace(_V4_HEADER, ssl=ProxySsl(tls=False))),
    (
        [
            (
                0x20,
                b"".join(
                    (
                        b"\x07\0\0\0\0",
                        b"\x21\0\x07TLSv1.3",
                        b"\x22\0\x0bexample.com",
                        b"\x23\0\x03AES",
                        b"\x24\0\x04RSA2",
                        b"\x25\0\x07RSA2048",
                        b"\x26\0\x06X25519",
                    )
                ),
            )
        ],
        replace(
            _V4_HEADER,
            ssl=ProxySsl(
                certificate=True,
                session_certificate=True,
                version="TLSv1.3",
                common_name="example.com",
                cipher="AES",
                signature_algorithm="RSA2",
                key_algorithm="RSA2048",
                tlvs=(ProxyTlv(type=0x26, value=b"X25519"),),
            ),
        ),
    ),
]
_WHOLE = [*_LINES, *_BINARIES, *((_with_tlvs(*tlvs), header) for tlvs, header in _TLVS)]


@pytest.mark.parametrize(("octets", "header"), _WHOLE)
def test_reads(octets: bytes, header: ProxyHeader) -> None:
    assert _read(octets) == (header, b"")


@pytest.mark.parametrize(("octets", "header"), _WHOLE)
def test_what_follows_is_kept(octets: bytes, header: ProxyHeader) -> None:
    behind = b"LHLO x\r\nPROXY UNKNOWN\r\n"
    assert _read(octets + behind) == (header, behind)


@pytest.mark.parametrize(("octets", "header"), _WHOLE)
def test_nothing_is_known_before_the_last_octet(octets: bytes, header: ProxyHeader) -> None:
    reader = ProxyHeaderReader()
    for octet in octets[:-1]:
        assert reader.feed(bytes((octet,))) is None
        assert reader.rest == b""
    assert reader.feed(b"") is None
    assert reader.feed(octets[-1:] + b"Q") == header
    assert reader.rest == b"Q"


_NONE = [
    b"LHLO x\r\n",
    b"proxy TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY  UNKNOWN\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UNKNOWN\nLHLO x\r\n",
    b"PROXY UNKNOWN\rLHLO x\r\n",
    b"PROXY UDP4 192.168.0.1 192.168.0.11 56324 443\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
    b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 \r\n",
    b"PROXY TCP4 192.168.0.1 192.168.0.11 56324  443\r\n",
    b"PROXY TCP4 192.168.0.01 192.168.0.11 56324 443\r\n",
    b"PROXY TCP4 192.168.0.256 192.168.0.11 56324 443\r\n",
    b"PROXY TCP4 ::1 ::1 56324 443\r\n",
    b"PROXY TCP6 192.168.0.1 192.168.0.11 56324 443\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n",
    b"PROXY TCP6 :::1 ::1 56324 443\r\n",
    b"PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
    b"PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
    b"PROXY TCP4 192.168.0.1 192.168.0.11 -1 443\r\n",
    b"PROXY TCP4 192.168.0.1 192.168.0.11 +1 443\r\n",
    b"PROXY TCP4 192.168.0.1 192.168.0.11 \xb2 443\r\n",
    b"PROXY TCP4 192.168.0.1 192.168.0.11 1_0 443\r\n",
    b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n",
    _SIGNATURE[:-1] + b"\x0b\x21\x11\x00\x00",
    _binary(0x11, 0x11, _V4),
    _binary(0x31, 0x11, _V4),
    _binary(0x22, 0x11, _V4),
    _binary(0x2F, 0x00, b""),
    _binary(0x21, 0x41, _V4),
    _binary(0x21, 0x13, _V4),
    _binary(0x21, 0xFF, b""),
    _binary(0x21, 0x11, _V4[:-1]),
    _binary(0x21, 0x11, b""),
    _binary(0x21, 0x21, _V4),
    _binary(0x21, 0x31, bytes(215)),
    _binary(0x21, 0x11, _V4 + b"\x01"),
    _binary(0x21, 0x11, _V4 + b"\x01\x00"),
    _binary(0x21, 0x11, _V4 + b"\x01\x00\x02h"),
    _with_tlvs((2, b"\xff")),
    _with_tlvs((0x30, "ü".encode())),
    _with_tlvs((5, bytes(129))),
    _with_tlvs((2, b"a"), (2, b"b")),
    _with_tlvs((0x20, bytes(4))),
    _with_tlvs((0x20, bytes(5) + b"\x21\x00\x01")),
    _with_tlvs((0x20, bytes(5) + b"\x21\x00\x00\x21\x00\x00")),
    _with_tlvs((0x20, bytes(5) + b"\x23\x00\x01\xff")),
    _with_tlvs((3, bytes(3))),
    _with_tlvs((3, bytes(4))),
]


@pytest.mark.parametrize("octets", _NONE)
def test_what_is_no_header(octets: bytes) -> None:
    with pytest.raises(ProxyProtocolError):
        _read(octets)
    reader = ProxyHeaderReader()

    def one_at_a_time() -> None:
        for octet in octets:
            assert reader.feed(bytes((octet,))) is None

    with pytest.raises(ProxyProtocolError):
        one_at_a_time()


def test_a_server_may_catch_it_as_the_peers_fault() -> None:
    with pytest.raises(RemoteProtocolError, match="not a PROXY header"):
        _read(b"\x16\x03\x01")


def test_the_line_has_107_octets_at_most() -> None:
    line = b"PROXY UNKNOWN ".ljust(105, b"x")
    assert _read(line + b"\r\n") == (ProxyHeader(), b"")
    reader = ProxyHeaderReader()
    assert reader.feed(line + b"x") is None
    with pytest.raises(ProxyProtocolError):
        reader.feed(b"\r")


def test_the_session_is_not_fed_here() -> None:
    reader = ProxyHeaderReader()
    reader.feed(b"PROXY UNKNOWN\r\n")
    with pytest.raises(LocalProtocolError):
        reader.feed(b"LHLO x\r\n")


def _checksum(octets: bytes) -> bytes:
    """CRC-32C bit by bit."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return (crc ^ 0xFFFFFFFF).to_bytes(4, "big")


class TestChecksum:
    octets = encode_proxy_header(replace(_V4_HEADER, authority="x"))

    def test_published_octets(self) -> None:
        # RFC 3720 B.4: 32 octets of zeros, of ones, and counted up.
        assert _checksum(bytes(32)) == bytes.fromhex("8a9136aa")
        assert _checksum(b"\xff" * 32) == bytes.fromhex("62a8ab43")
        assert _checksum(bytes(range(32))) == bytes.fromhex("46dd794e")

    def test_known_header(self) -> None:
        assert self.octets[-4:] == _checksum(self.octets[:-4] + bytes(4))
        assert _read(self.octets) == (replace(_V4_HEADER, authority="x"), b"")

    @pytest.mark.parametrize("bit", range(8))
    @pytest.mark.parametrize("place", [16, 27, 31, -1])
    def test_one_bit_is_wrong(self, place: int, bit: int) -> None:
        octets = bytearray(self.octets)
        octets[place] ^= 1 << bit
        with pytest.raises(ProxyProtocolError):
            _read(bytes(octets))

    def test_wherever_it_stands(self) -> None:
        octets = _with_tlvs((3, bytes(4)), (4, b"pad"))
        octets = _with_tlvs((3, _checksum(octets)), (4, b"pad"))
        assert _read(octets) == (_V4_HEADER, b"")


@pytest.mark.parametrize(
    ("ssl", "verified"),
    [
        (ProxySsl(), False),
        (ProxySsl(certificate=True), True),
        (ProxySsl(session_certificate=True), True),
        (ProxySsl(certificate=True, verify=1), False),
    ],
)
def test_verified(ssl: ProxySsl, verified: bool) -> None:
    assert ssl.verified is verified


def test_endpoints_are_told_as_addresses_are_written() -> None:
    assert str(ProxyEndpoint(host="192.0.2.1", port=24)) == "192.0.2.1:24"
    assert str(ProxyEndpoint(host="::1", port=24)) == "[::1]:24"


@pytest.mark.parametrize(
    ("host", "port"),
    [("x", 1), ("::0", 1), ("::1%lo", 1), ("192.0.2.1", -1), ("192.0.2.1", 65536), ("", 0)],
)
def test_what_is_no_endpoint(host: str, port: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        ProxyEndpoint(host=host, port=port)


@pytest.mark.parametrize("path", [b"x" * 109, b"a\0", b"a\0b", b"\0", b"\0a\0"])
def test_what_is_no_unix_endpoint(path: bytes) -> None:
    with pytest.raises(ValueError, match="no path"):
        ProxyUnixEndpoint(path=path)


_V6 = ProxyEndpoint(host="::1", port=1)
_FOUR = ProxyEndpoint(host="192.0.2.1", port=1)
_PATH = ProxyUnixEndpoint(path=b"/x")


@pytest.mark.parametrize(
    "header",
    [
        ProxyHeader(local=True),
        replace(_V4_HEADER, alpn=b"x"),
        ProxyHeader(source=_PATH, destination=_PATH),
        ProxyHeader(source=_FOUR),
        ProxyHeader(source=_FOUR, destination=_V6),
    ],
)
def test_what_a_line_cannot_say(header: ProxyHeader) -> None:
    with pytest.raises(ValueError, match=r"version 1|two address families"):
        encode_proxy_line(header)


@pytest.mark.parametrize(
    "header",
    [
        ProxyHeader(source=_FOUR),
        ProxyHeader(destination=_FOUR),
        ProxyHeader(local=True, alpn=b"x"),
        ProxyHeader(local=True, source=_FOUR, destination=_FOUR),
        ProxyHeader(source=_FOUR, destination=_PATH),
        replace(_V4_HEADER, unique_id=bytes(129)),
        replace(_V4_HEADER, alpn=bytes(65536)),
        replace(_V4_HEADER, alpn=bytes(40000), authority="x" * 40000),
        replace(_V4_HEADER, tlvs=(ProxyTlv(type=1, value=b""),)),
        replace(_V4_HEADER, tlvs=(ProxyTlv(type=4, value=b""),)),
        replace(_V4_HEADER, tlvs=(ProxyTlv(type=256, value=b""),)),
        replace(_V4_HEADER, ssl=ProxySsl(tlvs=(ProxyTlv(type=0x21, value=b""),))),
    ],
)
def test_what_a_header_cannot_carry(header: ProxyHeader) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_proxy_header(header)


_ports = st.integers(0, 65535)
_v4 = st.builds(ProxyEndpoint, host=st.ip_addresses(v=4).map(str), port=_ports)
_v6 = st.builds(ProxyEndpoint, host=st.ip_addresses(v=6).map(str), port=_ports)
_unix = st.builds(
    ProxyUnixEndpoint,
    path=st.binary(max_size=107).map(lambda path: path.rstrip(b"\0").replace(b"\0", b"a")),
)
_ends = st.one_of(st.tuples(_v4, _v4), st.tuples(_v6, _v6), st.tuples(_unix, _unix))
_ascii = st.none() | st.text(st.characters(max_codepoint=127), max_size=20)
_utf8 = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
_ssl = st.builds(
    ProxySsl,
    tls=st.booleans(),
    certificate=st.booleans(),
    session_certificate=st.booleans(),
    verify=st.integers(0, 2**32 - 1),
    version=_ascii,
    common_name=_utf8,
    cipher=_ascii,
    signature_algorithm=_ascii,
    key_algorithm=_ascii,
    tlvs=st.lists(
        st.builds(ProxyTlv, type=st.integers(0x26, 0x2F), value=st.binary(max_size=9)), max_size=3
    ).map(tuple),
)
_said = st.builds(
    ProxyHeader,
    alpn=st.none() | st.binary(max_size=20),
    authority=_utf8,
    unique_id=st.none() | st.binary(max_size=128),
    ssl=st.none() | _ssl,
    netns=_ascii,
    tlvs=st.lists(
        st.builds(ProxyTlv, type=st.integers(0xE0, 0xFF), value=st.binary(max_size=9)), max_size=3
    ).map(tuple),
)
_headers = st.builds(
    lambda header, ends: replace(header, source=ends[0], destination=ends[1]), _said, _ends
)


@pytest.mark.parametrize(
    "header", [header for _, header in _BINARIES] + [header for _, header in _TLVS]
)
def test_each_kind_of_header_is_read_as_it_is_written(header: ProxyHeader) -> None:
    assert _read(encode_proxy_header(header) + b"x") == (header, b"x")


@pytest.mark.parametrize("header", [header for _, header in _LINES])
def test_each_kind_of_line_is_read_as_it_is_written(header: ProxyHeader) -> None:
    assert _read(encode_proxy_line(header) + b"x") == (header, b"x")


@given(header=_headers | st.sampled_from([ProxyHeader(), ProxyHeader(local=True)]))
def test_what_is_written_is_read(header: ProxyHeader) -> None:
    assert _read(encode_proxy_header(header) + b"x") == (header, b"x")


@given(ends=st.one_of(st.tuples(_v4, _v4), st.tuples(_v6, _v6), st.just((None, None))))
def test_lines_that_are_written_are_read(
    ends: tuple[ProxyEndpoint | None, ProxyEndpoint | None],
) -> None:
    header = ProxyHeader(source=ends[0], destination=ends[1])
    line = encode_proxy_line(header)
    assert len(line) <= 107
    assert _read(line + b"\r\n") == (header, b"\r\n")


def _outcome(pieces: list[bytes]) -> tuple[ProxyHeader | None, bytes] | None:
    """The header and what is behind it; None for what is no header."""
    reader = ProxyHeaderReader()
    for number, piece in enumerate(pieces):
        try:
            header = reader.feed(piece)
        except ProxyProtocolError:
            return None
        if header is not None:
            return header, reader.rest + b"".join(pieces[number + 1 :])
    return None, reader.rest


_octets = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda data: _SIGNATURE + data),
    st.binary(max_size=60).map(lambda data: _binary(0x21, 0x11, _V4 + data) + b"NOOP\r\n"),
    st.text("PROXYTCP46UNKNOWN 0123456789abcdef:.\r\n", max_size=110).map(
        lambda text: b"PROXY " + text.encode()
    ),
    _headers.map(encode_proxy_header),
    st.sampled_from([octets for octets, _ in _WHOLE] + _NONE),
)


@given(octets=_octets, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_any_split_of_any_octets(octets: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(octets)), len(octets)]
    pieces = [octets[a:b] for a, b in itertools.pairwise(places)]
    assert _outcome(pieces) == _outcome([octets])
