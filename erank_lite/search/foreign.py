"""PDF and Word documents, read in a process of its own that may take only so much.

Their formats are large, and files come from anywhere: what is damaged or made to do harm must cost
no more than the file itself.
"""

from __future__ import annotations

import os
import signal
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from erank_lite.search.files import MAX_BYTES, FileText, Unreadable, joined
from erank_lite.search.html import html_text
from erank_lite.util import worker
from erank_lite.util.units import file_size

_SECONDS = 30  # for a file
_MEMORY = 2 << 30
_MAX_UNPACKED = 200 << 20  # of a Word document


def read_foreign(paths: Iterable[Path]) -> Iterator[tuple[Path, FileText | Unreadable]]:
    """Yield the text of PDF and Word documents, or why there is none, in the order given.

    A file that ends the process that reads it, or takes longer than half a minute or more memory
    than 2 GiB, is one that cannot be read; the others are.
    """
    left = list(paths)
    while left:
        done = 0
        names = [str(path) for path in left]
        messages = worker.run("erank_lite.search.foreign", {"paths": names}, "the reader")
        try:
            for message in messages:
                yield left[done], _result(message)
                done += 1
        except worker.WorkerError as error:
            yield left[done], Unreadable(_why(error))
            done += 1
        left = left[done:]


def _result(message: worker.Message) -> FileText | Unreadable:
    if "unreadable" in message:
        return Unreadable(message["unreadable"])
    if "pages" in message:
        return joined(message["pages"])
    return FileText(message["text"], True, None, [])


def _why(error: worker.WorkerError) -> str:
    if error.signal == "SIGALRM":
        return f"it took longer than {_SECONDS} seconds"
    if "MemoryError" in error.reason or "bad_alloc" in error.reason:
        return f"it asked for more than {_MEMORY >> 30} GiB of memory"
    return f"it ends the program that reads it ({error.signal or error.reason})"


def _read_all(send: worker.Send, paths: list[str]) -> None:
    """Send the text of each file; the process ends where one takes more than it may."""
    _limit()
    for path in paths:
        if hasattr(signal, "alarm"):
            signal.alarm(_SECONDS)  # the system's own answer to it ends C code too
        try:
            send(_read(Path(path)))
        except Unreadable as error:
            send({"unreadable": str(error)})
        except OSError as error:
            send({"unreadable": error.strerror or str(error)})


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on this system
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = _MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _read(path: Path) -> worker.Message:
    if os.stat(path).st_size > MAX_BYTES:
        raise Unreadable(f"larger than {file_size(MAX_BYTES)}")
    if path.suffix.lower() == ".pdf":
        return {"pages": _pdf(path)}
    return {"text": _word(path)}


def _pdf(path: Path) -> list[str]:
    import pypdfium2

    try:
        with pypdfium2.PdfDocument(path) as document:
            pages = []
            for page in document:
                text = page.get_textpage()
                pages.append(text.get_text_bounded().replace("\r\n", "\n").replace("\0", ""))
                text.close()
                page.close()
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Unreadable("it is encrypted") from None
        raise Unreadable(f"it is damaged ({error})") from None
    if not any(page.strip() for page in pages):
        raise Unreadable("it has no text, only images of it")
    return pages


def _word(path: Path) -> str:
    import mammoth

    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_UNPACKED:
                raise Unreadable(f"it unpacks to more than {file_size(_MAX_UNPACKED)}")
        with path.open("rb") as file:
            # Images would be in the text, as long lines of base64.
            html = mammoth.convert_to_html(
                file, convert_image=mammoth.images.img_element(lambda image: {"src": ""})
            ).value
    except (Unreadable, OSError, MemoryError):
        raise
    except Exception as error:  # of a damaged file it raises what comes
        raise Unreadable(f"it is damaged ({type(error).__name__})") from None
    return "\n".join(html_text(html)[0])


if __name__ == "__main__":
    worker.serve(_read_all)
