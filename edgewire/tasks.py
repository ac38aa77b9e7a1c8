"""What to learn: input schema, labels, model, metric and privacy policy. The cloud signs it, boards read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

TaskId = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Mode = Literal["directory", "embedding", "bits"]
ModelName = Literal["mlp", "cnn1d", "cnn2d", "lenet5", "audio", "din", "dssm", "wide_deep"]
Dtype = Literal["float32", "uint8", "int8", "int16", "int32"]
Metric = Literal["accuracy", "auc"]  # auc: how well the samples of one board are ranked, for two labels

MAX_VALUES_PER_SAMPLE = 1 << 20
AUDIO_RATES_HZ = (4000, 48000)  # what the log-mel front of model `audio` is made for
LENET5_EMBEDDING = 84  # its layer F6
CLICK_MODELS = ("din", "dssm", "wide_deep")


@dataclass(frozen=True)
class Windows:
    """How a recording (a WAV file, a sensor's time series) becomes samples: windows of shape[0] steps, at rate_hz.

    hop: steps from the start of one window to the start of the next; scale: what a sensor's values are multiplied by.
    """

    rate_hz: Annotated[float, Meta(gt=0, le=384_000)]
    hop: Annotated[int, Meta(ge=1, le=1 << 20)]
    scale: Annotated[float, Meta(gt=0, le=1e9)] = 1.0


@dataclass(frozen=True)
class InputSchema:
    """One sample. shape: without the batch axis; missing: whether NaN is allowed and means "not measured"; windows:
    for tasks whose samples are cut from recordings; items: for tasks whose samples are item ids, how many there
    are; ring: the channels are sensors of one kind in a circle (an armband), which may be worn turned: for `cnn1d`
    (all three are left out of the JSON where they are not set).

    A click sample is a candidate item (1..items) and the history of items liked before it, the most recent first,
    filled up with 0 (no item): int32 (1 + length,).
    """

    shape: Annotated[tuple[Annotated[int, Meta(ge=1, le=1 << 20)], ...], Meta(min_length=1, max_length=3)]
    dtype: Dtype = "float32"
    missing: bool = False
    windows: Windows | UnsetType = UNSET
    items: Annotated[int, Meta(ge=1, le=1 << 20)] | UnsetType = UNSET
    ring: bool | UnsetType = UNSET

    @property
    def values(self) -> int:
        """Numbers per sample."""
        count = 1
        for axis in self.shape:
            count *= axis
        return count


@dataclass(frozen=True)
class ModelSpec:
    """Architecture: `mlp` for (features,), `cnn1d` for (time, channels), `cnn2d` and `lenet5` for (height, width[,
    colours]), `audio` for (samples,) or (samples, 1), `din`, `dssm` and `wide_deep` for item ids (1 + history,).
    `lenet5` has widths of its own."""

    name: ModelName
    width: Annotated[int, Meta(ge=4, le=1024)] = 32
    embedding: Annotated[int, Meta(ge=4, le=512)] = 64


@dataclass(frozen=True)
class Privacy:
    """What a board may reveal, and how few contributors a cohort may have.

    modes: retrieval modes a board may use, the first is the default.
    epsilon: cost of asking for one cohort by randomized response (never spent where all packs are fetched), or of one
    answer in mode `bits`, all its bits together.
    epsilon_budget: what a board may spend on this task in all.
    rounds: whether boards whose owners want it may send updates of the base model's weights (federated rounds); rows:
    whether they may also tell which rows of its tables their samples touch, so which items they have samples of; both
    left out of the JSON where they are not set.
    """

    modes: Annotated[tuple[Mode, ...], Meta(min_length=1, max_length=3)] = ("directory",)
    epsilon: Annotated[float, Meta(gt=0, le=4096)] = 8.0
    epsilon_budget: Annotated[float, Meta(gt=0, le=65536)] = 16.0
    fetch_all_below_bytes: Annotated[int, Meta(ge=0)] = 16 << 20
    min_cohort: Annotated[int, Meta(ge=2, le=1000)] = 3
    reports: bool = True
    rounds: bool | UnsetType = UNSET
    rows: bool | UnsetType = UNSET


@dataclass(frozen=True)
class Needs:
    """What a board must have for a task; a board that lacks it leaves the task alone, and says so.

    memory_mib: that it may use in all; disk_mib: free when the task arrives; profiles: names of profiles, with * and ?
    (none: any); training: whether it must be able to train.
    """

    memory_mib: Annotated[int, Meta(ge=0, le=1 << 24)] = 0
    disk_mib: Annotated[int, Meta(ge=0, le=1 << 24)] = 0
    profiles: Annotated[tuple[Annotated[str, Meta(max_length=63)], ...], Meta(max_length=32)] = ()
    training: bool = False


@dataclass(frozen=True)
class Trigger:
    """When a board trains by itself, if its own limits (heat, idleness, budget) allow it.

    first: labelled samples before the first training; new_share: new samples since the last one, as a share of what it
    had; every_hours: that long after the last one any new sample is enough (0: never); drift: whether a rise of the
    errors is.
    """

    first: Annotated[int, Meta(ge=1, le=1 << 20)] = 1
    new_share: Annotated[float, Meta(gt=0, le=100)] = 0.1
    every_hours: Annotated[float, Meta(ge=0, le=24 * 366)] = 0.0
    drift: bool = True


@dataclass(frozen=True)
class Task:
    """A task as published. Labels are an ordered list of names; a sample's `y` is an index into it. needs, trigger:
    left out of the JSON where they are not set; then any board will do, and a trigger's defaults hold."""

    id: TaskId
    title: Annotated[str, Meta(min_length=1, max_length=200)]
    input: InputSchema
    labels: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(min_length=2, max_length=1000)
    ]
    model: ModelSpec
    metric: Metric = "accuracy"
    privacy: Privacy = field(default_factory=Privacy)
    needs: Needs | UnsetType = UNSET
    trigger: Trigger | UnsetType = UNSET

    def problems(self) -> list[str]:
        """What the field types cannot say; empty when the task is sound."""
        axes = _AXES.get(self.model.name, (1,))
        found = []
        if len(self.input.shape) not in axes:
            found.append(f"model '{self.model.name}' cannot take samples of shape {list(self.input.shape)}")
        if len(set(self.labels)) != len(self.labels):
            found.append("labels repeat")
        if self.metric == "auc" and len(self.labels) != 2:
            found.append(f"metric 'auc' ranks two labels, the task has {len(self.labels)}")
        if self.input.ring is True and self.model.name != "cnn1d":
            found.append(f"input.ring is for model 'cnn1d', not '{self.model.name}'")
        if self.input.values > MAX_VALUES_PER_SAMPLE:
            found.append(f"a sample has {self.input.values} values, the limit is {MAX_VALUES_PER_SAMPLE}")
        if self.input.missing and self.input.dtype != "float32":
            found.append("only float32 samples can have missing values")
        if len(set(self.privacy.modes)) != len(self.privacy.modes):
            found.append("privacy.modes repeat")
        found += _item_problems(self)
        if len(self.input.shape) in axes:
            found += {"lenet5": _lenet5_problems, "audio": _audio_problems}.get(self.model.name, _no_problems)(self)
        return found


