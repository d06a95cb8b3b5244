"""A whole search over a recipe: the teacher trained once, workers beside each other, the best recipe in a file."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from tsdistill import errors
from tsdistill.errors import ConfigError, TsdistillError, check_type
from tsdistill.files import write_atomic
from tsdistill.progress import open_bar
from tsdistill.recipe import Budget, Recipe, Workspace, from_anywhere
from tsdistill.search.claims import INTERRUPTED, Claims
from tsdistill.search.objective import TrialObjective
from tsdistill.search.question import budget_of, check_question, check_sampler, checked_objectives, question
from tsdistill.search.results import best_recipe, n_finished, standing
from tsdistill.search.space import Space
from tsdistill.search.storage import create_study, reached, serves_one_process
from tsdistill.search.study import (
    MAX_TRIALS,
    MAX_WORKERS,
    check_count,
    checked_timeout,
    optimize,
)
from tsdistill.search.worker import MOMENT, WorkOrder, shared_teacher, work
from tsdistill.spec import user_modules

LOOK_SECONDS = 1.0
"""How often the progress of workers is looked at."""

SHUTDOWN_SECONDS = 15.0
"""How long a worker may take to mark its trial as failed when it is asked to stop."""


@dataclass(frozen=True)
class SearchResult:
    """What a search left: the study, the best recipe, and the file it was written to."""

    study: optuna.Study
    recipe: Recipe
    path: Path

    @property
    def counts(self) -> dict[str, int]:
        """Finished and failed trials of the study."""
        failed = self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        return {"n_finished": n_finished(self.study), "n_failed": len(failed)}


def run(
    recipe: Recipe,
    out: str | Path,
    *,
    n_trials: int,
    space: Space | None = None,
    storage: str | None = None,
    name: str | None = None,
    workers: int = 1,
    objectives: Sequence[str] = ("error",),
    max_size_bytes: int | None = None,
    budget: Budget | None = None,
    timeout: float | None = None,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    warm_start: optuna.Study | None = None,
    seed: int = 0,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
) -> SearchResult:
    """Search over a recipe until its study has `n_trials` finished trials; the best goes to `out/best.toml`.

    What `tsdistill search` does. Stopped at any moment, it goes on from there when it is called again; called on
    several machines with one PostgreSQL storage, they share the trials.

    Args:
        recipe: Data, task and teacher, and everything else that is not varied.
        out: Folder of the teacher, its forecasts, the default storage and `best.toml`.
        n_trials: Finished trials the study shall have in the end.
        space: What varies; defaults to `Space()`.
        storage: Address, see `create_study`; by default a journal in `out`.
        name: Name of the study; by default the recipe's.
        workers: Processes on this machine, which share its cores.
        objectives: What is minimised; see `objective`. Of several, `best.toml` has the one with the least error.
        max_size_bytes: Bytes the deployed artifact may take.
        budget: Limits of other costs as well; see `objective`.
        timeout: Seconds after which no further trial begins; the teacher's training counts.
        sampler: In place of the usual one; see `create_study`.
        pruner: In place of the usual one; see `create_study`.
        warm_start: Another study, whose trials a new one takes over; see `optimize`.
        seed: What the sampler draws from.
        progress: Show progress bars; None shows them in a terminal only.
        say: Called with a line for people now and then.

    Returns:
        The study and its best recipe.

    Raises:
        ConfigError: A setting breaks its rule or does not fit the others.
        UnsupportedError: No trial fits the budget; every trial is kept.
        TsdistillError: What `optimize`, `create_study`, the data or the teacher's training raise.

    Example:
        >>> import tsdistill as td
        >>> result = td.search.run(td.Recipe.from_file("recipe.toml"), "out", n_trials=20, workers=2)   # doctest: +SKIP
        >>> td.run(result.recipe, "best")                                                               # doctest: +SKIP
    """
    check_count("n_trials", n_trials, MAX_TRIALS, "Give the total the study shall have")
    check_count("workers", workers, MAX_WORKERS, "Start searches on other machines for more")
    check_type("recipe", recipe, Recipe, "Read one with td.Recipe.from_file(path)")
    space = Space() if space is None else space
    check_type("space", space, Space, "Pass td.search.Space()")
    folder = Path(out)
    space.check(recipe)
    workspace = Workspace(folder, say=say)
    storage = storage or f"journal:{folder / 'study.log'}"
    if workers > 1 and serves_one_process(storage):
        raise ConfigError(
            f"`workers` must be 1 with SQLite, which serves one process only, got workers={workers}. Keep the study in "
            "journal:FILE, PostgreSQL or behind tsdistill search-server."
        )
    limits = budget_of(max_size_bytes, budget)
    names = checked_objectives(objectives)
    until = None if timeout is None else time.time() + checked_timeout(timeout)
    study = create_study(
        name or recipe.name, storage=storage, seed=seed, objectives=names, sampler=sampler, pruner=pruner
    )
    panel = recipe.data.load()
    task = recipe.task.build(panel)
    check_sampler(study, names, limits)
    check_question(study, question(recipe, task, space, limits, names))
    if n_finished(study) < n_trials:
        teacher = shared_teacher(recipe, task, folder, progress=progress, say=say)
        if warm_start is not None:
            _begun(study, TrialObjective(
                space, teacher, task, recipe=recipe, objectives=names, max_size_bytes=None, budget=limits,
                cache=workspace.cache, warm_start=warm_start,
            ))  # fmt: skip
        if workers == 1:
            optimize(
                study,
                space,
                teacher,
                task,
                n_trials=n_trials,
                recipe=recipe,
                objectives=names,
                budget=limits,
                cache=workspace.cache,
                timeout=None if until is None else max(until - time.time(), MOMENT),
                progress=progress,
            )
        else:
            n_threads = max(1, _n_cores() // workers)
            job = WorkOrder(
                recipe=recipe,
                panel=panel,
                space=space,
                name=study.study_name,
                storage=storage,
                n_trials=n_trials,
                objectives=names,
                budget=limits,
                seed=seed,
                sampler=sampler,
                pruner=pruner,
                until=until,
                out=folder,
                n_threads=n_threads,
                modules=user_modules(),
            )
            _watch(study, job, workers, progress, say)
    best = from_anywhere(best_recipe(study))
    path = folder / "best.toml"
    write_atomic(path, best.to_toml())
    return SearchResult(study, best, path)


def _begun(study: optuna.Study, evaluate: TrialObjective) -> None:
    """Let a study take over what it starts from, before any worker claims a trial."""
    with Claims(study) as claims, reached(study._storage), claims.turn():
        evaluate.agree(study)


def _watch(
    study: optuna.Study, job: WorkOrder, workers: int, progress: bool | None, say: Callable[[str], None] | None
) -> None:
    """Start the workers, show how far they are, and pass on what one of them fails with."""
    with _worker_pool(job, workers) as pool, open_bar("trials", job.n_trials, progress, foretells=False) as bar:
        waiting = dict(pool)
        interrupted = False
        while waiting:
            for pipe in wait(list(waiting), timeout=LOOK_SECONDS):
                process = waiting.pop(pipe)  # type: ignore[call-overload]
                interrupted |= _poll(pipe, process, say)  # type: ignore[arg-type]
            bar.at(min(n_finished(study), job.n_trials))
            until = math.inf if job.until is None else time.monotonic() + job.until - time.time()
            bar.note(f"{standing(study, job.n_trials, until)}, workers: {len(waiting)}")
    out_of_time = job.until is not None and time.time() >= job.until
    if n_finished(study) < job.n_trials and not out_of_time:
        if interrupted:  # by a Ctrl-C that was for this process as well
            raise KeyboardInterrupt
        raise TsdistillError(
            f"Every worker died with {n_finished(study)} of {job.n_trials} trials finished. Were they killed, or is "
            "there too little memory for so many? The same command goes on, with fewer workers if need be."
        )


def _poll(pipe: Connection, process: SpawnProcess, say: Callable[[str], None] | None) -> bool:
    """What a worker reports at its end: that it is done, an error to pass on, or nothing at all when it was killed.

    Gives whether it was interrupted.
    """
    try:
        kind, message = pipe.recv()
    except EOFError:
        process.join()
        (say or (lambda line: None))(f"a worker died (exit code {process.exitcode}); its trial is retried")
        return False
    if kind in (None, INTERRUPTED):
        return kind == INTERRUPTED
    raise getattr(errors, kind, TsdistillError)(message)


@contextmanager
def _worker_pool(job: WorkOrder, workers: int) -> Iterator[dict[Connection, SpawnProcess]]:
    """Worker processes and the pipes they report by; whatever happens, none outlives this."""
    spawn = multiprocessing.get_context("spawn")
    pool: dict[Connection, SpawnProcess] = {}
    try:
        for number in range(workers):
            receiver, sender = spawn.Pipe(duplex=False)
            process = spawn.Process(target=work, args=(job, sender), name=f"search-{number + 1}", daemon=True)
            with _ignoring_interrupts():
                process.start()
            sender.close()
            pool[receiver] = process
        yield pool
    except BaseException:
        for process in pool.values():
            process.terminate()
        raise
    finally:
        until = time.monotonic() + SHUTDOWN_SECONDS
        for pipe, process in pool.items():
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Children started in here ignore Ctrl-C until they are ready to fail their trial properly."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _n_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
