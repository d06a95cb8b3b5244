"""The examples of searches on many machines are what they say: shell, YAML, and command lines that are understood."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tsdistill.cli import app

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "search"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
MANIFESTS = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
PAGES = [ROOT / "docs" / "guides" / name for name in ("search-on-many-machines.md", "search.md")]


def understood(words: list[str]) -> dict[str, Any]:
    """What the real parser makes of a command line; an error if it refuses."""
    command: Any = typer.main.get_command(app)
    assert words[0] == "tsdistill"
    name, rest, parent = "tsdistill", words[1:], None
    while hasattr(command, "resolve_command"):
        parent = command.make_context(name, rest, parent=parent)
        name, command, rest = command.resolve_command(parent, [*parent._protected_args, *parent.args])
    return dict(command.make_context(name, rest, parent=parent).params)


def command_lines(text: str) -> list[list[str]]:
    """The lines of a shell script that call tsdistill, without what the shell makes of their ends."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^ *(?:ssh .*? )?(tsdistill [^#\n]*)", joined, flags=re.MULTILINE)
    return [shlex.split(re.sub(r"\$\{?\w+\}?", "13000", line).rstrip("& ")) for line in lines]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_shell_whose_commands_are_understood(script: Path) -> None:
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    lines = command_lines(script.read_text())
    assert lines
    for words in lines:
        understood(words)


def test_a_script_for_slurm_asks_for_what_the_guide_says() -> None:
    text = (FOLDER / "slurm.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, flags=re.MULTILINE))
    assert {"array", "requeue", "signal", "cpus-per-task", "time"} <= options.keys()
    assert understood(command_lines(text)[0])["storage"] == "env:STUDIES"


def test_the_manifests_are_consistent() -> None:
    server, service, job = MANIFESTS
    assert [manifest["kind"] for manifest in MANIFESTS] == ["Deployment", "Service", "Job"]
    pod = server["spec"]["template"]
    assert server["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"] == service["spec"]["selector"]
    served = understood(pod["spec"]["containers"][0]["command"])
    port = service["spec"]["ports"][0]["port"]
    assert served["port"] == port == pod["spec"]["containers"][0]["ports"][0]["containerPort"]
    assert server["spec"]["replicas"] == 1
    worker = understood(job["spec"]["template"]["spec"]["containers"][0]["command"])
    assert worker["storage"] == f"grpc://{service['metadata']['name']}:{port}"
    mounted = {mount["name"] for mount in job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_guide_are_understood(page: Path) -> None:
    blocks = re.findall(r"^```\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = command_lines("\n".join(blocks))
    assert len(lines) >= 2
    for words in lines:
        understood(words)


def test_a_line_that_is_not_understood_is_noticed() -> None:
    with pytest.raises(Exception, match="--storages"):
        understood(["tsdistill", "search", "--storages", "x"])
