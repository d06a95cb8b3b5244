"""A run's folder: finished stages are kept under a key of everything that shaped them, and made only once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tsdistill.artifacts import load, save
from tsdistill.data import Task
from tsdistill.errors import ArtifactError, BusyError
from tsdistill.exporting import Deployed
from tsdistill.files import Busy, append_line, lock, write_atomic
from tsdistill.formats import read_regular
from tsdistill.models import Forecaster, ModelConfig, versions
from tsdistill.spec import digest_of
from tsdistill.training.starting import fits

Model = Forecaster | Deployed
MAX_MARK_BYTES = 1000


class Workspace:
    """Stages, checkpoints, teacher forecasts and the log of one output folder.

    Args:
        folder: Made if it is not there.
        cache: Where teacher forecasts are kept; by default inside the folder.
        say: Called with a line for people when a stage begins or ends.
        warm_from: Folder of an earlier run, whose stages training goes on from.

    Raises:
        ArtifactError: the folder cannot be made, or there is no earlier run.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        cache: str | Path | None = None,
        say: Callable[[str], None] | None = None,
        warm_from: str | Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._starts = None if warm_from is None else Path(warm_from) / "stages"
        if self._starts is not None and self._starts.resolve() == (self.folder / "stages").resolve():
            raise ArtifactError(
                f"`warm_from` must be another folder than the run's own, got {os.fspath(self.folder)!r} for both. Name "
                "a new folder for this run."
            )
        if self._starts is not None and not self._starts.is_dir():
            raise ArtifactError(
                f"`warm_from` must be the folder of an earlier run, got {os.fspath(self._starts.parent)!r}, in which "
                "there is no folder stages. Name what tsdistill run --out named."
            )
        self.cache = Path(cache) if cache is not None else self.folder / "cache"
        self.say = say or (lambda line: None)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"Cannot make the folder {self.folder}: {error.strerror}. Name another one.") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; a second run on it is refused instead of mixing its lines with these."""
        try:
            held = lock(self.folder / ".lock", timeout=0)
        except Busy:
            raise BusyError(f"Another run is writing to {self.folder}. Wait for it, or name another folder.") from None
        with held:
            yield

    def stage(self, name: str, inputs: dict[str, Any], make: Callable[[Path | None], Model]) -> Model:
        """What `make(checkpoint)` gives, made now or taken from an earlier run with the same inputs.

        `inputs` is plain data that determines the result; with the package's version it forms the key. A control is
        kept beside its student.
        """
        key = digest_of({"stage": name, "inputs": inputs, "version": versions()["tsdistill"]})
        home = self.folder / "stages" / name
        mark = self.folder / "stages" / f"{name}.key"
        kept = self._kept(name, key, home, mark)
        if kept is not None:
            return kept
        self.say(f"{name} ...")
        began = time.perf_counter()
        checkpoint = self.folder / "checkpoints" / f"{name}-{key}.safetensors"
        mark.unlink(missing_ok=True)
        model = make(checkpoint)
        save(model, home)
        if model.control is not None:
            save(model.control, _control(home))
        write_atomic(mark, f"{key}{' with control' if model.control is not None else ''}\n")
        for left in checkpoint.parent.glob(f"*{name}-{key}*"):
            left.unlink()
        seconds = time.perf_counter() - began
        self.log(stage=name, key=key, seconds=round(seconds, 2))
        self.say(f"{name} done in {seconds:.0f} s")
        return model

    def _kept(self, name: str, key: str, home: Path, mark: Path) -> Model | None:
        """An earlier run's result, if it is whole."""
        words = read_mark(mark).split(maxsplit=1)
        if not words or words[0] != key:
            return None
        try:
            model = load(home)
            control = load(_control(home)) if len(words) > 1 else None
        except ArtifactError as error:
            self.say(f"{name} was damaged and is made again: {error}")
            self.log(stage=name, key=key, damaged=str(error))
            return None
        self.log(stage=name, key=key, kept=True)
        self.say(f"{name} kept from an earlier run")
        if isinstance(model, Deployed):
            return dataclasses.replace(model, control=control)  # type: ignore[arg-type]
        model.control = control  # type: ignore[assignment]
        return model

    def start(self, name: str, config: ModelConfig, task: Task, *, control: bool = False) -> Forecaster | None:
        """What the training of a stage goes on from: the earlier run's stage, if it fits; None begins anew."""
        if self._starts is None or not (self._starts / name).is_dir():
            return None
        home = self._starts / name
        model = load(home)
        if not isinstance(model, Forecaster) or not fits(config, task, model):
            self.say(f"{name} begins anew: that of the earlier run does not fit")
            return None
        if control:
            beside = load(_control(home)) if _control(home).is_dir() else None
            if not isinstance(beside, Forecaster):
                self.say(f"{name} begins anew: that of the earlier run has no control")
                return None
            model.control = beside
        self.say(f"{name} goes on from the earlier run")
        return model

    def log(self, **event: Any) -> None:
        """Add a line to log.jsonl."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **event})
        append_line(self.folder / "log.jsonl", line)


def as_trainable(model: Any) -> Forecaster:
    """The model as one that can be trained on; TypeError for a deployed one."""
    if not isinstance(model, Forecaster):
        raise TypeError(f"expected a trainable model, got {type(model).__name__}")
    return model


def as_deployed(model: Any) -> Deployed:
    """The model as what is deployed; TypeError for a trainable one."""
    if not isinstance(model, Deployed):
        raise TypeError(f"expected a deployed model, got {type(model).__name__}")
    return model


def read_mark(path: Path) -> str:
    """The key beside a finished stage; empty when there is none that can be read, so that the stage is made again."""
    try:
        return read_regular(path, MAX_MARK_BYTES).decode("utf-8").strip()
    except (OSError, ValueError):
        return ""


def _control(home: Path) -> Path:
    return home.with_name(f"{home.name}-control")
