"""Releases in the cloud: who is asked when, what is believed, what happens by itself, and what operators may do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from cloud_aug import bases, boards, db, garbage, index, pretrain, publications
from cloud_aug.cloud import Cloud, open_cloud
from cloud_aug.releases import outcomes, plan, status, steering, waves
from cloud_aug.releases.plan import Candidate, Selection, Wave
from cloud_aug.releases.status import Counts
from edgewire import tensors
from edgewire.errors import Conflict, EdgeError, Expired, Forged, NotFound, NotGranted, Outdated, UsageError
from edgewire.releases import BasePayload, Limits, Policy, Verdict, version_key
from edgewire.signing import SigningKey
from tests.cloud import toys
from tests.cloud.backends import Backend
from tests.cloud.releasing import WAVES, Device, fleet, second_base, started

NOW = 2e9  # long after anything that the toy cloud did


@pytest.fixture(scope="session")
def _held_once(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = toys.published(tmp_path_factory.mktemp("held") / "cloud", backend.stores())
    made = open_cloud(folder)
    second_base(made)
    made.database.close()
    return folder


@pytest.fixture
def held(backend: Backend, _held_once: Path, tmp_path: Path) -> Iterator[Cloud]:
    """A cloud whose manifest names base 1; base 2 is published and held back."""
    with backend.copied(_held_once, tmp_path / "cloud") as copied:
        opened = open_cloud(copied)
        yield opened
        opened.database.close()


def state(cloud: Cloud, release: str) -> tuple[str, int]:
    found = status.find(cloud, release)
    return found.info.state, found.info.wave


def general(cloud: Cloud) -> int:
    with cloud.database.reading() as connection:
        found = publications.general(connection, "toy")
    assert found is not None
    return found.base.version


def test_a_base_that_is_held_back_is_in_no_manifest(held):
    assert general(held) == 1
    with held.database.reading() as connection:
        assert [one.base.version for one in publications.served(connection, "toy")] == [1, 2]


def test_only_the_first_wave_is_asked_and_the_next_follows_when_it_went_well(held):
    devices, release = fleet(held, 5, now=NOW), started(held, now=NOW).info.id
    asked = [device for device in devices if device.asks(now=NOW)]
    assert len(asked) == 1
    assert asked[0].does("committed", now=NOW + 1)
    assert state(held, release) == ("running", 0), "the wave is watched for a minute"
    assert sum(bool(device.asks(now=NOW + 61)) for device in devices) == 5
    assert state(held, release) == ("running", 1)


def test_when_every_board_runs_it_the_manifest_names_it(held):
    devices, release = fleet(held, 3, now=NOW), started(held, now=NOW).info.id
    for at in (NOW + 1, NOW + 61, NOW + 122):
        for device in devices:
            device.does("committed", now=at)
    waves.advance_all(held, now=NOW + 300)
    assert (state(held, release)[0], general(held)) == ("done", 2)
    newcomer = Device(held, "late").enroll(now=NOW + 301)
    assert [device.asks(now=NOW + 302) for device in (*devices, newcomer)] == [[]] * 4
    steering.abort(held, release, now=NOW + 303)
    assert [len(device.asks(now=NOW + 304)) for device in (*devices, newcomer)] == [1, 1, 1, 0]
    assert general(held) == 1


def test_a_board_that_was_revoked_meanwhile_is_not_waited_for(held):
    devices = fleet(held, 3, now=NOW)
    release = started(held, now=NOW, canaries=(devices[1].id,)).info.id
    boards.revoke(held, devices[0].id, now=NOW)
    for at in (NOW + 1, NOW + 61, NOW + 122):
        for device in devices[1:]:
            device.does("committed", now=at)
    waves.advance_all(held, now=NOW + 300)
    assert (state(held, release)[0], general(held)) == ("done", 2)


def test_a_board_that_has_the_task_no_more_is_not_waited_for(held):
    devices = fleet(held, 4, now=NOW)
    release = started(held, now=NOW, waves=(Wave(1.0, 60.0),)).info.id
    for device in devices:
        device.asks(now=NOW + 1)
    devices[0].does("committed", now=NOW + 2)
    boards.recall(held, "toy", boards.Selection(("board-[123]",)), now=NOW + 3)
    waves.advance_all(held, now=NOW + 61)
    assert (status.find(held, release).info.counts, general(held)) == (Counts(committed=1), 2)


def test_when_the_last_board_that_lacked_it_is_revoked_the_manifest_names_it(held):
    devices = fleet(held, 3, now=NOW)
    release = started(held, now=NOW, waves=(Wave(1.0, 60.0),)).info.id
    for device in devices[1:]:
        device.does("committed", now=NOW + 1)
    waves.advance_all(held, now=NOW + 61)
    assert (state(held, release)[0], general(held)) == ("done", 1)
    boards.revoke(held, devices[0].id, now=NOW + 62)
    waves.advance_all(held, now=NOW + 63)
    assert general(held) == 2


def test_a_board_that_refused_it_keeps_the_manifest_as_it_is(held):
    devices = fleet(held, 3, now=NOW)
    lax = tuple(replace(wave, most_failures=1.0) for wave in WAVES)
    release = started(held, now=NOW, waves=lax, canaries=(devices[1].id,)).info.id
    for at in (NOW + 1, NOW + 61, NOW + 122):
        for number, device in enumerate(devices):
            device.does("committed" if number else "failed", now=at)
    waves.advance_all(held, now=NOW + 300)
    assert (state(held, release)[0], general(held)) == ("done", 1)
    newcomer = Device(held, "late").enroll(now=NOW + 301)
    assert [order.action for order, _ in newcomer.asks(now=NOW + 302)] == ["install"]


def test_a_failed_canary_calls_the_release_back_and_nobody_else_is_asked(held):
    devices = fleet(held, 6, now=NOW)
    release = started(held, now=NOW, canaries=(devices[0].id, devices[1].id)).info.id
    assert sorted(device.id for device in devices if device.asks(now=NOW)) == sorted(d.id for d in devices[:2])
    devices[0].does("committed", now=NOW + 1)
    devices[1].does("failed", now=NOW + 2)
    found = status.find(held, release)
    assert (found.info.state, found.waves[0].canaries) == ("failed", True)
    assert found.info.reason == "wave 1: 1 of 2 boards that told refused it or went back"
    assert [order.action for order, _ in devices[0].asks(now=NOW + 3)] == ["revert"]
    assert [device.asks(now=NOW + 300) for device in devices[1:]] == [[]] * 5


def test_who_ran_it_goes_back_once_and_is_asked_no_more(held):
    (device,), release = fleet(held, 1, now=NOW), started(held, now=NOW).info.id
    device.does("committed", now=NOW + 1)
    steering.abort(held, release, now=NOW + 2, reason="the labels moved")
    (order, counter) = device.asks(now=NOW + 3)[0]
    assert (order.action, counter) == ("revert", 2)
    device.does("reverted", now=NOW + 4)
    assert device.asks(now=NOW + 5) == []
    assert status.find(held, release).info.counts == Counts(reverted=1)


def test_a_wave_without_word_from_enough_boards_waits(held):
    devices, release = fleet(held, 10, now=NOW), started(held, now=NOW).info.id
    first = [device for device in devices if device.asks(now=NOW)]
    assert len(first) == 2
    waves.advance_all(held, now=NOW + 1e6)
    assert state(held, release) == ("running", 0)
    first[0].does("committed", now=NOW + 1e6)
    assert state(held, release) == ("running", 1), "one of two has told: a board that is gone holds nothing up"


def test_a_look_at_a_release_that_waits_keeps_no_writer_waiting(held, monkeypatch):
    fleet(held, 10, now=NOW)
    started(held, now=NOW)
    monkeypatch.setattr(held.database, "writing", lambda: pytest.fail("a look took the writers' lock"))
    waves.advance_all(held, now=NOW + 1e6)


def test_paused_nobody_new_is_asked_and_resumed_it_goes_on(held):
    (device,), release = fleet(held, 1, now=NOW), started(held, now=NOW).info.id
    steering.pause(held, release, now=NOW)
    assert device.asks(now=NOW) == []
    steering.resume(held, release, now=NOW + 1)
    assert device.does("committed", now=NOW + 2)
    assert status.find(held, release).wave_since == NOW + 1


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ({"profiles": ("pi-5",)}, "profiles pi-5 (there are: generic)"),
        ({"groups": ("lab",)}, "groups lab (there are: hall)"),
        ({"minimum": "9.9"}, "edgectl 9.9 or newer (there are: 0.1.0)"),
    ],
)
def test_a_release_for_nobody_is_refused_at_its_start_and_says_why(held, selection, says):
    device = Device(held, groups=("hall",)).enroll(now=NOW)
    with held.database.writing() as connection:
        connection.execute(db.boards.update().where(db.boards.c.id == device.id).values(edgectl="0.1.0"))
    with pytest.raises(UsageError, match="for none of the 1 boards") as refused:
        started(held, now=NOW, **selection)
    assert says in refused.value.message
    assert [one.state for one in status.list_all(held)] == ["draft"]


def test_groups_profiles_and_versions_select(held):
    hall, lab = Device(held, groups=("hall",)).enroll(now=NOW), Device(held, groups=("lab",)).enroll(now=NOW)
    started(held, now=NOW, groups=("lab",))
    assert (hall.asks(now=NOW + 100), len(lab.asks(now=NOW + 100))) == ([], 1)
    old = Candidate("b1", "generic", "0.9", frozenset())
    assert not plan.selected(Selection(minimum="0.10"), old)
    assert plan.selected(Selection(minimum="0.10"), replace(old, edgectl="0.10.1"))
    assert plan.selected(Selection(minimum="0.10", canaries=("b1",)), old)


def test_a_base_that_all_boards_get_anyway_cannot_be_released(held):
    with pytest.raises(Conflict, match="every board gets base 1"):
        steering.create(held, "toy", steering.Draft(base=1), now=NOW)


def test_two_operators_at_once_the_second_is_refused(held):
    fleet(held, 2, now=NOW)
    made = steering.create(held, "toy", steering.Draft(base=2), now=NOW).info
    results: list[str] = []

    def begin(name: str) -> None:
        try:
            steering.start(held, made.id, actor=name, now=NOW)
            results.append("started")
        except Conflict:
            results.append("conflict")

    both = [threading.Thread(target=begin, args=(name,)) for name in ("ada", "grace")]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(results) == ["conflict", "started"]


def test_a_decision_about_what_has_changed_since_is_refused(held):
    fleet(held, 2, now=NOW)
    seen = started(held, now=NOW).info
    steering.pause(held, seen.id, now=NOW)
    with pytest.raises(Conflict, match="has changed since you looked: it is paused"):
        steering.abort(held, seen.id, now=NOW, revision=seen.revision)


def test_a_second_release_waits_until_the_first_has_ended(held):
    fleet(held, 2, now=NOW)
    first = started(held, now=NOW).info.id
    with pytest.raises(Conflict, match=f"release {first} of 'toy' is running"):
        started(held, now=NOW)
    steering.abort(held, first, now=NOW)
    with pytest.raises(Conflict, match="was called back, so it cannot resume"):
        steering.resume(held, first, now=NOW)
    assert started(held, now=NOW).info.state == "running"


def test_every_step_is_in_the_audit_log(held):
    fleet(held, 1, now=NOW)
    release = started(held, now=NOW).info.id
    steering.pause(held, release, actor="admin:ada", now=NOW, reason="lunch")
    steering.abort(held, release, actor="admin:ada", now=NOW)
    with held.database.reading() as connection:
        query = sa.select(db.audit.c.actor, db.audit.c.action).where(db.audit.c.subject == release)
        found = [tuple(row) for row in connection.execute(query.order_by(db.audit.c.id))]
    shell = [("shell", "create-release"), ("shell", "start-release")]
    assert found == [*shell, ("admin:ada", "pause-release"), ("admin:ada", "abort-release")]


@pytest.mark.parametrize(
    "draft",
    [
        steering.Draft(base=2, selection=Selection(minimum="newest")),
        steering.Draft(base=2, selection=Selection(profiles=("pi 5",))),
        steering.Draft(base=2, limits=Limits(memory_mib=1 << 30)),
        steering.Draft(base=2, waves=(Wave(1.0, 1e9),)),
        steering.Draft(policy=Policy(max_seconds=10**9)),
        steering.Draft(base=2, note="x" * 501),
    ],
)
def test_what_could_not_be_read_again_is_refused_and_not_kept(held, draft):
    with pytest.raises(UsageError, match="the release is malformed"):
        steering.create(held, "toy", draft, now=NOW)
    assert status.list_all(held) == []


# Several releases


def policy_started(cloud: Cloud, recipe: str, *, now: float = NOW, waves: tuple[Wave, ...] = (Wave(1.0, 60.0),)) -> str:
    """A release of a policy, begun: of these there may be any number without another base."""
    made = steering.create(cloud, "toy", steering.Draft(policy=Policy(recipe), waves=waves), now=now)
    return steering.start(cloud, made.info.id, now=now).info.id


def told_next(device: Device, verdict: Verdict = "committed", *, now: float) -> tuple[str, str, int]:
    """What the board is told, and does: release, action and counter."""
    ((order, counter),) = device.asks(now=now)
    device.tells(device.outcome(order, counter, "reverted" if order.action == "revert" else verdict), now=now)
    return order.release, order.action, counter


@pytest.fixture
def twice(held):
    """A board that runs a second release after a first one; the ids of both."""
    (device,) = fleet(held, 1, now=NOW)
    first = policy_started(held, "local")
    device.does("committed", now=NOW + 1)
    waves.advance_all(held, now=NOW + 61)
    second = policy_started(held, "blend", now=NOW + 62)
    device.does("committed", now=NOW + 63)
    waves.advance_all(held, now=NOW + 130)
    return device, first, second


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_board_that_was_away_is_told_of_every_way_back_in_the_order_of_their_numbers(held, twice, newest_first):
    device, first, second = twice
    called_back = [second, first] if newest_first else [first, second]
    for release in called_back:
        steering.abort(held, release, now=NOW + 131)
    told = [told_next(device, now=NOW + 132) for _ in range(2)]
    assert told == [(called_back[0], "revert", 3), (called_back[1], "revert", 4)]
    assert device.asks(now=NOW + 133) == []


def test_after_the_second_was_called_back_the_first_is_ordered_under_a_number_that_boards_take(held, twice):
    device, first, second = twice
    steering.abort(held, second, now=NOW + 131)
    assert told_next(device, now=NOW + 132) == (second, "revert", 3)
    assert told_next(device, now=NOW + 133) == (first, "install", 4)
    assert [counter for _, counter in device.asks(now=NOW + 134)] == [4]
    assert status.find(held, first).info.counts == Counts(committed=1)


def test_a_board_that_had_to_go_back_from_the_first_still_gets_the_second(held):
    (device,) = fleet(held, 1, now=NOW)
    first = policy_started(held, "local")
    device.does("committed", now=NOW + 1)
    waves.advance_all(held, now=NOW + 61)
    second = policy_started(held, "blend", now=NOW + 62)
    steering.abort(held, first, now=NOW + 63)
    assert told_next(device, now=NOW + 64) == (first, "revert", 3)
    assert told_next(device, now=NOW + 65) == (second, "install", 4)


def test_who_runs_a_release_keeps_its_number_when_others_get_a_later_one(held):
    stays, refuses = fleet(held, 2, now=NOW)
    first = policy_started(held, "local")
    stays.does("committed", now=NOW + 1)
    waves.advance_all(held, now=NOW + 61)
    lax = (Wave(1.0, 60.0, most_failures=1.0),)
    second = policy_started(held, "blend", now=NOW + 62, waves=lax)
    assert told_next(refuses, "failed", now=NOW + 63) == (second, "install", 2)
    steering.pause(held, second, now=NOW + 64)
    assert told_next(refuses, now=NOW + 65) == (first, "install", 3)
    assert [counter for _, counter in stays.asks(now=NOW + 66)] == [1]


def test_a_later_number_that_a_board_was_given_counts_before_it_told_how_that_went(held):
    devices = fleet(held, 2, now=NOW)
    first = policy_started(held, "local")
    for device in devices:
        device.does("committed", now=NOW + 1)
    waves.advance_all(held, now=NOW + 61)
    second = policy_started(held, "blend", now=NOW + 62, waves=(Wave(1.0, 60.0, most_failures=1.0),))
    for device in devices:
        device.does("failed", now=NOW + 63)
    steering.abort(held, second, now=NOW + 64)
    third = policy_started(held, "bayes", now=NOW + 65, waves=(Wave(0.5, 60.0), Wave(1.0, 60.0)))
    wave = {one.board: one.wave for one in status.boards(held, third)}
    early, late = sorted(devices, key=lambda device: wave[device.id])
    assert told_next(early, now=NOW + 66) == (third, "install", 4)
    ((order, counter),) = late.asks(now=NOW + 67)
    assert (order.release, counter) == (first, 5)
    waves.advance_all(held, now=NOW + 130)
    assert told_next(late, now=NOW + 131) == (third, "install", 6)


def test_a_base_older_than_the_one_that_the_manifest_names_is_neither_released_nor_ordered(held):
    devices = fleet(held, 2, now=NOW)
    lax = (Wave(1.0, 60.0, most_failures=1.0),)
    drawn_up_before = steering.create(held, "toy", steering.Draft(base=2, waves=lax), now=NOW).info.id
    started(held, now=NOW, waves=lax)
    devices[0].does("committed", now=NOW + 1)
    devices[1].does("failed", now=NOW + 1)
    waves.advance_all(held, now=NOW + 61)
    third_base(held)
    newer = steering.create(held, "toy", steering.Draft(base=3, waves=lax), now=NOW + 62).info.id
    steering.start(held, newer, now=NOW + 62)
    for device in devices:
        device.does("committed", now=NOW + 63)
    waves.advance_all(held, now=NOW + 123)
    assert general(held) == 3
    assert Device(held, "late").enroll(now=NOW + 124).asks(now=NOW + 124) == []
    with pytest.raises(Conflict, match="is older than base 3"):
        steering.create(held, "toy", steering.Draft(base=2), now=NOW + 125)
    with pytest.raises(Conflict, match="is older than base 3"):
        steering.start(held, drawn_up_before, now=NOW + 125)


def test_after_an_older_base_was_released_everywhere_the_newer_one_before_it_comes_back_to_nobody(held):
    devices = fleet(held, 2, now=NOW)
    third_base(held)
    lax = (Wave(1.0, 60.0, most_failures=1.0),)
    for version, at in ((3, NOW), (2, NOW + 100)):
        steering.start(
            held, steering.create(held, "toy", steering.Draft(base=version, waves=lax), now=at).info.id, now=at
        )
        devices[0].does("committed", now=at + 1)
        devices[1].does("failed" if version == 3 else "committed", now=at + 1)
        waves.advance_all(held, now=at + 61)
    boards.revoke(held, devices[1].id, now=NOW + 200)
    waves.advance_all(held, now=NOW + 201)
    newcomer = Device(held, "late").enroll(now=NOW + 202)
    assert (general(held), devices[0].asks(now=NOW + 203), newcomer.asks(now=NOW + 203)) == (2, [], [])


def third_base(cloud: Cloud) -> None:
    raw = cloud.blobs.read(bases.newest(cloud, "toy").base.weights.digest)
    weights, _ = tensors.unpack(raw, what="weights", limit_bytes=1 << 20)
    other = tensors.pack({name: array * np.float32(1.01) for name, array in weights.items()}, {})
    pretrain.take(cloud, "toy", other, now=NOW)
    index.build(cloud, "toy", seed=0, now=NOW, on_progress=toys.quiet)


# What boards tell


@pytest.fixture
def offered(held):
    """A board, the order that it was given, and its counter."""
    (device,) = fleet(held, 1, now=NOW)
    started(held, now=NOW)
    return device, *device.asks(now=NOW)[0]


def test_told_twice_counts_once(held, offered):
    device, order, counter = offered
    told = device.outcome(order, counter, "committed")
    assert device.tells(told, now=NOW).accepted == 1
    assert device.tells(told, now=NOW + 1).duplicates == 1
    assert status.find(held, order.release).info.counts == Counts(committed=1)


def test_an_id_that_says_something_else_the_second_time_is_refused(offered):
    device, order, counter = offered
    told = device.outcome(order, counter, "committed")
    device.tells(told, now=NOW)
    with pytest.raises(Conflict):
        device.tells(replace(told, verdict="failed"), now=NOW)


def test_a_report_said_again_later_does_not_undo_what_was_said_since(held, offered):
    device, order, counter = offered
    first = device.outcome(order, counter, "committed")
    device.tells(first, now=NOW)
    steering.abort(held, order.release, now=NOW)
    device.does("reverted", now=NOW + 1)
    assert device.tells(first, now=NOW + 2).duplicates == 1
    assert status.find(held, order.release).info.counts == Counts(reverted=1)


def test_success_without_the_bytes_of_the_base_is_not_believed(held, offered):
    device, order, counter = offered
    with pytest.raises(NotGranted, match="does not prove"):
        device.tells(replace(device.outcome(order, counter, "committed"), proof="0" * 64), now=NOW)
    assert status.find(held, order.release).info.counts == Counts(offered=1)


def test_a_board_that_was_not_offered_it_is_not_believed(held):
    devices = fleet(held, 5, now=NOW)
    release = started(held, now=NOW).info.id
    (first,) = [device for device in devices if device.asks(now=NOW)]
    order, counter = first.asks(now=NOW)[0]
    other = next(device for device in devices if device is not first)
    with pytest.raises(NotFound, match="was not offered"):
        other.tells(other.outcome(order, counter, "committed"), now=NOW)
    with pytest.raises(NotFound):
        other.tells(replace(other.outcome(order, counter, "failed"), release="0" * 16), now=NOW)
    assert status.find(held, release).info.counts.committed == 0


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("another key", Forged),
        ("another board's words", Forged),
        ("another counter in the statement", Forged),
        ("another type", Forged),
        ("another task", Forged),
        ("too old", Expired),
        ("an older order", Outdated),
        ("a way back that nobody ordered", Conflict),
    ],
)
def test_what_is_forged_replayed_or_about_something_else_is_refused(held, offered, how, kind):
    device, order, counter = offered
    told = device.outcome(order, counter, "committed")
    stranger = replace(device, key=SigningKey.generate())
    raw = {
        "another key": lambda: stranger.seal(told, now=NOW),
        "another board's words": lambda: device.seal(replace(told, board="b" + "0" * 16), now=NOW),
        "another counter in the statement": lambda: device.seal(told, now=NOW, version=counter + 1),
        "another type": lambda: device.seal(told, now=NOW, type="access"),
        "another task": lambda: device.seal(told, now=NOW, task="other"),
        "too old": lambda: device.seal(told, now=NOW - 4000),
        "an older order": lambda: device.seal(replace(told, counter=counter + 7), now=NOW),
        "a way back that nobody ordered": lambda: device.seal(device.outcome(order, counter, "reverted"), now=NOW),
    }[how]()
    with pytest.raises(kind):
        outcomes.keep(held, device.id, "toy", raw, now=NOW)
    assert status.find(held, order.release).info.counts == Counts(offered=1)


def test_all_boards_that_refused_it_are_told(held):
    devices = [f"b{i:016x}" for i in range(120)]
    release = steering.create(held, "toy", steering.Draft(base=2), now=NOW).info.id
    with held.database.writing() as connection:
        for device in devices:
            row = {"id": device, "name": device, "profile": "generic", "public_key": device, "enrolled_at": NOW}
            connection.execute(db.boards.insert().values(row))
        steering.add_boards(connection, release, dict.fromkeys(devices, 0))
    assert [one.board for one in status.boards(held, release)] == devices
    assert len(status.boards(held, release, limit=50)) == 50


# What else must hold


def test_orders_carry_the_packs_of_now_and_boards_may_fetch_them(held, offered):
    _, order, _ = offered
    assert isinstance(order.payload, BasePayload)
    for ref in (order.payload.golden, order.payload.directory, order.payload.base.onnx):
        assert publications.tasks_of_blob(held, ref.digest) == {"toy"}


def test_garbage_is_not_what_a_board_may_be_at(held, offered):
    _, order, _ = offered
    garbage.collect(held, grace_s=0.0, now=NOW * 2)
    with held.database.reading() as connection:
        for one in publications.served(connection, "toy"):
            for ref in (one.base.onnx, one.base.weights, one.directory):
                held.blobs.check(ref.digest)
    held.blobs.check(order.payload.golden.digest)


def everywhere(cloud: Cloud) -> str:
    """A release of base 2 that every board runs, so that the manifest names it."""
    (device,), release = fleet(cloud, 1, now=NOW), started(cloud, now=NOW).info.id
    device.does("committed", now=NOW + 1)
    for at in (NOW + 61, NOW + 122):
        waves.advance_all(cloud, now=at)
    assert general(cloud) == 2
    return release


def test_what_a_release_goes_back_to_stays_when_everybody_has_left_it(held):
    release = everywhere(held)
    index.build(held, "toy", seed=7, now=NOW + 123, on_progress=toys.quiet)
    garbage.collect(held, grace_s=0.0, now=NOW * 2)
    steering.abort(held, release, now=NOW * 2)
    with held.database.reading() as connection:
        found = publications.general(connection, "toy")
    assert found is not None
    assert found.base.version == 1
    for ref in (found.base.onnx, found.base.weights, found.directory, found.search):
        held.blobs.check(ref.digest)
    for pack in found.packs:
        held.blobs.check(str(pack.ciphertext))


def test_boards_are_at_a_base_that_was_called_back_and_released_again(held):
    Device(held).enroll(now=NOW)
    first = started(held, now=NOW).info.id
    third_base(held)
    steering.abort(held, first, now=NOW + 1)
    with held.database.reading() as connection:
        assert [one.base.version for one in publications.served(connection, "toy")] == [1, 3]
    steering.start(held, steering.create(held, "toy", steering.Draft(base=2), now=NOW + 2).info.id, now=NOW + 2)
    with held.database.reading() as connection:
        again = publications.of_base(connection, "toy", 2)
    assert publications.require(held, "toy", base=again.base.onnx.digest) == again
    garbage.collect(held, grace_s=0.0, now=NOW * 2)
    for digest in (again.search.digest, *(str(ref.ciphertext) for ref in again.packs)):
        held.blobs.check(digest)


def test_a_base_whose_files_were_cleared_away_is_not_released_again(held):
    Device(held).enroll(now=NOW)
    first = started(held, now=NOW).info.id
    third_base(held)
    steering.abort(held, first, now=NOW + 1)
    garbage.collect(held, grace_s=0.0, now=NOW * 2)
    with pytest.raises(Conflict, match="files of base 2 of 'toy' were cleared away"):
        steering.create(held, "toy", steering.Draft(base=2), now=NOW * 2)


def test_a_release_whose_way_back_was_cleared_away_is_not_aborted(held):
    with held.database.reading() as connection:
        first = publications.of_base(connection, "toy", 1)
    release = everywhere(held)
    held.blobs.remove(first.base.onnx.digest)
    with pytest.raises(Conflict, match="base 1 of 'toy', which boards had before, was cleared away"):
        steering.abort(held, release, now=NOW + 200)
    assert (state(held, release)[0], general(held)) == ("done", 2)


def test_a_base_that_was_trained_elsewhere_can_be_released(held):
    raw = held.blobs.read(bases.newest(held, "toy").base.weights.digest)
    weights, _ = tensors.unpack(raw, what="weights", limit_bytes=1 << 20)
    other = tensors.pack({name: array * np.float32(1.01) for name, array in weights.items()}, {})
    assert pretrain.take(held, "toy", other, now=NOW).record.base.version == 3
    assert not pretrain.take(held, "toy", other, now=NOW).changed
    index.build(held, "toy", seed=0, now=NOW, on_progress=toys.quiet)
    assert general(held) == 1, "bases of this task are held back by now"
    assert steering.create(held, "toy", steering.Draft(base=3), now=NOW).info.what == "base 3"


@pytest.mark.parametrize(
    "change", [{"stranger": np.zeros(3, np.float32)}, {"layers.0.weight": np.zeros(3, np.float32)}]
)
def test_weights_of_another_model_are_refused(held, change):
    with pytest.raises(UsageError):
        pretrain.take(held, "toy", tensors.pack(change, {}), now=NOW)
    with pytest.raises(UsageError, match="malformed"):
        pretrain.take(held, "toy", b"no weights", now=NOW)


def test_a_policy_is_released_in_the_same_way(held):
    (device,) = fleet(held, 1, now=NOW)
    draft = steering.Draft(policy=Policy("blend", 60), waves=WAVES)
    release = steering.start(held, steering.create(held, "toy", draft, now=NOW).info.id, now=NOW).info.id
    (order, _) = device.asks(now=NOW)[0]
    assert order.policy == Policy("blend", 60)
    device.does("committed", now=NOW + 1)
    assert status.find(held, release).info.counts == Counts(committed=1)


def test_a_revoked_board_has_no_place_in_a_release(held):
    gone, stays = fleet(held, 2, now=NOW)
    boards.revoke(held, gone.id, now=NOW)
    release = started(held, now=NOW).info.id
    assert [one.board for one in status.boards(held, release)] == [stays.id]


@pytest.mark.parametrize("shares", [(), (0.5,), (0.5, 0.2, 1.0), (0.5, 0.5, 1.0)])
def test_waves_that_do_not_reach_everybody_are_refused(shares):
    with pytest.raises(UsageError, match="must rise"):
        plan.check_waves([Wave(share, 1.0) for share in shares])


def test_waves_share_out_all_boards_and_no_two_releases_alike():
    boards_ = [Candidate(f"b{i:03}", "generic", None, frozenset()) for i in range(200)]
    first, second = (_arranged(release, boards_) for release in ("1" * 16, "2" * 16))
    assert [list(first.values()).count(wave) for wave in range(3)] == [2, 18, 180]
    assert {b for b, wave in first.items() if wave == 0} != {b for b, wave in second.items() if wave == 0}


def _arranged(release: str, boards_: list[Candidate]) -> dict[str, int]:
    from edgewire.releases import Limits

    shares = (Wave(0.01, 1.0), Wave(0.1, 1.0), Wave(1.0, 1.0))
    return plan.arrange(plan.Plan(release, "toy", "base", Selection(), shares, Limits(), 60.0, "ada"), boards_)


@pytest.mark.parametrize(
    ("counts", "fails"),
    [
        (Counts(waiting=1, failed=1), True),
        (Counts(waiting=900, failed=3, committed=20), False),
        (Counts(waiting=900, failed=4, committed=20), True),
        (Counts(failed=5, committed=95), False),
        (Counts(failed=6, committed=94), True),
    ],
)
def test_one_of_a_few_is_too_many_and_some_of_many_are_not(counts, fails):
    assert waves.failed(counts, Wave(1.0, 1.0, most_failures=0.05)) is fails


@pytest.mark.parametrize(("older", "newer"), [("0.9", "0.10"), ("1", "1.0.1"), ("0.2.0rc1", "0.2.1"), ("0", "0.0.1")])
def test_versions_are_compared_as_numbers(older, newer):
    assert version_key(older) < version_key(newer)


def test_what_is_no_version_is_an_error_and_no_crash():
    with pytest.raises(EdgeError):
        version_key("newest")
    assert version_key("1.0.0") == version_key("1")
