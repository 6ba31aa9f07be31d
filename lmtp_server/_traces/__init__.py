"""Traces of sessions, sent by OpenTelemetry. Imported where traces are configured."""

from ._export import TracingOptions, prepare
from ._spans import Tracing

__all__ = ["Tracing", "TracingOptions", "prepare"]
