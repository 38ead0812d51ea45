"""A repository on the Hugging Face Hub, as far as it is in the cache, and how the rest gets there.

What was downloaded once is used again without asking the network: the commit that a revision meant
is noted in `refs`, the repository's files lie in `snapshots/COMMIT`.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from erank_lite.errors import ModelError
from erank_lite.models import hub
from erank_lite.models.cache import exclusive
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.models.gguf import part_names
from erank_lite.models.ref import DEFAULT_TYPE, ModelRef
from erank_lite.models.safetensors import DTYPES, stored_tensors
from erank_lite.util.cache_folder import cache_folder
from erank_lite.util.reporter import SILENT, Reporter

_log = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SMALL = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja", "chat_template.json", "README.md",
)  # fmt: skip
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Repository:
    """What a name on the Hub means; `ref.kind` is "hub"."""

    ref: ModelRef

    @property
    def folder(self) -> Path:
        """Where the repository's files are kept."""
        return cache_folder() / "hub" / f"models--{self.ref.repository.replace('/', '--')}"

    @property
    def type(self) -> str:
        """The quantization type that is wanted."""
        return self.ref.type or DEFAULT_TYPE

    def local_gguf(self) -> Path | None:
        """Return the GGUF file that is wanted, where it was downloaded before."""
        commit = self.known_commit()
        if commit is None:
            return None
        snapshot = self.folder / "snapshots" / commit
        here = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*.gguf")]
        file = self.ref.file or _of_type(self.type, here)
        parts = [] if file is None else part_names(file)
        return snapshot / parts[0] if parts and set(parts) <= set(here) else None

    def local_checkpoint(self) -> Path | None:
        """Return a complete checkpoint, from our cache or from huggingface_hub's."""
        from huggingface_hub import try_to_load_from_cache

        candidates = []
        commit = self.known_commit()
        if commit is not None:
            candidates.append(self.folder / "snapshots" / commit)
        theirs = try_to_load_from_cache(
            self.ref.repository, "config.json", revision=self.ref.revision
        )
        if isinstance(theirs, str):
            candidates.append(Path(theirs).parent)
        return next((c for c in candidates if _is_complete(c)), None)

    def config(self) -> Checkpoint | None:
        """Return the JSON files of the checkpoint, downloaded without its weights.

        None where the repository holds none, or cannot be reached while nothing of it is here.
        """
        found = self.local_checkpoint()
        if found is None:
            try:
                commit, files = self._list()
                small = [files[f] for f in _SMALL if f in files and f != "tokenizer.json"]
                if "config.json" in files:
                    found = self._download(commit, small, SILENT)
            except hub.HubUnreachable:
                return None
        return None if found is None else Checkpoint.open(found)

    def gguf_or_checkpoint(self, reporter: Reporter) -> Path:
        """Return the GGUF file that is wanted or, where there is none, the checkpoint to convert.

        Raises:
            ModelError: neither is to be had.
        """
        with exclusive(self.folder / "checkpoint"):
            found = self.local_gguf()
            if found is None and self.ref.file is None:
                found = self.local_checkpoint()
            if found is not None:
                return found
            with self._explaining_what_is_missing():
                commit, files = self._list()
                parts = self._gguf_among(files)
                if parts:
                    return self._download(commit, [files[f] for f in parts], reporter) / parts[0]
                return self._download_checkpoint(commit, files, reporter)

    def checkpoint(self, reporter: Reporter) -> Path:
        """Return the checkpoint's folder, downloaded where it is not here.

        Raises:
            ModelError: it is not to be had.
        """
        with exclusive(self.folder / "checkpoint"):
            found = self.local_checkpoint()
            if found is not None:
                return found
            with self._explaining_what_is_missing():
                commit, files = self._list()
                return self._download_checkpoint(commit, files, reporter)

    def known_commit(self) -> str | None:
        """Return the commit that the revision means, where that was asked for before."""
        revision = self.ref.revision or "main"
        if _COMMIT.fullmatch(revision):
            return revision
        note = self._note
        return note.read_text("ascii").strip() if note.is_file() else None

    def note_commit(self, commit: str) -> None:
        """Remember which commit the revision means."""
        self._note.parent.mkdir(parents=True, exist_ok=True)
        self._note.write_text(commit, "ascii")

    @property
    def _note(self) -> Path:
        return self.folder / "refs" / quote(self.ref.revision or "main", safe="")

    def _list(self) -> tuple[str, dict[str, hub.RemoteFile]]:
        commit, files = hub.listing(self.ref.repository, self.ref.revision)
        self.note_commit(commit)
        return commit, files

    def _gguf_among(self, files: dict[str, hub.RemoteFile]) -> list[str]:
        """Return the GGUF file that is meant, by its parts; none where a checkpoint is meant."""
        repository = self.ref.repository
        here = sorted(f for f in files if f.endswith(".gguf"))
        if self.ref.file is not None:
            if self.ref.file not in here:
                raise ModelError(
                    f"{repository} has no file `{self.ref.file}`; it has "
                    f"{', '.join(here) or 'no GGUF files'}"
                )
            file: str | None = self.ref.file
        else:
            file = _of_type(self.type, here)
            weights = any(_WEIGHTS.fullmatch(f) for f in files)
            if file is None and not weights and here:
                raise ModelError(
                    f"{repository} has no GGUF of type {self.type}; it has {', '.join(here)}",
                    f"name one, as in {repository}/{here[0]}",
                )
        parts = [] if file is None else part_names(file)
        missing = [part for part in parts if part not in here]
        if missing:
            raise ModelError(f"{repository} has only some parts of `{file}`; it lacks {missing[0]}")
        return parts

    def _download_checkpoint(
        self, commit: str, files: dict[str, hub.RemoteFile], reporter: Reporter
    ) -> Path:
        weights = sorted(f for f in files if _WEIGHTS.fullmatch(f))
        if "config.json" not in files or not weights:
            raise ModelError(
                f"{self.ref.repository} cannot be used: it holds no checkpoint in safetensors and "
                "no GGUF"
            )
        if _INDEX in files and "model.safetensors" in weights and len(weights) > 1:
            weights.remove("model.safetensors")
        small = [f for f in (*_SMALL, _INDEX) if f in files]
        return self._download(commit, [files[f] for f in (*small, *weights)], reporter)

    def _download(self, commit: str, files: list[hub.RemoteFile], reporter: Reporter) -> Path:
        folder = self.folder / "snapshots" / commit
        size = sum(f.size for f in files)
        _log.info("downloading %s (%.1f GB) to %s", self.ref.repository, size / 1e9, folder)
        hub.download(self.ref.repository, commit, files, folder, reporter)
        return folder

    @contextlib.contextmanager
    def _explaining_what_is_missing(self) -> Iterator[None]:
        try:
            yield
        except hub.HubUnreachable as error:
            ref = self.ref
            wanted = f"{ref.repository} {ref.file or ''}".strip()
            revision = f" --revision {ref.revision}" if ref.revision else ""
            raise ModelError(
                f"{ref.repository} is not a file or folder here, and the model of that name has "
                f"not been downloaded completely: {error.message}",
                "try again when the Hub can be reached (what arrived is kept), or run hf download "
                f"{wanted}{revision} --local-dir FOLDER elsewhere and give that "
                f"{'file' if ref.file else 'folder'}",
            ) from None


def _is_complete(folder: Path) -> bool:
    """Return whether a checkpoint can be opened: weights are brought last, so all the rest is."""
    try:
        Checkpoint.open(folder)
        stored_tensors(folder, DTYPES | {"I32": 4})  # GPTQ packs its weights in integers
    except ModelError:
        return False
    return (folder / "tokenizer.json").is_file()


def _of_type(quant_type: str, names: list[str]) -> str | None:
    pattern = re.compile(rf"(?:^|[-._/]){quant_type}(?:-\d{{5}}-of-\d{{5}})?\.gguf$", re.IGNORECASE)
    return next((name for name in names if pattern.search(name)), None)
