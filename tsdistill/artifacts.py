"""Save and load models as folders: atomic, every file with its digest, and never a pickle."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from tsdistill import manifest as manifests
from tsdistill import runtime
from tsdistill.data.task import Signature
from tsdistill.errors import ArtifactError, ConfigError, UnsupportedError, check_type, nearest, shown
from tsdistill.exporting import Deployed
from tsdistill.files import flush_folder, write_atomic, write_new
from tsdistill.formats import parse_json, read_inside
from tsdistill.manifest import Manifest
from tsdistill.models import MODELS, Forecaster
from tsdistill.models.base import levels_of
from tsdistill.models.stored import fitting
from tsdistill.plain import plain_data
from tsdistill.signatures import checker, signature_of
from tsdistill.spec import LineageStep

try:
    import fcntl
except ImportError:  # not a POSIX system: leftovers of killed saves then stay, as nothing tells them from running ones
    fcntl = None  # type: ignore[assignment]

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def save(model: Forecaster | Deployed, folder: str | Path, *, metrics: Mapping[str, Any] | None = None) -> Path:
    """Write a model as an artifact folder, in one atomic step.

    The folder is written beside its target, flushed to disk and then put in place by a single rename: whoever reads at
    any moment, even after a crash or `kill -9` in the middle, finds the old artifact or the new one, whole. An artifact
    that stands there already is replaced; any other folder that holds something is refused. A `control` is not part of
    the artifact; save it as one of its own.

    Args:
        model: A trainable forecaster (`weights.safetensors`) or a deployed one (`model.onnx` and golden windows).
        folder: Where to; missing parents are made.
        metrics: Numbers to keep with it. Those of numpy and torch, arrays, paths and dates become plain data, numbers
            that are not finite None.

    Returns:
        The folder.

    Raises:
        ArtifactError: The target is a file or holds something that is no artifact, or the disk refuses.
        ConfigError: `folder` is no path, or `metrics` holds what no file of text can (all of it is listed).
        UnsupportedError: `model` is neither kind.

    Example:
        >>> import tempfile
        >>> from tsdistill.models import LinearConfig
        >>> signature = Signature(context=29, horizon=7, channels=("load",), mean=(50.0,), scale=(3.0,))
        >>> model = LinearConfig().build(signature)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     again = load(save(model, place + "/linear"))
        >>> again.digest == model.digest
        True
    """
    check_type("folder", folder, (str, os.PathLike), "Pass the path of a folder as text or as a pathlib.Path")
    manifest, files = _packed(model, None if metrics is None else plain_data("metrics", metrics))
    listing = manifest.to_bytes()
    target = Path(os.path.realpath(folder))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(target)
        with _scratch(target) as scratch:
            for name, content in files.items():
                write_new(scratch / name, content)
            # The manifest last: a folder without one is no artifact.
            write_new(scratch / manifests.NAME, listing)
            flush_folder(scratch)
            _put_in_place(scratch, target)
    except ArtifactError:
        raise
    except OSError as error:
        raise ArtifactError(f"cannot save to {folder}: {error}. Nothing there was changed.") from error
    return Path(folder)


def load(folder: str | Path, *, public_key: str | Path | bytes | None = None) -> Forecaster | Deployed:
    """Read an artifact back, every digest checked.

    A trainable forecaster is built from its config and then filled with its weights; nothing that is read is executed.
    To serve a deployed one on a machine without torch, use `tsdistill.runtime.load`.

    Args:
        folder: The artifact.
        public_key: Path of an Ed25519 key in PEM, or the PEM as bytes: only an artifact that its owner has signed is
            loaded. Needs the extra `sign`.

    Returns:
        The forecaster as it was saved, in evaluation mode, or the deployed forecaster; its `control` is None.

    Raises:
        ArtifactError: The artifact is missing, damaged, tampered with or of a newer schema; every missing, extra or
            misshapen tensor is listed.

    Example:
        >>> from tsdistill.exporting import export
        >>> from tsdistill.models import SeasonalNaiveConfig
        >>> from tsdistill.testing import toy_signature
        >>> deployed = export(SeasonalNaiveConfig(period=24).build(toy_signature()))
        >>> load(save(deployed, "models/naive")).precision
        'fp32'
    """
    manifest, contents = manifests.read(folder, check=checker(public_key))
    kind = manifest.config.get(MODELS.tag)
    if kind not in MODELS:
        raise ArtifactError(
            f"{folder} holds a model of kind {shown(kind)}, which is not registered in this process: another version "
            "of tsdistill wrote it, or the module that registers it (td.models.register) has to be imported first. "
            f"{nearest(str(kind), MODELS.kinds)}"
        )
    try:
        config = MODELS.read(manifest.config)
        signature = Signature.from_dict(manifest.signature).with_record(manifest.reading)
        lineage = tuple(LineageStep.from_dict(step) for step in manifest.lineage)
        if manifest.deployment is None:
            # Shapes first: a config that asks for more memory than its weights have is found before it gets any.
            with torch.device("meta"):
                skeleton = config.build(signature)
    except ConfigError as error:
        raise ArtifactError(f"{folder} was made by another version of tsdistill: {error}") from error
    except (TypeError, ValueError, OverflowError, RuntimeError, MemoryError) as error:  # torch's, for impossible sizes
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ArtifactError(f"{folder} holds no forecaster that could be built: {reason}. Save it again.") from error
    if manifest.deployment is None:
        weights = fitting(skeleton, contents[manifests.WEIGHTS], folder)
        model = config.build(signature)
        model.load_state_dict(weights)
        model.lineage = lineage
        return model.eval()
    deployment = manifest.deployment
    deployed = Deployed(
        onnx=contents[manifests.MODEL],
        config=config,
        signature=signature,
        precision=deployment.precision,
        lineage=lineage,
        n_parameters=deployment.n_parameters,
        golden=runtime.golden_windows(contents[manifests.GOLDEN], signature, levels_of(config)),
        parity=deployment.parity,
        isolate=deployment.isolate,
    )
    deployed.predictor  # noqa: B018 - a graph that cannot be loaded is an error here, not at the first forecast
    return deployed


def verify(folder: str | Path, *, public_key: str | Path | bytes | None = None) -> dict[str, Any]:
    """Check an artifact from end to end on this machine: digests, and forecasts where it has golden ones.

    For a deployed artifact this is `tsdistill.runtime.verify`, which needs no torch: its golden windows are forecast
    anew and compared with the stored forecasts. A trainable one is loaded, tensor by tensor.

    Args:
        folder: The artifact.
        public_key: As in `load`.

    Returns:
        `kind`, `n_files` and `unlisted` (names in the folder that the manifest does not list); for a deployed artifact
        also `precision`, `n_windows`, `max_difference` and `tolerance`, in standard deviations of a channel.

    Raises:
        ArtifactError: Anything does not agree; the message says what.

    Example:
        >>> from tsdistill.exporting import export
        >>> from tsdistill.models import SeasonalNaiveConfig
        >>> from tsdistill.testing import toy_signature
        >>> deployed = export(SeasonalNaiveConfig(period=24).build(toy_signature()))
        >>> verify(save(deployed, "models/naive"))["max_difference"]
        0.0
    """
    manifest, contents = manifests.read(folder, check=checker(public_key))
    if manifest.deployment is not None:
        return {"kind": manifest.kind, **runtime.verify(folder, public_key=public_key)}
    load(folder, public_key=public_key)
    return {
        "kind": manifest.kind,
        "n_files": len(contents) + 1,
        "unlisted": manifests.unlisted(folder, manifest),
    }


def sign(folder: str | Path, private_key: str | Path | bytes) -> Path:
    """Sign an artifact, so that others can tell where it comes from; an older signature is replaced.

    Use it where a model is released, with a key that stays there. Every digest is checked first, so nothing damaged is
    signed. Saving the model again removes the signature; `tsdistill.signatures.verify_signature` checks it.

    Args:
        folder: The artifact.
        private_key: Path of an Ed25519 key in PEM, or the PEM itself as bytes. The password of an encrypted one stands
            in the environment variable TSDISTILL_KEY_PASSWORD.

    Returns:
        The file with the signature.

    Raises:
        ArtifactError: The artifact is damaged, or the signature cannot be written.
        ConfigError: There is no such key, or it is none of this kind.
        UnsupportedError: cryptography is not installed.

    Example:
        >>> sign("models/etth1", "private.pem")                         # doctest: +SKIP
        >>> load("models/etth1", public_key="public.pem")               # doctest: +SKIP
    """
    path = Path(folder) / manifests.SIGNATURE
    signature = signature_of(folder, private_key)
    try:
        write_atomic(path, signature)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}. Check permissions.") from error
    return path


def size_bytes(model: Forecaster | Deployed) -> int:
    """Bytes of the files that are needed to use a model: its weights or its graph, and the manifest.

    Args:
        model: A trainable or a deployed forecaster.

    Returns:
        A number of bytes, as `save` would write them.

    Raises:
        UnsupportedError: `model` is neither kind.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_signature
        >>> student = MLPConfig(width=32).build(toy_signature())
        >>> size_bytes(student) > 4 * student.n_parameters
        True
    """
    if isinstance(model, Deployed):
        return model.size_bytes
    manifest, files = _packed(model, None)
    return len(manifest.to_bytes()) + sum(map(len, files.values()))


def _packed(model: Forecaster | Deployed, metrics: Mapping[str, Any] | None) -> tuple[Manifest, dict[str, bytes]]:
    if isinstance(model, Deployed):
        return model.manifest(metrics), model.files
    if not isinstance(model, Forecaster):
        raise UnsupportedError(f"only forecasters and deployed forecasters can be saved, got a {type(model).__name__}.")
    from safetensors.torch import save as pack

    # Cloned, because safetensors refuses tensors that share memory.
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    files = {manifests.WEIGHTS: pack(weights)}
    manifest = Manifest(
        kind="forecaster",
        config=model.config.to_dict(),
        signature=model.signature.to_dict(),
        reading=model.signature.record,
        lineage=[step.to_dict() for step in model.lineage],
        files={name: manifests.entry(content) for name, content in files.items()},
        metrics=dict(metrics or {}),
    )
    return manifest, files


def _refuse_foreign(target: Path) -> None:
    """ArtifactError when the target holds anything but an artifact."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise ArtifactError(f"`folder` must be a folder, but {target} is a file. Choose another name.")
    names = set(os.listdir(target))
    if not names:
        return
    try:
        values = parse_json(read_inside(target, manifests.NAME, manifests.MAX_BYTES))
        listed_names = (
            set(values["files"]) | {manifests.NAME, manifests.SIGNATURE} if values["kind"] in manifests.KINDS else set()
        )
    except (OSError, ValueError, KeyError, TypeError):
        listed_names = set()
    if others := sorted(names - listed_names):
        raise ArtifactError(
            f"`folder` must be new, empty or an artifact, but {target} holds other things: {', '.join(others[:5])}"
            f"{', ...' if len(others) > 5 else ''}. Choose another folder, or delete this one yourself."
        )


