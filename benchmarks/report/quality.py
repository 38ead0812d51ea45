"""Quality records: which belong together, their tables, and the plots by size and by alpha."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.ticker import MaxNLocator

from erank_lite.benchmarks.record import Variant, one_line
from erank_lite.benchmarks.report import format as fmt
from erank_lite.benchmarks.report import style
from erank_lite.benchmarks.report.content import Group, Table
from erank_lite.benchmarks.report.records import Quality, Record
from erank_lite.util.units import counted

_MEASURES = ("nDCG@10", "p-MRR")
"""The measures that models are compared by, the first that a record has."""
_MANY = 12  # points, beyond which their names go without their figures
_NICE = [a * 10**n for n in range(5, 13) for a in (1, 2, 5)]  # bytes at an axis


@dataclass(frozen=True)
class _Model:
    """A record among those it compares with.

    Attributes:
        setting: of how it ran, as far as that differs between them.
        label: the model, with the setting.
        value: the main measure after reranking.
        published: the paper's figure.
        sweep: the main measure of the hybrids by alpha, the first stage's weight.
    """

    record: Quality
    setting: str
    label: str
    value: float | None
    published: float | None
    sweep: dict[float, float]

    @property
    def variant(self) -> Variant:
        """Which file it is, its setting named too."""
        variant = self.record.variant
        return replace(variant, name=", ".join(filter(None, (variant.name, self.setting))))


@dataclass(frozen=True)
class _Alike:
    """Records that compare: of one collection, reranked from the same first stage."""

    title: str
    measure: str
    models: Sequence[_Model]

    @property
    def records(self) -> list[Quality]:
        """The records of all models."""
        return [model.record for model in self.models]

    @property
    def first_stage(self) -> Mapping[str, float]:
        """The measures of the first stage's own order."""
        return next((m for r in self.records if (m := r.measures.first_stage)), {})


def quality_groups(records: Iterable[Record]) -> list[Group]:
    """Return quality records by what they compare with, larger models first."""
    found: dict[tuple[Any, ...], list[Quality]] = {}
    for record in records:
        if isinstance(record, Quality):
            names = record.measures.reranked
            measure = next((m for m in _MEASURES if m in names), next(iter(names), _MEASURES[0]))
            key = measure, record.collection, record.first_stage, record.depth
            found.setdefault(key, []).append(record)
    groups = []
    for n, ((measure, *_), each) in enumerate(found.items()):
        alike = _alike(measure, sorted(each, key=lambda r: -(r.size or 0)))
        suffix = f"-{n + 1}" if n else ""
        plots = (_size_plot(alike, suffix), _alpha_plot(alike, suffix))
        tables = (_measures_table(alike), _alpha_table(alike))
        groups.append(Group(alike.title, tuple(filter(None, plots)), tuple(filter(None, tables))))
    return groups


def _alike(measure: str, records: Sequence[Quality]) -> _Alike:
    first = records[0]
    name = one_line(first.collection)
    if first.depth:
        stage = one_line(first.first_stage or "the first stage")
        name += f", the first {first.depth:,} of {stage}"
    settings = [
        (fmt.thinking(r.thinking), f"cut at {r.truncate_length}" * bool(r.truncate_length),
         "strict" * r.strict)
        for r in records
    ]  # fmt: skip
    differ = [len(set(column)) > 1 for column in zip(*settings, strict=True)]
    models = []
    for record, parts in zip(records, settings, strict=True):
        shown = [part for part, differs in zip(parts, differ, strict=True) if differs and part]
        hybrids = sorted(record.measures.hybrid.items())
        models.append(_Model(
            record, ", ".join(shown), ", ".join((one_line(record.model), *shown)),
            record.measures.reranked.get(measure), record.published.get(measure),
            {alpha: found[measure] for alpha, found in hybrids if measure in found},
        ))  # fmt: skip
    return _Alike(name, measure, models)


