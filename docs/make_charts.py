"""Draw the charts of the README and the documentation from the records in benchmarks/results.

    python docs/make_charts.py            # write docs/assets/*.svg
    python docs/make_charts.py --check    # fail if they are not what the records give

Each chart is written twice, for light and for dark pages. Text stays text, so it is searchable and
sharp at any size.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
ASSETS = DOCS / "assets"

WIDTH = 600
LABELS = 210  # pixels for the names of the bars
ROW, BAR = 30, 18
FONT = "-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Theme:
    """The colours of one chart: contrast of text is at least 4.5 : 1 on either background."""

    text: str
    muted: str
    ours: str
    others: str
    extra: str


THEMES = {
    "light": Theme("#1f2328", "#59636e", "#3f51b5", "#a7adb5", "#9fa8da"),
    "dark": Theme("#e6edf3", "#9198a1", "#8c9eff", "#5c6470", "#46508c"),
}


@dataclass(frozen=True)
class Bar:
    """One row: `value` fills the bar; `extra`, where there is one, is where a lighter bar ends."""

    label: str
    value: float
    text: str
    ours: bool = True
    bold: bool = False
    extra: float | None = None


def draw(
    title: str, subtitle: str, bars: list[Bar], full: float, theme: Theme, room: float = 50
) -> str:
    """Return an SVG of horizontal bars.

    Args:
        title: the first line.
        subtitle: one line or more, in a smaller font.
        bars: from the top.
        full: the value of a bar of full length.
        theme: the colours.
        room: pixels to the right of a bar of full length.
    """
    lines = subtitle.split("\n")
    first = 44 + 18 * len(lines)
    height = first + ROW * len(bars)
    scale = (WIDTH - LABELS - room) / full
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="{FONT}" font-size="14" role="img" aria-label="{escape(title)}">',
        f'<text x="0" y="18" font-size="16" font-weight="600" fill="{theme.text}">'
        f"{escape(title)}</text>",
        *(
            f'<text x="0" y="{40 + 18 * n}" font-size="13" fill="{theme.muted}">'
            f"{escape(line)}</text>"
            for n, line in enumerate(lines)
        ),
    ]
    for row, bar in enumerate(bars):
        top = first + ROW * row
        middle = top + BAR / 2 + 5
        weight = "600" if bar.bold else "400"
        colour = theme.ours if bar.ours else theme.others
        parts.append(
            f'<text x="{LABELS - 12}" y="{middle}" text-anchor="end" font-weight="{weight}" '
            f'fill="{theme.text}">{escape(bar.label)}</text>'
        )
        if bar.extra is not None:
            parts.append(_rect(top, bar.extra * scale, theme.extra))
        parts.append(_rect(top, bar.value * scale, colour))
        end = LABELS + max(bar.value, bar.extra or 0) * scale + 8
        parts.append(
            f'<text x="{end:.1f}" y="{middle}" font-weight="{weight}" fill="{theme.text}">'
            f"{escape(bar.text)}</text>"
        )
    return "\n".join((*parts, "</svg>", ""))


def _rect(top: float, width: float, colour: str) -> str:
    return (
        f'<rect x="{LABELS}" y="{top}" width="{width:.1f}" height="{BAR}" rx="3" fill="{colour}"/>'
    )


def speed(theme: Theme) -> str:
    """Return the chart of documents per second, beside llama.cpp's own programs."""
    record = _record("speed-erank-tiny.json")
    rates = {way["name"]: way["documents_per_second"] for way in record["ways"]}
    labels = {
        "published method": "published method, BF16",
        "loop": "llama-cpp-python, one by one",
        "erank-lite": "erank-lite",
        "llama-server": "llama-server, flash attention",
        "erank-lite, transformers": "erank-lite, BF16",
        "erank-lite, flash attention": "erank-lite, flash attention",
    }
    bars = [
        Bar(labels[name], rate, f"{rate:.2f}", *[name.startswith("erank-lite")] * 2)
        for name, rate in sorted(rates.items(), key=lambda item: item[1])
        if name in labels
    ]
    work = record["work"]
    title = "Documents per second (higher is better)"
    subtitle = (
        f"erank-tiny, Q8_0 unless BF16 is named, on {record['machine']['cores']} CPU cores\n"
        f"{work['documents']} documents of {work['shared'] + work['own']} tokens, "
        f"{work['tokens']} tokens generated for each"
    )
    return draw(title, subtitle, bars, max(rates[name] for name in labels), theme)


