"""A command that needs more memory than there is ends with one sentence and an exit code of its own."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from tsdistill.cli import TOO_LITTLE_MEMORY
from tsdistill.errors import ArtifactError, ConfigError, lack_of_memory

LIMIT = 3 * 2**30


def _behind(error: BaseException) -> ArtifactError:
    outer = ArtifactError("onnxruntime cannot load the graph.")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 7.45 GiB for an array"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        _behind(RuntimeError("std::bad_alloc")),
    ],
)
def test_a_lack_of_memory_is_told_in_whatever_words_it_comes(error: BaseException) -> None:
    assert lack_of_memory(error)


@pytest.mark.parametrize("error", [ValueError("width"), OSError(errno.ENOSPC, "No space left"), ConfigError("`x`")])
def test_other_errors_are_not(error: BaseException) -> None:
    assert lack_of_memory(error) is None


def test_a_ring_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert lack_of_memory(first) is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are set by resource")
def test_a_run_that_needs_too_much_ends_with_one_sentence(tmp_path: Path) -> None:
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({LIMIT}, {LIMIT}))\n"
        "import sys; sys.argv[0] = 'tsdistill'\n"
        "from tsdistill.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "run", "--out", str(tmp_path / "out")]
    command += ["--set", "teacher.model.kind=lstm", "--set", "teacher.model.widths=[11000]"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert result.returncode == TOO_LITTLE_MEMORY, result.stderr
    assert "There is too little memory for this" in result.stderr
    assert "Traceback" not in result.stderr
