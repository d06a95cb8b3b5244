"""The manifest of an artifact folder: kind, config, signature, lineage, and the digest of every file.

Standard library only, so that a machine without torch, pydantic or pandas can read and check an artifact. Reading never
executes anything: JSON is parsed, digests are compared, and tensor and ONNX files are walked as plain bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from tsdistill.errors import ArtifactError, check_type, listed, must, nearest, shown
from tsdistill.formats import MAX_FILE_BYTES, check_onnx, is_count, parse_json, read_inside, tensors
from tsdistill.formats.offsets import offset_problems, version_of
from tsdistill.formats.reading import reading_problems
from tsdistill.plain import plain_data

SCHEMA_VERSION = 1
"""Version of the written form of artifacts; a reader refuses a newer one."""

NAME = "manifest.json"
SIGNATURE = "manifest.sig"
"""A signature of the manifest, if there is one; see `tsdistill.signatures`."""
WEIGHTS = "weights.safetensors"
MODEL = "model.onnx"
GOLDEN = "golden.safetensors"
KINDS = ("forecaster", "deployed")
PRECISIONS = ("fp32", "int8", "int8-weights", "int4-weights")
MAX_BYTES = 16 * 2**20
MAX_FILES = 64
MAX_CHANNELS = 2**20
MAX_STEPS = 2**24
ATTEMPTS = 20
"""How often a folder is read again because another one replaced it while it was read."""

Check = Callable[[bytes, bytes | None], None]
"""Looks at the bytes of a manifest and of its signature, if it has one; a ValueError says what is wrong."""

_COVARIATES = ("calendar", "holidays", "future", "past")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class File(NamedTuple):
    """Digest and size of one file of an artifact."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Deployment:
    """What the runtime must know of a deployed model beside its graph.

    Args:
        precision: "fp32", "int8", or "int8-weights" or "int4-weights" (weight-only).
        isolate: Run one window at a time, so that no other window changes a forecast.
        n_parameters: Weights of the trained model the graph was made from.
        parity: How far the graph's forecasts were from the trained model's where it was made, and the tolerance.
        float_operators: Operators that compute in floating point, and how many of each; absent in older artifacts.
    """

    precision: str
    isolate: bool
    n_parameters: int
    parity: dict[str, Any]
    float_operators: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest, as plain data.

    Args:
        kind: "forecaster" (trainable) or "deployed".
        config: The model's config as plain data.
        signature: Steps, channels, scaling and frequency as plain data.
        lineage: Steps that made the model, oldest first.
        files: Digest and size of every file beside the manifest.
        metrics: Numbers kept with the model, such as validation metrics.
        deployment: Present exactly when `kind` is "deployed".
        reading: How the table was read that the model was trained on; absent in older artifacts.
    """

    kind: str
    config: dict[str, Any]
    signature: dict[str, Any]
    lineage: list[dict[str, Any]]
    files: dict[str, File]
    metrics: dict[str, Any] = field(default_factory=dict)
    deployment: Deployment | None = None
    reading: dict[str, Any] | None = None

    def to_bytes(self) -> bytes:
        """The file as written: JSON with a digest of its own content; numbers that are not finite become null."""
        values: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS if getattr(self, name) is not None}
        values["files"] = {name: entry._asdict() for name, entry in sorted(self.files.items())}
        if self.deployment is not None:
            values["deployment"] = asdict(self.deployment)
        values["metrics"] = plain_data("metrics", self.metrics)
        values = _finite({"schema_version": version_of(self.signature), **values})
        return json.dumps({**values, "sha256": _digest(values)}, indent=1, allow_nan=False).encode()


_FIELDS = tuple(item.name for item in fields(Manifest))


def entry(content: bytes) -> File:
    """Digest and size of a file's content."""
    return File(hashlib.sha256(content).hexdigest(), len(content))


