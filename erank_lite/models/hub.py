"""Files from the Hugging Face Hub: resumed where they broke off, and checked by their digests.

huggingface_hub finds and transfers them. Its own cache is read but not written: since version 2 a
download that was stopped begins again there, which for files of 5 GB on a home connection is an
hour lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erank_lite.errors import ModelError
from erank_lite.util.network import certificates, proxy_for
from erank_lite.util.reporter import Reporter

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

_READ = 16 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubUnreachable(ModelError):
    """The Hub does not answer, or may not be asked (HF_HUB_OFFLINE)."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository: its size in bytes, and its SHA-256 or, if small, its git id."""

    name: str
    size: int
    sha256: str | None
    git_id: str | None


def listing(repository: str, revision: str | None) -> tuple[str, dict[str, RemoteFile]]:
    """Return the commit that `revision` (None: main) means, and the files of the repository there.

    Raises:
        HubUnreachable: the Hub does not answer.
        ModelError: there is no such repository or revision, or it may not be read.
    """
    from huggingface_hub import HfApi

    with _explained(repository, revision):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        files = _files(info)
        if info.sha is None or not _COMMIT.fullmatch(info.sha):
            raise ValueError("no commit")
        return info.sha, files


def _files(info: ModelInfo) -> dict[str, RemoteFile]:
    files = {}
    for entry in info.siblings or ():
        if ".." in entry.rfilename.split("/") or entry.rfilename.startswith("/"):
            continue  # no file of a repository lies outside of it
        sha256 = entry.lfs.sha256 if entry.lfs else None
        if not isinstance(entry.size, int | None):
            raise TypeError("no size")
        files[entry.rfilename] = RemoteFile(
            entry.rfilename, entry.size or 0, sha256, entry.blob_id if sha256 is None else None
        )
    return files


def download(
    repository: str,
    commit: str,
    files: list[RemoteFile],
    folder: Path,
    reporter: Reporter,
) -> None:
    """Bring `files` into `folder`, in their order; those that are there already are kept.

    Args:
        repository: its name.
        commit: of the repository.
        files: what to bring; their names are relative to `folder`.
        folder: made where it is missing.
        reporter: told the bytes that are done.

    Raises:
        HubUnreachable: the Hub does not answer; what was brought is kept, and goes on next time.
        ModelError: a file is not what the Hub says it is, the disk is too small, or a file may not
            be read.
    """
    total = sum(file.size for file in files)
    missing = [file for file in files if not (folder / file.name).is_file()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begun = sum(_size(_partial(folder / file.name)) for file in missing)
        needed = sum(file.size for file in missing) - begun
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise ModelError(
                f"{repository} needs {needed / 1e9:.1f} GB more on the disk of `{folder}`, which "
                f"has {free / 1e9:.1f} GB free",
                "make room, or set ERANK_LITE_CACHE to a folder on another disk",
            )
        done = total - sum(file.size for file in missing)
        for file in missing:
            before = done

            def report(size: int, before: int = before) -> None:
                reporter.progress("downloading", before + size, total)

            _fetch(repository, commit, file, folder / file.name, report)
            done += file.size
    except OSError as error:
        raise ModelError(f"`{folder}` cannot be written: {error.strerror or error}") from None


def _fetch(
    repository: str, commit: str, file: RemoteFile, target: Path, report: Callable[[int], None]
) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    begun = _size(partial)
    if begun > file.size:
        partial.unlink()
        begun = 0
    url = hf_hub_url(repository, file.name, revision=commit)
    with _explained(repository, commit, file.name), _Reporting(partial, report) as stream:
        stream.seek(begun)
        http_get(
            url,
            stream,
            resume_size=begun,
            headers=build_hf_headers(),
            expected_size=file.size,
        )
        os.fsync(stream.fileno())
    if _digest(partial, file) not in (file.sha256, file.git_id):
        partial.unlink()
        raise ModelError(
            f"{file.name} of {repository} arrived damaged (its digest is not the Hub's) and was "
            "removed",
            "start again; if it happens again, something between here and the Hub changes files",
        )
    partial.replace(target)


class _Reporting(io.FileIO):
    """A file that reports its length as it grows."""

    def __init__(self, path: Path, report: Callable[[int], None]) -> None:
        super().__init__(path, "r+b" if path.exists() else "w+b")
        self._report = report

    def write(self, data: Any) -> int:
        view = memoryview(data)
        while view:
            view = view[super().write(view) :]
        self._report(self.tell())
        return len(data)


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _digest(path: Path, file: RemoteFile) -> str:
    digest = hashlib.sha256()
    if file.sha256 is None:  # git's own: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while data := stream.read(_READ):
            digest.update(data)
    return digest.hexdigest()


def _http_error() -> type[Exception]:
    """Return the base of the transport's errors: which library that is differs by version."""
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__bases__[0]
    return base


def _check_way(endpoint: str) -> None:
    """Find out what would keep a request from leaving this machine.

    Raises:
        ModelError: HF_ENDPOINT, a proxy or the certificates cannot be used.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise ModelError(
            f"HF_ENDPOINT is `{endpoint}`, which is no address of a Hub",
            "write https://HOST, or unset it",
        )
    proxy_for(endpoint)
    if endpoint.startswith("https://"):
        certificates()


@contextlib.contextmanager
def _explained(repository: str, revision: str | None, file: str | None = None) -> Iterator[None]:
    """Turn the library's errors into one line each; keep its progress bars out of ours."""
    from huggingface_hub import constants, errors, utils

    hidden = utils.are_progress_bars_disabled()
    if not hidden:
        utils.disable_progress_bars()
    what = f"{file} of {repository}" if file else repository
    try:
        _check_way(constants.ENDPOINT)
        yield
    except errors.GatedRepoError:
        raise ModelError(
            f"{repository} is given only to those who accept its terms",
            f"accept them on its page on {constants.ENDPOINT}, and set HF_TOKEN to your token",
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"{repository} has no revision {revision!r}") from None
    except errors.EntryNotFoundError:
        raise ModelError(f"the Hub has no {what} (revision {revision or 'main'})") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"there is no file or folder `{repository}` here, and no such model on the Hub that "
            "may be read",
            "check the spelling; for a private model set HF_TOKEN",
        ) from None
    except errors.HFValidationError as error:
        raise ModelError(f"{repository} cannot be a name on the Hub: {error}") from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise ModelError(
                f"the Hub refuses {what} (HTTP {code})", "check HF_TOKEN, or run hf auth login"
            ) from None
        raise HubUnreachable(f"the Hub cannot serve {what} now (HTTP {code})") from None
    except errors.OfflineModeIsEnabled:
        raise HubUnreachable("HF_HUB_OFFLINE keeps the Hub from being asked") from None
    except _http_error() as error:
        detail = str(error) or type(error).__name__
        raise HubUnreachable(f"the Hub ({constants.ENDPOINT}) does not answer: {detail}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ModelError(
            f"{constants.ENDPOINT} answers what no Hub answers",
            "check HF_ENDPOINT and HF_TOKEN, and whether a proxy or a log-in page stands between",
        ) from None
    except OSError as error:
        # The library's own complaint about a body of another length than announced has no errno.
        if error.errno is not None:
            raise
        raise HubUnreachable(f"the transfer of {what} broke off") from None
    finally:
        if not hidden:
            utils.enable_progress_bars()
