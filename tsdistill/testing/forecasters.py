"""Whether a forecaster keeps the contract."""

from __future__ import annotations

import torch

from tsdistill.data.task import Batch
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.heads import QuantileHead
from tsdistill.testing.cutting import check_width_groups
from tsdistill.testing.rules import built, near, require, shaken
from tsdistill.testing.toys import BATCH, CHANNELS, HORIZON, toy_batch


def check_forecaster(model: ModelConfig | Forecaster) -> None:
    """Hold a forecaster (or the one a config builds for the toy signature) against the forecaster's contract.

    Shapes and axes; forward equals activations; a window's forecast does not depend on others of its batch nor on
    how long the context before it is; fused and explicit attention agree; attention rows sum to 1; the same seed builds
    the same weights; the config survives JSON and TOML; every width group tiles its axes; quantiles do not cross and
    the forecast is their median, that of bins their mean. A config that takes covariates is checked with and without
    them: a forecast must react to every feature of its window, and to none of other windows'.

    Raises:
        ContractError: a rule is broken.
    """
    for forecaster in built(model):
        _check_one(shaken(forecaster).eval())


def _check_one(model: Forecaster) -> None:
    batch = toy_batch(signature=model.signature)
    context, future, past = batch.context, batch.future, batch.past
    with torch.no_grad():
        forecast = model(context, future, past)
        inside = model.activations(context, future, past, attention=True)
        require(tuple(forecast.shape) == (BATCH, HORIZON, CHANNELS), f"forecast has shape {tuple(forecast.shape)}")
        require(forecast.dtype == torch.float32, f"forecast is {forecast.dtype}, not float32")
        near(inside.forecast, forecast, "activations(context, attention=True).forecast differs from forward(context)")
        for depth, hidden in enumerate(inside.hidden):
            shape = tuple(hidden.shape)
            rightly = hidden.ndim == 4 and shape[0] == BATCH and shape[1] in (1, CHANNELS)
            require(rightly, f"hidden[{depth}] has shape {shape}")
        for depth, weights in enumerate(inside.attention or ()):
            near(weights.sum(-1), torch.ones(weights.shape[:-1]), f"rows of attention[{depth}] do not sum to 1")
        _check_distribution(model, inside)
        alone = torch.cat([model(*(_row(values, row) for values in (context, future, past))) for row in range(BATCH)])
        near(alone, forecast, "a window's forecast depends on others of its batch")
        longer = (_led_by_nines(values) for values in (context, future, past))
        near(model(*longer), forecast, "a longer context must be used from its end")
        _check_reactions(model, batch, forecast)
    twin, again = (model.config.build(model.signature, seed=7).state_dict() for _ in range(2))
    require(all(torch.equal(twin[name], again[name]) for name in twin), "the same seed builds different weights")
    for form, back in (("json", type(model.config).from_json), ("toml", type(model.config).from_toml)):
        text = model.config.to_json() if form == "json" else model.config.to_toml()
        require(back(text) == model.config, f"the config does not survive {form}")
    check_width_groups(model)


def _row(values: torch.Tensor | None, row: int) -> torch.Tensor | None:
    return None if values is None else values[row : row + 1]


def _led_by_nines(values: torch.Tensor | None) -> torch.Tensor | None:
    """The same with two more steps at the start."""
    return None if values is None else torch.cat([torch.full_like(values[:, :2], 9.0), values], dim=1)


def _check_reactions(model: Forecaster, batch: Batch, forecast: torch.Tensor) -> None:
    """Every covariate moves the forecast of its window; that it moves no other's was shown before."""
    for side in ("future", "past"):
        for place, feature in enumerate(getattr(model.signature, side)):
            given = {name: getattr(batch, name) for name in ("future", "past")}
            given[side] = given[side].clone()
            # Of what is known ahead the steps of the horizon are moved, which a past column would not have.
            given[side][1, -HORIZON:, place] += 1.0
            moved = (model(batch.context, **given) - forecast).abs().amax(dim=(1, 2))
            require(float(moved[1]) > 1e-5, f"the forecast does not react to {feature} of `{side}`")


def _check_distribution(model: Forecaster, inside: Activations) -> None:
    """The distribution, where the model forecasts one, agrees with the forecast."""
    distribution, support = inside.distribution, inside.support
    if distribution is None:
        require(not model.head.probabilistic, f"a model with a {model.head.kind} head forecasts no distribution")
        return
    shape = (BATCH, HORIZON, CHANNELS, model.head.n_outputs)
    require(tuple(distribution.shape) == shape, f"distribution has shape {tuple(distribution.shape)}, not {shape}")
    if isinstance(model.head, QuantileHead):
        require(bool((distribution.diff(dim=-1) >= 0).all()), "quantiles cross")
        median = distribution[..., model.head.levels.index(0.5)]
        near(median, inside.forecast, "the forecast is not the median")
    elif support is not None:
        near(
            (distribution.softmax(-1) * support).sum(-1),
            inside.forecast,
            "the forecast is not the mean over bins",
            1e-5,
        )
