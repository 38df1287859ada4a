"""The gateway's Prometheus metrics: counted as transactions end, read when somebody asks.

Labels hold configured names and closed sets only, never anything that a request chooses.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from proxy_core.transaction_row import TransactionRow

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_OVERHEAD = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)


class GatewayMetrics(Collector):
    """All metrics of one gateway, in a registry of its own.

    What every transaction counts is kept in plain numbers: prometheus-client's own counters cost more than the rest of
    the record, and are only needed when somebody scrapes.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests: dict[tuple[str, ...], float] = {}
        self._tokens: dict[tuple[str, ...], float] = {}
        self._cost = 0.0
        self._cancelled = 0
        self._seconds = _Histograms(_SECONDS)
        self._first_token = _Histograms(_SECONDS)
        self._overhead = _Histograms(_OVERHEAD)
        self.registry.register(self)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for."""
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def watch_counts(self, name: str, meaning: str, label: str, counts: Callable[[], Mapping[str, int]]) -> None:
        """Add a counter with one label whose values somebody else keeps."""
        self.registry.register(_Counts(name, meaning, (label,), lambda: {(value,): count for value, count in counts().items()}))

    def watch_labelled(
        self, name: str, meaning: str, labels: Sequence[str], counts: Callable[[], Mapping[tuple[str, ...], int]]
    ) -> None:
        """Add a counter with several labels whose values somebody else keeps."""
        self.registry.register(_Counts(name, meaning, labels, counts))

    def finished(self, row: TransactionRow) -> None:
        """Count a transaction that has ended."""
        upstream = row.upstream or "none"
        key = (upstream, row.dialect or "none", str(row.status or 0))
        self._requests[key] = self._requests.get(key, 0) + 1
        if row.total_ms is not None:
            self._seconds.observe((upstream,), row.total_ms / 1e3)
        if row.overhead_ms is not None:
            self._overhead.observe((), row.overhead_ms / 1e3)
        if row.ttft_ms is not None:
            self._first_token.observe((upstream,), row.ttft_ms / 1e3)
        if row.input_tokens:
            tokens = (upstream, "input")
            self._tokens[tokens] = self._tokens.get(tokens, 0) + row.input_tokens
        if row.output_tokens:
            tokens = (upstream, "output")
            self._tokens[tokens] = self._tokens.get(tokens, 0) + row.output_tokens
        if row.cost_usd:
            self._cost += row.cost_usd

    def cancelled(self) -> None:
        self._cancelled += 1

    def collect(self) -> Iterable[Metric]:
        """What the registry asks for at a scrape."""
        requests = CounterMetricFamily("luthien_requests", "Transactions that ended.", labels=["upstream", "api", "status"])
        for key, count in self._requests.items():
            requests.add_metric(key, count)
        tokens = CounterMetricFamily("luthien_tokens", "Tokens as reported.", labels=["upstream", "direction"])
        for key, count in self._tokens.items():
            tokens.add_metric(key, count)
        yield requests
        yield tokens
        yield CounterMetricFamily("luthien_cost_usd", "Cost of all transactions with a known price.", value=self._cost)
        yield CounterMetricFamily(
            "luthien_upstream_cancelled",
            "Upstream requests cut because the client left or luthien stopped.",
            value=self._cancelled,
        )
        yield self._seconds.family("luthien_request_seconds", "First byte in to last byte out.", ["upstream"])
        yield self._first_token.family("luthien_time_to_first_token_seconds", "First byte in to first token.", ["upstream"])
        yield self._overhead.family("luthien_overhead_seconds", "Time in luthien before the request was sent on.", [])

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Histograms:
    """Histograms of one metric, one for each set of labels."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self._bounds, seconds)] += 1
        self._sums[labels] += seconds

    def family(self, name: str, meaning: str, labels: list[str]) -> HistogramMetricFamily:
        family = HistogramMetricFamily(name, meaning, labels=labels)
        for key, counts in self._counts.items():
            bounds = [str(bound) for bound in self._bounds] + ["+Inf"]
            family.add_metric(key, list(zip(bounds, accumulate(counts), strict=True)), self._sums[key])
        return family


class _Counts(Collector):
    def __init__(
        self, name: str, meaning: str, labels: Sequence[str], counts: Callable[[], Mapping[tuple[str, ...], int]]
    ) -> None:
        self._name, self._meaning, self._labels, self._counts = name, meaning, labels, counts

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, count in self._counts().items():
            family.add_metric(values, count)
        yield family
