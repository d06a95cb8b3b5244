"""A few windows of a comparison in raw units, as examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tsdistill.evaluation import forecasts
from tsdistill.report.records import ExampleForecast

if TYPE_CHECKING:
    from tsdistill.data.task import Part, Task

N_EXAMPLES = 3


def examples(models: Mapping[str, Any], task: Task, part: Part) -> tuple[ExampleForecast, ...]:
    """A few windows and channels at fixed, evenly spread positions, not selected by their look."""
    windows = task.windows(part)
    n_channels = len(task.channels)
    places = sorted({int(len(windows) * (number + 0.5) / N_EXAMPLES) for number in range(N_EXAMPLES)})
    index = _positions(places)
    mean, scale = windows.units(index)
    batch = windows.batch(index)
    offset = windows.offsets(index)
    context, target = (values.numpy() * scale + mean + offset for values in (batch.context, batch.target))
    forecasts_by_title = {
        title: forecasts(model, windows, task.signature, order=index) * scale + mean + offset
        for title, model in models.items()
    }
    starts = _stamps(task, part)
    shown = min(task.context, max(3 * task.horizon, 48))
    return tuple(
        ExampleForecast(
            channel=task.channels[channel],
            window=place,
            start=starts(place),
            context=_digits(context[number, -shown:, channel], scale[number, 0, channel]),
            target=_digits(target[number, :, channel], scale[number, 0, channel]),
            forecasts={
                title: _digits(values[number, :, channel], scale[number, 0, channel])
                for title, values in forecasts_by_title.items()
            },
        )
        for number, place in enumerate(places)
        for channel in [number * n_channels // len(places)]
    )


def _positions(places: list[int]) -> Any:
    import torch

    return torch.tensor(places)


def _digits(values: np.ndarray, scale: float) -> tuple[float, ...]:
    """Six significant digits of what moves: enough for a plot, and half the file."""
    level = max(float(np.abs(values).max()) / scale, 1.0)
    # Of a level that is more than a thousand deviations high, the first digits are the same in every value.
    n_digits = 6 if level < 1e3 else min(3 + math.ceil(math.log10(level)), 17)
    return tuple(float(f"{value:.{n_digits}g}") for value in values)


def _stamps(task: Task, part: Part) -> Callable[[int], str | None]:
    """The stamp of a window's first forecast step."""
    from tsdistill.evaluation.scores import origins

    items, rows = origins(task, task.windows(part))

    def stamp(place: int) -> str | None:
        ds = task.panel.items[items[place]].ds
        return None if ds is None else str(ds[rows[place]])

    return stamp
