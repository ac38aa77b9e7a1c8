"""edgectl onto boards: a checkout with wheels from the index, or an offline bundle, and the installer of either."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from edgectl.fleet import boards
from edgectl.fleet.line import Line
from edgectl.fleet.packing import Packer, Payload
from edgectl.fleet.results import HostResult, Skip
from edgectl.fleet.runner import Work
from edgewire.errors import Busy

# What scripts/install.sh and pip need of a checkout.
_OF_CHECKOUT = (
    "LICENSE", "NOTICE", "README.md", "cloud_aug", "edgectl", "edgelearn", "edgewire", "firmware_profiles",
    "pyproject.toml", "scripts", "systemd",
)  # fmt: skip


@dataclass(frozen=True)
class Install:
    """source: a checkout, or None where `bundle` names bundles by a template; arguments: for the installer; prefix:
    where the inventory says nothing else."""

    source: Path | None
    bundle: str | None
    arguments: tuple[str, ...]
    prefix: str
    root: bool
    again: bool
    packer: Packer

    def work(self) -> Work:
        async def work(line: Line) -> HostResult:
            payload = await self._payload(line)
            wanted = f"{payload.digest} {shlex.join(self.arguments)}".strip()
            prefix = line.host.get("prefix", self.prefix)
            mark = shlex.quote(f"{prefix}/fleet-installed")
            seen = await line.look(f"cat {mark} 2>/dev/null || true", user="")
            if seen.text.strip() == wanted and not self.again:
                return HostResult(line.host.name, "ok", "already installed", 0)
            command = self._command(prefix, wanted, mark)
            answer = await line.do(command, user="root" if self.root else "", payload=payload)
            if answer.rc == Busy.exit_code:
                return HostResult(line.host.name, "failed", "somebody else is installing there", answer.rc)
            if answer.rc != 0:
                return HostResult(line.host.name, "failed", _why(answer.errors, answer.rc), answer.rc)
            said = [text for text in answer.text.splitlines() if text.startswith("[install] done")]
            message = said[-1].removeprefix("[install] ") if said else "installed"
            return HostResult(line.host.name, "changed", message, 0, None, answer.text)

        return work

    async def _payload(self, line: Line) -> Payload:
        if self.bundle is None and self.source is not None:
            return await self.packer.payload(self.source, only=_OF_CHECKOUT)
        folder = Path(line.host.fill(self.bundle or "")).expanduser()
        if not (folder / "SHA256SUMS").is_file():
            raise Skip(f"there is no bundle {folder}; make one: edgectl bundle make --profile NAME --out {folder}")
        return await self.packer.payload(folder)

    def _command(self, prefix: str, wanted: str, mark: str) -> str:
        script = "scripts/install.sh" if self.bundle is None else "install.sh"
        installer = shlex.join(["--prefix", prefix, *self.arguments])
        install = f'tar -xf - -C "$d" && bash "$d/{script}" {installer} && printf "%s\\n" {shlex.quote(wanted)} >{mark}'
        above = shlex.quote(str(Path(prefix).parent))  # a folder can be locked, too: nothing has to be made for it
        alone = f"exec 8<{above} && {{ flock -n 8 || exit {Busy.exit_code}; }}"
        # for every user of the board, whatever the mask of who logs in
        return f"{alone} && umask 022 && {boards.IN_FOLDER}{install}"


def _why(errors: str, rc: int) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    wrong = [i for i, line in enumerate(lines) if line.startswith("[install] error: ")]
    if not wrong:
        return lines[-1] if lines else f"the installer ended with {rc}"
    hints = [line.removeprefix("[install]").strip() for line in lines[wrong[-1] + 1 :] if "-> " in line]
    return "; ".join([lines[wrong[-1]].removeprefix("[install] error: "), *hints])
