"""Linear forecasters solved over more data than memory holds: one part of a panel after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tsdistill.data.task import Batch, Signature, Task, Windows
from tsdistill.errors import ArtifactError, ConfigError, ShapeError, UnsupportedError, check_type, must, optional_path
from tsdistill.exporting import refuse_deployed
from tsdistill.losses import OutputLoss
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.linear import Linear, LinearConfig
from tsdistill.models.provenance import machine, versions
from tsdistill.models.ridge import Statistics
from tsdistill.spec import LineageStep, digest_of
from tsdistill.teachers import Teacher, adapt
from tsdistill.training import checkpoint as state

ASKED = 64
"""Windows that a teacher forecasts at once."""


def solve(
    config: LinearConfig,
    tasks: Iterable[Task],
    *,
    teacher: Teacher | None = None,
    alpha: float | Literal["validation"] = "validation",
    checkpoint: str | Path | None = None,
) -> Forecaster:
    """Solve a linear forecaster over many tasks as if they were one, holding one of them at a time.

    W = argmin sum over tasks of |(1 - alpha) * Y + alpha * T - X W|^2 + p * trace(X'X) / context * |W|^2

    T are the teacher's forecasts. X'X, X'Y and X'T add up over tasks, so that memory holds one task and context *
    (context + 2 * horizon) numbers however long the panel is; penalty and alpha are chosen on all validation windows.
    Use it for panels larger than memory, cut into parts that hold some of the items each; where one task fits,
    `td.train` and `td.distill` give the same student. Parts must share one scaler: give their tasks scaler="item" (each
    item in its own units; the choice for items of different size) or scaler=None (raw values; large items decide).

    Args:
        config: Penalties to choose from, and whether channels are kept apart.
        tasks: Parts of a panel with the same signature, such as a generator that reads one file after the other. A part
            that comes twice counts once.
        teacher: Who teaches; it forecasts each training window once, and its forecasts are not kept. None: truth alone.
        alpha: Share of the teacher, as in `OutputLoss`; without a teacher it has no effect.
        checkpoint: A file to keep the sums in, written after every part. A run that was stopped skips the parts that
            are in, and a finished one is solved again for other penalties or another alpha at once.

    Returns:
        A new forecaster; with a teacher, `.control` is the same without it, from the same pass. Its lineage records
        what that of `td.distill` does, without a significance test, which would need the windows again.

    Raises:
        ConfigError: there is no task, or something else among them; or alpha is no share.
        ShapeError: a task has another signature than the first one, or the teacher forecasts something else.
        UnsupportedError: the config is of a model that is not linear, or the tasks have covariates.
        OrderError: an exported or quantized model was given as teacher.
        DivergenceError: the teacher forecasts something infinite or NaN.
        ArtifactError: the checkpoint cannot be read or written, is of another run, or holds parts that did not come.

    Example:
        >>> import tsdistill as td
        >>> from tsdistill.testing import toy_panel
        >>> parts = (td.Task(toy_panel(seed=seed), context=47, horizon=11, scaler="item") for seed in range(3))
        >>> student = solve(td.LinearConfig(), parts)
        >>> student.lineage[-1].metrics["n_parts"]
        3

    Source: A. Hoerl and R. Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", Technometrics
    12(1), 1970, equation 2.1, for the ridge; G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural
    Network", 2015, section 2, for the blend. Differs from the source: sums are taken part by part, the penalty is
    relative to the mean diagonal of X'X, and targets are forecasts, not classes.
    """
    check_type("config", config, ModelConfig, "Pass td.LinearConfig()")
    if not isinstance(config, LinearConfig):
        raise UnsupportedError(
            must("config", "be a td.LinearConfig", type(config).__name__, "Train other models with td.train")
        )
    if isinstance(tasks, Task):
        raise ConfigError(must("tasks", "be several tasks", "one td.Task", "Write [task], or use td.train"))
    check_type("tasks", tasks, Iterable, "Pass several td.Task, such as a list or a generator of them")
    loss = OutputLoss(alpha=alpha)
    if teacher is not None:
        refuse_deployed(teacher, "solve")
    sums = _gathered(config, tasks, teacher, optional_path("checkpoint", checkpoint))
    if teacher is None:
        return _solved(config, sums, (0.0,), {})
    student = _solved(config, sums, loss.alphas or (0.0,), {"losses": str(loss), "teacher": teacher.digest})
    student.control = _solved(config, sums, (0.0,), {})
    last = student.lineage[-1]
    own, other = (float(model.lineage[-1].metrics["validation_mse"]) for model in (student, student.control))
    against_control = {
        "validation_mse": own,
        "control_validation_mse": other,
        "relative": own / other - 1 if other else 0.0,
        "better": "student" if own < other else "control",
    }
    student.lineage = (last.replace(metrics={**last.metrics, "against_control": against_control}),)
    return student


@dataclass
class _Sums:
    """Statistics of the parts so far ("learnt" and "judged"), and the fingerprints of those parts."""

    signature: Signature
    key: str
    held: dict[str, Statistics] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)
    came: set[str] = field(default_factory=set)

    def add(self, task: Task, answer: Callable[[Batch], Tensor] | None, individual: bool) -> None:
        new = {
            "learnt": Statistics.of(task.train, answer, individual=individual),
            "judged": Statistics.of(task.validation, individual=individual),
        }
        self.held = {name: sums + self.held[name] if name in self.held else sums for name, sums in new.items()}
        self.parts.append(task.fingerprint)

    def write(self, path: Path) -> None:
        note = {"key": self.key, "parts": self.parts, "n_rows": {name: sums.n_rows for name, sums in self.held.items()}}
        state.put(path, note, {name: sums.tensors() for name, sums in self.held.items()})

    def read(self, path: Path) -> None:
        if (kept_sums := state.take(path, self.key)) is not None:
            note, groups = kept_sums
            self.held = {name: Statistics(**groups[name], n_rows=n_rows) for name, n_rows in note["n_rows"].items()}
            self.parts = note["parts"]


def _gathered(config: LinearConfig, tasks: Iterable[Task], teacher: Teacher | None, path: Path | None) -> _Sums:
    """The sums over all parts."""
    sums: _Sums | None = None
    for task in tasks:
        if not isinstance(task, Task):
            raise ConfigError(must("tasks", "hold td.Task only", type(task).__name__, "Make one of each part"))
        asked = None if teacher is None else adapt(teacher, task)
        if sums is None:
            key = digest_of([task.signature.digest, config.individual, teacher.digest if teacher else None])
            sums = _Sums(task.signature, key)
            config.build(task.signature)  # refuses what it cannot look at before any work is done
            _check_bare(task.signature)
            if path is not None:
                sums.read(path)
        _check_alike(sums.signature, task.signature)
        sums.came.add(task.fingerprint)
        if task.fingerprint not in sums.parts:
            sums.add(task, _asked(asked, task.train) if asked is not None else None, config.individual)
            if path is not None:
                sums.write(path)
        # Let go before the next one is made: two parts may not fit into memory.
        del task, asked
    if sums is None:
        raise ConfigError("`tasks` must hold at least one task, got none. A generator can be used only once.")
    if gone := set(sums.parts) - sums.came:
        raise ArtifactError(
            f"The checkpoint {path} holds {len(gone)} of {len(sums.parts)} parts that are not among `tasks`: they have "
            "changed or gone since. Delete it to start over."
        )
    return sums


def _asked(teacher: Teacher, windows: Windows) -> Callable[[Batch], Tensor]:
    """A teacher's forecasts of a batch of some windows, computed in pieces that it can hold."""

    def answer(batch: Batch) -> Tensor:
        pieces = batch.index.split(ASKED)
        return torch.cat([teacher.forecast(windows.batch(index)).detach().cpu() for index in pieces])

    return answer


def _check_bare(signature: Signature) -> None:
    if signature.future:
        raise UnsupportedError(
            f"`tasks` must have no covariates, got {list(signature.future)}: their effects are estimated before the "
            "sums are formed, from all windows at once. Use td.train for a panel that fits into memory, or "
            "task.without_covariates()."
        )


def _check_alike(first: Signature, other: Signature) -> None:
    if differ := [name for name in type(first).model_fields if getattr(first, name) != getattr(other, name)]:
        remedy = "Give all of them the same."
        if {"mean", "scale"} & set(differ):
            remedy = 'Each was scaled by its own rows: give the tasks scaler="item" or scaler=None.'
        rule = f"have one signature, got a task that differs from the first one in {', '.join(differ)}"
        raise ShapeError(f"`tasks` must {rule}. {remedy}")


def _solved(config: LinearConfig, sums: _Sums, alphas: tuple[float, ...], details: dict[str, Any]) -> Forecaster:
    """A forecaster solved from sums, with its lineage."""
    model = config.build(sums.signature)
    assert isinstance(model, Linear)
    metrics = model.solve(sums.held["learnt"], sums.held["judged"], alphas)
    step = LineageStep(
        verb="solve",
        spec={"config": config.to_dict(), **details},
        data=digest_of(sorted(sums.parts)),
        metrics={**metrics, "n_parts": len(sums.parts)},
        versions=versions(),
        machine=machine(),
    )
    return model.eval().with_step(step)
