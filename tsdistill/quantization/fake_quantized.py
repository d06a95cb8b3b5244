"""A forecaster that computes in floats what its deployed form computes in whole numbers, and can be trained so."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tsdistill.errors import UnsupportedError
from tsdistill.models.base import Forecaster
from tsdistill.models.layers import ChannelLinear
from tsdistill.quantization.affine import dynamic_grid, round_in_blocks, symmetric_grid, weight_grid

ROUNDED: dict[str, tuple[type[nn.Module], ...]] = {
    "dynamic": (nn.Linear, ChannelLinear, nn.LSTM),
    "static": (nn.Linear, ChannelLinear, nn.Conv1d),
    "weight-only": (nn.Linear, ChannelLinear, nn.LSTM, nn.Conv1d),
}
"""Layers that each form rounds."""


@dataclass(frozen=True)
class Rounding:
    """What a deployed form rounds.

    Attributes:
        form: "dynamic" rounds what LSTM and linear layers read, "static" what convolutions and linear layers read and
            what convolutions give, "weight-only" no activations.
        weight_bits: Bits of a weight; 4 take a scale for every block of weights.
        per_channel: One scale per output of a layer (of an LSTM: per row of a gate) instead of one per layer.
        block_size: Weights that share a scale in 4 bits.
        keep_float: Names of layers that round nothing.
    """

    form: str
    weight_bits: int
    per_channel: bool = True
    block_size: int = 32
    keep_float: tuple[str, ...] = ()

    def layers(self, model: Forecaster) -> list[tuple[str, nn.Module]]:
        """The layers of a model that are rounded, by name.

        Raises:
            UnsupportedError: There are none.
        """
        named = [(name, each) for name, each in model.named_modules() if isinstance(each, ROUNDED[self.form])]
        found = [(name, each) for name, each in named if name not in self.keep_float]
        if not found:
            raise UnsupportedError(
                f"`method` must fit the model, got method='qat' for a {model.config.kind!r} one without layers that "
                "could be rounded: there is nothing to quantize. Use td.export."
            )
        return found


def fake_quantize(forecaster: Forecaster, rounding: Rounding) -> Forecaster:
    """A copy whose layers round their weights, and what they read, in every forward pass.

    Its parameters are the exact weights, so that an optimizer can move them by less than a step of the grid; their
    gradient is that of the rounded ones. `settled` gives the ordinary forecaster back. Activations are rounded over the
    range of the batch: what dynamic INT8 does, and while training near to what static INT8 does with the range of its
    calibration windows. Of a layer that is not called, only its weight used, only the weight is rounded.

    Raises:
        UnsupportedError: There is no layer to round, or an LSTM is of a kind that is not known here.
    """
    model = copy.deepcopy(forecaster)
    model.control = None
    for name, layer in rounding.layers(model):
        if isinstance(layer, nn.LSTM):
            layer = RoundedLSTM(layer, reads_rounded=rounding.form == "dynamic")
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, layer)
        elif rounding.form != "weight-only":
            layer.register_forward_pre_hook(_round_input)
        if isinstance(layer, nn.Conv1d) and rounding.form == "static":
            layer.register_forward_hook(_round_output)
        for weight in [each for each, _ in layer.named_parameters() if each.startswith("weight")]:
            parametrize.register_parametrization(layer, weight, _RoundedWeight(rounding, layer))
    return model


def fold_rounded(model: Forecaster, forecaster: Forecaster) -> Forecaster:
    """A copy of the forecaster that was faked, with the rounded weights of its trained fake; nothing rounds any more.

    What is on a grid stays where it is when it is rounded again, so that deploying the result loses nothing of it.
    """
    plain = copy.deepcopy(forecaster)
    plain.control = None
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parent, _, own = name.rpartition(".")
            # Of a parametrized weight this reads the rounded values.
            parameter.copy_(getattr(model.get_submodule(parent), own))
    return plain.eval()


class RoundedLSTM(nn.Module):
    """A layer of an LSTM as ONNX Runtime's DynamicQuantizeLSTM computes it, step by step.

    Where what it reads is rounded, the inputs of all steps are on one grid, and the hidden state of every step is on
    one of its own; the cell state and the gates stay exact. Only what a forecaster needs: one layer, batch first, from
    a zero state.
    """

    def __init__(self, lstm: nn.LSTM, *, reads_rounded: bool) -> None:
        super().__init__()
        if lstm.num_layers != 1 or not lstm.batch_first or lstm.proj_size or not lstm.bias:
            raise UnsupportedError(
                "`method` must fit the model, got method='qat' for an LSTM that is not one layer with biases, batch "
                "first and without projection. Stack single layers, as td.LSTMConfig does."
            )
        for name, parameter in lstm.named_parameters():
            self.register_parameter(name, nn.Parameter(parameter.detach().clone()))
        self.width, self.reads_rounded = lstm.hidden_size, reads_rounded
        self.ways = ("_l0", "_l0_reverse") if lstm.bidirectional else ("_l0",)

    def forward(self, rows: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(rows, token, before) -> (rows, token, width of all directions), and the last hidden and cell states."""
        rows = _rounded(rows) if self.reads_rounded else rows
        read = [self._read(rows, way) for way in self.ways]
        outputs, hidden, cells = zip(*read, strict=True)
        return torch.cat(outputs, dim=-1), (torch.stack(hidden), torch.stack(cells))

    def _read(self, rows: Tensor, way: str) -> tuple[Tensor, Tensor, Tensor]:
        """One direction: what it says at every token, its last hidden state and its last cell state."""
        from_input, from_hidden = getattr(self, f"weight_ih{way}"), getattr(self, f"weight_hh{way}")
        bias = getattr(self, f"bias_ih{way}") + getattr(self, f"bias_hh{way}")
        read = (rows @ from_input.mT + bias).unbind(1)
        cell = hidden = rows.new_zeros(len(rows), self.width)
        said = []
        backwards = way.endswith("_reverse")
        for token in read[::-1] if backwards else read:
            heard = _rounded(hidden) if self.reads_rounded else hidden
            write, keep, new, show = (token + heard @ from_hidden.mT).chunk(4, dim=-1)
            cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
            hidden = show.sigmoid() * cell.tanh()
            said.append(hidden)
        return torch.stack(said[::-1] if backwards else said, dim=1), hidden, cell


