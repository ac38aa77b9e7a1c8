"""Raw columns -> what a task asks for: its dtype, indices of its labels, names and times."""

from __future__ import annotations

import math

import numpy as np

from edgewire.errors import InvalidSamples
from edgewire.samples import UNLABELLED
from edgewire.tasks import InputSchema, Task


def values(x: np.ndarray, schema: InputSchema) -> np.ndarray:
    """x in the task's dtype, if every value survives the change."""
    if x.shape[1:] != schema.shape and math.prod(x.shape[1:]) == schema.values and x.ndim == 2:
        x = x.reshape(len(x), *schema.shape)  # a CSV row holds an image or a window flat
    if str(x.dtype) == schema.dtype:
        return x
    if x.dtype.kind not in "biuf":
        raise InvalidSamples(f"x is {x.dtype}, expected numbers")
    if schema.dtype == "float32":
        # errstate: what does not fit float32 becomes infinite and is refused with its row by the check that follows
        with np.errstate(over="ignore", invalid="ignore"):
            return x.astype(np.float32)
    with np.errstate(invalid="ignore"):
        cast = x.astype(schema.dtype)
    if not np.array_equal(cast, x):
        raise InvalidSamples(f"x is {x.dtype} with values that {schema.dtype} cannot hold")
    return cast


def label_indices(y: np.ndarray | None, n: int, task: Task, *, labelled: bool) -> np.ndarray:
    """int64 (n,), UNLABELLED where nothing is said and nothing has to be. Raises InvalidSamples for unknown labels."""
    if y is None:
        if labelled:
            raise InvalidSamples("there is no column 'y'", hint="samples to learn from need labels")
        return np.full(n, UNLABELLED, np.int64)
    index = {name: i for i, name in enumerate(task.labels)}
    names, place = label_names(y)
    unknown = sorted({name for name in names if name not in index and not (name == "" and not labelled)})
    if unknown:
        shown = ", ".join(repr(name) for name in unknown[:5])
        raise InvalidSamples(f"unknown label {shown}", hint=f"task '{task.id}' has {', '.join(task.labels[:20])}")
    return np.asarray([index.get(name, UNLABELLED) for name in names], np.int64).take(place)


def label_names(y: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The names that a column of labels holds, each once, and which of them every row has (n,)."""
    values, place = np.unique(decoded(y) if y.dtype.kind == "S" else y, return_inverse=True)
    return [_label_text(value) for value in values.tolist()], place.reshape(-1)


def _label_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def text(column: np.ndarray | None) -> np.ndarray | None:
    """Names of users or recordings. Raises InvalidSamples for a long one."""
    if column is None:
        return None
    names = decoded(column)
    if names.size and np.char.str_len(names).max() > 200:
        raise InvalidSamples("a name in 'user' or 'group' is longer than 200 characters")
    return names


def decoded(column: np.ndarray) -> np.ndarray:
    """A column as text."""
    try:
        return column.astype(np.str_)
    except UnicodeDecodeError:
        raise InvalidSamples("a name is in bytes that are not ASCII", hint="store names as text") from None


def times(column: np.ndarray | None) -> np.ndarray | None:
    """Seconds since 1970, float64; NaN where a cell is empty."""
    if column is None:
        return None
    try:
        if column.dtype.kind == "U":
            column = np.where(column == "", "nan", column)
        seconds = column.astype(np.float64)
    except ValueError:
        raise InvalidSamples("'time' holds something that is not seconds since 1970") from None
    if np.isinf(seconds).any():
        raise InvalidSamples("'time' holds something that is not seconds since 1970")
    return seconds
