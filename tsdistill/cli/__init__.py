"""The verbs of tsdistill for a shell and for cron.

Heavy modules are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Annotated

import typer

from tsdistill import __version__
from tsdistill.cli import (
    benching,
    compressing,
    edging,
    hosting,
    looking,
    pruning,
    quantizing,
    retraining,
    running,
    searching,
    serving,
)
from tsdistill.cli.streams import PIPE_CLOSED, PipeClosed, guarded, show
from tsdistill.errors import (
    ArtifactError,
    BusyError,
    ConfigError,
    DataError,
    DivergenceError,
    OrderError,
    ShapeError,
    TsdistillError,
    UnsupportedError,
    lack_of_memory,
    printable,
)

TOO_LITTLE_MEMORY = 8
EXIT_CODES: dict[type[TsdistillError], int] = {
    ConfigError: 2,
    DataError: 4,
    ShapeError: 4,
    ArtifactError: 5,
    UnsupportedError: 6,
    BusyError: 10,
    OrderError: 6,
    DivergenceError: 7,
}
"""What the shell gets for each kind of error; 0 is success, 1 a fault of tsdistill itself, 8 too little memory, 9 data
that its gate refused, 130 an interruption (Ctrl-C), 141 output that nobody reads to its end, 143 a request to terminate
(SIGTERM)."""

EPILOG = (
    "Exit codes: 0 done, 2 wrong option, recipe or job, 3 incumbent kept (retrain --exit-code), 4 data that cannot be "
    "used, 5 artifact or disk, 6 unsupported or out of order, 7 training diverged, 8 too little memory, 9 data that "
    "its gate refused, 10 busy: try again, 130 interrupted, 141 output closed, 143 terminated, 1 a fault of "
    "tsdistill itself."
)

app = typer.Typer(
    help="Train large forecasters, distil them into small ones, prune, quantize and ship them.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            envvar="TSDISTILL_PLUGINS",
            help="Import a module that registers models, losses or criteria of your own; may be repeated.",
        ),
    ] = None,
) -> None:
    """Options of the command line as a whole."""
    if plugin:
        sys.path.insert(0, os.getcwd())  # as `python -m` does, so that a module beside the recipe is found
    for name in plugin or ():
        try:
            importlib.import_module(name)
        except TsdistillError:  # a class that breaks its contract: the sentence says which and how
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            remedy = "Run from its folder, or install it" if isinstance(error, ImportError) else "Mend the module"
            raise ConfigError(
                f"`--plugin` must be a module that can be imported, got {name!r} ({reason}). {remedy}."
            ) from None


# The order of `--help`: what one does first comes first.
for _command in (
    running.run,
    running.forecasts,
    serving.predict,
    looking.datasets,
    looking.history,
    looking.cache,
    serving.verify,
    serving.sign,
    benching.bench,
    retraining.retrain,
    retraining.rollback,
    retraining.check_data,
    pruning.prune,
    quantizing.quantize,
    edging.export_c,
):
    app.command()(_command)
    if _command is running.run:
        app.add_typer(searching.searches, name="search")
        app.command()(compressing.compress)
        app.command()(hosting.search_server)
    if _command is retraining.rollback:
        app.add_typer(retraining.stores, name="store")


def main() -> None:
    """Run the command line; every error becomes one paragraph and an exit code."""
    try:
        with guarded():
            _run()
    except PipeClosed:
        sys.exit(PIPE_CLOSED)
    except OSError as error:
        _fail(f"{error.strerror or error}: standard output.", 5)


def _run() -> None:
    # SIGTERM unwinds like Ctrl-C, so that locks are released and half-written files removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    interrupted = "Interrupted. Start the same command again to continue."
    try:
        code = app(standalone_mode=False)  # typer gives back the code of an Exit, which it makes of Ctrl-C as well
        if code == 130:
            _fail(interrupted, code)
        if code:
            sys.exit(code)
    except TsdistillError as error:
        _fail_without_memory(error)
        _fail(str(error), next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1))
    except KeyboardInterrupt:
        _fail(interrupted, 130)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # nothing was asked for, so the help is the answer
            typer.echo(error.format_message())  # type: ignore[attr-defined]
            sys.exit(2)
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error of the option parser
            _fail(printable(f"{error.format_message().rstrip('.')}. Try --help."), 2)
        if type(error).__name__ == "Abort":
            _fail(interrupted, 130)
        _fail_without_memory(error)
        if isinstance(error, OSError):
            _fail(printable(f"{error.strerror or error}: {error.filename or 'the disk or network'}."), 5)
        if os.environ.get("TSDISTILL_TRACEBACK"):
            raise
        _fail(
            printable(f"tsdistill itself failed ({type(error).__name__}: {error}).")
            + " Set TSDISTILL_TRACEBACK=1 to see where, and report it.",
            1,
        )


def _fail_without_memory(error: BaseException) -> None:
    if (reason := lack_of_memory(error)) is not None:
        _fail(
            f"There is too little memory for this ({printable(reason)}). Take a smaller batch_size, model or context, "
            "or a machine with more memory. What is finished is kept: the same command goes on.",
            TOO_LITTLE_MEMORY,
        )


def _fail(message: str, code: int) -> None:
    show(f"error: {message}", err=True)
    sys.exit(code)
