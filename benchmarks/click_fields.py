"""Wide & Deep over the fields of a click log (Cheng et al., DLRS 2016): every value of every field has a row.

Wide: a weight per value; deep: the values' vectors, one
after the other, through two layers. Values are hashed into tables of bounded size.
"""

from __future__ import annotations

import csv
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgelearn.models.items import Table, two_logits

ROWS, DIM, WIDTH = 1 << 13, 8, 32
LEFT_OUT = ("id", "click", "hour")  # hour: there is only one in the sample
OWNER = "device_ip"


def read_clicks(*files: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x int64 (n, fields), places of the hashed values; y int64 (n,); owner: str (n,). The first file has a header,
    the others need not."""
    names: list[str] = []
    rows: list[dict[str, str]] = []
    for file in files:
        with file.open(newline="") as opened:
            lines = list(csv.reader(opened))
        names = names or lines[0]
        rows += [dict(zip(names, line, strict=True)) for line in lines if line[0] != names[0]]
    fields = [name for name in names if name not in LEFT_OUT]
    x = np.array([[zlib.crc32(f"{name}={row[name]}".encode()) % ROWS for name in fields] for row in rows], np.int64)
    return x, np.array([int(row["click"]) for row in rows]), np.array([row[OWNER] for row in rows])


class FieldsWideDeep(nn.Module):
    """x: as `read_clicks` makes it. Returns logits (batch, 2) and the last hidden layer."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.wide = Table(ROWS, 1, spread=0.0, decay=1e-3)
        self.vectors = Table(ROWS, DIM, spread=0.1, decay=1e-3)
        self.hidden = nn.Linear(fields * DIM, WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        wide = self.wide(x).sum(dim=1)  # (batch, 1)
        deep = self.last(self.hidden(self.vectors(x).flatten(1)).relu()).relu()  # (batch, width)
        return self.head(deep) + two_logits(wide), deep


def fields_wide_deep(fields: int, *, seed: int) -> nn.Module:
    """The same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FieldsWideDeep(fields)
