"""Accounts over time: from the command line, through a restore, and what the newer schema makes of older rows."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from cloud_aug import accounts, auth, backups, cloud, db, sessions
from cloud_aug.migrations.versions import v0007_console
from edgewire.errors import Unauthorized
from tests.cloud import toys
from tests.console import world


def run(*arguments: str, data, typed: str = "") -> subprocess.CompletedProcess[str]:
    """`cloud-aug admin ...` with a line on its stdin."""
    line, env = toys.command("admin", *arguments, data=data), toys.environment()
    return subprocess.run(line, input=typed, capture_output=True, text=True, timeout=120, env=env, check=False)


def test_accounts_are_made_changed_and_removed_from_the_command_line(data):
    assert run("add", "bob", "--role", "operator", data=data, typed="a long enough one\n").returncode == 0
    again = run("add", "bob", data=data, typed="a long enough one\n")
    assert (again.returncode, "there is an account 'bob'" in again.stderr) == (1, True)
    assert json.loads(run("role", "bob", "viewer", "--json", data=data).stdout)["changed"] is True
    listed = json.loads(run("list", "--json", data=data).stdout)["accounts"]
    assert [(one["name"], one["role"]) for one in listed if one["name"] == "bob"] == [("bob", "viewer")]
    assert json.loads(run("remove", "bob", "--json", data=data).stdout)["changed"] is True
    assert json.loads(run("remove", "bob", "--json", data=data).stdout)["changed"] is False


def test_credentials_are_listed_and_ended_by_name_and_no_restore_brings_them_back(data, tmp_path):
    made, now = cloud.open_cloud(data), time.time()
    for name in ("prometheus", "script", "script"):
        secret = auth.make_administrator(made, name, now=now, valid_for_s=600)
    backups.back_up(made, tmp_path / "backup", with_blobs=False, now=now, on_progress=toys.quiet)
    listed = json.loads(run("list", "--json", data=data).stdout)["credentials"]
    assert [one["name"] for one in listed] == ["prometheus", "script", "script"]
    assert json.loads(run("revoke", "script", "--json", data=data).stdout)["ended"] == 2
    assert json.loads(run("revoke", "script", "--json", data=data).stdout)["changed"] is False
    backups.restore(data, tmp_path / "backup", now=now, on_progress=toys.quiet)
    with pytest.raises(Unauthorized):
        auth.administrator(made, secret, now=time.time())
    assert [one.name for one in auth.credentials(made, now=time.time())] == ["prometheus"]


@pytest.mark.parametrize(
    ("arguments", "typed", "said"),
    [
        (("add", "bob"), "", "no password on stdin"),
        (("add", "bob"), "short\n", "12 to 1024 characters"),
        (("add", "<bob>"), "a long enough one\n", "is no name for an account"),
        (("add", "bob", "--role", "king"), "a long enough one\n", "viewer, operator, admin"),
    ],
)
def test_what_makes_no_account_says_why(data, arguments, typed, said):
    done = run(*arguments, data=data, typed=typed)
    assert (done.returncode, said in done.stderr) == (2, True)


def test_a_restore_brings_back_neither_a_removed_account_nor_a_session(data, tmp_path):
    made, now = cloud.open_cloud(data), time.time()
    secret = sessions.log_in(made, "ann", world.PASSWORD, address="::1", shown="", now=now)
    backups.back_up(made, tmp_path / "backup", with_blobs=False, now=now, on_progress=toys.quiet)
    accounts.remove(made, "vic", now=now)
    accounts.set_role(made, "olga", "viewer", now=now)
    backups.restore(data, tmp_path / "backup", now=now, on_progress=toys.quiet)
    assert [(one.name, one.role) for one in accounts.list_all(made, now=now)] == [("ann", "admin"), ("olga", "viewer")]
    assert sessions.find(made, secret, now=now, used=True) is None


def test_what_boards_told_before_the_upgrade_shows_after_it(data):
    made = cloud.open_cloud(data)
    with made.database.reading() as connection:
        rows = {row["board"]: row for row in v0007_console._states(connection)}
        last = connection.execute(db.telemetry.select().order_by(db.telemetry.c.id.desc()).limit(1)).one()
    point = json.loads(bytes(last.document))["points"][-1]
    assert len(rows) == 3
    assert rows[last.board]["temperature_c"] == point["temperature_c"]
    assert (rows[last.board]["gain"], rows[last.board]["shipped"]) == (pytest.approx(0.07), "blend")
