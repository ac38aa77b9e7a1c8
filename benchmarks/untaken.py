"""What was measured for base training and not taken (docs/decisions/0004-base-training.md), to be measured again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.protocols import Fold
from edgelearn.augment import augmentation
from edgelearn.examples import make
from edgelearn.fit import FitSettings, Source, fit
from edgelearn.models.build import Weights, build, fit_front, get_weights, load, set_weights
from edgelearn.pretrain import BATCH_SIZE, LEARNING_RATE, train_base

TEACHERS, WIDER, TEMPERATURE, TAUGHT_SHARE = 2, 2, 3.0, 0.7
ROUNDS, SHOTS, INNER_STEPS, QUERY, OUTER_RATE = 300, 3, 10, 64, 3e-4


def taught(fold: Fold) -> Weights:
    """A student of the task's size and an ensemble of wider teachers, who see the same augmented samples (Hinton,
    Vinyals and Dean, 2015; Beyer et al., 2022)."""
    wide = replace(fold.task, model=replace(fold.task.model, width=WIDER * fold.task.model.width))
    teachers = [
        load(wide, train_base(wide, fold.x, fold.y, fold.user, seed=7 + i, epochs=fold.epochs)).eval()
        for i in range(TEACHERS)
    ]
    student = build(fold.task, seed=0)
    fit_front(student, fold.x)
    augment = augmentation(fold.task, student)
    steps = fold.epochs * math.ceil(len(fold.y) / BATCH_SIZE)
    optimizer = torch.optim.Adam(student.parameters(), weight_decay=1e-4)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = np.random.default_rng((0, step)).integers(len(fold.y), size=BATCH_SIZE)
        x, y = torch.from_numpy(fold.x[rows]), torch.from_numpy(fold.y[rows])
        x = x if augment is None else augment(x, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        _distil(student, teachers, x, y).backward()
        optimizer.step()
    return get_weights(student)


def _distil(student: nn.Module, teachers: list[nn.Module], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        opinion = torch.stack([teacher(x)[0] for teacher in teachers]).mean(0) / TEMPERATURE  # (batch, classes)
    logits = student(x)[0]
    soft = F.kl_div(
        F.log_softmax(logits / TEMPERATURE, 1), F.log_softmax(opinion, 1), reduction="batchmean", log_target=True
    )
    hard = F.cross_entropy(logits, y, label_smoothing=0.1)
    return (1 - TAUGHT_SHARE) * hard + TAUGHT_SHARE * TEMPERATURE**2 * soft


def maml(fold: Fold) -> Weights:
    """First-order MAML (Finn, Abbeel and Levine, 2017) after ordinary training; every contributor is one of its
    tasks."""
    model = load(fold.task, train_base(fold.task, fold.x, fold.y, fold.user, seed=0, epochs=fold.epochs))
    outer = torch.optim.Adam(model.parameters(), lr=OUTER_RATE)
    adapted = build(fold.task)
    rows_of = [np.flatnonzero(fold.user == person) for person in np.unique(fold.user)]
    for number in range(ROUNDS):
        rng = np.random.default_rng((0, number, 2))
        rows = rng.permutation(rows_of[rng.integers(len(rows_of))])
        support = np.concatenate([rows[fold.y[rows] == label][:SHOTS] for label in np.unique(fold.y[rows])])
        query = rows[~np.isin(rows, support)][:QUERY]
        if len(query) >= 8:
            set_weights(adapted, get_weights(model))
            source = Source(make(fold.x[support], fold.y[support]))
            for _ in fit(adapted, source, FitSettings(INNER_STEPS, cosine=False), seed=number):
                pass
            loss = F.cross_entropy(adapted(torch.from_numpy(fold.x[query]))[0], torch.from_numpy(fold.y[query]))
            gradients = torch.autograd.grad(loss, list(adapted.parameters()))
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            outer.step()
    return get_weights(model)