def _measures_table(alike: _Alike) -> Table:
    main, records, stage = alike.measure, alike.records, alike.first_stage
    all_of_them = [r.measures.reranked for r in records] + [r.measures.first_stage for r in records]
    names = [*dict.fromkeys((main, *(name for found in all_of_them for name in found)))]
    rows = (
        [{"model": "first stage"} | {n: fmt.decimals(stage.get(n)) for n in names}] if stage else []
    )
    for model in alike.models:
        record = model.record
        alpha = max(model.sweep, key=model.sweep.__getitem__, default=None)
        rows.append(
            {"model": model.label, "size": fmt.size(record.size)}
            | {name: fmt.decimals(record.measures.reranked.get(name)) for name in names}
            | {
                f"published {main}": fmt.decimals(model.published),
                f"best hybrid {main}": fmt.NONE
                if alpha is None
                else fmt.decimals(model.sweep[alpha]),
                "at alpha": fmt.decimals(alpha, 1),
                "failed": _share(record.failed, record.documents),
                "forced": _share(record.forced, record.documents),
                "tokens": fmt.count(record.tokens),
                "documents/s": fmt.rate(record.documents_per_second),
                "ran": record.ran,
            }
        )
    caption = f"Quality on {alike.title}: {counted(records[0].queries, 'query')}"
    note = "The best alpha was chosen on these same queries: its figure flatters the hybrid."
    note *= any(model.sweep for model in alike.models)
    return Table.from_rows(caption, rows, records, note, ("ran",))


def _share(some: float | None, documents: int) -> str:
    return fmt.NONE if some is None or not documents else fmt.percent(some / documents)


def _alpha_table(alike: _Alike) -> Table | None:
    alphas = sorted({alpha for model in alike.models for alpha in model.sweep})
    rows = [
        {"model": model.label} | {f"{a:g}": fmt.decimals(model.sweep.get(a)) for a in alphas}
        for model in alike.models
        if model.sweep
    ]
    caption = f"{alike.measure} of the hybrid by alpha, the first stage's weight: {alike.title}"
    return Table.from_rows(caption, rows, alike.records) if rows else None


def _plot_title(alike: _Alike) -> str:
    record = alike.records[0]
    depth = f", the first {record.depth:,}" if record.depth else ""
    return one_line(record.collection) + depth


def _size_plot(alike: _Alike, suffix: str) -> style.Plot | None:
    points = [
        _Point(model.record.size, model.value, model)
        for model in alike.models
        if model.value is not None and model.record.size
    ]
    if not points:
        return None
    figure, axes = style.canvas(4.0 if len(points) <= _MANY else 5.2)
    ax = axes[0, 0]
    style.title(ax, _plot_title(alike), "size of the file", alike.measure)
    sizes = [point.size for point in points]
    left, right = min(sizes) / 1.5, max(sizes) * 1.5
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.set_xticks([s for s in _NICE if left <= s <= right] or sorted({min(sizes), max(sizes)}))
    style.sizes_at(ax.xaxis)
    stages = (record.measures.first_stage.get(alike.measure) for record in alike.records)
    first_stage = next((value for value in stages if value is not None), None)
    published = {(p.size, p.model.published) for p in points if p.model.published is not None}
    values = [p.value for p in points] + [value for _, value in published]
    values += [first_stage] if first_stage is not None else []
    span = max(values) - min(values) or 0.1
    ax.set_ylim(min(values) - 0.12 * span, max(values) + 0.2 * span)
    if first_stage is not None:
        ax.axhline(first_stage, **style.DASHED)
        style.write(ax, f"first stage {first_stage:.3f}", (right, first_stage), xytext=(-4, 8),
              ha="right", color=style.FAINT)  # fmt: skip
    for x, y in published:
        ax.plot(x, y, "D", color=style.INK, markersize=8, markerfacecolor="none")
    names = _draw_series(ax, points)
    style.label_points(ax, names + [(x, y, f"published {y:.3f}") for x, y in sorted(published)])
    described = [f"{p.model.label}, {fmt.size(p.size)}: {p.value:.3f}" for p in points]
    described += [f"the first stage alone: {first_stage:.3f}"] if first_stage is not None else []
    alt = f"{alike.measure} against the file's size, {alike.title}. {'; '.join(described)}."
    records = [point.model.record for point in points]
    return style.Plot(f"quality-size{suffix}.png", "Quality against size", alt, figure, records)


