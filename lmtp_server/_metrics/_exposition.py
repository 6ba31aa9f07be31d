"""The page that Prometheus reads: OpenMetrics, or its older text format where that is asked for.

The invariant: imported only where such a page is configured, as prometheus-client is an extra.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ._families import Family


class Page:
    """Renders what `read` gives."""

    def __init__(self, read: Callable[[], list[Family]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Families(read))

    def render(self, accept: str) -> tuple[bytes, str]:
        """The page for a client whose Accept field is this, and its type."""
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind


class _Families(Collector):
    def __init__(self, read: Callable[[], list[Family]]) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        """Nothing: or the registry would read the values to see the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        for family in self._read():
            yield _metric(family)


def _metric(family: Family) -> Metric:
    metric = family.metric
    about = f"{metric.about[0].upper()}{metric.about[1:]}."
    if metric.kind == "info":
        info = InfoMetricFamily(metric.name, about)
        for sample in family.samples:
            info.add_metric([], dict(sample.labels))
        return info
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, about, unit=metric.unit)
        buckets = [
            ("+Inf" if limit == float("inf") else str(float(limit)), count)
            for limit, count in family.buckets
        ]
        histogram.add_metric([], buckets, family.sum)
        return histogram
    labels = list(metric.labels)
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    values = kind(metric.name, about, labels=labels, unit=metric.unit)
    for sample in family.samples:
        values.add_metric([sample.labels[name] for name in labels], sample.value)
    return values
