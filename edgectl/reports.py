"""What a board tells about a run: numbers of an enumerated schema, never samples, weights or free text."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from edgectl.store import Store
from edgewire.decoding import convert, encode
from edgewire.messages import Manifest, Report

if TYPE_CHECKING:
    from edgectl.retraining import Outcome


def queue(store: Store, manifest: Manifest, outcome: Outcome, *, now: float) -> str:
    """Put the report of a finished run into the outbox; its upload id."""
    fields: dict[str, Any] = {
        "upload_id": secrets.token_hex(16),
        "task": outcome.task,
        "base": manifest.base.onnx.digest,
        "mode": outcome.mode,
        "requested": outcome.requested,
        "shipped": outcome.shipped,
        "samples": outcome.local_samples,
        "candidates": outcome.candidates,
        "kept": outcome.kept,
        "gain": outcome.gain,
        "seconds": outcome.seconds,
    }
    report = convert(Report, fields, what="report")
    store.queue(report.upload_id, "report", outcome.task, encode(report), {}, now)
    return report.upload_id
