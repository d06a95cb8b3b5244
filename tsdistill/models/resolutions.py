"""A small linear map: fine steps near the forecast, coarse ones further back, and one basis over the horizon."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, Problem, must
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.layers import ChannelLinear
from tsdistill.models.ridge import NormalEquations, Statistics, one_thread
from tsdistill.models.rolling import Block, Centre, Centred, rolling_errors, rolling_parts
from tsdistill.spec import Tuned
from tsdistill.spec.limits import MAX_ITEMS, Steps, Width


class MultiResolutionConfig(ModelConfig):
    """A ridge regression on means of steps that grow coarser with their age, reduced to a basis over the horizon.

    forecast = B A (P x - c) + c. P x are the newest steps of a window one by one and means of 3, 12 and 36 of the older
    ones; c is the window's centre; A, for every channel its own, takes them to `rank` numbers; B, which all channels
    share, takes those to the horizon. For each channel a centre and a penalty are chosen by rolling origins and a ridge
    W is solved; B is made of the `rank` first eigenvectors of sum over channels of W' (F'F + ridge) W, with F the
    centred means, and A = B' W: no other B and A have a lower penalised error.

    Use it in place of `LinearConfig(individual=True)` where bytes count or where a map per channel knows too many steps
    to be sure of each: it has channels * features * rank + horizon * rank weights. It takes seconds and wants a
    long context. Not for series whose rhythm is finer than the means that lie where it returns.

    Args:
        resolutions: Steps that a feature is the mean of, from the newest to the oldest.
        borders: Steps back from the forecast at which each resolution gives way to the next. The last one goes on to
            the whole context; what is left over at a border is a mean of fewer steps. Borders beyond the context count
            for nothing.
        rank: Columns of the basis; never more than the horizon has steps.
        centres: What each channel may be centred by: "window" (its mean) or the mean of so many last steps.
        penalties: Relative penalties to choose from.
        n_blocks: Blocks of time that the training windows are cut into.
        individual: A map for every channel; else one for all.

    Example:
        >>> MultiResolutionConfig(resolutions=(1, 6), borders=(24,), rank=4).n_features(168)
        48

    Source: A. Izenman, "Reduced-Rank Regression for the Multivariate Linear Model", Journal of Multivariate Analysis
    5(2), 1975, theorem 1; A. Mukherjee and J. Zhu, "Reduced Rank Ridge Regression and Its Kernel Extensions",
    Statistical Analysis and Data Mining 4(6), 2011, section 2, for the penalty. E. Ghysels, P. Santa-Clara and R.
    Valkanov, "The MIDAS Touch: Mixed Data Sampling Regression Models", 2004, for regressors of several resolutions.
    Differs from the sources: each channel has regressors and a penalty of its own and shares the basis alone; the
    penalty is relative to the mean diagonal of F'F.
    """

    kind: Literal["multi-resolution"] = "multi-resolution"
    resolutions: tuple[Steps, ...] = Field(default=(1, 3, 12, 36), min_length=1, max_length=MAX_ITEMS)
    borders: tuple[Steps, ...] = Field(default=(24, 72, 180), max_length=MAX_ITEMS)
    rank: Annotated[Width, Tuned(4, 8, 16)] = 8
    centres: tuple[Literal["window"] | Steps, ...] = Field(
        default=(1, 24, "window"), min_length=1, max_length=MAX_ITEMS
    )
    penalties: tuple[PositiveFloat, ...] = Field(
        default=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0), min_length=1, max_length=MAX_ITEMS
    )
    n_blocks: int = Field(default=4, ge=2, le=64)
    individual: Annotated[bool, Tuned(False, True)] = True

    forecaster: ClassVar[type[Forecaster]]

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Few and many features, one centre and several, a map for each channel and for all."""
        return (
            cls(resolutions=(1, 3, 7), borders=(5, 19), rank=3, centres=(1, 5, "window")),
            cls(resolutions=(5,), borders=(), rank=2, centres=("window",), n_blocks=2, individual=False),
        )

    @model_validator(mode="after")
    def _check_borders(self) -> Self:
        if len(self.borders) != len(self.resolutions) - 1:
            rule = f"be one fewer than the {len(self.resolutions)} resolutions"
            remedy = "Say where each of them gives way to the next"
            raise _problem("borders", must("borders", rule, self.borders, remedy))
        if any(later <= earlier for earlier, later in itertools.pairwise(self.borders)):
            raise _problem("borders", must("borders", "grow", self.borders, "Count back from the forecast"))
        return self

    def pieces(self, context: int) -> tuple[tuple[int, int], ...]:
        """How the context is cut, from its newest step back: pairs of steps in a mean and number of such means."""
        edges = [0, *(border for border in self.borders if border < context), context]
        pieces = []
        for (newer, older), steps in zip(itertools.pairwise(edges), self.resolutions, strict=False):
            whole, rest = divmod(older - newer, steps)
            pieces += [(steps, whole)] * (whole > 0) + [(rest, 1)] * (rest > 0)
        return tuple(pieces)

    def n_features(self, context: int) -> int:
        """Steps and means of steps that a channel's map reads, in a task of some context."""
        return sum(number for _, number in self.pieces(context))


