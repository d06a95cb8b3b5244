"""A model out of a store, whole, while jobs go on."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from tsdistill import manifest as manifests
from tsdistill.artifacts import load
from tsdistill.errors import ArtifactError, ConfigError, OrderError, must
from tsdistill.files import PARTIAL, move_folder, write_new
from tsdistill.retrain.store import Store


def export_model(store: str | Path, folder: str | Path, *, which: str = "current") -> Path:
    """Copy a served model, whole and checked, while jobs go on; `cp -L` may mix two of them.

    Args:
        store: The store.
        folder: Where to; it must not be there, or be empty.
        which: "current" or "previous".

    Returns:
        The folder.

    Raises:
        ConfigError: `which` is another word.
        OrderError: there is no such model.
        ArtifactError: this is no store, the model is damaged, or the folder is taken or cannot be written.

    Example:
        >>> export_model("store", "served")      # doctest: +SKIP
    """
    if which not in ("current", "previous"):
        raise ConfigError(must("which", "be current or previous", which, "Pick one of them"))
    place, target = Store(store), Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArtifactError(f"{target} must be a new folder or an empty one. Name another.")
    model = place.leads_to(which)
    if model is None:
        raise OrderError(f"{place.folder} serves no {which} model yet. Run the job first.")
    # A model's folder never changes; only the link to it does, and that was followed once.
    source = place.folder / model
    names = [*manifests.read(source)[1], manifests.NAME]
    names += [manifests.SIGNATURE] if (source / manifests.SIGNATURE).is_file() else []
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        scratch.mkdir(parents=True)
        for name in names:
            write_new(scratch / name, (source / name).read_bytes())
        load(scratch, public_key=place.public_key)
        move_folder(scratch, target)
    except ArtifactError:
        raise
    except OSError as error:
        raise ArtifactError(f"Cannot copy to {target}: {error.strerror}. Name another folder.") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target
