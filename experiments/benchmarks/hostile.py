"""How long it takes, and how much memory, to refuse (or read) what asks for work without end.

    python experiments/benchmarks/hostile.py

Each case runs in a process of its own that may have 4 GiB of addresses (`RLIMIT_AS`; the libraries alone take two),
after everything is imported. `hostile.csv` beside this file keeps the seconds, the megabytes of memory that the case
added at most, and the beginning of what it said. A case that takes more than 2 s or 1 GB is marked.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import tsdistill as td
from tsdistill.data import Reading, read_sql
from tsdistill.data.sources import read_file
from tsdistill.errors import TsdistillError
from tsdistill.recipe import Recipe, default_recipe
from tsdistill.recipe.teacher import RegressorTeacherSpec
from tsdistill.report.machine import machine

LIMIT = 4 * 2**30
MOST_SECONDS, MOST_MB = 2.0, 1000.0
STAMPS = pd.date_range("2024-01-01", periods=50, freq="h")


def objects(cell: object, n_columns: int = 19_000) -> pd.DataFrame:
    columns = {f"c{number}": pd.Series([cell] * len(STAMPS), dtype=object) for number in range(n_columns)}
    return pd.DataFrame({"ds": STAMPS, **columns})


def wide(n_columns: int) -> pd.DataFrame:
    return pd.DataFrame(np.ones((50, n_columns)), index=STAMPS, columns=[f"c{n}" for n in range(n_columns)])


def database() -> str:
    Path("empty.db").touch()
    return "sqlite:///empty.db"


def parquet_folder() -> Path:
    folder = Path("folder")
    folder.mkdir()
    for number in range(10_001):
        (folder / f"{number}.parquet").touch()
    return folder


def listed_files() -> Path:
    deployed = td.export(td.LinearConfig().build(td.testing.toy_signature()))
    folder = td.save(deployed, "artifact")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] |= {f"file-{number}": "0" * 64 for number in range(100_000)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def recipe_of(text: str) -> Path:
    path = Path("recipe.toml")
    path.write_text(text)
    return path


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) AS y FROM c"
CASES: dict[str, tuple[Callable[[], object], Callable[[object], object]]] = {
    "19,000 columns of text": (lambda: objects("x"), td.Panel.from_frame),  # type: ignore[dict-item]
    "19,000 columns of numbers as objects": (lambda: objects(1.5), td.Panel.from_frame),  # type: ignore[dict-item]
    "19,000 columns of lists": (lambda: objects([1]), td.Panel.from_frame),  # type: ignore[dict-item]
    "100,000 columns": (lambda: wide(100_000), td.Panel.from_frame),  # type: ignore[dict-item]
    "100,000 targets that are no columns": (
        lambda: wide(19_000),
        lambda df: td.Panel.from_frame(df, target=[f"z{n}" for n in range(100_000)]),  # type: ignore[arg-type]
    ),
    "10,001 Parquet files": (parquet_folder, lambda path: td.read_parquet(path)),  # type: ignore[arg-type]
    "100,000 listed files": (listed_files, lambda path: td.load(path)),  # type: ignore[arg-type]
    "an address for a path": (lambda: "postgresql://u:hunter2@h/d", lambda path: read_file(path, Reading())),  # type: ignore[arg-type]
    "a query without end (limit 1 s)": (database, lambda url: read_sql(url, ENDLESS, time_limit=1)),
    "a cell of 1.8 GB": (database, lambda url: read_sql(url, "SELECT hex(zeroblob(900000000)) AS y")),
    "10^9 trees": (
        lambda: {"n_estimators": 10**9},
        lambda given: RegressorTeacherSpec(regressor="RandomForestRegressor", settings=given),  # type: ignore[arg-type]
    ),
    "10^12 trials": (default_recipe, lambda recipe: td.search.run(recipe, "out", n_trials=10**12)),  # type: ignore[arg-type]
    "10^6 workers": (default_recipe, lambda recipe: td.search.run(recipe, "out", n_trials=1, workers=10**6)),  # type: ignore[arg-type]
    "seed 2^70 of a search": (lambda: 2**70, lambda seed: td.search.create_study("x", seed=seed)),  # type: ignore[arg-type]
    "a recipe nested 10^5 deep": (lambda: recipe_of("x = " + "[" * 10**5), Recipe.from_file),  # type: ignore[dict-item]
    "a recipe with a number of 5,000 digits": (lambda: recipe_of("seed = " + "9" * 5000), Recipe.from_file),  # type: ignore[dict-item]
    "a recipe of 10^6 layers": (
        lambda: recipe_of('[student.model]\nkind = "mlp"\ndepth = 1000000\n[data]\ndataset = "nyc-weather"\n'),
        Recipe.from_file,  # type: ignore[dict-item]
    ),
}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(name: str) -> None:
    """One case, in this process: JSON on the last line."""
    make, act = CASES[name]
    given = make()
    before, start = peak_mb(), time.perf_counter()
    try:
        act(given)
        outcome = "read"
    except TsdistillError as error:
        outcome = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": round(seconds, 2), "mb": round(peak_mb() - before), "outcome": outcome[:100]}))


def main() -> None:
    rows = []
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, str(Path(__file__).resolve()), name],
                capture_output=True, text=True, cwd=folder, timeout=120, check=False,
                env=os.environ | {"PYTHONPATH": str(Path(td.__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"},
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT)),
            )  # fmt: skip
        failed = {"seconds": None, "mb": None, "outcome": (done.stderr.strip().splitlines() or ["nothing"])[-1][:100]}
        result = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else failed
        holds = result["seconds"] is not None and result["seconds"] <= MOST_SECONDS and result["mb"] <= MOST_MB
        rows.append({"case": name, **result, "within 2 s and 1 GB": holds, "cpu": machine()["cpu"]})
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(Path(__file__).with_suffix(".csv"), index=False)


if __name__ == "__main__":
    run(sys.argv[1]) if len(sys.argv) > 1 else main()
