"""Losses on forecasts, their resolutions and spectra, and on quantiles and bins, against plain versions of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests import oracles
from tests.taught import STUDENT, distilled_history, noise, under_autocast, value_of
from tsdistill.data import Task
from tsdistill.distillation import distill
from tsdistill.errors import ConfigError, UnsupportedError
from tsdistill.losses import (
    Example,
    Loss,
    MultiScaleLoss,
    OutputLoss,
    QuantileLoss,
    SoftLabelLoss,
    SpectralLoss,
    TemporalLoss,
)
from tsdistill.models import (
    Activations,
    BinnedHead,
    CycleNetConfig,
    LinearConfig,
    QuantileHead,
)
from tsdistill.models.heads import AnyHead
from tsdistill.testing import BATCH, CHANNELS, HORIZON, toy_batch, toy_signature, toy_task
from tsdistill.training import train

LEVELS = (0.1, 0.3, 0.5, 0.9)
N_BINS = 13
FORECASTS: list[Loss] = [
    OutputLoss(error="absolute"),
    OutputLoss(error="huber", delta=0.3),
    OutputLoss(last_step_weight=0.25),
    MultiScaleLoss(),
    SpectralLoss(),
    SpectralLoss(measure="log"),
]


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


def quantiles(seed: int, levels: tuple[float, ...] = LEVELS) -> Activations:
    generator = torch.Generator().manual_seed(seed)
    rising = torch.randn(BATCH, HORIZON, CHANNELS, len(levels), generator=generator).sort(-1).values
    return noise(seed, distribution=rising, levels=levels)


def bins(seed: int, *, reach: float = 3.0, n_bins: int = N_BINS) -> Activations:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(BATCH, HORIZON, CHANNELS, n_bins, generator=generator)
    support = torch.linspace(-reach, reach, n_bins).expand(BATCH, 1, CHANNELS, n_bins)
    return noise(seed, distribution=logits, support=support)


def distribution_of(side: Activations) -> torch.Tensor:
    assert side.distribution is not None
    return side.distribution


@pytest.mark.parametrize("error", ["squared", "absolute", "huber"])
@pytest.mark.parametrize("last", [None, 0.2, 3.0])
def test_every_error_of_an_output_loss_equals_its_plain_version(error: Any, last: float | None) -> None:
    delta = 0.7 if error == "huber" else None
    loss = OutputLoss(alpha=0.3, error=error, delta=delta, last_step_weight=last)
    from_student, from_teacher, truth = noise(1), noise(2), toy_batch().target
    value = float(value_of(loss, from_student, from_teacher))
    student, teacher, target = (rows.double().numpy() for rows in (from_student.forecast, from_teacher.forecast, truth))
    wanted = oracles.blended(student, teacher, target, 0.3, error, 0.7, last or 1.0)
    if error == "squared":
        # Blending targets instead of errors leaves out what no student can change.
        between = oracles.blended(teacher, target, target, 1.0, error, 0.7, last or 1.0)
        wanted -= 0.3 * 0.7 * between
    assert value == pytest.approx(wanted, rel=1e-5)


def test_what_an_output_loss_was_before_its_options_is_unchanged() -> None:
    assert OutputLoss().to_dict() == {"kind": "output", "weight": 1.0, "alpha": 0.5}
    assert str(OutputLoss(alpha=0.3, weight=2)) == "2 * MSE(student, 0.3 * teacher + 0.7 * truth)"
    assert OutputLoss(error="squared").formula == OutputLoss().formula
    assert float(value_of(OutputLoss(error="squared"), noise(1), noise(2))) == float(
        value_of(OutputLoss(), noise(1), noise(2))
    )


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        (OutputLoss(last_step_weight=2), "MSE(student, 0.5 * teacher + 0.5 * truth; last step * 2)"),
        (
            OutputLoss(error="huber", weight=3, alpha=0.2),
            "3 * (0.2 * Huber(student, teacher; delta 1) + 0.8 * Huber(student, truth; delta 1))",
        ),
        (
            OutputLoss(error="absolute") + TemporalLoss(),
            "(0.5 * MAE(student, teacher) + 0.5 * MAE(student, truth)) + 0.1 * MSE(diff(student), diff(teacher))",
        ),
        (SoftLabelLoss(), "4^2 * KL(softmax(teacher / 4), softmax(student / 4))"),
        (QuantileLoss(error="absolute"), "MAE(quantiles(student), quantiles(teacher))"),
        (MultiScaleLoss(), "MSE(pool(student), pool(teacher); scales 2, 4, 8)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_formulas_say_what_is_computed(loss: Any, wanted: str) -> None:
    assert str(loss) == wanted


@pytest.mark.parametrize("loss", [OutputLoss(error="absolute"), OutputLoss(last_step_weight=0.5)], ids=str)
def test_a_linear_student_is_not_solved_for_what_has_no_closed_form(task: Task, loss: Loss) -> None:
    assert loss.alphas is None
    with pytest.raises(UnsupportedError, match="no closed-form optimum"):
        distill(train(LinearConfig(), task), LinearConfig(), task, losses=[loss], control=False)
    assert OutputLoss(error="squared").alphas == (0.5,)


def test_weights_of_steps_would_change_a_ridge_so_it_is_rightly_refused() -> None:
    """The optimum of a step under a shared penalty depends on what that step weighs."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(31, 5, generator=generator), torch.randn(31, generator=generator)
    gram, moment = x.T @ x, x.T @ y
    one, two = (torch.linalg.solve(w * gram + 7 * torch.eye(5), w * moment) for w in (1.0, 2.0))
    assert not torch.allclose(one, two, atol=1e-3)


