"""What data show about a model's units: gradients, what passes through them, and the error without them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from tsdistill.data.task import Task, Windows
from tsdistill.models.base import Forecaster
from tsdistill.models.groups import Slice, WidthGroup

N_WINDOWS = 256
"""Windows that are looked at, spread evenly over a part."""

BATCH = 32
MAX_ROWS = 8192
"""Rows kept of what a layer reads: enough to fit a few hundred units by, in a few megabytes."""


class Evidence:
    """What training and validation windows show about a model, computed when it is asked for and then kept.

    Args:
        model: Left as it is.
        task: Its training windows give gradients and activations, its validation windows errors.
        n_windows: Windows looked at, spread evenly over each part.
    """

    def __init__(self, model: Forecaster, task: Task, n_windows: int = N_WINDOWS) -> None:
        self.model = model
        self.task = task
        self.n_windows = n_windows

    @functools.cached_property
    def train(self) -> Windows:
        """Training windows, spread evenly."""
        return _spread(self.task.train, self.n_windows)

    @functools.cached_property
    def validation(self) -> Windows:
        """Validation windows, spread evenly."""
        return _spread(self.task.validation, self.n_windows)

    @functools.cached_property
    def gradients(self) -> list[dict[str, Tensor]]:
        """Gradients of the model's own error on every batch of training windows, by parameter."""
        model = copy.deepcopy(self.model).cpu().eval()
        gradients: list[dict[str, Tensor]] = []
        named = dict(model.named_parameters())
        for batch in self.train.batches(BATCH):
            loss = model.head.error(model.activations(batch.context, batch.future, batch.past), batch.target)
            values = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            pairs = zip(named.items(), values, strict=True)
            gradients.append({name: torch.zeros_like(p) if grad is None else grad for (name, p), grad in pairs})
        return gradients

    def error(self, model: Forecaster) -> float:
        """Another model's own error on the validation windows: MSE for a point head."""
        return error_of(model, self.validation)

    @functools.cached_property
    def read(self) -> dict[str, Tensor]:
        """What every linear layer reads over the training windows, (row, entry), by the weight that reads it.

        Of a recurrent layer, the recurrent weights read its own outputs.
        """
        return inputs_of(self.model, self.train)

    def passing(self, group: WidthGroup) -> Iterator[tuple[Slice, Tensor]]:
        """What passes through the units of a group, (row, repeat, unit, block), at each place where it is read."""
        units = torch.arange(group.size)
        for slice_ in group.outgoing:
            if slice_.axis == 1 and slice_.parameter in self.read:
                yield slice_, self.read[slice_.parameter][:, slice_.positions(units, group.size)]


def error_of(model: Forecaster, windows: Windows) -> float:
    """The error of a model's own head, over all targets of some windows."""
    total, count = 0.0, 0
    model = model.eval()
    with torch.no_grad():
        for batch in windows.batches(256):
            activations = model.activations(batch.context, batch.future, batch.past)
            total += float(model.head.error(activations, batch.target)) * batch.target.numel()
            count += batch.target.numel()
    return total / count


def inputs_of(model: Forecaster, windows: Windows) -> dict[str, Tensor]:
    """What every weight matrix of a linear, pointwise or recurrent layer reads, (row, entry)."""
    n_batches = -(-len(windows) // BATCH)
    inputs_by_weight: dict[str, list[Tensor]] = {}

    def keep(name: str, rows: Tensor) -> None:
        rows = rows.detach().reshape(-1, rows.shape[-1])
        step = max(1, len(rows) * n_batches // MAX_ROWS)
        inputs_by_weight.setdefault(name, []).append(rows[::step].clone())

    def hook(path: str) -> Callable[..., None]:
        def seen(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            if isinstance(module, nn.LSTM | nn.GRU):
                assert isinstance(output, tuple)  # outputs and last states
                for way, own in zip(("", "_reverse"), output[0].split(module.hidden_size, dim=-1), strict=False):
                    keep(f"{path}.weight_ih_l0{way}", inputs[0])
                    keep(f"{path}.weight_hh_l0{way}", own)
            else:
                keep(f"{path}.weight", inputs[0].transpose(1, 2) if isinstance(module, nn.Conv1d) else inputs[0])

        return seen

    readers = {path: module for path, module in model.named_modules() if _reads(module)}
    handles = [module.register_forward_hook(hook(path)) for path, module in readers.items()]
    try:
        model.eval()
        with torch.no_grad():
            for batch in windows.batches(BATCH):
                model(batch.context, batch.future, batch.past)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(rows) for name, rows in inputs_by_weight.items()}


def _reads(module: nn.Module) -> bool:
    pointwise = isinstance(module, nn.Conv1d) and module.kernel_size == (1,) and module.groups == 1
    return isinstance(module, nn.Linear | nn.LSTM | nn.GRU) or pointwise


def _spread(windows: Windows, n_windows: int) -> Windows:
    index = torch.linspace(0, len(windows) - 1, min(n_windows, len(windows))).long()
    return windows.subset(index)
