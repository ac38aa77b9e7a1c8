"""The benchmark of recipes: what it concludes from rows made by hand, and a whole run on a file made here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.personalize import document, https, plan, report, words, work
from benchmarks.personalize.answer import Answer
from benchmarks.personalize.overall import best_single, compare
from benchmarks.personalize.plan import Wanted
from benchmarks.personalize.records import Journal, Pair, Row, Units
from benchmarks.personalize.run import _queue
from benchmarks.personalize.summary import labels_needed, paired_interval, rising, summarize
from benchmarks.protocols import Board

ROOT = Path(__file__).parents[2]
MADE_BY_THE_CLOCK = ("seconds",)


def row(board: str, recipe: str, hits: list[float], **changes: Any) -> Row:
    """A row whose held-out scores are these, each a recording of its own."""
    scores = np.asarray(hits, np.float64)
    known: dict[str, Any] = {
        "data": "d", "shots": 1, "seed": 0, "training": 0, "metric": "accuracy", "labels": 4, "candidates": 0,
        "kept": 0, "candidate_samples": 0, "outside_samples": 0, "forwards": 0, "seconds": 1.0, "code": "c",
    }  # fmt: skip
    units = Units.of(np.arange(len(scores)), scores).text()
    score = float(scores.mean())
    return Row(**{**known, "board": board, "recipe": recipe, "score": score, "common": score, "tests": len(scores),
                  "units": units, **changes})  # fmt: skip


def hits(right: int, of: int = 100) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


def test_a_summary_is_paired_by_user_and_averages_seeds_first() -> None:
    rows = [
        row(user, recipe, hits(right), seed=seed)
        for user, base, local in (("u", 50, 60), ("v", 70, 60))
        for seed in (0, 1)
        for recipe, right in (("base", base), ("local", local), ("auto", local + 10 * seed))
    ]
    auto = next(one for one in summarize(rows, {"d": (1,)}) if one.recipe == "auto")
    assert (auto.users, auto.mean, auto.gain, auto.gain_low, auto.gain_high) == (2, 65.0, 5.0, 5.0, 5.0)
    assert auto.fewer_errors == 12.5  # 35 instead of 40


def test_a_seed_that_one_of_two_recipes_lacks_is_not_compared() -> None:
    rows = [row("u", "local", hits(50)), row("u", "base", hits(40))]
    rows += [row("u", "matched", hits(60)), row("u", "matched", hits(100), seed=1)]
    matched = next(one for one in summarize(rows, {"d": (1,)}) if one.recipe == "matched")
    assert matched.gain == 10.0


def test_seeds_that_only_local_has_make_a_recipe_neither_better_nor_worse() -> None:
    """Of two seeds, the one that `mpda` was measured with is the easy one."""
    rows = [row("u", "base", hits(40 + more), seed=seed) for seed, more in ((0, 20), (1, 0))]
    ladder = {1: (4, 50), 2: (8, 60), 4: (16, 70)}
    rows += [
        row("u", "local", hits(right + more), seed=seed, shots=shots, labels=labels)
        for seed, more in ((0, 20), (1, 0))
        for shots, (labels, right) in ladder.items()
    ]
    rows += [row("u", "mpda", hits(75)), row("u", "auto", hits(75)), row("u", "auto", hits(40), seed=1)]
    found = {one.recipe: one for one in summarize(rows, {"d": (1,)})}
    mpda = found["mpda"]
    assert (mpda.seeds, mpda.mean, mpda.gain) == (1, 75.0, 5.0)
    assert mpda.fewer_errors == pytest.approx(100 * (1 - 25 / 30), abs=0.01)
    assert mpda.efficiency == pytest.approx(2**0.5, abs=0.001)  # half way from 4 to 8 labels
    assert (found["oracle"].seeds, found["oracle"].mean) == (1, 75.0)
    assert found["auto"].gain == pytest.approx((5 - 10) / 2)
    against = {one.recipe: one.auto_minus for one in compare(rows, {"d": (1,)})}
    assert against["mpda"] == 0.0  # in the seed that both have


def test_harm_is_the_lower_end_of_the_users_own_interval_and_the_control_is_the_recipe_against_itself() -> None:
    rows = [row("u", "base", hits(60)), row("u", "local", hits(50)), row("u", "matched", hits(40))]
    rows += [row("u", "matched", hits(40), training=1), row("u", "base", hits(60), training=1)]
    rows += [row("v", "base", hits(60)), row("v", "local", hits(50)), row("v", "matched", hits(100))]
    rows += [row("v", "matched", hits(40), training=1)]
    found = {one.recipe: one for one in summarize(rows, {"d": (1,)})}
    assert (found["matched"].harmed, found["matched"].clearly_harmed) == (0.5, 0.5)
    assert found["matched"].harmed_control == 0.5
    assert (found["base"].harmed, found["base"].harmed_control) == (0.0, 0.0)


def test_the_interval_of_a_user_counts_recordings_and_not_rows() -> None:
    def rows(scores: list[float], unit: list[int]) -> list[Row]:
        return [row("u", "r", scores, units=Units.of(np.asarray(unit), np.asarray(scores)).text())]

    mine, other = [1.0, 1.0, 0.0, 0.0] * 25, [0.0, 0.0, 0.0, 0.0] * 25
    separate = list(range(100))
    together = [i // 2 % 2 for i in range(100)]  # two recordings: one all better, one all equal
    low, high = paired_interval(rows(mine, separate), rows(other, separate))
    assert (low, high) == pytest.approx((0.5 - 0.0997, 0.5 + 0.0997), abs=0.001)  # 1.984 * sqrt(0.25 / 99)
    low, high = paired_interval(rows(mine, together), rows(other, together))
    assert low < -0.01 < 1.0 < high


def test_the_same_recording_in_two_seeds_counts_once() -> None:
    once = paired_interval([row("u", "a", hits(60))], [row("u", "b", hits(50))])
    seeds = (0, 1, 2)
    thrice = paired_interval(
        [row("u", "a", hits(60), seed=seed) for seed in seeds], [row("u", "b", hits(50), seed=seed) for seed in seeds]
    )
    assert thrice == pytest.approx(once)


def test_scores_by_recording_survive_the_way_through_a_line() -> None:
    units = Units.of(np.asarray([7, 4_000_000_000, 7], np.uint32), np.asarray([1.0, 0.25, 0.5]))
    again = Units.read(units.text())
    assert again.id.tolist() == [7, 4_000_000_000]
    assert (again.total.tolist(), again.rows.tolist()) == ([1.5, 0.25], [2, 1])


def test_the_labels_that_a_curve_needs_are_read_off_on_a_logarithmic_scale() -> None:
    labels, scores = np.asarray([1.0, 4.0, 16.0]), np.asarray([0.5, 0.7, 0.8])
    assert labels_needed(labels, scores, 0.6) == (pytest.approx(2.0), "")
    assert labels_needed(labels, scores, 0.7) == (pytest.approx(4.0), "")
    assert labels_needed(labels, scores, 0.9) == (16.0, "at least")
    assert labels_needed(labels, scores, 0.4) == (1.0, "at most")


def test_a_curve_that_falls_is_evened_out() -> None:
    assert rising(np.asarray([1.0, 5.0, 3.0, 6.0, 4.0, 2.0])).tolist() == [1.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    assert rising(np.asarray([1.0, 2.0, 4.0])).tolist() == [1.0, 2.0, 4.0]


def test_label_efficiency_is_what_local_needs_over_what_was_used() -> None:
    ladder = {1: (4, 50), 2: (8, 60), 4: (16, 70)}
    rows = [
        row(user, "local", hits(right), shots=shots, labels=labels)
        for user in ("u", "v")
        for shots, (labels, right) in ladder.items()
    ]
    rows += [row(user, recipe, hits(70)) for user in ("u", "v") for recipe in ("base", "matched")]
    found = {one.recipe: one for one in summarize(rows, {"d": (1,)})}
    assert (found["matched"].efficiency, found["matched"].efficiency_is) == (4.0, "")
    assert found["local"].efficiency == 1.0
    assert {one.shots for one in found.values()} == {1}


def test_the_oracle_takes_the_best_of_each_user_and_is_compared_with_nothing() -> None:
    rows = [row("u", "base", hits(90)), row("u", "local", hits(50)), row("u", "auto", hits(95))]
    rows += [row("v", "base", hits(10)), row("v", "local", hits(50)), row("v", "auto", hits(10))]
    oracle = next(one for one in summarize(rows, {"d": (1,)}) if one.oracle)
    assert (oracle.mean, oracle.chosen) == (70.0, {"base": 1, "local": 1})
    best = best_single(compare(rows, {"d": (1,)}))
    assert best is not None
    assert best.recipe in ("base", "local")


def test_all_data_sets_together_give_each_the_same_weight() -> None:
    rows = [row(f"u{i}", recipe, hits(right)) for i in range(9) for recipe, right in (("local", 50), ("matched", 60))]
    rows += [row("w", "local", hits(50), data="e"), row("w", "matched", hits(70), data="e")]
    rows += [row(r.board, "auto", hits(55), data=r.data) for r in rows if r.recipe == "local"]
    found = {one.recipe: one for one in compare(rows, {"d": (1,), "e": (1,)})}
    assert (found["matched"].gain, found["matched"].auto_minus) == (15.0, -10.0)
    assert (found["matched"].low, found["matched"].high) == (15.0, 15.0)


def test_a_journal_goes_on_after_a_line_that_was_cut_off_and_leaves_other_code_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    journal = Journal(path, Row)
    journal.add(row("u", "local", hits(5)))
    journal.add(row("u", "local", hits(6), code="older"))
    with path.open("a") as file:
        file.write('{"data": "d", "boa\n')
    again = Journal(path, Row)
    again.add(row("u", "local", hits(5)))
    assert (len(again.found), again.unreadable) == (2, 1)
    assert [one.code for one in again.of({"c"})] == ["c"]
    assert len(path.read_text().splitlines()) == 3


def test_a_line_that_was_cut_off_swallows_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"data": "d", "boa')
    Journal(path, Row).add(row("u", "local", hits(5)))
    again = Journal(path, Row)
    assert (len(again.found), again.unreadable) == (1, 1)


def test_a_ladder_has_no_rung_that_adds_nothing_or_leaves_nothing_to_test_on() -> None:
    y = np.repeat([0, 1], 20)
    order = {0: np.arange(3), 1: np.arange(20, 31)}
    board = Board("b", np.zeros((40, 2)), y, np.arange(40), order, np.arange(40))
    assert plan.climb(board, (1, 2, 5, 10, 20, 30)) == [2, 5, 10, 20]  # one of each is below the four wanted
    assert plan.climb(Board("b", board.x, y, board.group, order, np.arange(19)), (2, 5)) == []


def test_a_stage_is_made_while_the_games_of_the_one_before_it_are_played() -> None:
    places = [work.Place("d", seed, 0, "", "") for seed in range(3)]
    games = [plan.Game(place, number, "b", 1, 1, True, ()) for place in places for number in range(2)]
    first, second, third = games[:2], games[2:4], games[4:]
    assert _queue(games) == [places[0], places[1], *first, places[2], *second, *third]
    assert _queue([]) == []


def test_a_recording_has_the_same_number_in_whatever_order_its_rows_come() -> None:
    rng = np.random.default_rng(0)
    x, y, group = rng.normal(size=(12, 3)), np.arange(12) % 2, np.arange(12) // 3
    turned = rng.permutation(12)
    first = work.unit_ids(Board("b", x, y, group, {}, np.arange(12)))
    second = work.unit_ids(Board("b", x[turned], y[turned], 9 - group[turned], {}, np.arange(12)))
    assert (first[turned] == second).all()
    assert len(set(first.tolist())) == 4


def answered(pairs: Sequence[Pair] = ()) -> Answer:
    """Two data sets, one of them ranked; made so that `auto` is as good as `matched`."""
    rows = [
        row(user, recipe, hits(right), data=data, shots=shots, metric=metric, chosen=chosen)
        for data, metric, counts in (("d", "accuracy", (1, 3)), ("movielens", "auc", (20, 50)))
        for shots in counts
        for user, more in (("u", 0), ("v", 4))
        for recipe, right, chosen in (
            ("base", 40 - more, ""),
            ("local", 50 + more, ""),
            ("matched", 60, ""),
            ("auto", 60, "matched"),
        )
    ]
    wanted = Wanted(
        ("d", "movielens"), (1, 3), seeds=1, boards=0, folds=0, recipes=("base", "local", "matched", "auto")
    )
    shots = {"d": (1, 3), "movielens": (20, 50)}
    return Answer(wanted, rows, summarize(rows, shots), compare(rows, shots), [], list(pairs), {"d": 2, "movielens": 0})


def test_a_data_set_of_fewer_seeds_says_so() -> None:
    whole = answered()
    assert words.seeds(whole) == "1"
    again = [replace(one, seed=1) for one in whole.rows if one.data == "d"]
    assert words.seeds(replace(whole, rows=[*whole.rows, *again])) == "2 (d) or 1 (movielens)"


def test_the_page_asks_no_other_host_and_says_who_was_harmed(tmp_path: Path) -> None:
    pair = Pair("d", "<u>", 1, "auto: matched, matched", 0.5, 0.5)
    report.write(answered([pair]), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert {link.split('"')[0] for link in text.split("http://")[1:]} == {
        "www.w3.org/1999/xlink",
        "www.w3.org/2000/svg",
    }
    assert "https://" not in text
    assert "<u>" not in text
    assert text.count("<svg") == 3
    assert "Clearly harmed" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_the_document_has_every_figure_and_no_gap(tmp_path: Path) -> None:
    text = document.document(answered())
    assert not re.search(r"\{[a-z_]+\}", text)
    assert "| matched | 2 | 60.0 |" in text
    assert "### movielens: 20 % of the user's earliest rows (AUC in %, 2 users)" in text
    assert "| d, 1 | 100 % |" in text


def test_goals_are_told_where_they_are_missed() -> None:
    rows = [
        row(user, recipe, hits(right), data="wisdm", metric="accuracy")
        for user in ("u", "v")
        for recipe, right in (("base", 40), ("local", 50), ("matched", 56), ("auto", 54))
    ]
    wanted = Wanted(("wisdm",), (1,), seeds=1, boards=0, folds=0, recipes=("base", "local", "matched", "auto"))
    shots = {"wisdm": (1,)}
    found = Answer(wanted, rows, summarize(rows, shots), compare(rows, shots), [], [], {"wisdm": 0})
    _, [cells] = words.goals(found)
    assert cells[:5] == ("wisdm, 1", "+4.0", "6", "**no**", "+6.0")
    assert cells[-4:-1] == ("0 %", "3 %", "yes")
    assert "1 seed of `base`, `local`, `matched`, `auto`" in words.measured(found)


def test_a_recipe_that_needs_items_is_local_where_there_are_none() -> None:
    rows = [row("u", recipe, hits(right)) for recipe, right in (("base", 40), ("local", 50), ("auto", 60))]
    rows += [
        row("u", recipe, hits(right), data="movielens", shots=20, metric="auc")
        for recipe, right in (("base", 40), ("local", 50), ("neighbours", 58), ("auto", 58))
    ]
    found = {one.recipe: one for one in compare(rows, {"d": (1,), "movielens": (20,)})}
    assert (found["neighbours"].gain, found["neighbours"].auto_minus) == (4.0, 5.0)


def test_the_answer_names_the_best_single_recipe() -> None:
    assert "about as much as the best single recipe for everybody, `matched`" in words.verdict(answered())


def test_a_pair_that_differs_by_one_sample_is_shown_to_differ() -> None:
    assert Pair("d", "u", 1, "local", 0.123456, 0.1234564).same
    assert not Pair("d", "u", 1, "local", 0.50, 0.51).same


def pool_and_boards(path: Path) -> Path:
    """A file with a pool of eight people in two styles, and two boards."""
    rng = np.random.default_rng(3)
    parts: dict[str, list[Any]] = {name: [] for name in ("x", "y", "user", "part")}
    for person in range(10):
        y = np.repeat([0, 1, 2], 20)
        centre = np.asarray([[-2.0, -1.0], [2.0, -1.0], [0.0, 2.0]])[(y + person) % 3 if person % 2 else y]
        parts["x"].append(rng.normal(centre, 0.8, (60, 2)).astype(np.float32))
        parts["y"].append(np.asarray(["left", "right", "top"])[y])
        parts["user"].append(np.full(60, f"person-{person}"))
        local = np.isin(np.arange(60) % 20, [0, 1, 2])
        parts["part"].append(np.full(60, "pool") if person < 8 else np.where(local, "local", "test"))
    np.savez(path, **{name: np.concatenate(columns) for name, columns in parts.items()})
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pool_and_boards(tmp_path_factory.mktemp("file") / "people.npz")


def command(folder: Path, *arguments: str | Path) -> str:
    line = [sys.executable, "-m", "benchmarks.personalize", "--work", folder / "work", *arguments]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def measured(report: Path) -> list[dict[str, Any]]:
    rows = json.loads(report.read_text())["rows"]
    kept = [{name: value for name, value in one.items() if name not in MADE_BY_THE_CLOCK} for one in rows]
    return sorted(kept, key=lambda one: [str(one[name]) for name in ("board", "shots", "seed", "recipe", "training")])


def test_the_pool_is_ordered_as_the_cloud_gives_it_back(file: Path) -> None:
    fold = work.find_fold(str(file), 0, 0)
    samples, contributor = work.in_pool_order(fold)
    assert [str(name) for name in samples.user] == sorted(fold.user.astype(str))
    assert contributor.tolist() == sorted(contributor.tolist())
    assert len(samples) == 480


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing_and_a_second_run_measures_nothing(file: Path, tmp_path: Path) -> None:
    asked = ("--data", file, "--shots", "2", "--seeds", "1", "--recipes", "local,matched")
    one, two, again = tmp_path / "1.json", tmp_path / "2.json", tmp_path / "3.json"
    command(tmp_path / "one", *asked, "--processes", "1", "--json", one)
    said = command(tmp_path / "two", *asked, "--minutes", "0")
    assert "out of time: 4 boards and shots are left" in said
    said = command(tmp_path / "two", *asked, "--processes", "2", "--json", two)
    assert "4 of 4 boards and shots" in said
    assert measured(one) == measured(two)
    # boards: three recipes twice (`base` is always among them), and another rung of `local`
    assert len(measured(one)) == 2 * (3 * 2 + 1)
    said = command(tmp_path / "two", *asked, "--json", again, "--html", tmp_path / "r.html", "--curves", tmp_path)
    assert "to measure" not in said
    assert measured(two) == measured(again)
    assert "matched" in (tmp_path / "r.html").read_text()
    pngs = {path.name: path.read_bytes()[:4] for path in tmp_path.glob("*.png")}
    assert pngs == {"learning-curve-people.png": b"\x89PNG", "gains.png": b"\x89PNG"}


@pytest.mark.slow
def test_a_board_that_syncs_and_trains_over_https_is_as_good_as_the_functions_say(file: Path, tmp_path: Path) -> None:
    recipes = ("local", "random", "matched", "neighbours")  # the last is for other tasks
    games = plan.make_plan(Wanted((str(file),), (2,), seeds=1, boards=1, folds=0, recipes=recipes))
    pairs = https.play(games, 1, tmp_path)
    assert [pair.recipe for pair in pairs] == ["local", "matched"]
    assert [pair.https for pair in pairs] == pytest.approx([pair.direct for pair in pairs], abs=1e-5)
    assert pairs[0].direct > 0.5
