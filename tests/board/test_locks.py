"""What is installed on each board is what its profile pins; scripts/locks.py makes it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

import firmware_profiles
from scripts import locks

EACH = [(name, python) for name in firmware_profiles.ids() for python in firmware_profiles.facts(name)["python"]]
LINE = re.compile(r"([a-z0-9][a-z0-9-]*)==([0-9][0-9a-z.]*)( --hash=sha256:[0-9a-f]{64})+")


def parts(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """name -> version: of what every board needs, and of what training needs besides."""
    found: list[dict[str, str]] = []
    for half in text.split(f"{locks.TRAINING}\n"):
        lines = [LINE.fullmatch(line) for line in half.splitlines() if not line.startswith("#")]
        assert all(lines), "a line that pip would not check by digest"
        found.append({line[1]: line[2] for line in lines if line})
    base, training = found
    return base, training


@pytest.mark.parametrize(("name", "python"), EACH)
def test_a_lock_is_what_its_profile_pins(name: str, python: str) -> None:
    pins = firmware_profiles.facts(name)["pins"]
    base, training = parts(locks.path(name, python).read_text())
    assert {"numpy", "onnxruntime", "cryptography", "msgspec", "requests", "safetensors", "typer"} <= base.keys()
    assert ("tomli" in base) == (python == "3.10")
    assert base["typer"] < "0.29"
    assert base["onnxruntime"] == pins.get("onnxruntime", base["onnxruntime"])
    assert training.get("torch") == pins.get("torch")
    assert ("torch" not in training) == (pins.get("torch_from") == "image")
    assert "onnx" in training
    assert not {n for n in (*base, *training) if n.startswith(("nvidia-", "triton", "cuda-"))}
    assert not base.keys() & training.keys()


def test_there_is_no_lock_without_a_profile() -> None:
    assert {path.name for path in locks.LOCKS.iterdir()} == {locks.path(*one).name for one in EACH}


def answer(requirements: Sequence[str], constraints: Sequence[str], python: str) -> str:
    """As uv would: the constrained versions of what is asked for, and one that numpy would need."""
    pinned = dict(line.split("==") for line in constraints if "==" in line and ";" not in line)
    names = {re.split(r"[<>=!;\[ ]", line)[0] for line in requirements} | {"needed-by-numpy"}
    rows = [
        f'[[packages]]\nname = "{name}"\nversion = "{pinned.get(name, "1")}"\n'
        f'wheels = [{{ hashes = {{ sha256 = "{"a" * 64}" }} }}]\n'
        for name in names
    ]
    return "".join(rows)


def test_pins_and_the_two_parts_of_a_lock() -> None:
    profile = {"id": "mine", "pins": {"torch": "2.9.1", "onnxruntime": "1.22.0"}}
    base, training = parts(locks.lock(profile, "3.11", answer))
    assert (base["onnxruntime"], training["torch"]) == ("1.22.0", "2.9.1")
    assert training.keys() == {"torch", "onnx"}


def test_nvidias_torch_is_left_out_and_that_is_said() -> None:
    text = locks.lock({"id": "mine", "pins": {"torch_from": "image"}}, "3.10", answer)
    assert "torch is not locked" in text
    assert "torch" not in parts(text)[1]


def test_the_same_question_is_asked_once() -> None:
    asked: list[str] = []

    def ask(requirements: Sequence[str], constraints: Sequence[str], python: str) -> str:
        asked.append(python)
        return answer(requirements, constraints, python)

    once = locks.once(ask)
    assert once(["numpy"], [], "3.11") == once(["numpy"], [], "3.11")
    once(["numpy"], [], "3.13")
    assert asked == ["3.11", "3.13"]
