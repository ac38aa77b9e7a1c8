"""What is known of each board type, as data: one TOML file per board, each value with its source.

Fields, all but `id`, `schema_version` and `provenance` optional; what is not known is left out, never guessed
(`schema.py` has the range of each):

    id, schema_version
    match           device_tree_model_prefix (list), part_number (list, as in the device tree's 'compatible'),
                    memory_mb (list); absent in `generic`, the fallback
    arch, isa, threads, cores (or a list: of the modules it is sold with), ram_mb (list: the sizes it is sold with;
                    shared between CPU and GPU)
    gpu             kind ("cuda" or "none"), sm
    power_modes     list of names as in /etc/nvpmodel.conf (their numbers differ between releases), default_mode
    throttle_c, soft_limit_c (where it slows a little, below throttle_c), shutdown_c
    power           source ("none", "pmic", "ina3221", "ina238"), total_rail, quality ("measured", "modelled", "none")
    idle_w, max_w
    python          list of the Python versions of its system images, or of its container, that edgectl runs on
    container       the image that edgectl runs in, where none of them is new enough
    providers       execution providers of onnxruntime, best first
    pins            torch, onnxruntime; torch_from = "image" where NVIDIA's build stays; index_url
    train           allow ("all", "head", "none"); batch_size: the most rows at once; max_rss_mb;
                    student_parameters: the largest model, in weights, that it trains whole (of a larger one the head)

`[provenance]`, the last table of the file, maps the dotted path of a value (or of a table, for all values in it) to its
`mark` and `source`: "v" read in the source or run; "s" one third-party source; "m" from memory, the source is where to
check it; "p" no fact but a policy of this project.

`locks/` has the versions and digests that are installed on each board and Python; `scripts/locks.py` makes them.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PROVENANCE = "\n[provenance]\n"


def ids() -> list[str]:
    """The profiles there are, sorted; `generic` fits any board."""
    return sorted(path.name.removesuffix(".toml") for path in files(__name__).iterdir() if path.name.endswith(".toml"))


def load(profile_id: str) -> dict[str, Any]:
    """The profile as plain data. Raises KeyError, naming the profiles there are, if there is none of that id."""
    return tomllib.loads(_text(profile_id))


def facts(profile_id: str) -> dict[str, Any]:
    """The same without provenance, which takes longer to parse than all the rest. Raises KeyError."""
    return tomllib.loads(_text(profile_id).partition(_PROVENANCE)[0])


def _text(profile_id: str) -> str:
    if profile_id not in ids():  # also keeps a path out of the file name
        raise KeyError(f"no profile {profile_id!r}; there are: {', '.join(ids())}")
    return files(__name__).joinpath(f"{profile_id}.toml").read_text(encoding="utf-8")
