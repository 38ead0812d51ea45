"""What the documentation says can be checked: links, paths, the README's example, charts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from erank_lite.engines.choose import plan
from erank_lite.machine.hardware import Gpu, Hardware, LlamaBuild
from erank_lite.machine.shapes import PUBLISHED
from erank_lite.models.inspect import inspect
from erank_lite.models.ref import ModelRef

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("erank_lite/", "convert/", "benchmarks/", "training/", "tests/", "docs/")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    for target in (first or second for first, second in links):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.is_file(), f"{page.name}: {target}"
        if heading and not heading.startswith("only-"):
            assert heading in _anchors(linked), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_that_are_named_exist(page: Path) -> None:
    for path in re.findall(r"`([\w./-]+)`", page.read_text(encoding="utf-8")):
        if path.startswith(FOLDERS) and "NAME" not in path:
            assert (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the tests' own, in which erank-tiny is converted once."""
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path_factory.getbasetemp() / "examples"))


@pytest.mark.usefixtures("cache")
def test_the_example_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    match = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", readme, re.DOTALL)
    assert match is not None
    exec(compile(match[1], "README.md", "exec"), {})
    assert capsys.readouterr().out == match[2]


@pytest.mark.usefixtures("cache")
def test_the_example_of_the_api_page() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    match = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert match is not None
    exec(compile(match[1], "api.md", "exec"), {})


def test_the_quick_start_has_the_two_lines_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    start = readme.index("\n## Quick start\n")
    first = re.search(r"```bash\n(.*?)```", readme[start:], re.DOTALL)
    assert first is not None
    main, tests = first[1].splitlines()
    assert main.endswith("erank-lite demo") and tests.endswith("python -m pytest -q")


def test_the_readme_stays_short() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("\n") < 150 and len(readme.split()) < 1300


def test_the_table_of_machines_is_what_the_plan_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) GB (of memory, no )?GPU \| (.+) \|$", readme, re.MULTILINE)
    assert len(rows) == 6
    for size, no_gpu, cells in rows:
        gpu = () if no_gpu else (int(size),)
        machine = _machine(32 if gpu else int(size), *gpu)
        for name, cell in zip(PUBLISHED, cells.split(" | "), strict=True):
            found = plan(inspect(ModelRef.parse(f"Alibaba-NLP/{name}")), machine)
            assert found.type is not None
            expected = f"{found.type}, {PUBLISHED[name].sizes[found.type] / 1e9:.1f} GB"
            if not found.fits:
                expected = "–"
            elif gpu and not found.gpu_layers:
                expected = "on the CPU, with 32 GB"
            assert cell == expected, f"{size} GB, {name}"


def _machine(memory: int, *gpus: int) -> Hardware:
    """Return a machine by its memory and that of each GPU, in GiB."""
    gib = 1 << 30
    cards = tuple(Gpu(f"{g} GB", "cuda", g * gib, int(0.95 * g * gib)) for g in gpus)
    return Hardware(
        system="made up", cpu="made up", cores=8, instructions=(),
        memory_total=memory * gib, memory_free=int(0.85 * memory * gib), gpus=cards,
        llama=LlamaBuild("0.3.36", ("cpu", "cuda"), cards), extras={},
    )  # fmt: skip


def test_charts_are_those_of_the_records() -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "make_charts.py", "--check"], check=True)


def _anchors(page: Path) -> set[str]:
    """Return the headings of a page as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"\s+", "-", heading) for heading in plain}
