"""Fidelity records: their table, what each file keeps, and each score against the reference's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from erank_lite.benchmarks.record import one_line
from erank_lite.benchmarks.report import format as fmt
from erank_lite.benchmarks.report import style
from erank_lite.benchmarks.report.content import Group, Table
from erank_lite.benchmarks.report.records import Fidelity, Record, Run
from erank_lite.benchmarks.report.rule import (
    LOSS,
    MARKS,
    VERDICTS,
    WORDS,
    Verdict,
    floor_same,
    is_judged,
    verdict,
)

_COLOURS: dict[Verdict, str] = {
    "scores": style.MAIN, "ranking": "#b97a00", "neither": "#c04a00", "few": style.FAINT,
}  # fmt: skip
_FILLS: dict[Verdict, str] = {
    "scores": "full", "ranking": "left", "neither": "none", "few": "full",
}  # fmt: skip
_LEGEND = "   ".join(f"{MARKS[keeps]} {WORDS[keeps]}" for keeps in VERDICTS)


def fidelity_groups(records: Iterable[Record]) -> list[Group]:
    """Return the plots and the table of each fidelity record."""
    groups = []
    for n, record in enumerate(r for r in records if isinstance(r, Fidelity)):
        suffix = f"-{n + 1}" if n else ""
        name = f"{record.reference.name} on {record.collection}, {fmt.thinking(record.thinking)}"
        plots = []
        if record.files:
            plots = [_scores_plot(record, suffix), _ranking_plot(record, suffix)]
        if any(run.scatter for run in record.files):
            plots.append(_agreement_plot(record, suffix))
        groups.append(Group(one_line(name), tuple(plots), (_table(record),)))
    return groups


def _short_names(record: Fidelity) -> dict[str, str]:
    """Return the names in a record without the reference's model."""
    files = {run.name: run.variant for run in record.runs}
    files[record.reference.name] = record.reference.variant
    return fmt.short_names(files, record.reference.variant.model)


def _table(record: Fidelity) -> Table:
    """Return all that a record holds, but for the scatter."""
    reference, short = record.reference, _short_names(record)
    rows = [{
        "run": short[reference.name], "size": fmt.size(reference.size),
        "nDCG@10": fmt.decimals(reference.ndcg),
        "documents/s": fmt.rate(reference.documents_per_second), "ran": reference.ran,
    }]  # fmt: skip
    for run in (*sorted(record.floors, key=lambda r: -(r.size or 0)), *record.files):
        rows.append({
            "run": short[run.name] + " (noise floor)" * run.floor, "size": fmt.size(run.size),
            "same integer": fmt.percent(run.same), "mean difference": fmt.decimals(run.difference),
            "95th percentile": fmt.decimals(run.difference_95),
            "Kendall's tau": fmt.decimals(run.tau), "RBO": fmt.decimals(run.rbo),
            "top 10 shared": fmt.percent(run.top_10),
            "nDCG@10": fmt.decimals(run.ndcg), "change": fmt.signed(run.change),
            "95 % interval": fmt.interval(run.interval) if is_judged(record) else fmt.NONE,
            "mean KL, nats": fmt.decimals(run.kl, 4),
            "KL, 95th percentile": fmt.decimals(run.kl_95, 4),
            "same next token": fmt.percent(run.same_answer), "forced": fmt.percent(run.forced),
            "failed": fmt.percent(run.failed), "tokens": fmt.count(run.tokens),
            "documents/s": fmt.rate(run.documents_per_second), "ran": run.ran,
        })  # fmt: skip
    caption = (
        f"Fidelity to {reference.name}: {fmt.compared(record.documents, record.queries)} "
        f"of {record.collection}, {fmt.thinking(record.thinking)}"
    )
    note = (
        "Differences are of rank scores, from 0 to 10. The noise floor is the reference against "
        "itself in another batch shape"
    )
    note += "; intervals are paired bootstraps over the queries." if is_judged(record) else "."
    return Table.from_rows(caption, rows, [record], note, ("ran",))


def _named(record: Fidelity) -> list[tuple[str, Run, Verdict]]:
    """Return each file with its name and size, and what it keeps."""
    short = _short_names(record)
    return [
        (
            short[run.name] + (f" · {fmt.size(run.size)}" if run.size else ""),
            run,
            verdict(record, run),
        )
        for run in record.files
    ]


def _about(record: Fidelity) -> str:
    return f"{one_line(record.reference.name)} on {one_line(record.collection)}"


def _dot(ax: Any, x: float, row: int, keeps: Verdict) -> None:
    ax.plot(x, row, "o", color=_COLOURS[keeps], markersize=8.5, fillstyle=_FILLS[keeps],
            markerfacecoloralt=style.GROUND, markeredgewidth=1.6)  # fmt: skip


def _legend(figure: Any, record: Fidelity, *lines: str) -> None:
    lines = (*lines, _LEGEND if is_judged(record) else WORDS["few"])
    figure.supxlabel("\n".join(lines), fontsize=10, color=style.FAINT, linespacing=1.5)