def read(
    folder: str | Path, *, optional: Collection[str] = (), check: Check | None = None
) -> tuple[Manifest, dict[str, bytes]]:
    """Read an artifact folder whole: its manifest and the verified content of every file.

    A folder that is replaced by a newer artifact while it is read is read again, so that a reader sees the
    old or the new one and never a mixture.

    Args:
        folder: The artifact.
        optional: Files that may be absent; present ones are checked like the others.
        check: Asked about the manifest before anything else is believed; see `tsdistill.signatures.checker`.

    Returns:
        The manifest, and per file name its content.

    Raises:
        ArtifactError: Anything is missing, damaged, tampered with, outside the folder or of a newer schema; every
            problem is listed.
    """
    check_type("folder", folder, (str, os.PathLike), "Pass the path of an artifact as text or as a pathlib.Path")
    folder = Path(folder)
    for _ in range(ATTEMPTS):
        problems: list[str] = []
        place = _present(folder)
        with _opened(place) as handle:
            manifest = _manifest(place, handle, problems, check)
            contents = _contents(place, handle, manifest, optional, problems) if manifest is not None else {}
            if manifest is not None and not problems:
                return manifest, contents
            if _is_the_same(_present(folder), handle):
                break
    raise ArtifactError(listed(problems, f"artifact {folder}"))


def unlisted(folder: str | Path, manifest: Manifest) -> list[str]:
    """Names in the folder that the manifest does not list; no loader reads them."""
    return sorted(set(os.listdir(folder)) - set(manifest.files) - {NAME, SIGNATURE})


def aside(folder: Path) -> Path:
    """Where a saver keeps the old artifact while it puts the new one in its place without an atomic exchange."""
    return folder.with_name(f".{folder.name}.old")


def _present(folder: Path) -> Path:
    """The folder, or the old artifact moved aside by a save that was killed before the new one was in place."""
    return aside(folder) if not folder.exists() and aside(folder).is_dir() else folder


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """A handle on the folder, so that no newer one can take over its number on the disk; None if there is none."""
    try:
        # Not waiting: it may be a FIFO by now.
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _is_the_same(folder: Path, handle: int | None) -> bool:
    """Whether the path still leads to the folder of the handle; True as well when there never was one."""
    try:
        status = os.stat(folder)
    except OSError:
        return handle is None
    return handle is not None and os.path.samestat(status, os.fstat(handle))


def _manifest(folder: Path, handle: int | None, problems: list[str], check: Check | None) -> Manifest | None:
    """The checked manifest, or None with what is wrong appended."""
    if not folder.is_dir():
        problems.append(f"{folder} must be an artifact folder, but there is no such folder. Check the path.")
        return None
    try:
        content = read_inside(folder, NAME, MAX_BYTES, handle)
        if check is not None and (refusal := _refused(folder, handle, content, check)):
            problems.append(refusal)
            return None
        values = parse_json(content)
    except (OSError, ValueError) as error:
        problems.append(f"{NAME} cannot be read: {error}. Save the model again.")
        return None
    version = values.pop("schema_version", None)
    if not is_count(version, least=1):
        problems.append(must("schema_version", "be a whole number of at least 1", version, "Save the model again"))
        return None
    if version > version_of(values.get("signature")):
        rule = f"be at most {version_of(values.get('signature'))}"
        problems.append(must("schema_version", rule, version, "Update tsdistill to read what a newer one wrote"))
        return None
    for name, entries in ((NAME, values), ("files", values.get("files"))):
        if isinstance(entries, dict) and len(entries) > MAX_FILES:  # too many to look at one by one
            kind = "files" if name == "files" else f"fields (such as the unknown field `{list(entries)[-1][:80]}`)"
            problems.append(f"{NAME} must list at most {MAX_FILES} {kind}, got {len(entries)}. Save the model again.")
    if problems:
        return None
    claimed = values.pop("sha256", None)
    if claimed != _digest({"schema_version": version, **values}):
        problems.append(f"{NAME} does not match its own digest: it was changed after it was written.")
    _check_fields(values, problems)
    if problems:
        return None
    values["files"] = {name: File(**entry) for name, entry in values["files"].items()}
    if values.get("deployment") is not None:
        values["deployment"] = Deployment(**values["deployment"])
    return Manifest(**values)