_AXES = {"cnn1d": (2,), "cnn2d": (2, 3), "lenet5": (2, 3), "audio": (1, 2)}  # of a sample; else one


def _item_problems(task: Task) -> list[str]:
    schema, name = task.input, task.model.name
    clicks = name in CLICK_MODELS
    found = []
    if clicks != (schema.items is not UNSET) or clicks != (schema.dtype == "int32"):
        found.append(f"int32 and input.items go with the models {', '.join(CLICK_MODELS)}, and with no other: '{name}'")
    if clicks and schema.values < 2:
        found.append(f"model '{name}' needs a history: samples of shape [2] or longer")
    if clicks and len(task.labels) != 2:
        found.append(f"model '{name}' tells two labels apart, the task has {len(task.labels)}")
    return found


def _no_problems(_: Task) -> list[str]:
    return []


def _lenet5_problems(task: Task) -> list[str]:
    found = []
    if min(task.input.shape[:2]) < 12:
        found.append("model 'lenet5' takes images of at least 12 by 12")
    if task.model.embedding != LENET5_EMBEDDING:
        found.append(f"the embedding of model 'lenet5' has {LENET5_EMBEDDING} values: set model.embedding to that")
    return found


def _audio_problems(task: Task) -> list[str]:
    schema, (low, high) = task.input, AUDIO_RATES_HZ
    if schema.shape[1:] not in ((), (1,)):
        return [f"model 'audio' takes one channel, not {schema.shape[1]}"]
    if schema.dtype not in ("int16", "float32") or schema.missing:
        return ["model 'audio' takes int16 or float32 samples without missing values"]
    if not isinstance(schema.windows, Windows):
        return ["model 'audio' needs input.windows: the rate and hop of the recordings"]
    rate = schema.windows.rate_hz
    if not (low <= rate <= high and rate == int(rate)):
        return [f"model 'audio' takes whole rates from {low} to {high} Hz, not {rate}"]
    return [] if schema.shape[0] >= rate / 10 else ["model 'audio' needs windows of at least a tenth of a second"]
