"""A whole search over a recipe: the teacher trained once, workers beside each other, the best recipe in a file."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from tsdistill import errors
from tsdistill.data import Panel, Task
from tsdistill.errors import ConfigError, TsdistillError, check_type
from tsdistill.files import Busy, lock, write_atomic
from tsdistill.progress import open_bar
from tsdistill.recipe import Recipe, Workspace, from_anywhere, make_teacher
from tsdistill.search.objective import check_question, question
from tsdistill.search.space import Space
from tsdistill.search.storage import create_study, serves_one_process
from tsdistill.search.study import (
    MAX_TRIALS,
    MAX_WORKERS,
    best_recipe,
    check_count,
    n_finished,
    optimize,
    standing,
)
from tsdistill.spec import user_modules
from tsdistill.teachers import Teacher

LOOK_SECONDS = 1.0
"""How often the progress of workers is looked at."""

SHUTDOWN_SECONDS = 15.0
"""How long a worker may take to mark its trial as failed when it is asked to stop."""


INTERRUPTED = "interrupted"
"""What a worker reports that was asked to stop."""

_stopped = threading.Event()


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


@dataclass(frozen=True)
class _Job:
    """Everything a worker process needs; it travels through a pipe, never through a command line or a file."""

    recipe: Recipe
    panel: Panel
    space: Space
    name: str
    storage: str
    n_trials: int
    max_size_bytes: int | None
    seed: int
    out: Path
    n_threads: int
    modules: tuple[str, ...]


def run(
    recipe: Recipe,
    out: str | Path,
    *,
    n_trials: int,
    space: Space | None = None,
    storage: str | None = None,
    name: str | None = None,
    workers: int = 1,
    max_size_bytes: int | None = None,
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
        max_size_bytes: Bytes the deployed artifact may take.
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
            "journal:FILE or PostgreSQL."
        )
    study = create_study(name or recipe.name, storage=storage, seed=seed)
    panel = recipe.data.load()
    task = recipe.task.build(panel)
    check_question(study, question(recipe, task, space, max_size_bytes))
    if n_finished(study) < n_trials:
        teacher = shared_teacher(recipe, task, folder, progress=progress, say=say)
        if workers == 1:
            optimize(
                study,
                space,
                teacher,
                task,
                n_trials=n_trials,
                recipe=recipe,
                max_size_bytes=max_size_bytes,
                cache=workspace.cache,
                progress=progress,
            )
        else:
            n_threads = max(1, _n_cores() // workers)
            job = _Job(
                recipe=recipe,
                panel=panel,
                space=space,
                name=study.study_name,
                storage=storage,
                n_trials=n_trials,
                max_size_bytes=max_size_bytes,
                seed=seed,
                out=folder,
                n_threads=n_threads,
                modules=user_modules(),
            )
            _watch(study, job, workers, progress, say)
    best = from_anywhere(best_recipe(study, max_size_bytes=max_size_bytes))
    path = folder / "best.toml"
    write_atomic(path, best.to_toml())
    return SearchResult(study, best, path)


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


def _watch(
    study: optuna.Study, job: _Job, workers: int, progress: bool | None, say: Callable[[str], None] | None
) -> None:
    """Start the workers, show how far they are, and pass on what one of them fails with."""
    with _worker_pool(job, workers) as pool, open_bar("trials", job.n_trials, progress) as bar:
        waiting = dict(pool)
        interrupted = False
        while waiting:
            for pipe in wait(list(waiting), timeout=LOOK_SECONDS):
                process = waiting.pop(pipe)  # type: ignore[call-overload]
                interrupted |= _poll(pipe, process, say)  # type: ignore[arg-type]
            bar.at(min(n_finished(study), job.n_trials))
            bar.note(f"{standing(study)}, workers: {len(waiting)}")
    if n_finished(study) < job.n_trials:
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
def _worker_pool(job: _Job, workers: int) -> Iterator[dict[Connection, SpawnProcess]]:
    """Worker processes and the pipes they report by; whatever happens, none outlives this."""
    spawn = multiprocessing.get_context("spawn")
    pool: dict[Connection, SpawnProcess] = {}
    try:
        for number in range(workers):
            receiver, sender = spawn.Pipe(duplex=False)
            process = spawn.Process(target=_work, args=(job, sender), name=f"search-{number + 1}", daemon=True)
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


def _work(job: _Job, pipe: Connection) -> None:
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
        optimize(
            create_study(job.name, storage=job.storage, seed=job.seed),
            job.space,
            teacher,
            task,
            n_trials=job.n_trials,
            recipe=job.recipe,
            max_size_bytes=job.max_size_bytes,
            cache=Workspace(job.out).cache,
            progress=False,
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


def _n_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
