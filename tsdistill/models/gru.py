"""A GRU that reads patches as steps and forecasts all steps at once."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from torch import nn

from tsdistill.models.base import Forecaster
from tsdistill.models.recurrent import Recurrent, RecurrentConfig


class GRUConfig(RecurrentConfig):
    """Shape of a stacked GRU over patches: three gates where an LSTM has four, and no cell state beside the hidden one.

    r = sigmoid(W_r x + U_r h + b_r), z = sigmoid(W_z x + U_z h + b_z), n = tanh(W_n x + b_n + r (U_n h + c_n)),
    h' = (1 - z) n + z h.

    Use it where an `LSTMConfig` is a quarter too large in float32 or in stored bytes: its layers have three quarters of
    the weights. Where INT8 is to make it faster take the LSTM: the runtime has integer products for that only, and a
    GRU's layers are stored in 8 or 4 bits ("weight-only").

    Args:
        widths: Units of each layer, in each direction; their number is the depth. `width=64, depth=2` is short for
            `widths=(64, 64)`.
        patch: Steps in a patch; patches do not overlap.
        embedding: Size a patch is mapped to before the first layer; by default the first layer's width.
        dropout: Share of activations dropped between layers while training.
        bidirectional: Read the patches backwards as well; each layer sees both directions of the one before.
        mixing: Read patches of all channels together, so that channels inform each other.
        channel_embedding: Learn a vector per channel; not with `mixing`, which tells channels apart.
        shortcut: Add a linear map from the normalised context to the horizon beside the GRU.
        head: What is forecast for each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> GRUConfig(width=64, depth=2).widths
        (64, 64)

    Source: K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
    Translation", EMNLP 2014, equations 5 to 8; segments as steps: S. Lin et al., "SegRNN: Segment Recurrent Neural
    Network for Long-Term Time Series Forecasting", arXiv 2308.11200, 2023. Differs from the source: the reset gate is
    put on the product of the hidden state instead of on the state, with a bias of its own, as torch and cuDNN compute
    it; z keeps the old state as there; one linear head gives the whole horizon, and there is an optional shortcut.
    """

    kind: Literal["gru"] = "gru"

    forecaster: ClassVar[type[Forecaster]]

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """One direction with channels apart, and two with channels together."""
        return (
            cls(widths=(7, 5), patch=11),
            cls(widths=(5, 3), patch=7, embedding=3, bidirectional=True, mixing=True, shortcut=False),
        )


class GRU(Recurrent):
    """The forecaster a `GRUConfig` builds."""

    config: GRUConfig
    cell = nn.GRU
    n_gates = 3


GRUConfig.forecaster = GRU
