"""Samples that their owner lets go: only by consent, stripped of what the pool does not need."""

from __future__ import annotations

import secrets

import numpy as np

from edgectl.store import Store
from edgectl.store_samples import StoredSamples
from edgewire.samples import Samples, to_bytes
from edgewire.tasks import Task

CONSENT = "packs"
"""What is consented to: raw samples may enter packs for boards of the same task."""

_BATCH_BYTES = 4 << 20  # an upload that is cut off begins anew: a slow link must bring one up within one sync


def offer(store: Store, task: Task, *, group: str | None) -> StoredSamples:
    """The samples that were not shared yet; of one group, if it is named."""
    everything, known = store.samples(task), store.shared_ids(task.id)
    rows = np.asarray(
        [
            i
            for i in range(len(everything))
            if int(everything.ids[i]) not in known and group in (None, str(everything.samples.group[i]))
        ],
        np.int64,
    )
    return StoredSamples(
        everything.samples.take(rows),
        everything.ids[rows],
        [everything.digests[i] for i in rows],
        everything.added_at[rows],
    )


def queue(store: Store, task: Task, chosen: StoredSamples, *, until: float, now: float) -> list[str]:
    """Put samples into the outbox and mark them, both or neither. The upload ids: one per batch that fits a request."""
    size = max(1, _BATCH_BYTES // max(1, chosen.samples.x[:1].nbytes))
    upload_ids = []
    with store.transaction():
        for start in range(0, len(chosen), size):
            batch = chosen.samples.take(np.arange(start, min(start + size, len(chosen))))
            upload_ids.append(secrets.token_hex(16))
            params = {"consent": CONSENT, "until": until, "samples": len(batch)}
            store.queue(upload_ids[-1], "contribution", task.id, to_bytes(_stripped(batch), task.id), params, now)
        store.mark_shared([int(i) for i in chosen.ids], until, now)
    return upload_ids


def _stripped(samples: Samples) -> Samples:
    """The cloud knows the board from its token and gives it a pseudonym; nothing else says whose samples these are."""
    return samples.without_metadata(np.full(len(samples), "", np.str_))
