"""Updates there and back through each compression: what is lost, what is kept for later, and how many bytes travel."""

from __future__ import annotations

import numpy as np
import pytest

from edgelearn.compression.codec import Codec, Plain
from edgelearn.compression.eight_bit import EightBit
from edgelearn.compression.one_bit import OneBit
from edgelearn.compression.sparse import Sparse
from edgelearn.compression.topk import TopK
from edgelearn.federated.arrays import Arrays, flat, plus
from edgewire import tensors

DELTA: Arrays = {
    "a.weight": np.random.default_rng(0).normal(size=(40, 20)).astype(np.float32),
    "b.bias": np.random.default_rng(1).normal(size=200).astype(np.float32) * 10,
}
CODECS: dict[str, Codec] = {
    "none": Plain(),
    "topk": TopK(share=0.01),
    "dgc": TopK(share=0.01, momentum=0.9),
    "8": EightBit(),
    "1": OneBit(),
    "sparse": Sparse(share=0.01),
}


def there_and_back(codec: Codec, delta: Arrays, memory: Arrays | None = None) -> tuple[Arrays, Arrays]:
    sent, left = codec.encode(delta, memory=memory or {}, rng=np.random.default_rng(0))
    arrived, _ = tensors.unpack(tensors.pack(sent), what="update", limit_bytes=1 << 20)
    return codec.decode(arrived, delta), left


@pytest.mark.parametrize("name", CODECS)
def test_what_comes_back_has_the_names_shapes_and_dtype_that_went(name: str):
    back, _ = there_and_back(CODECS[name], DELTA)
    assert {n: a.shape for n, a in back.items()} == {n: a.shape for n, a in DELTA.items()}
    assert all(array.dtype == np.float32 for array in back.values())


@pytest.mark.parametrize("name", ["topk", "1", "sparse"])
def test_what_was_not_sent_is_kept_and_nothing_is_lost(name: str):
    back, left = there_and_back(CODECS[name], DELTA)
    kept = {n.removeprefix("v/"): array for n, array in left.items() if not n.startswith("u/")}
    assert flat(plus(back, kept)) == pytest.approx(flat(DELTA), abs=1e-5)


@pytest.mark.parametrize("name", ["topk", "1", "sparse"])
def test_over_many_rounds_everything_arrives(name: str):
    codec, memory, total = CODECS[name], {}, 0.0
    for _ in range(400):
        back, memory = there_and_back(codec, DELTA, memory)
        total = total + flat(back)
    assert np.abs(total / 400 - flat(DELTA)).max() < 0.15 * np.abs(flat(DELTA)).max()


def test_top_k_sends_the_largest_values_exactly():
    back, _ = there_and_back(TopK(share=0.01), DELTA)
    sent = np.flatnonzero(flat(back))
    assert len(sent) == 10
    assert set(sent) == set(np.argsort(np.abs(flat(DELTA)))[-10:])
    assert np.array_equal(flat(back)[sent], flat(DELTA)[sent])


def test_top_k_with_momentum_by_hand():
    codec, delta = TopK(share=0.5, momentum=0.5), {"w": np.float32([4, 1])}
    back, memory = there_and_back(codec, delta)
    assert back["w"].tolist() == [4, 0]
    assert (memory["u/w"].tolist(), memory["v/w"].tolist()) == ([0, 1], [0, 1])
    back, memory = there_and_back(codec, {"w": np.float32([0, 1])}, memory)
    assert back["w"].tolist() == [0, 2.5]  # u = ½·1 + 1, v = 1 + 1.5
    assert (memory["u/w"].tolist(), memory["v/w"].tolist()) == ([0, 0], [0, 0])


def test_places_that_are_far_apart_take_more_than_one_gap_byte():
    delta = {"w": np.zeros(2000, np.float32)}
    delta["w"][[0, 255, 511, 1400]] = [127, -2, 3, 4]  # 254, 255 and 888 = 3 · 255 + 123 values between
    sent, _ = Sparse(share=0.002).encode(delta, memory={}, rng=np.random.default_rng(0))
    assert sent["gaps"].tolist() == [0, 254, 255, 0, 255, 255, 255, 123]
    assert Sparse().decode(sent, delta)["w"].tolist() == delta["w"].tolist()


def test_eight_bits_are_off_by_less_than_a_level_and_right_on_average():
    delta = {"w": np.float32([1.0, 0.30, -0.30, 0.0])}
    rng = np.random.default_rng(0)
    found = [EightBit().decode(EightBit().encode(delta, memory={}, rng=rng)[0], delta)["w"] for _ in range(2000)]
    assert np.abs(np.array(found) - delta["w"]).max() < 1 / 127
    assert np.mean(found, axis=0) == pytest.approx(delta["w"], abs=5e-4)


