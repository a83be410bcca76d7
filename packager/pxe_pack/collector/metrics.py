"""The page /metrics, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pxe_pack.collector.fleet import Fleet


class Metrics:
    """Counts of nodes, as the database has them when they are asked for, and of what this collector has done."""

    def __init__(self, fleet: Fleet, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.reports = Counter(
            "pxe_pack_reports", "Reports, by the HTTP status of the answer.", ["status"], registry=registry
        )
        self.webhooks = Counter("pxe_pack_webhooks", "Failures sent to the webhook.", ["result"], registry=registry)
        registry.register(_Nodes(fleet))

    def page(self) -> tuple[bytes, str]:
        """The page and its media type. Raises SQLAlchemyError."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Nodes(Collector):
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def describe(self) -> Iterator[Metric]:
        """Nothing: the database is not asked while the collector starts."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        summary = self._fleet.summary()
        for name, label, counts, help_text in (
            ("pxe_pack_nodes", "state", summary["states"], "Nodes, by state."),
            ("pxe_pack_nodes_at", "stage", summary["stages"], "Nodes, by the stage that they have reached."),
            ("pxe_pack_nodes_failed", "cause", summary["causes"], "Failed and degraded nodes, by cause."),
        ):
            family = GaugeMetricFamily(name, help_text, labels=[label])
            for value, count in counts.items():
                family.add_metric([value], count)
            yield family
        points = self._fleet.throughput(seconds=60)
        rate = sum(value for _, value in points) / max(len(points), 1)
        yield GaugeMetricFamily("pxe_pack_received_bytes_per_second", "Bytes of artifacts, in the last minute.", rate)
