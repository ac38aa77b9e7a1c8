"""From boards in boxes to personal models on all of them: the README's lines, against real sshd and a real cloud."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import toys
from tests.fleet import namespaces
from tests.fleet.conftest import ROOT, write_program
from tests.fleet.namespaces import OPERATOR, Host, Net
from tests.journeys.conftest import own_file

pytestmark = pytest.mark.skipif(bool(namespaces.missing()), reason=namespaces.missing() or "here it runs")

# What stands in for scripts/install.sh, which installs on 64-bit ARM only.
INSTALLER = """#!/bin/sh
bin=$XDG_STATE_HOME/bin
mkdir -p "$bin" && printf '#!/bin/sh\\nexec %s -m edgectl "$@"\\n' {python} > "$bin/edgectl" && chmod 755 "$bin/edgectl"
mkdir -p "$2"
echo "[install] done: $2/bin/edgectl"
"""


@pytest.fixture(scope="module")
def _cloud_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.published(tmp_path_factory.mktemp("fleet") / "cloud", hosts=(OPERATOR,))


@pytest.fixture
def world(_cloud_once: Path, tmp_path: Path) -> Iterator[Net]:
    """Three boards in boxes: sshd runs, their keys are unknown, they have no edgectl. And a host named `cloud`."""
    data = Path(shutil.copytree(_cloud_once, tmp_path / "cloud-data"))
    with namespaces.net(tmp_path) as net:
        for number, name in enumerate(("kitchen", "attic", "cellar")):
            host = net.add(name, sshd=False)
            net.sshd(host, programs=host.folder / "bin")
            (tmp_path / "samples").mkdir(exist_ok=True)
            own_file(tmp_path / "samples" / f"{name}.npz", shift=number - 1.0, seed=number, test_per_class=0)
        cloud = Host("cloud", net.operator, OPERATOR, tmp_path / "cloud-host")
        cloud.folder.mkdir()
        net.sshd(cloud, env=f"CLOUD_AUG_DATA={data}")
        net.know(cloud)
        serve = toys.command("serve", "--bind", OPERATOR, "--port", "8443", data=data)
        net.start(*cloud.inside(*serve), log=tmp_path / "serve.log")
        namespaces.wait_for_port(net.operator, 8443)
        _home(net)
        yield net


def _home(net: Net) -> None:
    """The operator's home: ssh knows the cloud by name."""
    (net.folder / ".ssh").mkdir(mode=0o700)
    config = net.folder / ".ssh" / "config"
    config.write_text(net.ssh_config.read_text() + f"Host cloud\n  HostName {OPERATOR}\n")
    programs = net.folder / "bin"
    programs.mkdir()
    # ssh itself takes the home folder of the password database, which no test may write to
    write_program(
        programs / "ssh", f'#!/bin/sh\ncase "$1" in -F) ;; *) set -- -F {config} "$@" ;; esac\nexec /usr/bin/ssh "$@"\n'
    )
    bundle = net.folder / "bundles" / "pi-4b"
    bundle.mkdir(parents=True)
    write_program(bundle / "install.sh", INSTALLER.format(python=sys.executable))
    (bundle / "SHA256SUMS").write_text("")


def lines_of_readme() -> list[str]:
    """The block of the fleet section, without remarks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## A fleet\n[\s\S]*?\n\n((?:    .*\n)+)", text)
    assert block is not None
    lines = [line.split("  #")[0].strip() for line in block[1].splitlines()]
    return [line for line in lines if line]


def run(net: Net, line: str) -> subprocess.CompletedProcess[str]:
    """A line of the README, in the operator's shell."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("EDGECTL_", "XDG_"))}
    env |= {
        "HOME": str(net.folder),
        "PATH": f"{net.folder / 'bin'}:{namespaces.PROGRAMS}:{env['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    words = ["ip", "netns", "exec", net.operator, "sh", "-c", line]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, cwd=net.folder, env=env)


def test_the_readme_leads_from_boards_in_boxes_to_personal_models(world: Net) -> None:
    world.inventory  # noqa: B018 -- writes boards.yml
    lines = [line.replace("gestures", "toy") for line in lines_of_readme()]
    assert len(lines) >= 7, lines
    for line in lines:
        done = run(world, line)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    with (world.folder / "gains.csv").open() as opened:
        gains = {row["host"]: row for row in csv.DictReader(opened)}
    assert set(gains) == {"kitchen", "attic", "cellar"}
    assert all(row["local_samples"] == "12" and row["task"] == "toy" for row in gains.values())
    kept = json.loads((world.folder / "state-of-boards" / "attic.json").read_text())
    assert kept["status"]["tasks"][0]["samples"] == 12
    listed = toys.report("boards", "list", data=world.folder / "cloud-data")["boards"]
    assert {board["name"] for board in listed} == set(gains)


def test_everything_a_second_time_changes_nothing(world: Net) -> None:
    world.inventory  # noqa: B018 -- writes boards.yml
    enroll = "edgectl fleet enroll -i boards.yml --token-command 'ssh cloud cloud-aug boards token --task toy'"
    install = "edgectl fleet install -i boards.yml --bundle bundles/pi-4b"
    assert run(world, "edgectl fleet enroll --keys-only -i boards.yml").returncode == 0
    missing = [json.loads(line) for line in run(world, "edgectl fleet train -i boards.yml").stdout.splitlines()]
    assert missing[0]["message"].startswith("edgectl is not there -> edgectl fleet install")
    push = "edgectl fleet data push 'samples/{host}.npz' -i boards.yml"
    before = [install, enroll, "edgectl fleet sync -i boards.yml", push]
    first = [json.loads(run(world, line).stdout.splitlines()[-1]) for line in before]
    again = [json.loads(run(world, line).stdout.splitlines()[-1]) for line in before]
    assert [summary["changed"] for summary in first] == [3, 3, 3, 3]
    assert [(summary["changed"], summary["ok"]) for summary in again] == [(0, 3)] * 4


def test_a_token_is_on_no_command_line_and_in_no_log(world: Net) -> None:
    world.inventory  # noqa: B018 -- writes boards.yml
    for line in lines_of_readme()[:3]:
        assert run(world, line).returncode == 0
    seen = world.folder / "seen"
    write_program(
        world.folder / "bin" / "token", f"#!/bin/sh\nssh cloud cloud-aug boards token --task toy | tee -a {seen}\n"
    )
    done = run(world, f"edgectl -vv fleet enroll --json --token-command {shlex.quote('token')}")
    assert done.returncode == 0, done.stdout
    secrets = re.findall(r'"token":"([^"]+)"', seen.read_text())
    assert len(secrets) == 3
    said = done.stdout + done.stderr
    for host in world.hosts.values():
        files = [path for path in host.folder.rglob("*") if path.is_file()]
        said += "".join(path.read_text(errors="replace") for path in files)
    assert not any(secret in said for secret in secrets)