def test_an_explicit_error_is_of_the_forecast_whatever_the_head() -> None:
    student = STUDENT.replace(head=QuantileHead(levels=LEVELS)).build(toy_signature())
    batch, from_teacher = toy_batch(), noise(2)
    with torch.no_grad():
        from_student = student.activations(batch.context)
    bound = OutputLoss(alpha=1, error="absolute").bind(student, Example(from_student, from_teacher, batch))
    assert float(bound(from_student, from_teacher, batch)) == pytest.approx(
        float((from_student.forecast - from_teacher.forecast).abs().mean())
    )


@pytest.mark.parametrize("scales", [(2, 4, 8), (3,), (2, 11)])
def test_pooled_errors_equal_their_plain_version(scales: tuple[int, ...]) -> None:
    student, teacher = noise(1), noise(2)
    wanted = oracles.multi_scale(student.forecast.double().numpy(), teacher.forecast.double().numpy(), scales)
    assert float(value_of(MultiScaleLoss(scales=scales), student, teacher)) == pytest.approx(wanted, rel=1e-5)


def test_what_averages_out_within_a_scale_costs_nothing() -> None:
    flat = torch.zeros(BATCH, 12, CHANNELS)
    wiggle = flat.clone()
    wiggle[:, ::2], wiggle[:, 1::2] = 1.0, -1.0
    batch = toy_batch()
    student = STUDENT.build(toy_signature())
    bound = MultiScaleLoss(scales=(2, 4)).bind(student, Example(noise(1), noise(2), batch))
    assert float(bound(Activations(wiggle), Activations(flat), batch)) == 0.0
    assert float(bound(Activations(wiggle + 0.5), Activations(flat), batch)) == pytest.approx(0.25)


def test_spectral_distances_equal_their_plain_versions() -> None:
    from_student, from_teacher = noise(1), noise(2)
    student, teacher = (side.forecast.double().numpy() for side in (from_student, from_teacher))
    for temperature in (None, 0.5):
        value = float(value_of(SpectralLoss(temperature=temperature), from_student, from_teacher))
        assert value == pytest.approx(oracles.spectral_divergence(student, teacher, temperature or 0.1), rel=1e-4)
    for floor in (None, 0.3):
        value = float(value_of(SpectralLoss(measure="log", floor=floor), from_student, from_teacher))
        assert value == pytest.approx(oracles.log_spectral(student, teacher, floor or 0.01), rel=1e-4)


