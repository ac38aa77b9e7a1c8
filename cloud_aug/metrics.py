"""What Prometheus reads at /metrics. Counters of all workers of this service together; the pool's figures from the
database, so that every service tells the same.

Workers share a folder, named by PROMETHEUS_MULTIPROC_DIR before this module is imported (`workers.py`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloud_aug import census, certificates, keys, publications, replays, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.rounds.status import tally
from edgewire.errors import EdgeError

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
TOLD_FOR_S = 60.0  # the pool is counted no more often than that

_registry = CollectorRegistry()
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

requests = Counter(
    "cloud_requests", "Requests answered.", ("method", "route", "status"), registry=_registry
)  # + _total
seconds = Histogram(
    "cloud_request_seconds", "Time to the end of the answer.", ("method", "route"), buckets=_SECONDS, registry=_registry
)
inside = Gauge("cloud_requests_inside", "Requests being answered.", multiprocess_mode="livesum", registry=_registry)
waiting = Gauge(
    "cloud_requests_waiting", "Requests waiting for a thread.", multiprocess_mode="livesum", registry=_registry
)
streams = Gauge("cloud_console_streams", "Live pages open.", multiprocess_mode="livesum", registry=_registry)
shed = Counter("cloud_requests_shed", "Requests refused because there were too many.", registry=_registry)


class Report:
    """The text of /metrics."""

    def __init__(self, cloud: Cloud, clock: Callable[[], float]) -> None:
        self._state = _State(cloud, clock)

    def text(self) -> bytes:
        """Every metric, in Prometheus' text format."""
        counted = CollectorRegistry()
        if os.environ.get(FOLDER_VARIABLE):
            multiprocess.MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
        else:
            counted = _registry
        state = CollectorRegistry()
        state.register(self._state)
        return generate_latest(counted) + generate_latest(state)


class _State(Collector):
    """What the database knows, asked for at most once in a while."""

    def __init__(self, cloud: Cloud, clock: Callable[[], float]) -> None:
        self._cloud, self._clock = cloud, clock
        self._lock = threading.Lock()
        self._told: list[Metric] = []
        self._told_at = float("-inf")

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if time.monotonic() - self._told_at > TOLD_FOR_S:
                self._told, self._told_at = list(self._ask()), time.monotonic()
            yield from self._told

    def _ask(self) -> Iterator[Metric]:
        certificate = GaugeMetricFamily(
            "cloud_certificate_expires_timestamp_seconds", "When the server's certificate ends."
        )
        certificate.add_metric([], certificates.expires_at(keys.server_certificate_pem(self._cloud.keys)))
        yield certificate
        up = GaugeMetricFamily("cloud_database_up", "Whether the database answers.")
        try:
            found = [*self._of_tasks(), *self._of_rounds()]
            up.add_metric([], 1)
        except (EdgeError, sa.exc.SQLAlchemyError):
            found = []
            up.add_metric([], 0)
        yield up
        yield from found

    def _of_tasks(self) -> Iterator[Metric]:
        samples = GaugeMetricFamily("cloud_pool_samples", "Samples in the pool.", labels=("task", "status"))
        people = GaugeMetricFamily(
            "cloud_pool_contributors", "Contributors whose samples may be used.", labels=("task",)
        )
        withdrawn = GaugeMetricFamily("cloud_pool_withdrawals", "Contributors who withdrew.", labels=("task",))
        version = GaugeMetricFamily(
            "cloud_publication_version", "Of the current publication; each build adds one.", labels=("task",)
        )
        packed = GaugeMetricFamily(
            "cloud_publication_samples", "Samples in the current publication's packs.", labels=("task",)
        )
        built = GaugeMetricFamily("cloud_publication_timestamp_seconds", "When it was published.", labels=("task",))
        took = GaugeMetricFamily("cloud_publication_build_seconds", "How long its build took.", labels=("task",))
        recall = GaugeMetricFamily(
            "cloud_recall_at_100", "Share of the nearest 100 that searches find.", labels=("task",)
        )
        for task in tasks.list_all(self._cloud):
            told = census.stats(self._cloud, task.id, now=self._clock())
            for status in ("accepted", "quarantine", "rejected", "usable"):
                samples.add_metric([task.id, status], getattr(told, status))
            people.add_metric([task.id], told.usable_contributors)
            withdrawn.add_metric([task.id], told.withdrawals)
            with self._cloud.database.reading() as connection:
                current = publications.current(connection, task.id)
                at = publications.published_at(connection, task.id)
            if current is not None:
                version.add_metric([task.id], current.version)
                packed.add_metric([task.id], current.samples)
                built.add_metric([task.id], at)
                took.add_metric([task.id], current.build_s)
                live = replays.recall(self._cloud, current).recall_at_100
                if live is not None:
                    recall.add_metric([task.id], live)
        yield from (samples, people, withdrawn, version, packed, built, took, recall)

    def _of_rounds(self) -> Iterator[Metric]:
        rounds = GaugeMetricFamily("cloud_rounds", "Federated rounds.", labels=("task", "state"))
        updates = GaugeMetricFamily(
            "cloud_round_updates",
            "By what became of them; missing: invited, and none was taken (late and refused ones are among them).",
            labels=("task", "fate"),
        )
        moved = GaugeMetricFamily("cloud_round_bytes", "Bytes of orders and updates.", labels=("task", "direction"))
        energy = GaugeMetricFamily(
            "cloud_round_energy_joules", "That turns took, of boards that measure it.", labels=("task",)
        )
        measured = GaugeMetricFamily(
            "cloud_round_energy_updates", "Updates of which boards told the energy.", labels=("task",)
        )
        score = GaugeMetricFamily(
            "cloud_round_score", "Of the newest model, on the boards' own samples.", labels=("task",)
        )
        for task in tasks.list_all(self._cloud):
            with self._cloud.database.reading() as connection:
                told = tally(connection, task.id)
            for state, count in told.rounds.items():
                rounds.add_metric([task.id, state], count)
            fates = {"counted": told.counted, "late": told.late, "refused": told.refused, "missing": told.stragglers}
            for fate, count in fates.items() if told.rounds else ():
                updates.add_metric([task.id, fate], count)
            for direction, size in (("down", told.bytes_down), ("up", told.bytes_up)) if told.rounds else ():
                moved.add_metric([task.id, direction], size)
            if told.energy_told:
                energy.add_metric([task.id], told.energy_j)
            if told.rounds:
                measured.add_metric([task.id], told.energy_told)
            if told.score is not None:
                score.add_metric([task.id], told.score)
        yield from (rounds, updates, moved, energy, measured, score)
