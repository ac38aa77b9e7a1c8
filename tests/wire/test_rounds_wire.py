"""What board and cloud say to each other in rounds: golden bytes, limits, and what is not believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgewire import tensors
from edgewire.decoding import convert, decode, encode, plain
from edgewire.errors import InvalidMessage, TooLarge
from edgewire.files import digest
from edgewire.messages import BlobRef
from edgewire.rounds import (
    Invitation,
    JoinReply,
    JoinRequest,
    Local,
    Parts,
    RowsMeta,
    Shortcut,
    Sign,
    SignReply,
    UpdateMeta,
    UpdateReply,
    pack_order,
    pack_rows,
    pack_update,
    unpack_order,
    unpack_rows,
    unpack_short,
    unpack_update,
)
from edgewire.tasks import Privacy

PARTS = Parts({"w": np.float32([1, 2]), "b": np.float32([[3]])}, {"w": np.float32([4, 5])})
META = UpdateMeta("0" * 16, 3, "b" + "1" * 16, "2" * 32, 40, 8, 0.75)
INVITATION = Invitation(
    "0" * 16, 3, "b" + "1" * 16, BlobRef("a" * 64, 7), BlobRef("c" * 64, 9), "fedprox", {"mu": 0.5}, 12,
    Local(2, 8, 0.1), "topk", 0.0, 1.0, 5, "", 30.0, 1000.0,
)  # fmt: skip


def test_the_json_of_what_is_said_is_golden() -> None:
    assert encode(JoinRequest(12, "wifi", 51.5)) == b'{"network":"wifi","samples":12,"temperature_c":51.5}'
    assert encode(JoinReply("", 15.0, "not yet")) == b'{"invitation":"","note":"not yet","wait_s":15.0}'
    assert encode(Sign("giving-up")) == b'{"state":"giving-up"}'
    assert encode(SignReply(True)) == b'{"wanted":true}'
    assert encode(UpdateReply(True, 2)) == b'{"accepted":true,"counts":2}'
    assert digest(encode(INVITATION)) == GOLDEN_INVITATION
    assert decode(Invitation, encode(INVITATION), what="invitation") == INVITATION


def test_the_bytes_of_orders_and_updates_are_golden() -> None:
    assert digest(pack_order(PARTS, "points")) == GOLDEN_ORDER
    assert digest(pack_update(PARTS, META)) == GOLDEN_UPDATE


def test_what_shorter_ways_add_is_golden_and_absent_elsewhere() -> None:
    holding = JoinRequest(12, "wifi", 51.5, "d" * 64)
    assert encode(holding) == encode(JoinRequest(12, "wifi", 51.5)).replace(b"{", b'{"holds":"%s",' % (b"d" * 64))
    short = replace(INVITATION, short=Shortcut("sparse", [BlobRef("e" * 64, 3)], "d" * 64))
    told = b'"short":{"blobs":[{"digest":"%s","size":3}],"codec":"sparse","held":"%s"}' % (b"e" * 64, b"d" * 64)
    assert told in encode(short)
    assert decode(Invitation, encode(short), what="invitation") == short
    for wrong in (Shortcut("sparse", []), Shortcut("sparse", [BlobRef("e" * 64, 3)] * 51)):
        with pytest.raises(InvalidMessage):
            decode(Invitation, encode(replace(INVITATION, short=wrong)), what="invitation")
    parts, meta = unpack_short(pack_order(PARTS, "points", names=["b", "w"]), limit_bytes=1 << 20)
    assert (meta.names, parts.main.keys()) == (["b", "w"], PARTS.main.keys())


def test_what_rows_add_is_golden_and_absent_elsewhere() -> None:
    assert encode(replace(INVITATION, rows="d" * 64)).count(b'"rows":"' + b"d" * 64) == 1
    assert b"rows" not in encode(INVITATION) + encode(JoinReply()) + encode(JoinRequest(3)) + encode(Privacy())
    assert encode(JoinReply("", 0.0, "", "0" * 16)) == b'{"invitation":"","note":"","rows":"%s","wait_s":0.0}' % (
        b"0" * 16
    )
    told = pack_rows({"t": np.array([1, 5])}, RowsMeta("points", 12))
    rows, meta = unpack_rows(told, limit_bytes=1 << 10)
    assert (rows["t"].dtype, rows["t"].tolist(), meta.samples) == (np.uint32, [1, 5], 12)
    for wrong in ({"t": np.float32([1])}, {"t": np.uint32([[1]])}):
        with pytest.raises(InvalidMessage, match="uint32"):
            unpack_rows(tensors.pack(wrong, plain(RowsMeta("points", 12))), limit_bytes=1 << 10)
    with pytest.raises(TooLarge):
        unpack_rows(told, limit_bytes=50)


def test_what_paced_rounds_add_is_golden_and_absent_elsewhere() -> None:
    limited, timed = replace(INVITATION, max_steps=7), replace(META, train_s=12.5)
    assert encode(limited) == encode(INVITATION).replace(b'"memory"', b'"max_steps":7,"memory"')
    assert decode(Invitation, encode(limited), what="invitation") == limited
    assert unpack_update(pack_update(PARTS, timed), limit_bytes=1 << 20)[1] == timed
    assert digest(pack_update(PARTS, timed)) == GOLDEN_TIMED_UPDATE


def test_energy_is_told_by_boards_that_measure_it_and_absent_elsewhere() -> None:
    measured = replace(META, energy_j=12.5)
    assert unpack_update(pack_update(PARTS, measured), limit_bytes=1 << 20)[1] == measured
    assert "energy_j" not in plain(META)
    assert digest(pack_update(PARTS, measured)) == GOLDEN_MEASURED_UPDATE


def test_a_task_that_says_nothing_of_rounds_has_the_bytes_that_it_always_had() -> None:
    assert b"rounds" not in encode(Privacy())
    assert decode(Privacy, encode(Privacy(rounds=True)), what="policy").rounds is True


def test_orders_and_updates_come_back_as_they_were() -> None:
    order = unpack_order(pack_order(PARTS, "points"), limit_bytes=1 << 20)
    update, meta = unpack_update(pack_update(PARTS, META), limit_bytes=1 << 20)
    assert meta == META
    for found in (order, update):
        assert all(np.array_equal(found.main[name], PARTS.main[name]) for name in ("w", "b"))
        assert list(found.extra) == ["w"]


def test_a_body_beyond_its_limit_or_of_another_kind_is_refused() -> None:
    with pytest.raises(TooLarge):
        unpack_update(pack_update(PARTS, META), limit_bytes=100)
    with pytest.raises(InvalidMessage):
        unpack_update(pack_order(PARTS, "points"), limit_bytes=1 << 20)
    with pytest.raises(InvalidMessage):
        unpack_order(tensors.pack({}, None), limit_bytes=1 << 20)


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 0},
        {"steps": -1},
        {"number": 0},
        {"score": 1.5},
        {"upload_id": "X"},
        {"board": "kitchen"},
        {"series": "../../etc"},
        {"format": "update/2"},
        {"train_s": -1.0},
        {"energy_j": -0.5},
        {"energy_j": 1.1e6},
        {"energy_j": float("nan")},
        {"energy_j": float("inf")},
        {"energy_j": "12"},
    ],
)
def test_numbers_and_names_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidMessage):
        convert(UpdateMeta, {**plain(META), **change}, what="update")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2**53},
        {"memory": "x"},
        {"clip": 0.0},
        {"boards": 0},
        {"local": {"epochs": 0}},
        {"number": 0},
        {"max_steps": 0},
    ],
)
def test_an_invitation_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidMessage):
        convert(Invitation, {**plain(replace(INVITATION)), **change}, what="invitation")


GOLDEN_INVITATION = "9db0ed8220d65e2aae7d40125efd38ec08b9536383e4da317b46af25ed83a442"
GOLDEN_MEASURED_UPDATE = "c4891956123a45d562c2fbaa3735f4211d02ce23478cc4ffdff300b6e1abffbf"
GOLDEN_ORDER = "d0c36204b6c347c06f3adf6de70c94911b80f777af369344c5ddb0c9c0b52028"
GOLDEN_TIMED_UPDATE = "aa5219c2de4a75b5225a47d15545d56548ac69096eda66dd2415397e4c9523d4"
GOLDEN_UPDATE = "c2de5745c71ac34c9f392692bf23d47c8c7f4c90630dcd57f2e59186b4d0dc3f"
