"""One retraining, from fresh data to a verdict."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from tsdistill.data import Panel, Task
from tsdistill.data.split import in_zone
from tsdistill.errors import ArtifactError, DataError, TsdistillError, UnsupportedError
from tsdistill.exporting import Deployed
from tsdistill.files import write_atomic
from tsdistill.models import versions
from tsdistill.quality import DataProfile, DataReport, Finding, profile_of
from tsdistill.recipe import Recipe, Workspace, make_models, make_report, make_teacher
from tsdistill.recipe.workspace import Model, as_deployed
from tsdistill.retrain.gate import Verdict
from tsdistill.retrain.inspecting import accept_profile, accepted_profile, inspect
from tsdistill.retrain.job import Cut, Job, moment
from tsdistill.retrain.judging import Served, judge
from tsdistill.retrain.store import Store, UnsignedError, now
from tsdistill.signatures import check_private_key
from tsdistill.spec import digest_of
from tsdistill.teachers import Teacher

if TYPE_CHECKING:
    import pandas as pd

MOST_NAMED = 3
"""Findings in the reason of a verdict; the others are in its `findings`."""


def run_job(
    job: Job,
    *,
    as_of: str | dt.datetime | pd.Timestamp | None = None,
    accept_data: bool = False,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
) -> Verdict:
    """Retrain on fresh data, judge the candidate against the served model, and serve the better one.

    Before anything is trained, the data has to pass the job's `data_gate`, which compares it with the profile of what
    the served model was trained on; otherwise the verdict is "refused", and the incumbent is served on.

    The newest `job.judge` steps are held out from training and selection. Candidate, incumbent and seasonal naive
    forecast are scored on all their windows, in the candidate task's scale, and the job's gate decides. A promotion is
    one atomic step; the model served before is kept as `previous`. A verdict is written to the store in every case.

    The incumbent is kept, and the verdict says why, when a comparison would be unfair or impossible: it was trained or
    selected on the judging windows (`as_of` going backwards), it forecasts other steps or channels, the candidate is
    the same model, or the candidate is the very model that was last rolled back by hand.

    Use it every time new data is there, from cron or a scheduler. A job that was killed continues where it was when it
    is started again with the same data.

    Args:
        job: What to do.
        as_of: Use rows up to and including this time only; by default all there are.
        accept_data: Go on with data that its gate stops; verdict and model keep that.
        progress: Show progress bars; None shows them in a terminal only.
        say: Called with a line for people as stages begin and end.

    Returns:
        The verdict.

    Raises:
        DataError: the data cannot be reached or used.
        ConfigError: a part of the recipe does not fit the data, or a key is none.
        UnsupportedError: the recipe has a step that its models cannot take.
        BusyError: another job holds the store.
        DivergenceError: training met an infinite or NaN loss.
        ArtifactError: the store cannot be used, or the disk is full; what is served is whole.

    Example:
        >>> import tsdistill as td
        >>> job = td.retrain.Job.from_file("job.toml")                  # doctest: +SKIP
        >>> print(td.retrain.run_job(job, as_of="2013-12-01"))          # doctest: +SKIP
    """
    began = time.perf_counter()
    if job.private_key is not None:
        check_private_key(job.private_key)  # before hours of training
    store = Store(job.store, create=True, public_key=job.public_key)
    with _disk_errors(store), store.locked():
        run = _RetrainRun(job, store, began, progress, say)
        try:
            verdict = run.verdict(as_of, accept_data)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # the last two: SIGTERM and Ctrl-C
            # On a full disk the verdict cannot be written either; the error itself goes to the caller.
            with suppress(OSError):
                store.record(run.failed(error))
            raise
        store.tidy(job.keep_runs)
    return verdict


def rollback(store: str | Path) -> Verdict:
    """Serve the previous model again, in one atomic step; the one served now becomes `previous`.

    Use it when a promoted model turns out to be wrong in a way that its errors did not show. It does not wait for a job
    that is running; that job will not promote over a model it has not judged. The next job does not promote the very
    model that was rolled back.

    Args:
        store: The store's folder.

    Returns:
        The verdict that is kept in the history; its reason says what is served now.

    Raises:
        OrderError: there is no previous model.
        ArtifactError: this is no store, or the previous model is damaged; what is served is as it was.

    Example:
        >>> rollback("store").decision      # doctest: +SKIP
        'rolled-back'
    """
    place = Store(store)
    with _disk_errors(place):
        return place.roll_back()


@dataclass
class _RetrainRun:
    """One run of a job; it keeps what is known so far, so that the verdict of a failure holds it too."""

    job: Job
    store: Store
    began: float
    progress: bool | None
    say: Callable[[str], None] | None
    cut: Cut | None = None
    run: str | None = None
    data: str | None = None
    notes: list[str] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()
    accepted: bool = False

    def verdict(self, as_of: Any, accept_data: bool) -> Verdict:
        """Check the data, run the recipe, judge, promote, record."""
        panel = self.job.load(as_of)
        self.cut = cut = self.job.cut(panel)
        self.notes += self.store.torn_lines()
        self.notes += _nothing_new(self.store.last_verdict(), cut, as_of)
        inspected = inspect(panel, self.job, cut, self._served(), accepted_profile(self.store), as_of)
        panel, self.findings = inspected.panel, inspected.report.findings
        self.notes += inspected.notes
        if not inspected.report.passed and not accept_data:
            return self._refused(inspected.report)
        self.accepted = accept_data and not inspected.report.passed
        recipe = self.job.recipe if self.job.seed is None else self.job.recipe.with_seed(self.job.seed)
        recipe = recipe.replace(task=recipe.task.replace(split=cut.split))
        task = recipe.task.build(panel)
        self.data = task.fingerprint
        candidate = self._candidate(recipe, task, cut)
        served = self._served()
        ruling = judge(self.job.gate, task, cut, candidate, served, inspected.suspects)
        ruling["notes"] += (*self.notes, *_behind(panel, as_of))
        verdict = self._verdict_with(current=served.folder, **ruling)
        if verdict.decision == "promoted":
            return self._promote(candidate, served, cut, verdict, profile_of(panel))
        if self.accepted:
            accept_profile(self.store, profile_of(panel))
        self.store.record(verdict)
        return verdict

    def _refused(self, report: DataReport) -> Verdict:
        reason = f"The data did not pass its gate: {' '.join(map(str, report.stops[:MOST_NAMED]))}"
        if (n_more := len(report.stops) - MOST_NAMED) > 0:
            reason += f" And {n_more} more."
        reason += " Mend the data, or run once with --accept-data if it is right."
        verdict = self._verdict_with(
            decision="refused", reason=reason, notes=tuple(self.notes), current=self.store.served()
        )
        self.store.record(verdict)
        return verdict

    def failed(self, error: BaseException) -> Verdict:
        """The verdict of a job that failed or was stopped."""
        reason = str(error) if isinstance(error, TsdistillError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, Exception):
            reason = "It was stopped from outside (Ctrl-C or SIGTERM). Started again, it continues."
        return self._verdict_with(
            decision="failed", reason=reason, error=type(error).__name__, current=self.store.served()
        )

    def _candidate(self, recipe: Recipe, task: Task, cut: Cut) -> Deployed:
        """The recipe's last model; a job that was killed finds its finished stages by data, recipe and version."""
        key = digest_of([recipe.to_dict(), task.fingerprint, task.test.fingerprint, versions()["tsdistill"]])
        self.run = f"runs/{_compact(cut.as_of)}-{key[:8]}"
        workspace = Workspace(self.store.folder / self.run, say=self.say)
        with workspace.locked():
            write_atomic(workspace.folder / "recipe.toml", recipe.to_toml())
            teacher = make_teacher(recipe, task, workspace, self.progress)
            models: dict[str, Any] = {"teacher": teacher, **self._models(recipe, task, teacher, workspace)}
            if self.job.report:
                make_report(task, models, workspace, self.progress, baselines=recipe.baselines)
        return as_deployed(list(models.values())[-1])

    def _models(self, recipe: Recipe, task: Task, teacher: Teacher, workspace: Workspace) -> dict[str, Model]:
        """Every model of the recipe, fitted again at the end where the job asks for that and the teacher can."""
        if not self.job.refit or recipe.student.training.refit is not None:
            return make_models(recipe, task, teacher, workspace, progress=self.progress)
        final = recipe.replace_at({"student.training.refit": "all"})
        try:
            return make_models(final, task, teacher, workspace, progress=self.progress)
        except (DataError, UnsupportedError) as error:
            models = make_models(recipe, task, teacher, workspace, progress=self.progress)
            self.notes.append(f"The student was not fitted again on the validation rows: {error}")
            return models

    def _served(self) -> Served:
        folder, rolled_back = self.store.served(), self.store.rolled_back()
        if folder is None:
            return Served()
        try:
            model, details = self.store.load(folder)
        except ArtifactError as error:
            return Served(folder, problem=f"The incumbent cannot be loaded: {error}", rolled_back=rolled_back)
        return Served(folder, model, details, rolled_back=rolled_back)

    def _promote(
        self, candidate: Deployed, served: Served, cut: Cut, verdict: Verdict, profile: DataProfile
    ) -> Verdict:
        details: dict[str, Any] = {
            "seen_until": cut.seen_until,
            "judged_until": cut.as_of,
            "job": self.job.digest,
            "run": self.run,
            "accepted_data": [str(finding) for finding in self.findings] if self.accepted else [],
            "profile": json.loads(profile.to_json()),
        }
        metrics = {"judged_mse": verdict.scores["candidate"].mse, "retrain": details}
        name = f"{_compact(cut.as_of)}-{candidate.digest}"
        try:
            promoted = self.store.promote(
                candidate,
                name,
                over=served.folder,
                metrics=metrics,
                verdict=verdict,
                private_key=self.job.private_key,
            )
            reason = (
                "What is served was changed by hand while this job ran, so its candidate was judged against another."
            )
        except UnsignedError as error:
            promoted = None
            reason = (
                f"The candidate is not signed as the store demands. Give the job the private_key that belongs to its "
                f"public_key. {error}"
            )
        if promoted is not None:
            return promoted
        verdict = verdict.replace(decision="kept", reason=reason, current=self.store.served())
        self.store.record(verdict)
        return verdict

    def _verdict_with(self, **values: Any) -> Verdict:
        cut = {} if self.cut is None else self.cut._asdict()
        cut.pop("split", None)
        return Verdict(
            time=now(),
            data=self.data,
            job=self.job.digest,
            run=self.run,
            findings=self.findings,
            accepted_data=self.accepted,
            seconds=round(time.perf_counter() - self.began, 2),
            **cut,
            **values,
        )


