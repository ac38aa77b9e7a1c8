"""Recipe `nearest`: train jointly on the pool's samples nearest to the board's in the locally adapted embedding.

Fine-tuning first moves what the board cannot tell apart; what then still lies close to a sample of the board, and has
its label, resembles it in what matters there. Training on what is near: Bottou and Vapnik, "Local learning algorithms"
(1992); adapting the embedding first is ours.
"""

from __future__ import annotations

from edgelearn.models.build import load, outputs
from edgelearn.personalize.gathered import gather_samples, nearest_rows, train_on_rows
from edgelearn.personalize.joint import tune
from edgelearn.personalize.setting import Personal, Setting


def nearest(setting: Setting) -> Personal:
    adapted = tune(setting, setting.base)
    model = load(setting.task, adapted).to(setting.device)
    pool = gather_samples(setting.candidates)
    mine, theirs = outputs(model, setting.local.x)[1], outputs(model, pool.x)[1]
    rows = nearest_rows(mine, setting.local.y, theirs, pool.y, setting.settings.nearest)
    return train_on_rows(setting, adapted, pool, rows)
