"""What a simulation keeps on disk after each round, so that it can be killed at any time and go on with the same bytes.

`state.safetensors` says which files of `memory/` count. A board's new memory is a new file beside its old one, so a
round that was cut off has changed nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from cloud_aug.simulation.plan import Round
from edgelearn.compression.broadcast import Broadcast
from edgelearn.federated.algorithm import Server
from edgelearn.federated.arrays import Arrays
from edgewire import tensors
from edgewire.errors import Conflict
from edgewire.files import write_atomic
from edgewire.tensors import of, under

STATE_LIMIT_BYTES = 4 << 30


@dataclass
class State:
    """recent: weights of the last rounds, the newest last; by board: `memories`, the round of its file; `last_round`,
    to which it was invited; `sent`, how many updates it has sent, whether they counted or not; `held`, whose weights it
    holds. broadcast: what boards know of the weights, where they are sent changes only."""

    server: Server
    history: list[Round] = field(default_factory=list)
    recent: list[Arrays] = field(default_factory=list)
    memories: dict[str, int] = field(default_factory=dict)
    last_round: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    broadcast: Broadcast | None = None


class Folder:
    """name: of the simulation that it holds, a digest of all that decides it."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        (path / "memory").mkdir(parents=True, exist_ok=True)

    def memory(self, board: str, number: int) -> Arrays:
        data = self._file(board, number).read_bytes()
        return tensors.unpack(data, what=f"memory of {board}", limit_bytes=STATE_LIMIT_BYTES)[0]

    def remember(self, board: str, number: int, memory: Arrays) -> None:
        write_atomic(self._file(board, number), tensors.pack(memory))

    def keep(self, state: State) -> None:
        """From here on the round is over. Then files that no longer count are deleted."""
        arrays = {**under("weights", state.server.weights), **under("state", state.server.state)}
        for place, weights in enumerate(state.recent):
            arrays |= under(f"recent/{place}", weights)
        if state.broadcast is not None:
            arrays |= under("public", state.broadcast.public)
            for place, change in enumerate(state.broadcast.changes):
                arrays |= under(f"changes/{place}", change)
        meta = {
            "name": self._name,
            "round": state.server.round,
            "history": [asdict(done) for done in state.history],
            "recent": len(state.recent),
            "memories": state.memories,
            "last_round": state.last_round,
            "sent": state.sent,
            "held": state.held,
            "changes": len(state.broadcast.changes) if state.broadcast is not None else None,
        }
        write_atomic(self._path / "state.safetensors", tensors.pack(arrays, meta))
        counting = {self._file(board, number) for board, number in state.memories.items()}
        for file in set((self._path / "memory").iterdir()) - counting:
            file.unlink()

    def restored(self) -> State | None:
        """Raises Conflict where another simulation is in it."""
        file = self._path / "state.safetensors"
        if not file.exists():
            return None
        arrays, meta = tensors.unpack(file.read_bytes(), what=str(file), limit_bytes=STATE_LIMIT_BYTES)
        if meta["name"] != self._name:
            hint = "give an empty folder, or the same data and options as before (only the number of rounds may differ)"
            raise Conflict(f"{self._path} holds another simulation", hint=hint)
        return State(
            Server(meta["round"], of("weights", arrays), of("state", arrays)),
            [Round(**done) for done in meta["history"]],
            [of(f"recent/{place}", arrays) for place in range(meta["recent"])],
            meta["memories"],
            meta["last_round"],
            meta["sent"],
            meta["held"],
            _broadcast(arrays, meta["changes"], version=meta["round"] - 1),
        )

    def _file(self, board: str, number: int) -> Path:
        return self._path / "memory" / f"{board}.{number}.safetensors"


def _broadcast(arrays: Arrays, changes: int | None, *, version: int) -> Broadcast | None:
    """Its version is that of the round that ended last: the next one has not begun."""
    if changes is None:
        return None
    return Broadcast(version, of("public", arrays), tuple(of(f"changes/{place}", arrays) for place in range(changes)))
