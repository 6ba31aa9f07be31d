"""The little of HTTP/1.1 that a scraper and a health check need.

The invariant: a client costs a bounded number of octets and seconds, and can neither keep others
out nor have more done than one page rendered. A connection is one request.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from ._clients import Clients

_HEAD: Final = 8192
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    status: HTTPStatus
    body: bytes
    kind: str = _TEXT
    fields: tuple[tuple[str, str], ...] = ()

    def encode(self, *, with_body: bool) -> bytes:
        """Its octets."""
        head = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.fields),
        ]
        octets = "\r\n".join([*head, "", ""]).encode("ascii")
        return octets + self.body if with_body else octets


def _refuse(status: HTTPStatus, *fields: tuple[str, str]) -> Response:
    return Response(status, f"{status.phrase}\n".encode(), fields=fields)


class HttpServer:
    """Answers by `pages`: for each path what makes the response, given the Accept field."""

    def __init__(self, pages: dict[str, Callable[[str], Response]]) -> None:
        self._pages = pages
        self.clients = Clients(self._answer, limit=_HEAD)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            response, with_body = _refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), True
        except asyncio.IncompleteReadError:
            return
        else:
            response, with_body = self._respond(head.decode("latin-1"))
        writer.write(response.encode(with_body=with_body))

    def _respond(self, head: str) -> tuple[Response, bool]:
        request, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        match request.split(" "):
            case [method, target, "HTTP/1.1" | "HTTP/1.0"]:
                pass
            case _:
                return _refuse(HTTPStatus.BAD_REQUEST), True
        with_body = method != "HEAD"
        page = self._pages.get(target.partition("?")[0])
        if page is None:
            return _refuse(HTTPStatus.NOT_FOUND), with_body
        if method not in ("GET", "HEAD"):
            return _refuse(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD")), with_body
        accepts = []
        for field in fields:
            name, _, value = field.partition(":")
            if name.lower() == "accept":
                accepts.append(value.strip())
        return page(",".join(accepts)), with_body
