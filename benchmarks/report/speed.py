"""Speed and growth records: each system beside the others, and what grows with the work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.ticker import MaxNLocator

from erank_lite.benchmarks.record import one_line
from erank_lite.benchmarks.report import format as fmt
from erank_lite.benchmarks.report import style
from erank_lite.benchmarks.report.content import Group, Table
from erank_lite.benchmarks.report.records import Growth, Record, Speed

_CUT = 1.8  # a bar longer than so many times erank-lite's and the ceiling is cut
_OURS, _OTHERS = "#86b9d8", "#9aa3ad"


def speed_groups(records: Iterable[Record]) -> list[Group]:
    """Return the plot and the table of each speed record."""
    groups = []
    for n, record in enumerate(r for r in records if isinstance(r, Speed)):
        plot = _speed_plot(record, f"-{n + 1}" if n else "")
        name = one_line(f"{record.model}: {_workload(record)}")
        groups.append(Group(name, (plot,) if plot else (), (_speed_table(record),)))
    return groups


def growth_groups(records: Iterable[Record]) -> list[Group]:
    """Return the plot and the table of the growth records of each axis."""
    axes: dict[str, list[Growth]] = {}
    for record in records:
        if isinstance(record, Growth):
            axes.setdefault(record.axis, []).append(record)
    groups = []
    for n, (axis, alike) in enumerate(axes.items()):
        plot = _growth_plot(alike, f"-{n + 1}" if n else "")
        title = f"As {one_line(axis)} grow"
        groups.append(Group(title, (plot,) if plot else (), (_growth_table(alike),)))
    return groups


def _workload(record: Speed) -> str:
    """Return what was run, in a line."""
    work = record.work
    together = f", {work.sequences} at a time" if work.sequences else ""
    return (
        f"{work.documents:,} documents of {work.shared:,} shared + {work.own:,} own tokens, "
        f"{work.tokens:,} written each{together}"
    )


def _speed_table(record: Speed) -> Table:
    rows = [{
        "system": system.name, "documents/s": fmt.rate(system.documents_per_second),
        "× erank-lite": fmt.ratio(system.documents_per_second, record.ours),
        "tokens/s": fmt.rate(system.tokens_per_second),
        "first result, s": fmt.rate(system.first_result),
        "last result, s": fmt.rate(system.last_result),
        "peak memory": fmt.memory(system.peak_memory), "what": system.what,
    } for system in record.systems] + [{
        "system": name, "documents/s": fmt.rate(ceiling.documents_per_second),
        "× erank-lite": fmt.ratio(ceiling.documents_per_second, record.ours), "what": ceiling.what,
    } for name, ceiling in record.ceilings.items()]  # fmt: skip
    rates, can = record.machine_rates, []
    if rates.gflops is not None:
        can.append(f"computes {rates.gflops:,.0f} GFLOP/s")
    if rates.gigabytes_per_second is not None:
        can.append(f"reads {rates.gigabytes_per_second:,.0f} GB/s of memory")
    notes = [f"The machine {fmt.listed(can)}, measured."] if can else []
    notes += [fmt.sentence(note) for note in record.notes]
    caption = f"Speed of {record.model}: {_workload(record)}"
    return Table.from_rows(caption, rows, [record], " ".join(notes), ("what",))


def _growth_table(records: Sequence[Growth]) -> Table:
    axis = records[0].axis
    rows = [
        {"model": record.model, axis: fmt.count(point.x),
         "documents/s": fmt.rate(point.documents_per_second),
         "peak memory": fmt.memory(point.peak_memory)}
        for record in records for point in record.in_order
    ]  # fmt: skip
    return Table.from_rows(f"Speed and memory as {axis} grow", rows, records)


def _speed_plot(record: Speed, suffix: str) -> style.Plot | None:
    """Return the bars of one speed record, or None where nothing in it was measured."""
    measured = ((s.name, s.documents_per_second) for s in record.systems)
    found = sorted(((n, r) for n, r in measured if r is not None), key=lambda s: -s[1])
    if not found:
        return None
    ours = record.ours
    ceilings = [(name, each.documents_per_second) for name, each in record.ceilings.items()]
    ceilings.sort(key=lambda ceiling: ceiling[1])
    top = ceilings[-1][1] if ceilings else 0.0
    cut = _CUT * max(ours or 0.0, top) or found[0][1]
    longest = min(max(top, found[0][1]), cut)
    figure, axes = style.canvas(1.5 + 0.46 * len(found))
    ax = axes[0, 0]
    style.title(ax, record.model, "documents per second")
    for row, (name, pace) in enumerate(found):
        is_ours = name == "erank-lite"
        colour = style.MAIN if is_ours else _OURS if name.startswith("erank-lite") else _OTHERS
        ax.barh(row, min(pace, longest), height=0.62, color=colour)
        if pace > cut:  # a gap in the bar says that it goes on
            ax.barh(row, 0.02 * longest, left=0.9 * longest, height=0.7, color=ax.get_facecolor())
        text = fmt.rate(pace) + ("" if is_ours or not ours else f" · {fmt.ratio(pace, ours)}")
        text += " (bar cut)" * (pace > cut)
        style.write(ax, text, (min(pace, longest), row), xytext=(6, 0))
    style.names_at_rows(ax, [name for name, _ in found])
    ax.set_xlim(0, (1.85 if found[0][1] > cut else 1.42) * longest or 1.0)
    ax.set_ylim(len(found) - 0.5, -0.45 - 0.55 * len(ceilings))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    described = [
        f"{name}: {fmt.rate(pace)} documents/s, {fmt.ratio(pace, ours)}" for name, pace in found
    ]
    for n, (name, pace) in enumerate(ceilings):
        height = 0.55 * (n - len(ceilings) + 1) - 0.75
        ax.axvline(pace, color=style.INK, linewidth=1.2, linestyle=(0, (4, 3)))
        style.write(ax, f"{name} {fmt.rate(pace)}", (pace, height), xytext=(5, 0))
        described.append(f"{name}: {fmt.rate(pace)} documents/s")
    alt = f"Speed of {record.model}: {_workload(record)}. {'; '.join(described)}."
    return style.Plot(f"speed{suffix}.png", "Speed by engine", alt, figure, [record])


def _growth_plot(records: Sequence[Growth], suffix: str) -> style.Plot | None:
    """Return speed and memory along one axis, a line for each record."""
    drawn = [record for record in records if record.points]
    if not drawn:
        return None
    axis = one_line(drawn[0].axis)
    figure, axes = style.canvas(4.6, 2, 1, sharex=True)
    speed, peak = axes[:, 0]
    of_model = f", {drawn[0].model}" if len(drawn) == 1 else ""
    style.title(speed, f"Documents per second{of_model}")
    style.title(peak, "Peak memory, GiB", axis)
    described = []
    for n, record in enumerate(drawn):
        look = {"linewidth": 1.8, "markersize": 6, "clip_on": False} | style.line_style(n)
        points = record.in_order
        model, first, last = one_line(record.model), points[0], points[-1]
        speed.plot([p.x for p in points], [p.documents_per_second for p in points],
                   label=style.label(model, 32), **look)  # fmt: skip
        known = [(p.x, p.peak_memory / 2**30) for p in points if p.peak_memory]
        peak.plot([x for x, _ in known], [gib for _, gib in known], **look)
        described.append(
            f"{model}: {fmt.rate(first.documents_per_second)} documents/s at {first.x:,g} and "
            f"{fmt.rate(last.documents_per_second)} at {last.x:,g}"
        )
    x = sorted({point.x for record in drawn for point in record.points})
    if x[0] > 0 and x[-1] / x[0] > 20:
        speed.set_xscale("log")
    speed.set_xticks(x if len(x) <= 6 else x[:: -(-len(x) // 6)])
    speed.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    speed.xaxis.set_minor_formatter(lambda *_: "")
    for ax in (speed, peak):
        top = max((y for line in ax.lines for y in line.get_ydata()), default=0.0)
        ax.set_ylim(0, 1.15 * top or 1.0)
        ax.spines["bottom"].set(visible=True, color=style.GRID)
    if len(drawn) > 1:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=style.INK)
    alt = f"Documents per second and peak memory as {axis} grow. {'; '.join(described)}."
    return style.Plot(f"growth{suffix}.png", f"As {axis} grow", alt, figure, drawn)
