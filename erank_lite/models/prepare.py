"""Names become files: a GGUF file, a checkpoint folder, `erank-tiny`, or a name on the hub.

What is downloaded or converted is kept in the user's cache (`cache_folder`) and used again without
asking the network:

    hub/models--OWNER--NAME/refs/REVISION           the commit that the revision meant
    hub/models--OWNER--NAME/snapshots/COMMIT/…      the repository's files
    gguf/OWNER--NAME/COMMIT/NAME-TYPE.gguf          what was converted
    calibration/OWNER--NAME/KEY/completions.jsonl   what a model wrote for its quantization
    calibration/OWNER--NAME/KEY/imatrix.gguf        how much each of its weights matters there

erank-tiny is the small model that is part of this package (see its README.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from erank_lite.errors import InputError, ModelError
from erank_lite.models import hub
from erank_lite.models.checkpoint import CheckpointFolder
from erank_lite.models.gguf import GGUFFile
from erank_lite.types import Progress

_log = logging.getLogger(__name__)

DEFAULT_TYPE = "Q4_K_M"
BUNDLED_MODEL, BUNDLED_TYPE = "erank-tiny", "Q8_0"
BUNDLED_FOLDER = Path(__file__).parents[1] / BUNDLED_MODEL
# Raised when the converter's output changes, so that files made before are made again.
_CACHE_VERSION = "1"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = r"[A-Za-z0-9][\w.-]*"
_HUB_NAME = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(?:/(?P<file>[\w./-]+\.gguf))?(?:@(?P<revision>[\w./-]+))?"
)
_SMALL = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja", "chat_template.json", "README.md",
)  # fmt: skip
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def _quiet(stage: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class HubRef:
    """`OWNER/NAME[/FILE.gguf][@REVISION][:TYPE]`, taken apart."""

    repository: str
    file: str | None
    revision: str | None
    type: str | None

    @property
    def folder(self) -> Path:
        """Where the repository's files are kept."""
        return cache_folder() / "hub" / f"models--{self.repository.replace('/', '--')}"


def cache_folder() -> Path:
    """Return the folder of all that is kept: ERANK_LITE_CACHE, or the system's place for it."""
    from platformdirs import user_cache_path

    named = os.environ.get("ERANK_LITE_CACHE")
    return Path(named).expanduser() if named else user_cache_path("erank-lite", appauthor=False)


def model_file(name: str | Path, progress: Progress = _quiet) -> Path:
    """Return the GGUF file that `name` means, downloading and converting what is missing.

    Args:
        name: a GGUF file; a checkpoint folder, or a name on the hub with an optional `@REVISION`,
            either with an optional `:TYPE` (`DEFAULT_TYPE` if there is none);
            `OWNER/NAME/FILE.gguf` for a file on the hub; or `erank-tiny`, the model in this
            package, with an optional `:TYPE` (`BUNDLED_TYPE` if there is none).
        progress: called with what is done, how many bytes of it, and of how many.

    Raises:
        InputError: the type or the name cannot be.
        ModelError: there is nothing of this name, the hub cannot be reached and something is
            missing, or the checkpoint cannot be converted.
    """
    before, colon, kind = str(name).partition(":")
    if before == BUNDLED_MODEL:
        return _from_folder(BUNDLED_FOLDER, check_type(kind) if colon else BUNDLED_TYPE, progress)
    if is_a(Path.is_file, name):
        return Path(name)
    folder, type_ = folder_and_type(str(name))
    if folder is not None:
        return _from_folder(folder, type_ or DEFAULT_TYPE, progress)
    return _from_hub(parse(str(name)), progress)


def checkpoint_folder(name: str | Path, progress: Progress = _quiet) -> Path:
    """Return the checkpoint folder that `name` means, downloading it where it is a hub's name.

    Raises:
        InputError: the name cannot be, or has a type or file in it.
        ModelError: as `model_file`.
    """
    if str(name) == BUNDLED_MODEL:
        return BUNDLED_FOLDER
    if is_a(Path.exists, name):
        return Path(name)
    if folder_and_type(str(name))[0] is not None:
        raise InputError(f"{name}: give the folder alone, and the type by itself")
    wanted = parse(str(name))
    if wanted.type or wanted.file:
        raise InputError(f"{name}: a checkpoint is named without a type or a file")
    with exclusive(wanted.folder / "checkpoint"):
        found = _local_checkpoint(wanted)
        if found is None:
            with _saying_what_is_missing(wanted):
                commit, files = _list(wanted)
                found = _bring_checkpoint(wanted, commit, files, progress)
    return found


