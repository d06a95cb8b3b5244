"""The arithmetic of quantization: what ONNX Runtime's kernels give, what torch gives, and what any rounding must."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor

from tests.typed import known
from tsdistill.errors import ConfigError
from tsdistill.quantization.affine import Grid, affine_grid, dynamic_grid, symmetric_grid, weight_grid
from tsdistill.quantization.observers import Observer, observe

BITS = (4, 7, 8)


def normal(*shape: int, seed: int = 0, mean: float = 0.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + mean


def run(nodes: list[Any], feeds: dict[str, np.ndarray], outputs: Mapping[str, int]) -> list[np.ndarray]:
    """What ONNX Runtime gives for a graph of a few operators."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    given = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, given), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    return onnxruntime.InferenceSession(model.SerializeToString()).run(list(outputs), feeds)


def kernels(x: Tensor, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """QuantizeLinear and DequantizeLinear with the numbers of an 8-bit grid."""
    kind, dtype = (TensorProto.INT8, np.int8) if grid.low < 0 else (TensorProto.UINT8, np.uint8)
    along: dict[str, Any] = {} if grid.axis is None else {"axis": grid.axis}
    feeds = {"x": x.numpy(), "scale": grid.scale.numpy(), "zero": grid.zero_point.numpy().astype(dtype)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **along),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **along),
    ]
    q, y = run(nodes, feeds, {"q": kind, "y": TensorProto.FLOAT})
    return q, y


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("symmetric", [True, False])
def test_quantizing_equals_the_kernels_of_onnx_runtime(axis: int | None, symmetric: bool) -> None:
    x = normal(3, 5, 7, seed=1, mean=0.5) * torch.logspace(-2, 2, 7)
    if symmetric:
        grid = weight_grid(x, bits=8, axis=axis)
    else:
        rows = x.reshape(1, -1) if axis is None else x.movedim(axis, 0).flatten(1)
        low, high = rows.amin(1), rows.amax(1)
        grid = affine_grid(*((low[0], high[0]) if axis is None else (low, high)), axis=axis)
    q, y = kernels(x, grid)
    np.testing.assert_array_equal(grid.quantize(x).numpy(), q)
    np.testing.assert_array_equal(grid.dequantize(grid.quantize(x)).numpy(), y)
    np.testing.assert_array_equal(grid.fake_quantize(x).numpy(), y)


def test_values_beyond_the_range_are_clamped_like_the_kernel_does() -> None:
    grid = affine_grid(torch.tensor(-1.0), torch.tensor(3.0))
    x = torch.tensor([-1e6, -2.0, 0.0, 2.0, 1e6])
    q, y = kernels(x, grid)
    np.testing.assert_array_equal(grid.quantize(x).numpy(), q)
    assert (q[0], q[-1]) == (0, 255)
    np.testing.assert_array_equal(grid.fake_quantize(x).numpy(), y)


def test_halves_are_rounded_to_even() -> None:
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    grid = symmetric_grid(torch.tensor(127.0), bits=8)
    assert grid.quantize(x).tolist() == [-2, -2, 0, 0, 2, 2] == kernels(x, grid)[0].tolist()


@pytest.mark.parametrize(
    ("mean", "spread"), [(0.0, 1.0), (5.0, 1.0), (-5.0, 1.0), (0.0, 0.0), (3.0, 0.0), (0.0, 1e-30), (0.0, 1e30)]
)
def test_dynamic_scales_equal_those_of_onnx_runtime(mean: float, spread: float) -> None:
    x = normal(5, 11) * spread + mean
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"])
    kinds = {"q": TensorProto.UINT8, "scale": TensorProto.FLOAT, "zero": TensorProto.UINT8}
    q, scale, zero = run([node], {"x": x.numpy()}, kinds)
    grid = dynamic_grid(x)
    assert (float(grid.scale), float(grid.zero_point)) == (float(scale), float(zero))
    np.testing.assert_array_equal(grid.quantize(x).numpy(), q)


def test_fake_quantization_and_its_gradient_equal_those_of_torch() -> None:
    # A scale that is a power of two: torch multiplies by its inverse, which rounds other halves otherwise.
    grid = Grid(torch.tensor(0.25), torch.tensor(3.0), 0, 15)
    x = (3 * normal(997, seed=2)).requires_grad_()
    reference = x.detach().clone().requires_grad_()
    pull = normal(997, seed=3)
    rounded = grid.fake_quantize(x)
    expected = torch.fake_quantize_per_tensor_affine(reference, 0.25, 3, 0, 15)
    (rounded * pull).sum().backward()
    (expected * pull).sum().backward()
    assert torch.equal(rounded, expected)
    gradient = known(x.grad)
    assert torch.equal(gradient, known(reference.grad))
    assert 0 < int((gradient == 0).sum()) < 997


@pytest.mark.parametrize("bits", BITS)
def test_fake_quantization_per_channel_equals_that_of_torch(bits: int) -> None:
    x = normal(5, 7, seed=4)
    scale = 2.0 ** torch.arange(-7, 0)
    high = 2 ** (bits - 1) - 1
    grid = Grid(scale, torch.zeros(7), -high, high, axis=1)
    expected = torch.fake_quantize_per_channel_affine(x, scale, torch.zeros(7, dtype=torch.int32), 1, -high, high)
    assert torch.equal(grid.fake_quantize(x), expected)
    assert not torch.equal(grid.fake_quantize(x), x)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor.*deprecated:UserWarning")  # all the more a reason to ask
