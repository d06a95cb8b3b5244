"""A recipe's teacher, built from its spec: trained in the workspace, or read from where the recipe points."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tsdistill.data import Task
from tsdistill.data.task import PARTS, Part
from tsdistill.errors import check_type
from tsdistill.files import write_atomic
from tsdistill.formats import read_regular
from tsdistill.models import Forecaster
from tsdistill.recipe.auto_teacher import AutoTeacher, AutoTeacherSpec
from tsdistill.recipe.spec import Recipe
from tsdistill.recipe.teacher import RecipeTeacher, TeacherSpec
from tsdistill.recipe.workspace import Workspace
from tsdistill.spec import digest_of
from tsdistill.teachers import (
    ForecastTable,
    PrivilegedTeacher,
    Teacher,
    TeacherEnsemble,
    TrustedTeacher,
    check_table,
    same_inputs,
    write_forecasts,
)
from tsdistill.training import train
from tsdistill.training.starting import start_info, warmed

MAX_NOTE_BYTES = 2**20


def make_teacher(recipe: Recipe, task: Task, workspace: Workspace, progress: bool | None = None) -> Teacher:
    """The recipe's teacher for a task, trained or kept in this workspace, or read; trials of a search share it so.

    Teachers from files are read every time, so that the digest is that of the present content. Stages and cached
    forecasts are kept under it, so that a table or folder that has changed is never mixed up with the old one.
    """
    return _Builder(task, workspace, progress).build(recipe.teacher)


def auto_teacher(
    task: Task,
    *,
    minutes: float | None = 5.0,
    candidates: Sequence[RecipeTeacher] | None = None,
    reach: float = 0.1,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
) -> AutoTeacher:
    """Train diverse teachers within a time budget, and make one of those that validation finds good.

    What `[teacher] kind = "auto"` does in a recipe; see `AutoTeacherSpec`. The test part is not read.

    Args:
        task: What to teach.
        minutes: How long to train; None trains every candidate as it is.
        candidates: Who is tried, in order; None takes what suits the task.
        reach: How much worse than the best a member's validation error may be, as a share of it.
        seed: Of the default candidates.
        folder: Where members are kept, so that a stopped run goes on and the same one again gives the same teacher;
            None keeps them in memory.
        progress: Show progress bars; None shows them in a terminal only.
        say: Called with a line for people as candidates are trained or skipped.

    Returns:
        A teacher; `candidates` tells what became of each.

    Raises:
        ConfigError: an argument is out of its range.
        TsdistillError: what the first candidate failed with, where none could be trained.

    Example:
        >>> import tsdistill as td
        >>> from tsdistill.testing import toy_task
        >>> specs = [td.recipe.TeacherSpec(model=td.LinearConfig(), context=steps) for steps in (23, 47, 71)]
        >>> auto_teacher(toy_task(), candidates=specs, minutes=None).weighing
        'validation'
    """
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    given = None if candidates is None else tuple(candidates)
    spec = AutoTeacherSpec(minutes=minutes, candidates=given, reach=reach, seed=seed)
    with tempfile.TemporaryDirectory(prefix="tsdistill-teacher-") as temporary:
        workspace = Workspace(folder or temporary, say=say)
        with workspace.locked():
            teacher = _Builder(task, workspace, progress).build(spec)
    assert isinstance(teacher, AutoTeacher)  # a spec without trust
    return teacher


def write_teacher(
    recipe: Recipe,
    path: str | Path,
    *,
    parts: Iterable[Part] = PARTS,
    folder: str | Path | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
) -> Teacher:
    """Write what a recipe's teacher forecasts as a table, which teaches where the teacher itself cannot run.

    What `tsdistill forecasts` does. Of a teacher that is trusted in places the forecasts of the teacher inside are
    written: trust is the business of the recipe that reads the table.

    Args:
        recipe: Whose data, task and teacher.
        path: A CSV (also gzipped) or Parquet file.
        parts: Which windows; those of the test part teach nothing, and give the teacher a row in reports.
        folder: Where a teacher that has to be trained is kept; None keeps it nowhere.
        progress: Show progress bars; None shows them in a terminal only.
        say: Called with a line for people as the teacher is made.

    Returns:
        The teacher.

    Raises:
        ConfigError: another part.
        UnsupportedError: a file of another kind, or a Parquet file without pyarrow.
        TsdistillError: what the data, the task or the teacher raise.
    """
    check_type("recipe", recipe, Recipe, "Read one with td.Recipe.from_file(path)")
    check_table(path, parts := tuple(parts))
    task = recipe.task.build(recipe.data.load())
    with tempfile.TemporaryDirectory(prefix="tsdistill-teacher-") as temporary:
        workspace = Workspace(folder or temporary, say=say)
        with workspace.locked():
            teacher = _Builder(task, workspace, progress).build(recipe.teacher.replace(trust=None))
            write_forecasts(teacher, task, path, parts)
    return teacher


@dataclass(frozen=True)
class _Builder:
    """Builds a teacher, and the members of an ensemble, each under a stage's name of its own."""

    task: Task
    workspace: Workspace
    progress: bool | None
    stage: str = "teacher"
    tasks: dict[str, Task] = field(default_factory=dict)

    def build(self, spec: RecipeTeacher) -> Teacher:
        """The teacher of a spec, weighed by trust where the spec asks for it."""
        teacher = spec.build(self) if spec.trains else self._read(spec)
        return teacher if spec.trust is None else TrustedTeacher(teacher, self.task, sharpness=spec.trust)

    def trained(self, spec: TeacherSpec) -> Teacher:
        """Trained now, or kept from an earlier run with the same spec."""
        own_task = self.own_task(spec)
        # Trust changes nothing about the training.
        start = self.workspace.start(self.stage, spec.model, own_task)
        training = spec.training if start is None else warmed(spec.training, len(own_task.train))
        inputs = {"task": own_task.fingerprint, **spec.replace(trust=None).to_dict(), **start_info(start)}
        teacher = self.workspace.stage(
            self.stage,
            inputs,
            lambda checkpoint: train(
                spec.model, own_task, training, start=start, checkpoint=checkpoint, progress=self.progress
            ),
        )
        if not isinstance(teacher, Forecaster):
            raise TypeError(f"expected a trainable model, got {type(teacher).__name__}")
        return teacher if same_inputs(teacher.signature, self.task) else PrivilegedTeacher(teacher, self.task, own_task)

    def member(self, spec: RecipeTeacher, number: int) -> Teacher:
        """A member of an ensemble; its stages are numbered from 1."""
        return replace(self, stage=f"{self.stage}-{number + 1}").build(spec)

    def own_task(self, spec: TeacherSpec) -> Task:
        """The task that a spec is trained on, made once for all that see the same."""
        key = digest_of({name: spec.to_dict().get(name) for name in ("context", "covariates", "scaler")})
        if key not in self.tasks:
            self.tasks[key] = spec.own_task(self.task)
        return self.tasks[key]

    def say(self, line: str) -> None:
        """Tell people what happens."""
        self.workspace.say(line)

    def note(self) -> str:
        """What an earlier run has noted of this teacher; empty where it has not, or it cannot be read."""
        try:
            return read_regular(self._note_path, MAX_NOTE_BYTES).decode("utf-8")
        except (OSError, ValueError):
            return ""

    def keep_note(self, text: str) -> None:
        """Note something of this teacher for later runs."""
        self._note_path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._note_path, text)

    @property
    def _note_path(self) -> Path:
        return self.workspace.folder / "stages" / f"{self.stage}.json"

    def _read(self, spec: RecipeTeacher) -> Teacher:
        """A teacher that comes from elsewhere, or is fitted at once."""
        self.workspace.say(f"{self.stage} ...")
        began = time.perf_counter()
        teacher = spec.build(self)
        seconds = round(time.perf_counter() - began, 2)
        self.workspace.log(stage=self.stage, kind=spec.kind, digest=teacher.digest, **spec.paths, seconds=seconds)
        self.workspace.say(f"{self.stage} is {teacher!r}")
        return teacher


def shown_digest(teacher: Any) -> str:
    """Digest of all that a report can show of a teacher: of a table's forecasts for the test part too."""
    if isinstance(teacher, ForecastTable):
        return teacher.shown_digest
    if isinstance(teacher, PrivilegedTeacher):
        return digest_of([teacher.shown_digest, shown_digest(teacher.teacher)])
    if isinstance(teacher, TrustedTeacher):
        return digest_of([teacher.digest, shown_digest(teacher.teacher)])
    if isinstance(teacher, TeacherEnsemble):
        return digest_of([teacher.digest, *map(shown_digest, teacher.teachers)])
    return str(teacher.digest)
