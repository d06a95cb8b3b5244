"""One worker process of a search: it loads the shared teacher, runs trials, and stops properly when it is asked to."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from tsdistill.data import Panel, Task
from tsdistill.errors import TsdistillError
from tsdistill.files import Busy, lock
from tsdistill.recipe import Budget, Recipe, Workspace, make_teacher
from tsdistill.search.claims import INTERRUPTED
from tsdistill.search.objective import TrialObjective
from tsdistill.search.space import Space
from tsdistill.search.storage import create_study
from tsdistill.search.study import run_trials
from tsdistill.teachers import Teacher

MOMENT = 1e-3
"""Seconds that are left to a search whose time was over before its first trial."""

_stopped = threading.Event()


@dataclass(frozen=True)
class WorkOrder:
    """Everything a worker process needs; it travels through a pipe, never through a command line or a file."""

    recipe: Recipe
    panel: Panel
    space: Space
    name: str
    storage: str
    n_trials: int
    objectives: tuple[str, ...]
    budget: Budget | None
    seed: int
    sampler: BaseSampler | None
    pruner: BasePruner | None
    until: float | None
    out: Path
    n_threads: int
    modules: tuple[str, ...]


def shared_teacher(
    recipe: Recipe,
    task: Task,
    folder: str | Path,
    *,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
) -> Teacher:
    """A recipe's teacher, trained once per folder: of several processes one trains it, the others wait and load it.

    One that is not trained by the recipe is read by each of them.

    Args:
        recipe: Names the teacher, and how it is trained or where it is read from.
        task: The recipe's task.
        folder: Where it is kept.
        progress: Show a progress bar; None shows one in a terminal only.
        say: Called with a line for people.

    Returns:
        The teacher.

    Raises:
        TsdistillError: What training raises; another process may then try.

    Example:
        >>> teacher = shared_teacher(recipe, task, "out")     # doctest: +SKIP
    """
    workspace = Workspace(folder, say=say)
    path = workspace.folder / "teacher.lock"
    try:
        held = lock(path, timeout=0)
    except Busy:
        (say or (lambda line: None))("another process trains the teacher; waiting for it")
        held = lock(path)
    with held:
        return make_teacher(recipe, task, workspace, progress)


def work(job: WorkOrder, pipe: Connection) -> None:
    """What a worker process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("optuna").setLevel(logging.WARNING)
    torch.set_num_threads(min(torch.get_num_threads(), job.n_threads))
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, _stop)
    try:
        for module in job.modules:  # what a user registered is known here too
            importlib.import_module(module)
        _load_runtime()
        task = job.recipe.task.build(job.panel)
        teacher = shared_teacher(job.recipe, task, job.out, progress=False)
        evaluate = TrialObjective(
            job.space,
            teacher,
            task,
            recipe=job.recipe,
            objectives=job.objectives,
            max_size_bytes=None,
            budget=job.budget,
            cache=Workspace(job.out).cache,
        )
        run_trials(
            create_study(
                job.name,
                storage=job.storage,
                seed=job.seed,
                objectives=job.objectives,
                sampler=job.sampler,
                pruner=job.pruner,
            ),
            evaluate,
            job.n_trials,
            progress=False,
            begin=evaluate.agree,
            timeout=None if job.until is None else max(job.until - time.time(), MOMENT),
            is_stopped=_stopped.is_set,
        )
        pipe.send((None, ""))
    except KeyboardInterrupt:
        pipe.send((INTERRUPTED, ""))
    except Exception as error:
        if _stopped.is_set():  # libraries make other errors of an interruption
            pipe.send((INTERRUPTED, ""))
        elif isinstance(error, TsdistillError):
            pipe.send((type(error).__name__, str(error)))
        else:
            pipe.send(("TsdistillError", f"A worker failed: {type(error).__name__}: {error}"))
            raise
    finally:
        _ignore_signals()


def _load_runtime() -> None:
    """Load onnxruntime with signals held back: its C part makes an ImportError of an interruption."""
    stops = {signal.SIGINT, signal.SIGTERM}
    can_wait = hasattr(signal, "pthread_sigmask")  # POSIX
    if can_wait:
        signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        import onnxruntime  # noqa: F401
    finally:
        if can_wait:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)


def _stop(*_: Any) -> None:
    """Stop once: a second signal must not tear up the marking of the trial as failed."""
    _stopped.set()
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        # Not SIG_IGN: Python would complain of a signal that came in between.
        signal.signal(name, lambda *_: None)


def _end_with_parent() -> None:
    """A worker whose parent was killed stops at once; its trial is found abandoned by the next search."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
