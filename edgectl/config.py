"""Settings of a board, and where each came from: flag > EDGECTL_* > user's file > /etc/edgectl > profile > default.

The keys are few, typed and fixed; an unknown one is refused, because a misspelt setting that is silently ignored costs
a visit to the board.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgectl.home import default_root
from edgewire.errors import CorruptFile, UsageError
from edgewire.files import write_atomic

Value = str | int | float | bool


@dataclass(frozen=True)
class Key:
    """One setting. read: text -> value, or ValueError that says what is expected; default None: decided elsewhere."""

    name: str
    read: Callable[[str], Value]
    default: Value | None
    help: str

    @property
    def variable(self) -> str:
        return "EDGECTL_" + self.name.upper()


def _text(text: str) -> str:
    if not text or len(text) > 4096:
        raise ValueError("some text")
    return text


def _path(text: str) -> str:
    return _text(text)


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return read


def _listed(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not text or not set(text.split(",")) <= set(choices):
            raise ValueError(f"names among {', '.join(choices)}, with commas between them")
        return text

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not re.fullmatch(r"\d{1,9}(\.\d{0,9})?", text) or not low <= float(text) <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(text)

    return read


def _yes_or_no(text: str) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if text.lower() not in known:
        raise ValueError("true or false")
    return known[text.lower()]


PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider")

KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        Key("state", _path, None, "folder of keys, samples and models"),
        Key("task", _text, None, "task that commands are about where --task is not given"),
        Key(
            "mode",
            _one_of("directory", "embedding", "bits"),
            None,
            "how to search the pool, among what the task allows",
        ),
        Key("device", _one_of("auto", "cpu", "cuda"), "auto", "where to train"),
        Key("threads", _whole(0, 1024), 0, "threads for training and inference; 0: as many as there are cores"),
        Key(
            "providers",
            _listed(*PROVIDERS),
            "CUDAExecutionProvider,CPUExecutionProvider",
            "what onnxruntime runs on where device is auto: the first that is there",
        ),
        Key("profile", _text, None, "board profile, instead of the detected one"),
        Key("fleet_inventory", _path, None, "inventory of `edgectl fleet` where -i is not given"),
        Key("name", _text, None, "name under which the board enrolls, instead of its host name"),
        Key("sync_seconds", _whole(1, 86400), 600, "seconds that one sync may take, without a round's turn"),
        Key("train_seconds", _whole(0, 604800), 0, "seconds that one training may take in all; 0: no limit"),
        Key(
            "train_joules",
            _whole(0, 100_000_000),
            0,
            "energy that one training may take, of the whole board; 0: no limit",
        ),
        Key(
            "train_temp_c",
            _whole(0, 120),
            0,
            "temperature in °C that training may not pass; 0: what the board says, if any",
        ),
        Key("train_memory_mib", _whole(0, 1 << 20), 0, "memory that training may take; 0: what the machine has free"),
        Key("train_scope", _one_of("all", "head", "none"), "all", "how much of a model may be trained here"),
        Key(
            "train_batch_rows",
            _whole(0, 4096),
            0,
            "the most rows of a batch that pass through the model at once; 0: all",
        ),
        Key(
            "train_whole_parameters",
            _whole(0, 10**9),
            0,
            "the largest model, in weights, that is trained whole, of a larger one the head; 0: any",
        ),
        Key(
            "samples_most",
            _whole(0, 10**9),
            0,
            "samples that a task keeps on this board; beyond it the oldest of the commonest label go; 0: any",
        ),
        Key("samples_days", _whole(0, 36500), 0, "days that samples stay on this board; 0: for ever"),
        Key("reports", _yes_or_no, True, "tell the cloud how runs ended (numbers only; never samples or weights)"),
        Key(
            "rounds",
            _yes_or_no,
            False,
            "take part in federated rounds: what training changed in shared weights leaves the board, never a sample",
        ),
        Key(
            "rounds_rows",
            _yes_or_no,
            False,
            "tell the cloud which items this board has samples of, where a round sends only what belongs to them",
        ),
        Key(
            "rounds_noise",
            _number(0, 1000),
            0.0,
            "least noise of its own, over twice the clip, with which an update of a round leaves this board; 0: any",
        ),
        Key(
            "telemetry_share",
            _yes_or_no,
            False,
            "tell the cloud this board's heat, power, load and memory when syncing, and the energy of its rounds",
        ),
        Key("telemetry_log_mib", _whole(1, 1024), 8, "disk that `edgectl telemetry log` may take"),
        Key(
            "agent_watch_folder",
            _path,
            None,
            "folder whose new files `edgectl agent` adds; else inbox/ in the state folder",
        ),
        Key(
            "agent_watch_seconds",
            _whole(1, 3600),
            10,
            "seconds between two looks into that folder; what did not change from one to the next is added",
        ),
        Key("agent_sync_seconds", _whole(0, 604800), 3600, "seconds from one sync of the agent to the next; 0: none"),
        Key(
            "agent_train_seconds",
            _whole(0, 604800),
            3600,
            "seconds from one time that the agent asks whether training pays to the next; 0: it never trains",
        ),
        Key(
            "agent_idle_percent",
            _whole(0, 100),
            50,
            "the agent trains while others use less of the processor than that",
        ),
        Key(
            "agent_health_seconds",
            _whole(10, 86400),
            300,
            "seconds between two looks of the agent at heat, power and disk",
        ),
        Key(
            "agent_rounds_seconds",
            _whole(0, 604800),
            30,
            "seconds after which the agent asks for a round again, later if the cloud says so; 0: never",
        ),
        Key("proxy", _yes_or_no, False, "reach the cloud through the proxy that the environment names"),
    )
}


@dataclass(frozen=True)
class Setting:
    """origin: the flag, variable or file that set it, or 'profile' or 'default'."""

    value: Value | None
    origin: str


@dataclass(frozen=True)
class Places:
    """Where settings come from; tests bring their own. etc: the system's folder, user_file: the user's file."""

    environ: Mapping[str, str]
    etc: Path
    user_file: Path
    superuser: bool

    @property
    def profiles(self) -> tuple[Path, ...]:
        """The folders where a user's and a site's own profiles may lie; what is in the first counts."""
        return self.user_file.parent / "profiles", self.etc / "profiles"

    @classmethod
    def of_this_process(cls) -> Places:
        base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
        user = base if base.is_absolute() else Path(os.environ.get("HOME") or "/root") / ".config"
        return cls(os.environ, Path("/etc/edgectl"), user / "edgectl" / "config.toml", os.geteuid() == 0)


class Settings:
    """All settings, resolved once. `get` is for code, `settings` for `config list`."""

    def __init__(self, settings: dict[str, Setting]) -> None:
        self.settings = settings

    def text(self, name: str) -> str | None:
        value = self.settings[name].value
        return None if value is None else str(value)

    def whole(self, name: str) -> int:
        return int(self.settings[name].value or 0)

    def number(self, name: str) -> float:
        return float(self.settings[name].value or 0.0)

    def flag(self, name: str) -> bool:
        return bool(self.settings[name].value)

    @property
    def state(self) -> Path:
        return Path(str(self.settings["state"].value)).expanduser()

    def override(self, **flags: Value | None) -> Settings:
        """With flags of a command on top; None means that a flag was not given."""
        given = {name: _checked(name, value, f"--{name}") for name, value in flags.items() if value is not None}
        return Settings({**self.settings, **given})

    def below(self, origin: str, values: Mapping[str, Value]) -> Settings:
        """With values that count only where nothing but a default is set: what a profile recommends."""
        return Settings(
            {
                name: Setting(values[name], origin) if name in values and setting.origin == "default" else setting
                for name, setting in self.settings.items()
            }
        )


def load(places: Places) -> Settings:
    """Resolve every key but for flags and profile. Raises UsageError or CorruptFile, naming the file or variable."""
    found = {name: Setting(key.default, "default") for name, key in KEYS.items()}
    found["state"] = Setting(str(default_root(places.environ, superuser=places.superuser)), "default")
    for path in _files(places):
        for name, value in read_file(path).items():
            found[name] = _checked(name, value, str(path))
    for name, key in KEYS.items():
        if text := places.environ.get(key.variable):
            found[name] = _checked(name, text, key.variable)
    return Settings(found)


def _files(places: Places) -> list[Path]:
    """Lowest precedence first; conf.d in the order of names, over the file beside it."""
    parts = sorted((places.etc / "conf.d").glob("*.toml"))
    return [path for path in (places.etc / "edgectl.toml", *parts, places.user_file) if path.is_file()]


def read_file(path: Path) -> dict[str, Value]:
    """The settings in one file. Raises CorruptFile if it is not TOML, UsageError for an unknown key."""
    parse, failure = _toml()
    try:
        values: dict[str, Any] = parse(path.read_text(encoding="utf-8"))
    except (failure, UnicodeDecodeError) as error:
        raise CorruptFile(f"{path} is not TOML: {error}", hint="correct it or move it away") from None
    for name in values:
        known(name, where=str(path))
    return values


def _toml() -> tuple[Callable[[str], dict[str, Any]], type[ValueError]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads, tomllib.TOMLDecodeError


def known(name: str, *, where: str = "") -> Key:
    """The key of that name, or UsageError."""
    if name not in KEYS:
        place = f" in {where}" if where else ""
        raise UsageError(f"unknown setting '{name}'{place}", hint=f"there are: {', '.join(KEYS)}")
    return KEYS[name]


def _checked(name: str, value: object, origin: str) -> Setting:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        return Setting(KEYS[name].read(text), origin)
    except ValueError as error:
        raise UsageError(f"{origin}: '{name}' is '{text}', expected {error}") from None


def set_in_file(path: Path, name: str, text: str) -> bool:
    """Write one setting, keeping comments and order; whether anything changed. A path is written as it is from any
    folder."""
    value = _checked(known(name).name, text, name).value
    if known(name).read is _path and text != "-":
        value = str(Path(text).expanduser().absolute())
    if path.is_file() and read_file(path).get(name) == value:
        return False
    _edit(path, lambda document: document.__setitem__(name, value))
    return True


def unset_in_file(path: Path, name: str) -> bool:
    """Remove one setting; whether it was there."""
    known(name)
    if not path.is_file() or name not in read_file(path):
        return False
    _edit(path, lambda document: document.__delitem__(name))
    return True


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    import tomlkit

    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.is_file() else tomlkit.document()
    change(document)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, tomlkit.dumps(document).encode())
