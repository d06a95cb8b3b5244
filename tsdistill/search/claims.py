"""Who runs the next trial: one worker claims at a time, dead workers are recognised, and the total is exact.

A worker holds a lock of its own for as long as it lives; the operating system, or the server, gives it back at the
moment the worker dies, however it dies. Each trial carries its worker's name. So a running trial whose worker's lock is
free has been abandoned: nothing depends on heartbeats or process numbers. A connection to a server may break while its
worker lives; there a lock counts as free that is still free seconds later.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from tsdistill.errors import ArtifactError, OrderError
from tsdistill.search.locks import locks_of
from tsdistill.search.sessions import TURN
from tsdistill.search.storage import engine_of, reached

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
"""Trials that count towards a total; failed ones are retried."""

ABANDONED = "its worker died"

INTERRUPTED = "interrupted"

LOST_TURN = "its worker lost its turn"

TURN_SECONDS = 0.03
"""How often a worker asks for its turn."""

WAIT_SECONDS = 0.5
"""How often a worker with nothing to do looks whether a trial of another one failed or was abandoned."""

FORGOTTEN_SECONDS = 60.0
"""After so long a lock that was free once may have been taken back, and lost again in another outage."""


class Claims:
    """One worker's part in a study. Use it as a context manager, and ask `next` for one trial after another.

    Args:
        study: In memory, in a journal file, SQLite, PostgreSQL, MySQL or behind a search server.

    Raises:
        UnsupportedError: The study is kept in another kind of storage.
        ArtifactError: The storage cannot be reached.
        OrderError: The study is in SQLite, and another process is using it.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.worker = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._storage: BaseStorage = study._storage
        self._freed: dict[str, float] = {}
        self._trials: list[FrozenTrial] = []

    def __enter__(self) -> Self:
        with reached(self._storage):
            self._locks = locks_of(self.study)
            engine = engine_of(self._storage)
            if engine is not None and engine.dialect.name == "sqlite" and not self._locks.take("only"):
                self._locks.close()
                raise OrderError(
                    f"Another process searches in {engine.url.database}, and SQLite serves one only. Wait for it, or "
                    "keep the study in journal:FILE, PostgreSQL or behind tsdistill search-server."
                )
            self._locks.take(self.worker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # It may have come between the claim of a trial and its first step; a storage that is gone is not asked.
            if error is not None and not isinstance(error, ArtifactError):
                with suppress(Exception):  # the error that ended the search is the one to be heard
                    self._fail_own(INTERRUPTED if isinstance(error, KeyboardInterrupt | SystemExit) else ABANDONED)
        finally:
            self._locks.close()

    def _fail_own(self, reason: str) -> None:
        """Mark the trials that this worker leaves behind as failed."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("worker") == self.worker:
                self._fail(trial, reason)

    def _fail(self, trial: FrozenTrial, reason: str) -> None:
        # It may have been finished after we looked: by its worker just before it died.
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(trial._trial_id, "reason", reason)
            self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def next(self, n_trials: int) -> optuna.Trial | None:
        """A trial to run, or None once the study has `n_trials` finished; waits while the last ones run elsewhere."""
        while True:
            with reached(self._storage), self.turn():
                self._reap()
                trials = self._trials
                n_finished = sum(trial.state in COUNTED for trial in trials)
                n_running = sum(trial.state == TrialState.RUNNING and "worker" in trial.user_attrs for trial in trials)
                if n_finished >= n_trials:
                    return None
                if n_finished + n_running < n_trials:
                    trial = self._ask()
                    if self._locks.holds(TURN):
                        return trial
                    self._fail_own(LOST_TURN)  # with a connection that broke: another one may have counted as well
                    continue
            time.sleep(WAIT_SECONDS)

    def _ask(self) -> optuna.Trial:
        """A trial that carries this worker's name from the start, so that it can be reaped at any later moment."""
        if not any(trial.state == TrialState.WAITING for trial in self._trials):
            self.study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={"worker": self.worker}))
        trial = self.study.ask()
        if trial.user_attrs.get("worker") != self.worker:  # one that a user, or a worker that is gone, had lined up
            trial.set_user_attr("worker", self.worker)
        return trial

    def _reap(self) -> None:
        """Mark the running trials of dead workers as failed. Trials of plain `study.optimize` loops are left alone.

        A lock of a server that is free for the first time is looked at again: by the next trial's look, or by the
        looks of a worker that waits because nothing else is left to do.
        """
        now = time.monotonic()
        freed: dict[str, float] = {}
        n_failed = 0
        self._trials = self.study.get_trials(deepcopy=False)
        running = [
            (trial, trial.user_attrs.get("worker")) for trial in self._trials if trial.state == TrialState.RUNNING
        ]
        others = sorted({worker for _, worker in running if worker is not None} - {self.worker})
        free = self._locks.free_among(others) | {self.worker}
        for trial, worker in running:
            if worker not in free:
                continue
            since = self._freed.get(worker, now)
            if worker == self.worker or self._locks.regained_after <= now - since <= FORGOTTEN_SECONDS:
                self._fail(trial, ABANDONED)
                n_failed += 1
            else:
                freed[worker] = since if now - since <= FORGOTTEN_SECONDS else now
        self._freed = freed
        if n_failed:
            self._trials = self.study.get_trials(deepcopy=False)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While this lasts, no other worker claims a trial."""
        while not self._locks.take(TURN):
            time.sleep(TURN_SECONDS)
        try:
            yield
        finally:
            self._locks.give(TURN)
