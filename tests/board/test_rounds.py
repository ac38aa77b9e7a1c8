"""A board in federated rounds, against a service in memory: what leaves it, what stays, and what survives a kill."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import UNSET

from edgectl import config, enrolment, retention, tasks
from edgectl.agent.children import Done
from edgectl.board import network
from edgectl.budget import Spent
from edgectl.cache import Cache
from edgectl.commands import Invocation
from edgectl.commands.round import _train
from edgectl.config import Places
from edgectl.governor.start import Machine
from edgectl.rounds.able import Able
from edgectl.rounds.folder import RoundFolder
from edgectl.rounds.joining import Board, Outcome, take_part
from edgectl.rounds.pauses import NEVER_S, RETRY_S
from edgectl.rounds.trainer import serve
from edgectl.rounds.training import train
from edgectl.stopping import Stop
from edgectl.telemetry.reading import Reading
from edgelearn.compression.catalogue import CODECS
from edgelearn.federated.algorithm import Order
from edgelearn.federated.updates import Limits
from edgelearn.learner import shared_weights
from edgewire import tensors
from edgewire.decoding import plain
from edgewire.errors import (
    Busy,
    CorruptFile,
    DigestMismatch,
    EdgeError,
    Forged,
    Gone,
    NotFound,
    NothingToDo,
    Offline,
    Refused,
    Revoked,
    UnsupportedBoard,
)
from edgewire.files import digest, write_atomic
from edgewire.messages import BlobRef
from edgewire.rounds import (
    Invitation,
    JoinReply,
    JoinRequest,
    Local,
    Parts,
    RowsReply,
    Shortcut,
    Sign,
    SignReply,
    UpdateMeta,
    UpdateReply,
    pack_order,
    pack_update,
    unpack_rows,
    unpack_update,
)
from edgewire.signing import SigningKey, Statement, seal
from tests.board.synced import BOTH, Synced
from tests.learn import world

ALLOWED = replace(BOTH, privacy=replace(BOTH.privacy, rounds=True))
ORDER = pack_order(Parts(shared_weights(world.TASK, world.base())), BOTH.id)
BASE = tensors.pack(world.base(), {"format": "weights/1"})
SERIES = "0123456789abcdef"
NO_BEAT_S = 600.0  # longer than any test
BEAT_S = 0.01
PATIENCE_S = 60.0  # of a test that fails


@dataclass
class Service:
    """Rounds in memory. fails: raised by the next update; wanted: what signs of life are answered with; during: called
    while a blob ('blob') or an update ('update') is on its way."""

    synced: Synced
    key: SigningKey
    invited: bool = True
    changes: dict[str, Any] = field(default_factory=dict)
    fails: EdgeError | None = None
    wanted: bool = True
    signs: list[str] = field(default_factory=list)
    received: list[tuple[UpdateMeta, bytes]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=lambda: {digest(raw): raw for raw in (ORDER, BASE)})
    missing: dict[str, EdgeError] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    held: list[str | None] = field(default_factory=list)
    wants_rows: bool = False
    rows_told: list[bytes] = field(default_factory=list)
    rows_known: list[str | None] = field(default_factory=list)
    during: Callable[[str], None] = lambda what: None
    beaten: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def invitation(self) -> Invitation:
        known, now = enrolment.load(self.synced.board.home), self.synced.board.server.clock()
        made = Invitation(
            SERIES, 1, known.board, BlobRef(digest(BASE), len(BASE)), BlobRef(digest(ORDER), len(ORDER)),
            "fedavg", {}, 3, Local(2, 4, 0.05), "none", 0.0, 1.0, 7, "", NO_BEAT_S, now + 600,
        )  # fmt: skip
        return replace(made, **self.changes)

    def join(self, task_id: str, request: JoinRequest) -> JoinReply:
        self.held.append(request.holds or None)
        self.rows_known.append(request.rows or None)
        if self.wants_rows and request.rows not in map(digest, self.rows_told):
            return JoinReply(wait_s=0.0, note="rows have to be told first", rows=SERIES)
        if not self.invited:
            return JoinReply(wait_s=5.0, note="not invited yet")
        now = self.synced.board.server.clock()
        statement = Statement("round", task_id, 1, 1, now, now + 600, plain(self.invitation))
        return JoinReply(seal(self.key, statement).decode(), 0.0)

    def sign(self, task_id: str, series: str, number: int, told: Sign) -> SignReply:
        self.signs.append(told.state)
        self.beaten.release()
        return SignReply(self.wanted)

    def sees_a_beat(self, _what: str = "") -> None:
        """Waits for a sign of life."""
        assert self.beaten.acquire(timeout=PATIENCE_S), "no sign of life"

    def update(self, task_id: str, meta: UpdateMeta, body: bytes) -> UpdateReply:
        self.during("update")
        error, self.fails = self.fails, None
        if error is not None:
            raise error
        self.received.append((meta, body))
        return UpdateReply(True)

    def rows(self, task_id: str, series: str, body: bytes) -> RowsReply:
        assert series == SERIES
        self.rows_told.append(body)
        return RowsReply(True)

    def blob(self, name: str, size: int, target: Path, *, on_bytes: Callable[[int], None] | None = None) -> int:
        self.during("blob")
        if on_bytes:
            on_bytes(size)
        self.fetched.append(name)
        if name in self.missing:
            raise self.missing[name]
        write_atomic(target, self.blobs[name])
        return size

    def offer(self, raw: bytes) -> BlobRef:
        self.blobs[digest(raw)] = raw
        return BlobRef(digest(raw), len(raw))

    def trust(self, after: int) -> list[bytes]:
        return []


@pytest.fixture
def ready(synced: Synced) -> Synced:
    """Synced, with samples, of a task that allows rounds."""
    synced.task = ALLOWED
    synced.publish()
    synced.sync()
    synced.add(world.style(3, 0.5))
    return synced


@pytest.fixture
def service(ready: Synced) -> Service:
    return Service(ready, ready.board.server.signing)


def trained(
    ready: Synced, on_step: Callable[[], None] = lambda: None, energy_j: Callable[[], float | None] = lambda: None
) -> Any:
    home, known = ready.board.home, enrolment.load(ready.board.home)
    manifest = tasks.known_task(home, known, BOTH.id, ready.board.server.clock())
    with ready.store() as store:
        return train(home, known, manifest, store, threads=1, on_step=on_step, energy_j=energy_j)


def turn(
    ready: Synced,
    service: Service,
    training: Callable[..., Done] | None = None,
    *,
    samples: int = 12,
    tells_rows: bool = False,
    able: Able | None = None,
    stopped: Callable[[], bool] = lambda: False,
    consents: Callable[[float], bool] = lambda noise: True,
    monotonic: Callable[[], float] = time.monotonic,
) -> Outcome:
    """One turn, with the training in this process unless another one is given."""

    def here(task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
        return Done(0, dict(vars(trained(ready))))

    known = enrolment.load(ready.board.home)
    board = Board(
        ready.board.home,
        known,
        JoinRequest(samples),
        training or here,
        lambda: contextlib.nullcontext(service),
        stopped=stopped,
        clock=ready.board.server.clock,
        monotonic=monotonic,
        able=able or Able(),
        tells_rows=tells_rows,
        consents=consents,
    )
    return take_part(board, service, Outcome(BOTH.id))


def files(ready: Synced) -> set[str]:
    folder = ready.board.home.rounds(BOTH.id)
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_an_invited_board_sends_what_training_changed_and_no_sample(ready: Synced, service: Service) -> None:
    outcome = turn(ready, service)
    assert (outcome.state, outcome.number, outcome.trained["samples"]) == ("sent", 1, 12)
    [(meta, body)] = service.received
    parts, told = unpack_update(body, limit_bytes=1 << 20)
    assert told == meta
    assert {name: array.shape for name, array in parts.main.items()} == {
        name: array.shape for name, array in shared_weights(world.TASK, world.base()).items()
    }
    assert 0 <= (meta.score or -1) <= 1
    assert "update.safetensors" not in files(ready)


def test_the_same_invitation_gives_the_same_update(ready: Synced, service: Service) -> None:
    turn(ready, service)
    turn(ready, service)
    (one, first), (two, second) = (
        (meta, unpack_update(body, limit_bytes=1 << 20)[0]) for meta, body in service.received
    )
    assert one.upload_id != two.upload_id
    assert all(np.array_equal(first.main[name], second.main[name]) for name in first.main)


def test_who_is_not_invited_waits_and_leaves_nothing(ready: Synced, service: Service) -> None:
    service.invited = False
    outcome = turn(ready, service)
    assert (outcome.state, outcome.wait_s, outcome.note) == ("waiting", 5.0, "not invited yet")
    assert files(ready) == set()


def test_an_update_that_could_not_be_sent_is_sent_the_next_time_under_its_id(ready: Synced, service: Service) -> None:
    service.fails = Offline("no connection")
    with pytest.raises(Offline):
        turn(ready, service)
    waiting = RoundFolder(ready.board.home, BOTH.id).waiting()
    assert waiting is not None
    service.invited = False
    assert turn(ready, service).earlier
    assert service.received == [(waiting[1], waiting[0])]


@pytest.mark.parametrize(("error", "state"), [(Gone("closed"), "late"), (Refused("not invited"), "refused")])
def test_what_never_counts_is_dropped_with_its_memory(
    ready: Synced, service: Service, error: EdgeError, state: str
) -> None:
    service.changes, service.fails = {"algorithm": "fedlaavg"}, error
    assert turn(ready, service).state == state
    assert not [name for name in files(ready) if name.startswith(("update", "memory"))]


@pytest.mark.parametrize(("error", "state"), [(Gone("round 1 is closed"), "late"), (Refused("not finite"), "refused")])
def test_why_an_update_does_not_count_is_told(ready: Synced, service: Service, error: EdgeError, state: str) -> None:
    service.fails = error
    outcome = turn(ready, service)
    assert (outcome.state, outcome.note) == (state, str(error))
    service.fails = Offline("no connection")
    with pytest.raises(Offline):
        turn(ready, service)
    service.fails, service.invited = error, False
    assert turn(ready, service).note == f"an update made earlier does not count: {error}; not invited yet"


def test_a_revoked_board_is_told_and_keeps_its_update(ready: Synced, service: Service) -> None:
    service.fails = Revoked("this board was revoked")
    with pytest.raises(Revoked):
        turn(ready, service)
    assert "update.safetensors" in files(ready)


def test_memory_goes_on_from_the_update_that_counts(ready: Synced, service: Service) -> None:
    service.changes = {"algorithm": "fedlaavg"}
    turn(ready, service)
    first = service.received[0][0].upload_id
    service.changes |= {"memory": first, "number": 2}
    turn(ready, service)
    change = unpack_update(service.received[1][1], limit_bytes=1 << 20)[0].main
    assert all(not array.any() for array in change.values())  # same order, same seed: the gradient is the same
    assert [meta.memory for meta, _ in service.received] == ["", first]  # and it says so
    service.changes |= {"memory": "", "number": 3}  # the cloud counted neither
    turn(ready, service)
    assert any(array.any() for array in unpack_update(service.received[2][1], limit_bytes=1 << 20)[0].main.values())


def test_memory_of_another_series_is_not_used(ready: Synced, service: Service) -> None:
    service.changes = {"compression": "topk"}
    turn(ready, service)
    service.changes |= {"series": "f" * 16, "memory": service.received[0][0].upload_id}
    turn(ready, service)
    first, second = (unpack_update(body, limit_bytes=1 << 20)[0].main for _, body in service.received)
    assert all(np.array_equal(first[name], second[name]) for name in first)  # nothing that was left over is added


@pytest.mark.parametrize("algorithm", ["fedlaavg", "scaffold"])
def test_who_lost_what_updates_must_follow_from_gives_the_round_up_before_it_trains(
    ready: Synced, service: Service, algorithm: str
) -> None:
    steps: list[int] = []

    def training(task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
        said = io.StringIO()
        serve([task], said, lambda _: vars(trained(ready, lambda: steps.append(1))))
        return Done(**json.loads(said.getvalue()))

    service.changes = {"algorithm": algorithm}
    if algorithm == "scaffold":
        weights = shared_weights(world.TASK, world.base())
        zero = {name: np.zeros_like(array) for name, array in weights.items()}
        service.changes["order"] = service.offer(pack_order(Parts(weights, zero), BOTH.id))
    turn(ready, service)
    service.changes |= {"number": 2, "memory": service.received[0][0].upload_id}
    next((ready.board.home.rounds(BOTH.id) / "memory").iterdir()).unlink()
    outcome = turn(ready, service, training)
    assert (outcome.state, outcome.wait_s, service.signs) == ("given-up", NEVER_S, ["giving-up"])
    assert "in the next series" in outcome.note
    assert steps == []
    service.changes |= {"series": "f" * 16, "number": 1, "memory": ""}
    assert turn(ready, service, training).state == "sent"


@pytest.mark.parametrize("name", ["update.safetensors", "order", "base", "invitation.json", "memory"])
def test_whatever_the_disk_has_damaged_is_made_or_fetched_again(ready: Synced, service: Service, name: str) -> None:
    service.changes = {"compression": "topk"}
    turn(ready, service)
    service.changes |= {"number": 2, "memory": service.received[0][0].upload_id}
    folder = ready.board.home.rounds(BOTH.id)
    damaged = next((folder / "memory").iterdir()) if name == "memory" else folder / name
    damaged.write_bytes(b"\x00" * 100)
    assert turn(ready, service).state == "sent"


def test_a_base_that_the_last_sync_brought_and_the_disk_damaged_is_fetched(ready: Synced, service: Service) -> None:
    cached = Cache(ready.board.home, BOTH.id).path(digest(BASE))
    cached.write_bytes(b"\x00" * len(BASE))
    assert turn(ready, service).state == "sent"
    assert digest(BASE) in service.fetched


def test_a_damaged_name_of_the_order_that_lies_here_is_not_told(ready: Synced, service: Service) -> None:
    turn(ready, service)
    for damaged in (b"", b"\xff" * 64, b"\x00" * 64):
        (ready.board.home.rounds(BOTH.id) / "order.digest").write_bytes(damaged)
        service.changes["number"] = service.changes.get("number", 1) + 1
        assert turn(ready, service).state == "sent"
        assert service.held[-1] is None


# Rows of tables


def found(ready: Synced, ids: list[int], *, samples: int = 12) -> Callable[..., Done]:
    """A training that finds these rows where they are wanted, and trains otherwise."""

    def training(task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
        folder = RoundFolder(ready.board.home, BOTH.id)
        if folder.rows_are_wanted():
            folder.keep_rows({"t": np.asarray(ids)}, samples)
            return Done(0, {})
        return Done(0, dict(vars(trained(ready))))

    return training


def test_a_board_tells_its_rows_once_and_again_when_it_has_other_samples(ready: Synced, service: Service) -> None:
    service.wants_rows = True
    assert turn(ready, service, found(ready, [1, 5]), tells_rows=True).state == "sent"
    assert turn(ready, service, found(ready, [1, 5]), tells_rows=True).state == "sent"
    [body] = service.rows_told
    assert unpack_rows(body, limit_bytes=1 << 10)[0]["t"].tolist() == [1, 5]
    assert service.rows_known == [None, digest(body), digest(body)]
    assert "rows.wanted" not in files(ready)
    outcome = turn(ready, service, found(ready, [1, 5, 6], samples=13), tells_rows=True, samples=13)
    assert outcome.state == "sent"
    assert len(service.rows_told) == 2


def test_who_does_not_want_to_tell_rows_is_told_how_to_and_takes_no_part(ready: Synced, service: Service) -> None:
    service.wants_rows = True
    outcome = turn(ready, service, found(ready, [1]))
    assert (outcome.state, outcome.wait_s) == ("waiting", NEVER_S)
    assert "rounds_rows" in outcome.note
    assert service.rows_told == []
    assert files(ready) == set()


def test_rows_that_could_not_be_found_are_looked_for_another_time(ready: Synced, service: Service) -> None:
    service.wants_rows = True
    outcome = turn(ready, service, lambda *_: Done(6, said="too hot"), tells_rows=True)
    assert (outcome.state, outcome.note) == ("waiting", "too hot")
    assert service.rows_told == []
    service.wants_rows = False
    assert turn(ready, service, found(ready, [1]), tells_rows=True).state == "sent"  # and no rows are looked for


def test_rows_are_told_only_where_the_signed_task_allows_it(ready: Synced) -> None:
    folder = RoundFolder(ready.board.home, BOTH.id)
    folder.ensure()
    folder.want_rows()
    with pytest.raises(Refused, match="does not allow telling rows"):
        trained(ready)


def test_a_round_whose_rows_were_lost_is_given_up_and_they_are_told_anew(ready: Synced, service: Service) -> None:
    service.changes = {"rows": "9" * 64}
    with pytest.raises(CorruptFile, match="rows that this board told"):
        turn(ready, service)
    assert "rows.safetensors" not in files(ready)


# A shorter way to the order


def moved_on(service: Service, seed: int = 0) -> Shortcut:
    """The next round: its order, and the change that leads there from ORDER."""
    rng, held, codec = np.random.default_rng(seed), shared_weights(world.TASK, world.base()), CODECS["sparse"]
    delta = {name: rng.normal(size=array.shape).astype(np.float32) for name, array in held.items()}
    sent, _ = codec.encode(delta, memory={}, rng=rng)
    weights = {name: held[name] + array for name, array in codec.decode(sent, held).items()}
    extra = {"c": np.float32([seed])}
    order = service.offer(pack_order(Parts(weights, extra), BOTH.id))
    change = service.offer(pack_order(Parts(sent, extra), BOTH.id))
    short = Shortcut("sparse", [change], digest(ORDER))
    service.changes = {"number": 2, "order": order, "short": short}
    return short


def test_an_order_is_made_of_what_changed_and_has_the_bytes_that_were_signed(ready: Synced, service: Service) -> None:
    turn(ready, service)
    short = moved_on(service)
    service.fetched.clear()
    assert turn(ready, service).state == "sent"
    assert service.held == [None, digest(ORDER)]
    assert service.fetched == [digest(BASE), short.blobs[0].digest]
    order = ready.board.home.rounds(BOTH.id) / "order"
    assert digest(order.read_bytes()) == service.invitation.order.digest
    assert not [name for name in files(ready) if name.startswith("short")]
    service.invited = False
    turn(ready, service)
    assert service.held[-1] == service.invitation.order.digest


@pytest.mark.parametrize(
    "trouble", ["other change", "damaged order", "no order", "unknown codec", "rubbish", "gone", "torn"]
)
def test_where_the_shorter_way_leads_nowhere_the_whole_order_is_fetched(
    ready: Synced, service: Service, trouble: str
) -> None:
    turn(ready, service)
    short, order = moved_on(service), ready.board.home.rounds(BOTH.id) / "order"
    wanted = service.invitation.order
    if trouble == "other change":
        other = moved_on(service, seed=1)
        service.changes |= {"order": wanted, "short": other}
    elif trouble == "damaged order":
        order.write_bytes(b"\x00" * 100)
    elif trouble == "no order":
        order.unlink()
    elif trouble == "unknown codec":
        service.changes["short"] = replace(short, codec="telepathy")
    elif trouble == "rubbish":
        service.changes["short"] = replace(short, blobs=[service.offer(pack_order(Parts({}), BOTH.id))])
    elif trouble == "gone":
        service.missing[short.blobs[0].digest] = NotFound("there is no such blob")
    else:
        service.missing[short.blobs[0].digest] = DigestMismatch("these are other bytes")
    assert turn(ready, service).state == "sent"
    assert service.fetched[-1] == wanted.digest
    assert digest(order.read_bytes()) == wanted.digest


def test_whole_weights_in_eight_bits_need_no_order_to_start_from(ready: Synced, service: Service) -> None:
    weights, codec = shared_weights(world.TASK, world.base()), CODECS["eight-bit"]
    sent, _ = codec.encode(weights, memory={}, rng=np.random.default_rng(0))
    order = service.offer(pack_order(Parts(codec.decode(sent, weights)), BOTH.id))
    short = service.offer(pack_order(Parts(sent), BOTH.id, names=sorted(weights)))
    service.changes = {"order": order, "short": Shortcut("eight-bit", [short])}
    assert turn(ready, service).state == "sent"
    assert service.fetched == [digest(BASE), short.digest]


def test_an_invitation_that_the_cloud_did_not_sign_is_not_followed(ready: Synced, service: Service) -> None:
    service.key = SigningKey.generate()
    with pytest.raises(Forged):
        turn(ready, service)
    service.key, service.changes = ready.board.server.signing, {"board": "b" + "0" * 16}
    with pytest.raises(Forged, match="another board"):
        turn(ready, service)
    assert "invitation.json" not in files(ready)


def test_a_board_trains_only_where_the_signed_task_allows_it(synced: Synced) -> None:
    synced.sync()
    synced.add(world.style(3, 0.5))
    with pytest.raises(Refused, match="does not allow"):
        turn(synced, Service(synced, synced.board.server.signing))


# What a board cannot do, or its owner does not want, is found out before anything is fetched


@pytest.mark.parametrize("changes", [{"algorithm": "fednova"}, {"compression": "zip"}, {"options": {"nu": 1.0}}])
def test_what_this_version_does_not_know_is_declined(ready: Synced, service: Service, changes: dict[str, Any]) -> None:
    service.changes = changes
    outcome = turn(ready, service)
    assert (outcome.state, outcome.wait_s, service.signs) == ("given-up", NEVER_S, ["giving-up"])
    assert "update edgectl" in outcome.note
    assert service.fetched == []
    folder = RoundFolder(ready.board.home, BOTH.id)
    folder.accept(service.join(BOTH.id, JoinRequest(12)).invitation.encode())
    for name, raw in (("order", ORDER), ("base", BASE)):
        folder.blob(name).write_bytes(raw)
    with pytest.raises(UnsupportedBoard):
        trained(ready)


@pytest.mark.parametrize(
    ("able", "what"), [(Able(memory_mib=150.0), "memory"), (Able(disk_mib=0.0), "disk"), (Able(disk_mib=-1.0), "disk")]
)
def test_a_round_that_memory_or_disk_cannot_hold_is_declined(
    ready: Synced, service: Service, able: Able, what: str
) -> None:
    outcome = turn(ready, service, able=able)
    assert (outcome.state, outcome.wait_s, service.signs) == ("given-up", NEVER_S, ["giving-up"])
    assert f"MiB of {what} at the least" in outcome.note
    assert service.fetched == []
    assert turn(ready, service, able=Able(memory_mib=200.0, disk_mib=100.0)).state == "sent"


def test_an_order_takes_no_more_disk_than_what_it_replaces(ready: Synced, service: Service) -> None:
    folder = RoundFolder(ready.board.home, BOTH.id)
    folder.ensure()
    assert folder.lacking_bytes(service.invitation) == len(ORDER) + len(BASE)
    (folder.path / "order.part").write_bytes(ORDER[:100])  # what a cut left, which is gone on with
    assert folder.lacking_bytes(service.invitation) == len(ORDER) + len(BASE) - 100
    turn(ready, service)
    assert folder.lacking_bytes(service.invitation) == 0


def test_less_noise_than_the_owner_wants_is_declined(ready: Synced, service: Service) -> None:
    service.changes = {"noise": 0.5, "clip": 0.01}
    outcome = turn(ready, service, able=Able(noise=0.75))
    assert (outcome.state, outcome.wait_s, service.signs) == ("given-up", NEVER_S, ["giving-up"])
    assert "add noise 0.5, the owner of this one wants 0.75; edgectl config set rounds_noise" in outcome.note
    assert service.fetched == []
    with ready.store() as store:
        assert store.noise_of_updates() == {}
    assert turn(ready, service, able=Able(noise=0.5)).state == "sent"


def test_an_update_made_with_less_noise_than_the_owner_wants_by_now_never_leaves(
    ready: Synced, service: Service
) -> None:
    service.changes, service.fails = {"noise": 0.5, "clip": 0.01}, Offline("no connection")
    with pytest.raises(Offline):
        turn(ready, service)
    service.invited = False
    outcome = turn(ready, service, able=Able(noise=0.75))
    assert not outcome.earlier
    assert "less noise than the owner wants by now" in outcome.note
    assert service.received == []
    assert not [name for name in files(ready) if name.startswith(("update", "memory"))]


def test_an_update_does_not_leave_where_its_owner_changed_their_mind_while_it_was_made(
    ready: Synced, service: Service
) -> None:
    service.changes = {"noise": 0.5, "clip": 0.01}
    outcome = turn(ready, service, consents=lambda noise: noise > 0.5)
    assert (outcome.state, outcome.wait_s, service.signs) == ("given-up", NEVER_S, ["giving-up"])
    assert "does not let the update go" in outcome.note
    assert service.received == []
    assert "update.safetensors" not in files(ready)


def test_an_update_that_was_made_for_the_cloud_before_never_leaves(ready: Synced, service: Service) -> None:
    service.fails = Offline("no connection")
    with pytest.raises(Offline):
        turn(ready, service)
    update = ready.board.home.round_update(BOTH.id)
    parts, meta = unpack_update(update.read_bytes(), limit_bytes=1 << 20)
    update.write_bytes(pack_update(parts, replace(meta, board="b" + "0" * 16)))
    service.invited = False
    assert "enrolled before" in turn(ready, service).note
    assert service.received == []
    assert not update.exists()


def test_an_update_that_waits_goes_with_deleted_samples_and_what_counts_is_remembered(
    ready: Synced, service: Service
) -> None:
    service.changes, service.fails = {"algorithm": "fedlaavg"}, Offline("no connection")
    with pytest.raises(Offline):
        turn(ready, service)
    with ready.store() as store:
        retention.apply(ready.board.home, store, BOTH.id, retention.Limits(most=8), now=ready.board.server.clock())
    service.invited = False
    assert not turn(ready, service, samples=8).earlier
    assert service.received == []
    assert [name for name in files(ready) if name.startswith("memory")]  # the cloud may have it, unanswered
    service.invited = True
    assert turn(ready, service, samples=8).state == "sent"
    assert service.received[0][0].samples == 8


# What ends a training


def test_a_training_that_fails_gives_the_round_up(ready: Synced, service: Service) -> None:
    outcome = turn(ready, service, lambda *_: Done(6, {}, "the 5 s of its time budget were used up"))
    assert (outcome.state, service.signs) == ("given-up", ["giving-up"])


@pytest.mark.parametrize(
    ("done", "wait_s"),
    [
        (Done(6, retry_s=RETRY_S), RETRY_S),  # heat
        (Done(6, retry_s=NEVER_S), NEVER_S),  # a budget
        (Done(CorruptFile.exit_code), RETRY_S),  # the next join brings it again
        (Done(NothingToDo.exit_code), RETRY_S),
        (Done(0), RETRY_S),  # the disk has damaged the update
        (Done(6), NEVER_S),
        (Done(UnsupportedBoard.exit_code), NEVER_S),
        (Done(Refused.exit_code), NEVER_S),
        (Done(-9), NEVER_S),  # the kernel, for memory
    ],
)
def test_a_board_that_could_not_train_stays_away_for_as_long_as_it_will_not_change(
    ready: Synced, service: Service, done: Done, wait_s: float
) -> None:
    outcome = turn(ready, service, lambda *_: replace(done, said="why"))
    assert (outcome.state, outcome.wait_s, outcome.note) == ("given-up", wait_s, "why")


@pytest.mark.parametrize(("kind", "wait_s"), [("time", NEVER_S), ("energy", NEVER_S), ("heat", RETRY_S)])
def test_a_budget_that_is_too_small_is_too_small_for_the_next_round(
    ready: Synced, service: Service, kind: str, wait_s: float
) -> None:
    def spent() -> None:
        raise Spent(kind, "no more")

    def training(task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
        said = io.StringIO()
        serve([task], said, lambda _: vars(trained(ready, spent)))
        return Done(**json.loads(said.getvalue()))

    outcome = turn(ready, service, training)
    assert (outcome.state, outcome.wait_s) == ("given-up", wait_s)
    assert outcome.note.startswith("no more: this board gives up the round")


def test_an_update_that_the_cloud_refused_is_not_followed_by_another_at_once(ready: Synced, service: Service) -> None:
    service.fails = Refused("not invited")
    outcome = turn(ready, service)
    assert (outcome.state, outcome.wait_s) == ("refused", RETRY_S)


@pytest.mark.parametrize("code", [130, -15, Busy.exit_code])
def test_a_training_that_was_stopped_or_must_wait_keeps_its_place(ready: Synced, service: Service, code: int) -> None:
    outcome = turn(ready, service, lambda *_: Done(code))
    assert (outcome.state, outcome.wait_s) == ("waiting", NO_BEAT_S)  # not at once: nobody may have asked this command
    assert service.signs == []
    assert turn(ready, service).state == "sent"


def test_a_training_that_had_to_be_killed_to_stop_keeps_its_place(ready: Synced, service: Service) -> None:
    asked: list[bool] = []

    def killed(task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
        asked.append(True)
        return Done(-9)

    outcome = turn(ready, service, killed, stopped=lambda: bool(asked))
    assert (outcome.state, outcome.wait_s, service.signs) == ("waiting", NO_BEAT_S, [])


@pytest.mark.parametrize("code", [130, -15, 1, 0])
def test_a_training_that_was_ended_because_nobody_waits_is_late_whatever_it_said(
    ready: Synced, service: Service, code: int
) -> None:
    def slow(task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
        for _ in range(3):
            service.sees_a_beat()
            assert not unwanted()
        service.wanted = False
        while not unwanted():
            service.sees_a_beat()
        return Done(code)

    service.changes = {"heartbeat_s": BEAT_S}
    outcome = turn(ready, service, slow)
    assert (outcome.state, outcome.note) == ("late", "the round was over before the training")
    assert set(service.signs) == {"working"}


def test_a_training_past_its_limit_is_late_and_nobody_waits_for_it(ready: Synced, service: Service) -> None:
    now = [0.0]

    def endless(task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
        now[0] += limit_s
        return Done(130)

    assert turn(ready, service, endless, monotonic=lambda: now[0]).state == "late"
    assert service.signs == ["giving-up"]


# Signs of life


@pytest.mark.parametrize("what", ["blob", "update"])
def test_a_board_gives_signs_of_life_while_an_order_comes_and_an_update_goes(
    ready: Synced, service: Service, what: str
) -> None:
    def slow(moving: str) -> None:
        for _ in range(3 if moving == what else 0):
            service.sees_a_beat()

    service.changes, service.during = {"heartbeat_s": BEAT_S}, slow
    assert turn(ready, service).state == "sent"
    assert len(service.signs) >= 3


def test_an_update_of_an_earlier_run_is_sent_with_signs_of_life(ready: Synced, service: Service) -> None:
    service.changes, service.fails = {"heartbeat_s": BEAT_S}, Offline("no connection")
    with pytest.raises(Offline):
        turn(ready, service)
    service.signs.clear()
    service.beaten = threading.Semaphore(0)
    service.invited, service.during = False, service.sees_a_beat
    assert turn(ready, service).earlier
    assert set(service.signs) == {"working"}


def test_a_round_that_is_over_before_its_order_has_come_is_not_trained_for(ready: Synced, service: Service) -> None:
    def slow(_what: str) -> None:
        for thread in threading.enumerate():
            if thread.name == "signs of life":  # it ends with the answer
                thread.join(PATIENCE_S)
        service.during = lambda what: None

    service.changes, service.wanted, service.during = {"heartbeat_s": BEAT_S}, False, slow
    outcome = turn(ready, service, lambda *_: pytest.fail("trained for nothing"))
    assert outcome.state == "late"


def test_a_fetch_ends_with_its_round(ready: Synced, service: Service) -> None:
    def over(_what: str) -> None:
        for thread in threading.enumerate():
            if thread.name == "signs of life":  # it ends with the answer
                thread.join(PATIENCE_S)

    service.changes, service.wanted, service.during = {"heartbeat_s": BEAT_S}, False, over
    outcome = turn(ready, service, lambda *_: pytest.fail("trained for nothing"))
    assert (outcome.state, service.fetched) == ("late", [])


@pytest.mark.parametrize("before", ["the base", "the order"])
def test_who_is_asked_to_stop_while_an_order_comes_keeps_its_place(
    ready: Synced, service: Service, before: str
) -> None:
    coming: list[str] = []
    service.during = coming.append
    needed = 1 if before == "the base" else 2
    outcome = turn(ready, service, lambda *_: pytest.fail("trained"), stopped=lambda: len(coming) >= needed)
    assert (outcome.state, outcome.wait_s, service.signs) == ("waiting", NO_BEAT_S, [])
    assert "goes on with this round" in outcome.note
    assert len(service.fetched) == needed - 1
    service.during = lambda what: None
    assert turn(ready, service).state == "sent"


def test_a_cloud_that_does_not_answer_signs_is_no_reason_to_stop(ready: Synced, service: Service) -> None:
    def offline(*_: object) -> SignReply:
        service.beaten.release()
        raise Offline("no connection")

    service.changes, service.during = {"heartbeat_s": BEAT_S}, service.sees_a_beat
    service.sign = offline  # type: ignore[method-assign]
    assert turn(ready, service).state == "sent"


def test_without_samples_or_an_invitation_nothing_is_trained(ready: Synced, service: Service) -> None:
    with pytest.raises(NotFound, match="no round waits"):
        trained(ready)
    with ready.store() as store:
        store.expire(BOTH.id, older_than=None, ids=None)
    with pytest.raises(NothingToDo):
        turn(ready, service)


def test_the_governor_is_asked_after_every_step(ready: Synced, service: Service) -> None:
    steps: list[int] = []
    turn(ready, service, lambda *_: Done(0, dict(vars(trained(ready, lambda: steps.append(1))))))
    assert len(steps) == service.received[0][0].steps == 6


def test_a_board_takes_no_more_steps_than_it_is_ordered_and_tells_how_long_they_took(
    ready: Synced, service: Service
) -> None:
    service.changes = {"max_steps": 2}
    turn(ready, service)
    meta = service.received[0][0]
    assert meta.steps == 2
    assert isinstance(meta.train_s, float)


def test_own_noise_is_bounded_by_the_clip_and_never_the_same(ready: Synced, service: Service) -> None:
    service.changes = {"noise": 1e-6, "clip": 0.01}
    turn(ready, service)
    turn(ready, service)
    first, second = (unpack_update(body, limit_bytes=1 << 20)[0].main for _, body in service.received)
    length = np.sqrt(sum(float(np.square(array).sum()) for array in first.values()))
    assert length == pytest.approx(0.01, rel=0.01)
    assert any(not np.array_equal(first[name], second[name]) for name in first)


def test_what_noise_costs_is_noted_before_an_update_leaves_and_once(ready: Synced, service: Service) -> None:
    def noted(_what: str = "update") -> list[float]:
        with ready.store() as store:
            return store.noise_of_updates().get(BOTH.id, [])

    def sees_it(what: str) -> None:
        assert what != "update" or noted() == [2.0]

    service.changes, service.fails = {"noise": 2.0, "clip": 0.01}, Offline("no connection")
    service.during = sees_it
    with pytest.raises(Offline):
        turn(ready, service)
    service.invited = False
    assert turn(ready, service).earlier
    assert noted() == [2.0]
    service.invited, service.during, service.changes = True, lambda what: None, {"number": 2}
    turn(ready, service)
    assert noted() == [2.0, 0.0]


@pytest.mark.parametrize(("measured", "told"), [(12.5, 12.5), (None, UNSET), (2e6, UNSET), (-1.0, UNSET)])
def test_energy_is_told_where_it_is_measured(
    ready: Synced, service: Service, measured: float | None, told: object
) -> None:
    turn(ready, service, lambda *_: Done(0, vars(trained(ready, energy_j=lambda: measured))))
    assert service.received[0][0].energy_j == told


@pytest.mark.parametrize(("shares", "told"), [(True, 1.0), (False, UNSET)])
def test_a_turn_tells_what_its_own_sensors_counted_where_the_owner_shares_telemetry(
    ready: Synced, service: Service, monkeypatch: pytest.MonkeyPatch, shares: bool, told: object
) -> None:
    folder, counted = ready.board.folder, iter((None, *range(1, 1000)))

    def read() -> Reading:
        return Reading(0.0, 0.0, power_w=5.0, power_quality="measured", energy_j=next(counted))

    def training(task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
        with Stop().listening() as stop:
            return Done(0, vars(_train(here, BOTH.id, stop, 0.0)))

    # no time passes by its clock, so that the governor looks once
    machine = Machine(read, lambda: 0.0, lambda seconds: None, 0.0)
    monkeypatch.setattr(Machine, "real", lambda **_: machine)
    settings = config.load(Places({}, folder / "etc", folder / "none.toml", False))
    settings = settings.override(state=str(ready.board.home.root), telemetry_share=shares, threads=1)
    here = Invocation(settings, Places({}, folder / "etc", folder / "none.toml", False), ready.board.server.clock)
    turn(ready, service, training)
    assert service.received[0][0].energy_j == told


@pytest.mark.parametrize("name", CODECS)
def test_what_is_sent_unfolds_to_the_order_it_answers(ready: Synced, service: Service, name: str) -> None:
    from edgelearn.federated import turn as turns
    from edgelearn.federated.algorithm import LocalSettings, Update

    service.changes = {"compression": name}
    turn(ready, service)
    meta, body = service.received[0]
    parts, order = unpack_update(body, limit_bytes=1 << 20)[0], Parts(shared_weights(world.TASK, world.base()))
    sent = Update(meta.board, 0, meta.samples, meta.steps, parts.main, parts.extra)
    turns.receive(sent, Order(0, order.main, LocalSettings()), CODECS[name], Limits())


def a_route(interface: str, destination: str = "00000000") -> dict[str, str]:
    row = f"{interface}\t{destination}\t0100A8C0\t3\t0\t0\t0\t{destination}\n"
    return {"proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n" + row}


@pytest.mark.parametrize(
    ("tree", "kind"),
    [
        (a_route("eth0"), "ethernet"),
        (a_route("wlan0") | {"sys/class/net/wlan0/wireless/x": ""}, "wifi"),
        (a_route("wwan0"), "mobile"),
        (a_route("eth0", "00A8C000"), "unknown"),
        (a_route("../x"), "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_network_is_that_of_the_default_route(tmp_path: Path, tree: dict[str, str], kind: str) -> None:
    for name, text in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert network.kind(tmp_path) == kind
