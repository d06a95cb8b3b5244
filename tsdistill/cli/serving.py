"""Commands for models that are made: predict and verify."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tsdistill.cli.options import Json, PublicKey, reads
from tsdistill.cli.streams import show
from tsdistill.errors import printable, printable_lines


@reads
def predict(
    artifact: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with the model's channels; the newest rows are used.")],
    future: Annotated[Path | None, typer.Option(help="File with the planned columns of the steps to forecast.")] = None,
    quantiles: Annotated[bool, typer.Option("--quantiles", help="Every level of a quantile head.")] = False,
    rolling: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Forecast from every N-th step of the file, not only its end."),
    ] = None,
    key: PublicKey = None,
    out: Annotated[Path | None, typer.Option(help="Write a CSV file instead of standard output.")] = None,
    as_json: Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Forecast the steps after the last row of a file, in raw units.

    Files are read as the model's own data was: its column of time stamps, zone, separator and the like are kept with
    it. Options change what is different.

    Stamps and identifiers are written under the names that they have in the file.

    With --rolling the whole file is read and forecast again and again, as if each time no more were known; the column
    `cutoff` holds the last known step.

    Examples:
      tsdistill predict demo/artifact newest.csv --time date > forecast.csv
      tsdistill predict artifact sales.csv --future prices.csv --quantiles
      tsdistill predict artifact year.csv --rolling 24 --out backtest.csv
    """
    from tsdistill.data import Reading, read_file

    model = _load(artifact, key)
    known = model.signature.covariates
    planned = list(known.future) if known is not None else []

    kept = getattr(model.signature, "reading", None)
    values = {} if kept is None else {name: getattr(kept, name) for name in Reading.model_fields}
    form = Reading(**{**values, **reading})

    def table(path: Path, target: list[str] | None) -> Any:
        return read_file(path, form, target=target).to_frame()

    history = table(file, [*model.signature.channels, *model.signature.past, *planned])
    ahead = table(future, planned or None) if future is not None else None
    forecast = _as_in_the_file(model.predict(history, ahead, quantiles=quantiles, rolling=rolling), form)
    if as_json:
        typer.echo(forecast.to_json(orient="records", date_format="iso"))
        return
    if out is None:
        table_text = forecast.to_csv(index=False)
        # Other programs get the names as they are; a person in a terminal gets them visible.
        sys.stdout.write(printable_lines(table_text) if sys.stdout.isatty() else table_text)
        return
    from tsdistill.files import write_atomic

    write_atomic(out, forecast.to_csv(index=False))


def _as_in_the_file(forecast: Any, form: Any) -> Any:
    """Stamps and identifiers in columns of the names that the file has for them."""
    from tsdistill.tables.roles import ID, TIME

    names = {TIME: form.time or TIME, ID: form.id or ID}
    if forecast.index.names != [None]:  # a channel is called so itself
        forecast.index.names = [names.get(name, name) for name in forecast.index.names]
        return forecast.reset_index()
    return forecast.rename(columns={name: new for name, new in names.items() if new not in forecast.columns})


def verify(
    artifact: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    key: PublicKey = None,
    as_json: Json = False,
) -> None:
    """Check every digest of an artifact and replay its golden windows on this machine.

    Digests say that an artifact is whole. With --key it must also be signed by the owner of that key.

    Examples:
      tsdistill verify demo/artifact
      tsdistill verify demo/artifact --key public.pem
    """
    from tsdistill import manifest, runtime

    if manifest.read(artifact)[0].deployment is not None:
        checks = runtime.verify(artifact, public_key=key)
    else:
        from tsdistill.artifacts import verify as verify_trainable

        checks = verify_trainable(artifact, public_key=key)
    if key is not None:
        from tsdistill.signatures import verify_signature

        checks["signed_by"] = verify_signature(artifact, key)
    if as_json:
        typer.echo(json.dumps(checks))
        return
    for name, value in checks.items():
        text = ", ".join(f"{n} {op}" for op, n in value.items()) if isinstance(value, dict) else value
        show(f"{printable(name):24} {printable(text)}")


def sign(
    artifact: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="Your private key: Ed25519, in PEM.")],
    as_json: Json = False,
) -> None:
    """Sign an artifact, so that others can tell where it comes from.

    Make a pair of keys once with openssl, keep the private one where models are released, and give the public one to
    everybody. The password of an encrypted key stands in the environment variable TSDISTILL_KEY_PASSWORD.

    Examples:
      openssl genpkey -algorithm ed25519 -out private.pem
      openssl pkey -in private.pem -pubout -out public.pem
      tsdistill sign demo/artifact --key private.pem
      tsdistill verify demo/artifact --key public.pem
    """
    from tsdistill.artifacts import sign as sign_artifact

    path = sign_artifact(artifact, key)
    show(json.dumps({"signature": str(path)}) if as_json else f"Signature  {printable(path)}")


def _load(artifact: Path, key: Path | None) -> Any:
    """A deployed model through the runtime, without torch; a trainable one through td.load."""
    from tsdistill import manifest, runtime

    if manifest.read(artifact)[0].deployment is not None:
        return runtime.load(artifact, public_key=key)
    from tsdistill.artifacts import load

    return load(artifact, public_key=key)
