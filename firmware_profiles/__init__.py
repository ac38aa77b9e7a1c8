"""What is known of each board type, as data: one TOML file per board, each value with its source.

Fields, all but `id`, `schema_version` and `provenance` optional; what is not known is left out, never guessed:

    id, schema_version
    match           device_tree_model_prefix, part_number (list), memory_mb (list); absent in `generic`, the fallback
    arch, isa, cores, threads, ram_mb (list: the sizes it is sold with; shared between CPU and GPU)
    gpu             kind ("cuda" or "none"), sm
    power_modes     list of names as in /etc/nvpmodel.conf (their numbers differ between releases), default_mode
    throttle_c, shutdown_c
    power           source ("none", "pmic", "ina3221"), total_rail, quality ("measured", "modelled", "none")
    idle_w, max_w
    python          list of the Python versions of its system images
    pins            torch, onnxruntime, index_url
    train           allow ("all", "head", "none"), batch_size, max_rss_mb

`[provenance]` maps the dotted path of a value (or of a table, for all values in it) to its `mark` and `source`:
"v" read in the source or run; "s" one third-party source; "m" from memory, the source is where to check it;
"p" no fact but a policy of this project.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def ids() -> list[str]:
    """The profiles there are, sorted; `generic` fits any board."""
    return sorted(path.name.removesuffix(".toml") for path in files(__name__).iterdir() if path.name.endswith(".toml"))


def load(profile_id: str) -> dict[str, Any]:
    """The profile as plain data. Raises KeyError, naming the profiles there are, if there is none of that id."""
    if profile_id not in ids():  # also keeps a path out of the file name
        raise KeyError(f"no profile {profile_id!r}; there are: {', '.join(ids())}")
    return tomllib.loads(files(__name__).joinpath(f"{profile_id}.toml").read_text(encoding="utf-8"))
