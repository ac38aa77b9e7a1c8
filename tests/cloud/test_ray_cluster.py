"""Builds and simulations on a real Ray cluster of two nodes: the same bytes as in one process, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cloud_aug import cloud, embedded, index, on_ray, packing
from cloud_aug.bench import Bench, Engine, P, R, Step
from cloud_aug.publications import Publication
from edgewire.errors import EdgeError, Offline, TooLarge
from tests.cloud import ray_nodes, toys
from tests.cloud.backends import files_only
from tests.cloud.ray_nodes import RayNodes
from tests.cloud.test_simulation import PLAN, TEN, bits, crowd, played

pytestmark = [
    pytest.mark.skipif(not ray_nodes.installed(), reason="Ray is not installed: pip install 'edgectl[scale]'"),
    pytest.mark.slow,
]

NOW = 1e9


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As the command has it: results depend on the number."""
    from edgelearn.device import use_threads

    use_threads(1)


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """The cluster, and this process with its token."""
    with RayNodes() as started, pytest.MonkeyPatch.context() as patch:
        for name, value in started.environment.items():
            patch.setenv(name, value)
        yield started


@pytest.fixture(scope="module")
def joined(nodes: RayNodes) -> Iterator[RayNodes]:
    with on_ray.cluster(nodes.address):
        nodes.wait()
        yield nodes


@dataclass(frozen=True)
class Noted:
    """A step that notes who does which part; whoever is the first to do part `deadly` is killed."""

    run: Callable[[Bench, Any], Any]
    notes: str
    deadly: str

    def __call__(self, bench: Bench, part: Any) -> Any:
        import ray

        line = f"{self.run.__name__} {hash_of(part)} {ray.get_runtime_context().get_node_id()}\n"
        with Path(self.notes).open("a") as file:
            file.write(line)
        killed = Path(self.notes).with_name("killed")
        if self.run.__name__ == self.deadly and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.run(bench, part)


def hash_of(part: Any) -> str:
    import hashlib

    return hashlib.sha256(repr(part).encode()).hexdigest()


@dataclass(frozen=True)
class Watched:
    """An engine whose steps are noted."""

    engine: Engine
    notes: Path
    deadly: str = ""

    def each(self, bench: Bench, step: Step[P, R], parts: Sequence[P], on_done: Callable[[R], None]) -> list[R]:
        noted = Noted(step.run, str(self.notes), self.deadly)
        return self.engine.each(bench, replace(step, run=noted), parts, on_done)


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "ROWS_PER_PART", 36)
    monkeypatch.setattr(packing, "PACKS_PER_PART", 1)


def built(data: Path, engine: Engine | None = None) -> Publication:
    """Another publication of what is in the folder, by another seed."""
    return index.build(
        cloud.open_cloud(data), "toy", seed=5, now=NOW, on_progress=toys.quiet, engine=engine
    ).publication


@pytest.mark.parametrize(("backend", "deadly"), [("files", "embed"), ("services", "build_class")], indirect=["backend"])
def test_a_killed_worker_costs_its_part_alone_and_two_nodes_give_the_same_digests_as_one_process(
    data, tmp_path, joined, in_small_parts, deadly
):
    notes = tmp_path / "notes"
    there = built(data, Watched(on_ray.OnRay(), notes, deadly))
    lines = [line.split() for line in notes.read_text().splitlines()]
    done = Counter((name, part) for name, part, _ in lines)
    assert sorted(done.values())[-2:] == [1, 2], "one part was done twice, every other once"
    assert [name for (name, _), times in done.items() if times == 2] == [deadly]
    assert Counter(name for name, _ in done)["embed"] == 3
    assert len({node for _, _, node in lines}) == 2
    with cloud.open_cloud(data).database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM publications WHERE version = 2")
    assert built(data) == there


@files_only
def test_index_build_runs_on_a_cluster_and_a_second_time_finds_nothing_new(data, nodes, tmp_path):
    line = toys.command("index", "build", "--task", "toy", "--engine", "ray", "--address", nodes.address, data=data)
    done = subprocess.run([*line, "--json"], capture_output=True, text=True, env=toys.environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["changed"] is False


@files_only
def test_what_a_step_refuses_comes_back_as_it_was_and_no_sample_name_or_value_is_in_rays_logs(
    data, joined, in_small_parts
):
    bench = index.Bench(cloud.open_cloud(data), index.Job(toys.TASK, "0" * 64, NOW))
    with pytest.raises(TooLarge, match="by far"):
        on_ray.OnRay().each(bench, Step(too_large, str, str), ["one"], print)
    with pytest.raises(EdgeError, match="ValueError in test_ray_cluster"):
        on_ray.OnRay().each(bench, Step(broken, str, str), ["one"], print)
    built(data, on_ray.OnRay())
    logs = joined.logs
    assert b"person-" not in logs
    assert b"very-private" not in logs


@files_only
def test_a_part_that_kills_every_worker_ends_the_build(data, joined):
    bench = index.Bench(cloud.open_cloud(data), index.Job(toys.TASK, "0" * 64, NOW))
    with pytest.raises(Offline, match="Ray gave up"):
        on_ray.OnRay().each(bench, Step(fatal, str, str), ["one"], print)


def fatal(_bench: Bench, _part: str) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def too_large(_bench: Bench, _part: str) -> str:
    raise TooLarge("by far", hint="less")


def broken(_bench: Bench, _part: str) -> str:
    raise ValueError("very-private")


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "scaffold", "compression": "topk", "late": 2, "drop": 0.2},
        {"algorithm": "leave-one-out", "attack": "noise", "attackers": 0.2},
    ],
    ids=["scaffold", "leave-one-out"],
)
def test_boards_on_two_nodes_give_the_same_bits_as_in_one_process(tmp_path, joined, changes):
    from cloud_aug.simulation.play import Simulation

    plan = replace(PLAN, **changes)
    there = Simulation(crowd(TEN), plan, tmp_path / "there", world="{}", players=on_ray.BoardsOnRay())
    there.run()
    here = played(tmp_path / "here", plan)
    assert bits(there) == bits(here)
    assert there.history == here.history


def test_a_simulated_board_whose_worker_dies_is_played_again(tmp_path, joined):
    from cloud_aug.simulation.play import Simulation

    dying = crowd(TEN)
    dying.learner = Dying(dying.learner, str(tmp_path / "killed"))  # type: ignore[method-assign]
    there = Simulation(dying, PLAN, tmp_path / "there", world="{}", players=on_ray.BoardsOnRay())
    there.run()
    assert (tmp_path / "killed").exists()
    assert bits(there) == bits(played(tmp_path / "here"))


@dataclass(frozen=True)
class Dying:
    """Learners, the first of which takes its process along."""

    learner: Callable[..., Any]
    note: str

    def __call__(self, *asked: Any) -> Any:
        if not Path(self.note).exists():
            Path(self.note).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.learner(*asked)


def test_without_an_address_a_cluster_of_this_machine_plays(tmp_path):
    file = toys.data_file(tmp_path / "people.npz")
    line = [sys.executable, "-m", "cloud_aug", "simulate", str(file), "--boards", "4", "--rounds", "1", "--json"]
    runs = [
        subprocess.run([*line, *more], capture_output=True, text=True, env=toys.environment(), check=False)
        for more in ([], ["--engine", "ray"])
    ]
    assert runs[1].returncode == 0, runs[1].stderr
    assert runs[0].stdout == runs[1].stdout
