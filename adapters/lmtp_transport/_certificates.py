"""A server's certificates: read from files, read anew without a restart."""

import ssl
from collections.abc import Mapping
from os import PathLike
from typing import TypeAlias

Path: TypeAlias = str | PathLike[str]


class ServerTls:
    """What a server shows in TLS, and what it wants to see.

    `certificate` is a file with the certificate and those between it and the root, `key` one with
    its private key (None: in the same file). `names` has other pairs by the host name that a client
    asks for (SNI, RFC 6066 3); `*.example.org` stands for all names of one label more. With
    `client_ca`, a file of root certificates, a client's certificate is verified if it shows one,
    and with `client_certificate_required` it has to. Raises OSError for what cannot be read,
    ssl.SSLError for what is no certificate or not its key.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path | None = None,
        *,
        names: Mapping[str, tuple[Path, Path | None]] | None = None,
        minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        client_ca: Path | None = None,
        client_certificate_required: bool = False,
    ) -> None:
        if client_certificate_required and client_ca is None:
            raise ValueError("client_certificate_required needs client_ca: who is to be trusted")
        self._certificate = certificate
        self._key = key
        self._names = dict(names or {})
        self._minimum_version = minimum_version
        self._client_ca = client_ca
        self._client_certificate_required = client_certificate_required
        self.context = self._load()
        """For connections that begin now; read-only."""

    def reload(self) -> None:
        """Read the files anew, for connections that begin from now on.

        Raises as the constructor does; everything stays as it was then.
        """
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        context = self._context(self._certificate, self._key)
        named = {
            name.lower(): self._context(certificate, key)
            for name, (certificate, key) in self._names.items()
        }

        def choose(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            asked = (name or "").lower()
            chosen = named.get(asked) or named.get(f"*.{asked.partition('.')[2]}")
            if chosen is not None:
                tls.context = chosen

        if named:
            context.sni_callback = choose
        return context

    def _context(self, certificate: Path, key: Path | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum_version
        # A client could have the server compute without end.
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.load_cert_chain(certificate, key)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = (
                ssl.CERT_REQUIRED if self._client_certificate_required else ssl.CERT_OPTIONAL
            )
        return context
