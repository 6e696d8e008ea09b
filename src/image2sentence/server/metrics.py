"""What the server counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)
CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "image2sentence"


class Metrics:
    """One server's counts, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            f"{PREFIX}_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            f"{PREFIX}_request_seconds",
            "From a request's arrival to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            f"{PREFIX}_query_stage_seconds",
            "Stages of a query, each with the wait for it.",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batches = Histogram(
            f"{PREFIX}_batch_queries", "Queries answered in one call.", buckets=SIZES, registry=registry
        )

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Report what `value` returns whenever the counts are read."""
        Gauge(f"{PREFIX}_{name}", help_text, registry=self._registry).set_function(value)

    def query(self, milliseconds: Mapping[str, float]) -> None:
        """Count a query's stages; `milliseconds` names them `read_ms`, `encode_ms` and so on."""
        for stage, spent in milliseconds.items():
            self.stages.labels(stage.removesuffix("_ms")).observe(spent / 1000)

    def text(self) -> bytes:
        """All counts in Prometheus' text format."""
        return generate_latest(self._registry)


class Measured:
    """Counts every request by its route, which is a template: paths that do not exist are one route, "none"."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = str(getattr(scope.get("route"), "path", "none"))
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)