@pytest.mark.parametrize("loss", [SpectralLoss(), SpectralLoss(measure="log")], ids=str)
def test_spectra_know_neither_phase_nor_level_but_period_and_strength(loss: Loss) -> None:
    steps = torch.arange(HORIZON)[None, :, None].expand(BATCH, HORIZON, CHANNELS)
    wave = torch.sin(2 * math.pi * 2 * steps / HORIZON)
    shifted = torch.sin(2 * math.pi * 2 * steps / HORIZON + 1.0) + 5
    faster, weaker = torch.sin(2 * math.pi * 3 * steps / HORIZON), 0.3 * wave
    far = [float(value_of(loss, Activations(signal), Activations(wave))) for signal in (faster, weaker)]
    assert float(value_of(loss, Activations(shifted), Activations(wave))) < 1e-4
    assert min(far) > 0.1


def test_a_flat_forecast_has_a_finite_spectral_gradient() -> None:
    for loss in (SpectralLoss(), SpectralLoss(measure="log")):
        flat = torch.zeros(BATCH, HORIZON, CHANNELS, requires_grad=True)
        value_of(loss, Activations(flat), noise(2)).backward()
        assert flat.grad is not None
        assert bool(flat.grad.isfinite().all())


def test_equal_levels_are_compared_one_by_one() -> None:
    student, teacher = quantiles(1), quantiles(2)
    gaps = (distribution_of(student) - distribution_of(teacher)).double()
    assert float(value_of(QuantileLoss(), student, teacher)) == pytest.approx(float(gaps.square().mean()), rel=1e-5)
    absolute = float(value_of(QuantileLoss(error="absolute"), student, teacher))
    assert absolute == pytest.approx(float(gaps.abs().mean()), rel=1e-5)


def test_levels_between_the_teachers_lie_on_the_line_that_joins_them() -> None:
    """A teacher whose quantiles are linear in the level: every level between its own is then known exactly."""
    deciles = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
    start, slope = noise(3).forecast[..., None], noise(4).forecast[..., None].abs()

    def line(levels: tuple[float, ...]) -> Activations:
        return noise(1, distribution=start + slope * torch.tensor(levels), levels=levels)

    for levels in ((0.25, 0.5, 0.75), (0.1, 0.5, 0.9), (0.13, 0.5, 0.51), (0.5,)):
        assert float(value_of(QuantileLoss(), line(levels), line(deciles))) < 1e-12
        assert float(value_of(QuantileLoss(), quantiles(5, levels), line(deciles))) > 0.1


def test_soft_labels_equal_torchs_divergence_of_hand_made_logits() -> None:
    student, teacher = bins(1), bins(2)
    for temperature in (1.0, 4.0):
        rows = [
            (logits / temperature).flatten(0, -2).log_softmax(-1)
            for logits in (distribution_of(student), distribution_of(teacher))
        ]
        by_torch = functional.kl_div(rows[0], rows[1], reduction="batchmean", log_target=True)
        value = float(value_of(SoftLabelLoss(temperature=temperature), student, teacher))
        assert value == pytest.approx(temperature**2 * float(by_torch), rel=1e-5)
    plain = [
        oracles.divergence(oracles.shares(taught, 4.0), oracles.shares(learnt, 4.0))
        for taught, learnt in zip(
            *(distribution_of(side).flatten(0, -2).tolist() for side in (teacher, student)), strict=True
        )
    ]
    assert float(value_of(SoftLabelLoss(), student, teacher)) == pytest.approx(16 * sum(plain) / len(plain), rel=1e-4)


