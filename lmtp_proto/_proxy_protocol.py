"""The PROXY protocol, versions 1 and 2: whom a trusted proxy in front of this server speaks for.

A `ProxyHeaderReader` stands in front of a connection and takes its first octets. Whatever they are
and however they are divided, it ends in one header, with the octets behind it kept exactly, or in a
`ProxyProtocolError`. It never holds more than a header and one read. Sections are those of
HAProxy's proxy-protocol.txt. Whether a peer may send a header is a matter of settings, never of its
first octets (section 5).
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ._errors import LocalProtocolError, RemoteProtocolError

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_TEXT: Final = b"PROXY "
# Section 2.1: the longest line there is, CRLF included.
_LINE_LIMIT: Final = 107
# Section 2.2: signature, version and command, family, length.
_FIXED: Final = 16
_VERSION: Final = 0x20
_LOCAL: Final = 0x0
_PROXY: Final = 0x1
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNIX: Final = 0x31
_UNIX_PATH: Final = 108
_ADDRESSES: Final = {_TCP4: 12, _TCP6: 36, _UNIX: 2 * _UNIX_PATH}
_FAMILIES: Final = range(4)
_PROTOCOLS: Final = range(3)

_ALPN: Final = 0x01
_AUTHORITY: Final = 0x02
_CRC32C: Final = 0x03
_NOOP: Final = 0x04
_UNIQUE_ID: Final = 0x05
_SSL: Final = 0x20
_SSL_VERSION: Final = 0x21
_SSL_CN: Final = 0x22
_SSL_CIPHER: Final = 0x23
_SSL_SIG_ALG: Final = 0x24
_SSL_KEY_ALG: Final = 0x25
_NETNS: Final = 0x30
_KNOWN: Final = frozenset({_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL, _NETNS})
_SSL_KNOWN: Final = frozenset({_SSL_VERSION, _SSL_CN, _SSL_CIPHER, _SSL_SIG_ALG, _SSL_KEY_ALG})
_UNIQUE_ID_LIMIT: Final = 128
_TLV_LIMIT: Final = 0xFFFF

_CLIENT_SSL: Final = 0x01
_CLIENT_CERT_CONN: Final = 0x02
_CLIENT_CERT_SESS: Final = 0x04


class ProxyProtocolError(RemoteProtocolError):
    """The connection does not begin with a PROXY header: drop it, and answer nothing (2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyEndpoint:
    """One end of a TCP connection: `host` is an IP address in its shortest spelling.

    Raises ValueError for what is no IP address or port.
    """

    host: str
    port: int

    def __post_init__(self) -> None:
        address = _ip_address(self.host)
        if str(address) != self.host:
            raise ValueError(f"the shortest spelling of {self.host} is {address}")
        if not 0 <= self.port <= 0xFFFF:
            raise ValueError(f"port {self.port} is not between 0 and 65535")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyUnixEndpoint:
    """One end of a UNIX connection: a path, a name that begins with NUL, or `b""` for none.

    Raises ValueError for what no address of 108 octets can carry.
    """

    path: bytes

    def __post_init__(self) -> None:
        if len(self.path) > _UNIX_PATH or _unix_path(self.path) != self.path:
            raise ValueError(f"{self.path!r} is no path of a UNIX socket")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyTlv:
    """A value whose `type` (an octet) has no field of its own here."""

    type: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySsl:
    """What the proxy says about its client's TLS (section 2.2.6)."""

    tls: bool = True
    """The client connected over TLS."""
    certificate: bool = False
    """The client showed a certificate on this connection."""
    session_certificate: bool = False
    """The client showed a certificate at least once in this TLS session."""
    verify: int = 0
    """0 when a certificate was shown and verified, else another 32-bit number."""
    version: str | None = None
    common_name: str | None = None
    """Of the client's certificate."""
    cipher: str | None = None
    signature_algorithm: str | None = None
    key_algorithm: str | None = None
    tlvs: tuple[ProxyTlv, ...] = ()
    """All other values, in their order."""

    @property
    def verified(self) -> bool:
        """Whether the client showed a certificate that the proxy has verified."""
        return (self.certificate or self.session_certificate) and self.verify == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyHeader:
    """What the proxy says about the connection.

    Where `source` and `destination` are None the addresses of the connection itself are those that
    count. `local`: the proxy speaks for itself, as a health check does, and says nothing else.
    """

    source: ProxyEndpoint | ProxyUnixEndpoint | None = None
    destination: ProxyEndpoint | ProxyUnixEndpoint | None = None
    local: bool = False
    alpn: bytes | None = None
    authority: str | None = None
    """The host name the client asked for, as by SNI."""
    unique_id: bytes | None = None
    """The proxy's name for the connection, at most 128 octets."""
    ssl: ProxySsl | None = None
    netns: str | None = None
    """The network namespace."""
    tlvs: tuple[ProxyTlv, ...] = ()
    """All other values, in their order."""


class ProxyHeaderReader:
    """Reads the header at the beginning of one connection."""

    __slots__ = ("_data", "_header", "_rest")

    def __init__(self) -> None:
        self._data = bytearray()
        self._rest = b""
        self._header: ProxyHeader | None = None

    @property
    def rest(self) -> bytes:
        """The octets that came behind the header, empty while it is not complete."""
        return self._rest

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Take the next octets; the header once it is complete, None before.

        Raises ProxyProtocolError as soon as no header can come of them, and LocalProtocolError when
        the header was given already: what follows it belongs to the session.
        """
        if self._header is not None:
            raise LocalProtocolError("the PROXY header is complete")
        self._data += data
        end = _end_of_header(self._data)
        if end is None:
            return None
        octets = bytes(self._data[:end])
        header = _read_text(octets[:-2]) if octets.startswith(_TEXT) else _read_binary(octets)
        self._rest = bytes(self._data[end:])
        self._data = bytearray()
        self._header = header
        return header


def _end_of_header(data: bytearray) -> int | None:
    """Where the header ends, None while that is not known. Raises ProxyProtocolError."""
    if data.startswith(_TEXT):
        end = data.find(b"\r\n", 0, _LINE_LIMIT)
        if end >= 0:
            return end + 2
        if len(data) >= _LINE_LIMIT:
            raise ProxyProtocolError(f"no end of line in {_LINE_LIMIT} octets")
        return None
    if data.startswith(_SIGNATURE):
        if len(data) > 12 and data[12] & 0xF0 != _VERSION:
            raise ProxyProtocolError(f"version and command {data[12]:#04x}: version 2 is known")
        if len(data) < _FIXED:
            return None
        end = _FIXED + int.from_bytes(data[14:_FIXED], "big")
        return end if len(data) >= end else None
    begun = bytes(data[: len(_SIGNATURE)])
    if _TEXT.startswith(begun) or _SIGNATURE.startswith(begun):
        return None
    raise ProxyProtocolError(f"not a PROXY header: {bytes(data[:_FIXED])!r}")


def _read_text(line: bytes) -> ProxyHeader:
    """The header of version 1 in `line`, without CRLF (section 2.1)."""
    # Section 2.1: neither a CR nor an LF alone ends the line; behind one another could be hidden.
    if b"\r" in line or b"\n" in line:
        raise ProxyProtocolError(f"bare CR or LF: {line!r}")
    words = line.decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        # What follows is to be ignored.
        return ProxyHeader()
    if words[1] not in ("TCP4", "TCP6") or len(words) != 6:
        raise ProxyProtocolError(f"not a PROXY line: {line!r}")
    colons = words[1] == "TCP6"
    try:
        source, destination = (_endpoint(words[i], words[i + 2], colons=colons) for i in (2, 3))
    except ValueError as error:
        raise ProxyProtocolError(f"{error} in {line!r}") from None
    return ProxyHeader(source=source, destination=destination)


def _endpoint(host: str, port: str, *, colons: bool) -> ProxyEndpoint:
    """Raises ValueError."""
    if (":" in host) is not colons:
        raise ValueError(f"{host} is of another address family")
    # Section 2.1: no leading zero.
    if not (port.isascii() and port.isdigit()) or str(int(port)) != port:
        raise ValueError(f"{port!r} is no port")
    return ProxyEndpoint(host=str(_ip_address(host)), port=int(port))


def _ip_address(text: str) -> IPv4Address | IPv6Address:
    """Raises ValueError."""
    # A scope means something on one host alone.
    if "%" in text:
        raise ValueError(f"{text} has a scope")
    return IPv6Address(text) if ":" in text else IPv4Address(text)


def _read_binary(data: bytes) -> ProxyHeader:
    """The header of version 2 (section 2.2). Raises ProxyProtocolError."""
    command = data[12] & 0x0F
    family = data[13]
    if command == _LOCAL:
        # The rest is to be discarded, the family included.
        return ProxyHeader(local=True)
    if command != _PROXY:
        raise ProxyProtocolError(f"command {command:#x} is not known")
    if family >> 4 not in _FAMILIES or family & 0x0F not in _PROTOCOLS:
        raise ProxyProtocolError(f"address family and protocol {family:#04x} are not known")
    size = _ADDRESSES.get(family)
    if size is None:
        # Section 2.2: UNSPEC, and what is taken for it, as datagrams are that no session is made
        # of. How much of the rest is an address is not known: all of it is left unread.
        return ProxyHeader()
    start = _FIXED + size
    if len(data) < start:
        raise ProxyProtocolError(f"{len(data) - _FIXED} octets hold no addresses of {size}")
    source, destination = _addresses(family, data[_FIXED:start])
    values, others = _split(data, start, _KNOWN)
    if _CRC32C in values:
        _verify(data, start, values[_CRC32C])
    unique_id = values.get(_UNIQUE_ID)
    if unique_id is not None and len(unique_id) > _UNIQUE_ID_LIMIT:
        raise ProxyProtocolError(f"UNIQUE_ID has {len(unique_id)} octets")
    ssl = values.get(_SSL)
    return ProxyHeader(
        source=source,
        destination=destination,
        alpn=values.get(_ALPN),
        authority=_text(values, _AUTHORITY, "utf-8"),
        unique_id=unique_id,
        ssl=None if ssl is None else _read_ssl(ssl),
        netns=_text(values, _NETNS, "ascii"),
        tlvs=others,
    )


_Endpoints = tuple[ProxyEndpoint | ProxyUnixEndpoint, ProxyEndpoint | ProxyUnixEndpoint]


def _addresses(family: int, block: bytes) -> _Endpoints:
    if family == _UNIX:
        return (
            ProxyUnixEndpoint(path=_unix_path(block[:_UNIX_PATH])),
            ProxyUnixEndpoint(path=_unix_path(block[_UNIX_PATH:])),
        )
    size = (len(block) - 4) // 2
    kind = IPv4Address if family == _TCP4 else IPv6Address
    hosts = block[:size], block[size : 2 * size]
    ports = block[-4:-2], block[-2:]
    source, destination = (
        ProxyEndpoint(host=str(kind(host)), port=int.from_bytes(port, "big"))
        for host, port in zip(hosts, ports, strict=True)
    )
    return source, destination


def _unix_path(octets: bytes) -> bytes:
    """The address without what fills it up: the first NUL ends a path, but begins a name."""
    return octets.rstrip(b"\x00") if octets.startswith(b"\x00") else octets.partition(b"\x00")[0]


def _split(
    data: bytes, start: int, known: frozenset[int]
) -> tuple[dict[int, bytes], tuple[ProxyTlv, ...]]:
    """The values of `known` types from `start` on, and the others. Raises ProxyProtocolError."""
    values: dict[int, bytes] = {}
    others = []
    while start < len(data):
        kind = data[start]
        first = start + 3
        start = first + int.from_bytes(data[start + 1 : first], "big")
        if first > len(data) or start > len(data):
            raise ProxyProtocolError(f"value of type {kind:#04x} is cut off")
        value = data[first:start]
        if kind in values:
            # Two readers could each believe another one.
            raise ProxyProtocolError(f"value of type {kind:#04x} is given twice")
        if kind in known:
            values[kind] = value
        elif kind != _NOOP:
            others.append(ProxyTlv(type=kind, value=value))
    return values, tuple(others)


def _text(values: dict[int, bytes], kind: int, encoding: str) -> str | None:
    value = values.get(kind)
    if value is None:
        return None
    try:
        return value.decode(encoding)
    except UnicodeDecodeError:
        raise ProxyProtocolError(f"value of type {kind:#04x} is not {encoding}") from None


def _read_ssl(value: bytes) -> ProxySsl:
    if len(value) < 5:
        raise ProxyProtocolError(f"value of type {_SSL:#04x} is cut off")
    values, others = _split(value, 5, _SSL_KNOWN)
    client = value[0]
    return ProxySsl(
        tls=bool(client & _CLIENT_SSL),
        certificate=bool(client & _CLIENT_CERT_CONN),
        session_certificate=bool(client & _CLIENT_CERT_SESS),
        verify=int.from_bytes(value[1:5], "big"),
        version=_text(values, _SSL_VERSION, "ascii"),
        common_name=_text(values, _SSL_CN, "utf-8"),
        cipher=_text(values, _SSL_CIPHER, "ascii"),
        signature_algorithm=_text(values, _SSL_SIG_ALG, "ascii"),
        key_algorithm=_text(values, _SSL_KEY_ALG, "ascii"),
        tlvs=others,
    )


def _verify(data: bytes, start: int, checksum: bytes) -> None:
    """Section 2.2.3: the checksum of the whole header, zeros in its own place."""
    if len(checksum) != 4:
        raise ProxyProtocolError(f"a checksum of {len(checksum)} octets")
    while data[start] != _CRC32C:
        start += 3 + int.from_bytes(data[start + 1 : start + 3], "big")
    place = start + 3
    if _crc32c(data[:place] + bytes(4) + data[place + 4 :]) != int.from_bytes(checksum, "big"):
        raise ProxyProtocolError("the checksum is wrong")


def _crc32c_table() -> list[int]:
    # RFC 4960 appendix B: the polynomial, its bits reversed.
    table = []
    for octet in range(256):
        for _ in range(8):
            octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)
        table.append(octet)
    return table


_CRC32C_TABLE: Final = _crc32c_table()


def _crc32c(data: bytes) -> int:
    table = _CRC32C_TABLE
    crc = 0xFFFFFFFF
    for octet in data:
        crc = table[(crc ^ octet) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def encode_proxy_line(header: ProxyHeader) -> bytes:
    """`header` in version 1, CRLF included; without addresses it is `PROXY UNKNOWN`.

    Raises ValueError for what version 1 cannot say.
    """
    source, destination = header.source, header.destination
    if header != ProxyHeader(source=source, destination=destination):
        raise ValueError("version 1 carries addresses alone")
    if source is None and destination is None:
        return b"PROXY UNKNOWN\r\n"
    if not isinstance(source, ProxyEndpoint) or not isinstance(destination, ProxyEndpoint):
        raise ValueError("version 1 carries two TCP addresses")
    family = _family(source, destination)
    words = (
        "PROXY",
        "TCP4" if family == _TCP4 else "TCP6",
        source.host,
        destination.host,
        str(source.port),
        str(destination.port),
    )
    return " ".join(words).encode("ascii") + b"\r\n"


def encode_proxy_header(header: ProxyHeader) -> bytes:
    """`header` in version 2, with a checksum where anything but LOCAL or UNSPEC is said.

    Raises ValueError for what no header can carry.
    """
    source, destination = header.source, header.destination
    if source is None or destination is None:
        if header != ProxyHeader(local=header.local):
            raise ValueError("a header without two addresses says nothing else")
        return _SIGNATURE + bytes((_VERSION | (_LOCAL if header.local else _PROXY), 0, 0, 0))
    if header.local:
        raise ValueError("a proxy that speaks for itself names no addresses")
    family = _family(source, destination)
    block = b"".join(
        (
            _packed(source),
            _packed(destination),
            _packed_port(source),
            _packed_port(destination),
            _optional(_ALPN, header.alpn),
            _optional(_AUTHORITY, header.authority),
            _optional(_UNIQUE_ID, header.unique_id),
            b"" if header.ssl is None else _tlv(_SSL, _encode_ssl(header.ssl)),
            _optional(_NETNS, header.netns),
            _encode_others(header.tlvs, _KNOWN),
        )
    )
    if header.unique_id is not None and len(header.unique_id) > _UNIQUE_ID_LIMIT:
        raise ValueError(f"UNIQUE_ID has more than {_UNIQUE_ID_LIMIT} octets")
    size = len(block) + 7
    if size > _TLV_LIMIT:
        raise ValueError(f"{size} octets do not fit into a header")
    fixed = bytes((_VERSION | _PROXY, family)) + size.to_bytes(2, "big")
    octets = _SIGNATURE + fixed + block + _tlv(_CRC32C, bytes(4))
    return octets[:-4] + _crc32c(octets).to_bytes(4, "big")


def _family(
    source: ProxyEndpoint | ProxyUnixEndpoint, destination: ProxyEndpoint | ProxyUnixEndpoint
) -> int:
    families = {
        _UNIX if isinstance(end, ProxyUnixEndpoint) else _TCP6 if ":" in end.host else _TCP4
        for end in (source, destination)
    }
    if len(families) > 1:
        raise ValueError(f"{source} and {destination} are of two address families")
    return families.pop()


def _packed(end: ProxyEndpoint | ProxyUnixEndpoint) -> bytes:
    if isinstance(end, ProxyUnixEndpoint):
        return end.path.ljust(_UNIX_PATH, b"\x00")
    return _ip_address(end.host).packed


def _packed_port(end: ProxyEndpoint | ProxyUnixEndpoint) -> bytes:
    return b"" if isinstance(end, ProxyUnixEndpoint) else end.port.to_bytes(2, "big")


def _encode_ssl(ssl: ProxySsl) -> bytes:
    client = (
        _CLIENT_SSL * ssl.tls
        | _CLIENT_CERT_CONN * ssl.certificate
        | _CLIENT_CERT_SESS * ssl.session_certificate
    )
    return b"".join(
        (
            bytes((client,)),
            ssl.verify.to_bytes(4, "big"),
            _optional(_SSL_VERSION, ssl.version),
            _optional(_SSL_CN, ssl.common_name),
            _optional(_SSL_CIPHER, ssl.cipher),
            _optional(_SSL_SIG_ALG, ssl.signature_algorithm),
            _optional(_SSL_KEY_ALG, ssl.key_algorithm),
            _encode_others(ssl.tlvs, _SSL_KNOWN),
        )
    )


def _encode_others(tlvs: tuple[ProxyTlv, ...], known: frozenset[int]) -> bytes:
    for tlv in tlvs:
        if tlv.type in known or tlv.type == _NOOP or not 0 <= tlv.type <= 0xFF:
            raise ValueError(f"type {tlv.type:#04x} is not for other values")
    return b"".join(_tlv(tlv.type, tlv.value) for tlv in tlvs)


def _optional(kind: int, value: str | bytes | None) -> bytes:
    if value is None:
        return b""
    return _tlv(kind, value.encode() if isinstance(value, str) else value)


def _tlv(kind: int, value: bytes) -> bytes:
    if len(value) > _TLV_LIMIT:
        raise ValueError(f"{len(value)} octets do not fit into a value")
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value