def _refused(folder: Path, handle: int | None, content: bytes, check: Check) -> str | None:
    """Why a manifest is not signed as it is asked to be."""
    try:
        is_signed = os.path.lexists(folder / SIGNATURE)
        check(content, read_inside(folder, SIGNATURE, MAX_BYTES, handle) if is_signed else None)
    except (OSError, ValueError) as error:
        return f"{NAME} is not to be trusted: {error}. Get the artifact from whoever signs it, or sign it yourself."
    return None


def _check_fields(values: dict[str, Any], problems: list[str]) -> None:
    unknown = sorted(values.keys() - set(_FIELDS))
    problems += [f"{NAME} has an unknown field `{name[:80]}`. {nearest(name, _FIELDS)}" for name in unknown]
    if values.get("kind") not in KINDS:
        problems.append(must("kind", f"be one of {', '.join(KINDS)}", values.get("kind"), "Save the model again"))
    for name in ("config", "signature", "files", "metrics"):
        if not isinstance(values.get(name, {} if name == "metrics" else None), dict):
            problems.append(must(name, "be a JSON object", values.get(name), "Save the model again"))
    lineage = values.get("lineage")
    if not isinstance(lineage, list) or not all(isinstance(step, dict) for step in lineage):
        problems.append(must("lineage", "be a list of JSON objects", lineage, "Save the model again"))
    if isinstance(values.get("signature"), dict):
        _check_signature(values["signature"], problems)
    if values.get("reading") is not None:
        problems += reading_problems(values["reading"])
    required = [WEIGHTS] if values.get("kind") == "forecaster" else [MODEL, GOLDEN]
    if values.get("kind") == "deployed":
        _check_deployment(values.get("deployment"), problems)
    elif values.get("deployment") is not None:
        problems.append(f"{NAME} describes a deployment, but its kind is {shown(values.get('kind'))}.")
    if isinstance(values.get("files"), dict):
        _check_files(values["files"], required, problems)


def _check_signature(values: Mapping[str, Any], problems: list[str]) -> None:
    for name in ("context", "horizon"):
        if not is_count(values.get(name), least=1) or values[name] > MAX_STEPS:
            rule = f"be a whole number from 1 to {MAX_STEPS}"
            problems.append(must(f"signature.{name}", rule, values.get(name), "Save again"))
    channels: Any = values.get("channels")
    if not _is_list(channels, str) or not 0 < len(set(channels)) == len(channels) <= MAX_CHANNELS:
        rule = f"be a list of distinct names, at most {MAX_CHANNELS}"
        problems.append(must("signature.channels", rule, channels, "Save again"))
        channels = ()
    for name in ("mean", "scale"):
        numbers: Any = values.get(name)
        sound = _is_list(numbers, (int, float)) and len(numbers) == len(channels) and all(map(_is_number, numbers))
        if not sound or (name == "scale" and min(numbers) <= 0):
            above = " above 0" if name == "scale" else ""
            problems.append(
                must(f"signature.{name}", f"hold a finite number{above} per channel", numbers, "Save again")
            )
    problems += offset_problems(values)
    if (kind := values.get("normalisation", "scaler")) not in ("scaler", "window"):
        problems.append(must("signature.normalisation", 'be "scaler" or "window"', kind, "Save again"))
    if not isinstance(values.get("frequency"), str | None):
        problems.append(must("signature.frequency", "be a name or absent", values.get("frequency"), "Save again"))
    for name in ("future", "past"):
        if not _is_list(values.get(name, []), str):
            problems.append(must(f"signature.{name}", "be a list of names", values.get(name), "Save again"))
    covariates = values.get("covariates")
    is_sound = isinstance(covariates, dict) and all(_is_list(covariates.get(name, []), str) for name in _COVARIATES)
    if covariates is not None and not is_sound:
        rule = f"hold lists of names: {', '.join(_COVARIATES)}"
        problems.append(must("signature.covariates", rule, covariates, "Save again"))


