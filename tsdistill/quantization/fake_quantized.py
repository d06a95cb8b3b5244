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


@dataclass(frozen=True)
class Rounding:
    """What a deployed form rounds.

    Attributes:
        layer_types: Modules that it rounds.
        weight_bits: Bits of a weight; 4 take a scale for every block of weights.
        per_channel: One scale per output of a layer (of an LSTM or GRU: per row of a gate) instead of one per layer.
        block_size: Weights that share a scale in 4 bits.
        keep_float: Names of layers that round nothing.
        rounds_inputs: Whether what these layers read is rounded, and of recurrent ones the hidden state of every step.
        rounds_outputs_of: Modules of which what they give is rounded as well.
    """

    layer_types: tuple[type[nn.Module], ...]
    weight_bits: int
    per_channel: bool = True
    block_size: int = 32
    keep_float: tuple[str, ...] = ()
    rounds_inputs: bool = False
    rounds_outputs_of: tuple[type[nn.Module], ...] = ()

    def layers(self, model: Forecaster) -> list[tuple[str, nn.Module]]:
        """The layers of a model that are rounded, by name.

        Raises:
            UnsupportedError: There are none.
        """
        named = [(name, module) for name, module in model.named_modules() if isinstance(module, self.layer_types)]
        layers = [(name, module) for name, module in named if name not in self.keep_float]
        if not layers:
            raise UnsupportedError(
                f"`method` must fit the model, got method='qat' for a {model.config.kind!r} one without layers that "
                "could be rounded: there is nothing to quantize. Use td.export."
            )
        return layers


def fake_quantize(forecaster: Forecaster, rounding: Rounding) -> Forecaster:
    """A copy whose layers round their weights, and what they read, in every forward pass.

    Its parameters are the exact weights, so that an optimizer can move them by less than a step of the grid; their
    gradient is that of the rounded ones. `fold_rounded` gives the ordinary forecaster back. Activations are rounded
    over the range of the batch: what dynamic INT8 does, and while training near to what static INT8 does with the range
    of its calibration windows. Of a layer that is not called, only its weight used, only the weight is rounded.

    Raises:
        UnsupportedError: There is no layer to round, or a recurrent layer is of a kind that is not known here.
    """
    model = copy.deepcopy(forecaster)
    for name, layer in rounding.layers(model):
        if isinstance(layer, nn.LSTM | nn.GRU):
            cell = RoundedLSTM if isinstance(layer, nn.LSTM) else RoundedGRU
            layer = cell(layer, rounds_inputs=rounding.rounds_inputs)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, layer)
        elif rounding.rounds_inputs:
            layer.register_forward_pre_hook(_round_input)
        if isinstance(layer, rounding.rounds_outputs_of):
            layer.register_forward_hook(_round_output)
        for weight in [own for own, _ in layer.named_parameters() if own.startswith("weight")]:
            parametrize.register_parametrization(layer, weight, _RoundedWeight(rounding, layer))
    return model


def fold_rounded(model: Forecaster, forecaster: Forecaster) -> Forecaster:
    """A copy of a forecaster with the rounded weights of its fake-quantized one; nothing rounds any more.

    What is on a grid stays where it is when it is rounded again, so that deploying the result loses nothing of it.
    """
    plain = copy.deepcopy(forecaster)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parent, _, own = name.rpartition(".")
            # Of a parametrized weight this reads the rounded values.
            parameter.copy_(getattr(model.get_submodule(parent), own))
    return plain.eval()


class RoundedRecurrent(nn.Module):
    """A recurrent layer, computed token by token from weights that may be rounded.

    Where what it reads is rounded, the inputs of all tokens are on one grid, and the hidden state of every token is on
    one of its own; gates and cell state stay exact. Only what a forecaster needs: one layer, batch first, from a zero
    state.
    """

    def __init__(self, layer: nn.LSTM | nn.GRU, *, rounds_inputs: bool) -> None:
        super().__init__()
        if layer.num_layers != 1 or not layer.batch_first or layer.proj_size or not layer.bias:
            name = type(layer).__name__
            raise UnsupportedError(
                f"`method` must fit the model, got method='qat' for {'an' if name == 'LSTM' else 'a'} {name} that is "
                "not one layer with biases, batch first and without projection. Stack single layers, as "
                f"{'td.LSTMConfig' if name == 'LSTM' else 'td.models.GRUConfig'} does."
            )
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, nn.Parameter(parameter.detach().clone()))
        self.width = layer.hidden_size
        self.rounds_inputs = rounds_inputs
        self.ways = ("_l0", "_l0_reverse") if layer.bidirectional else ("_l0",)

    def directions(self, rows: Tensor) -> list[tuple[Tensor, ...]]:
        """Of every direction its output at every token, and its last states."""
        rows = _rounded(rows) if self.rounds_inputs else rows
        return [self._read(rows, way) for way in self.ways]

    def _read(self, rows: Tensor, way: str) -> tuple[Tensor, ...]:
        raise NotImplementedError


