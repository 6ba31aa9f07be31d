"""The way of spans out of a worker: OTLP over HTTP, in a thread of its own.

The invariant: a bounded number of spans waits, and whatever the collector does, nobody but that
thread waits for it; what it did not take is counted and logged, once a minute at most.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Tracer
from opentelemetry.util.types import AttributeValue

_logger: Final = logging.getLogger("lmtp_server")

_SERVICE: Final = "lmtp-server"
_SCOPE: Final = "lmtp_server"
# Seconds between two lines about a collector.
_PAUSE: Final = 60.0
# Seconds that a worker which ends waits for the collector, on top of its drain time.
_LAST_WORDS: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingOptions:
    """Where spans go and what they tell. None is what the environment says (`OTEL_...`), else the
    default of OpenTelemetry's SDK."""

    hostname: str
    version: str
    endpoint: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None
    """Seconds in which a batch has to be sent, or is given up."""
    sample_ratio: float | None = None
    """The part of sessions that is traced."""
    addresses: bool = False
    """Whether spans name senders, recipients and users."""


def prepare(options: TracingOptions) -> None:
    """Load all that a worker with these options needs, which may be unable to read it. Raises
    ValueError for what the environment has wrong."""
    _otlp(options)


def _otlp(options: TracingOptions) -> OTLPSpanExporter:
    return OTLPSpanExporter(
        endpoint=options.endpoint, headers=dict(options.headers), timeout=options.timeout
    )


class Export:
    """Spans made by `tracer` are sent until `close()`. Starts a thread. Raises ValueError for what
    the environment has wrong."""

    def __init__(self, options: TracingOptions) -> None:
        self._told = _Told()
        # What the SDK says of its own, in its words and as often as it likes.
        logger = logging.getLogger("opentelemetry")
        logger.handlers, logger.propagate = [self._told], False
        self._exporter = _Exporter(_otlp(options), self._told)
        ratio = options.sample_ratio
        sampler: Sampler | None = None if ratio is None else ParentBased(TraceIdRatioBased(ratio))
        provider = TracerProvider(
            sampler=sampler, resource=_resource(options), shutdown_on_exit=False
        )
        self._processor = _Processor(self._exporter)
        provider.add_span_processor(self._processor)
        self.tracer: Final[Tracer] = provider.get_tracer(_SCOPE, options.version)
        """Makes spans."""

    def close(self) -> None:
        """Send what waits, as far as a few seconds allow."""
        # The processor's own patience is half a minute, and cannot be told.
        sending = threading.Thread(target=self._processor.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(_LAST_WORDS)
        left = self._processor.ended - self._exporter.sent
        if left > 0:
            reason = f": {self._told.text}" if self._told.text else ""
            _logger.warning("traces: %s spans of this worker were not sent%s", left, reason)


def _resource(options: TracingOptions) -> Resource:
    given = OTELResourceDetector().detect().attributes
    own: dict[str, AttributeValue] = {
        "service.name": _SERVICE,
        "service.version": options.version,
        "host.name": options.hostname,
        "process.pid": os.getpid(),
    }
    return Resource.create({**own, **given})


class _Told(logging.Handler):
    """Keeps the last that the SDK has warned of, for a line of ours, and says it now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._next = 0.0
        self.text = ""
        """What it was; empty while there was nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.text = record.getMessage()
        except Exception:
            self.handleError(record)
            return
        now = self._clock()
        if now >= self._next:
            self._next = now + _PAUSE
            _logger.warning("traces: %s", self.text)


class _Exporter(SpanExporter):
    """Counts what `exporter` has sent."""

    def __init__(self, exporter: SpanExporter, told: _Told) -> None:
        self._exporter = exporter
        self._told = told
        self._failed = 0
        self.sent = 0
        """Spans that the collector has taken."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them. Called in the processor's thread, for one batch after the other."""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._failed += len(spans)
            return result
        self.sent += len(spans)
        if self._failed:
            _logger.info("traces: sent again; %s spans were given up", self._failed)
            self._failed = 0
        return result

    def shutdown(self) -> None:
        """Give up what is being sent."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits here."""
        return self._exporter.force_flush(timeout_millis)


class _Processor(BatchSpanProcessor):
    """Counts the spans that are to be sent."""

    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__(exporter)
        self._lock = threading.Lock()
        self.ended = 0
        """How many there were."""

    def on_end(self, span: ReadableSpan) -> None:
        """Have it sent."""
        if span.context is not None and span.context.trace_flags.sampled:
            with self._lock:
                self.ended += 1
        super().on_end(span)
