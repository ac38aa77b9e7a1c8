"""Recipe `random`: train jointly on as many contributors as `matched` takes and `mpda` looks at, picked blindly. The
control that retrieval must beat: whatever it gains, any samples would."""

from __future__ import annotations

import numpy as np

from edgelearn.personalize.matched import train_on
from edgelearn.personalize.setting import Personal, Setting


def random(setting: Setting) -> Personal:
    by_name = sorted(setting.candidates, key=lambda candidate: candidate.name)
    count = min(setting.settings.matched, len(by_name))
    rows = np.random.default_rng((setting.seed, 7)).permutation(len(by_name))[:count]
    return train_on(setting, [by_name[row] for row in rows])