class RoundedLSTM(RoundedRecurrent):
    """A layer of an LSTM as ONNX Runtime's DynamicQuantizeLSTM computes it."""

    def forward(self, rows: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(rows, token, before) -> (rows, token, width of all directions), and the last hidden and cell states."""
        outputs, hidden, cells = zip(*self.directions(rows), strict=True)
        return torch.cat(outputs, dim=-1), (torch.stack(hidden), torch.stack(cells))

    def _read(self, rows: Tensor, way: str) -> tuple[Tensor, ...]:
        """Output at every token, last hidden state and last cell state."""
        from_input, from_hidden = getattr(self, f"weight_ih{way}"), getattr(self, f"weight_hh{way}")
        bias = getattr(self, f"bias_ih{way}") + getattr(self, f"bias_hh{way}")
        read = (rows @ from_input.mT + bias).unbind(1)
        cell = hidden = rows.new_zeros(len(rows), self.width)
        outputs = []
        backwards = way.endswith("_reverse")
        for token in read[::-1] if backwards else read:
            state = _rounded(hidden) if self.rounds_inputs else hidden
            write, keep, new, show = (token + state @ from_hidden.mT).chunk(4, dim=-1)
            cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
            hidden = show.sigmoid() * cell.tanh()
            outputs.append(hidden)
        return torch.stack(outputs[::-1] if backwards else outputs, dim=1), hidden, cell


class RoundedGRU(RoundedRecurrent):
    """A layer of a GRU; the reset gate is put on the product of the hidden state and its bias."""

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, token, before) -> (rows, token, width of all directions), and the last hidden states."""
        outputs, hidden = zip(*self.directions(rows), strict=True)
        return torch.cat(outputs, dim=-1), torch.stack(hidden)

    def _read(self, rows: Tensor, way: str) -> tuple[Tensor, ...]:
        """Output at every token, and last hidden state."""
        from_input, from_hidden = getattr(self, f"weight_ih{way}"), getattr(self, f"weight_hh{way}")
        read = (rows @ from_input.mT + getattr(self, f"bias_ih{way}")).unbind(1)
        hidden = rows.new_zeros(len(rows), self.width)
        outputs = []
        backwards = way.endswith("_reverse")
        for token in read[::-1] if backwards else read:
            state = _rounded(hidden) if self.rounds_inputs else hidden
            fed_back = state @ from_hidden.mT + getattr(self, f"bias_hh{way}")
            (reset, keep, new), (old_reset, old_keep, old) = token.chunk(3, dim=-1), fed_back.chunk(3, dim=-1)
            kept = (keep + old_keep).sigmoid()
            hidden = (1 - kept) * (new + (reset + old_reset).sigmoid() * old).tanh() + kept * hidden
            outputs.append(hidden)
        return torch.stack(outputs[::-1] if backwards else outputs, dim=1), hidden


class _RoundedWeight(nn.Module):
    """A weight on the grid that its largest magnitudes span just now."""

    def __init__(self, rounding: Rounding, layer: nn.Module) -> None:
        super().__init__()
        self.rounding = rounding
        self.has_matrix_per_channel = isinstance(layer, ChannelLinear)
        # The axis of what a layer sums over.
        self.summed = 1 if isinstance(layer, nn.Conv1d) else -1

    def forward(self, weight: Tensor) -> Tensor:
        rounding = self.rounding
        # Sums that are no longer than a block have one scale per output, as in `weight_only_graph`.
        if rounding.weight_bits == 4 and weight.shape[self.summed] > rounding.block_size:
            return round_in_blocks(weight, bits=4, size=rounding.block_size, axis=self.summed)
        if self.has_matrix_per_channel and rounding.per_channel:
            reach = weight.detach().abs().amax(dim=-1, keepdim=True)
            return symmetric_grid(reach, bits=rounding.weight_bits).fake_quantize(weight)
        axis = 0 if rounding.per_channel else None
        return weight_grid(weight, bits=rounding.weight_bits, axis=axis).fake_quantize(weight)


def _rounded(x: Tensor) -> Tensor:
    # In float32 whatever the rest computes in: bfloat16 itself has fewer digits than the grid has numbers.
    x = x.float()
    return dynamic_grid(x).fake_quantize(x)


def _round_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (_rounded(inputs[0]), *inputs[1:])


def _round_output(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return _rounded(output)
