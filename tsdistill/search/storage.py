"""Where studies are kept: a journal file, a database or a search server, opened with clear errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import sqlalchemy as sa
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from tsdistill.errors import ArtifactError, ConfigError, TsdistillError, check_type, must, nearest
from tsdistill.search.databases import FORMS, hushed, open_database, parsed, unreachable
from tsdistill.search.journals import JOURNAL, open_journal
from tsdistill.search.proxy import PROXY, failure_of, is_proxy, is_rpc_error, open_proxy, place_of
from tsdistill.search.question import check_directions, checked_objectives
from tsdistill.spec import digest_of


class SeededTPE(TPESampler):
    """Optuna's multivariate TPE, whose draws for a trial depend on the seed, the trial's number and the trials before.

    Plain TPE starts its random numbers anew in every process: two workers would begin with the same trials, and so
    would a study that is continued. Here every trial has a stream of its own, whoever runs it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, multivariate=True, constant_liar=True)
        self._seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Start this trial's random numbers."""
        for stream, state in enumerate((self._rng, self._random_sampler._rng)):
            state.rng.seed(int(digest_of([self._seed, trial.number, stream]), 16) % 2**32)
        super().before_trial(study, trial)


def create_study(
    name: str,
    *,
    storage: str | BaseStorage | None = None,
    seed: int = 0,
    objectives: Sequence[str] = ("error",),
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> optuna.Study:
    """A study that minimises an error, or an error and costs, made in its storage or taken up from there.

    It is a plain `optuna.Study`. Unless another is given, its sampler is multivariate TPE, in which trials that are
    still running elsewhere count as bad ones (constant liar), so that workers do not all try the same; its pruner stops
    a trial whose student is worse after an epoch than the median of the trials before, once ten trials are complete and
    from the second epoch on. Use a journal file on one machine, PostgreSQL or a search server (see `serve`) across
    machines; SQLite serves one process only.

    Args:
        name: Name of the study in its storage.
        storage: "journal:FILE", "sqlite:///FILE", "postgresql+psycopg://user:password@host/base",
            "mysql+pymysql://...", "grpc://host:port" of a search server, "env:NAME" for a variable that holds one of
            these, an Optuna storage, or None to keep the study in memory.
        seed: What the sampler draws from.
        objectives: What `optimize` is to minimise, see `objective`.
        sampler: One of Optuna's or your own; with limits or several objectives one that can handle them.
        pruner: One of Optuna's or your own; `optuna.pruners.NopPruner()` stops nothing.

    Returns:
        The study, with the trials it already has.

    Raises:
        ConfigError: The name is empty, the address is none of the above, or the study in the storage does not
            minimise as many numbers.
        ArtifactError: The storage cannot be opened or reached. No message holds a password.
        UnsupportedError: The driver for this kind of database is not installed.

    Example:
        >>> study = create_study("toy", seed=1)
        >>> study.direction.name, len(study.trials)
        ('MINIMIZE', 0)
    """
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(must("name", "be a word or more", name, "Name the study"))
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(must("seed", "be a whole number from 0 to below 2^32", seed, "Give another one"))
    names = checked_objectives(objectives)
    check_type("sampler", sampler, BaseSampler, "Pass one of optuna.samplers", optional=True)
    check_type("pruner", pruner, BasePruner, "Pass one of optuna.pruners", optional=True)
    opened = storage if isinstance(storage, BaseStorage) else _open(address(storage))
    with hushed(), reached(opened):
        study = optuna.create_study(
            study_name=name,
            storage=opened,
            sampler=SeededTPE(seed) if sampler is None else sampler,
            pruner=MedianPruner(n_startup_trials=10, n_warmup_steps=2) if pruner is None else pruner,
            directions=["minimize"] * len(names),
            load_if_exists=True,
        )
        check_directions(study, names)
    return study


def load_study(name: str | None = None, *, storage: str | BaseStorage) -> optuna.Study:
    """A study that is there already, to look at; nothing is made.

    Args:
        name: Name of the study; may be left out where the storage holds one only.
        storage: As in `create_study`.

    Returns:
        The study.

    Raises:
        ConfigError: No study has the name, or none is given and there are several.
        ArtifactError: There is no such storage, or it cannot be reached.

    Example:
        >>> load_study(storage="journal:tsdistill-search/study.log").best_value     # doctest: +SKIP
    """
    check_type("name", name, str, "Pass the study's name", optional=True)
    if isinstance(storage, BaseStorage):
        opened = storage
    else:
        resolved = address(storage)
        file = _file_of(resolved)
        if file is not None and not file.exists():
            raise ArtifactError(f"There is no study in {file}: no such file. Name the storage of a search.")
        opened = _open(resolved)
    with hushed(), reached(opened):
        names = optuna.get_all_study_names(opened)
        if not names:
            raise ConfigError("`storage` must hold a study, and it is empty. Run tsdistill search first.")
        if name is None and len(names) > 1:
            raise ConfigError(f"`name` must be given where there are several studies: {', '.join(sorted(names))}.")
        if name is not None and name not in names:
            raise ConfigError(must("name", f"be one of {', '.join(sorted(names))}", name, nearest(name, names)))
        return optuna.load_study(study_name=name or names[0], storage=opened)


def _file_of(storage: str | None) -> Path | None:
    """The file of an address that names one."""
    if storage is None or is_proxy(storage):
        return None
    if storage.startswith(JOURNAL):
        return Path(storage.removeprefix(JOURNAL))
    url = parsed(storage)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def address(storage: str | None) -> str | None:
    """The address itself where `storage` names an environment variable."""
    if not isinstance(storage, str | None):
        raise ConfigError(
            f"`storage` must be an address or an Optuna storage, got a {type(storage).__name__}. {FORMS}."
        )
    if storage is None or not storage.startswith("env:"):
        return storage
    name = storage.removeprefix("env:")
    if not os.environ.get(name):
        raise ConfigError(f"`storage` names the environment variable {name}, which is not set. Set it to the address.")
    return os.environ[name]


def serves_one_process(storage: str | None) -> bool:
    """Whether a storage must not be shared by workers: memory and SQLite."""
    resolved = address(storage)
    if resolved is None:
        return True
    return not resolved.startswith((JOURNAL, PROXY)) and parsed(resolved).get_backend_name() == "sqlite"


@contextlib.contextmanager
def reached(storage: BaseStorage) -> Iterator[None]:
    """Turn a storage's failures into one ArtifactError without its password."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sa.exc.SQLAlchemyError) as error:
        engine = engine_of(storage)
        if engine is not None:
            raise unreachable(error, engine.url) from None
        raise ArtifactError(f"The study's storage failed ({type(error).__name__}). Look at its own log.") from None
    except ValueError as error:
        if not isinstance(storage, JournalStorage) or isinstance(error, TsdistillError):
            raise
        raise ArtifactError(
            f"The journal {journal_of(storage)} is damaged ({error}). Restore it from a copy, or start another study."
        ) from None
    except Exception as error:
        place = place_of(storage)
        if place is None or not is_rpc_error(error):
            raise
        raise failure_of(error, place) from None


def engine_of(storage: BaseStorage) -> sa.Engine | None:
    """The database behind a storage, if it is one."""
    backend = getattr(storage, "_backend", storage)  # Optuna wraps databases in a cache
    return backend.engine if isinstance(backend, RDBStorage) else None


def journal_of(storage: BaseStorage) -> Path | None:
    """The journal file behind a storage, if it is one."""
    backend = getattr(storage, "_backend", None)
    return Path(backend._file_path) if isinstance(backend, JournalFileBackend) else None


def _open(storage: str | None) -> BaseStorage:
    if storage is None:
        return InMemoryStorage()
    if storage.startswith(JOURNAL):
        return open_journal(Path(storage.removeprefix(JOURNAL)))
    if is_proxy(storage):
        return open_proxy(storage)
    return open_database(parsed(storage))
