"""Fill the tables of docs/benchmarks.md from the records in benchmarks/results.

    python docs/make_benchmarks.py            # rewrite what stands between the markers
    python docs/make_benchmarks.py --check    # fail if it is not what the records give

Between `<!-- begin: TITLE | TITLE -->` and `<!-- end -->` go the tables that `erank-lite report`
writes under captions that begin with one of these titles, and tables of records that the report
does not show, or not side by side. Other text on the page is written by hand. The report needs the
eval extra, which draws its plots.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
PAGE = DOCS / "benchmarks.md"
_REGION = re.compile(r"(<!-- begin: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_SOURCE = re.compile(r"\n\n```console\n.+?\n```\n\n[^\n]+\Z", re.DOTALL)
_HEADING = re.compile(r"^#+ ", re.MULTILINE)
_CAPTION = re.compile(r"^\*\*(.+?)\*\*$", re.MULTILINE)


def report_tables() -> list[str]:
    """Return what `erank-lite report` says about the records: a caption and its table, each."""
    with tempfile.TemporaryDirectory() as folder:
        command = [Path(sys.executable).with_name("erank-lite"), "report", RESULTS, "--out", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        text = (Path(folder) / "tables.md").read_text()
    starts = [match.start() for match in _CAPTION.finditer(text)]
    parts = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    return [_HEADING.split(part)[0].strip() for part in parts]  # the page has headings of its own


def conversion_table() -> str:
    """Return the table of converting a checkpoint of ERank-4B's shape; each type's last run."""
    record = _record("convert-4b.json")
    runs = {run["type"]: run for run in record["conversions"]}
    lines = [
        f"**Conversion of a checkpoint of {record['checkpoint_bytes'] / 1e9:.1f} GB**",
        "",
        "| type | size | seconds | reading and writing | quantizing | checking | memory | disk |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, run in runs.items():
        stages = run["stages"]
        cells = (
            name,
            f"{run['bytes'] / 1e9:.1f} GB",
            f"{run['seconds']:.0f}",
            f"{stages['writing']:.0f}",
            f"{stages['quantizing']:.0f}" if "quantizing" in stages else "",
            f"{stages['checking']:.0f}",
            f"{run['peak_memory'] / 1e9:.2f} GB",
            f"{run['announced']['disk'] / 1e9:.1f} GB",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join((*lines, "", f"```console\n$ {record['command']}\n```", "", record["machine"]))


def matrix_table() -> str:
    """Return the table of what an importance matrix gains, by where it was collected."""
    record = _record("fidelity-erank-tiny.json")
    runs = {run["name"].removesuffix(".gguf"): run for run in record["runs"]}
    lines = [
        "**Types with and without an importance matrix**",
        "",
        "| type | importance matrix | same integer | mean KL, nats | Kendall's tau | nDCG@10 |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    for name in ("Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"):
        for key, collected in (
            (f"erank-tiny:{name}", "none"),
            (f"erank-tiny-{name}+generic", "over running text"),
            (f"erank-tiny-{name}+own", "over ERank's prompts and answers"),
        ):
            run = runs[key]
            lines.append(
                f"| {name} | {collected} | {run['same']:.1%} | {run['kl']:.3f} | {run['tau']:.3f} "
                f"| {run['nDCG@10']:.3f} |"
            )
    return "\n".join(lines)


def noise_table() -> str:
    """Return the table of how far documents decoded together are from documents decoded alone."""
    lines = [
        "**Noise of decoding together**",
        "",
        "| flash attention | texts that differ somewhere | mean difference of log-probabilities "
        "| largest |",
        "| --- | --: | --: | --: |",
    ]
    for name in ("noise.json", "noise-flash-attention.json"):
        record = _record(name)
        lines.append(
            f"| {'on' if record['flash_attention'] else 'off'} "
            f"| {record['documents_that_part']} of {record['documents']} "
            f"| {record['mean_difference_of_log_probability']:.3f} "
            f"| {record['largest_difference_of_log_probability']:.2f} |"
        )
    return "\n".join(lines)


def servers_table() -> str:
    """Return the table of erank-lite beside llama-server, of all models and shapes."""
    rows = []
    for path in sorted(RESULTS.glob("speed-*.json")):
        record = _record(path.name)
        rates = {way["name"]: way["documents_per_second"] for way in record["ways"]}
        if {"erank-lite", "llama-server"} <= rates.keys():
            work, ours, other = record["work"], rates["erank-lite"], rates["llama-server"]
            reached = record["practical_ceiling"]["reached"]
            rows.append(
                (work["own"], work["tokens"], record["model"].removesuffix(".gguf"),
                 f"{work['own']:,} + {work['tokens']}", f"{ours:.3g}", f"{other:.3g}",
                 f"{ours / other:.2f}", f"{reached:.0%}")
            )  # fmt: skip
    lines = [
        "**erank-lite and llama-server**",
        "",
        "| model | tokens read + written | erank-lite, documents/s | llama-server | ratio "
        "| of llama-batched-bench |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    lines += [f"| {' | '.join(cells)} |" for _, _, *cells in sorted(rows)]
    return "\n".join(lines)


def forecasts_table() -> str:
    """Return the table of how long jobs were foretold to take, and took."""
    lines = [
        "**Forecasts**",
        "",
        "| model | documents | words of each | thinking | forecast, s | took, s "
        "| time left, off by |",
        "| --- | --: | --: | --- | --: | --: | --: |",
    ]
    for path in sorted(RESULTS.glob("forecasts-*.json")):
        record = _record(path.name)
        for job in record["jobs"]:
            cells = (
                record["model"].removesuffix(".gguf"),
                str(job["documents"]),
                str(job["words"]),
                str(job["thinking"]),
                f"{job['forecast']:.0f}" + " (assumed)" * job["assumed"],
                f"{job['took']:.0f}",
                "" if job["left"] is None else f"{job['left']:.0%}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def effort_tables() -> list[str]:
    """Return the tables of what cheaper ways give, one for each model that was measured."""
    tables = []
    for path in sorted(RESULTS.glob("effort-*.json")):
        record = _record(path.name)
        title = f"Effort of {record['model']} on {record['collection']}"
        lines = [
            f"**{title}: {record['queries']} queries, {record['documents']} documents, "
            f"{record['tokens']:.0f} tokens written each**",
            "",
            "| read | cost | self-nDCG@10 | 95% | first ten shared | nDCG@10 "
            "| first stage's cut at equal cost |",
            "| --- | --: | --: | --: | --: | --: | --: |",
        ]
        for way in record["ways"]:
            low, high = way["self_ndcg_interval"]
            cells = (
                way["way"],
                f"{way['cost']:.0%}",
                f"{way['self_ndcg']:.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{way['overlap']:.0%}",
                f"{way['ndcg']:.3f}",
                f"{way['equal_cost']['self_ndcg']:.3f} ({way['equal_cost']['depth']} read)",
            )
            lines.append(f"| {' | '.join(cells)} |")
        tables.append("\n".join((*lines, "", f"```console\n$ {record['command']}\n```")))
    return tables


def within_table() -> str:
    """Return the table of what `--within` took and gave."""
    lines = [
        "**Within**",
        "",
        "| model | `--within`, s | runs | took, s: least, median, most | documents read of 100 "
        "| nDCG@10, less the first stage's |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    commands = []
    for path in sorted(RESULTS.glob("within-*.json")):
        record = _record(path.name)
        seconds = sorted(run["seconds"] for run in record["runs"])
        read = sorted(run["read"] + run["stopped"] for run in record["runs"])
        low, high = record["ndcg_difference_interval"]
        cells = (
            record["model"].removesuffix(".gguf"),
            f"{record['within']:g}",
            str(len(seconds)),
            f"{seconds[0]:.1f}, {statistics.median(seconds):.1f}, {seconds[-1]:.1f}",
            f"{read[0]} to {read[-1]}",
            f"{record['ndcg_difference']:+.3f} ({low:+.3f} to {high:+.3f})",
        )
        lines.append(f"| {' | '.join(cells)} |")
        commands.append(f"$ {record['command']}")
    return "\n".join((*lines, "", "```console", *commands, "```"))


def load_table() -> str:
    """Return the table of a server under load."""
    lines = [
        "**Load**",
        "",
        "| model | clients | seconds | requests/s | documents/s | p50, p95, p99, s | documents per "
        "second of CPU | `rerank_many`'s | wrong or missing |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    commands = []
    for path in sorted(RESULTS.glob("load-*.json")):
        record = _record(path.name)
        took = record["request_seconds"]
        cells = (
            record["model"],
            str(record["clients"]),
            f"{record['seconds']:.0f}",
            f"{record['requests_per_second']:.2f}",
            f"{record['documents_per_second']:.1f}",
            ", ".join(f"{took[name]:.0f}" for name in ("p50", "p95", "p99")),
            f"{record['documents_per_cpu_second']:.2f}",
            f"{record['rerank_many_documents_per_cpu_second']:.2f}",
            str(len(record["wrong"])),
        )
        lines.append(f"| {' | '.join(cells)} |")
        commands.append(f"$ {record['command']}")
    return "\n".join((*lines, "", "```console", *commands, "```"))


def thresholds_table() -> str:
    """Return the table of what a threshold on the relevance keeps."""
    records = [_record(path.name) for path in sorted(RESULTS.glob("thresholds-*.json"))]
    names = [f"{r['model'].removesuffix('.gguf')}, thinking {r['thinking']}" for r in records]
    lines = [
        "**Thresholds**",
        "",
        "| threshold | " + " | ".join(f"{n}: relevant | others" for n in names) + " |",
        "| --: |" + " --: | --: |" * len(records),
    ]
    for place in range(9):
        cells = [
            f"{r['kept'][kind][place]:.0%}" for r in records for kind in ("relevant", "others")
        ]
        lines.append(f"| {(place + 1) / 10:.1f} | {' | '.join(cells)} |")
    counts = [f"{sum(r['histogram']['relevant'])} of {sum(map(sum, r['histogram'].values()))}"
              for r in records]  # fmt: skip
    lines.append(f"| judged relevant | {' | | '.join(counts)} | |")
    commands = [f"$ {r['command']}" for r in records]
    return "\n".join((*lines, "", "```console", *commands, "```"))


def search_index_table() -> str:
    """Return the table of indexing a folder."""
    record = _record("search-index.json")
    lines = [
        "**Index of a folder**",
        "",
        "| | seconds | files read | passages | memory |",
        "| --- | --: | --: | --: | --: |",
    ]
    named = {"first": "first index", "again": "nothing changed", "changed": "after 100 changes"}
    for key, name in named.items():
        row = record[key]
        lines.append(
            f"| {name} | {row['seconds']:.1f} | {row['read']:,} of {row['files']:,} | "
            f"{row['passages']:,} | {row['memory'] / 1e6:.0f} MB |"
        )
    lines += [
        "",
        f"{record['bytes'] / 1e6:.0f} MB of files, {record['first']['other']} of them pictures and "
        f"the like, made an index of {record['index_bytes'] / 1e6:.0f} MB. A query took BM25 "
        f"{1000 * record['query_seconds']:.0f} ms.",
    ]
    return "\n".join((*lines, "", "```console", f"$ {record['command']}", "```"))


def known_items_table() -> str:
    """Return the table of whether the file that answers a question is found."""
    lines = [
        "**Questions whose file is known**",
        "",
        "| questions | order | success@1 | success@5 | MRR |",
        "| --- | --- | --: | --: | --: |",
    ]
    commands = []
    for path in sorted(RESULTS.glob("known-items-*.json")):
        record = _record(path.name)
        commands.append(f"$ {record['command']}")
        kind = path.stem.removeprefix("known-items-").partition("+")[0].replace("-", " ")
        for order, row in record["systems"].items():
            name = order if order == "BM25" else f"{order}, thinking {record['thinking']}"
            cells = (f"{value:.2f}" for value in row.values())
            line = (
                f"| {kind}: {record['questions']} | {name}, {record['candidates']} candidates | "
                f"{' | '.join(cells)} |"
            )
            if line not in lines:  # BM25 is in each record
                lines.append(line)
    return "\n".join((*lines, "", "```console", *commands, "```"))


def families_table() -> str:
    """Return the table of one model asked as every family does."""
    record = _record("families-1.5b.json")
    lines = [
        "**Families**",
        "",
        "| family | documents | failed | forced | tokens a document | nDCG@10 |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for name, row in record["rows"].items():
        lines.append(
            f"| {name} | {row['documents']} | {row['failed']} | {row['forced']} | "
            f"{row['tokens']:.0f} | {row['nDCG@10']:.3f} |"
        )
    lines.append(f"| first stage alone | | | | | {record['first_stage']:.3f} |")
    return "\n".join((*lines, "", "```console", f"$ {record['command']}", "```"))


def _record(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return record


def filled(page: str, tables: list[str]) -> str:
    """Return the page with every table in the region that claims it.

    Raises:
        SystemExit: a table belongs to no region, or a region gets none.
    """
    left = list(tables)

    def fill(match: re.Match[str]) -> str:
        begin, titles, end = match.groups()
        found: list[str] = []
        for title in titles.split(" | "):
            claimed = [table for table in left if table.startswith(f"**{title}")]
            if not claimed:
                sys.exit(f"no table begins with {title!r}")
            found += claimed
        for table in found:
            left.remove(table)
        return f"{begin}\n" + "\n\n".join(_once(found)) + f"\n\n{end}"

    page = _REGION.sub(fill, page)
    if left:
        captions = ", ".join(table.splitlines()[0].strip("*") for table in left)
        sys.exit(f"{PAGE.name} has no region for: {captions}")
    return page


def _once(tables: list[str]) -> list[str]:
    """Return tables with the command and machine that several share after the last of them only."""
    sources = [match[0] if (match := _SOURCE.search(table)) else "" for table in tables]
    return [
        table.removesuffix(source) if source == after else table
        for table, source, after in zip(tables, sources, [*sources[1:], ""], strict=True)
    ]


def main() -> None:
    """Rewrite the page, or compare it with what the records give."""
    page = PAGE.read_text()
    own = [
        noise_table(), matrix_table(), conversion_table(), servers_table(), forecasts_table(),
        *effort_tables(), within_table(), load_table(), thresholds_table(), search_index_table(),
        known_items_table(), families_table(),
    ]  # fmt: skip
    made = filled(page, report_tables() + own)
    if "--check" not in sys.argv:
        PAGE.write_text(made)
    elif made != page:
        sys.exit(f"{PAGE.name} differs from the records: run python docs/make_benchmarks.py")


if __name__ == "__main__":
    main()
