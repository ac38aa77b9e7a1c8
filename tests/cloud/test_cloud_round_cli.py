"""`cloud-aug round`: made, started, watched, stopped and resumed; what it made is fetched and published."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import sqlalchemy as sa
from rich.console import Console

from cloud_aug import db
from cloud_aug.commands import round as commands
from cloud_aug.rounds.status import status
from edgewire import tensors
from tests.cloud import toys
from tests.cloud.players import Player, allow_rounds, begun, gathered, move_on
from tests.cloud.toys import report, run

BACKENDS = ("files",)
MAKE = ("round", "create", "--task", "toy", "--rounds", "1", "--cohort", "3", "--quorum", "2", "--gather", "60s")


@pytest.fixture
def players(client, cloud, clock):
    allow_rounds(cloud)
    return [Player(client, cloud, clock) for _ in range(3)]


def test_a_series_from_its_making_to_the_next_base(data, cloud, clock, players, tmp_path):
    made = report(*MAKE, "--set", "server_rate=0.5", "--adapt", "all", data=data)
    series = made["series"]
    assert made["plan"]["adapt"] == ["deadline", "steps", "frequency", "switch"]
    assert (made["boards"], made["started"], made["plan"]["options"]) == (3, False, {"server_rate": 0.5})
    assert [report("round", "start", series, data=data)["changed"] for _ in range(2)] == [True, False]
    assert [report("round", "stop", series, data=data)["changed"] for _ in range(2)] == [True, False]
    assert report("round", "resume", series, data=data)["changed"]
    gathered(players, series)
    with subprocess.Popen(
        toys.command("round", "status", series, "--watch", "--json", data=data),
        stdout=subprocess.PIPE,
        text=True,
        env=toys.environment(),
    ) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())["series"]
        assert first["history"][0]["state"] == "open"
        for player, told in zip(players, ({"energy_j": 2.5}, {"energy_j": 4.0}, {}), strict=True):
            player.play(0.5, **told)
        last = json.loads(watching.stdout.read().splitlines()[-1])["series"]
    assert (watching.returncode, last["state"], last["closed"]) == (0, "finished", 1)
    assert (last["history"][0]["energy_j"], last["history"][0]["energy_told"]) == (6.5, 2)
    assert "6.5 J of 2" in run("round", "status", series, "--watch", data=data).stdout
    for which in ((), ("--board", players[0].id)):
        out = tmp_path / "model.safetensors"
        assert report("round", "fetch", series, *which, "--out", str(out), data=data)["round"] == 1
        weights, meta = tensors.unpack(out.read_bytes(), what="model", limit_bytes=1 << 20)
        assert (meta["task"], out.stat().st_mode & 0o777) == ("toy", 0o600)
        assert all(np.isfinite(array).all() for array in weights.values())
    published = [report("round", "publish", series, data=data) for _ in range(2)]
    assert [(one["changed"], one["base"]["version"]) for one in published] == [(True, 2), (False, 2)]
    assert report("index", "build", "--task", "toy", data=data)["publication"]["base"]["version"] == 2
    assert series in run("round", "status", data=data).stdout
    assert "following boards' pace: deadline, steps" in run("round", "status", series, data=data).stdout


def test_what_each_board_was_worth_is_a_table_and_json(data, cloud, clock, players):
    made = begun(cloud, clock, algorithm="leave-one-out", rounds=1)
    gathered(players, made.id)
    for player, value in zip(players, (0.0, 0.0, -1.0), strict=True):
        player.play(value)
    assert move_on(cloud, made.id, clock).state == "finished"
    told = report("round", "status", made.id, "--boards", "last", data=data)
    worth = {one["board"]: one["worth"] for one in told["boards"]}
    assert (told["round"], told["series"]["closed"], len(worth)) == (1, 1, 3)
    assert worth[players[2].id] < 0 < worth[players[0].id]
    text = run("round", "status", made.id, "--boards", "1", data=data).stdout
    assert f"{worth[players[2].id]:+.4f}" in text
    refused = run("round", "status", "--boards", "last", data=data)
    assert (refused.returncode, "--boards is for one series" in refused.stderr) == (2, True)


def test_people_are_shown_the_last_rounds(data, cloud, clock, players):
    made = begun(cloud, clock)
    with cloud.database.writing() as connection:
        first = connection.execute(sa.select(db.rounds)).one()._mapping
        connection.execute(db.rounds.insert(), [{**first, "number": number} for number in range(2, 40)])
    shown = [line for line in run("round", "status", made.id, data=data).stdout.splitlines() if "gathering" in line]
    assert [int(line.split()[0]) for line in shown] == list(range(25, 40))
    assert len(report("round", "status", made.id, data=data)["series"]["history"]) == 39
    terminal = Console(width=80, height=24)
    drawn = commands._fitted(status(cloud, made.id, now=clock(), history=15), terminal)
    assert len(terminal.render_lines(drawn)) <= 24
    assert [line.split()[0] for line in drawn.plain.splitlines() if "gathering" in line][-1] == "39"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--quorum", "9"), 2, "never reach a quorum"),
        (("--algorithm", "magic"), 2, "no algorithm"),
        (("--set", "speed"), 2, "no option"),
        (("--network", "pigeon"), 2, "malformed"),
        (("--deadline", "soon"), 2, "not a span"),
        (("--learning-rate", "1000"), 2, "malformed"),
        (("--algorithm", "median", "--adapt", "switch"), 2, "deadline, steps can"),
        (("--adapt", "everything"), 2, "Invalid value for '--adapt'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(data, players, arguments, code, said):
    done = run(*MAKE, *arguments, data=data)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_a_series_that_cannot_start_beside_another_is_named(data, players):
    first = report(*MAKE, "--start", data=data)["series"]
    done = run(*MAKE, "--start", data=data)
    assert done.returncode == 1
    [second] = {one["id"] for one in report("round", "status", data=data)["series"]} - {first}
    assert f"cloud-aug round stop {first}; then cloud-aug round start {second}" in done.stderr


def test_what_is_not_there_is_said(data, players):
    for command in ("start", "stop", "resume", "status", "publish"):
        done = run("round", command, "0" * 16, data=data)
        assert (done.returncode, "no series" in done.stderr) == (1, True), done.stderr
    series = report(*MAKE, "--start", data=data)["series"]
    assert "closed no round yet" in run("round", "fetch", series, "--out", "x", data=data).stderr
    for which in ("worst", "²", "9" * 20):
        done = run("round", "fetch", series, "--round", which, "--out", "x", data=data)
        assert (done.returncode, "is no round" in done.stderr) == (2, True), done.stderr
