"""The table `tls`: the certificates that listeners show, and those that they want to see."""

import ssl
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lmtp_server._workers import TlsFiles

_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}

Path = Annotated[str, Field(min_length=1, description="the path of a file")]


class CertificateTable(BaseModel):
    """A certificate for one name, key of `tls.names`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    certificate: Annotated[Path, Field(description="a file with a certificate and its chain")]
    key: Annotated[Path | None, Field(description="a file with the private key")] = None


class TlsTable(BaseModel):
    """What listeners with TLS show. Read anew at a reload."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    certificate: Annotated[
        Path,
        Field(description="a file with the certificate and those between it and the root, PEM"),
    ]
    key: Annotated[
        Path | None,
        Field(description="a file with the private key, PEM; without it, it is in `certificate`"),
    ] = None
    names: Annotated[
        dict[str, CertificateTable],
        Field(description="tables with `certificate` and `key` by the name that a client asks for"),
    ] = {}
    minimum_version: Annotated[
        Literal["TLSv1.2", "TLSv1.3"], Field(description="'TLSv1.2' or 'TLSv1.3'")
    ] = "TLSv1.2"
    client_ca: Annotated[
        Path | None,
        Field(description="a file with the roots of clients' certificates, PEM"),
    ] = None
    client_certificate_required: Annotated[bool, Field(description="true or false")] = False

    @model_validator(mode="after")
    def _fits(self) -> "TlsTable":
        if self.client_certificate_required and self.client_ca is None:
            raise ValueError(
                "client_certificate_required needs client_ca: whose certificates are to be trusted"
            )
        return self

    def files(self) -> TlsFiles:
        """For the listeners."""
        return TlsFiles(
            certificate=self.certificate,
            key=self.key,
            names={name: (each.certificate, each.key) for name, each in self.names.items()},
            minimum_version=_VERSIONS[self.minimum_version],
            client_ca=self.client_ca,
            client_certificate_required=self.client_certificate_required,
        )
