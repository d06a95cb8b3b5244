"""A small task, its signature and a batch of noise, to try things on."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
import torch

from tsdistill.data.covariates import Covariates
from tsdistill.data.panel import Item, Panel
from tsdistill.data.split import Split
from tsdistill.data.task import Batch, Signature, Task

CONTEXT, HORIZON, CHANNELS, BATCH = 47, 11, 3, 5
"""Sizes of the toy task: distinct primes, so that no swapped axis passes unseen."""

COVARIATES = Covariates(
    calendar=("time-of-day", "time-of-week"), holidays=("2013-12-25",), future=("price", "plan"), past=("sun", "rain")
)
"""What a forecaster that takes covariates sees besides: seven features of the future and two of the past."""


def toy_panel(*, n_rows: int = 499, seed: int = 0) -> Panel:
    """Three noisy hourly waves with a daily cycle, far from zero mean and unit scale, the same for a seed.

    Example:
        >>> toy_panel().channels
        ('load', 'wind', 'price')
    """
    random = np.random.default_rng(seed)
    steps = np.arange(n_rows)[:, None]
    waves = np.sin(2 * np.pi * (steps / np.array([24, 24, 12]) + random.random(CHANNELS)))
    drift = np.cumsum(random.standard_normal((n_rows, CHANNELS)), axis=0) * 0.02
    values = (waves + drift + 0.2 * random.standard_normal((n_rows, CHANNELS))) * [3, 0.5, 20] + [50, 2, -7]
    return Panel((Item("toy", None, values),), channels=("load", "wind", "price"), frequency="h", name="toy")


def toy_frame(*, n_rows: int = 499, seed: int = 0, n_items: int | None = None) -> pd.DataFrame:
    """The values of `toy_panel` as a table with hourly stamps in UTC, for tests of what reads tables or files.

    Args:
        n_rows: Rows of an item.
        seed: Of the noise.
        n_items: Makes a long table of so many items, told apart by `unique_id`; a wide one without it.

    Returns:
        A frame with the columns `ds`, `load`, `wind` and `price`, and `unique_id` before them in a long one.

    Example:
        >>> list(toy_frame(n_rows=48))
        ['ds', 'load', 'wind', 'price']
        >>> Panel.from_frame(toy_frame(n_rows=48, n_items=2)).n_rows
        96
    """
    stamps = pd.date_range("2024-01-01", periods=n_rows, freq="h", tz="UTC")
    frames = []
    for number in range(n_items or 1):
        panel = toy_panel(n_rows=n_rows, seed=seed + number)
        frame = pd.DataFrame(panel.items[0].values, columns=list(panel.channels))
        frame.insert(0, "ds", stamps)
        if n_items:
            frame.insert(0, "unique_id", f"item {number}")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def toy_task(*, n_rows: int = 499, seed: int = 0) -> Task:
    """A task over `toy_panel`, small enough to train on in a second.

    Example:
        >>> task = toy_task()
        >>> task.context, task.horizon, len(task.test) > 0
        (47, 11, True)
    """
    split = Split.fractions(0.6, 0.2, 0.2)
    return Task(toy_panel(n_rows=n_rows, seed=seed), context=CONTEXT, horizon=HORIZON, split=split)


def toy_signature(takes: Collection[str] = (), known: Covariates = COVARIATES) -> Signature:
    """The signature of `toy_task`, without any data, and with those of the covariates `known` named in `takes`."""
    names = ("load", "wind", "price")
    plain = Signature(
        context=CONTEXT, horizon=HORIZON, channels=names, mean=(50.0, 2.0, -7.0), scale=(3.0, 0.5, 20.0), frequency="h"
    )
    if not takes:
        return plain
    future = known.known_ahead if "future" in takes else ()
    past = known.past if "past" in takes else ()
    known = known.replace(past=past) if future else Covariates(past=past)
    scalers = {"future_mean": (0.0,) * len(future), "future_scale": (1.0,) * len(future)}
    scalers |= {"past_mean": (0.0,) * len(past), "past_scale": (1.0,) * len(past)}
    return plain.replace(covariates=known, future=future, past=past, **scalers)


def toy_batch(seed: int = 0, signature: Signature | None = None) -> Batch:
    """A batch of noise with the shapes of `toy_task`, and the covariates of `signature`."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(BATCH, CONTEXT, CHANNELS, generator=generator)
    target = torch.randn(BATCH, HORIZON, CHANNELS, generator=generator)
    n_future, n_past = (len(signature.future), len(signature.past)) if signature else (0, 0)
    future = torch.randn(BATCH, CONTEXT + HORIZON, n_future, generator=generator) if n_future else None
    past = torch.randn(BATCH, CONTEXT, n_past, generator=generator) if n_past else None
    return Batch(context=context, target=target, index=torch.arange(BATCH), future=future, past=past)
