"""Recipe `random`: train jointly on as many contributors as `matched`, picked blindly. The control that retrieval
must beat."""

from __future__ import annotations

import numpy as np

from edgelearn.personalize.matched import train_on
from edgelearn.personalize.setting import Personal, Setting


def random(setting: Setting) -> Personal:
    by_name = sorted(setting.candidates, key=lambda candidate: candidate.name)
    count = min(setting.settings.matched, len(by_name))
    rows = np.random.default_rng((setting.seed, 7)).permutation(len(by_name))[:count]
    return train_on(setting, [by_name[row] for row in rows])
