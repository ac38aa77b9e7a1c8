"""Recipe `retrieved`: train jointly on the pool's samples nearest to the board's in the base's embedding.

In mode `embedding` the cloud's faiss index has found them, and the candidates are its answer; in mode `directory` the
board looks through the packs it has. The distance is the same; the cloud's answer has at most a fifth from one
contributor, and no sample twice. Training on what is near: Bottou and Vapnik, "Local learning algorithms" (1992).
"""

from __future__ import annotations

from edgelearn.personalize.gathered import gather_samples, nearest_rows, train_on_rows
from edgelearn.personalize.setting import Personal, Setting


def retrieved(setting: Setting) -> Personal:
    pool = gather_samples(setting.candidates)
    mine = setting.local_outputs[1]
    rows = nearest_rows(mine, setting.local.y, pool.embedding, pool.y, setting.settings.nearest)
    return train_on_rows(setting, setting.base, pool, rows)