def test_a_temperatures_square_keeps_the_size_of_gradients() -> None:
    def size(temperature: float, *, squared: bool) -> float:
        student, teacher = bins(1), bins(2)
        logits = distribution_of(student).clone().requires_grad_()
        moved = Activations(student.forecast, distribution=logits, support=student.support)
        value_of(SoftLabelLoss(temperature=temperature), moved, teacher).backward()
        assert logits.grad is not None
        return float(logits.grad.norm()) / (1 if squared else temperature**2)

    assert size(32, squared=True) == pytest.approx(size(8, squared=True), rel=0.2)
    assert size(32, squared=False) < 0.1 * size(8, squared=False)


@pytest.mark.parametrize("loss", [*FORECASTS, QuantileLoss(), SoftLabelLoss()], ids=str)
def test_output_terms_are_float32_inside_under_bfloat16(loss: Loss) -> None:
    makers: dict[str, Callable[[int], Activations]] = {"quantile": quantiles, "soft-label": bins}
    make = makers.get(loss.kind, noise)
    value, wanted = under_autocast(loss, make(1), make(2))
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "head"),
    [
        (OutputLoss(error="absolute"), None),
        (OutputLoss(error="huber", last_step_weight=0.5), None),
        (MultiScaleLoss(), None),
        (SpectralLoss(), None),
        (SpectralLoss(measure="log"), None),
        (QuantileLoss(), QuantileHead(levels=LEVELS)),
        (SoftLabelLoss(), BinnedHead(n_bins=N_BINS)),
    ],
    ids=lambda value: str(value) if isinstance(value, Loss) else "",
)
def test_a_student_learns_by_each_output_term_and_its_part_is_logged(
    task: Task, loss: Loss, head: AnyHead | None
) -> None:
    history = distilled_history(loss, task, head)
    assert all(record[f"loss_{loss.kind}"] > 0 for record in history)


def test_a_student_takes_quantiles_between_those_of_a_teacher_that_is_asked_once(task: Task) -> None:
    fine = QuantileHead(levels=(0.1, 0.3, 0.5, 0.7, 0.9))
    history = distilled_history(QuantileLoss(), task, QuantileHead(levels=(0.25, 0.5, 0.75)), taught_by=fine)
    assert history[-1]["loss_quantile"] > 0


