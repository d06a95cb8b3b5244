"""Formatting of numbers, the same in the terminal, in sentences and on the page."""

from __future__ import annotations

from tsdistill.report.records import Row


def error(value: float | None) -> str:
    """Four decimals for ordinary errors, four significant digits for tiny and huge ones."""
    if value is None:
        return "-"
    return f"{value:.4f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.4g}"


def size(value: int | None) -> str:
    """Bytes in decimal units: 91.2 kB."""
    if value is None:
        return "-"
    amount, unit = float(value), "B"
    for larger in ("kB", "MB", "GB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"


def count(value: int | None) -> str:
    """A whole number with its thousands apart."""
    return "-" if value is None else f"{value:,}"


def milliseconds(value: float | None) -> str:
    """Three significant digits; whole milliseconds from a second on."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 999.5 else f"{value:#.3g}".rstrip(".")


def factor(value: float | None) -> str:
    """A factor above or below 1: 14.2x, 0.53x, 0.00076x."""
    if value is None:
        return "-"
    if 0 < value < 0.0995:
        return f"{value:.2g}x"
    return f"{value:.0f}x" if value >= 99.5 else f"{value:.1f}x" if value >= 9.95 else f"{value:.2f}x"


def change(ratio: float | None) -> str:
    """A ratio as a signed change: +1.1 %."""
    # Adding zero turns a rounded -0.0 into 0.0.
    return "-" if ratio is None else f"{round(100 * (ratio - 1), 1) + 0.0:+.1f} %"


def chance(p_value: float | None) -> str:
    """A p-value for a table."""
    if p_value is None:
        return "-"
    return "<0.001" if p_value < 0.0005 else f"{p_value:.3f}" if p_value < 0.0995 else f"{p_value:.2f}"


def p_equals(p_value: float | None) -> str:
    """A p-value for a sentence."""
    text = chance(p_value)
    return f"p{text}" if text.startswith("<") else f"p={text}"


def share(value: float | None) -> str:
    """A share in percent: 78.3 %; a small share above zero keeps its digits."""
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if value == 0 or value >= 0.0005 else f"{100 * value:.1g} %"


def versus(row: Row, ratio: str) -> str:
    """A row's ratio to the reference, or "reference" for the reference itself."""
    return "reference" if row.role == "reference" else ratio
