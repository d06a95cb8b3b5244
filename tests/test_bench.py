"""What a model costs: rows that add up, memory of a process of its own, joules where a machine counts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.deployables import exported, forecaster
from tests.test_cli import shell
from tsdistill.artifacts import save
from tsdistill.errors import ArtifactError, ConfigError
from tsdistill.evaluation import bench, peak_bytes
from tsdistill.evaluation.energy import counters, energy, joules
from tsdistill.exporting import Deployed
from tsdistill.models import Forecaster
from tsdistill.pruning import macs_of


def test_every_model_and_batch_has_a_row_that_adds_up() -> None:
    models: dict[str, Forecaster | Deployed] = {"onnx": exported("linear"), "torch": forecaster("linear")}
    rows = bench(models, batches=(1, 67), n_runs=11)
    assert [(row["name"], row["batch"]) for row in rows] == [("onnx", 1), ("torch", 1), ("onnx", 67), ("torch", 67)]
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["windows_per_second"] == pytest.approx(row["batch"] / row["p50_ms"] * 1e3)
        assert row["n_runs"] == 11


@pytest.mark.parametrize("batches", [(), (0,), (1, 2.5)])
def test_batches_are_counts(batches: Any) -> None:
    with pytest.raises(ConfigError, match="`batches` must be whole numbers"):
        bench({"it": forecaster("linear")}, batches=batches)


def test_a_process_of_its_own_tells_its_memory(tmp_path: Path) -> None:
    save(exported("linear"), tmp_path / "m")
    assert 10e6 < peak_bytes(tmp_path / "m") < 1e9
    (tmp_path / "m" / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"it failed: .*model\.onnx cannot be read"):
        peak_bytes(tmp_path / "m")


def meter(folder: Path, value: int, name: str = "intel-rapl:0") -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{value}\n")
    (folder / name / "max_energy_range_uj").write_text("999999\n")


def test_energy_is_counted_where_the_machine_tells_it(tmp_path: Path) -> None:
    assert energy({"it": lambda: None}, folder=tmp_path) == {}
    meter(tmp_path, 5_000)
    meter(tmp_path, 1, "intel-rapl:0:0")  # a part of the package, counted in it already
    used = [0]

    def call(microjoules: int) -> None:
        used[0] += microjoules
        meter(tmp_path, (5_000 + used[0]) % 1_000_000)

    joules = energy({"small": lambda: call(7), "large": lambda: call(21)}, seconds=0.0, folder=tmp_path)
    assert joules["large"] == pytest.approx(3 * joules["small"]) == pytest.approx(21e-6)


def test_a_counter_that_starts_anew_is_counted_on(tmp_path: Path) -> None:
    meter(tmp_path, 999_990)
    before = counters(tmp_path)
    meter(tmp_path, 9)
    assert joules(before, counters(tmp_path)) == pytest.approx(19e-6)


def test_counters_that_may_not_be_read_are_none(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    assert counters(tmp_path) == {}


@pytest.mark.slow
def test_the_shell_measures_two_models_in_turns(tmp_path: Path) -> None:
    save(exported("linear"), tmp_path / "onnx")
    save(forecaster("linear"), tmp_path / "torch")
    done = shell("bench", "onnx", "--against", "torch", "--batch", 3, "--runs", 5, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["rows"]
    assert (first["name"], first["runtime"], second["runtime"]) == ("onnx", "onnx fp32", "torch fp32")
    assert first["macs"] == second["macs"] == macs_of(forecaster("linear")) > 0
    assert first["peak_bytes"] < second["peak_bytes"]
    assert first["size_bytes"] == exported("linear").size_bytes
