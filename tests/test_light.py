"""The light distribution: the runtime under a name of its own, from the same files, beside the full one or alone."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tsdistill
from tests.deployables import contexts, exported, forecaster, in_deviations
from tsdistill.artifacts import save

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "packages" / "tsdistill-runtime"
TABLES = {path.relative_to(ROOT / "tsdistill").as_posix() for path in (ROOT / "tsdistill" / "tables").glob("*.py")}
"""What reads frames, for training and for serving."""

NAMES = ("tsdistill_runtime", "tsdistill")


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    """The script that puts the package together."""
    spec = importlib.util.spec_from_file_location("light_build", PROJECT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def imported(folder: Path) -> set[str]:
    """Packages that the files of a folder import while they run; type checkers' imports do not count."""
    packages = set()
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        quiet = [
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        ]
        for node in ast.walk(tree):
            if node in quiet:
                continue
            if isinstance(node, ast.Import):
                packages |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                packages.add(str(node.module).split(".")[0])
    return packages - set(sys.stdlib_module_names)


def test_it_holds_the_runtime_what_that_imports_and_nothing_else(hook: ModuleType, tmp_path: Path) -> None:
    hook.assemble(tmp_path, "7.11")
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    modules = {"clock.py", "errors.py", "manifest.py", "plain.py", "runtime.py", "signatures.py"}
    inputs = {f"inputs/{name}.py" for name in ("__init__", "arrays", "frames", "history", "levels", "planned")}
    files = ["errors", "finite", "graphs", "offsets", "operators", "protobuf", "reading", "regular", "shapes"]
    files += ["sizes", "texts", "weights"]
    formats = {"formats/__init__.py", *(f"formats/{name}.py" for name in files)}
    assert names == modules | inputs | formats | TABLES | {"__init__.py", "py.typed"}
    assert imported(tmp_path) == {"tsdistill_runtime", "numpy", "onnxruntime", "pandas", "cryptography"}
    with_pandas = [path.name for path in tmp_path.rglob("*.py") if "\nimport pandas" in path.read_text("utf-8")]
    assert {name for name in with_pandas if f"inputs/{name}" in names} == {"frames.py", "history.py", "planned.py"}
    assert {name for name in with_pandas if f"inputs/{name}" not in names} < {place.split("/")[1] for place in TABLES}


def test_it_forecasts_alone_what_torch_does(hook: ModuleType, tmp_path: Path) -> None:
    hook.assemble(tmp_path / "tsdistill_runtime", "7.11")
    check_alone(tmp_path, tmp_path)


def check_alone(site: Path, place: Path) -> None:
    """Verify and forecast in a process that cannot import the full package, torch or pandas."""
    save(exported("linear"), place / "model")
    np.save(place / "x.npy", contexts())
    blocked = ("tsdistill", "torch", "pandas", "pydantic", "onnx", "safetensors", "lazy_loader")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import numpy, tsdistill_runtime\n"
        f"assert tsdistill_runtime.__file__.startswith({str(site)!r})\n"
        f"assert tsdistill_runtime.verify({str(place / 'model')!r})['n_windows'] == 8\n"
        f"model = tsdistill_runtime.load({str(place / 'model')!r})\n"
        f"numpy.save({str(place / 'y.npy')!r}, model.predict(numpy.load({str(place / 'x.npy')!r})))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment, timeout=120, cwd=place)
    assert in_deviations(np.load(place / "y.npy") - forecaster("linear").predict(contexts())) < 2e-5


def test_it_asks_for_the_versions_that_the_full_package_asks_for() -> None:
    full, light = (
        tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"] for folder in (ROOT, PROJECT)
    )
    assert set(light["dependencies"]) < set(full["dependencies"])
    assert {name.split(">")[0] for name in light["dependencies"]} == {"numpy", "onnxruntime"}
    assert (light["requires-python"], light["license"]) == (full["requires-python"], full["license"])


@pytest.mark.slow
def test_the_two_distributions_share_no_file_and_the_light_one_works_alone(tmp_path: Path) -> None:
    owned = {}
    for project in (ROOT, PROJECT):
        command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(project)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for wheel in tmp_path.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
            owned[wheel.name] = {line.split(",")[0] for line in archive.read(record).decode().splitlines()}
    light, full = (owned[f"{name}-{tsdistill.__version__}-py3-none-any.whl"] for name in NAMES)
    assert len(owned) == 2
    assert light & full == set()
    assert {name.split("/")[0] for name in light} == {NAMES[0], f"{NAMES[0]}-{tsdistill.__version__}.dist-info"}
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(next(tmp_path.glob(f"{NAMES[0]}-*.whl")))], check=True, timeout=120)
    check_alone(site, tmp_path)