@pytest.mark.parametrize("name", CODECS)
def test_an_update_of_nothing_but_zeros_comes_back_as_that(name: str):
    nothing = {"w": np.zeros((3, 5), np.float32), "empty": np.zeros((0, 4), np.float32)}
    back, _ = there_and_back(CODECS[name], nothing)
    assert back["w"].tolist() == nothing["w"].tolist()
    assert back["empty"].shape == (0, 4)


@pytest.mark.parametrize(
    ("name", "most"), [("none", 1.01), ("topk", 0.021), ("8", 0.2505), ("1", 0.0317), ("sparse", 0.0059)]
)
def test_bytes_on_the_way_are_what_the_name_promises(name: str, most: float):
    delta = {"w": np.random.default_rng(0).normal(size=(1000, 110)).astype(np.float32)}
    sent, _ = CODECS[name].encode(delta, memory={}, rng=np.random.default_rng(0))
    assert len(tensors.pack(sent)) <= most * len(tensors.pack(delta))


@pytest.mark.parametrize("name", ["topk", "8", "1", "sparse"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_at_the_other_end(name: str, value: float):
    broken = {"w": np.full(8, value, np.float32)}
    sent, _ = CODECS[name].encode(broken, memory={}, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="not finite"):
        CODECS[name].decode(sent, broken)


LIKE: Arrays = {"w": np.zeros(8, np.float32)}
ONE = np.ones(1, np.float32)
GAP, LEVEL = np.zeros(1, np.uint8), np.ones(1, np.int8)


@pytest.mark.parametrize(
    ("codec", "sent", "reason"),
    [
        (TopK(), {"values": ONE}, "expected"),
        (TopK(), {"places": np.array([8], np.uint32), "values": ONE}, "below 8"),
        (TopK(), {"places": np.array([3, 3], np.uint32), "values": np.ones(2, np.float32)}, "ascend"),
        (TopK(), {"places": np.array([5, 3], np.uint32), "values": np.ones(2, np.float32)}, "ascend"),
        (TopK(), {"places": np.array([1, 2], np.uint32), "values": ONE}, "2 places and 1 values"),
        (TopK(), {"places": np.arange(9, dtype=np.uint32), "values": np.ones(9, np.float32)}, "9 places"),
        (TopK(), {"places": np.array([1], np.int64), "values": ONE}, "int64"),
        (TopK(), {"places": np.array([1], np.uint32), "values": ONE * np.nan}, "not finite"),
        (Sparse(), {"gaps": GAP, "scale": ONE}, "expected"),
        (Sparse(), {"gaps": GAP + 8, "scale": ONE, "values": LEVEL}, "below 8"),
        (Sparse(), {"gaps": GAP + 255, "scale": ONE, "values": LEVEL[:0]}, "leads nowhere"),
        (Sparse(), {"gaps": np.zeros(9, np.uint8), "scale": ONE, "values": np.ones(9, np.int8)}, "9 gaps"),
        (Sparse(), {"gaps": GAP, "scale": ONE, "values": np.ones(2, np.int8)}, "1 places and 2 values"),
        (Sparse(), {"gaps": GAP, "scale": -ONE, "values": LEVEL}, "negative"),
        (Sparse(), {"gaps": GAP, "scale": ONE * np.inf, "values": LEVEL}, "not finite"),
        (EightBit(), {"scales": ONE, "values": np.zeros(9, np.int8)}, r"int8\[9\], expected int8\[8\]"),
        (EightBit(), {"scales": -ONE, "values": np.zeros(8, np.int8)}, "negative"),
        (EightBit(), {"scales": ONE * np.inf, "values": np.zeros(8, np.int8)}, "not finite"),
        (OneBit(), {"scales": ONE, "bits": np.zeros(2, np.uint8)}, r"uint8\[2\], expected uint8\[1\]"),
        (OneBit(), {"scales": -ONE, "bits": np.zeros(1, np.uint8)}, "negative"),
        (OneBit(), {"scales": np.ones(2, np.float32), "bits": np.zeros(1, np.uint8)}, "float32"),
    ],
)
def test_what_no_board_can_have_made_is_refused_with_its_reason(codec: Codec, sent: Arrays, reason: str):
    with pytest.raises(ValueError, match=reason):
        codec.decode(sent, LIKE)