def _problem(name: str, sentence: str) -> ConfigError:
    return ConfigError(sentence, (Problem((name,), sentence),))


@dataclass(frozen=True)
class _Ridge:
    """What was chosen for a channel, and its error over rolling origins."""

    centre: Centre
    penalty: float
    error: float


@dataclass(frozen=True)
class _Chosen:
    """A channel's choice, and its sums in features: to learn from, and to judge by with the number of values behind."""

    ridge: _Ridge
    learnt: Centred
    judged: Centred
    n_values: int


class MultiResolution(Forecaster):
    """The forecaster a `MultiResolutionConfig` builds; it forecasts a window's first centre until it is solved."""

    config: MultiResolutionConfig
    closed_form: ClassVar[bool] = True

    def __init__(self, config: MultiResolutionConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        self.rank = min(config.rank, signature.horizon)
        self.pieces = config.pieces(signature.context)
        n_features = config.n_features(signature.context)
        self.n_maps = len(signature.channels) if config.individual else 1
        self.map = (
            ChannelLinear(self.n_maps, n_features, self.rank, bias=False)
            if config.individual
            else nn.Linear(n_features, self.rank, bias=False)
        )
        self.basis = nn.Linear(self.rank, signature.horizon, bias=False)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.basis.weight)
        # Which centre each channel has: ones and zeros, so that the graph is the same whatever was chosen.
        chosen = torch.zeros(self.n_maps, len(config.centres))
        chosen[:, 0] = 1
        self.register_buffer("chosen_centre", chosen)
        self.chosen_centre: Tensor

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """The hidden state is the point in the basis, (batch, channel, 1, rank)."""
        x = self.recent(context)
        centre = self._centre(x)
        state = self.map(self._features(x) - centre)
        forecast = self.basis(state) + centre
        return Activations(forecast=forecast.transpose(1, 2), hidden=(state[:, :, None],))

    def _features(self, x: Tensor) -> Tensor:
        """(..., context) -> (..., feature), from the oldest to the newest."""
        parts = []
        end = self.context
        for steps, number in self.pieces:
            piece = x[..., end - steps * number : end]
            parts.append(piece if steps == 1 else piece.unflatten(-1, (number, steps)).mean(-1))
            end -= steps * number
        return torch.cat(parts[::-1], dim=-1)

    def _centre(self, x: Tensor) -> Tensor:
        """(batch, channel, context) -> (batch, channel, 1), what each channel is centred by."""
        means = [
            x[..., -(self.context if centre == "window" else min(centre, self.context)) :].mean(-1, keepdim=True)
            for centre in self.config.centres
        ]
        if len(means) == 1:
            return means[0]
        return (torch.cat(means, dim=-1) * self.chosen_centre).sum(-1, keepdim=True)

    def fit_closed_form(self, equations: NormalEquations) -> dict[str, Any]:
        """Choose centres and penalties by rolling origins, solve, reduce, and keep the best share of a teacher."""
        chosen = [self._choice(equations, channel) for channel in self._channels()]
        taught: list[Centred | None] = [None] * len(chosen)
        if equations.teacher is not None and any(equations.alphas):
            lessons = equations.statistics(individual=self.config.individual)[0].channels()
            pairs = zip(lessons, chosen, strict=True)
            taught = [self._sums(own, one.ridge.centre, taught=True) for own, one in pairs]
        results = []
        for alpha in sorted(equations.alphas):
            learnt = [_blend(one.learnt, lesson, alpha) for one, lesson in zip(chosen, taught, strict=True)]
            maps, basis, share = _reduced(learnt, [one.ridge.penalty for one in chosen], self.rank)
            error = sum(one.judged.squared_error(own @ basis.T) for one, own in zip(chosen, maps, strict=True))
            results.append((error / sum(one.n_values for one in chosen), alpha, maps, basis, share))
        error, alpha, maps, basis, share = min(results, key=operator.itemgetter(0, 1))
        self._keep(maps, basis, [one.ridge.centre for one in chosen])
        edges = {min(self.config.penalties), max(self.config.penalties)}
        ridges = [asdict(one.ridge) for one in chosen]
        return {
            "ridges": ridges,
            "n_at_edge": sum(ridge["penalty"] in edges for ridge in ridges),
            "share_in_basis": share,
            "validation_mse": error,
            **({"alpha": alpha} if len(equations.alphas) > 1 else {}),
        }

    def refit_closed_form(self, equations: NormalEquations, choice: dict[str, Any]) -> dict[str, Any]:
        """Solve and reduce with the centres, the penalties and the share of the teacher that were chosen."""
        ridges = [_Ridge(**ridge) for ridge in choice["ridges"]]
        alpha = choice.get("alpha", equations.alphas[0])
        sums = Statistics.of(equations.train, equations.teacher, individual=self.config.individual).channels()
        learnt = []
        for own, ridge in zip(sums, ridges, strict=True):
            lesson = self._sums(own, ridge.centre, taught=True) if own.taught is not None else None
            learnt.append(_blend(self._sums(own, ridge.centre), lesson, alpha))
        maps, basis, share = _reduced(learnt, [ridge.penalty for ridge in ridges], self.rank)
        self._keep(maps, basis, [ridge.centre for ridge in ridges])
        kept: dict[str, Any] = {name: choice[name] for name in ("ridges", "alpha") if name in choice}
        return {**kept, "share_in_basis": share}

    def _channels(self) -> list[int | None]:
        return [*range(self.n_maps)] if self.config.individual else [None]

    @functools.cached_property
    def _means(self) -> Tensor:
        """P, (feature, context), with which sums over steps become sums over features."""
        return self._features(torch.eye(self.context, dtype=torch.float64)).T.contiguous()

    def _sums(self, statistics: Statistics, centre: Centre, *, taught: bool = False) -> Centred:
        target = statistics.taught if taught else statistics.cross
        assert target is not None
        return Centred.of(statistics, self.context, centre, target).combined(self._means)

    def _choice(self, equations: NormalEquations, channel: int | None) -> _Chosen:
        """The centre and the penalty of one channel, or of all; made once for a student and its control."""
        # Whatever the rank: ridges are chosen before they are reduced.
        key = f"{self.config.replace(rank=1).digest} {channel}"
        if key not in equations.choices:
            parts, whole, judged = rolling_parts(equations, channel, self.config.n_blocks)
            ridge = self._ridge(parts)
            sums = (self._sums(whole, ridge.centre), self._sums(judged, ridge.centre))
            equations.choices[key] = _Chosen(ridge, *sums, judged.n_rows * self.horizon)
        chosen: _Chosen = equations.choices[key]
        return chosen

    def _ridge(self, parts: list[Block]) -> _Ridge:
        ridges = []
        for centre in self.config.centres:
            penalties = self.config.penalties
            errors, n_values = rolling_errors(parts, self.context, centre, penalties, self._means)
            ridges += [_Ridge(centre, *pair) for pair in zip(penalties, (e / n_values for e in errors), strict=True)]
        return min(ridges, key=lambda ridge: ridge.error)

    def _keep(self, maps: Sequence[Tensor], basis: Tensor, centres: Sequence[Centre]) -> None:
        weights = torch.stack([own.T for own in maps])
        names = self.config.centres
        with torch.no_grad():
            self.map.weight.copy_(weights if self.config.individual else weights[0])
            self.basis.weight.copy_(basis)
            self.chosen_centre.copy_(torch.eye(len(names))[[names.index(centre) for centre in centres]])


