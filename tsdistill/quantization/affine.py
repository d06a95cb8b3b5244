"""The arithmetic of quantization: whole numbers that stand for real ones, and rounding that lets gradients through.

q = clamp(round(x / scale) + zero_point, low, high) and x' = (q - zero_point) * scale, rounding half to even. A grid is
symmetric when zero_point is 0 and low is -high (weights), affine when it is not (activations, which ReLU and its kin
push to one side). Every function here gives what the kernels of ONNX Runtime give for the same numbers.

Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, equation 1 and section 3 (r = S(q - Z)); gradient: Y. Bengio, N. Leonard and A. Courville, "Estimating or
Propagating Gradients Through Stochastic Neurons for Conditional Computation", arXiv 1308.3432, 2013, section 4. Differs
from the source: their S, Z are our scale, zero_point; symmetric grids do without the lowest number, so that -x is
rounded like x; outside the clamp range the gradient is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tsdistill.errors import ConfigError, must

BITS = (2, 8)
"""Fewest and most bits of a whole number: two leave -1, 0 and 1, eight are what integer kernels multiply."""


@dataclass(frozen=True)
class Grid:
    """The real numbers that whole numbers can stand for.

    Attributes:
        scale: Distance of two neighbours, () or (channel,), or of a shape that goes with the values'.
        zero_point: The whole number that stands for 0, of the same shape, in float32.
        low: Smallest whole number.
        high: Largest whole number.
        axis: Axis of the values along which a `scale` of (channel,) varies.
    """

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int
    axis: int | None = None

    def quantize(self, x: Tensor) -> Tensor:
        """Whole numbers, int32, for real ones."""
        scale, zero_point = self._beside(x)
        return ((x / scale).round() + zero_point).clamp(self.low, self.high).int()

    def dequantize(self, q: Tensor) -> Tensor:
        """The real numbers, float32, that whole ones stand for."""
        scale, zero_point = self._beside(q)
        return (q - zero_point) * scale

    def fake_quantize(self, x: Tensor) -> Tensor:
        """`dequantize(quantize(x))` in floats; its gradient is 1 where x is within the range and 0 beyond it."""
        scale, zero_point = self._beside(x)
        steps = x / scale
        # Adding the difference without its history: the value is rounded, the gradient passes straight through.
        steps = steps + (steps.round() - steps).detach()
        # The clamp's own gradient is 0 outside, where no small change of x would change the result.
        return (steps.clamp(self.low - zero_point, self.high - zero_point)) * scale

    def _beside(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point in a shape that goes with a tensor's."""
        if self.axis is None:
            return self.scale, self.zero_point
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return self.scale.view(shape), self.zero_point.view(shape)


def symmetric_grid(reach: Tensor, *, bits: int, axis: int | None = None) -> Grid:
    """The grid from -reach to reach with 0 in its middle, for weights.

    The largest whole number is 127 for 8 bits and 7 for 4; 7 bits mean 64, the half of 128, so that two products with
    activations of 0 ... 255 fit into 16 bits.

    Args:
        reach: Largest magnitudes; where one is 0 its scale is 1.
        bits: 2 to 8.
        axis: Axis along which `reach` varies.

    Raises:
        ConfigError: bits out of range.
    """
    _check_bits(bits)
    high = 64 if bits == 7 else 2 ** (bits - 1) - 1
    scale = _usable(reach.detach().float() / high)
    return Grid(scale, torch.zeros_like(scale), -high, high, axis)


def affine_grid(low: Tensor, high: Tensor, *, bits: int = 8, axis: int | None = None) -> Grid:
    """The grid of 0 ... 2^bits - 1 over the range from low to high, widened to hold 0, for activations.

    0 stands on the grid, so that padding and what ReLU cut off stay exact.

    Args:
        low: Smallest value, () or (channel,).
        high: Largest value, of the same shape; where both are 0 the scale is 1.
        bits: 2 to 8.
        axis: Axis along which the range varies.

    Raises:
        ConfigError: bits out of range.
    """
    _check_bits(bits)
    low, high = low.detach().float().clamp(max=0), high.detach().float().clamp(min=0)
    largest = 2**bits - 1
    scale = _usable((high - low) / largest)
    return Grid(scale, (-low / scale).round().clamp(0, largest), 0, largest, axis)


def weight_grid(weight: Tensor, *, bits: int, axis: int | None = None) -> Grid:
    """The symmetric grid that reaches the largest magnitude of a weight, or of every slice of it along `axis`."""
    sizes = weight.detach().abs()
    reach = sizes.amax() if axis is None else sizes.movedim(axis, 0).flatten(1).amax(dim=1)
    return symmetric_grid(reach, bits=bits, axis=axis)


def round_in_blocks(weight: Tensor, *, bits: int, size: int, axis: int) -> Tensor:
    """A weight with every `size` neighbours along `axis` on a symmetric grid of their own; the last may be fewer."""
    rows = weight.movedim(axis, -1)
    n_weights = rows.shape[-1]
    blocks = torch.nn.functional.pad(rows, (0, -n_weights % size)).unflatten(-1, (-1, size))
    grid = symmetric_grid(blocks.detach().abs().amax(dim=-1, keepdim=True), bits=bits)
    return grid.fake_quantize(blocks).flatten(-2)[..., :n_weights].movedim(-1, axis)


def dynamic_grid(x: Tensor, *, bits: int = 8) -> Grid:
    """The affine grid over the range that a tensor has just now: what dynamic INT8 rounds activations on."""
    low, high = x.detach().aminmax()
    return affine_grid(low, high, bits=bits)


def _usable(scale: Tensor) -> Tensor:
    """Scales to divide by: 1 where all values are 0, or so small that the scale would not be a normal number."""
    return torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)


def _check_bits(bits: int) -> None:
    if not BITS[0] <= bits <= BITS[1]:
        raise ConfigError(must("bits", f"be from {BITS[0]} to {BITS[1]}", bits, "8 is what integer kernels multiply"))
