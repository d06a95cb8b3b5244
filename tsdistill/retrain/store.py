"""Where served models live: `current` and `previous` change together, in one atomic step, and every verdict is kept.

store.json              marks this folder as a store
current, previous       the served model and the one before it: links that lead through `.live`
.live                   link to one of .generations/; replacing it is the atomic step
.generations/000007/    current and previous of one moment, and the verdict that led to it
models/                 deployed models by stamp and digest; never changed once they are there
runs/                   a folder of each job: stages, report, verdict
history.jsonl           one line per verdict; last-verdict.json holds the newest
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tsdistill import manifest as manifests
from tsdistill.artifacts import load, save, sign
from tsdistill.errors import ArtifactError, BusyError, ConfigError, OrderError, shown
from tsdistill.exporting import Deployed
from tsdistill.files import PARTIAL, Busy, append_line, flush_folder, lock, replace_link, write_atomic
from tsdistill.formats import parse_json, read_regular
from tsdistill.retrain.gate import Verdict
from tsdistill.signatures import pem, verify_signature
from tsdistill.spec import SCHEMA_VERSION

MARK = "store.json"
MAX_MARK_BYTES = 2**16
GENERATIONS_KEPT = 3
"""A reader that followed `.live` a moment ago can still read what it leads to."""
STAMPS = ("seen_until", "judged_until")
"""Of a model's retraining, which its manifest keeps and later jobs read."""
SWAP_SECONDS = 30.0
MAX_BYTES = 256 * 2**20


class UnsignedError(ArtifactError):
    """A model is not signed by the owner of the key that its store demands."""


