"""Recipe `augmented`: local training on samples that are changed a little at every step (edgelearn.augment has what,
and after whom).

The same as `local` where no change of samples was found to help on a board: tables, and the head alone.
"""

from __future__ import annotations

from edgelearn.personalize.joint import tune
from edgelearn.personalize.setting import Personal, Setting


def augmented(setting: Setting) -> Personal:
    return Personal(tune(setting, setting.base, augmented=True))
