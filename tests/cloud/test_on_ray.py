"""What is checked before and beside Ray, without it: who may join which cluster, and whether machines are alike."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest

from cloud_aug import cloud, embedded, index, on_ray, packing, pool
from cloud_aug.bench import Bench, Job, P, R, Step
from cloud_aug.on_ray import Site
from edgewire.decoding import encode
from edgewire.errors import Conflict, DiskFull, EdgeError, Offline, TooLarge, UsageError
from tests.cloud import toys
from tests.cloud.backends import files_only
from tests.cloud.test_cloud_index import CONSENT, NOW, with_limits
from tests.cloud.toys import TASK

SITE = Site("machine-1", "a" * 64, ("3.11.7", "numpy 2.4.6"))


def test_a_cluster_without_a_token_is_not_joined(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(UsageError, match="RAY_AUTH_MODE=token"), on_ray.cluster("127.0.0.1:6379"):
        pass


@pytest.mark.parametrize("address", ["auto", "ray://host:10001", "host", "host:port", "a b:1"])
def test_an_address_is_a_host_and_a_port(address):
    with pytest.raises(UsageError, match="HOST:PORT"), on_ray.cluster(address):
        pass


def test_a_cluster_that_does_not_answer_is_offline_at_once(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(Offline, match="nobody answers"), on_ray.cluster("127.0.0.1:9"):
        pass


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(UsageError, match=r"edgectl\[scale\]"), on_ray.cluster(""):
        pass


def test_a_cluster_leaves_no_trace_in_the_process(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "elsewhere")
    before = dict(os.environ)

    def join(*_asked: object, **_more: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=join, shutdown=lambda: None))
    handler = signal.getsignal(signal.SIGTERM)
    with on_ray.cluster(""):
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGTERM) is handler


def test_why_a_cluster_is_not_joined_is_said(monkeypatch):
    def join(*_asked: object, **_more: object) -> None:
        raise ConnectionError("no") from RuntimeError("it wants another token\nand more")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=join))
    monkeypatch.setattr(on_ray, "PAUSE_S", 0.0)
    with pytest.raises(Offline, match="this machine: it wants another token; "), on_ray.cluster(""):
        pass


def test_an_address_without_ray_is_refused(tmp_path):
    done = toys.run("index", "build", "--task", "toy", "--address", "localhost:6379", data=tmp_path)
    assert done.returncode in (1, 2)


@pytest.mark.parametrize(
    ("there", "error", "match"),
    [
        (replace(SITE, machine="machine-2"), UsageError, "database_url"),
        (replace(SITE, trust="b" * 64), Conflict, "another cloud"),
        (replace(SITE, software=("3.11.7", "numpy 2.4.5")), Conflict, r"numpy 2\.4\.5, numpy 2\.4\.6"),
    ],
)
def test_a_worker_on_an_odd_machine_is_refused(there, error, match):
    on_ray.check_alike(SITE, SITE, "host-2")
    with pytest.raises(error, match=match):
        on_ray.check_alike(SITE, there, "host-2")


class Relayed:
    """Steps as a worker does them, but in this process: the cloud opened from its folder, parts and replies as JSON."""

    def each(self, bench: Bench, step: Step[P, R], parts: Sequence[P], on_done: Callable[[R], None]) -> list[R]:
        errand = on_ray.errand_of(bench)
        rows = [{"number": number, "part": encode(part)} for number, part in enumerate(parts)]
        return [on_ray.result_of(step, on_ray.do_part(row, step, errand)["reply"]) for row in rows]


def test_parts_and_results_pass_as_json_and_give_the_same_digests(data, monkeypatch):
    monkeypatch.setattr(embedded, "ROWS_PER_PART", 36)
    monkeypatch.setattr(packing, "PACKS_PER_PART", 1)
    built = []
    for engine in (None, Relayed()):
        made = cloud.open_cloud(data)
        built.append(index.build(made, "toy", seed=5, now=NOW, on_progress=toys.quiet, engine=engine))
    assert (built[0].changed, built[1].changed) == (True, False)


def test_what_a_step_raises_comes_back_as_an_error_of_ours_without_the_text_of_others(data):
    bench = Bench(cloud.open_cloud(data), Job(TASK, "0" * 64, NOW))
    with pytest.raises(TooLarge, match="by far"):
        Relayed().each(bench, Step(_too_large, str, str), ["one"], print)
    with pytest.raises(DiskFull, match="the disk is full while working on"):
        Relayed().each(bench, Step(_full, str, str), ["one"], print)
    with pytest.raises(EdgeError, match="ValueError in test_on_ray") as caught:
        Relayed().each(bench, Step(_broken, str, str), ["one"], print)
    assert "very-private" not in str(caught.value)


def _too_large(_bench: Bench, _part: str) -> str:
    raise TooLarge("by far", hint="less")


def _full(_bench: Bench, _part: str) -> str:
    raise OSError(errno.ENOSPC, "no space left")


def _broken(_bench: Bench, _part: str) -> str:
    raise ValueError("very-private")


@dataclass
class Measured:
    """One part after the other, as a worker does them; notes the most memory that a part of each step needed."""

    peaks: dict[str, int] = field(default_factory=dict)

    def each(self, bench: Bench, step: Step[P, R], parts: Sequence[P], on_done: Callable[[R], None]) -> list[R]:
        results = []
        for part in parts:
            tracemalloc.start()
            results.append(step.run(bench, part))
            name, (_, peak) = step.run.__name__, tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.peaks[name] = max(self.peaks.get(name, 0), peak)
        return results


@files_only
def test_a_part_needs_no_more_memory_in_a_larger_pool(data, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "ROWS_PER_PART", 2000)
    made = with_limits(cloud.open_cloud(data), pack_bytes=2000 * (8 + 64))
    peaks = []
    for people in (6, 24):
        columns = toys.people(people, 300, seed=people)
        columns["user"] = np.char.add(f"{people}-", columns["user"])
        pool.ingest(made, toys.data_file(tmp_path / "more.npz", columns), "toy", CONSENT, now=NOW)
        measured = Measured()
        index.build(made, "toy", seed=people, now=NOW, on_progress=toys.quiet, engine=measured)
        peaks.append(measured.peaks)
    assert set(peaks[0]) == {"embed", "assign", "write", "style", "build_class", "verify"}
    for name in ("embed", "assign", "write", "style", "verify"):
        assert peaks[1][name] < 1.6 * peaks[0][name] + 20_000, f"{name}, with four times the samples"
