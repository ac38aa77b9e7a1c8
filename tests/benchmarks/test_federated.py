"""The federated benchmark on made-up digits: what it plays, keeps, goes on with, and admits not to have run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import federated, federated_cases
from benchmarks.reference_models import reference_model
from edgelearn.learner import weights_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(10), 60)
    x = np.zeros((600, 28, 28), np.uint8)
    x[np.arange(600), y, :] = 200 + rng.integers(0, 50, (600, 28))
    columns = {"x_train": x, "y_train": y, "writer_train": np.arange(600) % 150, "x_test": x[::7], "y_test": y[::7]}
    np.savez(tmp_path / "mnist_writers.npz", **columns)
    monkeypatch.setenv("EDGE_DATA", str(tmp_path))
    return tmp_path


def figures(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[dict[str, object]]:
    out = folder / "out.json"
    line = ["federated", "--folder", str(folder / "kept"), "--json", str(out), *arguments]
    monkeypatch.setattr(sys, "argv", line)
    federated.main()
    found: list[dict[str, object]] = json.loads(out.read_text())["figures"]
    return found


def test_a_quick_run_plays_once_and_reports_the_same_the_next_time(folder, monkeypatch, capsys):
    first = figures(folder, monkeypatch, "--quick")
    assert "round 3" in capsys.readouterr().out
    assert figures(folder, monkeypatch, "--quick") == first
    assert "round 3" not in capsys.readouterr().out
    assert "kB up" in str(first[0]["anchor"])


def test_several_processes_play_the_same(folder, monkeypatch):
    alone = figures(folder, monkeypatch, "--quick")
    (folder / "kept").rename(folder / "alone")
    assert figures(folder, monkeypatch, "--quick", "--processes", "2") == alone


def test_a_report_plays_nothing_and_says_what_was_not_run(folder, monkeypatch, capsys):
    assert figures(folder, monkeypatch, "--report", "--groups", "table,algorithms") == []
    said = capsys.readouterr().out
    assert "not run to its end: lenet5 B=10 C=1.0 (0 rounds)" in said
    assert "not run to its end: scaffold on writers (0 of 30 rounds)" in said


def test_a_cell_of_the_table_is_the_number_of_rounds_to_the_target(folder, monkeypatch):
    monkeypatch.setitem(federated_cases.TARGETS, "2nn", 0.5)
    (found,) = figures(folder, monkeypatch, "--groups", "table", "--cases", "2nn B=10 C=0.2")
    assert found["name"] == "2nn B=10 C=0.2: rounds to 50 %"
    assert 1 <= float(str(found["value"])) <= 34
    assert found["goal"] == "<= 39"


def test_a_target_that_is_out_of_reach_is_given_up_and_told(folder, monkeypatch):
    monkeypatch.setitem(federated_cases.TARGETS, "2nn", 1.1)
    monkeypatch.setitem(federated_cases.REFERENCE, "2nn", {10: (1, 2, 2, 2, 2)})
    (found,) = figures(folder, monkeypatch, "--groups", "table", "--cases", "2nn B=10 C=0.1")
    assert (found["value"], found["holds"]) == (3, False)
    assert "not reached" in str(found["anchor"])


@pytest.mark.parametrize(("name", "parameters"), [("2nn", 109_386), ("lenet5 standardised", 61_706)])
def test_the_reference_models_are_as_large_as_written_and_the_same_for_the_same_seed(name, parameters):
    first, again = (weights_of(reference_model(name, seed=3)) for _ in range(2))
    assert sum(array.size for array in first.values()) == parameters
    assert all(np.array_equal(first[key], again[key]) for key in first)