def test_quantizing_per_channel_equals_torch() -> None:
    x = normal(5, 7, seed=5)
    grid = weight_grid(x, bits=8, axis=0)
    reference = torch.quantize_per_channel(x, grid.scale.double(), torch.zeros(5, dtype=torch.long), 0, torch.qint8)
    assert torch.equal(grid.quantize(x), reference.int_repr().int())
    torch.testing.assert_close(grid.dequantize(grid.quantize(x)), reference.dequantize())


finite = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(finite, min_size=1, max_size=37), st.sampled_from(BITS), st.booleans())
def test_what_any_grid_keeps(values: list[float], bits: int, symmetric: bool) -> None:
    x = torch.tensor(values)
    grid = weight_grid(x, bits=bits) if symmetric else dynamic_grid(x, bits=bits)
    q, rounded = grid.quantize(x), grid.fake_quantize(x)
    assert grid.low <= int(q.min())
    assert int(q.max()) <= grid.high
    assert float(grid.fake_quantize(torch.zeros(1))) == 0
    # Half a step at most, and another half at the ends, where the zero point itself had to be rounded.
    bound = float(grid.scale) * (0.5 if symmetric else 1.0)
    assert float((rounded - x).abs().max()) <= bound * 1.001 + 1e-30
    # Rounding what is on the grid changes nothing, so that weights can be quantized again when they are deployed.
    assert torch.equal(grid.quantize(rounded), q)
    assert torch.equal(grid.dequantize(q), rounded)
    # The order of values survives.
    order = x.argsort()
    assert bool((rounded[order].diff() >= 0).all())
    if symmetric:
        assert torch.equal(weight_grid(-x, bits=bits).fake_quantize(-x), -rounded)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("axis", [None, 0])
def test_a_rounded_weight_has_the_grid_it_was_rounded_on(bits: int, axis: int | None) -> None:
    weight = normal(11, 13, seed=6)
    rounded = weight_grid(weight, bits=bits, axis=axis).fake_quantize(weight)
    again = weight_grid(rounded, bits=bits, axis=axis)
    torch.testing.assert_close(again.fake_quantize(rounded), rounded, rtol=1e-6, atol=0)


def test_seven_bits_add_up_in_sixteen() -> None:
    assert symmetric_grid(torch.tensor(1.0), bits=7).high * 255 * 2 < 2**15 <= 127 * 255 * 2


def test_no_gradient_reaches_the_scale() -> None:
    x = normal(3, 5).requires_grad_()
    weight_grid(x, bits=4, axis=0).fake_quantize(x).sum().backward()
    assert torch.equal(known(x.grad), torch.ones(3, 5))


OBSERVERS: tuple[Observer, ...] = ("min-max", "percentile", "entropy", "mse")


def squared(grid: Grid, x: Tensor) -> float:
    return float((grid.fake_quantize(x) - x).square().mean())


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_few_far_values_widen_the_grid_of_min_max_only(symmetric: bool) -> None:
    x = torch.cat([normal(50_000), torch.tensor([300.0])])
    reach = {observer: float(observe(x, observer, symmetric=symmetric).scale) for observer in OBSERVERS}
    assert reach["percentile"] < reach["min-max"] / 10
    assert reach["entropy"] < reach["min-max"] / 10
    assert reach["mse"] < reach["min-max"]


@pytest.mark.parametrize("bits", BITS)
def test_the_mse_observer_makes_the_smallest_error(bits: int) -> None:
    x = normal(20_000, seed=7) ** 3
    errors = {observer: squared(observe(x, observer, bits=bits, symmetric=True), x) for observer in OBSERVERS}
    assert errors["mse"] <= min(errors.values()) * 1.001
    assert errors["mse"] < errors["min-max"]


@pytest.mark.parametrize(("bits", "reach"), [(4, 2.55), (8, 3.92)])
def test_the_mse_observer_finds_the_published_clipping_of_a_gaussian(bits: int, reach: float) -> None:
    # Banner et al. 2019, for their grid of 2^bits levels; ours has one fewer.
    grid = observe(normal(200_000, seed=8), "mse", bits=bits, symmetric=True)
    assert float(grid.scale * grid.high) == pytest.approx(reach, rel=0.06)


def test_the_percentile_observer_leaves_out_its_share() -> None:
    x = normal(100_000, seed=9)
    grid = observe(x, "percentile", symmetric=True)
    beyond = int((x.abs() > grid.scale * grid.high * 1.0001).sum())
    assert beyond == pytest.approx(10, abs=1)


def test_the_entropy_observer_keeps_an_even_spread_whole() -> None:
    x = torch.linspace(-1, 1, 100_001)
    assert float(observe(x, "entropy", symmetric=True).scale * 127) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_nothing_but_zeros_is_on_every_grid(observer: Observer) -> None:
    grid = observe(torch.zeros(7), observer)
    assert torch.equal(grid.fake_quantize(torch.zeros(7)), torch.zeros(7))
    assert math.isfinite(float(grid.scale))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: symmetric_grid(torch.tensor(1.0), bits=1), r"`bits` must be from 2 to 8, got bits=1"),
        (lambda: affine_grid(torch.tensor(0.0), torch.tensor(1.0), bits=9), "`bits` must be from 2 to 8"),
        (lambda: observe(torch.zeros(0)), "`values` must be finite and at least one, got 0"),
        (lambda: observe(torch.tensor([1.0, math.nan])), "got 2 of which 1 are finite"),
        (lambda: observe(torch.ones(3), "median"), "`observer` must be one of min-max, percentile"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_rounded_is_refused(call: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
