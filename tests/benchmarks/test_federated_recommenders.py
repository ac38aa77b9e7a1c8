"""Click logs dealt to boards: what a row becomes, and whom the test belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.click_fields import fields_wide_deep, read_clicks
from benchmarks.federated_recommenders import _parts, _ranked
from edgelearn.learner import weights_of
from edgelearn.submodel import submodel, touched

HEADER = "id,click,hour,site,device_ip"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "train.csv").write_text(f"{HEADER}\n1,0,9,a,one\n2,1,9,b,two\n3,1,9,a,two\n")
    (tmp_path / "test.csv").write_text("4,1,9,a,one\n")
    return tmp_path / "train.csv", tmp_path / "test.csv"


def test_a_click_log_is_read_with_and_without_a_header(files):
    x, y, owner = read_clicks(*files)
    assert y.tolist() == [0, 1, 1, 1]
    assert owner.tolist() == ["one", "two", "two", "one"]
    assert x.shape == (4, 2)
    assert x[0].tolist() == x[3].tolist() != x[1].tolist()


def test_the_same_value_in_another_field_is_another_value(tmp_path):
    (tmp_path / "log.csv").write_text(f"{HEADER}\n1,0,9,a,a\n")
    (row,) = read_clicks(tmp_path / "log.csv")[0]
    assert row[0] != row[1]


def test_a_board_holds_the_rows_of_both_tables_that_its_clicks_touch(files):
    x, _, _ = read_clicks(*files)
    model = fields_wide_deep(x.shape[1], seed=0)
    rows = touched(model, x[:1])
    assert {name: len(ids) for name, ids in rows.items()} == {"wide.weight": 2, "vectors.weight": 2}
    small = submodel(model, rows)
    with torch.no_grad():
        assert torch.equal(model(torch.from_numpy(x[:1]))[0], small(torch.from_numpy(x[:1]))[0])
    assert weights_of(small)["vectors.weight"].shape == (2, 8)


def test_boards_of_a_small_crowd_are_in_every_larger_one():
    owner = np.repeat(np.arange(9), 3)
    few, many = _parts(owner, 2), _parts(owner, 5)
    assert [part.rows.tolist() for part in few] == [part.rows.tolist() for part in many[:2]]


def test_liked_films_stand_against_films_that_the_user_never_rated():
    x = np.array([[1, 0], [2, 1], [3, 1]], np.int32)
    ranked, y = _ranked(x, np.array([1, 0, 1]), 10, np.random.default_rng(0))
    assert y.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert ranked[:2].tolist() == [[1, 0], [3, 1]]
    assert not set(ranked[2:, 0].tolist()) & {1, 2, 3}
    assert ranked[2:, 1].tolist() == [0, 0, 0, 1, 1, 1]
