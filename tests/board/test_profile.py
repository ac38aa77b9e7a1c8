"""Which kind of board this is, from a recorded file system; what profiles may say; a site's own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import firmware_profiles
from edgectl.board import fit, memory, profile
from edgectl.telemetry.files import Files
from edgectl.telemetry.jetson import is_jetson
from edgewire.errors import CorruptFile, NotFound, UsageError
from firmware_profiles import schema
from tests.board.conftest import Board

MINE = 'id = "mine"\nschema_version = 1\nthreads = 3\n[match]\ndevice_tree_model_prefix = ["Acme"]\n'


def recorded(
    tmp_path: Path, model: bytes | None, *, memory_kb: int = 8_000_000, compatible: bytes | None = None
) -> Path:
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: {memory_kb} kB\nMemFree: 9 kB\nMemAvailable: 2048 kB\n")
    if model is not None:
        (tmp_path / "proc" / "device-tree" / "model").write_bytes(model)
    if compatible is not None:
        (tmp_path / "proc" / "device-tree" / "compatible").write_bytes(compatible)
    return tmp_path


# the model names as kernels and public reports have them; see the provenance of each profile
MODELS = [
    (b"Raspberry Pi Zero 2 W Rev 1.0\0", "pi-zero-2w"),
    (b"Raspberry Pi 3 Model B Plus Rev 1.3\0", "pi-3b-plus"),
    (b"Raspberry Pi 3 Model B+\0", "pi-3b-plus"),
    (b"Raspberry Pi 4 Model B Rev 1.5\0", "pi-4b"),
    (b"Raspberry Pi 5 Model B Rev 1.0\0", "pi-5"),
    (b"NVIDIA Jetson Nano Developer Kit\0", "jetson-nano"),
    (b"NVIDIA Jetson Nano 2GB Developer Kit\0", "jetson-nano"),
    (b"NVIDIA Jetson TX2 Developer Kit\0", "jetson-tx2"),
    (b"NVIDIA Jetson Xavier NX Developer Kit (SD-card)\0", "jetson-xavier-nx"),
    (b"NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0", "jetson-orin-nano"),
    (b"NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0", "jetson-orin-nx"),
    (b"NVIDIA Jetson AGX Orin Developer Kit\0", "jetson-agx-orin"),
    (b"NVIDIA Jetson AGX Thor Developer Kit\0", "jetson-thor"),
]
NEIGHBOURS = [  # near, but not known: none of these may get another board's limits
    b"Raspberry Pi 3 Model B Rev 1.2\0",
    b"Raspberry Pi Zero W Rev 1.1\0",
    b"Raspberry Pi 500 Rev 1.0\0",
    b"NVIDIA Jetson AGX Xavier Developer Kit\0",
    b"Something else\0",
]
GARBAGE = [None, b"", b"\0", b"\xff" * 100_000, b"\0Raspberry Pi 5 Model B", b"../../etc/passwd\0"]


@pytest.mark.parametrize(("model", "expected"), MODELS)
def test_the_model_name_decides(tmp_path: Path, model: bytes, expected: str) -> None:
    assert profile.detect(recorded(tmp_path, model)) == expected


def test_every_profile_but_generic_is_detected_by_some_model() -> None:
    assert {expected for _, expected in MODELS} == {*profile.ids()} - {"generic"}


@pytest.mark.parametrize("model", [*NEIGHBOURS, *GARBAGE])
def test_what_is_not_known_is_generic(tmp_path: Path, model: bytes | None) -> None:
    assert profile.detect(recorded(tmp_path, model)) == "generic"


def test_a_device_tree_that_cannot_be_read_is_no_device_tree(tmp_path: Path) -> None:
    root = recorded(tmp_path, None)
    (root / "proc" / "device-tree" / "model").mkdir()
    (root / "proc" / "device-tree" / "compatible").symlink_to("compatible")  # a loop
    assert profile.detect(root) == "generic"


def test_on_anothers_carrier_the_module_decides(tmp_path: Path) -> None:
    compatible = b"acme,robot\0nvidia,p3768-0000+p3767-0001\0nvidia,tegra234\0"
    assert profile.detect(recorded(tmp_path, b"Acme Robot\0", compatible=compatible)) == "jetson-orin-nx"


def test_in_a_container_the_device_tree_is_where_it_is_mounted(tmp_path: Path) -> None:
    root = recorded(tmp_path, b"NVIDIA Jetson Orin Nano Developer Kit\0", compatible=b"nvidia,tegra234\0")
    (root / "proc" / "device-tree").rename(root / "tree")
    assert profile.detect(root) == "generic"
    (root / "proc" / "device-tree").symlink_to("/nowhere")  # what Docker leaves of it
    (root / "run").mkdir()
    (root / "tree").rename(root / "run" / "device-tree")
    assert (profile.detect(root), is_jetson(Files(root), "")) == ("jetson-orin-nano", True)


def test_of_two_that_fit_the_longer_name_wins_then_the_nearer_memory(tmp_path: Path) -> None:
    root = recorded(tmp_path, b"Acme Board Pro 2\0", memory_kb=3_900_000)
    kinds: list[dict[str, Any]] = [
        {"id": "acme", "match": {"device_tree_model_prefix": ["Acme"]}},
        {"id": "pro-8", "match": {"device_tree_model_prefix": ["Acme Board Pro"], "memory_mb": [8192]}},
        {"id": "pro-4", "match": {"device_tree_model_prefix": ["Acme Board Pro"], "memory_mb": [4096, 2048]}},
        {"id": "generic"},
    ]
    assert profile.detect(root, among=lambda: kinds) == "pro-4"


@pytest.mark.parametrize("name", ["toaster", "../pi-5", "/etc/passwd", "pi-5.toml", "", "PI-5", "pi-5\0"])
def test_a_profile_that_does_not_exist_names_those_that_do(tmp_path: Path, name: str) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "pi-5.toml").write_text(MINE)
    with pytest.raises(NotFound, match="generic"):
        profile.load(name, (tmp_path / "profiles",))


@pytest.mark.parametrize("name", firmware_profiles.ids())
def test_a_profile_is_valid_and_gives_the_source_of_each_value(name: str) -> None:
    known = firmware_profiles.load(name)
    assert schema.problems(known, name=name) == []
    assert schema.unfounded(known) == []
    assert {key: value for key, value in known.items() if key != "provenance"} == firmware_profiles.facts(name)


def test_the_boards_of_the_project_all_have_a_profile() -> None:
    jetsons = {f"jetson-{kind}" for kind in ["nano", "tx2", "xavier-nx", "orin-nano", "orin-nx", "agx-orin", "thor"]}
    assert {*profile.ids()} == jetsons | {"pi-zero-2w", "pi-3b-plus", "pi-4b", "pi-5", "generic"}


@pytest.mark.parametrize("name", firmware_profiles.ids())
def test_what_a_profile_recommends_are_settings_that_exist(tmp_path: Path, name: str) -> None:
    from edgectl import config

    settings = config.load(config.Places({"HOME": str(tmp_path)}, tmp_path, tmp_path / "user.toml", False))
    recommended = profile.recommended(profile.load(name))
    assert recommended.keys() <= config.KEYS.keys()
    settings.override(**recommended)  # raises where a value is not one that the setting may have


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"treads": 4}, "treads is not a field of a profile"),
        ({"train": {"alow": "all"}}, "train.alow is not a field"),
        ({"threads": 0}, "threads is 0, expected a whole number from 1 to 1024"),
        ({"threads": True}, "threads is True"),
        ({"throttle_c": 800}, "throttle_c is 800, expected a number from 40 to 120"),
        ({"throttle_c": float("nan")}, "throttle_c is nan"),
        ({"train": {"allow": "everything"}}, "expected 'all', 'head' or 'none'"),
        ({"train": "all"}, "train is not a table"),
        ({"providers": []}, "providers is"),
        ({"providers": ["CPUExecutionProvider"] * 2}, "providers is"),
        ({"schema_version": 2}, "schema_version is 2, expected 1"),
        ({"pins": {"torch": "2.9.1; rm -rf /"}}, "pins.torch is"),
        ({"pins": {"index_url": "http://example.org"}}, "pins.index_url is"),
        ({"id": "yours"}, "id is 'yours', but the file is called 'mine'"),
        ({"id": "../mine"}, "id is '../mine', expected a name"),
        ({"throttle_c": 90, "soft_limit_c": 95}, "soft_limit_c is not below throttle_c"),
        ({"cores": 4, "threads": 5}, "threads is above cores"),
        ({"cores": [4, 6], "threads": 7}, "threads is above cores"),
        ({"cores": []}, "cores is [], expected a whole number"),
        ({"default_mode": "15W"}, "not among power_modes"),
        ({"idle_w": 9, "max_w": 5}, "idle_w is above max_w"),
        ({"pins": {"torch": "2.9.1", "torch_from": "image"}}, "brings its own"),
        ({"power": {"source": "none", "quality": "measured"}}, "power.source is 'none'"),
    ],
)
def test_a_profile_that_says_what_it_may_not_is_refused(change: dict[str, Any], complaint: str) -> None:
    found = schema.problems({"id": "mine", "schema_version": 1, **change}, name="mine")
    assert any(complaint in line for line in found), found


def test_a_value_without_a_source_is_found() -> None:
    known = {"id": "mine", "schema_version": 1, "cores": 4, "provenance": {"max_w": {"mark": "x", "source": ""}}}
    assert schema.unfounded(known) == [
        "cores has no source",
        "provenance of max_w, which has no value",
        "provenance of max_w: expected a mark (v, s, m, p) and a source",
    ]


def test_a_users_profile_comes_before_the_sites_before_ours(tmp_path: Path) -> None:
    user, site = tmp_path / "user", tmp_path / "site"
    for folder, threads in ((user, 1), (site, 2)):
        folder.mkdir()
        (folder / "pi-5.toml").write_text(f'id = "pi-5"\nschema_version = 1\nthreads = {threads}\n')
    (site / "mine.toml").write_text(MINE)
    assert profile.load("pi-5", (user, site))["threads"] == 1
    assert profile.load("pi-5", (site,))["threads"] == 2
    assert profile.load("pi-5")["threads"] == 4
    assert "mine" in profile.ids((user, site))


def test_a_board_is_detected_by_a_sites_profile(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mine.toml").write_text(MINE)
    assert profile.detect(recorded(tmp_path, b"Acme Gateway\0"), site=(tmp_path / "site",)) == "mine"


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"threads = ", CorruptFile, "is not TOML"),
        (b"\xff\xfe", CorruptFile, "is not TOML"),
        (b"a = " + b"[" * 30_000, CorruptFile, "is not TOML"),
        (b"#" * (profile.LIMIT_BYTES + 1), CorruptFile, "larger than 64 KiB"),
        (b"", UsageError, "id is missing"),
        (MINE.replace("threads", "treads").encode(), UsageError, "treads is not a field"),
    ],
)
def test_an_invalid_profile_of_a_site_is_refused_by_its_file(
    tmp_path: Path, content: bytes, error: type[Exception], words: str
) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        profile.load("mine", (tmp_path,))
    assert "mine.toml" in str(caught.value)


def test_a_hidden_file_is_no_profile_and_a_name_that_is_none_is_told(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "._pi-5.toml").write_bytes(b"\x00\x05\x16\x07")
    root = recorded(tmp_path, b"Acme Gateway\0")
    assert profile.detect(root, site=(site,)) == "generic"
    (site / "Mine.toml").write_text(MINE)
    with pytest.raises(UsageError, match=r"Mine\.toml: "):
        profile.detect(root, site=(site,))


def test_a_fifo_is_no_profile(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.toml")
    with pytest.raises(NotFound):
        profile.load("mine", (tmp_path,))


def test_memory_that_the_system_does_not_tell_is_unknown_not_zero(tmp_path: Path) -> None:
    assert memory.available_mib(tmp_path) is None
    assert memory.available_mib(recorded(tmp_path, None)) == 2.0
    (tmp_path / "proc" / "meminfo").write_bytes(b"MemAvailable: \xff\xfe kB\nMemTotal: lots kB\n")
    assert memory.available_mib(tmp_path) is None
    assert memory.total_mib(tmp_path) is None


def outcomes(known: dict[str, Any], root: Path, **machine: Any) -> dict[str, str]:
    found = fit.compare(known, root, **{"arch": "aarch64", "python": "3.11", "version": lambda name: None, **machine})
    return {one.field: one.outcome for one in found}


def test_a_pi_4_fits_its_profile(tmp_path: Path) -> None:
    root = recorded(tmp_path, b"Raspberry Pi 4 Model B Rev 1.5\0", memory_kb=3_884_000)
    (root / "sys" / "devices" / "system" / "cpu").mkdir(parents=True)
    (root / "sys" / "devices" / "system" / "cpu" / "present").write_text("0-3\n")
    installed = {"torch": "2.9.1+cpu", "onnxruntime": "1.22.0"}
    found = outcomes(profile.load("pi-4b"), root, version=installed.get)
    assert set(found.values()) == {"fits"}


def test_what_does_not_fit_is_told_field_by_field(tmp_path: Path) -> None:
    root = recorded(tmp_path, b"Raspberry Pi 4 Model B Rev 1.5\0", memory_kb=3_884_000)
    found = outcomes(profile.load("pi-5"), root, arch="x86_64", python="3.9", version={"torch": "2.10.0"}.get)
    differing = {field for field, outcome in found.items() if outcome == "differs"}
    assert differing == {"match", "arch", "python", "pins.torch"}
    assert found["cores"] == "unknown"


@pytest.mark.parametrize(("present", "outcome"), [("0-5", "fits"), ("0-7", "fits"), ("0-3", "differs")])
def test_every_module_that_a_board_is_sold_with_fits(tmp_path: Path, present: str, outcome: str) -> None:
    root = recorded(tmp_path, b"NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0")
    (root / "sys" / "devices" / "system" / "cpu").mkdir(parents=True)
    (root / "sys" / "devices" / "system" / "cpu" / "present").write_text(f"{present}\n")
    assert outcomes(profile.load("jetson-orin-nx"), root)["cores"] == outcome


def test_power_modes_are_compared_by_name(tmp_path: Path) -> None:
    root = recorded(tmp_path, b"NVIDIA Jetson Orin Nano Developer Kit\0")
    (root / "etc").mkdir()
    (root / "etc" / "nvpmodel.conf").write_text("< POWER_MODEL ID=0 NAME=15W >\n# < POWER_MODEL ID=1 NAME=OLD >\n")
    assert outcomes(profile.load("jetson-orin-nano"), root)["power_modes"] == "fits"
    (root / "etc" / "nvpmodel.conf").write_text("< POWER_MODEL ID=0 NAME=TURBO >\n")
    assert outcomes(profile.load("jetson-orin-nano"), root)["power_modes"] == "differs"


@pytest.mark.parametrize("text", ["", "many", "0-", "\0\0", "9" * 30])
def test_garbage_about_cores_is_unknown(tmp_path: Path, text: str) -> None:
    root = recorded(tmp_path, b"x")
    (root / "sys" / "devices" / "system" / "cpu").mkdir(parents=True)
    (root / "sys" / "devices" / "system" / "cpu" / "present").write_text(text)
    assert outcomes(profile.load("pi-4b"), root)["cores"] == "unknown"


def test_check_says_what_this_machine_contradicts(newcomer: Board) -> None:
    own = newcomer.folder / "config" / "edgectl" / "profiles"
    own.mkdir(parents=True)
    (own / "mine.toml").write_text('id = "mine"\nschema_version = 1\ncores = 999\n')
    done = newcomer.edgectl("profile", "check", "mine", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 7
    assert report["origin"] == str(own / "mine.toml")
    assert [one["field"] for one in report["findings"] if one["outcome"] == "differs"] == ["cores"]
    assert b"cores" in done.stderr


def test_check_refuses_an_invalid_file(newcomer: Board) -> None:
    file = newcomer.folder / "odd.toml"
    file.write_text('id = "odd"\nschema_version = 1\ntreads = 4\n')
    done = newcomer.edgectl("profile", "check", str(file))
    assert done.returncode == 2
    assert b"treads is not a field of a profile" in done.stderr


def test_every_setting_that_a_profile_drives_can_be_overruled(newcomer: Board) -> None:
    newcomer.edgectl("config", "set", "profile", "pi-zero-2w")
    newcomer.edgectl("config", "set", "train_scope", "all")
    done = newcomer.edgectl("config", "list", "--json")
    origins = {row["key"]: (row["value"], row["origin"]) for row in json.loads(done.stdout)["settings"]}
    assert origins["threads"] == (4, "profile pi-zero-2w")
    assert origins["train_batch_rows"] == (8, "profile pi-zero-2w")
    assert origins["train_whole_parameters"] == (50000, "profile pi-zero-2w")
    assert origins["providers"] == ("CPUExecutionProvider", "profile pi-zero-2w")
    assert origins["train_scope"][0] == "all"
    assert origins["train_scope"][1].endswith("config.toml")
