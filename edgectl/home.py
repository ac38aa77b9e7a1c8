"""The state folder of a board: where everything lies. Paths only; whoever reads or writes a file owns its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT_STATE = Path("/var/lib/edgectl")


@dataclass(frozen=True)
class Home:
    """root: the state folder. It holds private keys, samples and personal weights, so its folders are mode 0700."""

    root: Path

    @property
    def database(self) -> Path:
        """Samples, runs, outbox and the ε ledger (SQLite)."""
        return self.root / "edgectl.db"

    @property
    def key(self) -> Path:
        """The board's own private key (PEM, 0600)."""
        return self.root / "board.key"

    @property
    def pending_key(self) -> Path:
        """The key of an enrolment that the cloud has not answered yet; kept so that it can be asked again."""
        return self.root / "pending.key"

    @property
    def enrolment(self) -> Path:
        """JSON: the cloud's url, this board's id, its tasks, the pinned roots."""
        return self.root / "enrolment.json"

    @property
    def trust(self) -> Path:
        """JSON: the chain of trust statements, oldest first."""
        return self.root / "trust.json"

    @property
    def ca_bundle(self) -> Path:
        """The authorities that may vouch for the cloud's certificate (PEM)."""
        return self.root / "ca.pem"

    @property
    def access_token(self) -> Path:
        """The cloud's last access token, until it expires (JSON, 0600)."""
        return self.root / "access.json"

    @property
    def telemetry(self) -> Path:
        """The ring of readings that `edgectl telemetry log` keeps (lines of JSON)."""
        return self.root / "telemetry"

    @property
    def inbox(self) -> Path:
        """The folder that `edgectl agent` watches where no other is set."""
        return self.root / "inbox"

    def lock(self, name: str) -> Path:
        """A file for `edgewire.files.exclusive`: 'train', 'sync', ..."""
        return self.root / f"{name}.lock"

    def task(self, task_id: str) -> Path:
        """What sync brought for a task: manifest.json, directory, base model, packs."""
        return self.root / "tasks" / task_id

    def manifest(self, task_id: str) -> Path:
        """The sealed manifest of a task, as received."""
        return self.task(task_id) / "manifest.json"

    def lacks(self, task_id: str) -> Path:
        """JSON: what this board lacks for a task; not there where it suits."""
        return self.task(task_id) / "lacks.json"

    def models(self, task_id: str) -> Path:
        """The slots of a task's personal model."""
        return self.root / "models" / task_id

    def checkpoints(self, task_id: str) -> Path:
        """How far a task's training came before it was cut off."""
        return self.root / "checkpoints" / task_id

    def rounds(self, task_id: str) -> Path:
        """What federated rounds of a task need between two runs."""
        return self.root / "rounds" / task_id

    def round_update(self, task_id: str) -> Path:
        """An update of a federated round that waits to be sent."""
        return self.rounds(task_id) / "update.safetensors"

    def ensure(self) -> Home:
        """Make the folders, private to their owner. Raises OSError (read-only, full, not permitted)."""
        for folder in (self.root, self.root / "tasks", self.root / "models"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self


def default_root(environ: Mapping[str, str], *, superuser: bool) -> Path:
    """The state folder where none is named: the system's for root and for the user of the service, who lives there; the
    user's XDG folder otherwise."""
    if superuser or environ.get("HOME") == str(ROOT_STATE):
        return ROOT_STATE
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        state = Path(environ.get("HOME") or "~").expanduser() / ".local" / "state"
    return state / "edgectl"
