"""Many threads that decode a message for the first time at once: msgspec alone dies of it."""

from __future__ import annotations

import subprocess
import sys

_FIRST_AT_ONCE = """
import sys, threading
from dataclasses import make_dataclass
from typing import Annotated
from msgspec import Meta
from edgewire.decoding import convert, decode

sys.setswitchinterval(1e-6)
for number in range(300):
    inner = make_dataclass(f"Inner{number}", [("samples", Annotated[int, Meta(ge=1)])])
    outer = make_dataclass(f"Outer{number}", [("inner", inner), ("more", "tuple[str, ...]", ())])
    together, failed = threading.Barrier(4), []

    def read(place):
        together.wait()
        try:
            if place % 2:
                decode(outer, b'{"inner": {"samples": 3}}', what="message")
            else:
                convert(outer, {"inner": {"samples": 3}}, what="message")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=read, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
"""


def test_threads_that_meet_a_message_for_the_first_time_together_all_read_it() -> None:
    done = subprocess.run([sys.executable, "-c", _FIRST_AT_ONCE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
