"""`tsdistill quantize`: the verb for a shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tsdistill.cli.options import Json, Quiet, reads
from tsdistill.cli.streams import show
from tsdistill.errors import printable


@reads
def quantize(
    artifact: Annotated[Path, typer.Argument(help="Folder of a saved trainable model.")],
    recipe: Annotated[
        Path | None,
        typer.Option(help="Recipe whose data, task and [quantization] are used; left out: the bundled data."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the deployed model.")] = Path("tsdistill-quantized"),
    method: Annotated[
        str | None,
        typer.Option(help="Which form, such as dynamic; auto measures several and takes the best, qat trains before."),
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="Bits of a weight, such as 7, 8 or 4; what a method can, varies.")
    ] = None,
    max_error_increase: Annotated[
        float | None, typer.Option(help="Share by which the validation MSE may rise: 0.01 is 1 %.")
    ] = None,
    max_latency_increase: Annotated[
        float | None, typer.Option(help="Share by which it may be slower where bytes count more: 0.2 is 20 %.")
    ] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option(help="Windows at once for which latency counts; give it several times.")
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="A layer to leave in float; give it several times.")
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option(help="With auto: only this form of an earlier table; one alone is taken without a clock."),
    ] = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Forecast one window at a time, so that no other in its batch moves it.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of training with qat.")] = None,
    teacher: Annotated[Path | None, typer.Option(metavar="FOLDER", help="A saved model that teaches with qat.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also when it is not smaller or faster.")] = False,
    former_force: Annotated[
        bool, typer.Option("--take-it", hidden=True, help="What --force was called before.")
    ] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Only show what each layer costs when it alone is quantized.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Bring a saved model to INT8 and deploy it; what does not pay is refused with the numbers.

    The table shows every form that was tried, measured on this machine and on validation data.

    Examples:
      tsdistill quantize demo/stages/student --method auto --batch-size 1 --batch-size 64 --out deployed

      tsdistill quantize demo/stages/student --method auto --form dynamic-mixed --out the-same-again

      tsdistill quantize student --recipe my.toml --sensitivity

      tsdistill quantize student --recipe my.toml --method weight-only --bits 4 --max-error-increase 0.05

      tsdistill quantize student --recipe my.toml --method qat --bits 4 --epochs 5 --teacher teacher
    """
    from tsdistill.artifacts import load, save
    from tsdistill.evaluation import evaluate
    from tsdistill.quantization import Auto, candidate_table, quantization_sensitivity
    from tsdistill.quantization import quantize as deploy
    from tsdistill.recipe import read_recipe
    from tsdistill.training import Training

    model: Any = load(artifact)
    chosen = read_recipe(recipe)
    chosen = chosen.replace(data=chosen.data.replace(**reading))
    asked: dict[str, Any] = {
        "method": method,
        "weight_bits": bits,
        "max_error_increase": max_error_increase,
        "max_latency_increase": max_latency_increase,
        "batch_sizes": tuple(batch_size) if batch_size else None,
        "keep_float": tuple(keep_float) if keep_float else None,
        "forms": tuple(form) if form else None,
        "require_gain": False if force or former_force else None,
        "isolate": True if isolate else None,
    }
    if former_force:
        show("--take-it is called --force now. The old name works until version 0.3.", err=True)
    spec = (chosen.quantization or Auto()).replace(
        **{name: value for name, value in asked.items() if value is not None}
    )
    if epochs is not None:
        # A method that does not train refuses the field, and says which ones do.
        training: Training = getattr(spec, "training", Training())
        spec = spec.replace(training=training.replace(epochs=epochs))
    task = chosen.task.build(chosen.data.load())
    if sensitivity:
        costs = quantization_sensitivity(model, task, spec)
        show(json.dumps(costs.to_dict()) if as_json else costs)
        return
    training_teacher: Any = load(teacher) if teacher is not None else None
    deployed = deploy(model, task, spec, teacher=training_teacher, progress=False if quiet else None)
    save(deployed, out, metrics=evaluate(deployed, task, part="validation"))
    if as_json:
        typer.echo(json.dumps({"artifact": str(out), "precision": deployed.precision, **deployed.lineage[-1].metrics}))
        return
    show(candidate_table(deployed))
    show(f"\n{deployed.precision}, {deployed.size_bytes:,} bytes\nArtifact  {printable(out)}")
