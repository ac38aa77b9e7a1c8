"""What a board does with what the cloud orders: it is believed, fetched, judged, switched to, told of, and gone back
from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.releases import models
from edgectl import enrolment, tasks
from edgectl.models import Models
from edgectl.releases import overlay, record
from edgewire.decoding import convert
from edgewire.errors import Conflict, CorruptFile, DiskFull, EdgeError, IntegrityError, Offline
from edgewire.files import digest_of_file
from edgewire.messages import Manifest, UploadReply
from edgewire.releases import Order, Policy, proof_of
from edgewire.signing import SigningKey
from edgewire.tasks import Needs
from tests.board.released import CHALLENGE, OTHER, RELEASE, Released
from tests.board.synced import Synced
from tests.board.test_training import train
from tests.learn import world


@pytest.fixture
def released(synced: Synced) -> Released:
    """A board at base 1, with ten samples per class; a release of base 2 may come."""
    synced.add(world.style(100, 0.3), per_class=10)
    synced.sync()
    return Released(synced)


def test_a_good_base_serves_after_one_sync_and_the_cloud_is_told(released: Released) -> None:
    order = released.install()
    outcome = released.sync()
    assert (outcome.base_version, released.manifest().base.version) == (2, 2)
    assert outcome.releases == (f"release {RELEASE} is in force",)
    (told,) = released.synced.board.server.outcomes
    assert (told.verdict, told.counter, told.release) == ("committed", 1, order.release)
    onnx = released.synced.cache.path(released.manifest().base.onnx.digest)
    assert told.proof == proof_of(onnx, CHALLENGE)


def test_the_next_sync_changes_nothing_and_tells_nothing(released: Released) -> None:
    released.install()
    released.sync()
    again = released.sync()
    assert (again.changed, again.releases, len(released.told)) == (False, (), 1)
    assert again.base_version == 2


@pytest.mark.parametrize("variant", [models.not_finite, models.wrong, models.breaking])
def test_a_bad_base_never_serves_and_the_cloud_is_told_why(released: Released, variant) -> None:  # type: ignore[no-untyped-def]
    released.install(released.payload(variant(released.synced.onnx)))
    outcome = released.sync()
    assert (outcome.base_version, released.manifest().base.version) == (1, 1)
    (told,) = released.synced.board.server.outcomes
    assert told.verdict == "failed"
    assert [check.name for check in told.checks if not check.passed]
    assert released.sync().releases == ()


def test_a_throttled_board_waits_and_takes_it_when_it_is_well(released: Released) -> None:
    released.install()
    well, released.reading = released.reading, replace(released.reading, throttled=True)
    assert "waits" in released.sync().releases[0]
    assert (released.told, released.manifest().base.version) == ([], 1)
    released.reading = well
    assert released.sync().base_version == 2


def test_the_base_of_a_release_stays_though_the_task_needs_more_than_the_board_has_by_now(released: Released) -> None:
    released.install()
    released.sync()
    released.synced.task = replace(released.synced.task, needs=Needs(disk_mib=500))
    released.synced.publish()
    assert "left alone" in released.sync(lacks=lambda task: ["500 MiB of free disk"]).note
    base = released.manifest().base
    assert base.version == 2
    assert released.synced.cache.read(base.onnx.digest)


def test_what_is_called_back_is_gone_with_the_next_sync(released: Released) -> None:
    released.install()
    released.sync()
    released.call_back()
    assert released.sync().base_version == 1
    assert released.told == [(RELEASE, "committed"), (RELEASE, "reverted")]
    assert released.record().stage == "reverted"


def test_told_twice_to_go_back_it_goes_once(released: Released) -> None:
    released.install()
    released.sync()
    released.call_back()
    released.sync()
    (released.synced.cache.folder / "release.etag").unlink()
    assert released.sync().releases == ()
    assert len(released.told) == 2


def test_an_order_that_is_older_than_one_before_is_refused(released: Released) -> None:
    released.install(counter=5)
    released.sync()
    released.install(released.payload(models.good(released.synced.onnx), version=3), counter=4, release=OTHER)
    assert "refused" in released.sync().releases[0]
    assert released.manifest().base.version == 2


def test_after_going_back_the_same_order_is_not_followed_again(released: Released) -> None:
    payload = released.payload()
    released.install(payload)
    released.sync()
    released.call_back()
    released.sync()
    released.install(payload)
    assert released.sync().base_version == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"board": "b" + "0" * 16}, "another board"),
        ({"valid_s": -1.0}, "expired"),
        ({"payload": None, "kind": "policy", "policy": Policy()}, "does not carry just"),
    ],
)
def test_a_foreign_expired_or_odd_order_is_refused_and_the_sync_goes_on(
    released: Released, changes: dict[str, object], why: str
) -> None:
    payload = released.payload()
    order = Order(RELEASE, released.board, "base", "install", CHALLENGE, payload=payload)
    valid_s = changes.pop("valid_s", 3600.0)
    changed = replace(order, **{**changes, "payload": payload})  # type: ignore[arg-type]
    server = released.synced.board.server
    server.order(released.task_id, changed, counter=1, valid_s=valid_s)  # type: ignore[arg-type]
    server.ordered[released.board, released.task_id] = server.ordered.pop((changed.board, released.task_id))
    outcome = released.sync()
    assert why in outcome.releases[0]
    assert (outcome.base_version, outcome.packs) == (1, 2)


def test_an_order_signed_by_a_stranger_is_refused(released: Released) -> None:
    server = released.synced.board.server
    known, server.signing = server.signing, SigningKey.generate()
    released.install()
    server.signing = known
    assert "not trusted" in released.sync().releases[0]


def test_an_order_from_the_future_says_that_the_clock_is_wrong(released: Released) -> None:
    server = released.synced.board.server
    server.clock = lambda: time.time() + 7200
    released.install()
    server.clock = time.time
    assert "in the future" in released.sync().releases[0]
    server.clock = lambda: time.time() + 7200
    assert released.sync().base_version == 2, "when the clock is right it is taken"


@pytest.mark.parametrize(("changes", "check"), [({"profiles": ("pi-5",)}, "profile"), ({"minimum": "99"}, "version")])
def test_an_order_for_other_boards_is_refused_and_told(
    released: Released, changes: dict[str, object], check: str
) -> None:
    released.install(**changes)
    assert released.sync().base_version == 1
    (told,) = released.synced.board.server.outcomes
    assert (told.verdict, [one.name for one in told.checks]) == ("failed", [check])


def test_blobs_of_both_slots_stay_so_that_going_back_needs_no_network(released: Released) -> None:
    old = released.manifest().base.onnx.digest
    released.install()
    released.sync()
    cache = released.synced.cache
    for name in (old, released.manifest().base.onnx.digest):
        assert digest_of_file(cache.path(name)) == name


def test_a_release_on_a_release_that_fails_leaves_the_first(released: Released) -> None:
    released.install()
    released.sync()
    released.install(released.payload(models.wrong(released.synced.onnx), version=3), counter=2, release=OTHER)
    assert released.sync().base_version == 2
    assert released.told[-1] == (OTHER, "failed")


def test_the_second_release_called_back_leaves_the_first(released: Released) -> None:
    released.install()
    released.sync()
    released.install(released.payload(version=3), counter=2, release=OTHER)
    assert released.sync().base_version == 3
    released.call_back(counter=3, release=OTHER)
    assert released.sync().base_version == 2


def test_the_first_called_back_under_the_second_leaves_the_second(released: Released) -> None:
    released.install()
    released.sync()
    released.install(released.payload(version=3), counter=2, release=OTHER)
    released.sync()
    released.call_back(counter=3)
    assert released.sync().base_version == 3
    released.call_back(counter=4, release=OTHER)
    assert released.sync().base_version == 1


def test_an_outcome_that_could_not_be_told_is_told_later(released: Released) -> None:
    released.install()
    cloud = released.synced.cloud()
    tell, cloud.tell_outcome = cloud.tell_outcome, _offline  # type: ignore[method-assign]
    with pytest.raises(Offline):
        released.synced.sync(cloud, read_state=lambda: released.reading)
    assert released.manifest().base.version == 2
    cloud.tell_outcome = tell  # type: ignore[method-assign]
    released.sync()
    assert released.told == [(RELEASE, "committed")]


def _offline(*_: object) -> None:
    raise Offline("the cloud does not answer")


def test_a_blob_that_is_cut_off_is_gone_on_with(released: Released) -> None:
    released.install()
    released.synced.board.server.cut_after = 100
    with pytest.raises(Offline):
        released.sync()
    assert (released.record().stage, released.manifest().base.version) == ("ready", 1)
    assert released.sync().base_version == 2


def test_packs_made_anew_reach_a_board_without_another_trial(released: Released) -> None:
    released.install()
    released.sync()
    anew = released.payload(moved=1.0)
    released.install(anew)
    assert released.sync().base_version == 2
    assert released.manifest().directory == anew.directory
    assert len(released.told) == 1


def test_when_the_manifest_names_the_base_it_counts_and_the_order_too(released: Released) -> None:
    payload = released.payload()
    released.install(payload)
    released.sync()
    server = released.synced.board.server
    body = server.bodies[released.task_id]
    server.bodies[released.task_id] = replace(body, base=payload.base, directory=payload.directory)
    server.versions[released.task_id] = 2
    server.ordered.clear()
    assert released.sync().base_version == 2


def test_a_board_that_lost_its_record_is_told_again(released: Released) -> None:
    released.install()
    released.sync()
    (released.synced.cache.folder / "release-base.json").unlink()
    assert released.manifest().base.version == 1
    assert released.sync().base_version == 2


def test_who_moves_to_another_cloud_follows_its_orders_from_one_on(released: Released) -> None:
    released.install(counter=9)
    released.sync()
    enrolment._leave(released.synced.board.home, released.synced.board.server.enrolment_file(), now=time.time())
    assert released.record().floor == 0
    assert not (released.synced.cache.folder / "release.etag").exists()


def test_a_restored_cloud_that_forgot_the_release_brings_its_own_base(released: Released) -> None:
    released.install()
    released.sync()
    home = released.synced.board.home
    known = enrolment.load(home)
    general = tasks.stored_manifest(home, known, released.task_id)
    manifest = convert(Manifest, general.body, what="manifest")
    assert overlay.effective(home, known, manifest, epoch=general.epoch).base.version == 2
    assert overlay.effective(home, known, manifest, epoch=general.epoch + 1).base.version == 1


def test_a_policy_is_taken_if_the_recipe_is_known_and_refused_if_not(released: Released) -> None:
    released.order_policy(Policy(recipe="blend", max_seconds=60))
    released.sync()
    home = released.synced.board.home
    assert overlay.policy(home, enrolment.load(home), released.task_id, epoch=1) == Policy("blend", 60)
    for counter, recipe in ((2, "of_tomorrow"), (3, "neighbours")):  # that is for tasks of clicks
        released.order_policy(Policy(recipe=recipe), counter=counter)
        released.sync()
        assert overlay.policy(home, enrolment.load(home), released.task_id, epoch=1) == Policy("blend", 60)
    assert [verdict for _, verdict in released.told] == ["committed", "failed", "failed"]


def test_a_personal_model_made_on_a_base_that_is_called_back_goes_with_it(released: Released) -> None:
    released.install()
    released.sync()
    assert train(released.synced, recipe="local", veto=False).changed
    models_of = Models(released.synced.board.home, released.task_id)
    assert models_of.current() is not None
    released.call_back()
    released.sync()
    assert models_of.current() is None


def test_a_personal_model_goes_with_its_base_where_a_later_release_was_refused(released: Released) -> None:
    released.install()
    released.sync()
    assert train(released.synced, recipe="local", veto=False).changed
    released.install(released.payload(models.wrong(released.synced.onnx), version=3), counter=2, release=OTHER)
    released.sync()
    released.call_back(counter=3)
    assert released.sync().base_version == 1
    assert Models(released.synced.board.home, released.task_id).current() is None


def test_a_restored_cloud_that_forgot_a_policy_ends_it(released: Released) -> None:
    released.order_policy(Policy(recipe="blend", max_seconds=60))
    released.sync()
    home = released.synced.board.home
    assert overlay.policy(home, enrolment.load(home), released.task_id, epoch=2) == Policy()


@pytest.mark.parametrize("stage", ["ready", "trial", "committed"])
def test_a_board_that_was_away_while_the_signing_key_was_replaced_keeps_its_release(
    released: Released, stage: record.Stage
) -> None:
    payload = released.payload()
    released.install(payload)
    released.sync()
    record.write(released.synced.board.home, released.task_id, "base", replace(released.record(), stage=stage))
    released.synced.board.server.rotate_signing()
    released.install(payload)
    assert released.sync().base_version == 2
    assert released.record().stage == "committed"
    assert released.sync().releases == ()


def test_an_order_that_expired_before_it_was_carried_out_waits_for_a_new_one(released: Released) -> None:
    server, payload = released.synced.board.server, released.payload()
    released.install(payload, valid_s=3600.0)
    server.cut_after = 100
    with pytest.raises(Offline):
        released.sync()
    server.ordered.clear()  # it is paused
    server.clock = lambda: time.time() + 7200
    outcome = released.sync()
    assert (outcome.base_version, released.record().stage) == (1, "ready")
    assert "its order has expired" in outcome.releases[0]
    released.install(payload)
    assert released.sync().base_version == 2


@pytest.mark.parametrize("error", [DiskFull("the disk is full"), IntegrityError("the answer is malformed")])
def test_an_outcome_that_the_cloud_could_not_take_is_told_with_the_next_sync(
    released: Released, error: EdgeError
) -> None:
    released.install()
    cloud = released.synced.cloud()
    cloud.tell_outcome = _raising(error)  # type: ignore[method-assign]
    released.synced.sync(cloud, read_state=lambda: released.reading)
    assert (released.manifest().base.version, released.told) == (2, [])
    released.sync()
    assert released.told == [(RELEASE, "committed")]


def test_an_outcome_that_the_cloud_will_never_take_is_told_once(released: Released) -> None:
    released.install()
    cloud = released.synced.cloud()
    cloud.tell_outcome = _raising(Conflict("it said something else"))  # type: ignore[method-assign]
    released.synced.sync(cloud, read_state=lambda: released.reading)
    assert released.record().outcomes == ()


def _raising(error: EdgeError) -> Callable[..., UploadReply]:
    def refuse(*_: object) -> UploadReply:
        raise error

    return refuse


@pytest.mark.parametrize("what", ["weights", "onnx", "directory"])
def test_a_file_of_a_released_base_that_was_damaged_is_fetched_again(released: Released, what: str) -> None:
    released.install()
    released.sync()
    manifest, cache = released.manifest(), released.synced.cache
    ref = manifest.directory if what == "directory" else getattr(manifest.base, what)
    cache.path(ref.digest).write_bytes(b"damaged")
    with pytest.raises(CorruptFile):
        cache.read(ref.digest)
    assert released.sync().base_version == 2
    assert cache.holds(ref.digest)


def test_who_wants_no_reports_tells_the_verdict_and_no_figure(released: Released) -> None:
    released.install()
    released.sync(reports=False)
    (told,) = released.synced.board.server.outcomes
    assert (told.verdict, told.checks) == ("committed", ())


def test_model_show_tells_which_release_brought_the_base(released: Released) -> None:
    released.install()
    released.sync()
    board = released.synced.board
    told = json.loads(board.edgectl("model", "show", "--json").stdout)
    assert (told["base_serves"], told["base_in_force"]["release"], told["base_in_force"]["version"]) == (
        True,
        RELEASE,
        2,
    )
    train(released.synced, recipe="local", veto=False)
    told = json.loads(board.edgectl("model", "show", "--json").stdout)
    assert (told["release"], told["base_version"], len(told["samples"])) == (RELEASE, 2, 40)
    assert f"brought by release {RELEASE}" in board.edgectl("model", "show").stdout.decode()


def test_train_follows_the_policy_where_nobody_here_said_otherwise(released: Released) -> None:
    released.order_policy(Policy(recipe="local", max_seconds=120))
    released.sync()
    board = released.synced.board
    told = json.loads(board.edgectl("train", "--json").stdout)
    assert (told["requested"], told["max_seconds"]) == ("local", 120)
    told = json.loads(board.edgectl("train", "--recipe", "base", "--max-seconds", "60", "--json").stdout)
    assert (told["requested"], told["max_seconds"]) == ("base", 60)
