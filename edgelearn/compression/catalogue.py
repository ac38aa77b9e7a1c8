"""The compressions by name."""

from __future__ import annotations

from edgelearn.compression.codec import Codec, Plain
from edgelearn.compression.eight_bit import EightBit
from edgelearn.compression.one_bit import OneBit
from edgelearn.compression.sparse import Sparse
from edgelearn.compression.topk import TopK

CODECS: dict[str, Codec] = {
    "none": Plain(),
    "topk": TopK(share=0.01),
    "dgc": TopK(share=0.01, momentum=0.9),
    "eight-bit": EightBit(),
    "one-bit": OneBit(),
    "sparse": Sparse(share=0.05),
}
# way of weights to boards -> codec
DOWN = {"none": "none", "eight-bit": "eight-bit", "changes": "sparse"}
