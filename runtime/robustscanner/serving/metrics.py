"""What the server counts, in Prometheus' format."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_PICTURES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server; `waiting` tells how many pictures are in the queue."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("robustscanner_requests", "Requests, by HTTP status", ["status"], registry=registry)
        self.rejected = Counter("robustscanner_rejected", "Requests refused as the queue was full", registry=registry)
        self.bad_pictures = Counter("robustscanner_bad_pictures", "Pictures that cannot be read", registry=registry)
        self._batch = Histogram(
            "robustscanner_batch_pictures", "Pictures of a run", buckets=_PICTURES, registry=registry
        )
        self._stages = Histogram(
            "robustscanner_stage_seconds",
            "Time in the queue, and in a run",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        Gauge("robustscanner_queue_pictures", "Pictures that wait", registry=registry).set_function(waiting)

    def ran(self, waits_s: Sequence[float], seconds: float) -> None:
        """A batch was read."""
        self._batch.observe(len(waits_s))
        self._stages.labels("run").observe(seconds)
        for wait_s in waits_s:
            self._stages.labels("queue").observe(wait_s)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
