"""The command that keeps a study for workers on other machines."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tsdistill.cli.options import Quiet
from tsdistill.cli.streams import show


def search_server(
    storage: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="sqlite:///FILE, postgresql+psycopg://USER:PASSWORD@HOST/BASE, mysql+pymysql://..., or env:NAME for a "
            "variable that holds one of these.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Name or address of this machine to listen on; 0.0.0.0 for all of its addresses.")
    ] = "localhost",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any that is free.")] = 13000,
    quiet: Quiet = False,
) -> None:
    """Keep a study for hundreds of workers, which reach it by --storage grpc://HOST:PORT.

    Ctrl-C or SIGTERM ends it with exit code 0; workers wait until it is back. Everybody who reaches the port may read
    and change the studies: open it inside your own network only.

    Examples:
      tsdistill search-server --storage sqlite:///studies.db --host 0.0.0.0

      tsdistill search my.toml --trials 500 --storage grpc://node-1:13000
    """
    from tsdistill.search import serve

    serve(storage, host=host, port=port, say=None if quiet else _report)


def _report(line: str) -> None:
    show(line)
    sys.stdout.flush()  # a log is read while the server runs
