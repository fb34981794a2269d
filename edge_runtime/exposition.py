"""Prometheus text from a table of metrics; the table is also what the reference page is checked against.

- A value that is not known is left out; it is never told as 0.
- A scrape reads what is there when it comes; nothing is counted for it in between.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

Labels = tuple[str, ...]


class Row(NamedTuple):
    """One metric. A counter's name ends in ``_total``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels = ()


class Histogram(NamedTuple):
    """`counts` has one more than `edges`: what is above the last."""

    edges: Sequence[float]
    counts: Sequence[int]
    total: float


class Times:
    """A histogram that is added to by one thread; edges are in seconds."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = edges
        self._counts = [0] * (len(edges) + 1)
        self._total_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._edges, seconds)] += 1
        self._total_s += seconds

    def told(self) -> Histogram:
        return Histogram(self._edges, list(self._counts), self._total_s)


#: name of a metric → the values of its labels → its value
Found = Mapping[str, Mapping[Labels, float | Histogram]]


def families(table: Sequence[Row], found: Found) -> Iterator[Metric]:
    """In the order of the table; KeyError for what is found and not in the table."""
    rows = {row.name: row for row in table}
    unknown = set(found) - set(rows)
    if unknown:
        raise KeyError(f"not in the table of metrics: {', '.join(sorted(unknown))}")
    for row in table:
        values = found.get(row.name)
        if values:
            yield _family(row, values)


def _family(row: Row, values: Mapping[Labels, float | Histogram]) -> Metric:
    if row.kind == "histogram":
        histogram = HistogramMetricFamily(row.name, row.help, labels=row.labels)
        for labels, value in values.items():
            if isinstance(value, Histogram):
                edges = [*(f"{edge:g}" for edge in value.edges), "+Inf"]
                buckets = list(zip(edges, map(float, accumulate(value.counts)), strict=True))
                histogram.add_metric(labels, buckets, value.total)
        return histogram
    make = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    family = make(row.name, row.help, labels=row.labels)
    for labels, value in values.items():
        if not isinstance(value, Histogram):
            family.add_metric(labels, value)
    return family


class _Read(Collector):
    def __init__(self, table: Sequence[Row], read: Callable[[], Found]) -> None:
        self._table, self._read = table, read

    def collect(self) -> Iterator[Metric]:
        return families(self._table, self._read())

    def describe(self) -> Iterator[Metric]:
        return iter(())  # asked for at registration; nothing is read then


class Page:
    """What `/metrics` answers. `read` is called once for each scrape, and never twice at the same time."""

    def __init__(self, table: Sequence[Row], read: Callable[[], Found]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Read(table, read))
        self._lock = threading.Lock()

    def answer(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type, in the format that the request asks for."""
        encode, content_type = choose_encoder(accept)
        with self._lock:
            return encode(self._registry), content_type
