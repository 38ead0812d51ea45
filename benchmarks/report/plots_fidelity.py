"""Plots of fidelity: what each type keeps, and each score against the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.canvas import (
    BAD,
    FAINT,
    FAIR,
    GOOD,
    GROUND,
    INK,
    MAIN,
    Plot,
    canvas,
    names_at_rows,
    panel,
    title,
    write,
)
from erank_lite.benchmarks.report.choice import (
    LOSS,
    VERDICTS,
    WORDS,
    Keeps,
    enough,
    same_floor,
    verdict,
)
from erank_lite.benchmarks.report.records import Record
from erank_lite.benchmarks.report.tables import names_in
from erank_lite.benchmarks.report.verdicts import MARKS

_COLOURS: dict[Keeps, str] = {"scores": GOOD, "ranking": FAIR, "neither": BAD, "few": FAINT}
_FILLS: dict[Keeps, str] = {"scores": "full", "ranking": "left", "neither": "none", "few": "full"}
_LEGEND = "   ".join(f"{MARKS[keeps]} {WORDS[keeps]}" for keeps in VERDICTS)


def fidelity_plots(record: Record, suffix: str) -> list[Plot]:
    """Return the plots of one fidelity record; `suffix` tells its files from others'."""
    runs = [run for run in record.data["runs"] if not run.get("floor")]
    if not runs:
        return []
    runs.sort(key=lambda run: -(run.get("size") or 0))
    plots = [_scores(record, runs, suffix), _ranking(record, runs, suffix)]
    drawn = [run for run in runs if run["scatter"]]
    return plots + ([_agreement(record, drawn, suffix)] if drawn else [])


def _names(record: Record, runs: Sequence[dict[str, Any]]) -> list[str]:
    short = names_in(record)
    return [
        f"{short[run['name']]} · {wording.size(run['size'])}" if run.get("size")
        else short[run["name"]]
        for run in runs
    ]  # fmt: skip


def _dot(ax: Any, x: float, row: int, keeps: Keeps) -> None:
    ax.plot(x, row, "o", color=_COLOURS[keeps], markersize=8.5, fillstyle=_FILLS[keeps],
            markerfacecoloralt=GROUND, markeredgewidth=1.6)  # fmt: skip


def _legend(record: Record) -> str:
    return _LEGEND if enough(record) else WORDS["few"]


def _below(figure: Any, *lines: str) -> None:
    figure.supxlabel("\n".join(filter(None, lines)), fontsize=10, color=FAINT, linespacing=1.5)


def _about(record: Record) -> str:
    data = record.data
    return (
        f"{wording.one_line(data['reference']['name'])} on {wording.one_line(data['collection'])}"
    )