class _RoundedWeight(nn.Module):
    """A weight on the grid that its largest magnitudes span just now."""

    def __init__(self, rounding: Rounding, layer: nn.Module) -> None:
        super().__init__()
        self.rounding = rounding
        self.stacked = isinstance(layer, ChannelLinear)
        # The axis of what a layer sums over.
        self.summed = 1 if isinstance(layer, nn.Conv1d) else -1

    def forward(self, weight: Tensor) -> Tensor:
        ours = self.rounding
        # Sums that are no longer than a block have one scale per output, as in `weights.weight_only_graph`.
        if ours.weight_bits == 4 and weight.shape[self.summed] > ours.block_size:
            return round_in_blocks(weight, bits=4, size=ours.block_size, axis=self.summed)
        if self.stacked and ours.per_channel:
            reach = weight.detach().abs().amax(dim=-1, keepdim=True)
            return symmetric_grid(reach, bits=ours.weight_bits).fake_quantize(weight)
        axis = 0 if ours.per_channel else None
        return weight_grid(weight, bits=ours.weight_bits, axis=axis).fake_quantize(weight)


def _rounded(x: Tensor) -> Tensor:
    # In float32 whatever the rest computes in: bfloat16 itself has fewer digits than the grid has numbers.
    x = x.float()
    return dynamic_grid(x).fake_quantize(x)


def _round_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (_rounded(inputs[0]), *inputs[1:])


def _round_output(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return _rounded(output)