def config_of(name: str, progress: Progress = _quiet) -> CheckpointFolder | None:
    """Return the JSON files of the checkpoint that a hub's name means, without its weights.

    None where the repository holds none, or cannot be reached while nothing of it is here.
    """
    wanted = parse(name)
    found = _local_checkpoint(wanted)
    if found is None:
        try:
            commit, files = _list(wanted)
            small = [files[f] for f in _SMALL if f in files and f != "tokenizer.json"]
            found = _bring(wanted, commit, small, progress) if "config.json" in files else None
        except hub.HubUnreachable:
            return None
    return None if found is None else CheckpointFolder.open(found)


def is_a(kind: Callable[[Path], bool], name: str | Path) -> bool:
    """Return whether there is something of this kind, such as `Path.is_file`, of that name."""
    # An empty name would mean the current folder, which is hardly what a script meant.
    if not str(name).strip():
        raise InputError("the model's name is empty: give a file, a folder or OWNER/NAME")
    try:
        return kind(Path(name))
    except (OSError, ValueError):  # longer than any name may be, or with characters of none
        raise InputError(f"{str(name)[:60]!r}… cannot be the name of a model") from None


def folder_and_type(name: str) -> tuple[Path | None, str | None]:
    """Return the folder, if `name` means one, and the type after its colon."""
    if is_a(Path.is_dir, name):
        return Path(name), None
    before, _, kind = name.rpartition(":")
    if before and Path(before).is_dir():
        return Path(before), check_type(kind)
    return None, None


def check_type(kind: str) -> str:
    """See `erank_lite.convert.gguf.convert.check_type`, which is loaded when it is wanted."""
    from erank_lite.convert.gguf.convert import check_type

    return check_type(kind)


def parse(name: str) -> HubRef:
    before, colon, kind = name.partition(":")
    match = _HUB_NAME.fullmatch(before)
    # `models/x.gguf` is meant as a file, though it could be a repository's name.
    if re.sub("[^a-z]", "", before.lower()).startswith(BUNDLED_MODEL.replace("-", "")):
        raise InputError(
            f"{name} is nothing here; the model in the package is named {BUNDLED_MODEL}, or "
            f"{BUNDLED_MODEL}:{DEFAULT_TYPE} where a type can be given"
        )
    if match is None or (match["file"] is None and match["repository"].endswith(".gguf")):
        raise ModelError(
            f"there is no file or folder {name}; a model on the hub is named OWNER/NAME, as in "
            f"Alibaba-NLP/ERank-4B:{DEFAULT_TYPE}"
        )
    if match["file"] and colon:
        raise InputError(f"{name}: a file has its type already; leave :{kind} out")
    return HubRef(
        match["repository"], match["file"], match["revision"], check_type(kind) if colon else None
    )


