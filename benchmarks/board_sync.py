"""What the sync of one board costs against a pool, in bytes and requests: a real service, a real `edgectl`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import synthetic
from cloud_aug import auth, publications
from cloud_aug.cloud import Cloud
from demo.shell import call, free_port
from edgewire.decoding import encode
from edgewire.encryption import OVERHEAD_BYTES
from edgewire.messages import EnrolmentFile


def measure(made: Cloud, folder: Path) -> dict[str, float]:
    """The first sync of a board with ten samples per gesture, and one after another directory was published."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    port, env = free_port(), {"EDGECTL_STATE": str(folder / "state"), "EDGECTL_THREADS": "1"}
    trust = made.trust()
    token = auth.make_enrolment_token(made, ("myo",), now=time.time(), valid_for_s=3600)
    file = EnrolmentFile(f"https://127.0.0.1:{port}", token, tuple(trust.authorities), tuple(trust.roots))
    (folder / "enrol.json").write_bytes(encode(file))
    x, y = synthetic.contributor(10_000_079, 70)
    np.savez(folder / "mine.npz", x=x, y=y)
    log = folder / "server.log"
    line = [sys.executable, "-m", "cloud_aug", "serve", "--bind", "127.0.0.1", "--port", str(port), "--access-log"]
    with log.open("wb") as output:
        process = subprocess.Popen([*line, "--data", str(made.settings.data)], stdout=output, stderr=output)
        try:
            while not re.search(r"serving https", log.read_text()):
                time.sleep(0.1)
            call("edgectl", "enroll", folder / "enrol.json", env=env)
            call("edgectl", "sync", env=env)  # brings the task, without which no sample can be added
            call("edgectl", "data", "add", folder / "mine.npz", env=env)
            shutil.rmtree(folder / "state" / "tasks" / "myo")
            (folder / "state" / "access.json").unlink(missing_ok=True)
            first = _one(env, log, made)
            _forget(folder / "state" / "tasks" / "myo", made)
            later = _one(env, log, made)
        finally:
            process.terminate()
            process.wait(timeout=30)
    return {
        "beyond_bytes": first["bytes"],
        "beyond_requests": first["requests"],
        "later_bytes": later["bytes"],
        "later_requests": later["requests"],
        "packs_fetched": first["packs"],
        "packs_fetched_bytes": first["packs_bytes"],
    }


def _forget(folder: Path, made: Cloud) -> None:
    """As if another directory with other packs had been published since for the same base."""
    base = publications.require(made, "myo").base
    for path in (folder / "blobs").iterdir():
        if path.name not in (base.weights.digest, base.onnx.digest):
            path.unlink()
    for name in ("retrieval.json", "manifest.etag"):
        (folder / name).unlink()


def _one(env: dict[str, str], log: Path, made: Cloud) -> dict[str, float]:
    before = log.read_text().count('"answered"')
    report: dict[str, Any] = call("edgectl", "sync", env=env)
    time.sleep(0.5)  # the log is written after the answer
    requests = log.read_text().count('"answered"') - before
    # as they travel: encrypted
    sizes = {ref.digest: ref.size + OVERHEAD_BYTES for ref in publications.require(made, "myo").packs}
    blobs = Path(env["EDGECTL_STATE"]) / "tasks" / "myo" / "blobs"
    packs = [sizes[path.name] for path in blobs.iterdir() if path.name in sizes]
    return {
        "bytes": report["bytes_down"] + report["bytes_up"] - sum(packs),
        "requests": requests - len(packs),
        "packs": len(packs),
        "packs_bytes": sum(packs),
    }
