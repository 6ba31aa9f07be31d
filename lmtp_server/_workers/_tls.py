"""The certificates of listeners, tried before they are used.

The invariant: what a listener shows is a certificate with its key; where a new one is none, or has
expired, the one in use is kept.
"""

import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from lmtp_transport import ServerTls

_logger: Final = logging.getLogger("lmtp_server")

# OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED.
_EXPIRED: Final = 10
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What `lmtp_transport.ServerTls` takes."""

    certificate: str
    key: str | None = None
    names: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    client_ca: str | None = None
    client_certificate_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Certificates that have been read: what is shown, and whether all of them are still good."""

    tls: ServerTls
    expire_at: float
    """Seconds since the epoch; that of the first to expire."""


def read_certificates(
    files: TlsFiles, where: str, in_use: Certificates | None = None
) -> Certificates:
    """The certificates in `files`, for the listener `where`.

    Those `in_use` are given back, with a log line, where the files are no good. Raises OSError or
    ssl.SSLError if there are none in use.
    """
    try:
        read = open_certificates(files)
    except (OSError, ssl.SSLError) as error:
        if in_use is None:
            raise
        _logger.error("%s: %s; the certificate in use is kept", where, explain(error, files))
        return in_use
    now = time.time()
    if read.expire_at <= now:
        if in_use is not None and in_use.expire_at > now:
            _logger.error(
                "%s: a certificate in %s has expired; the one in use is kept",
                where,
                files.certificate,
            )
            return in_use
        _logger.error("%s: a certificate in %s has expired", where, files.certificate)
    elif read.expire_at - now < _DAY:
        _logger.warning("%s: a certificate in %s expires in a day", where, files.certificate)
    return read


def open_certificates(files: TlsFiles) -> Certificates:
    """The certificates in `files`. Raises OSError or ssl.SSLError."""
    tls = ServerTls(
        files.certificate,
        files.key,
        names=files.names,
        minimum_version=files.minimum_version,
        client_ca=files.client_ca,
        client_certificate_required=files.client_certificate_required,
    )
    pairs = [(files.certificate, files.key), *files.names.values()]
    return Certificates(tls=tls, expire_at=min(_expiry(*pair) for pair in pairs))


def explain(error: OSError | ssl.SSLError, files: TlsFiles) -> str:
    """What is wrong with certificates that cannot be used."""
    pairs = [(files.certificate, files.key), *files.names.values()]
    if isinstance(error, ssl.SSLError):
        bad = next((pair[0] for pair in pairs if not _is_pair(*pair)), files.certificate)
        return f"no certificate with its key in {bad}: {error.reason or error}"
    # OpenSSL does not say which file it was.
    paths = [path for pair in pairs for path in pair if path is not None]
    paths += [] if files.client_ca is None else [files.client_ca]
    bad = error.filename or next(filter(_is_unreadable, paths), files.certificate)
    return f"cannot read {bad}: {error.strerror}"


def _is_pair(certificate: str, key: str | None) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError:
        return False
    return True


def _is_unreadable(path: str) -> bool:
    try:
        with open(path, "rb"):
            return False
    except OSError:
        return True


def _expiry(certificate: str, key: str | None) -> float:
    """When a certificate expires, in seconds since the epoch; 0 where it has already.

    Python reads no certificate that has not been verified, so this is shown to a client that
    trusts it. A certificate that cannot be verified for another reason never expires here.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    showing = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (asking, showing, asking):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    except ssl.SSLCertVerificationError as error:
        return 0.0 if error.verify_code == _EXPIRED else float("inf")
    shown = asking.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))
