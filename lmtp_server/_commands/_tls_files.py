"""The certificates of a listener, from its settings.

The invariant: what `config check` opens is what `serve` shows.
"""

import ssl
from typing import Final

from lmtp_server._settings import ListenerTable
from lmtp_server._settings._tls import TlsTable
from lmtp_server._workers import TlsFiles

_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def tls_files(tls: TlsTable, table: ListenerTable) -> TlsFiles | None:
    """The files of a listener, its own or those of all; None where it has no TLS."""
    if table.tls == "off":
        return None
    own = table.certificate is not None
    certificate = table.certificate or tls.certificate
    assert certificate is not None, "the settings have been validated"
    return TlsFiles(
        certificate=certificate,
        key=table.key if own else tls.key,
        names={name: (each.certificate, each.key) for name, each in tls.sni.items()},
        minimum_version=_VERSIONS[tls.minimum_version],
        client_ca=tls.client_ca,
        client_certificate_required=tls.verify,
    )
