"""The table `[tls]`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ._table import About, Allowed, Table, TableFault
from ._types import Flag, Hostname, Path


class CertificateTable(Table):
    """The certificate for one name that clients ask for."""

    certificate: Annotated[
        Path, About(meaning="the file with the certificate and those above it, in PEM")
    ]
    key: Annotated[
        Path | None, About(meaning="the file with its key; unset: it is in the file above")
    ] = None


class TlsTable(Table):
    """The certificates, for all listeners that use TLS and have none of their own."""

    certificate: Annotated[
        Path | None,
        About(
            meaning="the file with the certificate and those above it, in PEM",
            dovecot="ssl_cert, ssl_server_cert_file",
        ),
    ] = None
    key: Annotated[
        Path | None,
        About(
            meaning="the file with its key; unset: it is in that of the certificate",
            dovecot="ssl_key, ssl_server_key_file",
        ),
    ] = None
    minimum_version: Annotated[
        Literal["TLSv1.2", "TLSv1.3"],
        Allowed("TLSv1.2 or TLSv1.3"),
        About(meaning="the oldest version that is spoken", dovecot="ssl_min_protocol"),
    ] = "TLSv1.2"
    client_ca: Annotated[
        Path | None,
        About(
            meaning="the certificates that clients' must come from",
            dovecot="ssl_ca, ssl_server_ca_file",
        ),
    ] = None
    verify: Annotated[
        Flag,
        About(
            meaning="whether a client must show a certificate",
            dovecot="ssl_verify_client_cert, ssl_server_request_client_cert",
        ),
    ] = False
    sni: Annotated[
        dict[Hostname, CertificateTable],
        Allowed('tables [tls.sni."NAME"]'),
        About(meaning="certificates for clients that ask for a name", dovecot="local_name"),
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _together(self) -> Self:
        for key in ("key", "sni"):
            if self.certificate is None and getattr(self, key):
                raise TableFault(key, "there is no certificate for it: set tls.certificate")
        if self.verify and self.client_ca is None:
            raise TableFault("verify", "nothing to verify with: set tls.client_ca")
        return self
