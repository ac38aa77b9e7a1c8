"""Recipe `base`: the shared model as it is. It never harms, and every other recipe is measured against it."""

from __future__ import annotations

from edgelearn.personalize.setting import Personal, Setting


def base(setting: Setting) -> Personal:
    return Personal(setting.base)
