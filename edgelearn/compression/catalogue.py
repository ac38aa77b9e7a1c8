"""The compressions by name."""

from __future__ import annotations

from edgelearn.compression.codec import Codec, Plain
from edgelearn.compression.eight_bit import EightBit
from edgelearn.compression.one_bit import OneBit
from edgelearn.compression.topk import TopK

CODECS: dict[str, Codec] = {
    "none": Plain(),
    "topk": TopK(share=0.01),
    "eight-bit": EightBit(),
    "one-bit": OneBit(),
}