@contextlib.contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A new folder beside the target, removed again at the end; leftovers of saves that were killed go first."""
    with _locked(target.parent, wait=True):
        for left in target.parent.glob(f".{_escaped(target.name)}.new-*"):
            with _locked(left, wait=False) as free:
                if free:
                    shutil.rmtree(left, ignore_errors=True)
        scratch = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}")
        scratch.mkdir()
        stack = contextlib.ExitStack()
        stack.enter_context(_locked(scratch, wait=False))
    try:
        with stack:
            yield scratch
    finally:
        # Not there any more after a rename; the replaced artifact after an exchange.
        shutil.rmtree(scratch, ignore_errors=True)


def _put_in_place(scratch: Path, target: Path) -> None:
    """Rename the finished folder to its target; an artifact there changes places with it."""
    old = manifests.aside(target)
    if not target.exists() and old.is_dir():
        os.rename(old, target)  # a save was killed between the two renames below
    while True:
        try:
            os.rename(scratch, target)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        _refuse_foreign(target)  # somebody else may have put something there meanwhile
        if _exchange(scratch, target):
            break
        shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, old)
    flush_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one atomic step; False where the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform in ("linux", "darwin") else None
    if libc is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        done = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    elif hasattr(libc, "renamex_np"):
        done = libc.renamex_np(names[0], names[1], _RENAME_EXCHANGE)  # RENAME_SWAP has the same number
    else:
        return False
    if done == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False  # this file system has no exchange
    raise OSError(code, os.strerror(code), os.fspath(other))


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the advisory lock of a folder, which the kernel drops when the process dies; False when somebody has it."""
    if fcntl is None:
        yield False
        return
    try:
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            free = True
        except OSError:  # held by another save, or a file system without locks
            free = False
        yield free
    finally:
        os.close(handle)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
