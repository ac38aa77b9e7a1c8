"""scripts/install.sh on recorded boards, and from a bundle; the bundle itself."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from edgectl import bundle
from edgectl.home import ROOT_STATE, Home, default_root
from edgewire.errors import Busy, DigestMismatch, EdgeError, NotFound, NothingToDo, RetryLater, TimedOut, UsageError
from tests.board.conftest import Board
from tests.board.test_profile import GARBAGE, MODELS, NEIGHBOURS, recorded

ROOT = Path(__file__).parents[2]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
Done = subprocess.CompletedProcess


def install(script: Path, *arguments: str, arch: str = "aarch64") -> Done[str]:
    environ = {**os.environ, "INSTALL_ARCH": arch}
    return subprocess.run(
        [str(script), *arguments], capture_output=True, text=True, errors="replace", env=environ, check=False
    )


def dry(root: Path, *arguments: str, arch: str = "aarch64") -> Done[str]:
    return install(ROOT / "scripts" / "install.sh", "--dry-run", "--root", str(root), *arguments, arch=arch)


@pytest.mark.parametrize(
    ("model", "expected"), [*MODELS, *((model, "generic") for model in (*NEIGHBOURS[:2], *GARBAGE[:4]))]
)
def test_the_installer_finds_the_same_board_as_edgectl(tmp_path: Path, model: bytes | None, expected: str) -> None:
    assert f"profile: {expected}\n" in dry(recorded(tmp_path, model)).stdout


@pytest.mark.skipif(PYTHON not in ("3.11", "3.13"), reason="not a Python of Pi OS")
def test_a_profile_that_was_asked_for_is_not_forgotten_after_installing(tmp_path: Path) -> None:
    said = dry(recorded(tmp_path, b"Acme Board\0"), "--profile", "pi-4b", "--python", sys.executable).stdout
    assert 'put profile = "pi-4b" into /etc/edgectl/edgectl.toml' in said
    fitting = dry(recorded(tmp_path / "4", b"Raspberry Pi 4 Model B Rev 1.5\0"), "--python", sys.executable).stdout
    assert "put profile" not in fitting


def test_on_anothers_carrier_the_module_decides(tmp_path: Path) -> None:
    compatible = b"acme,robot\0nvidia,p3768-0000+p3767-0001\0nvidia,tegra234\0"
    assert "profile: jetson-orin-nx\n" in dry(recorded(tmp_path, b"Acme\0", compatible=compatible)).stdout


@pytest.mark.skipif(PYTHON not in ("3.11", "3.13"), reason="not a Python of Pi OS")
def test_a_dry_run_says_what_it_would_do_and_does_nothing(tmp_path: Path) -> None:
    root = recorded(tmp_path / "root", b"Raspberry Pi 4 Model B Rev 1.5\0")
    before = sorted(root.rglob("*"))
    done = dry(root, "--python", sys.executable)
    assert done.returncode == 0, done.stderr
    assert "torch 2.9.1: runs on this board's cores" in done.stdout
    assert "onnxruntime 1.22.0" in done.stdout
    assert "--require-hashes" in done.stdout
    assert sorted(root.rglob("*")) == before


@pytest.mark.skipif(PYTHON not in ("3.11", "3.13"), reason="not a Python of Pi OS")
def test_a_zero_gets_no_torch_unless_asked_for(tmp_path: Path) -> None:
    root = recorded(tmp_path, b"Raspberry Pi Zero 2 W Rev 1.0\0")
    assert "without torch" in dry(root, "--python", sys.executable).stdout
    assert "torch 2.9.1" in dry(root, "--python", sys.executable, "--train").stdout


@pytest.mark.parametrize(
    ("arguments", "arch", "code", "words"),
    [
        ((), "x86_64", 7, "this machine is x86_64"),
        (("--profile", "toaster"), "aarch64", 7, "no profile 'toaster'"),
        (("--profile", "../pi-5"), "aarch64", 7, "not the name of a profile"),
        (("--profile",), "aarch64", 2, "needs a value"),
        (("--prefix", "opt"), "aarch64", 2, "absolute path"),
        (("--frobnicate",), "aarch64", 2, "unknown option"),
        (("--profile", "jetson-nano", "--python", "/bin/false"), "aarch64", 7, "run it in a container"),
        (("--profile", "pi-5", "--python", "/bin/false"), "aarch64", 7, "python3-venv"),
    ],
)
def test_what_cannot_be_installed_is_refused_with_a_way_out(
    tmp_path: Path, arguments: tuple[str, ...], arch: str, code: int, words: str
) -> None:
    done = dry(recorded(tmp_path, None), *arguments, arch=arch)
    assert done.returncode == code
    assert words in done.stderr


def wheel(folder: Path, name: str, version: str = "1.0") -> Path:
    """A wheel with one module, which any Python can install."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": b"",
        f"{name}/__main__.py": b"print('it runs')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},sha256={_digest(data)},{len(data)}\n" for file, data in files.items())
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            archive.writestr(zipfile.ZipInfo(file), data)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkout whose only lock names two small wheels, which lie in its folder `index`."""
    source = tmp_path / "source"
    (source / "firmware_profiles" / "locks").mkdir(parents=True)
    (source / "scripts").mkdir()
    (source / "index").mkdir()
    shutil.copy(ROOT / "scripts" / "install.sh", source / "scripts")
    shutil.copytree(ROOT / "systemd", source / "systemd")
    profile = (ROOT / "firmware_profiles" / "pi-4b.toml").read_text()
    (source / "firmware_profiles" / "pi-4b.toml").write_text(profile.replace('"3.11", "3.13"', f'"{PYTHON}"'))
    lines = {}
    for name in ("onnxruntime", "torch"):
        data = wheel(source / "index", name).read_bytes()
        lines[name] = f"{name}==1.0 --hash=sha256:{hashlib.sha256(data).hexdigest()}\n"
    lock = source / "firmware_profiles" / "locks" / f"pi-4b-py{PYTHON.replace('.', '')}.txt"
    lock.write_text(f"# a lock\n{lines['onnxruntime']}{bundle.TRAINING}\n{lines['torch']}")
    return source


def offline_pip(source: Path) -> bundle.Run:
    """Does what pip would, from the folder `index`."""

    def run(command: Sequence[str]) -> None:
        if "download" in command:
            assert "--require-hashes" in command
            folder = Path(command[command.index("--dest") + 1])
            wanted = Path(command[-1]).read_text()
            for path in (source / "index").iterdir():
                if path.name.split("-")[0] in wanted:
                    shutil.copy(path, folder)
        else:
            wheel(Path(command[command.index("--wheel-dir") + 1]), "edgectl")

    return run


def make(source: Path, out: Path, *, training: bool = True, run: bundle.Run | None = None) -> bundle.Made:
    pip = run or offline_pip(source)
    return bundle.make(source, out, profile="pi-4b", python=PYTHON, training=training, run=pip)


def test_a_bundle_installs_without_network_into_a_root(source: Path, tmp_path: Path) -> None:
    made = make(source, tmp_path / "bundle")
    root = recorded(tmp_path / "root", b"Raspberry Pi 4 Model B Rev 1.5\0")
    (root / "etc").mkdir()
    (root / "etc" / "group").write_text("video:x:44:\n")
    for _ in range(2):  # again: a board is updated by the same line
        done = install(made.folder / "install.sh", "--root", str(root), "--python", sys.executable)
        assert done.returncode == 0, done.stderr
    python = root / "opt" / "edgectl" / "bin" / "python"
    ran = subprocess.run([python, "-I", "-m", "edgectl"], capture_output=True, text=True, check=False)
    assert ran.stdout == "it runs\n"
    assert subprocess.run([python, "-I", "-c", "import torch, onnxruntime"], check=False).returncode == 0
    assert (root / "etc" / "systemd" / "system" / "edgectl-sync.timer").is_file()
    for unit in (unit for unit in UNITS if unit.suffix == ".service"):
        groups = root / "etc" / "systemd" / "system" / f"{unit.name}.d" / "groups.conf"
        assert "SupplementaryGroups=video" in groups.read_text()
    assert (root / "usr" / "local" / "bin" / "edgectl").readlink() == Path("/opt/edgectl/bin/edgectl")
    assert [path.name for path in (root / "opt").iterdir()] == ["edgectl"]


def test_an_installation_that_fails_leaves_what_was_there_and_nothing_half_made(source: Path, tmp_path: Path) -> None:
    made = make(source, tmp_path / "bundle")
    root = recorded(tmp_path / "root", b"Raspberry Pi 4 Model B Rev 1.5\0")
    install(made.folder / "install.sh", "--root", str(root), "--python", sys.executable)
    full = tmp_path / "python"  # the disk is full in the middle
    full.write_text(
        f'#!/bin/sh\ncase $* in *"-m venv"*) for d; do :; done; mkdir "$d"; echo half >"$d/file"; exit 1;; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    full.chmod(0o755)
    assert install(made.folder / "install.sh", "--root", str(root), "--python", str(full)).returncode == 1
    (root / "opt" / "edgectl").rename(root / "opt" / "edgectl.old")  # as if cut off between the two renames before
    assert install(made.folder / "install.sh", "--root", str(root), "--python", str(full)).returncode == 1
    assert [path.name for path in (root / "opt").iterdir()] == ["edgectl"]
    assert (root / "opt" / "edgectl" / "bin" / "edgectl").is_file()


def test_the_services_state_is_theirs_and_doctor_tries_what_they_may(source: Path, tmp_path: Path) -> None:
    made = make(source, tmp_path / "bundle")
    done = install(made.folder / "install.sh", "--dry-run", "--profile", "pi-4b", "--python", sys.executable)
    steps = [line.removeprefix("[install] + ") for line in done.stdout.splitlines()]
    assert steps.index("mkdir -p -m 700 /var/lib/edgectl") < steps.index("chown -R edgectl:edgectl /var/lib/edgectl/")
    assert steps.index("sync -f /opt/edgectl.new") < steps.index("mv /opt/edgectl.new /opt/edgectl")
    doctor = next(step for step in steps if step.endswith("doctor --offline"))
    assert doctor.startswith("runuser -u edgectl ")
    assert " HOME=/var/lib/edgectl " in doctor


def test_a_bundle_without_training_has_no_torch_and_says_so(source: Path, tmp_path: Path) -> None:
    made = make(source, tmp_path / "bundle", training=False)
    assert sorted(path.name.split("-")[0] for path in (made.folder / "wheels").iterdir()) == ["edgectl", "onnxruntime"]
    done = install(made.folder / "install.sh", "--dry-run", "--profile", "pi-4b", "--train", "--python", sys.executable)
    assert done.returncode == 2
    assert "made without training" in done.stderr


def _damage(folder: Path) -> None:
    next((folder / "wheels").glob("torch*")).write_bytes(b"damage")


def _smuggle(folder: Path) -> None:
    wheel(folder / "wheels", "onnxruntime", "9.9")


def _leave_out(folder: Path) -> None:
    next((folder / "wheels").glob("torch*")).unlink()


def _point_outside(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  ../../etc/passwd\n")


@pytest.mark.parametrize("spoil", [_damage, _smuggle, _leave_out, _point_outside])
def test_a_bundle_that_is_not_what_was_made_is_refused(
    source: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    made = make(source, tmp_path / "bundle")
    spoil(made.folder)
    root = recorded(tmp_path / "root", b"Raspberry Pi 4 Model B Rev 1.5\0")
    done = install(made.folder / "install.sh", "--root", str(root), "--python", sys.executable)
    assert done.returncode == 8
    assert not (root / "opt").exists()


def test_what_is_gone_from_the_checkout_is_in_no_later_bundle_and_building_leaves_nothing_there(
    source: Path, tmp_path: Path
) -> None:
    pytest.importorskip("setuptools")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "edgectl"\nversion = "1.0"\n[tool.setuptools]\npackages = ["edgectl"]\n'
    )
    (source / "edgectl").mkdir()
    for name in ("__init__.py", "gone.py"):
        (source / "edgectl" / name).touch()
    offline = offline_pip(source)

    def pip(command: Sequence[str]) -> None:
        if "wheel" in command:
            bundle.run([*command, "--no-build-isolation", "--quiet"])
        else:
            offline(command)

    make(source, tmp_path / "first", run=pip)
    assert not (source / "build").exists()
    (source / "edgectl" / "gone.py").unlink()
    made = make(source, tmp_path / "second", run=pip)
    with zipfile.ZipFile(next(made.folder.glob("wheels/edgectl-*.whl"))) as built:
        assert [name for name in built.namelist() if name.endswith(".py")] == ["edgectl/__init__.py"]


def test_a_bundle_for_another_python_says_which_to_make(source: Path, tmp_path: Path) -> None:
    locks = source / "firmware_profiles" / "locks"
    shutil.copy(next(locks.iterdir()), locks / "pi-4b-py399.txt")
    made = bundle.make(
        source, tmp_path / "bundle", profile="pi-4b", python="3.99", training=True, run=offline_pip(source)
    )
    root = recorded(tmp_path / "root", b"Raspberry Pi 4 Model B Rev 1.5\0")
    done = install(made.folder / "install.sh", "--root", str(root), "--python", sys.executable)
    assert done.returncode == 7
    assert f"for pi-4b-py399.txt, this board is 'pi-4b' with Python {PYTHON}" in done.stderr
    assert f"edgectl bundle make --profile pi-4b --python {PYTHON}\n" in done.stderr


def test_a_wheel_that_the_lock_does_not_name_is_refused_when_the_bundle_is_made(source: Path, tmp_path: Path) -> None:
    (source / "index" / "torch-1.0-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(DigestMismatch, match="torch"):
        make(source, tmp_path / "bundle")
    assert not list(tmp_path.glob("*bundle*"))


def test_a_missing_wheel_a_failing_pip_and_an_old_folder_are_told_apart(source: Path, tmp_path: Path) -> None:
    (source / "index" / "torch-1.0-py3-none-any.whl").unlink()
    with pytest.raises(NotFound, match="missing: torch"):
        make(source, tmp_path / "bundle")
    with pytest.raises(EdgeError, match="ended with 1"):
        make(source, tmp_path / "bundle", run=lambda command: bundle.run([sys.executable, "-c", "exit(1)"]))
    (tmp_path / "bundle").mkdir()
    with pytest.raises(UsageError, match="there already"):
        make(source, tmp_path / "bundle")


@pytest.mark.parametrize(("profile", "python"), [("pi-4b", "2.7"), ("../locks/pi-4b", PYTHON), ("*", PYTHON)])
def test_a_bundle_without_a_lock_is_refused(source: Path, tmp_path: Path, profile: str, python: str) -> None:
    with pytest.raises(NotFound, match="no lock"):
        bundle.make(source, tmp_path / "bundle", profile=profile, python=python, training=True)


UNITS = sorted((ROOT / "systemd").iterdir())


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name)
def test_services_run_as_their_own_user_and_may_write_their_state_only(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    for line in ("User=edgectl", "StateDirectory=edgectl", "ProtectSystem=strict", "NoNewPrivileges=yes"):
        assert line in lines
    assert any(line.startswith("ExecStart=/opt/edgectl/bin/edgectl ") for line in lines)


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name)
def test_no_service_is_kept_from_the_gpu_and_the_firmware(unit: Path) -> None:
    """Before systemd 253, as on JetPack 6, ProtectClock allows the real-time clock and so no other device."""
    found = {line.partition("=")[0] for line in unit.read_text().splitlines()}
    assert not found & {"ProtectClock", "PrivateDevices", "DevicePolicy", "DeviceAllow"}
    assert "CapabilityBoundingSet" in found  # which keeps the clock, too


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name)
def test_services_work_in_the_folder_in_which_they_wait_for_an_enrolment(unit: Path) -> None:
    settings = dict(
        line.split("=", 1) for line in unit.read_text().splitlines() if line.startswith("Environment=EDGECTL")
    )
    assert settings == {"Environment": f"EDGECTL_STATE={ROOT_STATE}"}
    waits = [line for line in unit.read_text().splitlines() if line.startswith("ConditionPathExists=")]
    assert set(waits) <= {f"ConditionPathExists={Home(ROOT_STATE).enrolment}"}


def test_a_sync_is_not_ended_in_the_middle_of_a_rounds_turn() -> None:
    """A round has an hour, unless its operator says otherwise."""
    assert "TimeoutStartSec=1d" in (ROOT / "systemd" / "edgectl-sync.service").read_text().splitlines()


def test_what_the_next_sync_cures_is_no_failure_of_the_unit() -> None:
    cured = sorted(error.exit_code for error in (RetryLater, TimedOut, NothingToDo, Busy))
    lines = (ROOT / "systemd" / "edgectl-sync.service").read_text().splitlines()
    assert f"SuccessExitStatus={' '.join(map(str, cured))}" in lines


def test_the_services_user_has_the_services_state() -> None:
    assert default_root({"HOME": str(ROOT_STATE)}, superuser=False) == ROOT_STATE
    assert default_root({"HOME": "/home/pi"}, superuser=False) == Path("/home/pi/.local/state/edgectl")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/opt/edgectl/bin/edgectl", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_telemetry_sidecar_reaches_jtops_socket_and_it_has_no_network_and_no_state() -> None:
    services = yaml.safe_load((ROOT / "compose.jetson.yaml").read_text())["services"]
    reaching = [name for name, service in services.items() if "jtop.sock" in str(service.get("volumes"))]
    assert reaching == ["telemetry"]
    assert services["telemetry"]["network_mode"] == "none"
    assert not [volume for volume in services["telemetry"]["volumes"] if volume.startswith("state")]


def test_every_container_can_tell_what_board_it_is_on() -> None:
    services = yaml.safe_load((ROOT / "compose.jetson.yaml").read_text())["services"]
    for service in services.values():
        assert "/sys/firmware/devicetree/base/compatible:/run/device-tree/compatible:ro" in service["volumes"]


def test_no_service_may_do_more_than_it_needs() -> None:
    services = yaml.safe_load((ROOT / "compose.jetson.yaml").read_text())["services"]
    assert set(services) == {"agent", "telemetry"}
    for service in services.values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "user", "pid", "ipc", "devices", "cap_add"} & service.keys()
        assert service["build"]["dockerfile"] == "Dockerfile.jetson"  # whose user is not root


def test_the_image_runs_as_nobody_special_and_names_locks_that_exist() -> None:
    lines = (ROOT / "Dockerfile.jetson").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001"]
    profile = next(line for line in lines if line.startswith("ARG PROFILE=")).partition("=")[2]
    assert (ROOT / "firmware_profiles" / "locks" / f"{profile}-py310.txt").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--profile", "toaster"), b"no profile 'toaster'"), (("--profile", "pi-4b", "--python", "2.7"), b"no lock of")],
)
def test_the_command_names_what_there_is_no_bundle_for(
    newcomer: Board, arguments: tuple[str, ...], words: bytes
) -> None:
    done = newcomer.edgectl("bundle", "make", *arguments, "--out", str(newcomer.folder / "bundle"))
    assert done.returncode == 1
    assert words in done.stderr
