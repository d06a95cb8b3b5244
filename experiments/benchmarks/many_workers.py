"""What workers that are killed leave behind, and what sharing a study costs a trial.

    TSDISTILL_TEST_POSTGRES=postgresql+psycopg://... python experiments/benchmarks/many_workers.py

Workers run a stub in place of training: it draws four parameters, reports three epochs, keeps five attributes and
sleeps in between.

- *kills*: of four workers one is killed with SIGKILL at a random moment and replaced, 20 times over, on a journal, on
  PostgreSQL and behind `tsdistill search-server`. `lost` is how many finished trials the study lacks in the end,
  `doubled` how many it has too many, `left_running` how many are left without an end.
- *overhead*: 32 workers with trials of about 10 seconds. A trial's overhead is everything but the stub's own sleep: the
  claim, parameters, reports, attributes, result. On a machine that others load (`load_average`), `of_which_cpu_ms` says
  more than the time that passed.

Without the variable the rows of PostgreSQL are left out. `many_workers.csv` beside this file keeps both.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import sqlalchemy as sa

from tsdistill.report.machine import machine
from tsdistill.search import create_study, run_trials

KILLS, KILLED_WORKERS, KILLED_SECONDS = int(os.environ.get("KILLS", "20")), 4, 0.4
WORKERS, TRIALS, TRIAL_SECONDS = int(os.environ.get("WORKERS", "32")), int(os.environ.get("TRIALS", "160")), 10.0
EPOCHS = 3
POSTGRES = os.environ.get("TSDISTILL_TEST_POSTGRES")

processes = multiprocessing.get_context("forkserver")


def work(storage: str, total: int, seconds: float, numbers: Any = None) -> None:
    """A worker: its share of the trials, and what each cost besides its sleep."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    random.seed(os.getpid())
    overheads: list[tuple[float, float]] = []
    ended: float | None = None
    used = 0.0

    def stub(trial: optuna.Trial) -> float:
        nonlocal ended, used
        slept = 0.0
        value = sum(trial.suggest_float(name, 0, 1) for name in ("width", "alpha", "rate", "ratio"))
        for epoch in range(EPOCHS):
            pause = seconds / EPOCHS * random.uniform(0.8, 1.2)
            time.sleep(pause)
            slept += pause
            trial.report(value, epoch)
        for name in ("recipe", "size_bytes", "n_parameters", "precision", "seconds"):
            trial.set_user_attr(name, 1.0)
        now = time.perf_counter()
        if ended is not None:  # a worker's first claim opens its connections
            overheads.append((now - ended - slept, time.process_time() - used))
        ended, used = now, time.process_time()
        return value

    study = create_study("stub", storage=storage, pruner=optuna.pruners.NopPruner())
    run_trials(study, stub, total, progress=False)
    if numbers is not None:
        numbers.put(overheads)


@contextmanager
def places(folder: Path) -> Iterator[dict[str, str]]:
    """A fresh storage of each kind."""
    storages = {"journal": f"journal:{folder / 'study.log'}"}
    base = f"sqlite:///{folder / 'study.db'}"
    names = []
    if POSTGRES:
        server = sa.make_url(POSTGRES)
        engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        names = [f"workers_{os.getpid()}_{number}" for number in range(2)]
        with engine.connect() as connection:
            for name in names:
                connection.execute(sa.text(f"CREATE DATABASE {name}"))
        urls = [server.set(database=name).render_as_string(hide_password=False) for name in names]
        storages["postgresql"] = urls[0]
        base = urls[1]
    command = [sys.executable, "-u", "-m", "tsdistill.cli", "search-server", "--port", "0", "--storage", "env:BASE"]
    serving = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "BASE": base})
    assert serving.stdout is not None
    storages["proxy"] = serving.stdout.readline().split()[-1]
    try:
        yield storages
    finally:
        serving.terminate()
        serving.wait()
        if names:
            with engine.connect() as connection:
                for name in names:
                    connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def begin(*arguments: Any) -> ForkServerProcess:
    process = processes.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def killed(storage: str) -> dict[str, object]:
    """Kill workers at random, and count what is left."""
    total = 4 * KILLS
    create_study("stub", storage=storage)
    pool = [begin(storage, total, KILLED_SECONDS) for _ in range(KILLED_WORKERS)]
    study = create_study("stub", storage=storage)
    for _ in range(KILLS):
        n_before = len(study.get_trials(deepcopy=False))
        while len(study.get_trials(deepcopy=False)) < n_before + 3:  # so that most kills hit a trial
            time.sleep(0.1)
        time.sleep(random.uniform(0.0, KILLED_SECONDS))
        place = random.randrange(len(pool))
        os.kill(pool[place].pid or 0, signal.SIGKILL)
        pool[place].join()
        pool[place] = begin(storage, total, KILLED_SECONDS)
    for process in pool:
        process.join()
    assert [process.exitcode for process in pool] == [0] * len(pool)
    states = Counter(trial.state.name for trial in study.trials)
    finished = [tuple(trial.params.values()) for trial in study.trials if trial.state.name == "COMPLETE"]
    return {
        "kills": KILLS,
        "trials": total,
        "lost": max(total - len(set(finished)), 0),
        "doubled": max(len(finished) - total, 0),
        "left_running": states["RUNNING"],
        "retried": states["FAIL"],
    }


def shared(storage: str) -> dict[str, object]:
    """What a trial costs besides its own time."""
    create_study("stub", storage=storage)
    numbers = processes.SimpleQueue()
    pool = []
    for _ in range(WORKERS):
        pool.append(begin(storage, TRIALS, TRIAL_SECONDS, numbers))
        time.sleep(TRIAL_SECONDS / WORKERS)  # not all at the same moment, for ever after
    elapsed, cpu = np.concatenate([np.reshape(numbers.get(), (-1, 2)) for _ in pool]).T
    for process in pool:
        process.join()
    study = create_study("stub", storage=storage)
    assert len(study.trials) == TRIALS, len(study.trials)
    return {
        "workers": WORKERS,
        "trials": TRIALS,
        "overhead_ms_median": 1e3 * np.median(elapsed),
        "overhead_ms_mean": 1e3 * elapsed.mean(),
        "overhead_ms_p90": 1e3 * np.quantile(elapsed, 0.9),
        "of_which_cpu_ms": 1e3 * np.median(cpu),
        "share_of_10_s": np.median(elapsed) / TRIAL_SECONDS,
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Measure both, and keep a row for each storage."""
    random.seed(0)
    processes.set_forkserver_preload(["tsdistill.search", "tsdistill.report.machine", "pandas"])
    rows: list[dict[str, object]] = []
    for measure in (killed, shared):
        with tempfile.TemporaryDirectory() as folder, places(Path(folder)) as storages:
            for kind, storage in storages.items():
                if measure is shared and kind == "journal":  # for one machine, which has no 32 cores here
                    continue
                numbers = measure(storage)
                rows.append({"measured": measure.__name__, "storage": kind, **numbers, "cpu": machine().get("cpu")})
                print(rows[-1], flush=True)
                pd.DataFrame(rows).to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
