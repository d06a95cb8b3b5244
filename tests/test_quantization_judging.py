"""What candidates are judged by besides their error: other windows that move a forecast, and the clock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.deployables import FORCED, contexts, exported, forecaster, in_deviations, int8, quantized, task
from tsdistill.errors import UnsupportedError
from tsdistill.evaluation.latency import Latency
from tsdistill.exporting import Deployed
from tsdistill.quantization import Quantization, candidate_table, judging, quantize
from tsdistill.report import compare
from tsdistill.report.text import footnote


def test_other_windows_move_dynamic_int8_and_isolation_stops_it() -> None:
    x = contexts(5, seed=2)
    x[4] += 200  # one window far out widens the range that the whole batch is rounded in
    shared = int8("mlp")
    alone = quantized("mlp", FORCED.replace(isolate=True))
    assert shared.parity["batch_effect"] > 0
    assert in_deviations(shared.predict(x)[0] - shared.predict(x[:1])[0]) > 0
    np.testing.assert_array_equal(alone.predict(x)[0], alone.predict(x[:1])[0])
    assert alone.parity["batch_effect"] == 0
    assert alone.digest != shared.digest


@pytest.mark.slow
def test_batch_effects_that_go_too_far_are_refused_and_isolated_ones_taken() -> None:
    moved = int8("mlp").batch_effect
    assert 0 < moved == int8("mlp").parity["batch_effect"]
    narrow = FORCED.replace(max_batch_effect=moved / 2)
    with pytest.raises(UnsupportedError, match=r"up to .* standard deviations where max_batch_effect allows .*isolate"):
        quantize(forecaster("mlp"), task(), narrow)
    alone = quantize(forecaster("mlp"), task(), narrow.replace(isolate=True))
    assert (alone.precision, alone.batch_effect) == ("int8", 0.0)
    auto = quantize(forecaster("mlp"), task(), narrow.replace(method="auto", require_gain=True))
    rows = {row["name"]: row for row in auto.lineage[-1].metrics["candidates"]}
    assert "max_batch_effect" in rows["dynamic"]["refused"][0]
    assert rows["dynamic"]["batch_effect"] == moved
    assert rows["fp32"]["batch_effect"] == 0.0 == rows["static"]["batch_effect"]
    shown = candidate_table(auto).splitlines()
    assert "batch effect" in shown[0]
    assert f"{moved:.2g}" in next(line for line in shown if line.startswith("dynamic")).split()


def test_the_report_says_how_far_other_windows_move_a_forecast() -> None:
    report = compare({"it": exported("mlp"), "small": int8("mlp")}, task(), latency=False)
    remarks = {row.name: row.remark for row in report.rows}
    assert f"by up to {int8('mlp').batch_effect:.2g} standard deviations" in (remarks["small"] or "")
    assert remarks["it"] is None
    assert "isolate=True" in footnote(report)


def test_forms_are_timed_turn_by_turn_in_sessions_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Deployed] = []
    original = Deployed.reloaded

    def reloaded(self: Deployed) -> Deployed:
        made.append(original(self))
        return made[-1]

    monkeypatch.setattr(Deployed, "reloaded", reloaded)
    received: dict[str, Any] = {}

    def timed(calls: Any, **options: Any) -> dict[str, Latency]:
        received.update(options, calls=[calls(), calls()])
        return {name: Latency(9, 9, 9, paired_ms=place, n_runs=1) for place, name in enumerate(received["calls"][0])}

    monkeypatch.setattr(judging, "measure_latency", timed)
    forms = {"fp32": exported("mlp"), "dynamic": int8("mlp")}
    rows = judging.measure(forms, task(), Quantization(method="auto"))
    assert [row["latency_ms"]["1"] for row in rows.values()] == [0, 1]
    assert received["rebuilds"] == judging.REBUILDS > 1
    assert len({id(artifact.predictor.session) for artifact in made}) == 4
    assert all(call().shape == (1, task().horizon, len(task().channels)) for call in received["calls"][1].values())