def _scores_plot(record: Fidelity, suffix: str) -> style.Plot:
    files = _named(record)
    figure, axes = style.canvas(1.9 + 0.36 * len(files), 1, 2, sharey=True, width_ratios=(1.1, 1))
    same, difference = axes[0]
    style.title(same, "Same integer", "% of documents")
    style.title(difference, "Mean difference", "of rank scores (0 to 10)")
    for row, (_, run, keeps) in enumerate(files):
        for ax, value, text, side, align in (
            (same, 100 * run.same, f"{100 * run.same:.1f}", -9, "right"),
            (difference, run.difference, f"{run.difference:.2f}", 9, "left"),
        ):
            _dot(ax, value, row, keeps)
            style.write(ax, text, (value, row), xytext=(side, 0), ha=align)
    same_shown = [100 * run.same for run in record.files]
    difference_shown = [run.difference for run in record.files]
    if record.floors:
        same_shown.append(100 * floor_same(record))
        difference_shown.append(max(run.difference for run in record.floors))
        same.axvline(same_shown[-1], **style.DASHED)
        difference.axvline(difference_shown[-1], **style.DASHED)
    low, high = min(same_shown), max(same_shown)
    span = high - low or 1.0
    same.set_xlim(low - 0.5 * span, min(100, high) + 0.1 * span)
    high = max(difference_shown)
    difference.set_xlim(-0.06 * high, 1.35 * high or 1.0)
    style.names_at_rows(same, [name for name, _, _ in files])
    difference.grid(False, axis="y")
    dashed = (
        ["Dashed: the reference against itself in another batch shape"] if record.floors else []
    )
    _legend(figure, record, *dashed)
    described = "; ".join(
        f"{name}: {run.same:.1%} same integer, mean difference {run.difference:.3f}"
        for name, run, _ in files
    )
    alt = f"Agreement of each file with {_about(record)}. {described}."
    return style.Plot(
        f"fidelity{suffix}.png", "Scores: how many stay the same", alt, figure, [record]
    )


def _ranking_plot(record: Fidelity, suffix: str) -> style.Plot:
    files, bars = _named(record), is_judged(record)
    figure, axes = style.canvas(1.9 + 0.36 * len(files))
    ax = axes[0, 0]
    what = f"against the reference's {fmt.decimals(record.reference.ndcg)}"
    style.title(ax, "Change of nDCG@10", what + "; bars: 95 % intervals" * bars)
    ax.axvline(0, color=style.INK, linewidth=1.2)
    ax.axvline(-LOSS, **style.DASHED)
    for row, (_, run, keeps) in enumerate(files):
        if bars:
            ax.plot(run.interval, (row, row), color=_COLOURS[keeps], linewidth=3, alpha=0.45)
        _dot(ax, run.change, row, keeps)
        style.write(
            ax, fmt.signed(run.change), (run.change, row), xytext=(0, 10), ha="center", fontsize=9.5
        )
    style.names_at_rows(ax, [name for name, _, _ in files])
    ax.set_ylim(len(files) - 0.2, -0.75)
    style.write(
        ax, f"−{LOSS:g}", (-LOSS, len(files) - 0.4), xytext=(-4, 0), ha="right", color=style.FAINT
    )
    ax.margins(x=0.08)
    if min(ax.get_xlim()[1], -ax.get_xlim()[0]) < LOSS:  # the labels have room, whatever changed
        ax.set_xlim(min(ax.get_xlim()[0], -2 * LOSS), max(ax.get_xlim()[1], LOSS))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    _legend(figure, record)
    described = "; ".join(
        f"{name}: {fmt.signed(run.change)}, "
        + f"{fmt.interval(run.interval)}, " * bars
        + WORDS[keeps]
        for name, run, keeps in files
    )
    with_bars = ", with 95 % intervals" * bars
    alt = f"Change of nDCG@10 of each file against {_about(record)}{with_bars}. {described}."
    return style.Plot(f"ranking{suffix}.png", "Ranking: what nDCG@10 loses", alt, figure, [record])


def _agreement_plot(record: Fidelity, suffix: str) -> style.Plot:
    runs: Sequence[Run] = [run for run in record.files if run.scatter]
    columns = min(3 if len(runs) <= 6 else 4, len(runs))
    figure, axes = style.panels(len(runs), columns, 5.2 / columns + 0.45, 0.6)
    short = _short_names(record)
    for ax, run in zip(axes, runs, strict=True):
        style.panel_title(ax, short[run.name], f"{run.same:.0%} same", columns)
        ax.plot((0, 10), (0, 10), color=style.FAINT, linewidth=1)
        x, y = zip(*run.scatter, strict=True)
        ax.plot(x, y, "o", color=style.MAIN, markersize=3.2, alpha=0.3, markeredgewidth=0)
        ax.set(xlim=(-0.5, 10.5), ylim=(-0.5, 10.5), xticks=(0, 5, 10), yticks=(0, 5, 10))
        ax.set_aspect("equal")
    figure.supxlabel("the reference's rank score", fontsize=style.LABEL, color=style.FAINT)
    figure.supylabel("this file's", fontsize=style.LABEL, color=style.FAINT)
    described = "; ".join(f"{short[r.name]}: {r.same:.0%} same integer" for r in runs)
    alt = (
        f"Rank score of each document by each file against {_about(record)}: points on the "
        f"diagonal are equal. {described}."
    )
    name = "Agreement, document by document"
    return style.Plot(f"agreement{suffix}.png", name, alt, figure, [record])
