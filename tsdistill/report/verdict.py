"""A report in plain sentences: gains, losses, and whether the teacher made the difference."""

from __future__ import annotations

from tsdistill.evaluation import SIGNIFICANT
from tsdistill.report.candidates import sentence
from tsdistill.report.records import Comparison, Measurements, Row
from tsdistill.report.words import change, error, factor, milliseconds, p_equals, size


def verdict(report: Measurements) -> tuple[str, ...]:
    """The paragraphs of `Report.verdict`."""
    base = report.rows[0]
    subject = [row for row in report.rows if row.name == report.subject][-1]
    paragraphs = [_against_reference(subject, base, report), _against_control(report)]
    paragraphs.append(_against_baselines(report))
    paragraphs.append(_reference_against_baselines(subject, base, report))
    paragraphs.append(_runtime(subject, base, report))
    paragraphs.append(sentence(report))
    if any(comparison.p_value is None and comparison.n_windows is None for comparison in report.comparisons):
        paragraphs.append(
            f"There are too few windows for a significance test: it takes at least "
            f"{max(16, 4 * report.horizon)} of them (4 horizons)."
        )
    return tuple(paragraph for paragraph in paragraphs if paragraph)


def _against_reference(subject: Row, base: Row, report: Measurements) -> str:
    if subject.name == base.name:
        cost = "" if subject.size_bytes is None else f" in {size(subject.size_bytes)}"
        time = "" if subject.latency_p50_ms is None else f", and one forecast takes {_ms(subject)}"
        return f"{subject.title} has a {report.part} MSE of {error(subject.mse)}{cost}{time}."
    parts = [f"{subject.title} {_accuracy(subject, base, report.part)}"]
    if subject.size_ratio is not None:
        smaller = subject.size_ratio <= 1
        times = factor(1 / subject.size_ratio if smaller else subject.size_ratio).removesuffix("x")
        word = f"{times} times {'smaller' if smaller else 'larger'}"
        parts.append(f"is {word} ({size(subject.size_bytes)} against {size(base.size_bytes)})")
    if subject.speedup is not None:
        faster = subject.speedup >= 1
        times = factor(subject.speedup if faster else 1 / subject.speedup).removesuffix("x")
        word = f"{times} times {'faster' if faster else 'slower'}"
        parts.append(f"is {word} ({_ms(subject)} against {_ms(base)})")
    return f"{', '.join(parts[:-1])} and {parts[-1]}." if len(parts) > 1 else f"{parts[0]}."


def _accuracy(subject: Row, base: Row, part: str) -> str:
    """Such as: has a 1.1 % higher test MSE than teacher (0.52 against 0.51; not significant, p=0.13)."""
    numbers = f"{error(subject.mse)} against {error(base.mse)}"
    if subject.mse_ratio is None:
        return f"has a {part} MSE of {error(subject.mse)}, {base.name} of {error(base.mse)}"
    if subject.low is not None and subject.high is not None:
        low, high = (change(1 + end / base.measured_mse) for end in (subject.low, subject.high))
        numbers += f"; 95 % interval {low} to {high}, {_significance(subject.p_value)}"
    word = "higher" if subject.mse_ratio >= 1 else "lower"
    return f"has a {_percent(subject.mse_ratio - 1)} {word} {part} MSE than {base.name} ({numbers})"


def _against_control(report: Measurements) -> str:
    """Whether the teacher made a difference."""
    controls = {row.name: row for row in report.rows if row.role == "control"}
    for comparison in report.comparisons:
        if comparison.other not in controls:
            continue
        if comparison.relative == 0:
            return (
                f"{comparison.subject} forecasts as the same student trained without a teacher does: "
                "the teacher has no share in it."
            )
        text = (
            f"Against the same student trained without a teacher (MSE {error(controls[comparison.other].mse)}), "
            f"{comparison.subject} has a {_percent(comparison.relative)} "
            f"{'lower' if comparison.relative < 0 else 'higher'} MSE ({_significance(comparison.p_value)})"
        )
        if comparison.p_value is None:
            return f"{text}."
        if comparison.p_value >= SIGNIFICANT:
            return f"{text}: this does not show that the teacher made a difference."
        return f"{text}: the teacher {'helped' if comparison.relative < 0 else 'did harm'}."
    return ""


def _against_baselines(report: Measurements) -> str:
    names = {row.name for row in report.rows if row.role == "baseline"}
    against = [comparison for comparison in report.comparisons if comparison.other in names]
    better = [_versus(comparison) for comparison in against if comparison.relative < 0]
    worse = [_versus(comparison) for comparison in against if comparison.relative >= 0]
    sentences = []
    if better:
        sentences.append(f"{report.subject} has a lower MSE than {' and '.join(better)}.")
    if worse:
        sentences.append(
            f"{report.subject} does not have a lower MSE than {' and '.join(worse)}: "
            "what is simpler does as well or better."
        )
    return " ".join(sentences)


def _versus(comparison: Comparison) -> str:
    on = "" if comparison.n_windows is None else f" on {comparison.n_windows} windows"
    return f"{comparison.other} ({change(1 + comparison.relative)}{on}; {_significance(comparison.p_value)})"


def _reference_against_baselines(subject: Row, base: Row, report: Measurements) -> str:
    """A warning where the reference does not beat the baselines."""
    better = [row for row in report.rows if row.role == "baseline" and _ratio(row, base) <= 1]
    if not better or subject.name == base.name:
        return ""
    names = " and ".join(f"{row.name} ({_standing(row)})" for row in better)
    return f"{base.name} itself (MSE {error(base.mse)}) does not beat {names}: ratios to it say little."


def _ratio(row: Row, base: Row) -> float:
    """Error of a row over that of the reference, on the same windows."""
    return row.mse_ratio if row.mse_ratio is not None else float(row.measured_mse > base.measured_mse) + 0.5


def _standing(row: Row) -> str:
    """The error of a row scored on all windows; else its change against the reference on the same windows."""
    return f"MSE {error(row.mse)}" if row.n_windows is None else f"{change(row.mse_ratio)} on {row.n_windows} windows"


def _runtime(subject: Row, base: Row, report: Measurements) -> str:
    """How much of the speed comes from leaving torch, which the reference could have had as well."""
    same = [row for row in report.rows if row.name == base.name and row.runtime != base.runtime]
    if not same or subject.latency_p50_ms is None or same[0].latency_p50_ms is None or subject.name == base.name:
        return ""
    gain = same[0].latency_p50_ms / subject.latency_p50_ms
    return (
        f"{base.name} exported as it is takes {_ms(same[0])} ({same[0].runtime}); against that {subject.name} is "
        f"{factor(gain).removesuffix('x')} times as fast."
    )


def _percent(relative: float) -> str:
    return f"{abs(100 * relative):.1f} %"


def _ms(row: Row) -> str:
    return f"{milliseconds(row.latency_p50_ms)} ms"


def _significance(p_value: float | None) -> str:
    if p_value is None:
        return "not tested"
    return f"{'significant' if p_value < SIGNIFICANT else 'not significant'}, {p_equals(p_value)}"