def identity(folder: Path) -> tuple[str, str, str]:
    """Return (group, state, name) under which what is made of a checkpoint folder is kept."""
    digest = hashlib.sha256()
    if folder == BUNDLED_FOLDER:
        # By what is in it: each environment has a copy, and all of one version are the same.
        for file in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix != ".md"):
            digest.update(file.read_bytes())
        return BUNDLED_MODEL, digest.hexdigest()[:16], BUNDLED_MODEL
    digest.update(str(folder.resolve()).encode())
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        state = file.stat()
        digest.update(f"{file.name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    name = folder.resolve().name
    return f"folder--{name}", digest.hexdigest()[:16], name


def _from_folder(folder: Path, kind: str, progress: Progress) -> Path:
    """Convert a folder, unless its files are those that were converted before."""
    return _converted(folder, *identity(folder), kind, progress)


def _from_hub(wanted: HubRef, progress: Progress) -> Path:
    local = _local(wanted)
    if local is not None:
        return local
    with exclusive(wanted.folder / "checkpoint"):
        local = _local(wanted)
        if local is not None:
            return local
        found = _local_checkpoint(wanted) if wanted.file is None else None
        if found is None:
            with _saying_what_is_missing(wanted):
                commit, files = _list(wanted)
                file = _gguf_of(wanted, files)
                if file is not None:
                    return _bring(wanted, commit, [files[file]], progress) / file
                found = _bring_checkpoint(wanted, commit, files, progress)
    return _converted_from_hub(wanted, found, progress)


def _local(wanted: HubRef) -> Path | None:
    """Return the GGUF for `wanted` that is here already."""
    commit = _known_commit(wanted)
    if commit is None:
        return None
    snapshot = wanted.folder / "snapshots" / commit
    here = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*.gguf")]
    file = wanted.file if wanted.file in here else _matching(wanted.type or DEFAULT_TYPE, here)
    if file is not None and (wanted.file is None or file == wanted.file):
        return snapshot / file
    made = _target(*_converted_name(wanted, commit))
    return made if wanted.file is None and made.is_file() else None


def _known_commit(wanted: HubRef) -> str | None:
    revision = wanted.revision or "main"
    if _COMMIT.fullmatch(revision):
        return revision
    ref = wanted.folder / "refs" / quote(revision, safe="")
    return ref.read_text("ascii").strip() if ref.is_file() else None


def _local_checkpoint(wanted: HubRef) -> Path | None:
    """Return a complete checkpoint, from our cache or from huggingface_hub's."""
    from huggingface_hub import try_to_load_from_cache

    candidates = []
    commit = _known_commit(wanted)
    if commit is not None:
        candidates.append(wanted.folder / "snapshots" / commit)
    theirs = try_to_load_from_cache(wanted.repository, "config.json", revision=wanted.revision)
    if isinstance(theirs, str):
        candidates.append(Path(theirs).parent)
    return next((c for c in candidates if _is_complete(c)), None)


def _is_complete(folder: Path) -> bool:
    """Return whether a checkpoint can be opened: weights are brought last, so all the rest is."""
    from erank_lite.models.safetensors import Checkpoint

    try:
        Checkpoint.open(folder)
    except ModelError:
        return False
    return (folder / "tokenizer.json").is_file()


def _list(wanted: HubRef) -> tuple[str, dict[str, hub.RemoteFile]]:
    commit, files = hub.listing(wanted.repository, wanted.revision)
    ref = wanted.folder / "refs" / quote(wanted.revision or "main", safe="")
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(commit, "ascii")
    return commit, files


def _gguf_of(wanted: HubRef, files: dict[str, hub.RemoteFile]) -> str | None:
    """Return the GGUF of the repository that is meant, or None where it is to be converted."""
    here = sorted(f for f in files if f.endswith(".gguf"))
    if wanted.file is not None:
        if wanted.file not in here:
            raise ModelError(
                f"{wanted.repository} has no file {wanted.file}; it has {', '.join(here) or 'none'}"
            )
        file: str | None = wanted.file
    else:
        file = _matching(wanted.type or DEFAULT_TYPE, here)
        weights = any(_WEIGHTS.fullmatch(f) for f in files)
        if file is None and not weights and here:
            raise ModelError(
                f"{wanted.repository} has no GGUF of type {wanted.type or DEFAULT_TYPE}; it has "
                f"{', '.join(here)}: name one, as in {wanted.repository}/{here[0]}"
            )
    if file is not None and _SPLIT.search(file):
        raise ModelError(
            f"{file} is one of several parts: join them with llama.cpp's llama-gguf-split --merge, "
            "and give the file"
        )
    return file


def _matching(kind: str, names: list[str]) -> str | None:
    pattern = re.compile(rf"(?:^|[-._/]){kind}(?:-\d{{5}}-of-\d{{5}})?\.gguf$", re.IGNORECASE)
    return next((name for name in names if pattern.search(name)), None)


def _bring_checkpoint(
    wanted: HubRef, commit: str, files: dict[str, hub.RemoteFile], progress: Progress
) -> Path:
    index = "model.safetensors.index.json"
    weights = sorted(f for f in files if _WEIGHTS.fullmatch(f))
    if "config.json" not in files or not weights:
        raise ModelError(
            f"{wanted.repository} holds no checkpoint in safetensors and no GGUF: it cannot be used"
        )
    if index in files and "model.safetensors" in weights and len(weights) > 1:
        weights.remove("model.safetensors")
    small = [f for f in (*_SMALL, index) if f in files]
    return _bring(wanted, commit, [files[f] for f in (*small, *weights)], progress)


def _bring(wanted: HubRef, commit: str, files: list[hub.RemoteFile], progress: Progress) -> Path:
    folder = wanted.folder / "snapshots" / commit
    size = sum(f.size for f in files)
    _log.info("downloading %s (%.1f GB) to %s", wanted.repository, size / 1e9, folder)
    hub.download(wanted.repository, commit, files, folder, progress)
    return folder


@contextlib.contextmanager
def _saying_what_is_missing(wanted: HubRef) -> Iterator[None]:
    try:
        yield
    except hub.HubUnreachable as error:
        files = f"{wanted.repository} {wanted.file or ''}".strip()
        revision = f" --revision {wanted.revision}" if wanted.revision else ""
        raise ModelError(
            f"{wanted.repository} is no file or folder here, and of the model of that name not all "
            f"has been downloaded yet: {error}. What arrived is kept: try again when the hub can "
            f"be reached, or, where it can, run hf download {files}{revision} --local-dir FOLDER, "
            f"and give that {'file' if wanted.file else 'folder'} here"
        ) from None


def _converted_name(wanted: HubRef, commit: str) -> tuple[str, str, str, str]:
    name = wanted.repository.split("/")[1]
    return wanted.repository.replace("/", "--"), commit, name, wanted.type or DEFAULT_TYPE


def _converted_from_hub(wanted: HubRef, checkpoint: Path, progress: Progress) -> Path:
    group, commit, name, kind = _converted_name(wanted, checkpoint.name)
    if _known_commit(wanted) is None:  # it came from huggingface_hub's cache
        ref = wanted.folder / "refs" / quote(wanted.revision or "main", safe="")
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit, "ascii")
    return _converted(checkpoint, group, commit, name, kind, progress)


