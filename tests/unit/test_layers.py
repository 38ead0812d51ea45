"""Which module may import which: layers and no cycles, imports inside functions counted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "erank_lite": ROOT / "erank_lite",
    "erank_lite.convert": ROOT / "convert",
    "erank_lite.benchmarks": ROOT / "benchmarks",
}
# Each part imports only those of earlier lines, and itself. The most specific name counts.
LAYERS = (
    ("errors", "version", "ggml"),
    ("types", "util", "documents"),
    ("cli.output",),
    ("cli.progress",),
    ("text", "machine", "testing"),
    ("models",),
    ("families", "engines", "effort"),
    ("convert",),
    ("models.prepare",),
    ("load",),
    ("results",),
    ("batch",),
    ("rounds",),
    ("hybrid", "reranker"),
    ("search", "jobs"),
    ("serve.relevance",),
    ("serve", "integrations"),
    ("mcp",),
    ("forecast",),
    ("benchmarks",),
    ("cli",),
    ("__main__",),
)
LAYER = {f"erank_lite.{part}": i for i, parts in enumerate(LAYERS) for part in parts}


@cache
def modules() -> dict[str, Path]:
    """Return the file of each module; a folder without an `__init__.py` holds programs."""
    found = {}
    for package, folder in FOLDERS.items():
        for file in folder.rglob("*.py"):
            if (file.parent / "__init__.py").is_file():
                parts = file.relative_to(folder).with_suffix("").parts
                names = [package, *(p for p in parts if p != "__init__")]
                found[".".join(names)] = file
    return found


def imported(name: str) -> Iterator[str]:
    """Yield the modules of this package that a module names in any of its imports."""
    file = modules()[name]
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            if base in modules():
                yield from (origin(base, alias.name) for alias in node.names)


@cache
def origin(module: str, name: str) -> str:
    """Return the module that `from module import name` reads: what the package itself offers lies
    in other modules, which it names in its imports for types."""
    if f"{module}.{name}" in modules():
        return f"{module}.{name}"
    if module == "erank_lite":
        for node in ast.walk(ast.parse(modules()[module].read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and name in [a.name for a in node.names]:
                return node.module or module
    return module


@cache
def imports() -> dict[str, frozenset[str]]:
    """Return what each module imports. The package itself, which offers the others, is left out."""
    return {
        name: frozenset(imported(name)) - {name, "erank_lite"}
        for name in sorted(modules())
        if name != "erank_lite"
    }


def part_of(module: str) -> str:
    """Return the part of LAYERS that a module belongs to."""
    found = [part for part in LAYER if f"{module}.".startswith(f"{part}.")]
    assert found, f"{module} belongs to no part: give it a line in LAYERS"
    return max(found, key=len)


def test_each_part_imports_only_earlier_ones() -> None:
    wrong = {
        f"{module} -> {other}"
        for module, others in imports().items()
        for other in others
        if part_of(module) != part_of(other) and LAYER[part_of(other)] >= LAYER[part_of(module)]
    }
    assert sorted(wrong) == []


def test_no_module_is_imported_by_what_it_imports() -> None:
    left: dict[str, frozenset[str]] = dict(imports())
    # In no cycle is what imports none of those that are left, and what none of them imports.
    size = 0
    while size != len(left):
        size = len(left)
        left = {module: others for module, others in left.items() if others & left.keys()}
        needed = {other for others in left.values() for other in others}
        left = {module: others for module, others in left.items() if module in needed}
    assert not left, "these import each other: " + ", ".join(left)
