"""A model that is planned becomes a file or folder on this machine: downloaded, converted, kept.

The only place that calls the converter on its own; what it makes is kept in the user's cache
(`erank_lite.models.cache`) and used again.
"""

from __future__ import annotations

import logging
from pathlib import Path

from erank_lite.errors import InputError, ModelError
from erank_lite.machine.plan import Plan
from erank_lite.models.cache import exclusive, identity
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.ref import BUNDLED_TYPE, DEFAULT_TYPE, ModelRef
from erank_lite.models.repository import Repository
from erank_lite.util.cache_folder import cache_folder
from erank_lite.util.reporter import SILENT, Reporter

_log = logging.getLogger(__name__)

# Raised when the converter's output changes, so that files made before are made again.
_CACHE_VERSION = "1"


def prepare(ref: ModelRef, plan: Plan, reporter: Reporter = SILENT) -> Path | str:
    """Return the file, folder or address that the planned engine runs.

    Raises:
        InputError: the name and the engine do not go together.
        ModelError: something is missing and cannot be downloaded, or cannot be converted.
    """
    if ref.kind == "server":
        return ref.text
    if plan.engine == "llama.cpp":
        return gguf_file(ref, plan.type, reporter)
    return checkpoint_folder(ref, reporter)


def gguf_file(ref: ModelRef, quant_type: str | None = None, reporter: Reporter = SILENT) -> Path:
    """Return the GGUF file that a name means, downloading and converting what is missing.

    Args:
        ref: of a file, folder, repository or the bundled model.
        quant_type: to convert to; None means the one that the name asks for, else the bundled
            model's own or `DEFAULT_TYPE`.
        reporter: told the bytes that are done.

    Raises:
        ModelError: something is missing and cannot be downloaded, or cannot be converted.
    """
    quant_type = quant_type or ref.type
    if ref.kind == "file":
        assert ref.path is not None
        return ref.path
    if ref.kind in ("folder", "bundled"):
        assert ref.path is not None
        default = BUNDLED_TYPE if ref.kind == "bundled" else DEFAULT_TYPE
        return _converted(ref.path, *identity(ref.path), quant_type or default, reporter)
    repository = Repository(ref.with_type(quant_type))
    here = repository.local_gguf() or _converted_before(repository)
    if here is not None:
        return here
    found = repository.gguf_or_checkpoint(reporter)
    if found.is_file():
        return found
    commit = found.name
    if repository.known_commit() is None:  # it came from huggingface_hub's cache
        repository.note_commit(commit)
    return _converted(found, *_identity(repository, commit), repository.type, reporter)


def checkpoint_folder(ref: ModelRef, reporter: Reporter = SILENT) -> Path:
    """Return the checkpoint folder that a name means, downloading it where it is a Hub's name.

    Raises:
        InputError: the name has a type or a file in it.
        ModelError: as `gguf_file`.
    """
    if ref.type or ref.file or ref.kind == "server":
        raise InputError(
            f"`{ref.text}` is not the name of a checkpoint",
            "give the folder alone, or OWNER/NAME, without a type or a file",
        )
    if ref.kind != "hub":
        assert ref.path is not None
        return ref.path
    return Repository(ref).checkpoint(reporter)


def _identity(repository: Repository, commit: str) -> tuple[str, str, str]:
    name = repository.ref.repository
    return name.replace("/", "--"), commit, name.split("/")[1]


def _converted_before(repository: Repository) -> Path | None:
    """Return what was made of a repository's checkpoint, where it is here."""
    commit = repository.known_commit()
    if commit is None or repository.ref.file is not None:
        return None
    made = _target(*_identity(repository, commit), repository.type)
    return made if made.is_file() else None


def _target(group: str, state: str, name: str, quant_type: str) -> Path:
    folder = cache_folder() / "gguf" / _CACHE_VERSION / group / state
    return folder / f"{name}-{quant_type}.gguf"


def _converted(
    checkpoint: Path, group: str, state: str, name: str, quant_type: str, reporter: Reporter
) -> Path:
    """Return the GGUF of a checkpoint, unless its files changed the one that was made before."""
    from erank_lite.convert.gguf.convert import convert_gguf

    target = _target(group, state, name, quant_type)
    if _is_whole(target):
        return target
    with exclusive(target):
        if not _is_whole(target):
            target.unlink(missing_ok=True)
            _log.info("converting %s to %s, once; kept as %s", checkpoint, quant_type, target)
            convert_gguf(checkpoint, target, quant_type, reporter=_ProgressOnly(reporter))
    return target


class _ProgressOnly(Reporter):
    """Passes progress on, but no messages: nobody asked for this conversion itself."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def progress(self, stage: str, done: int, total: int, unit: str = "B") -> None:
        self._reporter.progress(stage, done, total, unit)


def _is_whole(file: Path) -> bool:
    """Return whether a converted file is here, neither empty nor cut short since it was made."""
    if not file.is_file():
        return False
    try:
        GGUFFile.read(file)
    except ModelError as error:
        _log.warning("%s; it is converted again", error.message)
        return False
    return True