def _target(group: str, state: str, name: str, kind: str) -> Path:
    return cache_folder() / "gguf" / _CACHE_VERSION / group / state / f"{name}-{kind}.gguf"


def _converted(
    checkpoint: Path, group: str, state: str, name: str, kind: str, progress: Progress
) -> Path:
    from erank_lite.convert.gguf.convert import convert_gguf

    target = _target(group, state, name, kind)
    if _is_whole(target):
        return target
    with exclusive(target):
        if not _is_whole(target):
            target.unlink(missing_ok=True)
            _log.info("converting %s to %s, once; it is kept as %s", checkpoint, kind, target)
            convert_gguf(
                checkpoint, target, kind, check_perplexity=group != BUNDLED_MODEL, progress=progress
            )
    return target


def _is_whole(file: Path) -> bool:
    """Return whether a converted file is here, neither empty nor cut short since it was made."""
    if not file.is_file():
        return False
    try:
        GGUFFile.read(file)
    except ModelError as error:
        _log.warning("%s; it is converted again", error)
        return False
    return True


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time make `path`; the others wait, and find it made."""
    from filelock import FileLock, Timeout

    file = path.with_name(f"{path.name}.wait")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.warning("another process is making %s; waiting for it", path.name)
            lock.acquire()
    except OSError as error:
        raise ModelError(
            f"{path.parent} cannot be written ({error.strerror}): name another place for downloads "
            "and converted files by ERANK_LITE_CACHE"
        ) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # nothing came of it
            path.parent.rmdir()


@dataclass(frozen=True)
class CachedFile:
    """One thing in the cache: a model's name, what of it, its bytes, and where it is."""

    name: str
    what: str
    size: int
    path: Path


def cached() -> list[CachedFile]:
    """Return all that is in the cache: checkpoints, GGUF files, and what was begun.

    Raises:
        ModelError: the cache's folder is none.
    """
    entries = []
    root = cache_folder()
    if root.exists() and not root.is_dir():
        raise ModelError(f"{root} is a file, not a folder for a cache: set ERANK_LITE_CACHE anew")
    for snapshot in sorted(root.glob("hub/models--*/snapshots/*")):
        name = snapshot.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        what = f"download of {snapshot.name[:8]}"
        entries.append(CachedFile(name, what, _bytes(snapshot), snapshot))
    for state in sorted(root.glob("gguf/*/*/*")):
        name = state.parent.name.replace("--", "/", 1)
        for file in sorted(state.glob("*.gguf*")):
            if file.suffix in (".gguf", ".partial"):
                done = file.suffix == ".gguf"
                what = file.stem.rpartition("-")[2] if done else "unfinished conversion"
                entries.append(CachedFile(name, what, file.stat().st_size, file))
    for pattern, what in (("*.jsonl", "calibration text"), ("imatrix.gguf", "importance matrix")):
        for file in sorted(root.glob(f"calibration/*/*/{pattern}")):
            name = file.parent.parent.name.replace("--", "/", 1)
            entries.append(CachedFile(name, what, file.stat().st_size, file))
    return entries


def clear(name: str | None = None) -> int:
    """Remove what the cache holds of one model, by its name in `cached`, or all; return bytes.

    Raises:
        InputError: it holds nothing of that name.
        ModelError: something cannot be removed.
    """
    found = [entry for entry in cached() if name in (None, entry.name)]
    if name is not None and not found:
        names = sorted({entry.name for entry in cached()})
        raise InputError(f"the cache holds no {name}; it holds {', '.join(names) or 'nothing'}")
    try:
        for entry in found:
            # The folder of the model, with all that was noted of it.
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(entry.path.parent.parent)
    except OSError as error:
        raise ModelError(f"{error.filename} cannot be removed: {error.strerror}") from None
    return sum(entry.size for entry in found)


def _bytes(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
