"""The table `[traces]`."""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from ._table import About, Allowed, Table
from ._types import Flag, Secret, SecretText, Timeout

# RFC 9110 5.6.2 and 5.5; what came otherwise would be told with each batch, and may be a secret.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[!-~](?:[\t -~]*[!-~])?")
_PATH: Final = "/v1/traces"
_ALLOWED: Final = "http://HOST:PORT/PATH or https://HOST:PORT/PATH"


def _endpoint(text: str) -> str:
    if "@" in text:
        # What stands in front of it is not repeated.
        raise ValueError(f"a password is for headers, authorization; allowed is {_ALLOWED}")
    wrong = ValueError(f"{text!a} is not allowed; allowed is {_ALLOWED}")
    try:
        url = urlsplit(text)
        good = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        raise wrong from None
    if not good or not text.isascii() or not text.isprintable():
        raise wrong
    return text if url.path.strip("/") else url._replace(path=_PATH).geturl()


def _headers(headers: dict[str, Secret]) -> dict[str, Secret]:
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!a} is no name of a header field")
        if not _VALUE.fullmatch(value.reveal()):
            raise ValueError(f"{name}: its value cannot stand in a header field")
    return headers


class TracesTable(Table):
    """OpenTelemetry's traces of sessions, sent where this table is: see [traces](traces.md)."""

    endpoint: Annotated[
        str | None,
        AfterValidator(lambda text: None if text is None else _endpoint(text)),
        Allowed(_ALLOWED),
        About(
            meaning="where a collector takes OTLP over HTTP; without a path it is `/v1/traces`",
            default="`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, else"
            " `OTEL_EXPORTER_OTLP_ENDPOINT/v1/traces`, else `http://localhost:4318/v1/traces`",
        ),
    ] = None
    headers: Annotated[
        dict[str, SecretText],
        AfterValidator(_headers),
        Allowed("a table of header fields, each a text or { file = PATH }"),
        About(meaning="what is sent along, beside `OTEL_EXPORTER_OTLP_HEADERS`"),
    ] = Field(default_factory=dict)
    timeout: Annotated[
        Timeout | None,
        About(
            meaning="for a batch of spans, with all attempts; then it is given up",
            default="`OTEL_EXPORTER_OTLP_TIMEOUT`, else 10",
        ),
    ] = None
    sample_ratio: Annotated[
        float | None,
        Field(ge=0, le=1),
        Allowed("a number from 0 to 1"),
        About(
            meaning="the part of sessions that is traced",
            default="`OTEL_TRACES_SAMPLER`, else all",
        ),
    ] = None
    addresses: Annotated[
        Flag, About(meaning="spans name senders, recipients and users, not only their ids")
    ] = False
