"""Names for contributors in what others may read: the same within one pack, unrelated between packs, unguessable."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np


def pseudonyms(secret: bytes, scope: str, contributors: np.ndarray) -> np.ndarray:
    """A pseudonym per row, str (n,). scope: what they are valid for; the same secret and scope give the same names."""
    names, codes = np.unique(contributors, return_inverse=True)
    made = [f"c{_mac(secret, scope, str(name))}" for name in names]
    return np.asarray(made, np.str_)[codes.reshape(-1)] if made else np.asarray([], np.str_)


def _mac(secret: bytes, scope: str, name: str) -> str:
    return hmac.new(secret, f"{scope}\0{name}".encode(), hashlib.sha256).hexdigest()[:12]
