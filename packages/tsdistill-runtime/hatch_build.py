"""Builds the package `tsdistill_runtime`: `tsdistill.runtime` and what it imports, under another name."""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path(__file__).resolve().parents[2] / "tsdistill"
NAME = "tsdistill_runtime"
INIT = '''"""Forecasts from models saved by tsdistill, with numpy and onnxruntime and nothing heavier."""

from __future__ import annotations

from tsdistill_runtime.runtime import Predictor, load, verify

__all__ = ["Predictor", "load", "verify"]
__version__ = "{version}"
'''

_IMPORT = re.compile(r"^(\s*from tsdistill)(?=[. ])", flags=re.MULTILINE)


def modules() -> dict[str, Path]:
    """Files that the runtime imports, itself included, by their place in the package."""
    paths: dict[str, Path] = {}
    pending = ["runtime"]
    while pending:
        name = pending.pop().replace(".", "/")
        if "/" in name:
            pending.append(name.rpartition("/")[0])
        for place in (f"{name}.py", f"{name}/__init__.py"):
            if (SOURCE / place).is_file() and place not in paths:
                paths[place] = SOURCE / place
                pending += _imported(paths[place].read_text(encoding="utf-8"))
    return dict(sorted(paths.items()))


def _imported(text: str) -> list[str]:
    """Modules of tsdistill that a source file imports, without the name of the package."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "tsdistill":
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tsdistill."):
            names.append(str(node.module).removeprefix("tsdistill."))
    return names


def assemble(folder: Path, version: str) -> None:
    """Write the package into a folder."""
    if not (SOURCE / "runtime.py").is_file():
        raise FileNotFoundError(f"the sources must be at {SOURCE}: build the wheel inside a checkout of tsdistill")
    for place, path in modules().items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(_IMPORT.sub(r"\1_runtime", path.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "__init__.py").write_text(INIT.format(version=version), encoding="utf-8")
    (folder / "py.typed").touch()


class SameSource(BuildHookInterface):  # type: ignore[type-arg]
    """Assembles the package beside the build and removes it again."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Assemble."""
        self.folder = Path(tempfile.mkdtemp())
        assemble(self.folder, self.metadata.version)
        build_data["force_include"][str(self.folder)] = NAME

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clean up."""
        shutil.rmtree(self.folder, ignore_errors=True)
