"""A toy cloud with a second base that is held back for a release, and boards without a network."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field, replace

from cloud_aug import auth, boards, index, pretrain
from cloud_aug.cloud import Cloud
from cloud_aug.releases import orders, outcomes, steering
from cloud_aug.releases.plan import Selection, Wave
from cloud_aug.releases.status import ReleaseStatus
from edgewire.decoding import convert, plain
from edgewire.messages import EnrolRequest, UploadReply
from edgewire.releases import BasePayload, Order, Outcome, Verdict, proof_of
from edgewire.signing import SigningKey, Statement, open_sealed, seal
from edgewire.trust import public_text
from tests.cloud import toys

WAVES = (Wave(0.2, 60.0), Wave(1.0, 60.0))


def second_base(cloud: Cloud, *, hold: bool = True) -> None:
    """Train another base and build its index; boards go on with the first one."""
    settings = pretrain.TrainSettings(seed=1, epochs=60, rehearse=False)
    pretrain.train(cloud, "toy", settings, now=time.time(), on_progress=toys.quiet)
    index.build(cloud, "toy", seed=0, hold=hold, now=time.time(), on_progress=toys.quiet)


@dataclass
class Device:
    """A board as the service knows it."""

    cloud: Cloud
    name: str = "board"
    profile: str = "generic"
    groups: tuple[str, ...] = ()
    key: SigningKey = field(default_factory=SigningKey.generate)
    id: str = ""

    def enroll(self, *, now: float) -> Device:
        token = auth.make_enrolment_token(self.cloud, ["toy"], now=now, valid_for_s=60)
        request = EnrolRequest(token, self.name, self.profile, public_text(self.key.public))
        statement = Statement("enroll", "", 0, 0, now, now + 60, plain(request))
        self.id = boards.enrol(self.cloud, seal(self.key, statement), now=now).board
        boards.set_groups(self.cloud, self.id, self.groups, now=now)
        return self

    def asks(self, *, now: float) -> list[tuple[Order, int]]:
        """What it is told, as it reads it: orders and their counters."""
        if not orders.etag(self.cloud, self.id, "toy", now=now):
            return []
        given, _ = orders.give(self.cloud, self.id, "toy", now=now)
        keys = self.cloud.trust().signing_keys
        opened = [open_sealed(raw.encode(), keys, type="release", task="toy", now=now) for raw in given.orders]
        return [(convert(Order, one.body, what="order"), one.version) for one in opened]

    def outcome(self, order: Order, counter: int, verdict: Verdict) -> Outcome:
        told = Outcome(secrets.token_hex(16), self.id, order.release, counter, verdict, (), "0.1.0")
        if verdict == "committed" and isinstance(order.payload, BasePayload):
            path = self.cloud.blobs.path(order.payload.base.onnx.digest)
            return replace(told, proof=proof_of(path, order.challenge))
        return told

    def seal(self, told: Outcome, *, now: float, **changes: object) -> bytes:
        statement = Statement("outcome", "toy", 0, told.counter, now, now + 120, plain(told))
        return seal(self.key, replace(statement, **changes))  # type: ignore[arg-type]

    def tells(self, told: Outcome, *, now: float) -> UploadReply:
        return outcomes.keep(self.cloud, self.id, "toy", self.seal(told, now=now), now=now)

    def does(self, verdict: Verdict, *, now: float) -> bool:
        """Ask, do it, tell; whether there was anything."""
        asked = self.asks(now=now)
        for order, counter in asked:
            self.tells(self.outcome(order, counter, "reverted" if order.action == "revert" else verdict), now=now)
        return bool(asked)


def fleet(cloud: Cloud, count: int, *, now: float) -> list[Device]:
    return [Device(cloud, f"board-{i}").enroll(now=now) for i in range(count)]


def started(cloud: Cloud, *, now: float, waves: tuple[Wave, ...] = WAVES, **selection: object) -> ReleaseStatus:
    """A release of the second base, begun."""
    draft = steering.Draft(base=2, selection=Selection(**selection), waves=waves)  # type: ignore[arg-type]
    made = steering.create(cloud, "toy", draft, now=now)
    return steering.start(cloud, made.info.id, now=now)