@dataclass(frozen=True)
class _Point:
    size: float
    value: float
    model: _Model


def _draw_series(ax: Any, points: Sequence[_Point]) -> list[tuple[float, float, str]]:
    """Draw a line for each way a model was made or run; return the names to write at points.

    Types are named along the lines of plain files of the commonest setting. The points of an
    importance matrix, or of another setting, are of the same types: their line is named at its end.
    """
    series: dict[tuple[str, str, str], list[_Point]] = {}
    for point in sorted(points, key=lambda p: (p.size, p.value)):
        key = point.model.setting, point.model.record.variant.model, _way(point.model)
        series.setdefault(key, []).append(point)
    common, *_ = max(series, key=lambda key: len(series[key]))
    named = {
        (model, point.model.record.variant.type)
        for (setting, model, way), line in series.items()
        if setting == common and not way
        for point in line
    }
    short = fmt.short_names({p.model.record.model: p.model.record.variant for p in points})
    figures = len(points) <= _MANY and not any(point.model.setting for point in points)
    names = []
    for n, ((setting, model, way), line) in enumerate(series.items()):
        xs, ys = [p.size for p in line], [p.value for p in line]
        ax.plot(xs, ys, linewidth=1.2, markersize=7, **style.line_style(n))
        for point in line:
            variant, is_last = point.model.record.variant, point is line[-1]
            name = short[point.model.record.model]
            if (setting != common or variant.imatrix) and (model, variant.type) in named:
                name = ", ".join(filter(None, (way, setting))) if is_last else ""
            elif setting and is_last:
                name += f", {setting}"
            elif figures:
                name += f" {point.value:.3f}"
            names.append((point.size, point.value, name))
    return names


def _way(model: _Model) -> str:
    """Return how a file was made, beside its type: "" for a plain one, or such as "+own"."""
    variant = model.record.variant
    if variant.type and variant.name.startswith(variant.type):
        return variant.name.removeprefix(variant.type).strip(", ")
    return "GPTQ" if variant.name.startswith("GPTQ") else variant.name


def _alpha_plot(alike: _Alike, suffix: str) -> style.Plot | None:
    """Draw a small plot for each model, with all others behind it."""
    models = [model for model in alike.models if len(model.sweep) > 1]
    if not models:
        return None
    columns = 2 if len(models) <= 4 else 3 if len(models) <= 9 else 4
    columns = min(columns, len(models))
    figure, axes = style.panels(len(models), columns, 1.45, 0.9)
    short = fmt.short_names({model.label: model.variant for model in models})
    described = []
    for ax, model in zip(axes, models, strict=True):
        for other in models:
            ax.plot(*zip(*other.sweep.items(), strict=True), linewidth=0.8, color=style.GRID)
        ax.plot(*zip(*model.sweep.items(), strict=True), linewidth=1.8, color=style.MAIN)
        alpha, best = max(model.sweep.items(), key=lambda point: point[1])
        ax.plot(alpha, best, "o", markersize=6, markerfacecolor="none", color=style.MAIN)
        name = short[model.label]
        style.panel_title(ax, name, f"best {best:.3f} at {alpha:g}", columns)
        ax.set(xlim=(-0.05, 1.05), xticks=(0, 0.5, 1))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        alone = next(iter(model.sweep.values()))
        described.append(f"{name}: best {best:.3f} at alpha {alpha:g}, alone {alone:.3f}")
    figure.suptitle(
        style.label(_plot_title(alike), 50), x=0.02, ha="left", fontsize=12, color=style.INK
    )
    figure.supxlabel(
        "alpha: 0 the model alone, 1 the first stage alone", fontsize=style.LABEL, color=style.FAINT
    )
    figure.supylabel(alike.measure, fontsize=style.LABEL, color=style.FAINT)
    alt = f"{alike.measure} of the hybrid by alpha, {alike.title}. {'; '.join(described)}."
    records = [model.record for model in models]
    return style.Plot(f"alpha{suffix}.png", "The hybrid by alpha", alt, figure, records)
