"""Traces as settings ask for them.

The invariant: where none are asked for, nothing of OpenTelemetry is loaded, in no process.
"""

from typing import TYPE_CHECKING

from ._settings import ServeSettings
from ._version import own_version

if TYPE_CHECKING:
    from ._traces import TracingOptions


def tracing_options(settings: ServeSettings, faults: list[str]) -> "TracingOptions | None":
    """What a worker traces with, None for nothing; loads what is needed for it, as a worker may be
    unable to. What is wrong gets a line in `faults`."""
    table = settings.traces
    if table is None:
        return None
    try:
        from ._traces import TracingOptions, prepare
    except ImportError as error:
        faults.append(
            f"traces: OpenTelemetry is not installed ({error}): pip install 'lmtp-proto[otel]'"
        )
        return None
    options = TracingOptions(
        hostname=settings.hostname,
        version=own_version(),
        endpoint=table.endpoint,
        headers={name: value.reveal() for name, value in table.headers.items()},
        timeout=table.timeout,
        sample_ratio=table.sample_ratio,
        addresses=table.addresses,
    )
    try:
        prepare(options)
    except ValueError as error:
        faults.append(f"traces: the environment is no good for OpenTelemetry: {error}")
    return options
