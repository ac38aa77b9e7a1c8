"""Settings and where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgectl import config
from edgectl.config import Places
from edgewire import errors


def places(tmp_path: Path, **environ: str) -> Places:
    (tmp_path / "etc" / "conf.d").mkdir(parents=True, exist_ok=True)
    return Places({"HOME": str(tmp_path), **environ}, tmp_path / "etc", tmp_path / "user.toml", superuser=False)


def test_a_flag_beats_the_environment_beats_files_beat_profile_beats_default(tmp_path: Path) -> None:
    here = places(tmp_path)
    expected = ["0"]
    found = [config.load(here)]
    (here.etc / "edgectl.toml").write_text("threads = 1")
    found.append(config.load(here))
    (here.etc / "conf.d" / "10-site.toml").write_text("threads = 2")
    found.append(config.load(here))
    here.user_file.write_text("threads = 3")
    found.append(config.load(here))
    found.append(config.load(places(tmp_path, EDGECTL_THREADS="4")))
    found.append(found[-1].override(threads=5))
    expected = [0, 1, 2, 3, 4, 5]
    assert [settings.whole("threads") for settings in found] == expected
    assert found[0].below("profile", {"threads": 9}).whole("threads") == 9
    assert found[1].below("profile", {"threads": 9}).whole("threads") == 1


def test_every_origin_is_named(tmp_path: Path) -> None:
    here = places(tmp_path, EDGECTL_DEVICE="cpu")
    here.user_file.write_text("reports = false")
    origins = {name: setting.origin for name, setting in config.load(here).settings.items()}
    assert (origins["device"], origins["reports"], origins["mode"]) == (
        "EDGECTL_DEVICE",
        str(here.user_file),
        "default",
    )


def test_a_path_is_set_as_it_is_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = places(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/pi")
    config.set_in_file(here.user_file, "fleet_inventory", "boards.yml")
    config.set_in_file(here.user_file, "agent_watch_folder", "~/inbox")
    settings = config.load(here)
    assert settings.text("fleet_inventory") == str(tmp_path / "boards.yml")
    assert settings.text("agent_watch_folder") == "/home/pi/inbox"
    config.set_in_file(here.user_file, "fleet_inventory", "-")
    assert config.load(here).text("fleet_inventory") == "-"


def test_an_unknown_key_is_refused_with_its_file(tmp_path: Path) -> None:
    here = places(tmp_path)
    here.user_file.write_text("treads = 3")
    with pytest.raises(errors.UsageError, match=r"unknown setting 'treads' in .*user\.toml"):
        config.load(here)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('threads = "many"', "whole number"),
        ('mode = "bytes"', "directory"),
        ("reports = 3", "true or false"),
        ("rounds_noise = -0.5", "a number from 0 to 1000"),
        ("rounds_noise = nan", "a number from 0 to 1000"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(tmp_path: Path, line: str, expected: str) -> None:
    here = places(tmp_path)
    here.user_file.write_text(line)
    with pytest.raises(errors.UsageError, match=expected):
        config.load(here)


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    here = places(tmp_path)
    here.user_file.write_text("threads: 3")
    with pytest.raises(errors.CorruptFile, match=r"user\.toml is not TOML"):
        config.load(here)


def test_setting_keeps_comments_and_says_whether_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "user.toml"
    path.write_text("# this board hangs in the cold\nthreads = 1\n")
    assert config.set_in_file(path, "device", "cpu")
    assert not config.set_in_file(path, "device", "cpu")
    assert path.read_text() == '# this board hangs in the cold\nthreads = 1\ndevice = "cpu"\n'
    assert config.unset_in_file(path, "device")
    assert not config.unset_in_file(path, "device")


def test_values_keep_their_kind_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "user.toml"
    config.set_in_file(path, "reports", "no")
    config.set_in_file(path, "threads", "2")
    config.set_in_file(path, "rounds_noise", "0.5")
    assert config.read_file(path) == {"reports": False, "threads": 2, "rounds_noise": 0.5}
    assert not config.set_in_file(path, "rounds_noise", "0.50")


def test_a_wrong_value_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError):
        config.set_in_file(tmp_path / "user.toml", "threads", "-1")
    assert not (tmp_path / "user.toml").exists()


def test_the_state_folder_is_the_systems_for_root_and_the_users_otherwise(tmp_path: Path) -> None:
    assert config.load(places(tmp_path)).state == tmp_path / ".local" / "state" / "edgectl"
    assert config.load(places(tmp_path, XDG_STATE_HOME="/elsewhere")).state == Path("/elsewhere/edgectl")
    root = Places({}, tmp_path / "etc", tmp_path / "user.toml", superuser=True)
    assert config.load(root).state == Path("/var/lib/edgectl")
