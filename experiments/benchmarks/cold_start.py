"""From the start of a process to its first forecast: the runtime against bare numpy and onnxruntime, and against torch.

    python experiments/benchmarks/cold_start.py

An LSTM student of width 64 (two layers, patches, context 336, horizon 96, one channel; its weights do not matter) is
saved trainable and deployed. Fresh processes take turns: one that opens the graph with onnxruntime itself, one with the
light package, one with the runtime of the full package, one that loads the trainable model with torch. Each forecasts
one window on one thread and says so; `cold_start.csv` beside this file keeps the medians over the rounds, in seconds
by the clock and of processor time, and how much each is above the bare process.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

import tsdistill as td
from tsdistill.data.task import Signature
from tsdistill.report.machine import machine

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("ROUNDS", "21"))

WAYS = {
    "bare onnxruntime": (
        "import numpy as np, onnxruntime\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.intra_op_num_threads = options.inter_op_num_threads = 1\n"
        "place = folder + '/deployed/model.onnx'\n"
        "session = onnxruntime.InferenceSession(place, options, providers=['CPUExecutionProvider'])\n"
        "session.run(['forecast'], {'context': np.zeros((1, 336, 1), np.float32)})\n"
    ),
    "light package": (
        "import numpy as np\nfrom tsdistill_runtime import load\n"
        "load(folder + '/deployed').predict(np.zeros((1, 336, 1), np.float32))\n"
    ),
    "full package's runtime": (
        "import numpy as np\nfrom tsdistill.runtime import load\n"
        "load(folder + '/deployed').predict(np.zeros((1, 336, 1), np.float32))\n"
    ),
    "torch": (
        "import numpy as np, torch\nimport tsdistill as td\ntorch.set_num_threads(1)\n"
        "td.load(folder + '/trainable').predict(np.zeros((1, 336, 1), np.float32))\n"
    ),
}


def prepare(folder: Path) -> None:
    """Save the model in both forms and put the light package together."""
    signature = Signature(context=336, horizon=96, channels=("load",), mean=(50.0,), scale=(3.0,), frequency="h")
    model = td.LSTMConfig(widths=(64, 64), patch=16).build(signature, 0)
    td.save(model, folder / "trainable")
    td.save(td.export(model), folder / "deployed")
    place = ROOT / "packages" / "tsdistill-runtime" / "hatch_build.py"
    spec = importlib.util.spec_from_file_location("light_build", place)
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    build.assemble(folder / "tsdistill_runtime", td.__version__)


def start(code: str, folder: Path) -> tuple[float, float]:
    """Seconds by the clock until a fresh process has forecast, and its processor time."""
    whole = f"folder = {str(folder)!r}\n{code}print('forecast', flush=True)\nimport os; os._exit(0)\n"
    paths = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", whole], stdout=subprocess.PIPE, env=environment, cwd=folder)
    assert child.stdout is not None
    assert child.stdout.readline() == b"forecast\n"
    taken = time.perf_counter() - begun
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stdout.close()
    return taken, used.ru_utime + used.ru_stime


def main() -> None:
    """Measure in turns, print and keep."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        for code in WAYS.values():
            start(code, Path(place))  # compiles what is new, and brings the files into memory
        for _ in range(ROUNDS):
            for name, code in WAYS.items():
                seconds[name].append(start(code, Path(place)))
    rows = []
    for name, pairs in seconds.items():
        clock, used = (statistics.median(values) for values in zip(*pairs, strict=True))
        bare = [one - other for (one, _), (other, _) in zip(pairs, seconds["bare onnxruntime"], strict=True)]
        rows.append(
            {
                "process": name,
                "seconds": clock,
                "cpu_seconds": used,
                "seconds_above_bare": statistics.median(bare),
                "cpu_seconds_above_bare": used - rows[0]["cpu_seconds"] if rows else 0.0,
                "rounds": ROUNDS,
                "cpu": machine().get("cpu"),
            }
        )
    table = pd.DataFrame(rows)
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
