"""An LSTM that reads patches as steps and forecasts all steps at once."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from torch import nn

from tsdistill.models.base import Forecaster
from tsdistill.models.recurrent import Recurrent, RecurrentConfig


class LSTMConfig(RecurrentConfig):
    """Shape of a stacked LSTM over patches, of one channel with weights that all share or of all channels together.

    Use it as a student that INT8 makes faster at every width, or as a wide teacher. Reading patches of 12 to 24 steps
    instead of single steps is what makes it accurate and quick: the recurrence is a dozen steps long, not hundreds.

    Args:
        widths: Units of each layer, in each direction; their number is the depth. `width=64, depth=2` is short for
            `widths=(64, 64)`.
        patch: Steps in a patch; patches do not overlap.
        embedding: Size a patch is mapped to before the first layer; by default the first layer's width.
        dropout: Share of activations dropped between layers while training.
        bidirectional: Read the patches backwards as well; each layer sees both directions of the one before. The
            context is all known, so that nothing of the future is seen. Twice the recurrence to wait for.
        mixing: Read patches of all channels together, so that channels inform each other; by default each is read
            by itself, which is better where they are many or alike.
        channel_embedding: Learn a vector per channel; not with `mixing`, which tells channels apart.
        shortcut: Add a linear map from the normalised context to the horizon beside the LSTM, so that what is linear
            need not pass through the recurrence.
        head: What is forecast for each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> LSTMConfig(widths=(64, 64), patch=24).widths
        (64, 64)

    Source: S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997; segments as
    steps and all future steps at once: S. Lin et al., "SegRNN: Segment Recurrent Neural Network for Long-Term Time
    Series Forecasting", arXiv 2308.11200, 2023; two directions: M. Schuster and K. Paliwal, "Bidirectional Recurrent
    Neural Networks", IEEE Transactions on Signal Processing 45(11), 1997. Differs from the source: one linear head
    gives the whole horizon, from the last state of either direction, windows are centred and scaled rather than shifted
    by their last value, and there is an optional linear shortcut.
    """

    kind: Literal["lstm"] = "lstm"

    forecaster: ClassVar[type[Forecaster]]

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """One direction and two, channels apart and together."""
        return (
            cls(widths=(7, 5), patch=11),
            cls(widths=(5,), patch=5, embedding=3, shortcut=False, channel_embedding=False),
            cls(widths=(5, 3), patch=11, bidirectional=True),
            cls(widths=(5, 7), patch=7, mixing=True, shortcut=False),
            cls(widths=(3, 7, 5), patch=7, bidirectional=True, mixing=True),
        )


class LSTM(Recurrent):
    """The forecaster an `LSTMConfig` builds."""

    config: LSTMConfig
    cell = nn.LSTM
    n_gates = 4


LSTMConfig.forecaster = LSTM