def _scores(record: Record, runs: Sequence[dict[str, Any]], suffix: str) -> Plot:
    names = _names(record, runs)
    figure, axes = canvas(1.9 + 0.36 * len(runs), 1, 2, sharey=True, width_ratios=(1.1, 1))
    same, difference = axes[0]
    floors = [run for run in record.data["runs"] if run.get("floor")]
    panels = (
        (same, [100 * r["same"] for r in runs], "Same integer", "% of documents", "{:.1f}",
         100 * same_floor(record) if floors else None),
        (difference, [r["difference"] for r in runs], "Mean difference", "of rank scores (0 to 10)",
         "{:.2f}", max((f["difference"] for f in floors), default=None)),
    )  # fmt: skip
    judged = [verdict(record, run) for run in runs]
    for ax, values, name, unit, form, floor in panels:
        title(ax, name, unit)
        for row, (value, keeps) in enumerate(zip(values, judged, strict=True)):
            _dot(ax, value, row, keeps)
            side = -1 if ax is same else 1
            align = "right" if ax is same else "left"
            write(ax, form.format(value), (value, row), xytext=(9 * side, 0), ha=align)
        if floor is not None:
            ax.axvline(floor, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        shown = [*values, *([floor] if floor is not None else [])]
        span = max(shown) - min(shown) or 1.0
        if ax is same:
            ax.set_xlim(min(shown) - 0.5 * span, min(100, max(shown)) + 0.1 * span)
        else:
            ax.set_xlim(-0.06 * max(shown), 1.35 * max(shown) or 1.0)
    names_at_rows(same, names)
    difference.grid(False, axis="y")
    dashed = "Dashed: the reference against itself in another batch shape" if floors else ""
    _below(figure, dashed, _legend(record))
    told = "; ".join(
        f"{n}: {r['same']:.1%} same integer, mean difference {r['difference']:.3f}"
        for n, r in zip(names, runs, strict=True)
    )
    alt = f"Agreement of each file with {_about(record)}. {told}."
    return Plot(f"fidelity{suffix}.png", "Scores: how many stay the same", alt, figure, (record,))


def _ranking(record: Record, runs: Sequence[dict[str, Any]], suffix: str) -> Plot:
    names = _names(record, runs)
    figure, axes = canvas(1.9 + 0.36 * len(runs))
    ax = axes[0, 0]
    reference = wording.decimals(record.data["reference"]["nDCG@10"])
    bars = "; bars: 95 % intervals" if enough(record) else ""
    title(ax, "Change of nDCG@10", f"against the reference's {reference}{bars}")
    ax.axvline(0, color=INK, linewidth=1.2)
    ax.axvline(-LOSS, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
    for row, run in enumerate(runs):
        keeps = verdict(record, run)
        if bars:
            ax.plot(run["interval"], (row, row), color=_COLOURS[keeps], linewidth=3, alpha=0.45)
        _dot(ax, run["change"], row, keeps)
        above = {"xytext": (0, 10), "ha": "center"}
        write(ax, wording.signed(run["change"]), (run["change"], row), fontsize=9.5, **above)
    names_at_rows(ax, names)
    write(ax, f"−{LOSS:g}", (-LOSS, len(runs) - 0.5), xytext=(-3, 6), ha="right", color=FAINT)
    ax.margins(x=0.08)
    if min(ax.get_xlim()[1], -ax.get_xlim()[0]) < LOSS:  # the labels have room, whatever changed
        ax.set_xlim(min(ax.get_xlim()[0], -2 * LOSS), max(ax.get_xlim()[1], LOSS))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    _below(figure, _legend(record))
    ax.set_ylim(len(runs) - 0.4, -0.75)
    told = "; ".join(
        f"{n}: {wording.signed(r['change'])}, "
        + (f"{wording.interval(*r['interval'])}, " if bars else "")
        + WORDS[verdict(record, r)]
        for n, r in zip(names, runs, strict=True)
    )
    with_bars = ", with 95 % intervals" if bars else ""
    alt = f"Change of nDCG@10 of each file against {_about(record)}{with_bars}. {told}."
    return Plot(f"ranking{suffix}.png", "Ranking: what nDCG@10 loses", alt, figure, (record,))


def _agreement(record: Record, runs: Sequence[dict[str, Any]], suffix: str) -> Plot:
    columns = min(3 if len(runs) <= 6 else 4, len(runs))
    rows = -(-len(runs) // columns)
    figure, axes = canvas(
        0.6 + (5.2 / columns + 0.45) * rows, rows, columns, sharex=True, sharey=True
    )
    short = names_in(record)
    for ax, run in zip(axes.flat, runs, strict=False):
        panel(ax, short[run["name"]], f"{run['same']:.0%} same", columns)
        ax.plot((0, 10), (0, 10), color=FAINT, linewidth=1)
        x, y = zip(*run["scatter"], strict=True)
        ax.plot(x, y, "o", color=MAIN, markersize=3.2, alpha=0.3, markeredgewidth=0)
        ax.set(xlim=(-0.5, 10.5), ylim=(-0.5, 10.5), xticks=(0, 5, 10), yticks=(0, 5, 10))
        ax.set_aspect("equal")
    for ax in axes.flat[len(runs) :]:
        ax.set_visible(False)
    figure.supxlabel("the reference's rank score", fontsize=10.5, color=FAINT)
    figure.supylabel("this file's", fontsize=10.5, color=FAINT)
    alt = (
        f"Rank score of each document by each file against {_about(record)}: points on the "
        "diagonal are equal. "
        + "; ".join(f"{short[r['name']]}: {r['same']:.0%} same integer" for r in runs)
    )
    name = "Agreement, document by document"
    return Plot(f"agreement{suffix}.png", name, f"{alt}.", figure, (record,))
