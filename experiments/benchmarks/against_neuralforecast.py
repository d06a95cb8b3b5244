"""Training steps against neuralforecast's, which has an environment of its own: ratios in one run, taking turns.

    python experiments/benchmarks/against_neuralforecast.py --rival PATH/TO/ITS/python

On ETTh1 (training part, 7 channels, context 336, horizon 96), 256 windows x 7 channels a step, float32, no validation:
seconds of a step of our linear map and MLP (width 64, depth 2) against neuralforecast's NLinear and MLP (two hidden
layers of 64). Theirs are the slope between a short and a long fit, so that its start-up does not count.
`against_neuralforecast.csv` beside this file keeps them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import pandas as pd
import torch
from training_loop import Stepped, package_loop

import tsdistill as td
from tsdistill.report.machine import machine

REPEATS, BATCH = 3, 256

RIVAL = """
import json, logging, sys, time, warnings
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import pandas as pd, torch
torch.set_num_threads(int(sys.argv[2]))
from neuralforecast import NeuralForecast
from neuralforecast.models import MLP, NLinear

frame = pd.read_csv(sys.argv[1], parse_dates=["ds"])
quiet = dict(enable_progress_bar=False, enable_model_summary=False, logger=False, enable_checkpointing=False)
common = dict(h=96, input_size=336, batch_size=7, windows_batch_size=1792, scaler_type="identity", **quiet)


def seconds(make, n_steps):
    model = make(max_steps=n_steps, val_check_steps=10**6, **common)
    forecast = NeuralForecast(models=[model], freq="h")
    began = time.perf_counter()
    forecast.fit(df=frame)
    return time.perf_counter() - began


found = {}
for name, make in (("linear", NLinear), ("mlp", lambda **how: MLP(num_layers=2, hidden_size=64, **how))):
    seconds(make, 2)
    found[name] = (seconds(make, 42) - seconds(make, 2)) / 40
print("RESULT" + json.dumps(found))
"""


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival", help="The Python that has neuralforecast.")
    rival = parser.parse_args().rival
    if rival is None:
        print("not measured: name the Python of an environment that has neuralforecast with --rival")
        return
    task = td.Task(td.datasets.load("etth1"), context=336, horizon=96)
    training = td.Training(epochs=1, batch_size=BATCH, precision="float32")
    models = {
        "linear": Stepped(td.LinearConfig(), task.signature),
        "mlp": td.MLPConfig(width=64).build(task.signature),
    }
    n_steps = -(-len(task.train) // BATCH)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    with tempfile.TemporaryDirectory() as folder:
        series = Path(folder) / "series.csv"
        _long(task).to_csv(series, index=False)
        for _ in range(REPEATS):
            command = [rival, "-c", RIVAL, str(series), str(torch.get_num_threads())]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rival_seconds = json.loads(output.split("RESULT")[1])
            for name, model in models.items():
                seconds[name].append((package_loop(model, task, training, Path(folder)) / n_steps, rival_seconds[name]))
    rows = [
        {
            "model": name,
            "ratio": statistics.median(rival_time / mine for mine, rival_time in pairs),
            "seconds_a_step": statistics.median(mine for mine, _ in pairs),
            "against_seconds": statistics.median(rival_time for _, rival_time in pairs),
        }
        for name, pairs in seconds.items()
    ]
    table = pd.DataFrame(rows).assign(cpu=machine().get("cpu"), threads=torch.get_num_threads())
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    print(table.to_string(index=False))


def _long(task: td.Task) -> pd.DataFrame:
    """The scaled training part in the long form that neuralforecast reads."""
    rows = task.train.series[: task.borders[0].train].numpy()
    stamps = pd.date_range("2016-07-01", periods=len(rows), freq="h")
    frame = pd.DataFrame(rows, columns=list(task.channels)).assign(ds=stamps)
    return frame.melt(id_vars="ds", var_name="unique_id", value_name="y")


if __name__ == "__main__":
    main()
