"""The report of a comparison: printed, as a page, as sentences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tsdistill.report.records import Measurements

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


class Report(Measurements):
    """A comparison of forecasters on one task; print it, or take it as a frame, JSON or an HTML page.

    Made by `compare`. Everything in it is data: two reports are equal when their values are, and `Report.from_json`
    reads what `to_json` wrote.

    The fields are those of `Measurements`.

    Example:
        >>> from tsdistill.report import Row
        >>> row = Row(
        ...     name="naive", runtime="onnx fp32", mse=1.0, mae=0.8, mse_raw=4.0, mae_raw=1.6,
        ...     n_parameters=0, size_bytes=7,
        ... )
        >>> report = Report(
        ...     context=29, horizon=7, channels=("a",), part="test", n_windows={"test": 5},
        ...     reference="naive", subject="naive", rows=(row,),
        ... )
        >>> Report.from_json(report.to_json()) == report
        True
    """

    @property
    def verdict(self) -> tuple[str, ...]:
        """The results in plain sentences, one paragraph each."""
        from tsdistill.report.verdict import verdict

        return verdict(self)

    def to_text(self, width: int = 100, *, ascii_only: bool = False) -> str:
        """The tables and the verdict as plain text, at most `width` columns wide.

        Args:
            width: Columns of the terminal; narrower ones fold the model names.
            ascii_only: Draw lines with ASCII characters.
        """
        from tsdistill.report.text import to_text

        return to_text(self, width, ascii_only=ascii_only)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page: verdict, tables, interactive plots. It needs no network.

        The page is written beside its place and moved there, so that no reader sees half of it.

        Args:
            path: The file to write; its folder is made.

        Returns:
            The path.

        Raises:
            ArtifactError: The file cannot be written.
        """
        from tsdistill.report.page import write_page

        return write_page(self, Path(path))

    def __str__(self) -> str:
        from tsdistill.report.text import for_terminal

        return for_terminal(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from tsdistill.report.text import renderables

        yield from renderables(self, options.max_width, ascii_only=options.ascii_only)
