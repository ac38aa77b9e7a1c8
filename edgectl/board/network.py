"""How this board reaches the world: the kind of the interface that has the default route."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["ethernet", "wifi", "mobile", "unknown"]
_MOBILE = ("wwan", "wwp", "ppp", "rmnet")


def kind(root: Path = Path("/")) -> Kind:
    """'unknown' where nothing tells. root: of the file system to look at."""
    name = _default_interface(root)
    if name is None:
        return "unknown"
    if name.startswith(_MOBILE):
        return "mobile"
    device = root / "sys/class/net" / name
    if (device / "wireless").is_dir() or (device / "phy80211").exists():
        return "wifi"
    return "ethernet" if (device / "device").exists() or name.startswith(("eth", "en")) else "unknown"


def _default_interface(root: Path) -> str | None:
    try:
        lines = (root / "proc/net/route").read_text(encoding="ascii").splitlines()[1:]
    except (OSError, UnicodeDecodeError):
        return None
    fields = [line.split() for line in lines]
    found = [row[0] for row in fields if len(row) > 7 and row[1] == row[7] == "00000000"]
    return found[0] if found and "/" not in found[0] else None
