"""The files below a folder that are its owner's to search: not hidden, not ignored, not elsewhere.

Names that begin with a point, and what `.gitignore` files leave out (https://git-scm.com/docs/
gitignore, those of the folders above within the same repository too), are passed over. Links are
followed to files inside the folder alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_IGNORE = ".gitignore"

Rules = tuple[tuple[Path, "GitIgnoreSpec"], ...]
"""Of each folder that has them, from the outermost."""


def walk(root: Path, failed: Callable[[Path, str], None]) -> Iterator[os.DirEntry[str]]:
    """Yield the files below a folder, folder by folder, in the order of their names.

    Args:
        root: the folder, resolved.
        failed: told each folder that cannot be read, and why.
    """
    yield from _walk(root, root, _above(root), failed)


def _walk(
    root: Path, folder: Path, rules: Rules, failed: Callable[[Path, str], None]
) -> Iterator[os.DirEntry[str]]:
    rules += _of(folder)
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        if folder == root or folder.exists():  # else it went away meanwhile
            failed(folder, error.strerror or str(error))
        return
    folders = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
            if _ignored(Path(entry.path), is_folder, rules):
                continue
            if is_folder:
                folders.append(Path(entry.path))
            elif entry.is_file() and not (entry.is_symlink() and _leads_out(entry, root)):
                yield entry
        except OSError as error:
            failed(Path(entry.path), error.strerror or str(error))
    for each in folders:
        yield from _walk(root, each, rules, failed)


def _leads_out(entry: os.DirEntry[str], root: Path) -> bool:
    return not Path(entry.path).resolve().is_relative_to(root)


def _ignored(path: Path, is_folder: bool, rules: Rules) -> bool:
    """Return what the innermost rule that knows the path says."""
    for folder, spec in reversed(rules):
        relative = path.relative_to(folder).as_posix() + "/" * is_folder
        found: bool | None = spec.check_file(relative).include
        if found is not None:
            return found
    return False


def _of(folder: Path) -> Rules:
    """Return a folder's own rules."""
    from pathspec import GitIgnoreSpec

    try:
        lines = (folder / _IGNORE).read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ()
    good = []
    for line in lines:
        try:
            GitIgnoreSpec.from_lines([line])
            good.append(line)
        except ValueError:  # git passes over what is no pattern, too
            continue
    return ((folder, GitIgnoreSpec.from_lines(good)),)


def _above(root: Path) -> Rules:
    """Return the rules of the folders above, up to the repository's own."""
    above: Rules = ()
    if (root / ".git").exists():
        return above
    for folder in root.parents:
        above = _of(folder) + above
        if (folder / ".git").exists():
            return above
    return ()
