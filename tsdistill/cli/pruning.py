"""`tsdistill prune`: the verb for a shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tsdistill.cli.options import reads
from tsdistill.cli.streams import show
from tsdistill.errors import printable


@reads
def prune(
    artifact: Annotated[Path, typer.Argument(help="Folder of a saved trainable model.")],
    recipe: Annotated[
        Path | None,
        typer.Option(help="Recipe whose data, task and [pruning] are used; left out: the bundled data."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pruned model.")] = Path("tsdistill-pruned"),
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would be cut and what it would save.")] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Only show how the validation error grows as each group is cut.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --sensitivity: also write a page with the curves.")
    ] = None,
    ratio: Annotated[float | None, typer.Option(help="Share of units to remove.")] = None,
    max_parameters: Annotated[int | None, typer.Option(help="Weights that may stay.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Bytes the exported model may take.")] = None,
    max_latency: Annotated[float | None, typer.Option(metavar="MS", help="Milliseconds a forecast may take.")] = None,
    max_error_increase: Annotated[
        float | None, typer.Option(help="Share by which the validation error may grow: 0.01 is 1 %.")
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(help="units, heads, width, layers, context or names of groups; give it several times."),
    ] = None,
    criterion: Annotated[
        str | None,
        typer.Option(help="How units are ranked, such as magnitude, taylor or loss."),
    ] = None,
    ranking: Annotated[Literal["local", "global"] | None, typer.Option(help="In each group, or over all.")] = None,
    repair: Annotated[
        bool | None, typer.Option("--repair/--no-repair", help="Make the units that stay replace those that go.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of cutting and recovering.")] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Epochs of recovery after a round; 0 for none.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help='Who teaches the recovery: a saved model, or "self".')
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text for people.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")] = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Remove units, heads, blocks or context from a saved model, which stays as it is; the result is a smaller one.

    Look first, with --plan or --sensitivity. Of several sizes all have to be met; an error budget stands alone.

    Examples:
      tsdistill prune demo/stages/student --ratio 0.5 --plan

      tsdistill prune student --recipe my.toml --sensitivity --groups context --html sensitivity.html

      tsdistill prune student --recipe my.toml --max-bytes 50000 --repair --teacher teacher --out pruned

      tsdistill prune student --recipe my.toml --max-error-increase 0.01 --groups units --groups context
    """
    from tsdistill.artifacts import load, save
    from tsdistill.errors import ConfigError
    from tsdistill.evaluation import evaluate
    from tsdistill.pruning import plan_pruning
    from tsdistill.pruning import prune as cut
    from tsdistill.recipe import read_recipe

    if plan and sensitivity:
        raise ConfigError("Only one of --plan and --sensitivity must be given. Run it twice for both.")
    if html is not None and not sensitivity:
        raise ConfigError("--html must come with --sensitivity, whose curves it shows. Add it, or leave --html out.")
    model: Any = load(artifact)
    chosen = read_recipe(recipe)
    chosen = chosen.replace(data=chosen.data.replace(**reading))
    asked = {
        "ratio": ratio,
        "max_parameters": max_parameters,
        "max_bytes": max_bytes,
        "max_latency_ms": max_latency,
        "max_error_increase": max_error_increase,
        "groups": tuple(groups) if groups else None,
        "criterion": criterion,
        "ranking": ranking,
        "repair": repair,
        "n_rounds": rounds,
        "recover_from": "self" if teacher == Path("self") else None,
    }
    spec = _spec(chosen.pruning, {name: value for name, value in asked.items() if value is not None}, epochs)
    task = chosen.task.build(chosen.data.load())
    if plan:
        cut_plan = plan_pruning(model, task, spec)
        show(json.dumps(cut_plan.to_dict()) if as_json else cut_plan)
        return
    if sensitivity:
        _show_curves(model, task, spec, f"{artifact.resolve().name}: sensitivity", html, as_json=as_json)
        return
    recovery_teacher: Any = load(teacher) if teacher is not None and spec.recover_from is None else None
    smaller = cut(model, task, spec, teacher=recovery_teacher, progress=False if quiet else None)
    errors = {name: evaluate(forecaster, task, part="validation")["mse"] for name, forecaster in
              (("before", model), ("after", smaller))}  # fmt: skip
    save(smaller, out, metrics=evaluate(smaller, task, part="validation"))
    metrics = smaller.lineage[-1].metrics
    if as_json:
        result = {"artifact": str(out), "validation_mse": errors, **metrics, "config": smaller.config.to_dict()}
        typer.echo(json.dumps({**result, "context": smaller.context}))
        return
    lines = [(name, kept) for name, kept in metrics.get("kept", {}).items()]
    if "n_zeros" in metrics:
        lines.append(("zeros", f"{metrics['n_zeros']:,} of {metrics['n_weights']:,}"))
        lines.append(("compressed", f"{metrics['compressed_bytes_before']:,} -> {metrics['compressed_bytes']:,} bytes"))
    lines.append(("weights", f"{metrics['n_parameters_before']:,} -> {metrics['n_parameters']:,}"))
    lines.append(("validation MSE", f"{errors['before']:.4f} -> {errors['after']:.4f}"))
    lines += [(name, f"{value:g}") for name, value in metrics.get("reached", {}).items()]
    lines = [(printable(name), printable(value)) for name, value in lines]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        show(f"{name:{width}}  {value}")
    for note in metrics.get("notes", []):
        show(printable(note))
    show(f"\nArtifact  {printable(out)}")


def _show_curves(model: Any, task: Any, spec: Any, title: str, html: Path | None, *, as_json: bool) -> None:
    from tsdistill.pruning import pruning_sensitivity
    from tsdistill.report import plot_sensitivity

    curves = pruning_sensitivity(model, task, spec)
    page = None if html is None else plot_sensitivity(curves, html, title=title)
    show(json.dumps(curves.to_dict()) if as_json else curves)
    if page is not None and not as_json:
        show(f"\nPage  {printable(page)}")


def _spec(base: Any, asked: dict[str, Any], epochs: int | None) -> Any:
    """The recipe's pruning, or the default, with what the shell asks for in place of it."""
    from tsdistill.pruning import Pruning
    from tsdistill.pruning.spec import TARGETS
    from tsdistill.training import Training

    spec = base or Pruning()
    if any(name == "ratio" or name.startswith("max_") for name in asked):
        # Another goal than the recipe's takes the place of it.
        asked = {**dict.fromkeys(("ratio", *TARGETS)), **asked}
    if epochs is not None:
        recovery = (spec.recovery or Training(learning_rate=5e-4)).replace(epochs=epochs) if epochs else None
        asked = {**asked, "recovery": recovery}
    return spec.replace(**asked)
