"""Raw input for forecasting, checked, and the forecast returned in the form of the input: arrays or pandas frames.

Shared by every object that predicts, trainable or deployed. numpy only; pandas is used only for a frame, and whoever
made that frame has loaded it already.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tsdistill.errors import DataError, must
from tsdistill.inputs.arrays import CHUNK, Known, Predict, SignatureLike, check_rolling, predict_arrays

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["CHUNK", "Known", "Predict", "SignatureLike", "predict_raw"]


def predict_raw(
    x: np.ndarray | pd.DataFrame,
    signature: SignatureLike,
    predict: Predict,
    *,
    future: np.ndarray | pd.DataFrame | None = None,
    past: np.ndarray | None = None,
    levels: tuple[float, ...] = (),
    rolling: int | None = None,
) -> np.ndarray | pd.DataFrame:
    """Check raw input, forecast it, and return the forecast in the form of the input.

    Arrays are (batch, context, channel) or (context, channel) and give float32 (batch, horizon, channel) or (horizon,
    channel); float64 where values are so far from zero that float32 would lose what moves, if not given as float32. A
    frame is read as `Panel.from_frame` reads it: stamps in a column `ds`, in the index or in the only other column of
    stamps; identifiers, if any, in `unique_id`, a column or a level of the index. The result is a frame of the
    `horizon` steps after the last stamp of each item, in the same form. More steps than `context` are allowed: the last
    are used.

    Covariates: a frame brings its past and planned columns along, its calendar features are made from its stamps, and
    `future` is a frame with the planned columns of the horizon (found by stamp and item, or `horizon` rows without
    stamps). With arrays, `future` is (batch, context + horizon, feature), every feature of `signature.future` in order,
    and `past` is (batch, context, feature).

    With `rolling` every step of the history is read: the forecasts are those made after the last step, `rolling` steps
    before it, twice as many before it, and so on while there is a context, oldest first. An array is then one history
    (time, channel), with `future` (time + horizon, feature) and `past` (time, feature), and gives (cutoff, horizon,
    channel); a frame gives one forecast below the other and a column `cutoff`, the last step each forecast has seen.

    Args:
        x: Raw values.
        signature: Steps, channels, frequency and covariates.
        predict: Function that forecasts arrays, all in raw units.
        future: Covariates known for the horizon.
        past: Past covariates of an array.
        levels: Quantile levels when `predict` gives quantiles: arrays have one more axis, frames a column
            `channel-q0.1` for each.
        rolling: Steps between one forecast and the next over a long history; None forecasts once, after its end.

    Returns:
        Forecasts in raw units: an array for an array, a frame for a frame.

    Raises:
        ConfigError: `rolling` is no whole number of at least 1.
        ShapeError: Too few steps, or not the channels there should be.
        DataError: Values that are no finite numbers, unknown columns, stamps that do not step by the frequency, or
            covariates that are missing or not asked for.
    """
    check_rolling(rolling)
    if hasattr(x, "columns"):
        pandas = sys.modules.get("pandas")  # whoever made a frame has loaded it
        if pandas is None or not isinstance(x, pandas.DataFrame):
            remedy = "Convert it with .to_pandas()"
            raise DataError(must("x", "be an array or a pandas frame", type(x).__name__, remedy))
        from tsdistill.inputs.frames import predict_frame

        return predict_frame(x, signature, predict, future, levels, rolling)
    return predict_arrays(x, signature, predict, future, past, levels, rolling)