def _blend(learnt: Centred, taught: Centred | None, alpha: float) -> Centred:
    """Targets of distillation are linear in the share of the teacher, and so are the sums with them."""
    if taught is None or alpha == 0:
        return learnt
    return replace(learnt, cross=(1 - alpha) * learnt.cross + alpha * taught.cross)


@one_thread()
def _reduced(learnt: Sequence[Centred], penalties: Sequence[float], rank: int) -> tuple[list[Tensor], Tensor, float]:
    """A per channel, (feature, rank), the basis they share, (horizon, rank), and the share of the fit that it holds.

    With G = F'F + ridge and W = G^-1 F'Y, the penalised error of a map M is that of W plus |G^(1/2) (M - W)|^2. For any
    basis with orthonormal columns B the best M is W B B', and what is lost over all channels is least for the first
    eigenvectors of sum W'GW = sum W'F'Y.
    """
    maps = [sums.solved(penalty) for sums, penalty in zip(learnt, penalties, strict=True)]
    fitted = torch.stack([own.T @ sums.cross for own, sums in zip(maps, learnt, strict=True)]).sum(0)
    values, vectors = torch.linalg.eigh((fitted + fitted.T) / 2)
    values = values.clamp(min=0)
    basis = vectors[:, -rank:].flip(-1)
    # An eigenvector may point either way: its largest entry is made positive.
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    basis = basis * torch.where(largest < 0, -1.0, 1.0)
    total = float(values.sum())
    share = float(values[-rank:].sum()) / total if total > 0 else 1.0
    return [own @ basis for own in maps], basis, share


MultiResolutionConfig.forecaster = MultiResolution
