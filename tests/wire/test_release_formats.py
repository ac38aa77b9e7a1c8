"""Releases as bytes: golden JSON, what an order may carry, and the proof of having a file."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import UNSET

from edgewire import golden
from edgewire.decoding import decode, encode
from edgewire.errors import InvalidMessage
from edgewire.messages import AccessRequest, Base, BlobRef
from edgewire.releases import BasePayload, Check, Order, Outcome, Policy, proof_of

BLOB = BlobRef("0" * 64, 1)
PAYLOAD = BasePayload(Base(2, BLOB, BLOB), BLOB, BLOB)
ORDER = Order("a" * 16, "b" + "0" * 16, "base", "install", "c" * 32, payload=PAYLOAD)


def test_the_json_of_an_order_is_golden() -> None:
    blob = b'{"digest":"' + b"0" * 64 + b'","size":1}'
    wanted = (
        b'{"action":"install","board":"b0000000000000000","challenge":"' + b"c" * 32 + b'","kind":"base","limits":'
        b'{"chance":0.01,"latency_ratio":1.5,"memory_mib":512,"slack_ms":2.0},"minimum":"0","payload":{"base":{"onnx":'
        + blob + b',"version":2,"weights":' + blob + b'},"directory":' + blob + b',"golden":' + blob
        + b'},"profiles":[],"release":"aaaaaaaaaaaaaaaa"}'
    )  # fmt: skip
    assert encode(ORDER) == wanted
    assert decode(Order, wanted, what="order") == ORDER


def test_the_json_of_an_outcome_is_golden() -> None:
    told = Outcome(
        "a" * 32,
        "b" + "0" * 16,
        "c" * 16,
        7,
        "failed",
        (Check("finite", False), Check("memory", True, 1.5, 2)),
        "0.1.0",
    )
    wanted = (
        b'{"board":"b0000000000000000","checks":[{"limit":null,"name":"finite","passed":false,"value":null},'
        b'{"limit":2.0,"name":"memory","passed":true,"value":1.5}],"counter":7,"edgectl":"0.1.0","release":"'
        + b"c" * 16 + b'","upload_id":"' + b"a" * 32 + b'","verdict":"failed"}'
    )  # fmt: skip
    assert decode(Outcome, wanted, what="outcome") == told
    assert decode(Outcome, encode(told), what="outcome") == told


def test_a_request_for_access_without_a_version_has_the_bytes_that_it_always_had() -> None:
    asked = AccessRequest("b" + "0" * 16, "1" * 32)
    assert encode(asked) == b'{"board":"b0000000000000000","nonce":"' + b"1" * 32 + b'"}'
    assert decode(AccessRequest, encode(replace(asked, edgectl="0.1.0")), what="access").edgectl == "0.1.0"


@pytest.mark.parametrize(
    ("order", "sound"),
    [
        (ORDER, True),
        (replace(ORDER, kind="policy", payload=UNSET, policy=Policy()), True),
        (replace(ORDER, action="revert", payload=UNSET), True),
        (replace(ORDER, payload=UNSET), False),
        (replace(ORDER, policy=Policy()), False),
        (replace(ORDER, kind="policy"), False),
        (replace(ORDER, action="revert"), False),
    ],
)
def test_an_order_carries_just_what_its_kind_and_action_need(order: Order, sound: bool) -> None:
    assert (order.problem() == "") is sound


@pytest.mark.parametrize("field", ["limits", "payload"])
def test_what_is_out_of_bounds_is_no_order(field: str) -> None:
    raw = encode(ORDER).replace(b'"memory_mib":512', b'"memory_mib":0').replace(b'"size":1', b'"size":-1')
    with pytest.raises(InvalidMessage, match=field):
        decode(Order, raw if field == "limits" else encode(ORDER).replace(b'"size":1', b'"size":-1'), what="order")


def test_a_proof_needs_the_challenge_and_the_part_of_the_file_that_it_picks(tmp_path: Path) -> None:
    file, size = tmp_path / "file", 200_000
    data = np.random.default_rng(0).bytes(size)
    file.write_bytes(data)
    challenge = "f" * 32
    start = int(challenge, 16) % (size - 65_535)
    wanted = hashlib.sha256(f"{challenge} {size} {start}\n".encode() + data[start : start + 65_536]).hexdigest()
    assert proof_of(file, challenge) == wanted
    assert proof_of(file, "e" * 32) != wanted


def test_golden_answers_agree_only_where_they_are_finite_and_the_same() -> None:
    logits = np.ones((3, 2), np.float32)
    assert golden.agree(logits + 1e-4, logits)
    assert not golden.agree(logits + 1, logits)
    assert not golden.agree(logits[:2], logits)
    assert not golden.agree(np.full((3, 2), np.nan, np.float32), np.full((3, 2), np.nan, np.float32))
