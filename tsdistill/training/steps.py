"""Gradient steps: what happens between two looks at the validation windows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tsdistill.data.task import Windows
from tsdistill.errors import ConfigError, DivergenceError, must
from tsdistill.models.base import Forecaster
from tsdistill.progress import Bar
from tsdistill.spec import digest_of
from tsdistill.training import checkpoint
from tsdistill.training.averaging import Average
from tsdistill.training.checkpoint import Progress
from tsdistill.training.objectives import Objective
from tsdistill.training.precision import autocast
from tsdistill.training.ranks import Ranks, own_device
from tsdistill.training.spec import Training

INPUTS = ("context", "target", "past", "future")
"""What of a batch is looked at when a step was not finite."""


@dataclass
class TrainingRun:
    """Everything a step needs.

    Args:
        model: What is trained, in place.
        objective: What is minimised.
        windows: The training windows.
        training: How to train.
        so_far: Where the run stands; steps count themselves there.
        n_steps: Steps of the whole run.
        parameters: The weights of model and objective that are trained.
        average: The moving average of the model's weights, if one is asked for.
        ranks: The processes that share every batch.
    """

    model: Forecaster
    objective: Objective
    windows: Windows
    training: Training
    so_far: Progress
    n_steps: int
    parameters: list[nn.Parameter]
    average: Average | None
    ranks: Ranks

    def __post_init__(self) -> None:
        self.device = self.parameters[0].device
        self.optimizer = _optimizer(self.parameters, self.training)

    @property
    def judged(self) -> Forecaster:
        """What validation scores, and what is kept."""
        return self.model if self.average is None else self.average.model

    def state(self) -> dict[str, dict[str, Tensor]]:
        """All tensors that the next step depends on."""
        groups = {
            "model": checkpoint.module_tensors(self.model),
            "objective": checkpoint.module_tensors(self.objective),
            "optimizer": checkpoint.optimizer_tensors(self.optimizer),
        }
        return groups if self.average is None else {**groups, "average": checkpoint.module_tensors(self.average.model)}

    def load(self, groups: dict[str, dict[str, Tensor]]) -> None:
        """Undo `state`; a group without tensors was not written."""
        self.model.load_state_dict(groups["model"])
        self.objective.load_state_dict(groups.get("objective", {}))
        checkpoint.restore_optimizer(self.optimizer, groups.get("optimizer", {}))
        if self.average is not None:
            self.average.model.load_state_dict(groups["average"])


def epoch(run: TrainingRun, bar: Bar) -> tuple[dict[str, float], int]:
    """One pass over the windows in an order that depends on seed and epoch only.

    Returns the mean of each loss part, the step reached and the last learning rate (the same numbers whether or not the
    run was stopped and resumed on the way), and the number of windows.
    """
    training = run.training
    so_far = run.so_far
    run.model.train()
    # Seeding every epoch by itself makes a resumed run draw the same numbers without storing generator states.
    generator = torch.Generator().manual_seed(_mix(training.seed, so_far.epoch, 0))
    # The order is the same on all ranks, each of which takes its share of every batch; what they drop out is not.
    torch.manual_seed(_mix(training.seed, so_far.epoch, 1 + run.ranks.rank))
    order = torch.randperm(len(run.windows), generator=generator)[: training.windows_per_epoch]
    totals: dict[str, Tensor] = {}
    n_windows = 0
    rate = 0.0
    for index in order.split(training.windows_per_step):
        if so_far.step >= run.n_steps:
            break
        rate = training.rate(so_far.step, run.n_steps)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        run.objective.at(so_far.step / run.n_steps)
        for name, total in _step(run, index, rate).items():
            totals[name] = totals[name] + total if name in totals else total
        so_far.step += 1
        if run.average is not None:
            run.average.update(run.model, so_far.step)
        n_windows += len(index)
        bar.advance()
    sums = run.ranks.sum({name: float(total) for name, total in totals.items()})
    parts = {f"loss_{name}": total / n_windows for name, total in sums.items()}
    return {**parts, "step": so_far.step, "learning_rate": rate}, n_windows


def _step(run: TrainingRun, index: Tensor, rate: float) -> dict[str, Tensor]:
    """One gradient step on the mean over the windows at `index`; the sum of each loss part over this rank's share.

    Objectives are means over windows, so the mean over all is that of the batches, each weighted by its windows, and
    the gradient of that is the sum over ranks of what each adds.
    """
    totals: dict[str, Tensor] = {}
    seen: list[tuple[Tensor, dict[str, Tensor]]] = []
    summed = torch.zeros((), device=run.device)
    for chunk in map(run.ranks.share, index.split(run.training.batch_size)):
        if len(chunk) == 0:
            continue
        batch = run.windows.batch(chunk).to(run.device)
        with autocast(run.so_far.precision, run.device):
            loss, parts = run.objective(run.model, batch)
        loss = loss * (len(chunk) / len(index))
        loss.backward()
        summed += loss.detach()
        seen.append((chunk, parts))
        for name, value in parts.items():
            total = value.detach().double() * len(chunk)
            totals[name] = totals[name] + total if name in totals else total
    summed = run.ranks.sum_gradients(run.parameters, summed)
    norm = nn.utils.clip_grad_norm_(run.parameters, run.training.clip_norm, foreach=True)
    # One look per step, before the weights are touched; what broke is found out only when something did.
    if not torch.isfinite(summed + norm):
        raise _diverged(run, seen, rate)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return totals


def _diverged(run: TrainingRun, seen: list[tuple[Tensor, dict[str, Tensor]]], rate: float) -> DivergenceError:
    """The error that names what was not finite in a step: the data, else a part of the loss, else the gradient."""
    step = run.so_far.step + 1
    formula = run.objective.formula
    kept = "the last good checkpoint, if one was asked for, is kept."
    inputs = _broken_inputs(run.windows, [index for index, _ in seen])
    parts = sorted({name for _, parts in seen for name, value in parts.items() if not torch.isfinite(value)})
    # Every rank arrives here, as each of them has the sum of all losses and gradients: they fail with the same words.
    reports = run.ranks.gather([inputs, parts])
    broken = {name: [at for broken_of_rank, _ in reports for at in broken_of_rank.get(name, [])] for name in INPUTS}
    if any(broken.values()):
        description = " and ".join(
            f"the {name} of {len(at)} windows (first: {min(at)})" for name, at in broken.items() if at
        )
        return DivergenceError(
            f"Training stopped at step {step}: {description} is not finite ({formula}). Repair the data before making "
            f"the task; the weights were not touched, and {kept}"
        )
    names = sorted({name for _, names in reports for name in names}) or ["gradient"]
    return DivergenceError(
        f"Training diverged at step {step}: {', '.join(names)} is not finite (learning rate {rate:.3g}, {formula}). "
        f"Lower the learning rate or look for extreme values in the data; {kept}"
    )


def _broken_inputs(windows: Windows, chunks: list[Tensor]) -> dict[str, list[int]]:
    """Positions of the training windows whose values (of the target: where it counts) are not finite."""
    broken: dict[str, list[int]] = {}
    for index in chunks:
        batch = windows.batch(index)
        target = batch.target if batch.mask is None else batch.target.masked_fill(~batch.mask, 0.0)
        values = {"context": batch.context, "target": target, "past": batch.past, "future": batch.future}
        for name in INPUTS:
            if (tensor := values[name]) is None:
                continue
            bad = index[~tensor.isfinite().flatten(1).all(dim=1).cpu()].tolist()
            if bad:
                broken.setdefault(name, []).extend(bad)
    return broken


def _optimizer(parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """AdamW that decays matrices and leaves biases, norms and embeddings of one axis alone."""
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    plain = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    # Fused: one pass over each weight, which for small models is most of what a step costs besides the model.
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=training.learning_rate, fused=True)


def trainable(model: Forecaster, objective: Objective) -> list[nn.Parameter]:
    """The weights of model and objective that a step changes."""
    parameters = [parameter for parameter in (*model.parameters(), *objective.parameters()) if parameter.requires_grad]
    if not parameters:
        raise ConfigError(f"{type(model).__name__} has no weights to train by steps. Use td.train, not fit.")
    return parameters


def device_of(training: Training) -> torch.device:
    """The device asked for."""
    if training.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(must("device", "be one this machine has", "cuda", 'Use "auto" or "cpu"'))
    return own_device("cuda" if training.device != "cpu" and torch.cuda.is_available() else "cpu")


def _mix(seed: int, epoch: int, stream: int) -> int:
    return int(digest_of([seed, epoch, stream]), 16) % 2**63