def _behind(panel: Panel, as_of: Any) -> tuple[str, ...]:
    """A remark when the data ends a step or more before the time it was asked for."""
    import pandas as pd

    ends = [item.ds for item in panel.items if item.ds is not None and len(item.ds) > 1]
    if as_of is None or not ends:
        return ()
    newest = max(ends, key=lambda ds: ds[-1])
    gap = in_zone(pd.Timestamp(as_of), newest) - newest[-1]
    return (f"The data ends {gap} before the time asked for.",) if gap >= newest[-1] - newest[-2] else ()


def _nothing_new(last: Verdict | None, cut: Cut, as_of: Any) -> list[str]:
    """A remark on a feed that gives nothing new."""
    if as_of is not None or last is None or last.as_of != cut.as_of:
        return []
    age = dt.datetime.now(dt.UTC) - moment(cut.as_of)
    return [
        f"No row has come since the last job: the newest is still that of {cut.as_of}, "
        f"{age / dt.timedelta(days=1):.3g} days old. Check the feed."
    ]


@contextmanager
def _disk_errors(store: Store) -> Iterator[None]:
    """Turn an error of the disk into an `ArtifactError`, whoever was writing."""
    try:
        yield
    except TsdistillError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactError(
            f"Cannot write to the store {store.folder}: {reason}. Make room or check permissions; what is served is "
            "whole."
        ) from error


def _compact(stamp: str) -> str:
    """A written stamp as part of a folder name."""
    return stamp.replace("+00:00", "Z").replace("-", "").replace(":", "").replace(".", "_")
