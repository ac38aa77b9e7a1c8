"""Where and on how many threads torch computes."""

from __future__ import annotations

import torch


def use_threads(threads: int) -> None:
    """Fix what changes results or speed between runs: thread counts and the choice of kernels."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)


def pick_device(wanted: str) -> str:
    """'cpu' or 'cuda' for 'cpu', 'cuda' or 'auto'. Raises ValueError if cuda is asked for and not there."""
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ValueError("this torch sees no CUDA device")
    return "cuda" if there and wanted in ("auto", "cuda") else "cpu"
