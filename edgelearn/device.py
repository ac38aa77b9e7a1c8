"""Where and on how many threads torch computes."""

from __future__ import annotations

import numpy as np
import torch


def use_threads(threads: int) -> None:
    """Fix what changes results or speed between runs: thread counts and the choice of kernels."""
    torch.set_num_threads(threads)
    # as use_deterministic_algorithms(True, warn_only=True), which imports torch's compiler at once (torch 2.13):
    # time and memory, of no use to who needs no optimizer of torch
    torch.set_deterministic_debug_mode("warn")


def what_computes(device: str) -> str:
    """What bits depend on besides the arithmetic asked for: the libraries' versions, the threads, the device."""
    return f"torch {torch.__version__}, numpy {np.__version__}, {torch.get_num_threads()} threads, {device}"


def pick_device(wanted: str) -> str:
    """'cpu' or 'cuda' for 'cpu', 'cuda' or 'auto'. Raises ValueError if cuda is asked for and not there."""
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ValueError("this torch sees no CUDA device")
    return "cuda" if there and wanted in ("auto", "cuda") else "cpu"