def fidelity(theme: Theme) -> str:
    """Return the chart of how many documents each type gives the same score as BF16."""
    record = _record("fidelity-erank-tiny.json")
    runs = {run["short"]: run for run in (_short(run) for run in record["runs"])}
    names = (
        "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K", "GPTQ-8bit", "GPTQ-4bit",
    )  # fmt: skip
    bars = []
    for name in names:
        run, matrix = runs[name], runs.get(f"{name}+own")
        text = f"{100 * run['same']:.0f}%"
        extra = matrix["same"] if matrix else None
        if extra is not None:
            text += f", with a matrix {100 * extra:.0f}%"
        label = f"{name.replace('-', ', ')}, {run['size'] / 1e6:.0f} MB"
        bars.append(Bar(label.replace("bit", " bits"), run["same"], text, extra=extra))
    title = "Documents that get the same score as from BF16"
    floor = runs["floor"]["same"]
    subtitle = (
        f"erank-tiny, {record['documents']} documents; in BF16 it has "
        f"{record['reference']['size'] / 1e6:.0f} MB\n"
        f"lighter: with an importance matrix; BF16 against itself: {100 * floor:.0f}%"
    )
    return draw(title, subtitle, bars, 1.0, theme, room=150)


def thresholds(theme: Theme) -> str:
    """Return the histograms of relevance scores, of relevant documents and of the others."""
    records = [_record(path.name) for path in sorted(RESULTS.glob("thresholds-*.json"))]
    half, gap, top = 9, 26, 96
    height = top + sum(10 * (2 * half + 5) + gap + 14 for _ in records)
    title = "How relevance scores are spread"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="{FONT}" font-size="13" role="img" aria-label="{title}">',
        f'<text x="0" y="18" font-size="16" font-weight="600" fill="{theme.text}">{title}</text>',
        f'<text x="0" y="40" fill="{theme.muted}">BM25\'s first documents for 20 queries of '
        "dbpedia-50; share of the documents of each kind</text>",
        f'<rect x="0" y="54" width="12" height="{half}" fill="{theme.ours}"/>'
        f'<text x="18" y="63" fill="{theme.text}">judged relevant</text>',
        f'<rect x="140" y="54" width="12" height="{half}" fill="{theme.others}"/>'
        f'<text x="158" y="63" fill="{theme.text}">not</text>',
    ]
    y = top
    for record in records:
        name = record["model"].removesuffix(".gguf")
        parts.append(
            f'<text x="0" y="{y}" font-weight="600" fill="{theme.text}">{escape(name)}, thinking '
            f"{escape(record['thinking'])}</text>"
        )
        y += 14
        kinds = [record["histogram"][kind] for kind in ("relevant", "others")]
        for tenth in range(10):
            parts.append(
                f'<text x="70" y="{y + half + 4}" text-anchor="end" fill="{theme.muted}">'
                f"{tenth / 10:.1f} – {(tenth + 1) / 10:.1f}</text>"
            )
            for counts, colour, down in zip(
                kinds, (theme.ours, theme.others), (0, half), strict=True
            ):
                share = counts[tenth] / max(1, sum(counts))
                width = share * (WIDTH - 140)
                parts.append(
                    f'<rect x="82" y="{y + down}" width="{width:.1f}" height="{half - 1}" '
                    f'fill="{colour}"/>'
                )
                if share:
                    parts.append(
                        f'<text x="{88 + width:.1f}" y="{y + down + half - 1}" font-size="10" '
                        f'fill="{theme.text}">{100 * share:.0f}%</text>'
                    )
            y += 2 * half + 5
        y += gap
    return "\n".join((*parts, "</svg>", ""))


def _short(run: dict[str, Any]) -> dict[str, Any]:
    """Return the run with its type as `short`: "Q8_0", "Q4_K_M+own", "GPTQ-4bit" or "floor"."""
    name = str(run["name"]).removesuffix(".gguf")
    short = "floor" if run.get("floor") else name.removeprefix("erank-tiny")[1:]
    return run | {"short": short}


def _record(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return record


def main() -> None:
    """Write the charts, or compare them with what is there."""
    stale = []
    for name, chart in (("speed", speed), ("fidelity", fidelity), ("thresholds", thresholds)):
        for shade, theme in THEMES.items():
            path, drawn = ASSETS / f"{name}-{shade}.svg", chart(theme)
            if "--check" not in sys.argv:
                path.write_text(drawn)
            elif not path.is_file() or path.read_text() != drawn:
                stale.append(path.name)
    if stale:
        sys.exit(f"{', '.join(stale)} differ from the records: run python docs/make_charts.py")


if __name__ == "__main__":
    main()