class Store:
    """The folder a model is served from, its predecessor, and what was decided when.

    Serve `store/current` with `tsdistill.runtime.load`; it is either not there yet or a whole model, at every moment.

    Args:
        folder: The store.
        create: Make it if it is not there; otherwise a missing store is an error.
        public_key: What is served must be signed by the owner of this key; the store keeps it, and demands it from then
            on. None demands what the store demanded before.

    Attributes:
        folder: The store.
        current: Path to serve from.
        previous: Path of the model before it.

    Raises:
        ArtifactError: there is no store, the folder holds other things, or the disk refuses.

    Example:
        >>> store = Store("my-store", create=True)
        >>> store.current.exists(), store.history()
        (False, ())
    """

    def __init__(
        self, folder: str | Path, *, create: bool = False, public_key: str | Path | bytes | None = None
    ) -> None:
        self.folder = Path(folder)
        self.current, self.previous = self.folder / "current", self.folder / "previous"
        self.models, self.runs, self._generations = (self.folder / name for name in ("models", "runs", ".generations"))
        self.public_key = None if public_key is None else pem(public_key).encode()
        if (self.folder / MARK).is_file():
            self._agree_on_key()
            return
        if not create:
            raise ArtifactError(f"{folder} is no store of retrained models: it has no {MARK}. Check the path.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            others = [name for name in sorted(os.listdir(folder)) if not name.startswith((MARK, "."))]
            if others:
                raise ArtifactError(
                    f"`store` must be a new folder, an empty one or a store, but {folder} holds {', '.join(others[:5])}"
                    f"{', ...' if len(others) > 5 else ''}. Name another folder."
                )
            write_atomic(self.folder / MARK, self._mark())
        except ArtifactError:
            raise
        except OSError as error:
            raise ArtifactError(f"Cannot make the store {folder}: {error.strerror}. Name another folder.") from None

    def _mark(self) -> str:
        """What marks a folder as a store, with the key that signs its models if signatures are demanded."""
        key = {} if self.public_key is None else {"public_key": self.public_key.decode()}
        return json.dumps({"kind": "tsdistill-store", "schema_version": SCHEMA_VERSION, **key})

    def _agree_on_key(self) -> None:
        """A store that demanded signatures once demands them from everybody; another key is refused."""
        path = self.folder / MARK
        try:
            kept = parse_json(read_regular(path, MAX_MARK_BYTES)).get("public_key")
            pinned = None if kept is None else pem(str(kept).encode()).encode()
        except (OSError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}. Restore it.") from None
        if pinned is None and self.public_key is not None:
            write_atomic(path, self._mark())
        elif pinned is not None and self.public_key not in (None, pinned):
            raise ArtifactError(
                f"`public_key` must be the key that the store {self.folder} demands, got another one. To change it, "
                f"edit {MARK} and sign what is served anew."
            )
        self.public_key = pinned or self.public_key

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store for one job; a second is refused at once. The kernel drops a killed process's lock."""
        try:
            held = lock(self.folder / ".lock", timeout=0)
        except Busy:
            raise BusyError(f"Another job is retraining {self.folder}. Wait for it to end.") from None
        with held:
            self._mend()
            yield

    def load(self, folder: str) -> tuple[Deployed, dict[str, Any]]:
        """A model by its folder, relative to the store, and the details of its retraining.

        Raises:
            ArtifactError: it is damaged, or not signed as the store demands.
        """
        model = load(self.folder / folder, public_key=self.public_key)
        if not isinstance(model, Deployed):
            raise ArtifactError(f"{self.folder / folder} holds a trainable model. Only deployed ones are served.")
        details = manifests.read(self.folder / folder)[0].metrics.get("retrain") or {}
        stamps = [details.get(name) for name in STAMPS] if isinstance(details, dict) else [0]
        if not all(isinstance(stamp, str | None) for stamp in stamps):
            raise ArtifactError(
                f"{self.folder / folder} must hold the details of its retraining as text by name, got "
                f"{shown(details)}. Retrain it."
            )
        return model, details

    def served(self) -> str | None:
        """Folder of the served model, relative to the store; None when nothing is served yet."""
        return self.leads_to("current")

    def rolled_back(self) -> str | None:
        """Digest of the model that was taken back by hand, if that was the last thing that happened to `current`."""
        verdict, previous = self._last_swap(), self.leads_to("previous")
        return previous.split("-")[-1] if previous and verdict and verdict.decision == "rolled-back" else None

    def promote(
        self,
        model: Deployed,
        name: str,
        *,
        over: str | None,
        metrics: Mapping[str, Any],
        verdict: Verdict,
        private_key: str | None = None,
    ) -> Verdict | None:
        """Serve a model instead of `over`, which becomes `previous`, and record it.

        Nothing is done if `over` is not served any more.

        Args:
            model: What to serve.
            name: Folder name for it; by stamp and digest.
            over: What was served when it was judged, as `served()` gave it.
            metrics: Kept in the model's manifest.
            verdict: Kept with the change, so that no kill can separate them.
            private_key: What the model is signed with.

        Returns:
            The verdict as it was kept, or None when nothing was done.

        Raises:
            UnsignedError: the store demands a signature, and the model has none that is good; nothing was promoted.
        """
        save(model, self.models / name, metrics=metrics)
        if private_key is not None:
            sign(self.models / name, private_key)
        if self.public_key is not None:
            try:
                verify_signature(self.models / name, self.public_key)
            except ArtifactError as error:
                raise UnsignedError(str(error)) from None
        with self._swapping():
            if self.served() != over:
                return None
            current = f"models/{name}"
            # What cannot be loaded any more, or was just mended by being saved again, is nothing to go back to.
            useful = over is not None and over != current and self._loads(over)
            verdict = verdict.replace(current=current)
            self._swap(current, over if useful else self.leads_to("previous"), verdict)
            self.record(verdict)
        return verdict

    def roll_back(self) -> Verdict:
        """Swap `current` and `previous`; gives the verdict that is kept.

        Raises:
            OrderError: there is no previous model.
            ArtifactError: the previous model is damaged; `current` stays.
        """
        with self._swapping():
            current, previous = self.served(), self.leads_to("previous")
            if current is None or previous is None:
                raise OrderError(
                    f"{self.folder} has no previous model to go back to. There is one once a model was promoted "
                    "over another."
                )
            _, details = self.load(previous)
            verdict = Verdict(
                decision="rolled-back",
                reason=f"{previous} is served now (data until {details.get('seen_until')}); before, it was {current}.",
                time=now(),
                current=previous,
            )
            self._swap(previous, current, verdict)
            self.record(verdict)
        return verdict

    def record(self, verdict: Verdict) -> None:
        """Write a verdict: into the history, as the last one, and into its run's folder."""
        append_line(self.folder / "history.jsonl", _line(verdict))
        write_atomic(self.folder / "last-verdict.json", verdict.to_json() + "\n")
        if verdict.run is not None and (self.folder / verdict.run).is_dir():
            write_atomic(self.folder / verdict.run / "verdict.json", verdict.to_json() + "\n")

    def history(self) -> tuple[Verdict, ...]:
        """Every verdict, oldest first; half a line that a full disk or a kill left is passed over."""
        path = self.folder / "history.jsonl"
        lines = [line for line in _text(path).splitlines() if line.strip()]
        return tuple(self._verdict(path, line) for line in lines if not _is_torn(line))

    def torn_lines(self) -> list[str]:
        """A remark on lines of the history that are no whole ones, if there are any."""
        lines = enumerate(_text(self.folder / "history.jsonl").splitlines(), start=1)
        torn = [str(number) for number, line in lines if line.strip() and _is_torn(line)]
        return [f"history.jsonl is torn in line {', '.join(torn)}; what it said is lost."] if torn else []

    def last_verdict(self) -> Verdict | None:
        """The newest verdict."""
        path = self.folder / "last-verdict.json"
        text = _text(path)
        return self._verdict(path, text) if text else None

    def tidy(self, keep_runs: int) -> None:
        """Remove old runs, old generations and models not served lately; what resists is left for the next time."""
        with self._swapping():
            kept = {*sorted(self._numbers())[-GENERATIONS_KEPT:], *self._live()}
            models = {self.leads_to(which, number) for number in kept for which in ("current", "previous")}
            old = [self._generations / f"{number:06}" for number in self._numbers() if number not in kept]
            old += [path for path in _inside(self.models) if f"models/{path.name}" not in models]
            old += sorted(_inside(self.runs), key=lambda path: path.stat().st_mtime)[:-keep_runs]
            trash = self.folder / ".trash"
            with contextlib.suppress(OSError):
                trash.mkdir(exist_ok=True)
                for path in old:
                    # Renamed first, so that a kill in the middle of removing leaves no half of anything behind.
                    os.rename(path, trash / f"{path.name}-{secrets.token_hex(4)}")
        shutil.rmtree(trash, ignore_errors=True)

    def _swap(self, current: str, previous: str | None, verdict: Verdict) -> None:
        """Make a generation and lead `.live` to it in one step."""
        self._generations.mkdir(exist_ok=True)
        fresh = self._generations / f".new-{secrets.token_hex(4)}"
        fresh.mkdir()
        for which, target in (("current", current), ("previous", previous)):
            if target is not None:
                os.symlink(f"../../{target}", fresh / which)
        write_atomic(fresh / "verdict.json", verdict.to_json() + "\n")
        flush_folder(fresh)
        name = f"{max(self._numbers(), default=0) + 1:06}"
        os.rename(fresh, self._generations / name)
        flush_folder(self._generations)
        for which, target in (("current", current), ("previous", previous)):
            # Nowhere to be followed to before the first step below, so these two are not there until then.
            if target is not None and not os.path.lexists(self.folder / which):
                os.symlink(f".live/{which}", self.folder / which)
        replace_link(self.folder / ".live", f".generations/{name}")

    @contextlib.contextmanager
    def _swapping(self) -> Iterator[None]:
        """A short lock around the links, apart from the job's: an operator can roll back while a job is training."""
        try:
            held = lock(self.folder / ".swap.lock", timeout=SWAP_SECONDS)
        except Busy:
            raise BusyError(f"The links of {self.folder} have been held for {SWAP_SECONDS:g} s. Try again.") from None
        with held:
            yield

    def _mend(self) -> None:
        """Finish what a killed job left: a change that is not in the history yet, and names that lead nowhere."""
        with self._swapping():
            unfinished = (
                self.folder.glob(".live.new-*"),  # as version 0.1 named it
                self.folder.glob(f"*{PARTIAL}"),
                self._generations.glob(".new-*"),
            )
            for left in itertools.chain(*unfinished):
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            verdict = self._last_swap()
            path = self.folder / "history.jsonl"
            recorded = _text(path).splitlines()
            if verdict is not None and _line(verdict) not in recorded:
                self.record(verdict)

    def _last_swap(self) -> Verdict | None:
        path = self.folder / ".live" / "verdict.json"
        text = _text(path)
        return self._verdict(path, text) if text else None

    def _verdict(self, path: Path, text: str) -> Verdict:
        try:
            return Verdict.from_json(text)
        except ConfigError as error:
            raise ArtifactError(f"{path} holds no verdict of this store: {error} Restore it from a copy.") from None

    def leads_to(self, which: str, number: int | None = None) -> str | None:
        """Target of a link of the live generation, or of another one, relative to the store."""
        place = self.folder / ".live" if number is None else self._generations / f"{number:06}"
        try:
            return os.readlink(place / which).removeprefix("../../")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _no_link(place / which, error) from None

    def _loads(self, folder: str) -> bool:
        try:
            self.load(folder)
        except ArtifactError:
            return False
        return True

    def _live(self) -> list[int]:
        try:
            return [int(Path(os.readlink(self.folder / ".live")).name)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise _no_link(self.folder / ".live", error) from None

    def _numbers(self) -> list[int]:
        return [int(path.name) for path in _inside(self._generations) if path.name.isdigit()]


def _is_torn(line: str) -> bool:
    """Whether a line is no whole JSON."""
    try:
        json.loads(line)
    except ValueError:
        return True
    except RecursionError:  # no cut leaves that: it is refused by whoever reads it
        return False
    return False


def now() -> str:
    """The time a verdict is written, in UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")


def _text(path: Path) -> str:
    """Content of a file of the store; empty when there is none."""
    try:
        return read_regular(path, MAX_BYTES).decode("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"Cannot read {path}: {error}. Restore it from a copy.") from None


def _no_link(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path} must be a link of this store, got another thing ({error}). Restore it from a copy.")


def _inside(folder: Path) -> list[Path]:
    """Folders in a folder, without hidden ones."""
    return [path for path in sorted(folder.glob("*")) if path.is_dir() and not path.name.startswith(".")]


def _line(verdict: Verdict) -> str:
    return json.dumps({"schema_version": SCHEMA_VERSION, **verdict.to_dict()})
