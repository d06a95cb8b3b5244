"""The Python of the README runs as it is printed, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)  # noqa: S102 - our own README
    assert len(blocks) >= 2
    assert (tmp_path / "report.html").exists()
    assert 0 <= names["table"].row("sure").coverage <= 1
    assert names["tomorrow"].shape == (24, 1 + 17 * 3)
    assert names["table"].row("theta").n_windows == 5
    assert names["forecast"].shape == (1, 24, 18)
    assert [trial.state.name for trial in names["study"].trials] == ["COMPLETE"] * 2
    assert names["best"].teacher.model == names["teacher"].config


def test_the_recipe_and_the_job_of_the_readme_are_ones() -> None:
    from tsdistill.recipe import Recipe
    from tsdistill.retrain import Job

    recipe, job = re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert Recipe.from_toml(recipe).data.fill == "interpolate"
    assert Job.from_toml(job).judge == 168


@pytest.mark.parametrize(
    ("page", "experiment"),
    [("README.md", "001-whole-pipeline"), ("docs/guides/compression.md", "010-techniques")],
    ids=["README", "guide"],
)
def test_results_on_a_page_are_those_of_the_experiment(page: str, experiment: str) -> None:
    text = (README.parent / page).read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- results: (\S+) -->\n(.*?)<!-- end of results -->", text, flags=re.DOTALL)
    assert [path for path, _ in blocks] == [f"experiments/{experiment}/summary.md"]
    for path, shown in blocks:
        assert shown == (README.parent / path).read_text(encoding="utf-8")