def _check_deployment(values: Any, problems: list[str]) -> None:
    types = {"precision": str, "isolate": bool, "n_parameters": int, "parity": dict, "float_operators": dict}
    if not isinstance(values, dict):
        problems.append(must("deployment", "be a JSON object", values, "Save the model again"))
        return
    unknown = sorted(values.keys() - set(types))[:MAX_FILES]
    problems += [f"`deployment.{name[:80]}` is not a known field. {nearest(name, types)}" for name in unknown]
    fields_given: dict[str, Any] = {"float_operators": {}, **values}
    wrong = [name for name, kind in types.items() if not isinstance(fields_given.get(name), kind)]
    problems += [
        must(f"deployment.{name}", f"be a {types[name].__name__}", values.get(name), "Save again") for name in wrong
    ]
    if "precision" not in wrong and values["precision"] not in PRECISIONS:
        rule = f"be one of {', '.join(PRECISIONS)}"
        problems.append(must("deployment.precision", rule, values["precision"], "Save the model again"))
    if "parity" in wrong:
        return
    unit = values["parity"].get("unit", [1.0])
    tolerance = values["parity"].get("tolerance", 1.0)
    if not _is_list(unit, (int, float)) or not unit or not all(_is_number(number) and number > 0 for number in unit):
        rule = "hold a finite number above 0 per channel"
        problems.append(must("deployment.parity.unit", rule, unit, "Save the model again"))
    if not _is_number(tolerance) or tolerance < 0:
        rule = "be a finite number of at least 0"
        problems.append(must("deployment.parity.tolerance", rule, tolerance, "Save the model again"))


def _check_files(files: Mapping[str, Any], required: list[str], problems: list[str]) -> None:
    problems += [
        f"{NAME} must list the file {name!r}, which a model of this kind needs."
        for name in required
        if name not in files
    ]
    for name, listing in files.items():
        if not _PLAIN_NAME.fullmatch(name) or name in (NAME, SIGNATURE):
            problems.append(f"file names must be plain names inside the folder, got {name!r}. Nothing outside is read.")
        is_whole = isinstance(listing, dict) and listing.keys() == {"sha256", "size_bytes"}
        is_sound = is_whole and isinstance(listing["sha256"], str) and _SHA256.fullmatch(listing["sha256"])
        if not is_sound or not is_count(listing["size_bytes"]) or listing["size_bytes"] > MAX_FILE_BYTES:
            problems.append(must(f"files.{name}", "hold sha256 and size_bytes", listing, "Save the model again"))


def _contents(
    folder: Path, handle: int | None, manifest: Manifest, optional: Collection[str], problems: list[str]
) -> dict[str, bytes]:
    """Verified content of every file; what is wrong is appended to `problems`."""
    contents = {}
    for name, expected in manifest.files.items():
        if name in optional and not os.path.lexists(folder / name):
            continue
        try:
            content = read_inside(folder, name, expected.size_bytes, handle)
        except (OSError, ValueError) as error:
            problems.append(f"{name} cannot be read: {error}. Copy or save the artifact again.")
            continue
        actual = entry(content)
        if actual != expected:
            problems.append(
                f"{name} must have the digest {expected.sha256[:12]}... and {expected.size_bytes} bytes that the "
                f"manifest lists, got {actual.sha256[:12]}... and {actual.size_bytes} bytes. Copy or save it again."
            )
            continue
        try:
            if name.endswith(".safetensors"):
                tensors(content)
            elif name.endswith(".onnx"):
                check_onnx(content)
        except ValueError as error:
            problems.append(f"{name} cannot be used: {error}. Save the model again.")
        contents[name] = content
    return contents


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is_number(value: object) -> bool:
    """Whether this is a finite number that float64 can hold."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_list(value: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(isinstance(item, kinds) and not isinstance(item, bool) for item in value)
