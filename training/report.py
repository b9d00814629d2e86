"""The exam's figures as a table, as JSON and as a picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles

from training.figures import PAUSE_NAMES, Figures


@dataclass(frozen=True, kw_only=True)
class Result:
    """All figures of one checkpoint: sets in the exam's order, latencies in ms, area under the curve per pause head.

    A set of words that it does not know has no figures.
    """

    name: str
    sets: tuple[tuple[str, str, Figures | None], ...]
    latencies_ms: tuple[float, ...]
    pause_auc: tuple[float, ...]
    realtime_factor: float


def table(results: Sequence[Result]) -> str:
    """Return a Markdown document: one table for each group, one column for each checkpoint."""
    lines: list[str] = []
    group_before = ""
    for index, (group, name, _) in enumerate(results[0].sets):
        if group != group_before:
            lines += ["", f"**{group}**", "", "| set | words | " + " | ".join(r.name for r in results) + " |"]
            lines += ["|---" * (2 + len(results)) + "|"]
            group_before = group
        figures = [result.sets[index][2] for result in results]
        size = next(_size(one) for one in figures if one)
        lines.append(f"| {name} | {size} | " + " | ".join(_cell(one) if one else "not known" for one in figures) + " |")
    lines += ["", "| | " + " | ".join(r.name for r in results) + " |", "|---" * (1 + len(results)) + "|"]
    for label, pick in (("word message after the word's end, median / 9 of 10", _latency), ("pause heads, AUC", _auc)):
        lines.append(f"| {label} | " + " | ".join(pick(result) for result in results) + " |")
    lines.append(
        "| seconds of audio per second, this run | " + " | ".join(f"{r.realtime_factor:.1f}" for r in results) + " |"
    )
    return "\n".join(lines[1:]) + "\n"


def _size(figures: Figures) -> str:
    return str(figures.errors.n_words or figures.n_foreign or f"{figures.audio_s:.0f} s")


def _cell(figures: Figures) -> str:
    if figures.n_foreign:
        return f"{figures.n_false} false words ({figures.false_per_100:.1f} per 100)"
    if not figures.errors.n_words:
        return f"{figures.n_false} false words"
    errors = figures.errors
    times = "" if figures.start_error_ms is None else f", times off {figures.start_error_ms:.0f} ms"
    if figures.stop_error_ms is not None:
        times += f" / {figures.stop_error_ms:.0f} ms"
    parts = f"{errors.substitutions} sub, {errors.deletions} del, {errors.insertions} ins"
    return f"**{100 * errors.rate:.1f} %** ± {100 * errors.half_width:.1f} ({parts}{times})"


def _latency(result: Result) -> str:
    if len(result.latencies_ms) < 2:  # noqa: PLR2004 a quantile needs two
        return "not measured"
    tenths = quantiles(result.latencies_ms, n=10)
    return f"{tenths[4]:.0f} ms / {tenths[8]:.0f} ms"


def _auc(result: Result) -> str:
    return ", ".join(f"{name} {auc:.3f}" for name, auc in zip(PAUSE_NAMES, result.pause_auc, strict=True))


def write_json(results: Sequence[Result], path: Path) -> None:
    """Write every figure."""
    path.write_text(json.dumps([asdict(result) for result in results], indent=1), encoding="utf-8")


def plot(results: Sequence[Result], path: Path) -> bool:
    """Draw word error rates with their intervals, all checkpoints side by side; False without matplotlib."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only for this picture
    except ImportError:
        return False
    rows = [i for i in range(len(results[0].sets)) if any(_has_errors(result.sets[i][2]) for result in results)]
    figure = Figure(figsize=(9, 0.32 * len(rows) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(results)
    for k, result in enumerate(results):
        drawn = [(y, one.errors) for y, i in enumerate(rows) if (one := result.sets[i][2])]
        rates = [100 * errors.rate for _, errors in drawn]
        widths = [100 * errors.half_width for _, errors in drawn]
        places = [-(y + k * height) for y, _ in drawn]
        axes.barh(places, rates, height=height, xerr=widths, label=result.name)
    axes.set_yticks(
        [-y - 0.4 + height / 2 for y in range(len(rows))], [_label(results[0].sets, i) for i in rows], fontsize=7
    )
    axes.set_xlabel("word error rate, % (lines: 95 % interval)")
    axes.set_xlim(0, 100)
    axes.legend()
    figure.savefig(path)
    return True


def _has_errors(figures: Figures | None) -> bool:
    return figures is not None and figures.errors.n_words > 0


def _label(sets: Sequence[tuple[str, str, Figures | None]], index: int) -> str:
    group, name, _ = sets[index]
    return f"{name.split(':')[0]} [{group.split(' (')[0]}]"


def main_line(results: Sequence[Result]) -> str:
    """Return one JSON line with the rates that matter most, for whoever keeps results: of errors, or of false words."""
    rates: Mapping[str, Mapping[str, float]] = {
        result.name: {
            f"{group}: {name}": round(one.errors.rate if one.errors.n_words else one.n_false / one.n_foreign, 4)
            for group, name, one in result.sets
            if one and (one.errors.n_words or one.n_foreign)
        }
        for result in results
    }
    return json.dumps(rates)
