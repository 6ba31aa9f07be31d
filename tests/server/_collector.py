"""A collector of traces: OTLP over HTTP, in protobuf, as OpenTelemetry's own takes it."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from tests.server._program import SECONDS


@dataclass(frozen=True)
class Span:
    """A span that has come."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    start: int
    end: int
    status: int
    attributes: dict[str, object]
    resource: dict[str, object]
    """What is said of its process."""


class Collector:
    """Collects what is sent to `url`; a context manager."""

    def __init__(self) -> None:
        self.status = 200
        """What it answers."""
        self.silent = threading.Event()
        """Set: it takes what comes, and answers nothing until the end."""
        self.headers: list[dict[str, str]] = []
        """Of each request."""
        self.asked = 0
        """How many requests have come."""
        self._spans: list[Span] = []
        self._change = threading.Condition()
        self._over = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector._take(self)

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self) -> list[Span]:
        """All that have come."""
        with self._change:
            return list(self._spans)

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        """Wait until it is so, as seen after a request."""
        with self._change:
            assert self._change.wait_for(is_so, SECONDS), self._spans

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._change:
            self.asked += 1
            self.headers.append({name.lower(): text for name, text in handler.headers.items()})
            self._change.notify_all()
        if self.silent.is_set():
            self._over.wait(2 * SECONDS)
            handler.close_connection = True
            return
        if self.status == 200:
            assert handler.path == "/v1/traces"
            assert handler.headers["Content-Type"] == "application/x-protobuf"
            request = ExportTraceServiceRequest.FromString(body)
            with self._change:
                self._spans += _read(request)
                self._change.notify_all()
        handler.send_response(self.status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


def _read(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        _span(span, _attributes(of_resource.resource.attributes))
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _span(span: WireSpan, resource: dict[str, object]) -> Span:
    return Span(
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        status=span.status.code,
        attributes=_attributes(span.attributes),
        resource=resource,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in pairs}
