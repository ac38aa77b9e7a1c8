"""Recipe `local`: fine-tune the base model on the board's own samples only."""

from __future__ import annotations

from edgelearn.personalize.joint import train_jointly
from edgelearn.personalize.setting import Personal, Setting


def local(setting: Setting) -> Personal:
    return Personal(train_jointly(setting, setting.base, ()))