def test_what_follows_from_a_loss_is_no_state_of_a_run() -> None:
    student, batch = STUDENT.build(toy_signature()), toy_batch()
    example = Example(quantiles(1, (0.25, 0.5)), quantiles(2), batch)
    for loss in (QuantileLoss(), OutputLoss(last_step_weight=2)):
        assert not loss.bind(student, example).state_dict()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OutputLoss(alpha=1.5), ["`alpha`", "between 0 and 1", '"validation"', "1.5"]),
        (lambda: OutputLoss(alpha="best"), ["`alpha`", "between 0 and 1", '"validation"', "'best'"]),
        (lambda: OutputLoss(alpha="validation", error="huber"), ["`alpha`", "be a number", "closed form", "`error`"]),
        (lambda: OutputLoss(alpha="validation", last_step_weight=2), ["`alpha`", "closed form", "last_step_weight"]),
        (lambda: OutputLoss(delta=0.5), ["`delta`", "0.5", 'error="huber"']),
        (lambda: OutputLoss(error="squared", delta=0.5), ["`delta`", "squared"]),
        (lambda: OutputLoss(last_step_weight=0), ["last_step_weight", "greater than 0"]),
        (lambda: OutputLoss(error="median"), ["`error`", "absolute", "median"]),
        (lambda: MultiScaleLoss(scales=()), ["`scales`", "rising", "()"]),
        (lambda: MultiScaleLoss(scales=(4, 2)), ["rising", "(4, 2)"]),
        (lambda: MultiScaleLoss(scales=(1, 2)), ["from 2", "(1, 2)", "OutputLoss(alpha=1)"]),
        (lambda: MultiScaleLoss(scales=(2.5,)), ["scales", "integer"]),
        (lambda: SpectralLoss(measure="log", temperature=1), ["`temperature`", '"log"', '"divergence"']),
        (lambda: SpectralLoss(floor=1), ["`floor`", '"divergence"', '"log"']),
        (lambda: SpectralLoss(measure="phase"), ["`measure`", "phase"]),
        (lambda: SoftLabelLoss(temperature=0), ["temperature", "greater than 0"]),
    ],
)  # fmt: skip
def test_output_losses_that_make_no_sense_are_refused(make: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("loss", "student", "teacher", "words"),
    [
        (QuantileLoss(), noise(1), noise(2), ["2 problems", "`student`", "`teacher`", "point forecasts",
                                              "QuantileHead"]),
        (QuantileLoss(), quantiles(1), bins(2), ["`teacher`", "13 bins"]),
        (QuantileLoss(), bins(1), quantiles(2), ["`student`", "head=td.QuantileHead"]),
        (QuantileLoss(), quantiles(1, (0.05, 0.5, 0.95)), quantiles(2), ["`levels`", "0.1 to 0.9", "got 0.05, 0.95"]),
        (QuantileLoss(), quantiles(1), noise(2, distribution=quantiles(2).distribution), ["unnamed levels"]),
        (SoftLabelLoss(), noise(1), quantiles(2), ["2 problems", "point forecasts", "levels 0.1, 0.3, 0.5, 0.9"]),
        (SoftLabelLoss(), bins(1), noise(2), ["`teacher`", "point forecasts", "BinnedHead"]),
        (SoftLabelLoss(), bins(1), bins(2, n_bins=17), ["`n_bins`", "13 for the student", "17 for the teacher"]),
        (SoftLabelLoss(), bins(1), bins(2, reach=5.0), ["`support`", "-3 to 3", "-5 to 5", "same context"]),
    ],
    ids=[
        "neither",
        "bins-teach",
        "bins-learn",
        "beyond",
        "unnamed",
        "no-bins",
        "point",
        "n-bins",
        "reach",
    ],
)  # fmt: skip
def test_what_two_sides_cannot_compare_is_refused(
    loss: Loss, student: Activations, teacher: Activations, words: list[str]
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        value_of(loss, student, teacher)
    assert [word for word in words if word not in str(caught.value)] == []


def test_bins_that_move_with_what_a_student_learns_are_refused() -> None:
    head = BinnedHead(n_bins=N_BINS)
    known = CycleNetConfig(head=head).needs
    assert known is not None
    signature = toy_signature(("future",), known)
    student, teacher = CycleNetConfig(head=head).build(signature), CycleNetConfig(head=head).build(signature)
    batch = toy_batch(signature=signature)
    seen = (batch.context, batch.future, batch.past)
    example = Example(student.activations(*seen), teacher.activations(*seen), batch)
    with pytest.raises(UnsupportedError, match="bins that stay where they are, got a 'cyclenet' model"):
        SoftLabelLoss().bind(student, example)


@pytest.mark.parametrize(
    ("loss", "horizon", "words"),
    [
        (MultiScaleLoss(scales=(2, 13)), HORIZON, ["`scales`", "horizon (11)", "(2, 13)"]),
        (SpectralLoss(), 3, ["`horizon`", "at least 4", "horizon=3"]),
    ],
    ids=["scales", "spectral"],
)
def test_a_horizon_too_short_is_refused(loss: Loss, horizon: int, words: list[str]) -> None:
    student = LinearConfig().build(toy_signature().replace(horizon=horizon))
    with pytest.raises(ConfigError) as caught:
        loss.bind(student, Example(noise(1), noise(2), toy_batch()))
    assert [word for word in words if word not in str(caught.value)] == []


def test_step_weights_need_an_error_that_has_steps() -> None:
    student = STUDENT.replace(head=QuantileHead(levels=LEVELS)).build(toy_signature())
    with pytest.raises(UnsupportedError, match="`last_step_weight` must be left out for the error of a quantile head"):
        OutputLoss(last_step_weight=2).bind(student, Example(noise(1), noise(2), toy_batch()))
